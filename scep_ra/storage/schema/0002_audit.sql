-- The audit log: chains of records, each sealed to the one before it by its digest. Nothing updates or deletes here.

CREATE TABLE audit (
    chain TEXT NOT NULL,
    sequence BIGINT NOT NULL,
    at BIGINT NOT NULL,
    actor TEXT NOT NULL,
    event TEXT NOT NULL,
    facts TEXT NOT NULL,
    digest BYTEA NOT NULL,
    PRIMARY KEY (chain, sequence)
);

-- Where each chain stands. Whoever appends holds the row until the commit, so a chain never forks.
CREATE TABLE audit_head (
    chain TEXT NOT NULL PRIMARY KEY,
    sequence BIGINT NOT NULL,
    digest BYTEA NOT NULL
);
