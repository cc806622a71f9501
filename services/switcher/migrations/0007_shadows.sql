-- What fronts have compared of a shadow with what the active version had answered: one row a front's start and epoch.
create table switcher.shadow_tallies (
    number         bigint      generated always as identity,   -- the order in which they were begun
    job            text        not null,
    epoch          bigint      not null,                        -- of the route
    version        integer     not null,                        -- the candidate
    active_version integer     not null,
    source         text        not null,                        -- another one for each start of a front
    front          text        not null,
    sequence       bigint      not null,                        -- grows with the counts
    counts         jsonb       not null,
    update_time    timestamptz not null default clock_timestamp(),
    primary key (job, epoch, source)
);
