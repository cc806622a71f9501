-- A proposal may hold the routes of several jobs, which are committed together or not at all.
create table switcher.proposal_routes (
    proposal          text      not null references switcher.proposals on delete cascade,
    job               text      not null references switcher.routes,
    epoch             bigint    not null,               -- the route's, once committed
    route             jsonb     not null,
    way_back_versions integer[] not null,               -- that fronts must be able to read back
    open              boolean   not null,               -- the proposal's state is OPEN
    primary key (proposal, job)
);
create unique index one_open_proposal_a_job on switcher.proposal_routes (job) where open;
insert into switcher.proposal_routes select proposal, job, epoch, route, '{}', state = 'OPEN' from switcher.proposals;

drop index switcher.one_open_proposal;
alter table switcher.proposals
    drop column job,
    drop column epoch,
    drop column route,
    add column emergency      boolean not null default false, -- gives way to no other proposal
    add column request_id     text    not null default '',    -- that it carries out
    add column fingerprint    bytea   not null default '',    -- of that request
    add column counted        text[]  not null default '{}',  -- fronts with a live lease at the commit
    add column closed_because text    not null default '';    -- CANCELLED: why
create index open_proposals_by_request on switcher.proposals (request_id) where state = 'OPEN';

-- The revision in which the route last changed together with those of other jobs; 0 = never.
alter table switcher.routes add column group_revision bigint not null default 0;
-- The revision of the change, where it was one of several jobs; else 0.
alter table switcher.route_changes add column group_revision bigint not null default 0;
create index route_changes_by_request on switcher.route_changes (request_id) where request_id <> '';

-- What is pending is found without a look at every route.
create index pending_views on switcher.routes (job) where view_epoch < view_due_epoch;
create index pending_wakes on switcher.routes (job) where wake_epoch > 0;

-- The committed proposal whose adoption is not in the answer yet; empty = the answer is whole.
alter table switcher.requests add column proposal text not null default '';
delete from switcher.requests; -- answers are kept in another form from now on
