-- Routes, how they changed, and who reads by them. Times are the database's own: replicas need no common clock.
create schema if not exists switcher;

-- The revision of the watch. Every transaction that changes what fronts are told locks this row for update and adds
-- one, so that commit order is revision order; a front that registers holds a share lock on it, so that it either is
-- seen by the commit, or has the committed route in its snapshot. Locks are taken in the order route, revision.
create table switcher.revision (
    only_row boolean primary key default true check (only_row),
    value    bigint  not null default 0
);
insert into switcher.revision default values;

-- One row a job, made (with epoch 0) before the first cutover so that there is something to lock.
create table switcher.routes (
    job              text        primary key,
    epoch            bigint      not null default 0,
    route            jsonb,                             -- null at epoch 0
    way_back         jsonb,                             -- the route as it was before the last cutover
    protected_until  timestamptz,                       -- until when a release must not take the way back
    proposal         text        not null default '',   -- that the route came from
    revision         bigint      not null default 0,
    traceparent      text        not null default '',
    update_time      timestamptz,
    view_due_epoch   bigint      not null default 0,    -- epoch in which the active version last changed
    view_epoch       bigint      not null default 0,    -- epoch that the SQL view has followed
    view_version     integer     not null default 0,    -- version that it shows since
    view_waiting_for text        not null default ''
);

-- The audit: one row a committed change, in its transaction.
create table switcher.route_changes (
    job              text        not null references switcher.routes,
    epoch            bigint      not null,
    command          text        not null,
    claimed_actor    text        not null,              -- as the caller says; unverified
    reason           text        not null,
    request_id       text        not null,
    gates            jsonb       not null,              -- with their evidence
    warnings         jsonb       not null,
    route            jsonb       not null,
    rollback_version integer     not null,
    protected_until  timestamptz,
    commit_time      timestamptz not null,
    primary key (job, epoch)
);

-- Routes that may be, are, or will not be committed.
create table switcher.proposals (
    proposal    text        primary key,
    job         text        not null references switcher.routes,
    epoch       bigint      not null,                   -- the route's, once committed
    route       jsonb       not null,
    state       text        not null check (state in ('OPEN', 'COMMITTED', 'CANCELLED')),
    revision    bigint      not null,                   -- of its last change
    deadline    timestamptz not null,                   -- still open after it: its proposer is dead
    described   text        not null,                   -- who wants what, for another operator
    traceparent text        not null,
    create_time timestamptz not null default now()
);
create unique index one_open_proposal on switcher.proposals (job) where state = 'OPEN';
create index proposals_by_revision on switcher.proposals (revision);

-- First answers, so that a repeated request changes nothing.
create table switcher.requests (
    request_id  text        primary key,
    fingerprint bytea       not null,                   -- of the request, so that an id is not used for two
    answer      bytea       not null,                   -- turnout.switcher.v1.RouteChange
    create_time timestamptz not null default now()
);

-- Who reads: a front's presence.
create table switcher.reader_leases (
    front   text        primary key,
    stream  text        not null,                       -- the watch stream that may renew it
    address text        not null,
    expires timestamptz not null,
    ended   boolean     not null default false          -- the front said goodbye
);

create table switcher.reports (
    front    text        not null references switcher.reader_leases on delete cascade,
    proposal text        not null references switcher.proposals on delete cascade,
    state    text        not null check (state in ('PREPARED', 'SERVING', 'DRAINED', 'NACK')),
    reason   text        not null,
    at       timestamptz not null,
    primary key (front, proposal, state)
);

-- Which front may still be reading which version.
create table switcher.served_versions (
    front   text    not null references switcher.reader_leases on delete cascade,
    job     text    not null,
    version integer not null,
    epoch   bigint  not null,                           -- the newest that names the version
    drained boolean not null default false,             -- of every read under an epoch up to that one
    primary key (front, job, version)
);
create index served_by_version on switcher.served_versions (job, version);

create table switcher.released_versions (
    job          text        not null,
    version      integer     not null,
    release_time timestamptz not null,
    primary key (job, version)
);
