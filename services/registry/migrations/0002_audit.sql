-- What a retirement asked for, and why one ended.

alter table registry.audit
    add column forgo_rollback boolean,             -- of action RETIRE: whether the way back is given up; null = another
    add column why text not null default '';       -- what another service gave as the reason; empty = as it was asked
