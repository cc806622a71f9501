-- Rollouts: each is one row, changed by compare-and-set on its revision, and all that it has been through.
create table switcher.rollouts (
    number        bigint      primary key generated always as identity,
    name          text        not null unique,          -- jobs/{job}/rollouts/{rollout}
    job           text        not null,
    rollout       jsonb       not null,                 -- all there is to know
    revision      bigint      not null default 0,       -- grows with every change
    over          boolean     not null default false,
    findings      jsonb       not null default '[]',    -- of the last look, for people
    claimed_actor text        not null,
    reason        text        not null,
    request_id    text        not null,
    fingerprint   bytea       not null,
    create_time   timestamptz not null default clock_timestamp(),
    end_time      timestamptz
);
create unique index one_rollout_goes_on on switcher.rollouts (job) where not over;
create index rollouts_of_request on switcher.rollouts (request_id) where request_id <> '';

create table switcher.rollout_decisions (
    number      bigint      not null references switcher.rollouts on delete cascade,
    decision    integer     not null,                   -- 1, 2, ... of the rollout
    action      text        not null,
    state       text        not null,                   -- afterwards
    step        integer     not null,                   -- afterwards; its place in the plan, from 0
    sentence    text        not null,
    actor       text        not null,
    reason      text        not null,
    record      bytea       not null,                   -- JSON, to the byte
    create_time timestamptz not null,
    primary key (number, decision)
);
