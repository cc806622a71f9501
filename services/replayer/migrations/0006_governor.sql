-- Who governs the copies, and what has been learnt: one row. Whoever holds it until it expires decides; the others follow.
create table replayer.governor (
    only_row     boolean          primary key default true check (only_row),
    instance     text             not null default '',
    expires      timestamptz      not null default '-infinity',
    rung         integer          not null default 0,      -- of the ladder of rates; 0 = full speed
    write_s_max  double precision,                         -- of copies, while reads are live; null = no limit
    quiet_p99_s  double precision,                         -- of reads while no copy runs; null = not known
    quiet_reads  double precision not null default 0,      -- as so many reads that counts
    quiet_at     timestamptz                               -- when it was learnt last
);
insert into replayer.governor default values;

-- How fast the copy goes unhindered, which the ladder begins at; null = not known.
alter table replayer.throttles add column full_per_s double precision;
