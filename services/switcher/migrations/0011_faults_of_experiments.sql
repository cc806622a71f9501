-- Why windows that are over cannot be added up; '' = they can. Harm does not rest on them, and is watched for all the same.
alter table switcher.experiments add column fault text not null default '';
