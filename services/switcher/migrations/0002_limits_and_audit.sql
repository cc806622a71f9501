-- Each front says how long it may serve by what it has; a lease from before is given a day.
alter table switcher.reader_leases add column may_serve_for interval not null default interval '1 day';
alter table switcher.reader_leases alter column may_serve_for drop default;

-- The epoch of a rollback whose runs are still to be woken; 0 = none. Written by its commit, so that neither a lost
-- caller nor a replayer that is away leaves the active version without its run.
alter table switcher.routes add column wake_epoch bigint not null default 0;

-- The audit of released_versions: one row a change, in its transaction.
create table switcher.release_changes (
    id             bigint      generated always as identity primary key,
    job            text        not null,
    version        integer     not null,
    command        text        not null check (command in ('RELEASE', 'REINSTATE')),
    claimed_actor  text        not null,                -- as the caller says; unverified
    forgo_rollback boolean     not null,                -- the caller gave up a protected way back, if there was one
    commit_time    timestamptz not null
);
create index release_changes_by_version on switcher.release_changes (job, version);
