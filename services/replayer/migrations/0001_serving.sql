-- What the replayer writes and the query fronts read. Output tables are made by StartRun beside these.
create schema if not exists serving;

-- One row for each partition of a run: how far its table reflects the log, and who may write. It changes in the
-- transaction of the rows, so that rows and positions are never apart.
create table serving.positions (
    version          text        not null,   -- "jobs/{job}/versions/{number}"
    topic            text        not null,
    partition        integer     not null,
    start_offset     bigint      not null,   -- where the run began; the coverage gate looks at it
    next_offset      bigint      not null,   -- every record before it is committed in the table
    event_time       timestamptz,            -- newest event time applied
    records          bigint      not null default 0,   -- read since the start
    set_aside        bigint      not null default 0,   -- of those, malformed and set aside
    fence            bigint      not null default 0,   -- number of the run lease; grows with every take-over
    owner            text,                   -- worker that holds the lease; null = nobody
    owner_pid        integer,                -- its backend, so that a take-over can end it
    lease_expires    timestamptz not null default '-infinity',
    last_offset      bigint,                 -- identity of the last applied record: offset, timestamp, checksum
    last_timestamp_ms bigint,
    last_crc         bigint,
    primary key (version, topic, partition)
) with (fillfactor = 50);                    -- updated all the time, in place

-- Records that could not be decoded, transformed or stored, with policy "set aside".
create table serving.dead_letters (
    version      text        not null,
    topic        text        not null,
    partition    integer     not null,
    "offset"     bigint      not null,
    reason       text        not null,
    key          bytea,
    value        bytea,
    recorded_at  timestamptz not null default now(),
    primary key (version, topic, partition, "offset")
);
