-- How fast a copy was, so that the next one can be estimated.
alter table replayer.runs
    add column admit_time    timestamptz,                 -- when its copy was admitted last; null = not yet
    add column admit_offsets bigint not null default 0,   -- offsets of the log that it had read by then
    add column copy_offsets  bigint,                      -- read by its first copy since; null = it tells no speed
    add column copy_s        double precision;            -- in so many seconds, up to the catch-up
