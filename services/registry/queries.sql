-- name: insert_job
insert into registry.jobs (job, description, create_time) values ($1, $2, $3)
on conflict do nothing
returning job, description, last_number, create_time

-- name: job
select job, description, last_number, create_time from registry.jobs where job = $1

-- name: jobs_after
select job, description, last_number, create_time from registry.jobs
where $1::text is null or job > $1
order by job
limit $2

-- name: lock_job
select last_number from registry.jobs where job = $1 for update

-- name: set_last_number
update registry.jobs set last_number = $2 where job = $1

-- name: insert_artifact
insert into registry.artifacts (digest, content, create_time) values ($1, $2, $3)
on conflict do nothing

-- name: artifact_piece
select substring(content from $2 for $3) from registry.artifacts where digest = $1

-- name: registered_versions
-- The versions that code may be, newest first.
select number, artifact_digest, definition_json, log_range from registry.versions
where job = $1 and state = 'REGISTERED'
order by number desc

-- name: insert_version
insert into registry.versions
    (job, number, state, definition_json, artifact_digest, artifact_bytes, create_time, log_range)
values ($1, $2, $3, $4, $5, $6, $7, $8)

-- name: lock_version
select state from registry.versions where job = $1 and number = $2 for update

-- name: set_version_state
update registry.versions set state = $3 where job = $1 and number = $2

-- name: version
select v.job, v.number, v.state, v.definition_json, v.artifact_digest, v.artifact_bytes, v.create_time, v.log_range,
       r.step, r.retain_for, r.forgo_rollback, r.claimed_actor, r.start_time, r.drop_time, r.waiting_for, r.failures,
       r.resume_run
from registry.versions v left join registry.retirements r using (job, number)
where v.job = $1 and v.number = $2

-- name: versions_before
select v.job, v.number, v.state, v.definition_json, v.artifact_digest, v.artifact_bytes, v.create_time, v.log_range,
       r.step, r.retain_for, r.forgo_rollback, r.claimed_actor, r.start_time, r.drop_time, r.waiting_for, r.failures,
       r.resume_run
from registry.versions v left join registry.retirements r using (job, number)
where v.job = $1 and ($2::integer is null or v.number < $2)
order by v.number desc
limit $3

-- name: retirement
select job, number, step, retain_for, forgo_rollback, claimed_actor, start_time, drop_time, waiting_for, failures,
       resume_run, next_time, claim
from registry.retirements where job = $1 and number = $2

-- name: put_retirement
insert into registry.retirements
    (job, number, step, retain_for, forgo_rollback, claimed_actor, start_time, drop_time, waiting_for, failures,
     resume_run, next_time, claim)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)
on conflict (job, number) do update set
    step = excluded.step, retain_for = excluded.retain_for, forgo_rollback = excluded.forgo_rollback,
    claimed_actor = excluded.claimed_actor, start_time = excluded.start_time, drop_time = excluded.drop_time,
    waiting_for = excluded.waiting_for, failures = excluded.failures, resume_run = excluded.resume_run,
    next_time = excluded.next_time, claim = excluded.claim

-- name: delete_retirement
delete from registry.retirements where job = $1 and number = $2

-- name: free_claim
update registry.retirements set claim = null, next_time = $4 where job = $1 and number = $2 and claim = $3

-- name: claim_due
-- A claim is the right to make the step's call until next_time. Due rows that somebody else looks at are passed over.
with due as (
    select job, number from registry.retirements
    where next_time <= $1
    order by next_time
    limit $4
    for update skip locked
)
update registry.retirements r set claim = $2, next_time = $3
from due, registry.versions v
where (r.job, r.number) = (due.job, due.number) and (v.job, v.number) = (due.job, due.number)
returning r.job, r.number, v.state, r.step, r.retain_for, r.forgo_rollback, r.claimed_actor, r.start_time, r.drop_time,
          r.waiting_for, r.failures, r.resume_run

-- name: begin_request
-- Waits for another transaction with the same id; empty when that one has committed.
insert into registry.requests (method, request_id, fingerprint, answer, create_time) values ($1, $2, $3, '', $4)
on conflict do nothing
returning method

-- name: end_request
update registry.requests set answer = $3 where method = $1 and request_id = $2

-- name: answered_request
select fingerprint, answer from registry.requests where method = $1 and request_id = $2

-- name: forget_requests
delete from registry.requests where create_time < $1

-- name: audit
insert into registry.audit (time, job, number, action, claimed_actor, forgo_rollback, why)
values ($1, $2, $3, $4, $5, $6, $7)
