-- Every statement of the replayer on its own tables and on positions. Output tables and the view: ddl.py, view.py.

-- name: run
select * from replayer.runs where version = $1;

-- name: run_for_update
select * from replayer.runs where version = $1 for update;

-- name: run_by_request
select * from replayer.runs where request_id = $1;

-- name: runs_standing
-- Those whose table is there: of ever more dropped ones nothing is measured.
select version, revision from replayer.runs where drop_time is null;

-- name: runs_of_versions
select * from replayer.runs where version = any($1::text[]);

-- name: runs_dropped_measured
-- Some whose copies tell a speed: those of the job first, of them the newest.
select * from replayer.runs where drop_time is not null and copy_offsets is not null and copy_s is not null
order by job = $1 desc, create_time desc
limit $2;

-- name: runs_page
select * from replayer.runs
where ($1::text is null or job = $1) and (job, number) > ($2::text, $3::integer)
order by job, number
limit $4;

-- name: runs_of_job
select * from replayer.runs where job = $1 order by number;

-- name: insert_run
insert into replayer.runs
    (version, job, number, state, artifact_digest, definition, workers, rate_limit, output_table, topic_ids,
     start_times, indexes_built, request_id, priority, log_range)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15)
on conflict (version) do nothing
returning *;

-- name: set_state
-- REPLAYING is entered by admission alone. The first catch-up, or the completion of a range, tells the speed of the copy,
-- unless a person limited it.
update replayer.runs r
set state = $2, failure_reason = $3, failure_message = $4, revision = r.revision + 1,
    queue_time = case when $2 = 'QUEUED' then now() else r.queue_time end,
    admit_time = case when $2 = 'REPLAYING' then now() else r.admit_time end,
    admit_offsets = case when $2 = 'REPLAYING' then log.read else r.admit_offsets end,
    copy_offsets = case when speed.known then log.read - r.admit_offsets else r.copy_offsets end,
    copy_s = case when speed.known then extract(epoch from now() - r.admit_time)::float8 else r.copy_s end,
    catch_up_time = coalesce(r.catch_up_time, case when $2 in ('TAILING', 'COMPLETED') then now() end)
from (select coalesce(sum(next_offset - start_offset), 0)::bigint as read from serving.positions where version = $1) log,
     (select $2 in ('TAILING', 'COMPLETED') and catch_up_time is null and admit_time is not null and rate_limit = 0 as known
      from replayer.runs where version = $1) speed
where r.version = $1
returning r.*;

-- name: set_rate
update replayer.runs set rate_limit = $2, revision = revision + 1 where version = $1 returning *;

-- name: set_priority
update replayer.runs set priority = $2, revision = revision + 1
where version = $1 and catch_up_time is null and drop_time is null
returning *;

-- name: count_restart
update replayer.runs
set worker_restarts = worker_restarts + 1, stuck_restarts = stuck_restarts + $2::boolean::integer,
    revision = revision + 1
where version = $1
returning *;

-- name: set_indexes_built
update replayer.runs set indexes_built = true, revision = revision + 1 where version = $1 returning *;

-- name: set_dropped
update replayer.runs set drop_time = now(), revision = revision + 1 where version = $1 returning *;

-- name: insert_positions
insert into serving.positions (version, topic, topic_id, partition, start_offset, next_offset, range_end)
select $1, t.topic, r.topic_ids ->> t.topic, t.partition, t.start_offset, t.start_offset, t.range_end
from unnest($2::text[], $3::integer[], $4::bigint[], $5::bigint[]) as t (topic, partition, start_offset, range_end)
join replayer.runs r on r.version = $1
on conflict (version, topic, partition) do nothing;

-- name: move_starts
update serving.positions p set start_offset = t.start_offset, next_offset = t.start_offset
from unnest($2::text[], $3::integer[], $4::bigint[]) as t (topic, partition, start_offset)
where p.version = $1 and p.topic = t.topic and p.partition = t.partition
  and p.next_offset = p.start_offset and p.start_offset < t.start_offset;

-- name: set_start_times
update replayer.runs set start_times = $2, revision = revision + 1 where version = $1;

-- name: positions
-- A lease that has run out has no owner any more, though its row still names one.
select version, topic, partition, start_offset, next_offset, event_time, records, set_aside,
       case when lease_expires > clock_timestamp() then owner end as owner,
       last_offset, last_timestamp_ms, last_crc, rows_written, bytes_written, range_end
from serving.positions;

-- name: positions_of
select version, topic, partition, start_offset, next_offset, event_time, records, set_aside,
       case when lease_expires > clock_timestamp() then owner end as owner,
       last_offset, last_timestamp_ms, last_crc, rows_written, bytes_written, range_end
from serving.positions where version = any($1::text[]);

-- name: holders
-- Who may still write a run's rows. lasts: the lease has not run out; attended: its replica is live.
select owner, max(lease_expires) > clock_timestamp() as lasts,
       exists (select from replayer.live_replicas where starts_with(owner, instance || ':')) as attended
from serving.positions where version = $1 and owner is not null group by owner;

-- name: delete_positions
delete from serving.positions where version = $1;

-- name: delete_dead_letters
delete from serving.dead_letters where version = $1;

-- name: free_leases
update serving.positions set owner = null, owner_pid = null, lease_expires = '-infinity'
where version = $1 and owner = $2;

-- name: table_bytes
select pg_total_relation_size(to_regclass($1));

-- name: table_sizes
select version, coalesce(pg_total_relation_size(to_regclass('serving.' || quote_ident(output_table))), 0) as size_bytes
from replayer.runs where drop_time is null and ($1::text is null or version = $1);

-- name: blockers
-- Sessions that hold any lock on a relation: each would keep DROP waiting. The oldest first.
select a.pid, coalesce(nullif(a.application_name, ''), 'unnamed') as application,
       extract(epoch from now() - coalesce(a.xact_start, a.state_change, now()))::float8 as age_s,
       coalesce(a.state, '') as state
from pg_locks l join pg_stat_activity a on a.pid = l.pid
where l.locktype = 'relation' and l.granted and l.database = (select oid from pg_database where datname = current_database())
  and l.relation = to_regclass($1) and l.pid <> pg_backend_pid()
order by 3 desc limit 1;

-- name: view_for_update
select * from replayer.views where job = $1 for update;

-- name: set_view
insert into replayer.views (job, version, epoch) values ($1, $2, $3)
on conflict (job) do update set version = excluded.version, epoch = excluded.epoch;

-- name: grants
-- Privileges on a relation that somebody gave to others than its owner; grantee 0 is everybody.
select case when g.grantee = 0 then null else pg_get_userbyid(g.grantee) end as grantee,
       g.privilege_type as privilege, g.is_grantable as grantable, null::text as column_name
from pg_class c cross join lateral aclexplode(c.relacl) g
where c.oid = to_regclass($1) and g.grantee <> c.relowner
union all
select case when g.grantee = 0 then null else pg_get_userbyid(g.grantee) end,
       g.privilege_type, g.is_grantable, t.attname::text
from pg_class c join pg_attribute t on t.attrelid = c.oid and not t.attisdropped
cross join lateral aclexplode(t.attacl) g
where c.oid = to_regclass($1) and g.grantee <> c.relowner;

-- name: relation_comment
select obj_description(to_regclass($1), 'pg_class');

-- name: column_types
select attname::text as name, format_type(atttypid, atttypmod) as type
from pg_attribute where attrelid = to_regclass($1) and attnum > 0 and not attisdropped order by attnum;

-- name: index_is_valid
select indisvalid from pg_index where indexrelid = to_regclass($1);

-- name: comment_on_view
-- The statement that puts a comment back: COMMENT takes no parameters, so the server quotes the text.
select format('comment on view %s is %L', $1::text, $2::text);

-- name: session_works
select exists (select from pg_stat_activity where pid = $1 and state = 'active');

-- name: renew_replica
insert into replayer.replicas (instance, renewed, expires, backend_pid)
values ($1, clock_timestamp(), clock_timestamp() + $2, pg_backend_pid())
on conflict (instance) do update
set renewed = excluded.renewed, expires = excluded.expires, backend_pid = excluded.backend_pid;

-- name: forget_replicas
-- Names are never used again.
delete from replayer.replicas where expires < clock_timestamp() - interval '1 hour';

-- name: remove_replica
delete from replayer.replicas where instance = $1;

-- name: replicas
select instance, version, parts from replayer.live_replicas left join replayer.statuses using (instance);

-- name: set_status
insert into replayer.statuses (instance, version, parts)
select instance, $2, $3 from replayer.replicas where instance = $1
on conflict (instance, version) do update set parts = excluded.parts;

-- name: delete_status
delete from replayer.statuses where instance = $1 and version = $2;

-- name: try_lock_builder
-- Held by the session that builds the indexes of a table, until it ends.
select pg_try_advisory_lock(1953853284, hashtext($1));

-- name: lock_budget
-- Of all replayers one at a time decides who may copy.
select pg_advisory_xact_lock(hashtextextended('turnout budget of copies', 0));

-- name: capacity
select * from replayer.capacity;

-- name: set_capacity
update replayer.capacity
set copies_max = coalesce($1, copies_max), rows_per_s_max = coalesce($2, rows_per_s_max),
    storage_bytes_max = coalesce($3, storage_bytes_max), read_p99_ratio_max = coalesce($4, read_p99_ratio_max),
    revision = revision + 1
where $5 = '' or revision::text = $5
returning *;

-- name: worker_writes
-- Whether any session of a worker is in the middle of something that PostgreSQL does for it.
select exists (
    select from pg_stat_activity
    where application_name = $1 and datname = current_database() and state like any(array['active', 'idle in transaction%'])
);

-- name: govern
-- Take the right to govern; no row = another replica has it.
update replayer.governor set instance = $1, expires = now() + $2
where instance = $1 or expires < now()
returning rung, quiet_p99_s, quiet_reads, extract(epoch from now() - quiet_at)::float8 as quiet_age_s

-- name: keep_governing
-- Keep the right, and what was decided and learnt; no row = another replica has it by now.
update replayer.governor
set expires = now() + $2, rung = $3, write_s_max = $4, quiet_p99_s = $5, quiet_reads = $6, quiet_at = now() - $7::interval
where instance = $1 and expires >= now()
returning true

-- name: stop_governing
update replayer.governor set expires = '-infinity' where instance = $1

-- name: clear_throttles
delete from replayer.throttles where version <> all($1::text[])

-- name: set_throttles
insert into replayer.throttles (version, reason, records_per_s, message, full_per_s, at)
select t.version, t.reason, t.records_per_s, t.message, t.full_per_s, now()
from unnest($1::text[], $2::text[], $3::float8[], $4::text[], $5::float8[])
  as t (version, reason, records_per_s, message, full_per_s)
where exists (select from replayer.runs r where r.version = t.version)
on conflict (version) do update
set reason = excluded.reason, records_per_s = excluded.records_per_s, message = excluded.message,
    full_per_s = excluded.full_per_s, at = excluded.at

-- name: throttles
-- What the governor of this moment, or of a moment ago, holds; one that has been gone for longer holds nobody up.
select g.write_s_max, t.version, t.reason, t.records_per_s, t.message, t.full_per_s
from replayer.governor g left join replayer.throttles t on t.at > now() - $1::interval
where g.expires > now() - $1::interval

-- name: hold_free_positions
-- Hold positions where they stand, of those that no transaction is moving at this moment. It waits for nobody, so it
-- locks many at once without a deadlock.
with free as (
    select version, topic, partition from serving.positions
    where version = any($1::text[]) and hold_until < clock_timestamp()
    for update skip locked
)
update serving.positions p set hold_by = $2, hold_at = p.next_offset, hold_until = $3
from free f
where p.version = f.version and p.topic = f.topic and p.partition = f.partition;

-- name: limit_lock_waits
select set_config('lock_timeout', $1, false);

-- name: hold_position
-- The same for one position, waiting for the transaction that moves it. No row = another comparison holds it.
update serving.positions set hold_by = $4, hold_at = next_offset, hold_until = $5
where version = $1 and topic = $2 and partition = $3 and hold_until < clock_timestamp()
returning true;

-- name: hold_further
-- Let a held run go on to the cut.
update serving.positions set hold_at = $5
where version = $1 and topic = $2 and partition = $3 and hold_by = $4;

-- name: held_positions
select version, topic, partition, next_offset, hold_by is not distinct from $2 and hold_until > clock_timestamp() as held
from serving.positions where version = any($1::text[]);

-- name: let_go
with held as (
    select version, topic, partition from serving.positions where hold_by = $1 for update skip locked
)
update serving.positions p set hold_by = null, hold_at = null, hold_until = '-infinity'
from held h
where p.version = h.version and p.topic = h.topic and p.partition = h.partition;

-- name: still_held
select count(*) from serving.positions where hold_by = $1;

-- name: insert_comparison
insert into replayer.comparisons
    (id, job, old_version, new_version, contract, sample_size, range_rows, allow_unaligned, align_within_s, plan,
     rows_expected, request_id)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
on conflict do nothing
returning *;

-- name: forget_comparisons
-- Of a job, those beyond so many, the oldest ones.
delete from replayer.comparisons
where id in (select id from replayer.comparisons where job = $1 order by create_time desc, id offset $2);

-- name: forget_empty_comparison
-- One of which nothing is done.
delete from replayer.comparisons
where id = $1 and end_time is null
  and not exists (select from replayer.comparison_ranges where comparison = $1);

-- name: comparison
select * from replayer.comparisons where job = $1 and id = $2;

-- name: comparison_by_request
select * from replayer.comparisons where request_id = $1;

-- name: comparisons_page
-- The newest first. $2: older than this one; $3: of these versions with one another, null = all.
select * from replayer.comparisons
where job = $1
  and ($2::text is null
       or (create_time, id) < (select create_time, id from replayer.comparisons where id = $2))
  and ($3::text[] is null or (old_version = any($3::text[]) and new_version = any($3::text[])))
order by create_time desc, id desc
limit $4;

-- name: comparison_judged
-- The newest one of two versions that has a contract; finished ones first.
select * from replayer.comparisons
where old_version = $1 and new_version = $2 and contract is not null
order by end_time is null, create_time desc
limit 1;

-- name: comparison_ranges
select * from replayer.comparison_ranges where comparison = any($1::text[]) order by comparison, number;

-- name: insert_comparison_range
-- No row = somebody else did that range.
insert into replayer.comparison_ranges
    (comparison, number, after_key, last_key, aligned, exact, unaligned_why, positions_old, positions_new, cut_time,
     held_s, took_s, totals, samples)
values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
on conflict do nothing
returning true;

-- name: finish_comparison
update replayer.comparisons set end_time = coalesce(end_time, now()), passed = $2, findings = $3
where id = $1 returning *;

-- name: rows_expected
select coalesce(sum(greatest(reltuples, 0)), 0)::bigint from pg_class
where oid in (to_regclass($1), to_regclass($2));
