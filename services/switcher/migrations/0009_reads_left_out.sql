-- Reads, by the number of the experiment that does not count them because of their unit, since the front started.
alter table switcher.exposure_flushes add column left_out jsonb not null default '{}';
