-- Takes the data files beside this one from a PostgreSQL 15 server:
--   cd crates/sql/src/pgcatalog/data && psql -X -f extract.sql postgres
-- Each file is in COPY's text format with a header line; columns.tsv has one line for each relation.
\set ON_ERROR_STOP on

-- Types that this server has, and `internal`, which functions behind types and operators name.
create temp table known_type as select unnest(array[16,17,18,19,20,21,22,23,24,25,26,28,30,114,199,194,700,701,705,1000,1001,1002,1003,1005,1006,1007,1008,1009,1011,1013,1014,1015,1016,1021,1022,1028,1033,1034,1042,1043,1082,1083,1114,1115,1182,1183,1184,1185,1186,1187,1231,1263,1700,2202,2203,2204,2205,2206,2207,2208,2209,2210,2211,2249,2275,2276,2277,2278,2283,2287,2776,2950,2951,3220,3221,3500,3802,3807,4089,4090,4096,4097,4191,4192,5077,5078,2281])::oid as oid;
-- Settings of sessions; see crates/sql/src/session/settings.rs.
create temp table known_setting as select unnest(array[
  'application_name', 'array_nulls', 'backslash_quote', 'block_size', 'bytea_output', 'check_function_bodies',
  'client_encoding', 'client_min_messages', 'constraint_exclusion', 'DateStyle', 'deadlock_timeout',
  'debug_pretty_print', 'default_statistics_target', 'default_table_access_method', 'default_tablespace',
  'default_toast_compression', 'default_transaction_deferrable', 'default_transaction_isolation',
  'default_transaction_read_only', 'effective_cache_size', 'enable_async_append', 'enable_bitmapscan',
  'enable_gathermerge', 'enable_hashagg', 'enable_hashjoin', 'enable_incremental_sort',
  'enable_indexonlyscan', 'enable_indexscan', 'enable_material', 'enable_memoize', 'enable_mergejoin',
  'enable_nestloop', 'enable_parallel_append', 'enable_parallel_hash', 'enable_partition_pruning',
  'enable_partitionwise_aggregate', 'enable_partitionwise_join', 'enable_seqscan', 'enable_sort',
  'enable_tidscan', 'escape_string_warning', 'extra_float_digits', 'force_parallel_mode',
  'from_collapse_limit', 'geqo', 'geqo_effort', 'geqo_threshold', 'gin_fuzzy_search_limit',
  'idle_in_transaction_session_timeout', 'idle_session_timeout', 'in_hot_standby', 'integer_datetimes',
  'IntervalStyle', 'is_superuser', 'jit', 'join_collapse_limit', 'lc_collate', 'lc_ctype', 'lc_messages',
  'lc_monetary', 'lc_numeric', 'lc_time', 'lock_timeout', 'log_min_duration_statement', 'log_statement',
  'maintenance_work_mem', 'max_connections', 'max_function_args', 'max_identifier_length', 'max_index_keys',
  'max_parallel_maintenance_workers', 'max_parallel_workers', 'max_parallel_workers_per_gather',
  'max_prepared_transactions', 'parallel_leader_participation', 'password_encryption', 'plan_cache_mode',
  'quote_all_identifiers', 'random_page_cost', 'role', 'row_security', 'search_path', 'seq_page_cost',
  'server_encoding', 'server_version', 'server_version_num', 'session_authorization',
  'session_replication_role', 'standard_conforming_strings', 'statement_timeout', 'synchronize_seqscans',
  'synchronous_commit', 'temp_buffers', 'TimeZone', 'transaction_deferrable', 'transaction_isolation',
  'transaction_read_only', 'transform_null_equals', 'vacuum_cost_delay', 'wal_level', 'work_mem', 'xmloption'
]) as name;

-- Functions and operators that are implemented, from the lists that the expression evaluator resolves names with, and
-- the functions that types, casts and those operators name.
create temp table known_function (oid oid);
create temp table known_operator (oid oid);
\copy known_function from program 'grep -v "^#" ../../scalar/catalogue/functions.txt | cut -d" " -f1'
\copy known_operator from program 'grep -v "^#" ../../scalar/catalogue/operators.txt | cut -d" " -f1'
insert into known_function
  select unnest(array[typsubscript, typinput, typoutput, typreceive, typsend, typmodin, typmodout]::oid[]) from pg_type join known_type using (oid)
  union select castfunc from pg_cast where castsource in (select oid from known_type) and casttarget in (select oid from known_type)
  union select unnest(array[oprcode, oprrest, oprjoin]::oid[]) from pg_operator join known_operator using (oid);

copy (
  select n.nspname, c.relname, c.relkind, case when c.oid < 10000 then c.oid else 0 end,
    string_agg(a.attname || ':' || coalesce(k.typname, b.typname, case t.typname when 'inet' then 'text' when 'xid8' then 'text' when 'tid' then 'text' when 'cid' then 'xid' else 'bytea' end)
      || case when a.attnotnull then '!' else '' end, ' ' order by a.attnum)
  from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
    join pg_attribute a on a.attrelid = c.oid and a.attnum > 0
    join pg_type t on t.oid = a.atttypid
    left join (pg_type k join known_type using (oid)) on k.oid = t.oid
    left join pg_type b on b.oid = t.typbasetype
  where c.relkind in ('r', 'v') and n.nspname in ('pg_catalog', 'information_schema')
    -- What would be untrue when empty, and has no data here, is left out: it does not exist rather than misinform.
    and c.relname !~ '^(_pg_|pg_stat(io)?_.*(tables|indexes|sequences)$|pg_stat_(slru|wal|ssl|gssapi|database|archiver|bgwriter|replication$|recovery)|pg_(file_settings|hba_|ident_|config|shmem_|backend_mem|timezone_|replication_origin_status)|sql_(features|sizing|implementation_info|parts)|routines|parameters)'
    and (c.relname !~ '(_privileges|_grants|_usage)$' or c.relname in ('key_column_usage', 'constraint_column_usage', 'constraint_table_usage',
      'table_privileges', 'column_privileges', 'role_table_grants', 'role_column_grants'))
  group by n.nspname, c.relname, c.relkind, c.oid order by n.nspname collate "C" desc, c.relname collate "C"
) to stdout \g columns.tsv
copy (
  select oid, typname, typlen, typbyval, typtype, typcategory, typispreferred, typdelim, typsubscript::oid as typsubscript, typelem, case when typarray in (select oid
  from known_type) then typarray else 0 end as typarray, typinput::oid as typinput, typoutput::oid as typoutput, typreceive::oid as typreceive, typsend::oid as typsend, typmodin::oid as typmodin, typmodout::oid as typmodout, typalign, typstorage, typcollation from pg_type join known_type using (oid)
  order by oid
) to stdout with (header) \g pg_type.tsv
copy (
  select oid, opfmethod, opfname
  from pg_opfamily
  where opfmethod in (403, 405) and oid in (select opcfamily from pg_opclass where opcintype in (select oid from known_type))
  order by oid
) to stdout with (header) \g pg_opfamily.tsv
copy (
  select oid, opcmethod, opcname, opcfamily, opcintype, opcdefault, opckeytype
  from pg_opclass
  where opcmethod in (403, 405) and opcintype in (select oid from known_type)
  order by oid
) to stdout with (header) \g pg_opclass.tsv
copy (
  select oid, amopfamily, amoplefttype, amoprighttype, amopstrategy, amoppurpose, amopopr, amopmethod, amopsortfamily
  from pg_amop
  where amopmethod in (403, 405) and amoplefttype in (select oid from known_type) and amoprighttype in (select oid from known_type)
  order by oid
) to stdout with (header) \g pg_amop.tsv
copy (
  select oid, castsource, casttarget, castfunc, castcontext, castmethod
  from pg_cast
  where castsource in (select oid from known_type) and casttarget in (select oid from known_type)
  order by oid
) to stdout with (header) \g pg_cast.tsv
copy (
  select name, unit, category, short_desc, extra_desc, context, vartype, min_val, max_val, enumvals, boot_val
  from pg_settings
  where name in (select name from known_setting)
  order by name
) to stdout with (header) \g pg_settings.tsv
copy (
  select oid, oprname, oprkind, oprcanmerge, oprcanhash, oprleft, oprright, oprresult, case when oprcom in (select oid from known_operator) then oprcom else 0 end as oprcom,
    case when oprnegate in (select oid from known_operator) then oprnegate else 0 end as oprnegate, oprcode::oid as oprcode, oprrest::oid as oprrest, oprjoin::oid as oprjoin
  from pg_operator join known_operator using (oid)
  order by oid
) to stdout with (header) \g pg_operator.tsv
copy (
  select oid, proname, prokind, proisstrict, proretset, provolatile, proparallel, provariadic, pronargs, case when proretset then 1000 else 0 end as prorows, case prorettype when 114 then 25 else prorettype end as prorettype, proargtypes,
    case prolang when 12 then prosrc else proname end as prosrc
  from pg_proc
  where oid in (select oid from known_function)
  order by oid
) to stdout with (header) \g pg_proc.tsv
copy (
  select word
  from pg_get_keywords()
  where catcode <> 'U'
  order by word collate "C"
) to stdout \g reserved.tsv
copy (
  select word, catcode, barelabel
  from pg_get_keywords()
  order by word collate "C"
) to stdout \g pg_keywords.tsv

