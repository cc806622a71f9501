-- What a front said of its reads with its last heartbeat; null = it had answered none. In the row that a heartbeat
-- writes anyway.
alter table switcher.reader_leases
    add column heard       timestamptz,
    add column load_reads  bigint,
    add column load_window interval,
    add column load_p50    interval,
    add column load_p99    interval;
