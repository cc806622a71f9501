-- A replica is live as long as its lease lasts and its session is there: one that was killed is missed at once, one that
-- was frozen after its lease. A restart of the server ends all sessions and says nothing about anybody.
alter table replayer.replicas
    add column renewed     timestamptz not null default now(),
    add column backend_pid integer     not null;   -- of the session that renewed it

create view replayer.live_replicas as
select instance from replayer.replicas
where expires > clock_timestamp()
  and (renewed < pg_postmaster_start_time() or exists (select from pg_stat_activity where pid = backend_pid));

-- What a replica says of a run, so that whichever replica is asked tells it: what its workers wait for, what it has just
-- met. Written when the words change, and only while there are other replicas; they count while the replica is live.
create table replayer.statuses (
    instance text   not null references replayer.replicas on delete cascade,
    version  text   not null references replayer.runs on delete cascade,
    parts    text[] not null,
    primary key (instance, version)
);
