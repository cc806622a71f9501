-- What a front asks besides the reads themselves, which statements.py writes for each table.

-- name: columns_of_table
-- One row for each column of serving.$1, hidden ones too; no row when there is no such table.
select c.oid as relation,
       a.attname::text as name,
       format_type(a.atttypid, null) as type,
       not a.attnotnull as nullable,
       array_position(i.indkey::int2[], a.attnum) as key_position,
       current_user::text as role,
       pg_get_userbyid(c.relowner)::text as owner
from pg_class c
join pg_namespace n on n.oid = c.relnamespace
join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
left join pg_index i on i.indrelid = c.oid and i.indisprimary
where n.nspname = 'serving' and c.relname = $1 and c.relkind in ('r', 'p')
order by a.attnum

-- name: rights
-- Whether this user may read the positions, without which no read is answered; no row while there is no schema.
select current_user::text as role,
       pg_get_userbyid(n.nspowner)::text as owner,
       has_schema_privilege(n.oid, 'usage') as enters,
       coalesce(has_table_privilege(p.oid, 'select'), true) as reads
from pg_namespace n left join pg_class p on p.relnamespace = n.oid and p.relname = 'positions'
where n.nspname = 'serving'
