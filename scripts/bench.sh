#!/usr/bin/env bash
# Measures a three-node RustyDB cluster beside PostgreSQL 15 with two synchronous standbys, on this machine, in one
# run, and prints ratios. Every commit is synced on a majority on both sides; nothing is tuned for the test.
#
#   scripts/bench.sh            about 25 minutes
#   scripts/bench.sh --quick    about 4 minutes: one run of 8 s per point, fewer points
#   scripts/bench.sh --copy     also: COPY of 10 million rows and the memory that each node takes for it
#
# Environment: CLIENTS "1 8 32"  SECONDS_PER_RUN 15  RUNS 3  SCALE 10  OUT bench-results.json
#              BASE_PORT 15500 (RustyDB)  PG_PORT 15900  WORK (a folder on a real disk; default: a new one below /var/tmp)
# PostgreSQL is installed from Debian's packages when it is absent. Ratios: throughput ours / theirs, latency ours / theirs.
set -euo pipefail
cd "$(dirname "$0")/.."
quick= copy=
for argument in "$@"; do
  case $argument in
    --quick) quick=1 ;;
    --copy) copy=1 ;;
    *) sed -n '2,12s/^# \{0,1\}//p' "$0"; exit 2 ;;
  esac
done
clients=${CLIENTS:-1 8 32}
seconds=${SECONDS_PER_RUN:-15} runs=${RUNS:-3} scale=${SCALE:-10}
[ -z "$quick" ] || { clients=${CLIENTS:-1 8 32}; seconds=${SECONDS_PER_RUN:-8}; runs=${RUNS:-1}; }
base_port=${BASE_PORT:-15500} pg_port=${PG_PORT:-15900}
out=${OUT:-bench-results.json}
work=${WORK:-$(mktemp -d /var/tmp/rustydb-bench.XXXXXX)}
case $(stat -f -c %T "$work") in tmpfs|ramfs) echo "error: $work is in memory: syncs would cost nothing" >&2; exit 1 ;; esac
chmod 755 "$work"

# --- PostgreSQL ---------------------------------------------------------------------------------------------------
if ! command -v pgbench >/dev/null || ! ls /usr/lib/postgresql/15/bin/postgres >/dev/null 2>&1; then
  DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends postgresql-15 postgresql-contrib >/dev/null
fi
bin=/usr/lib/postgresql/15/bin
as=(env LC_ALL=C.UTF-8)
if [ "$(id -u)" = 0 ]; then as=(setpriv --reuid=postgres --regid=postgres --init-groups env HOME=/tmp LC_ALL=C.UTF-8); chown postgres "$work"; fi

pg_sql() { psql -XqAt -h 127.0.0.1 -p "$pg_port" -U postgres -d postgres -v ON_ERROR_STOP=1 -c "$1"; }
pg_settings() { # number
  printf '%s\n' "listen_addresses = '127.0.0.1'" "port = $((pg_port + $1 - 1))" "unix_socket_directories = ''" \
    "cluster_name = 'pg$1'" "shared_buffers = 512MB" "max_wal_size = 4GB" "fsync = on" "synchronous_commit = on"
}
pg_start() { (cd "$work"; "${as[@]}" "$bin/pg_ctl" -w -t 60 -D "$work/pg$1" -l "$work/pg$1.log" start >/dev/null); }
pg_up() {
  "${as[@]}" "$bin/initdb" -D "$work/pg1" -U postgres -A trust -E UTF8 --locale=C.UTF-8 >"$work/initdb.log"
  pg_settings 1 | "${as[@]}" tee -a "$work/pg1/postgresql.conf" >/dev/null
  pg_start 1
  for number in 2 3; do
    "${as[@]}" "$bin/pg_basebackup" -h 127.0.0.1 -p "$pg_port" -U postgres -D "$work/pg$number" -R -X stream \
      --checkpoint=fast -d "application_name=pg$number"
    pg_settings "$number" | "${as[@]}" tee -a "$work/pg$number/postgresql.conf" >/dev/null
    pg_start "$number"
  done
  pg_sql "alter system set synchronous_standby_names = 'ANY 1 (pg2, pg3)'"
  pg_sql "select pg_reload_conf()" >/dev/null
  for _ in $(seq 100); do
    [ "$(pg_sql "select count(*) from pg_stat_replication where sync_state = 'quorum'")" = 2 ] && return
    sleep 0.1
  done
  echo "error: the standbys did not become synchronous" >&2; exit 1
}

# --- RustyDB ------------------------------------------------------------------------------------------------------
cargo build --release --quiet --bin rustydb --bin rustydb-cli
programs=${CARGO_TARGET_DIR:-target}/release
dev=
cleanup() {
  [ -z "$dev" ] || { kill -INT "$dev" 2>/dev/null || true; wait "$dev" 2>/dev/null || true; }
  for number in 3 2 1; do
    [ -d "$work/pg$number" ] && "${as[@]}" "$bin/pg_ctl" -D "$work/pg$number" -m fast stop >/dev/null 2>&1 || true
  done
  [ -n "${WORK:-}" ] || rm -rf "$work"
}
trap cleanup EXIT
node_pid() { head -1 "$work/rustydb/node-$1/rustydb.pid"; }
rss_mib() { awk '/^VmRSS:/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }
peak_mib() { awk '/^VmHWM:/ { printf "%.0f", $2 / 1024 }' "/proc/$1/status"; }
cpu_ticks() { awk '{ sub(/^.*\) /, ""); print $12 + $13 }' "/proc/$1/stat"; }
now_ms() { date +%s%3N; }

started=$(now_ms)
"$programs/rustydb" dev --data "$work/rustydb" --base-port "$base_port" >"$work/dev.log" 2>&1 &
dev=$!
for _ in $(seq 600); do
  grep -qx ready "$work/dev.log" && break
  kill -0 "$dev" 2>/dev/null || { cat "$work/dev.log" >&2; exit 1; }
  sleep 0.02
done
grep -qx ready "$work/dev.log" || { echo "error: the cluster is not ready" >&2; cat "$work/dev.log" >&2; exit 1; }
ready_ms=$(($(now_ms) - started))

# Idle: a minute after the start nothing but heartbeats should run.
sleep "$([ -n "$quick" ] && echo 5 || echo 30)"
idle_rss= idle_cpu=
for number in 1 2 3; do
  pid=$(node_pid $number); before=$(cpu_ticks "$pid"); sleep 10; after=$(cpu_ticks "$pid")
  idle_rss+="$(rss_mib "$pid") "
  idle_cpu+="$(awk -v t=$((after - before)) -v hz="$(getconf CLK_TCK)" 'BEGIN { printf "%.1f ", 100 * t / hz / 10 }')"
done
echo "ready after $ready_ms ms; idle: resident MiB per node: $idle_rss; % of a core: $idle_cpu"

leader=$("$programs/rustydb-cli" --host 127.0.0.1 --port $((base_port + 101)) --json cluster status |
  python3 -c 'import json, sys; print(next(d["leader"] for d in json.load(sys.stdin)["databases"] if d["name"] == "postgres"))')
our_port=$((base_port + leader))
pg_up

# --- the runs -----------------------------------------------------------------------------------------------------
records=$work/records.tsv; : >"$records"
# one SYSTEM PORT TEST CLIENTS: a line with throughput and latencies (ms)
one() {
  rm -f "$work"/log.*
  local extra=(); [ "$3" = select-only ] && extra=(--sampling-rate=0.1)
  if ! (cd "$work" && pgbench -n -h 127.0.0.1 -p "$2" -U postgres -b "$3" -M prepared -c "$4" -j "$(($4 < 2 ? $4 : 2))" -T "$seconds" \
      -l --log-prefix="$work/log" ${extra[@]+"${extra[@]}"} postgres) >"$work/out" 2>"$work/err"; then
    echo "error: $1 $3 $4 clients:" >&2; tail -3 "$work/err" >&2
    printf '%s\t%s\t%s\t0\t0\t0\t0\n' "$1" "$3" "$4" >>"$records"; return
  fi
  local percentiles tps average
  percentiles=$(cat "$work"/log.* | awk '{ print $3 }' | sort -n |
    awk '{ v[NR] = $1 } END { printf "%.3f\t%.3f", v[int((NR - 1) * .5) + 1] / 1000, v[int((NR - 1) * .99) + 1] / 1000 }')
  tps=$(awk '/^tps =/ { print $3 }' "$work/out"); average=$(awk '/^latency average/ { print $4 }' "$work/out")
  printf '%s\t%s\t%s\t%s\t%s\t%s\n' "$1" "$3" "$4" "$tps" "$average" "$percentiles" >>"$records"
}
pgbench -i -q -s "$scale" -h 127.0.0.1 -p "$pg_port" -U postgres postgres >"$work/init" 2>&1 || { cat "$work/init" >&2; exit 1; }
echo "PostgreSQL: $(tail -1 "$work/init")"
pgbench -i -q -s "$scale" -h 127.0.0.1 -p "$our_port" -U postgres postgres >"$work/init" 2>&1 || { cat "$work/init" >&2; exit 1; }
echo "RustyDB:    $(tail -1 "$work/init")"
for ((run = 1; run <= runs; run++)); do
  for test in tpcb-like simple-update select-only; do
    for count in $clients; do
      one postgresql "$pg_port" "$test" "$count"
      pg_sql checkpoint
      one rustydb "$our_port" "$test" "$count"
    done
  done
done
# One client's autocommit UPDATE.
echo '\set aid random(1, 100000 * :scale)
UPDATE pgbench_accounts SET abalance = abalance + 1 WHERE aid = :aid;' >"$work/update.sql"
update() {
  pgbench -n -h 127.0.0.1 -p "$2" -U postgres -f "$work/update.sql" -D scale="$scale" -M prepared -c 1 -T "$seconds" postgres 2>/dev/null |
    awk -v s="$1" '/^latency average/ { l = $4 } /^tps =/ { printf "%s\tupdate\t1\t%s\t%s\t%s\t0\n", s, $3, l, l }' >>"$records"
}
for ((run = 1; run <= runs; run++)); do update postgresql "$pg_port"; update rustydb "$our_port"; done

copy_mib=
if [ -n "$copy" ]; then
  psql -Xq -h 127.0.0.1 -p "$our_port" -U postgres -d postgres -c 'CREATE TABLE copy_probe (id bigint PRIMARY KEY, note text)'
  begun=$(now_ms)
  python3 -c 'import sys
w = sys.stdout.write
for i in range(10_000_000): w(f"{i}\tnote number {i} of ten million\n")' |
    psql -Xq -h 127.0.0.1 -p "$our_port" -U postgres -d postgres -c 'COPY copy_probe FROM STDIN'
  for number in 1 2 3; do copy_mib+="$(peak_mib "$(node_pid $number)") "; done
  echo "COPY of 10 million rows: $(($(now_ms) - begun)) ms; peak resident MiB per node: $copy_mib"
fi

READY_MS=$ready_ms IDLE_RSS=$idle_rss IDLE_CPU=$idle_cpu COPY_MIB=$copy_mib OUT=$out python3 - "$records" <<'PY'
import json, os, statistics, sys
points = {}
for line in open(sys.argv[1]):
    system, test, clients, tps, average, p50, p99 = line.rstrip("\n").split("\t")[:7]
    points.setdefault((test, int(clients)), {}).setdefault(system, []).append([float(v) for v in (tps, average, p50, p99)])
rows = []
print(f"{'test':<14}{'clients':>8}{'RustyDB tps':>13}{'PostgreSQL tps':>16}{'ratio':>8}{'p50 ms':>16}{'p99 ms':>18}")
for (test, clients), systems in points.items():
    ours, theirs = ([statistics.median(c) for c in zip(*systems.get(s, [[0] * 4]))] for s in ("rustydb", "postgresql"))
    ratio = ours[0] / theirs[0] if theirs[0] else 0.0
    print(f"{test:<14}{clients:>8}{ours[0]:>13.0f}{theirs[0]:>16.0f}{ratio:>8.2f}{ours[2]:>8.2f} /{theirs[2]:>6.2f}{ours[3]:>9.2f} /{theirs[3]:>7.2f}")
    rows.append(dict(test=test, clients=clients, ratio=round(ratio, 3),
                     rustydb=dict(zip(("tps", "average_ms", "p50_ms", "p99_ms"), ours)),
                     postgresql=dict(zip(("tps", "average_ms", "p50_ms", "p99_ms"), theirs))))
numbers = lambda name: [float(v) for v in os.environ[name].split()]
json.dump(dict(points=rows, ready_ms=int(os.environ["READY_MS"]), idle_resident_mib=numbers("IDLE_RSS"),
               idle_cpu_percent=numbers("IDLE_CPU"), copy_peak_mib=numbers("COPY_MIB")), open(os.environ["OUT"], "w"), indent=1)
print("written to", os.environ["OUT"])
PY
