-- One schema for SQLite and PostgreSQL. A statement ends with a semicolon at the end of a line.
-- Times are microseconds since 1970 in UTC. Certificate serials are 40 lower-case hexadecimal digits (RFC 5280
-- 4.1.2.2: up to 20 octets, more than any integer column holds).

CREATE TABLE device (
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    user_name TEXT NOT NULL,
    profile TEXT NOT NULL,
    note TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, value)
);

CREATE INDEX device_by_value ON device (value);

-- What makes two requests the same. The prefix without csr_digest finds the newest request of a transaction as well.
CREATE TABLE enrollment (
    enrollment_id TEXT NOT NULL PRIMARY KEY,
    profile TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    requester BYTEA NOT NULL,
    csr_digest BYTEA NOT NULL,
    csr BYTEA NOT NULL,
    ca TEXT NOT NULL,
    state TEXT NOT NULL,
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    renewal_of TEXT,
    certificate_serial TEXT,
    signing_order BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    UNIQUE (profile, transaction_id, requester, csr_digest)
);

-- One successor per certificate, whichever of two renewals comes first.
CREATE UNIQUE INDEX enrollment_by_renewal ON enrollment (ca, renewal_of)
    WHERE renewal_of IS NOT NULL AND state IN ('issuing', 'issued');

CREATE INDEX enrollment_open ON enrollment (created_at) WHERE state = 'issuing';

CREATE INDEX enrollment_pending ON enrollment (profile, created_at) WHERE state = 'pending';

-- No reference to device: a device may be known to another AAA backend only.
CREATE TABLE challenge (
    digest BYTEA NOT NULL PRIMARY KEY,
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    profile TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    expires_at BIGINT NOT NULL,
    used_by TEXT REFERENCES enrollment (enrollment_id),
    sealed BYTEA
);

CREATE INDEX challenge_unused ON challenge (device_kind, device_value) WHERE used_by IS NULL;

CREATE INDEX challenge_spent ON challenge (used_by) WHERE sealed IS NOT NULL;

CREATE INDEX challenge_sealed ON challenge (profile, expires_at) WHERE sealed IS NOT NULL;

CREATE TABLE certificate (
    ca TEXT NOT NULL,
    certificate_serial TEXT NOT NULL,
    profile TEXT NOT NULL,
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    der BYTEA NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    successor TEXT,
    revoked_at BIGINT,
    revocation_reason BIGINT,
    PRIMARY KEY (ca, certificate_serial)
);

CREATE INDEX certificate_by_device ON certificate (device_kind, device_value, issued_at);

-- Holds all that a CRL line needs, so that a long list is read without touching the certificates.
CREATE INDEX certificate_revoked ON certificate (ca, certificate_serial, not_after, revoked_at, revocation_reason)
    WHERE revoked_at IS NOT NULL;

-- How many revocations a CA has seen: tells a CRL that is out of date even when the clock stood still.
CREATE TABLE revocation_counter (
    ca TEXT NOT NULL PRIMARY KEY,
    revocation_sequence BIGINT NOT NULL
);

-- The newest of each CA only; numbers must rise.
CREATE TABLE crl (
    ca TEXT NOT NULL PRIMARY KEY,
    crl_number BIGINT NOT NULL,
    der BYTEA NOT NULL,
    this_update BIGINT NOT NULL,
    next_update BIGINT NOT NULL,
    revocation_sequence BIGINT NOT NULL
);
