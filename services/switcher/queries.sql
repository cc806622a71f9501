-- name: make_route
insert into switcher.routes (job) values ($1) on conflict do nothing

-- name: state_of_route
select coalesce(epoch, 0) as epoch, route, way_back, protected_until, coalesce(proposal, '') as proposal,
       coalesce(revision, 0) as revision, coalesce(traceparent, '') as traceparent, update_time,
       coalesce(view_due_epoch, 0) as view_due_epoch, coalesce(view_epoch, 0) as view_epoch,
       coalesce(view_version, 0) as view_version, coalesce(view_waiting_for, '') as view_waiting_for,
       clock_timestamp() as now,
       array(select version from switcher.released_versions r where r.job = asked.job) as released
from (select $1::text as job) asked left join switcher.routes using (job)

-- name: lock_route
select 1 from switcher.routes where job = $1 for update

-- name: list_routes
select job, epoch, route, way_back, protected_until, proposal, revision, traceparent, update_time,
       view_due_epoch, view_epoch, view_version, view_waiting_for, clock_timestamp() as now,
       array(select version from switcher.released_versions r where r.job = routes.job) as released
from switcher.routes where epoch > 0 and job > $1 order by job limit $2

-- name: next_revision
update switcher.revision set value = value + 1 returning value

-- name: share_revision
select value from switcher.revision for share

-- name: revision
select value from switcher.revision

-- name: notify
select pg_notify('turnout_switcher', '')

-- name: open_proposal
select proposal, described, deadline <= clock_timestamp() as dead
from switcher.proposals where job = $1 and state = 'OPEN'

-- name: propose
insert into switcher.proposals (proposal, job, epoch, route, state, revision, deadline, described, traceparent)
values ($1, $2, $3, $4, 'OPEN', $5, clock_timestamp() + $6, $7, $8)

-- name: cancel_proposal
update switcher.proposals set state = 'CANCELLED', revision = $2 where proposal = $1 and state = 'OPEN'

-- name: dead_proposals
select proposal, job from switcher.proposals where state = 'OPEN' and deadline <= clock_timestamp()

-- name: commit_proposal
update switcher.proposals set state = 'COMMITTED', revision = $2
where proposal = $1 and state = 'OPEN' and deadline > clock_timestamp()
returning clock_timestamp() as commit_time, traceparent

-- name: commit_route
update switcher.routes
set epoch = $2, route = $3, way_back = $4, protected_until = $5, proposal = $6, revision = $7, traceparent = $8,
    update_time = $9, view_due_epoch = case when $10 then $2 else view_due_epoch end,
    view_waiting_for = case when $10 then '' else view_waiting_for end,
    wake_epoch = case when $11 then $2 when $10 then 0 else wake_epoch end
where job = $1

-- name: record_change
insert into switcher.route_changes (job, epoch, command, claimed_actor, reason, request_id, gates, warnings, route,
                                    rollback_version, protected_until, commit_time)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)

-- name: list_changes
select * from switcher.route_changes where job = $1 and epoch < coalesce($2, epoch + 1) order by epoch desc limit $3

-- name: find_request
select fingerprint, answer from switcher.requests where request_id = $1

-- name: store_request
insert into switcher.requests (request_id, fingerprint, answer) values ($1, $2, $3) on conflict do nothing

-- name: complete_request
update switcher.requests set answer = $2 where request_id = $1

-- name: proposals_since
select proposal, job, route, state, revision, traceparent from switcher.proposals where revision > $1 order by revision

-- name: proposals_open
select proposal, job, route, state, revision, traceparent from switcher.proposals where state = 'OPEN' order by revision

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
       max(r.reason) filter (where r.state = 'NACK') as nack
from switcher.reader_leases l left join switcher.reports r on r.front = l.front and r.proposal = $1
group by l.front order by l.front

-- name: report
insert into switcher.reports (front, proposal, state, reason, at)
select $1, $2, $3, $4, clock_timestamp()
where exists (select from switcher.proposals where proposal = $2)
on conflict (front, proposal, state) do update set reason = $4

-- name: serve_route
insert into switcher.served_versions (front, job, version, epoch)
select front, $1, version, $2 from switcher.reader_leases, unnest($3::integer[]) as version
on conflict (front, job, version) do update set epoch = excluded.epoch, drained = false

-- name: serve_all_routes
insert into switcher.served_versions (front, job, version, epoch)
select $1, job, (arm ->> 0)::integer, epoch
from switcher.routes, jsonb_array_elements(route -> 'arms') as arm where epoch > 0
on conflict (front, job, version) do update set epoch = excluded.epoch, drained = false
where served_versions.epoch < excluded.epoch

-- name: drain
update switcher.served_versions s set drained = true
from switcher.proposals p
where p.proposal = $2 and p.state = 'COMMITTED' and s.front = $1 and s.job = p.job and s.epoch < p.epoch

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
  and not exists (select from switcher.routes r where r.job = p.job and r.proposal = p.proposal)

-- name: forget_requests
delete from switcher.requests where create_time < now() - $1::interval
