-- A rollback takes the place of any other change, also of another emergency; only another rollback is not overtaken.
alter table switcher.proposals add column rolls_back boolean not null default false;
