-- What only the replayer reads.

create table replayer.runs (
    version         text        primary key,         -- "jobs/{job}/versions/{number}"
    job             text        not null,
    number          integer     not null,
    state           text        not null
        check (state in ('QUEUED', 'REPLAYING', 'TAILING', 'PAUSED', 'STOPPED', 'FAILED')),
    failure_reason  text        not null default '',
    failure_message text        not null default '',
    artifact_digest text        not null,
    definition      text        not null,            -- canonical JSON, byte for byte as registered
    workers         integer     not null check (workers > 0),
    rate_limit      bigint      not null check (rate_limit >= 0),   -- records a second; 0 = none
    output_table    text        not null,            -- in the schema "serving"
    topic_ids       jsonb       not null,            -- topic -> id at the broker, pinned at the start
    start_times     jsonb       not null,            -- [[topic, partition, Unix milliseconds of its first record], ...]
    indexes_built   boolean     not null default false,
    worker_restarts bigint      not null default 0,
    revision        bigint      not null default 1,  -- grows with every change; of two copies the higher is newer
    request_id      text        not null,            -- of StartRun; empty = none was given
    create_time     timestamptz not null default now(),
    catch_up_time   timestamptz,                     -- when it first came to the end of the log
    drop_time       timestamptz,                     -- when its table was dropped
    unique (job, number)
);

create unique index runs_request_id on replayer.runs (request_id) where request_id <> '';

-- What the SQL view named like a job shows.
create table replayer.views (
    job     text   primary key,
    version text   not null,
    epoch   bigint not null                          -- of the route that the move followed
);
