-- The part of the log that the run's version is made of, as the registry has it; what it means in offsets is in
-- serving.positions.
alter table replayer.runs
    add column log_range text;                      -- JSON as turnout.log_range.encode writes it; null = all of the log
