-- What headends report, what they are to be told, and devices that were cut off.

CREATE TABLE live_session (
    headend TEXT NOT NULL,
    session_id TEXT NOT NULL,
    user_name TEXT NOT NULL,
    device_kind TEXT,
    device_value TEXT,
    nas_address TEXT NOT NULL,
    nas_identifier TEXT NOT NULL,
    framed_address TEXT NOT NULL,
    calling_station TEXT NOT NULL,
    started_at BIGINT NOT NULL,
    updated_at BIGINT NOT NULL,
    PRIMARY KEY (headend, session_id)
);

CREATE INDEX live_session_by_device ON live_session (device_kind, device_value);

CREATE INDEX live_session_by_time ON live_session (updated_at);

-- due_at is also the end of the lease of whoever is sending.
CREATE TABLE outbox (
    message_id TEXT NOT NULL PRIMARY KEY,
    kind TEXT NOT NULL,
    target TEXT NOT NULL,
    payload TEXT NOT NULL,  -- JSON object
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    created_at BIGINT NOT NULL,
    due_at BIGINT NOT NULL,
    attempts BIGINT NOT NULL,
    settled_at BIGINT,
    result TEXT NOT NULL
);

CREATE INDEX outbox_due ON outbox (due_at) WHERE settled_at IS NULL;

CREATE INDEX outbox_unsettled ON outbox (device_kind, device_value) WHERE settled_at IS NULL;

CREATE INDEX outbox_settled ON outbox (settled_at) WHERE settled_at IS NOT NULL;

-- The newest of each device only: an intent that AAA allowed before it must not outlive it.
CREATE TABLE disconnection (
    device_kind TEXT NOT NULL,
    device_value TEXT NOT NULL,
    disconnected_at BIGINT NOT NULL,
    revocation_reason BIGINT NOT NULL,
    PRIMARY KEY (device_kind, device_value)
);

CREATE INDEX disconnection_by_time ON disconnection (disconnected_at);

-- Why the certificate of an open intent is to be revoked in the moment when it is stored; NULL = it is not.
ALTER TABLE enrollment ADD COLUMN revocation_reason BIGINT;
