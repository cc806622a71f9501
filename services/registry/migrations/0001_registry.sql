-- Jobs, versions, retirements. Owned and read by the registry alone.

create table registry.jobs (
    job          text collate "C" primary key,
    description  text not null,
    last_number  integer not null default 0,      -- the highest number ever given to a version
    create_time  timestamptz not null
);

create table registry.artifacts (
    digest       text primary key,                -- SHA-256, hexadecimal
    content      bytea not null,
    create_time  timestamptz not null
);
-- Uncompressed, so that a piece is read without the rest.
alter table registry.artifacts alter column content set storage external;

create table registry.versions (
    job              text collate "C" not null references registry.jobs,
    number           integer not null check (number > 0),
    state            text not null check (state in ('REGISTERED', 'RETIRING', 'RETIRED', 'DROPPED')),
    definition_json  text not null,               -- not jsonb: its bytes are the definition's identity
    artifact_digest  text not null references registry.artifacts,
    artifact_bytes   bigint not null,
    create_time      timestamptz not null,
    primary key (job, number)
);

-- One row for each version that is not REGISTERED.
create table registry.retirements (
    job             text collate "C" not null,
    number          integer not null,
    step            text not null,
    retain_for      interval not null,
    forgo_rollback  boolean not null,
    claimed_actor   text not null,
    start_time      timestamptz not null,
    drop_time       timestamptz,
    waiting_for     text not null,
    failures        integer not null,
    resume_run      boolean not null,
    next_time       timestamptz,                  -- when the step is looked at; null = never again
    claim           uuid,                         -- whoever makes the step's call, until next_time; null = nobody
    primary key (job, number),
    foreign key (job, number) references registry.versions
);
create index on registry.retirements (next_time);

-- Answers of requests that carried an id.
create table registry.requests (
    method       text not null,
    request_id   text not null,
    fingerprint  bytea not null,                  -- SHA-256 of the request
    answer       bytea not null,
    create_time  timestamptz not null,
    primary key (method, request_id)
);
create index on registry.requests (create_time);

create table registry.audit (
    id             bigint generated always as identity primary key,
    time           timestamptz not null,
    job            text not null,
    number         integer,                       -- null = the job itself
    action         text not null,
    claimed_actor  text not null                  -- as the caller claims; empty = the registry itself, or not told
);
create index on registry.audit (job, id);
