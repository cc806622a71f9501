-- A run may be held for a moment, so that its table can be compared with another at one cut of the log.
alter table serving.positions
    add column hold_at    bigint,                                 -- while held, no batch goes beyond this offset
    add column hold_until timestamptz not null default '-infinity',   -- it releases itself then
    add column hold_by    text;                                   -- the comparison that asked for it

-- Comparisons of two tables, with what may differ and what did.
create table replayer.comparisons (
    id              text        primary key,
    job             text        not null,
    old_version     text        not null,                -- "jobs/{job}/versions/{number}"
    new_version     text        not null,
    contract        text,                                -- JSON as turnout.contract.encode writes it; null = none
    sample_size     integer     not null check (sample_size > 0),
    range_rows      integer     not null check (range_rows >= 0),   -- asked for; 0 = as many as a moment allows
    allow_unaligned boolean     not null,
    align_within_s  double precision not null,
    plan            text        not null,                -- JSON: what is compared with what
    rows_expected   bigint      not null,                -- of both tables, as PostgreSQL estimates them
    request_id      text        not null,
    create_time     timestamptz not null default now(),
    end_time        timestamptz,                         -- null = not all ranges are compared yet
    passed          boolean,                             -- null = unfinished, or there is no contract
    findings        text[]      not null default '{}'
);
create unique index comparisons_request_id on replayer.comparisons (request_id) where request_id <> '';
create index comparisons_of_job on replayer.comparisons (job, create_time desc);

-- Ranges of keys that are compared already, each at a cut of its own.
create table replayer.comparison_ranges (
    comparison    text             not null references replayer.comparisons on delete cascade,
    number        integer          not null,             -- from 0
    after_key     text[],                                -- the range begins behind this key; null = with the first
    last_key      text[],                                -- its last key; null = the last one of all
    aligned       boolean          not null,             -- both tables stood at the same offsets
    exact         boolean          not null,             -- and began at the same
    unaligned_why text             not null default '',
    positions_old text             not null,             -- JSON: [[topic, partition, next_offset, event time or null], ...]
    positions_new text             not null,
    cut_time      timestamptz      not null,
    held_s        double precision not null,             -- for how long the runs were held
    took_s        double precision not null,
    totals        text             not null,             -- JSON: counts, and the differences of each column
    samples       bytea[]          not null,             -- turnout.replayer.v1.RowDifference
    primary key (comparison, number)
);
