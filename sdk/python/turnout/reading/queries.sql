-- What a front asks besides the reads themselves, which statements.py writes for each table.

-- name: columns_of_table
-- One row for each column of serving.$1, hidden ones too; no row when there is no such table.
select c.oid as relation,
       a.attname::text as name,
       format_type(a.atttypid, null) as type,
       not a.attnotnull as nullable,
       array_position(i.indkey::int2[], a.attnum) as key_position
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where n.nspname = 'serving' and c.relname = $1 and c.relkind in ('r', 'p')
order by a.attnum
