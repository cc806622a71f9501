-- The part of the log that a version's table is made of.

alter table registry.versions
    add column log_range text;                    -- JSON as turnout.log_range.encode writes it; null = all of the log
