#!/usr/bin/env bash
# Compares what psql's meta-commands print here with what they print on PostgreSQL 15.
#
#   scripts/psql-compare.sh 'host=127.0.0.1 port=15401 user=postgres'            compare; exit status 1 on a difference
#   scripts/psql-compare.sh --record 'host=... port=... user=postgres'           write the expected output (PostgreSQL 15)
#
# The objects are those of crates/sql/src/pgcatalog/testdata/schema.sql, in a database `psql_compare` that is made and
# dropped. Commands whose output must differ (sizes, template databases, the owner of `public`) are not in the list.
set -euo pipefail
cd "$(dirname "$0")/../crates/sql/src/pgcatalog/testdata"

record=no
if [ "${1:-}" = --record ]; then
  record=yes
  shift
fi
server=${1:?usage: psql-compare.sh [--record] CONNECTION}
export PSQLRC=/dev/null PGCLIENTENCODING=UTF8 PGCONNECT_TIMEOUT=10
unset PAGER

drop_database() {
  psql -X -q -d "$server dbname=postgres" -c 'DROP DATABASE IF EXISTS psql_compare' >/dev/null 2>&1 || true
}
drop_database
trap drop_database EXIT
psql -X -q -d "$server dbname=postgres" -c 'CREATE DATABASE psql_compare'
psql -X -q -v ON_ERROR_STOP=1 -d "$server dbname=psql_compare" -f schema.sql

actual=$(mktemp)
while IFS= read -r command; do
  printf '### %s\n' "$command"
  psql -X -d "$server dbname=psql_compare" -c "$command" 2>&1 || true
done <psql_commands.txt >"$actual"

if [ $record = yes ]; then
  mv "$actual" psql_expected.txt
elif diff -u psql_expected.txt "$actual"; then
  echo "psql: $(wc -l <psql_commands.txt) commands print what they print on PostgreSQL 15"
  rm "$actual"
else
  echo "psql: the output differs; it is in $actual" >&2
  exit 1
fi
