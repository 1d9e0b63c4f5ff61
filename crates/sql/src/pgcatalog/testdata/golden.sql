-- Writes golden.tsv: what PostgreSQL 15 shows of the objects that schema.sql makes.
--   createdb shop && psql -X -q -f schema.sql shop && psql -X -q -f golden.sql shop > golden.tsv
-- Each relation is a line `# schema.name`, a header line and its rows in COPY's text format. Left out are columns
-- that describe files, transactions and TOAST, which differ in kind.
\set ON_ERROR_STOP on
create temp view mine as select oid from pg_class where oid >= 16384 and relnamespace in (select oid from pg_namespace where nspname in ('public', 'app'));
\echo # pg_catalog.pg_namespace
copy (select oid, nspname, nspowner from pg_namespace where nspname = 'app') to stdout with (header);
\echo # pg_catalog.pg_class
copy (select oid, relname, relnamespace, reloftype, relowner, relam, reltablespace, relhasindex, relisshared, relpersistence, relkind, relnatts, relchecks, relhasrules, relhastriggers, relhassubclass, relrowsecurity, relforcerowsecurity, relispopulated, relreplident, relispartition, relrewrite, relacl, reloptions, relpartbound from pg_class join mine using (oid) order by oid) to stdout with (header);
\echo # pg_catalog.pg_attribute
copy (select attrelid, attname, atttypid, attstattarget, attlen, attnum, attndims, attcacheoff, atttypmod, attbyval, attalign, attstorage, attcompression, attnotnull, atthasdef, atthasmissing, attidentity, attgenerated, attisdropped, attislocal, attinhcount, attcollation, attacl, attoptions, attfdwoptions, attmissingval from pg_attribute join mine on oid = attrelid where attnum > 0 order by attrelid, attnum) to stdout with (header);
\echo # pg_catalog.pg_attrdef
copy (select adrelid, adnum, pg_get_expr(adbin, adrelid) as adbin from pg_attrdef d join mine on mine.oid = adrelid order by adrelid, adnum) to stdout with (header);
\echo # pg_catalog.pg_index
copy (select i.* from pg_index i join mine on mine.oid = indexrelid order by indexrelid) to stdout with (header);
\echo # pg_catalog.pg_constraint
copy (select c.* from pg_constraint c join mine on mine.oid = conrelid order by c.oid) to stdout with (header);
\echo # pg_catalog.pg_description
copy (select objoid, classoid, objsubid, description from pg_description join mine on mine.oid = objoid order by 1, 2, 3) to stdout with (header);
\echo # pg_catalog.pg_tables
copy (select * from pg_tables where schemaname in ('public', 'app') order by tablename) to stdout with (header);
\echo # pg_catalog.pg_indexes
copy (select * from pg_indexes where schemaname in ('public', 'app') order by indexname) to stdout with (header);
\echo # information_schema.schemata
copy (select * from information_schema.schemata where schema_name = 'app') to stdout with (header);
\echo # information_schema.tables
copy (select * from information_schema.tables where table_schema in ('public', 'app') order by table_name) to stdout with (header);
\echo # information_schema.columns
copy (select * from information_schema.columns where table_schema in ('public', 'app') order by table_name, ordinal_position) to stdout with (header);
\echo # information_schema.table_constraints
copy (select * from information_schema.table_constraints where table_schema in ('public', 'app') order by table_name, constraint_name) to stdout with (header);
\echo # information_schema.key_column_usage
copy (select * from information_schema.key_column_usage where table_schema in ('public', 'app') order by table_name, constraint_name, ordinal_position) to stdout with (header);
\echo # information_schema.constraint_column_usage
copy (select * from information_schema.constraint_column_usage where table_schema in ('public', 'app') order by table_name, constraint_name, column_name) to stdout with (header);
\echo # information_schema.check_constraints
copy (select * from information_schema.check_constraints where constraint_schema in ('public', 'app') order by constraint_name) to stdout with (header);
