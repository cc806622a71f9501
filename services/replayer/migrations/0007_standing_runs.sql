-- Runs whose table is there are read several times a second, among ever more dropped ones.
create index runs_standing on replayer.runs (version) where drop_time is null;
