-- One schema for SQLite and PostgreSQL. A statement ends with a semicolon at the end of a line.
-- Times are microseconds since 1970 in UTC. Certificate serials are 40 lower-case hexadecimal digits (RFC 5280
-- 4.1.2.2: up to 20 octets, more than any integer column holds).

CREATE TABLE device (
    kind TEXT NOT NULL,
    value TEXT NOT NULL,
    user_name TEXT NOT NULL,
    profile TEXT NOT NULL,
    services TEXT NOT NULL,  -- JSON array
    note TEXT NOT NULL,
    enabled BOOLEAN NOT NULL,
    approval BOOLEAN NOT NULL,
    valid_until BIGINT,
    attributes TEXT NOT NULL,  -- JSON object
    created_at BIGINT NOT NULL,
    PRIMARY KEY (kind, value)
);

CREATE INDEX device_by_value ON device (value);

CREATE TABLE enrollment (
    enrollment_id TEXT NOT NULL PRIMARY KEY,
    profile TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    requester BYTEA NOT NULL,
    csr_digest BYTEA NOT NULL,
    csr BYTEA NOT NULL,
    spki_digest BYTEA NOT NULL,
    ca TEXT NOT NULL,
    state TEXT NOT NULL,
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    proof TEXT NOT NULL,
    source TEXT NOT NULL,
    hold TEXT NOT NULL,
    decided_by TEXT NOT NULL,
    note TEXT NOT NULL,
    refusal TEXT NOT NULL,
    renewal_of TEXT,
    certificate_serial TEXT,
    signing_order BYTEA,
    subject BYTEA,
    subject_alt_name BYTEA,
    created_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    closed_at BIGINT
);

-- What makes two requests the same, as long as the first counts. The prefix without csr_digest finds the newest request
-- of a transaction as well.
CREATE UNIQUE INDEX enrollment_by_key_and_csr ON enrollment (profile, transaction_id, requester, csr_digest)
    WHERE closed_at IS NULL;

-- One successor per certificate, whichever of two renewals comes first.
CREATE UNIQUE INDEX enrollment_by_renewal ON enrollment (ca, renewal_of)
    WHERE renewal_of IS NOT NULL AND state IN ('issuing', 'issued');

CREATE INDEX enrollment_by_state ON enrollment (state, created_at);

CREATE INDEX enrollment_by_device ON enrollment (device_kind, device_value, created_at);

-- Is another device about to get a certificate for this key?
CREATE INDEX enrollment_by_key ON enrollment (spki_digest) WHERE state = 'issuing';

-- Why each request was let in, put off or refused. decision_id is the enrollment_id where there is an enrollment.
CREATE TABLE decision (
    decision_id TEXT NOT NULL PRIMARY KEY,
    decided_at BIGINT NOT NULL,
    profile TEXT NOT NULL,
    transaction_id TEXT NOT NULL,
    source TEXT NOT NULL,
    device_kind TEXT,
    device_value TEXT,
    outcome TEXT NOT NULL,
    code TEXT NOT NULL,
    record TEXT NOT NULL
);

CREATE INDEX decision_by_time ON decision (outcome, decided_at);

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
    spki_digest BYTEA NOT NULL,
    not_before BIGINT NOT NULL,
    not_after BIGINT NOT NULL,
    issued_at BIGINT NOT NULL,
    successor TEXT,
    revoke_at BIGINT,
    revoked_at BIGINT,
    revocation_reason BIGINT,
    PRIMARY KEY (ca, certificate_serial)
);

CREATE INDEX certificate_by_device ON certificate (device_kind, device_value, issued_at);

-- Is this key certified for another device?
CREATE INDEX certificate_by_key ON certificate (spki_digest);

CREATE INDEX certificate_to_revoke ON certificate (revoke_at) WHERE revoke_at IS NOT NULL AND revoked_at IS NULL;

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
