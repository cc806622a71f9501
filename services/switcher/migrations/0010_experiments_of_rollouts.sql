-- Each look at a rollout, and each message about one, asks for the newest experiment on its behalf.
create index experiments_of_owner on switcher.experiments (owner, number);

create function switcher.newest_experiment(owner text) returns text language sql stable as $$
    select e.experiment from switcher.experiments e where e.owner = $1 order by e.number desc limit 1
$$;
