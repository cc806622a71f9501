-- name: keys
select number, key from switcher.exposure_keys order by number

-- name: first_key
insert into switcher.exposure_keys (number, key) values (1, $1) on conflict do nothing

-- name: create
insert into switcher.experiments (job, experiment, state, spec, owner, claimed_actor, reason, request_id, fingerprint)
values ($1, $2, 'STARTING', $3, $4, $5, $6, $7, $8)
on conflict do nothing
returning number

-- name: never_started
delete from switcher.experiments where number = $1 and state = 'STARTING'

-- name: forget_never_started
-- Not those of a rollout that goes on trying.
delete from switcher.experiments e where state = 'STARTING' and create_time < clock_timestamp() - interval '2 minutes'
    and not exists (select from switcher.rollouts r where r.name = e.owner and not r.over)
returning job, experiment

-- name: last_of_owner
select *, clock_timestamp() as now from switcher.experiments where job = $1 and owner = $2 order by number desc limit 1

-- name: by_id
select *, clock_timestamp() as now from switcher.experiments where job = $1 and experiment = $2

-- name: lock
select *, clock_timestamp() as now from switcher.experiments where number = $1 for no key update

-- name: counting
-- One that is over for as long as what was seen before its end may still come.
select number from switcher.experiments
where state in ('RUNNING', 'PAUSED') or end_time + make_interval(secs => (spec ->> 'delay_s')::float8) + $1::interval
    > clock_timestamp() order by number

-- name: list
select * from switcher.experiments
where ($1 = '-' or job = $1) and number < coalesce($2, number + 1) order by number desc limit $3

-- name: start
update switcher.experiments set state = 'RUNNING' where number = $1 and state = 'STARTING' returning true

-- name: begin_epoch
insert into switcher.experiment_epochs (number, epoch, weights, start_time) values ($1, $2, $3, $4)
on conflict do nothing

-- name: finish
update switcher.experiments set state = $2, end_time = $3, end_reason = $4
where number = $1 and state in ('STARTING', 'RUNNING', 'PAUSED')

-- name: epochs
select epoch, weights, start_time from switcher.experiment_epochs where number = $1 order by epoch

-- name: tallies
select * from switcher.experiment_tallies where number = $1

-- name: harms
select * from switcher.experiment_harms where number = $1

-- name: note_fault
update switcher.experiments set fault = $2 where number = $1

-- name: pause
update switcher.experiments set state = 'PAUSED' where number = $1 and state = 'RUNNING'

-- name: resume
update switcher.experiments
set state = 'RUNNING', passed_over = array(select distinct unnest(passed_over || array['FREEZE', 'INCONCLUSIVE']))
where number = $1 and state = 'PAUSED'

-- name: undo_decision
-- One for the same epoch that was never carried out: it is taken again. Not one that another change, which may be on its
-- way, carries out.
delete from switcher.experiment_decisions
where number = $1 and epoch = $2 and not carried_out and action = any($3::text[])

-- name: decide
insert into switcher.experiment_decisions
    (number, decision, epoch, action, verdict, sentence, actor, reason, carried_out, record)
select $1, coalesce(max(decision), 0) + 1, $2, $3, $4, $5, $6, $7, $8, $9
from switcher.experiment_decisions where number = $1
returning decision

-- name: stands
select exists (
    select from switcher.experiment_decisions where number = $1 and epoch = $2 and record = $3 and not carried_out
)

-- name: carried_out
update switcher.experiment_decisions set carried_out = true
where number = $1 and epoch = $2 and action = any($3::text[]) and not carried_out

-- name: change_of_epoch
select command, claimed_actor, reason, route from switcher.route_changes where job = $1 and epoch = $2

-- name: note_verdict
update switcher.experiments set verdict = $2 where number = $1

-- name: last_decided_epoch
select coalesce(max(epoch) filter (where carried_out), 0) from switcher.experiment_decisions where number = $1

-- name: decisions
select d.*, e.job, e.experiment from switcher.experiment_decisions d join switcher.experiments e using (number)
where e.job = $1 and e.experiment = $2 and d.decision < coalesce($3, d.decision + 1)
order by d.decision desc limit $4

-- name: decision
select d.*, e.job, e.experiment from switcher.experiment_decisions d join switcher.experiments e using (number)
where e.job = $1 and e.experiment = $2 and d.decision = $3

-- name: lock_all
select number, job, spec, units, end_time from switcher.experiments
where number = any($1::bigint[]) and (
    state in ('RUNNING', 'PAUSED')
    or end_time + make_interval(secs => (spec ->> 'delay_s')::float8) + $2::interval > clock_timestamp())
order by number for no key update

-- name: add_units
with given as (
    select distinct on (g.unit) g.unit, g.epoch, g.version, least(g.at, clock_timestamp()) as at
    from unnest($2::bigint[], $3::bigint[], $4::integer[], $5::timestamptz[]) as g (unit, epoch, version, at)
    join switcher.experiment_epochs p on p.number = $1 and p.epoch = g.epoch
    where g.at <= coalesce($7::timestamptz, 'infinity')
    order by g.unit, g.at
), added as (
    insert into switcher.experiment_units (number, unit, epoch, version, exposed_at)
    select $1, unit, epoch, version, at from given order by unit limit greatest($6::bigint, 0)
    on conflict do nothing
    returning epoch, version
), tallied as (
    insert into switcher.experiment_tallies (number, epoch, version, units)
    select $1, epoch, version, count(*) from added group by epoch, version
    on conflict (number, epoch, version) do update set units = experiment_tallies.units + excluded.units
)
update switcher.experiments set units = units + (select count(*) from added) where number = $1

-- name: mix_units
update switcher.experiment_units u set mixed = true
from unnest($2::bigint[], $3::integer[], $4::timestamptz[]) as g (unit, version, at)
where u.number = $1 and u.unit = g.unit and u.version <> g.version and not u.mixed and not u.closed
  and g.at <= u.exposed_at + $5::interval

-- name: add_outcomes
with given as (
    select distinct on (g.unit, g.metric, g.key) g.place, g.unit, g.metric, g.key, g.epoch, g.version,
           least(g.at, clock_timestamp()) as at, g.value
    from unnest($2::integer[], $3::bigint[], $4::text[], $5::bigint[], $6::bigint[], $7::integer[],
                $8::timestamptz[], $9::double precision[])
         as g (place, unit, metric, key, epoch, version, at, value)
    join switcher.experiment_epochs p on p.number = $1 and p.epoch = g.epoch
    -- Where no more units are counted, neither are outcomes of those that are not.
    where ($10 or exists (select from switcher.experiment_units u where u.number = $1 and u.unit = g.unit))
      and g.at <= coalesce($12::timestamptz, 'infinity')
    order by g.unit, g.metric, g.key, g.at, g.place
), rewards as (
    -- Those that are no repeats; which of a unit's it is, in this call.
    select g.place, g.unit, row_number() over (partition by g.unit order by g.at, g.place) as nth
    from given g where g.metric = 'REWARD' and not exists (
        select from switcher.experiment_outcomes o
        where o.number = $1 and o.unit = g.unit and o.metric = g.metric and o.key = g.key)
), rewarded as (
    select r.unit, (
        select count(*) from (
            select from switcher.experiment_outcomes o
            where o.number = $1 and o.unit = r.unit and o.metric = 'REWARD' limit $11
        ) known
    ) as rewards
    from (select distinct unit from rewards) r
), counted as (
    select g.* from given g where g.place not in (
        select r.place from rewards r join rewarded using (unit) where r.nth + rewarded.rewards > $11)
), added as (
    insert into switcher.experiment_outcomes (number, unit, metric, key, epoch, version, at, value)
    select $1, unit, metric, key, epoch, version, at, value from counted
    on conflict do nothing
    returning unit, metric, key, epoch, version
), harmed as (
    insert into switcher.experiment_harms (number, epoch, version, metric, units)
    select $1, epoch, version, metric, count(*) from added
    where metric in ('ERROR', 'FAILURE', 'NOT_FOUND', 'SLOW', 'CONVERSION') group by epoch, version, metric
    on conflict (number, epoch, version, metric) do update set units = experiment_harms.units + excluded.units
)
select c.place, a.unit is not null as stored from counted c left join added a using (unit, metric, key)

-- name: without_nested_loops
set local enable_nestloop = off

-- name: close_windows
-- Those that the experiment's end has cut stay open.
with closing as (
    select unit, epoch, version, exposed_at, mixed from switcher.experiment_units
    where number = $1 and not closed and exposed_at < statement_timestamp() - $2::interval - $3::interval
      and exposed_at <= coalesce($7::timestamptz, 'infinity') - $2::interval
    order by exposed_at limit $5
), closed as (
    update switcher.experiment_units u set closed = true from closing c where u.number = $1 and u.unit = c.unit
), summed as (
    select c.unit, c.epoch, c.version, c.mixed or coalesce(bool_or(o.version <> c.version), false) as mixed,
           coalesce(bool_or(o.metric = any($4::text[])), false) as errored,
           coalesce(bool_or(o.metric = 'CONVERSION'), false) as converted,
           -- One beyond the bound is from before there was one: it counts as none.
           coalesce(sum(o.value) filter (where o.metric = 'REWARD' and abs(o.value) <= $6), 0) as reward
    from closing c
    left join switcher.experiment_outcomes o
        on o.number = $1 and o.unit = c.unit and o.at <= c.exposed_at + $2::interval
    group by c.unit, c.epoch, c.version, c.mixed
), tallied as (
    insert into switcher.experiment_tallies (number, epoch, version, closed, errors, conversions, total, squares)
    select $1, epoch, version, count(*), count(*) filter (where errored), count(*) filter (where converted),
           sum(reward), sum(reward * reward)
    from summed where not mixed group by epoch, version
    on conflict (number, epoch, version) do update
    set closed = experiment_tallies.closed + excluded.closed, errors = experiment_tallies.errors + excluded.errors,
        conversions = experiment_tallies.conversions + excluded.conversions,
        total = experiment_tallies.total + excluded.total, squares = experiment_tallies.squares + excluded.squares
)
select count(*) from closing

-- name: flushed
insert into switcher.exposure_flushes (front, flushed, lost, left_out) values ($1, clock_timestamp(), $2, $3)
on conflict (front) do update set flushed = clock_timestamp(), lost = $2, left_out = $3

-- name: stale_fronts
-- One that has fallen silent counts for as long as it may go on serving.
select l.front, extract(epoch from clock_timestamp() - f.flushed) as age_s,
       l.expires + l.may_serve_for as serves_until
from switcher.reader_leases l left join switcher.exposure_flushes f using (front)
where l.expires + l.may_serve_for > clock_timestamp() and not l.ended
    and (f.flushed is null or f.flushed < clock_timestamp() - $1::interval)
order by l.front

-- name: untold
select coalesce(sum(lost), 0) as lost, coalesce(sum((left_out ->> $1)::bigint), 0) as left_out
from switcher.exposure_flushes

-- name: take_loop
insert into switcher.loop_leases (loop, holder, expires) values ($1, $2, clock_timestamp() + $3)
on conflict (loop) do update set holder = $2, expires = clock_timestamp() + $3
where loop_leases.holder = $2 or loop_leases.expires < clock_timestamp()
returning true

-- name: give_loop
delete from switcher.loop_leases where loop = $1 and holder = $2

-- name: forget_units
with over as (
    select number from switcher.experiments e where end_time < clock_timestamp() - $1::interval
      and (exists (select from switcher.experiment_units u where u.number = e.number)
           or exists (select from switcher.experiment_outcomes o where o.number = e.number))
    order by number limit 1
), outcomes as (
    delete from switcher.experiment_outcomes where ctid = any(array(
        select o.ctid from switcher.experiment_outcomes o join over using (number) limit $2))
    returning 1
), units as (
    delete from switcher.experiment_units where ctid = any(array(
        select u.ctid from switcher.experiment_units u join over using (number) limit $2))
    returning 1
)
select (select count(*) from outcomes) + (select count(*) from units)

-- name: forget_flushes
delete from switcher.exposure_flushes f where flushed < clock_timestamp() - interval '1 hour'
