-- name: create
insert into switcher.rollouts (name, job, rollout, claimed_actor, reason, request_id, fingerprint)
values ($1, $2, $3, $4, $5, $6, $7)
on conflict do nothing
returning number

-- name: by_name
select *, switcher.newest_experiment(name) as experiment, clock_timestamp() as now from switcher.rollouts
where name = $1

-- name: by_number
select *, switcher.newest_experiment(name) as experiment, clock_timestamp() as now from switcher.rollouts
where number = $1

-- name: by_request
select *, switcher.newest_experiment(name) as experiment, clock_timestamp() as now from switcher.rollouts
where request_id = $1

-- name: going_on
select number from switcher.rollouts where not over order by number

-- name: list
select *, switcher.newest_experiment(name) as experiment, clock_timestamp() as now from switcher.rollouts
where ($1 = '-' or job = $1) and number < coalesce($2, number + 1) order by number desc limit $3

-- name: now
select clock_timestamp()

-- name: keep
update switcher.rollouts
set rollout = $3, revision = revision + 1, over = $4, findings = coalesce($5, findings),
    end_time = case when $4 then $6::timestamptz end
where number = $1 and revision = $2
returning number

-- name: keep_findings
update switcher.rollouts set findings = $3 where number = $1 and revision = $2 and findings <> $3::jsonb

-- name: wanted
-- Whoever stores a change of it waits until the commit that has read it is over.
select rollout from switcher.rollouts where number = $1 for share

-- name: decide
insert into switcher.rollout_decisions
    (number, decision, action, state, step, sentence, actor, reason, record, create_time)
select $1, coalesce(max(decision), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9
from switcher.rollout_decisions where number = $1

-- name: decisions
select d.*, r.name from switcher.rollout_decisions d join switcher.rollouts r using (number)
where r.name = $1 and d.decision < coalesce($2, d.decision + 1)
order by d.decision desc limit $3

-- name: decision
select d.*, r.name from switcher.rollout_decisions d join switcher.rollouts r using (number)
where r.name = $1 and d.decision = $2

-- name: expected
-- Of the job's last experiment that has counted units of this kind: how many a day, and how many of the control's erred.
select e.experiment, e.units, extract(epoch from coalesce(e.end_time, clock_timestamp()) - e.create_time) as over_s,
       sum(t.closed) as closed, sum(t.errors) as errors
from switcher.experiments e
join switcher.experiment_tallies t on t.number = e.number and t.version = (e.spec -> 'arms' -> 0 ->> 0)::integer
where e.job = $1 and e.spec ->> 'units' = $2 and e.state <> 'STARTING' and e.units > 0
group by e.number order by e.number desc limit 1
