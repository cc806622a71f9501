-- name: make_routes
insert into switcher.routes (job) select unnest($1::text[]) on conflict do nothing

-- name: state_of_route
select coalesce(epoch, 0) as epoch, route, way_back, protected_until, coalesce(proposal, '') as proposal,
       coalesce(revision, 0) as revision, coalesce(traceparent, '') as traceparent, update_time,
       coalesce(group_revision, 0) as group_revision,
       coalesce(view_due_epoch, 0) as view_due_epoch, coalesce(view_epoch, 0) as view_epoch,
       coalesce(view_version, 0) as view_version, coalesce(view_waiting_for, '') as view_waiting_for,
       clock_timestamp() as now,
       array(select version from switcher.released_versions r where r.job = asked.job) as released
from (select $1::text as job) asked left join switcher.routes using (job)

-- name: lock_routes
select 1 from switcher.routes where job = any($1::text[]) order by job for update

-- name: list_routes
select job, epoch, route, way_back, protected_until, proposal, revision, traceparent, update_time, group_revision,
       view_due_epoch, view_epoch, view_version, view_waiting_for, clock_timestamp() as now,
       array(select version from switcher.released_versions r where r.job = routes.job) as released
from switcher.routes where epoch > 0 and job > $1 order by job limit $2

-- name: next_revision
-- Whatever takes one is announced, once it is committed.
update switcher.revision set value = value + 1 returning value, pg_notify('turnout_routes', '')

-- name: share_revision
select value from switcher.revision for share

-- name: revision
select value from switcher.revision

-- name: notify_of_fronts
select pg_notify('turnout_fronts', '')

-- name: open_proposals
select p.proposal, p.described, p.deadline <= clock_timestamp() as dead, p.emergency, p.rolls_back
from switcher.proposal_routes r join switcher.proposals p using (proposal)
where r.job = any($1::text[]) and r.open

-- name: propose
insert into switcher.proposals (proposal, state, revision, deadline, described, traceparent, emergency, rolls_back,
                                request_id, fingerprint)
values ($1, 'OPEN', $2, clock_timestamp() + $3, $4, $5, $6, $7, $8, $9)

-- name: propose_route
insert into switcher.proposal_routes (proposal, job, epoch, route, way_back_versions, open)
values ($1, $2, $3, $4, $5, true)

-- name: renew_proposal
update switcher.proposals set deadline = clock_timestamp() + $2
where proposal = $1 and state = 'OPEN' and deadline > clock_timestamp()

-- name: find_proposal_of_request
select fingerprint, deadline <= clock_timestamp() as dead from switcher.proposals
where request_id = $1 and state = 'OPEN'

-- name: cancel_proposal
with closed as (
    update switcher.proposals set state = 'CANCELLED', revision = $2, closed_because = $3
    where proposal = $1 and state = 'OPEN' returning proposal
)
update switcher.proposal_routes set open = false where proposal in (select proposal from closed)

-- name: dead_proposals
select proposal, array(select job from switcher.proposal_routes r where r.proposal = p.proposal order by job) as jobs
from switcher.proposals p where state = 'OPEN' and deadline <= clock_timestamp()

-- name: commit_proposal
update switcher.proposals set state = 'COMMITTED', revision = $2
where proposal = $1 and state = 'OPEN' and deadline > clock_timestamp()
returning clock_timestamp() as commit_time, traceparent

-- name: close_proposal
with closed as (update switcher.proposal_routes set open = false where proposal = $1)
update switcher.proposals set counted = $2 where proposal = $1

-- name: counted_fronts
select counted from switcher.proposals where proposal = $1

-- name: closed_because
select closed_because from switcher.proposals where proposal = $1

-- name: commit_route
-- The route, who may be reading its versions ($13) from now on, and its audit row.
with committed as (
    update switcher.routes
    set epoch = $2, route = $3, way_back = $4, protected_until = $5, proposal = $6, revision = $7, traceparent = $8,
        update_time = $9, view_due_epoch = case when $10 then $2 else view_due_epoch end,
        view_waiting_for = case when $10 then '' else view_waiting_for end,
        wake_epoch = case when $11 then $2 when $10 then 0 else wake_epoch end,
        group_revision = case when $12 then $7 else group_revision end
    where job = $1
), served as (
    insert into switcher.served_versions (front, job, version, epoch)
    select front, $1, version, $2 from switcher.reader_leases, unnest($13::integer[]) as version
    on conflict (front, job, version) do update set epoch = excluded.epoch, drained = false
)
insert into switcher.route_changes (job, epoch, route, protected_until, commit_time, group_revision, command,
                                    claimed_actor, reason, request_id, gates, warnings, rollback_version)
values ($1, $2, $3, $5, $9, case when $12 then $7 else 0 end, $14, $15, $16, $17, $18, $19, $20)

-- name: list_changes
select * from switcher.route_changes where job = $1 and epoch < coalesce($2, epoch + 1) order by epoch desc limit $3

-- name: changes_of_request
select * from switcher.route_changes where request_id = $1 order by job

-- name: partners
with cutovers as (
    select r.job, c.group_revision
    from switcher.routes r join switcher.route_changes c
        on c.job = r.job and c.epoch = (r.way_back ->> 'epoch')::bigint + 1
    where c.group_revision > 0
)
select other.job from cutovers mine join cutovers other using (group_revision)
where mine.job = $1 and other.job <> $1 order by other.job

-- name: find_request
select fingerprint, answer, proposal from switcher.requests where request_id = $1

-- name: store_request
insert into switcher.requests (request_id, fingerprint, answer, proposal) values ($1, $2, $3, $4) on conflict do nothing
returning request_id

-- name: complete_request
update switcher.requests set answer = $2, proposal = '' where request_id = $1 and proposal <> '' returning answer

-- name: proposals_since
-- The newest revision, beside each proposal that changed after $1, or beside nulls where none did: one snapshot, in
-- which no change up to that revision is missing.
select r.value as newest, p.*
from switcher.revision r left join (
    select proposal, state, revision, traceparent, array_agg(job order by job) as jobs,
           array_agg(route order by job) as routes, jsonb_agg(way_back_versions order by job) as way_back_versions
    from switcher.proposals join switcher.proposal_routes using (proposal) where revision > $1
    group by proposal
) p on true
order by p.revision

-- name: proposals_open
select proposal, state, revision, traceparent, array_agg(job order by job) as jobs,
       array_agg(route order by job) as routes, jsonb_agg(way_back_versions order by job) as way_back_versions
from switcher.proposals join switcher.proposal_routes using (proposal) where state = 'OPEN'
group by proposal order by revision

-- name: take_lease
insert into switcher.reader_leases (front, stream, address, expires, may_serve_for)
values ($1, $2, $3, clock_timestamp() + $4, $5)
on conflict (front) do update
set stream = $2, address = $3, expires = clock_timestamp() + $4, may_serve_for = $5, ended = false

-- name: renew_lease
update switcher.reader_leases
set expires = clock_timestamp() + $3, heard = clock_timestamp(),
    load_reads = $4, load_window = $5, load_p50 = $6, load_p99 = $7
where front = $1 and stream = $2 and expires > clock_timestamp()
returning (select value from switcher.revision)

-- name: end_lease
update switcher.reader_leases set expires = least(expires, clock_timestamp()), ended = true
where front = $1 and stream = $2

-- name: read_load
select front, load_reads, load_window, load_p50, load_p99, clock_timestamp() - heard as age
from switcher.reader_leases where expires > clock_timestamp() and heard is not null order by front

-- name: fronts_of_proposal
select l.front, l.expires > clock_timestamp() as live, l.ended,
       clock_timestamp() - l.expires as silent_for, l.may_serve_for,
       coalesce(bool_or(r.state in ('PREPARED', 'SERVING', 'DRAINED')), false) as prepared,
       min(r.at) filter (where r.state in ('SERVING', 'DRAINED')) as serving_at,
       max(r.reason) filter (where r.state = 'NACK') as nack,
       coalesce(max(r.reason) filter (where r.state = 'PREPARED'), '') as way_back_problem
from switcher.reader_leases l left join switcher.reports r on r.front = l.front and r.proposal = $1
group by l.front order by l.front

-- name: report
-- One report for each element: fronts, proposals, states, reasons. Of equal ones the last counts.
with kept as (
    insert into switcher.reports (front, proposal, state, reason, at)
    select distinct on (front, proposal, state) front, proposal, state, reason, clock_timestamp()
    from unnest($1::text[], $2::text[], $3::text[], $4::text[])
        with ordinality as said (front, proposal, state, reason, place)
    where exists (select from switcher.proposals p where p.proposal = said.proposal)
    order by front, proposal, state, place desc
    on conflict (front, proposal, state) do update set reason = excluded.reason
)
select pg_notify('turnout_fronts', '')

-- name: serve_all_routes
insert into switcher.served_versions (front, job, version, epoch)
select $1, job, version, epoch
from switcher.routes, lateral (
    select (arm ->> 0)::integer as version from jsonb_array_elements(route -> 'arms') as arm
    union select (route -> 'shadow' ->> 0)::integer where route ? 'shadow'
) as named where epoch > 0
on conflict (front, job, version) do update set epoch = excluded.epoch, drained = false
where served_versions.epoch < excluded.epoch

-- name: drain
-- By arrays, so that whatever is known of the table's size these rows are looked up by its key, and not all of a front's.
update switcher.served_versions s set drained = true
where s.front = any($1::text[]) and s.job = any(array(select job from switcher.routes where proposal = $2))
      and s.epoch < (select r.epoch from switcher.routes r where r.job = s.job)

-- name: undrained_fronts
select s.front from switcher.served_versions s join switcher.reader_leases l using (front)
where s.job = $1 and s.version = $2 and not s.drained and l.expires + l.may_serve_for > clock_timestamp()
order by s.front

-- name: release
insert into switcher.released_versions (job, version, release_time) values ($1, $2, clock_timestamp())
on conflict do nothing

-- name: release_time
select release_time from switcher.released_versions where job = $1 and version = $2

-- name: reinstate
delete from switcher.released_versions where job = $1 and version = $2

-- name: record_release
insert into switcher.release_changes (job, version, command, claimed_actor, forgo_rollback, commit_time)
values ($1, $2, $3, $4, $5, clock_timestamp())

-- name: pending_wakes
select job, wake_epoch as epoch, array(select (arm ->> 0)::integer from jsonb_array_elements(route -> 'arms') arm) as versions
from switcher.routes where wake_epoch > 0

-- name: woken
update switcher.routes set wake_epoch = 0 where job = $1 and wake_epoch = $2

-- name: pending_views
select job, (route ->> 'active_version')::integer as version, view_due_epoch as epoch
from switcher.routes where view_epoch < view_due_epoch

-- name: view_moved
update switcher.routes set view_epoch = $2, view_version = $3, view_waiting_for = ''
where job = $1 and view_epoch < $2

-- name: view_waiting
update switcher.routes set view_waiting_for = $3 where job = $1 and view_due_epoch = $2 and view_epoch < $2

-- name: forget_leases
delete from switcher.reader_leases where expires + may_serve_for <= clock_timestamp()

-- name: forget_proposals
delete from switcher.proposals p
where p.state <> 'OPEN' and p.create_time < now() - $1::interval
  and not exists (select from switcher.routes r where r.proposal = p.proposal)

-- name: forget_requests
delete from switcher.requests where create_time < now() - $1::interval

-- name: record_shadow
-- Nothing for an epoch whose route has no such shadow, and nothing older than what is there.
insert into switcher.shadow_tallies as t
    (job, epoch, version, active_version, source, front, sequence, counts)
select $1, $2, $3, $4, $5, $6, $7, $8 from switcher.route_changes c
where c.job = $1 and c.epoch = $2 and (c.route -> 'shadow' ->> 0)::integer = $3
    and (c.route ->> 'active_version')::integer = $4
on conflict (job, epoch, source) do update
set sequence = excluded.sequence, counts = excluded.counts, update_time = clock_timestamp()
where t.sequence < excluded.sequence

-- name: last_shadow
select version, active_version from switcher.shadow_tallies where job = $1 order by number desc limit 1

-- name: shadow_tallies
select counts, update_time from switcher.shadow_tallies
where job = $1 and version = $2 and active_version = $3 order by number

-- name: tallies_of_present_shadow
-- Since the last change after which the pair was another one.
select counts, update_time from switcher.shadow_tallies
where job = $1 and version = $2 and active_version = $3 and epoch > coalesce((
    select c.epoch from switcher.route_changes c
    where c.job = $1 and ((c.route -> 'shadow' ->> 0)::integer is distinct from $2
        or (c.route ->> 'active_version')::integer <> $3)
    order by c.epoch desc limit 1
), 0)
order by number

-- name: forget_shadows
delete from switcher.shadow_tallies where update_time < clock_timestamp() - interval '90 days'
