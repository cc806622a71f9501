-- Experiments. What fronts are told of one stands on its route; here is what was fixed, what was counted, and what was
-- decided. Everything that counts locks the experiment's row first, so that counts and decisions are of one moment.

-- The keys that exposures are signed with, shared with the fronts over the watch. The newest one signs.
create table switcher.exposure_keys (
    number      smallint    primary key check (number between 1 and 255),
    key         bytea       not null,
    create_time timestamptz not null default now()
);

create table switcher.experiments (
    number        bigint      primary key generated always as identity,
    job           text        not null,
    experiment    text        not null,                 -- its id
    state         text        not null check (state in ('STARTING', 'RUNNING', 'PAUSED', 'ROLLED_BACK', 'STOPPED')),
    spec          jsonb       not null,
    owner         text        not null,                 -- of the route, on its behalf
    claimed_actor text        not null,
    reason        text        not null,
    request_id    text        not null,
    fingerprint   bytea       not null,
    units         bigint      not null default 0,       -- counted so far
    passed_over   text[]      not null default '{}',    -- verdicts for which a person has resumed it
    verdict       text        not null default '',      -- last decided
    create_time   timestamptz not null default clock_timestamp(),
    end_time      timestamptz,
    end_reason    text        not null default '',
    unique (job, experiment)
);
create unique index one_experiment_counts on switcher.experiments (job) where state in ('STARTING', 'RUNNING', 'PAUSED');

-- The design: which epochs of the route are the experiment's, with the weights of that time.
create table switcher.experiment_epochs (
    number     bigint      not null references switcher.experiments on delete cascade,
    epoch      bigint      not null,
    weights    jsonb       not null,                    -- {"version": basis points}
    start_time timestamptz not null,
    primary key (number, epoch)
);

-- A unit counts once, in the epoch of its first exposure, which a front tells. Outcomes enrol nobody: whether one comes
-- depends on what the unit was given.
create table switcher.experiment_units (
    number      bigint      not null references switcher.experiments on delete cascade,
    unit        bigint      not null,                   -- its identity
    epoch       bigint      not null,
    version     integer     not null,
    exposed_at  timestamptz not null,
    mixed       boolean     not null default false,     -- it met another version within its window
    closed      boolean     not null default false,     -- the window is over and has been added up
    primary key (number, unit)
);
create index experiment_units_open on switcher.experiment_units (number, exposed_at) where not closed;

-- What became of exposures, so that a repeat is none. Of every metric but REWARD a unit has one: its key is 0.
create table switcher.experiment_outcomes (
    number  bigint           not null references switcher.experiments on delete cascade,
    unit    bigint           not null,
    metric  text             not null,
    key     bigint           not null,
    epoch   bigint           not null,                  -- of the exposure
    version integer          not null,
    at      timestamptz      not null,
    value   double precision not null,
    primary key (number, unit, metric, key)
);

-- The sums of both, which verdicts rest on.
create table switcher.experiment_tallies (
    number      bigint           not null references switcher.experiments on delete cascade,
    epoch       bigint           not null,
    version     integer          not null,
    units       bigint           not null default 0,
    closed      bigint           not null default 0,
    errors      bigint           not null default 0,
    conversions bigint           not null default 0,
    total       double precision not null default 0,
    squares     double precision not null default 0,
    primary key (number, epoch, version)
);
create table switcher.experiment_harms (
    number  bigint  not null references switcher.experiments on delete cascade,
    epoch   bigint  not null,
    version integer not null,
    metric  text    not null,
    units   bigint  not null default 0,
    primary key (number, epoch, version, metric)
);

create table switcher.experiment_decisions (
    number      bigint      not null references switcher.experiments on delete cascade,
    decision    integer     not null,                   -- 1, 2, ... of the experiment
    epoch       bigint      not null,                   -- of the route that it led to, or stayed in
    action      text        not null,
    verdict     text        not null,
    sentence    text        not null,
    actor       text        not null,
    reason      text        not null,
    carried_out boolean     not null,
    record      bytea       not null,                   -- JSON, to the byte
    create_time timestamptz not null default clock_timestamp(),
    primary key (number, decision)
);

-- Until when everything that a front saw has been counted.
create table switcher.exposure_flushes (
    front     text        primary key,
    flushed   timestamptz not null,
    lost      bigint      not null default 0            -- observations that it had to drop since it started
);

-- Loops that one replica runs at a time.
create table switcher.loop_leases (
    loop    text        primary key,
    holder  text        not null,
    expires timestamptz not null
);
