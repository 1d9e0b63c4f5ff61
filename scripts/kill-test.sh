#!/usr/bin/env bash
# Kills the leader of a fresh three-node cluster with -9 under load, N times in a row (50). Fails when an
# acknowledged row is missing, a row is there twice, or service does not come back.
# (All nodes at once is what the process tests kill.)
#
#   scripts/kill-test.sh [N]        environment: BASE_PORT (15700), WRITERS (8), KEEP=1 keeps the data folder
set -euo pipefail
cd "$(dirname "$0")/.."
kills=${1:-50}
base_port=${BASE_PORT:-15700}

cargo build --release --quiet --bin rustydb --bin rustydb-cli
cargo build --release --quiet -p rustydb-tests --bin kill-leader
programs=${CARGO_TARGET_DIR:-target}/release

data=$(mktemp -d "${TMPDIR:-/tmp}/rustydb-kill.XXXXXX")
"$programs/rustydb" dev --data "$data" --base-port "$base_port" >"$data/dev.log" 2>&1 &
dev=$!
cleanup() {
  kill -INT "$dev" 2>/dev/null || true
  wait "$dev" 2>/dev/null || true
  for file in "$data"/node-*/rustydb.pid; do
    [ -s "$file" ] && kill "$(head -1 "$file")" 2>/dev/null || true
  done
  [ -n "${KEEP:-}" ] && echo "data kept in $data" || rm -rf "$data"
}
trap cleanup EXIT
for _ in $(seq 300); do
  grep -qx ready "$data/dev.log" && break
  kill -0 "$dev" 2>/dev/null || { cat "$data/dev.log"; exit 1; }
  sleep 0.1
done
grep -qx ready "$data/dev.log" || { echo "the cluster is not ready after 30 s"; cat "$data/dev.log"; exit 1; }

run() { "$programs/kill-leader" --data "$data" --base-port "$base_port" --programs "$programs" --writers "${WRITERS:-8}" "$@"; }
echo "== the leader, $kills times"
run --kills "$kills" ${JSON:+--json "$JSON"}
