-- What progress shows besides offsets, and where a bounded range ends.
alter table serving.positions
    add column rows_written  bigint not null default 0,   -- sent to the table; one that is written twice counts twice
    add column bytes_written bigint not null default 0,   -- of those rows, approximately
    add column range_end     bigint;                      -- of the version's bounded range; null = goes on as a tail

alter table replayer.runs
    add column priority       integer     not null default 0 check (priority between -100 and 100),
    add column queue_time     timestamptz not null default now(),   -- since when it has waited for its copy
    add column stuck_restarts bigint      not null default 0,       -- of worker_restarts: alive, and stood still
    drop constraint runs_state_check,
    add constraint runs_state_check
        check (state in ('QUEUED', 'REPLAYING', 'TAILING', 'PAUSED', 'STOPPED', 'FAILED', 'COMPLETED'));

-- The budget that all copies share; one row.
create table replayer.capacity (
    only_row           boolean          primary key default true check (only_row),
    copies_max         integer          not null default 2 check (copies_max >= 0),          -- 0 = no limit
    rows_per_s_max     bigint           not null default 0 check (rows_per_s_max >= 0),      -- 0 = no limit
    storage_bytes_max  bigint           not null default 0 check (storage_bytes_max >= 0),   -- 0 = no limit
    read_p99_ratio_max double precision not null default 1.3 check (read_p99_ratio_max >= 0), -- 0 = reads do not count
    revision           bigint           not null default 1                                   -- its etag
);
insert into replayer.capacity default values;

-- Replayer processes on this database; each is live until its lease expires.
create table replayer.replicas (
    instance text        primary key,
    started  timestamptz not null default now(),
    expires  timestamptz not null
);

-- What holds the rate of a run down at the moment; written by the replica that governs.
create table replayer.throttles (
    version       text             primary key references replayer.runs on delete cascade,
    reason        text             not null,
    records_per_s double precision not null,
    message       text             not null,
    at            timestamptz      not null default now()
);
