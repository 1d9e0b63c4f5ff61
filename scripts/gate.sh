#!/usr/bin/env bash
# Proves the product under faults: runs every program of the gate within its share of the time and prints a table.
#
#   scripts/gate.sh                     about 20 minutes on two cores
#   scripts/gate.sh simulation fuzz     only these parts
#   GATE_SCALE=72 GATE_REPORT=DIR scripts/gate.sh
#                                       a soak of 72 times as long, that goes on from DIR when it is started again
#
# Parts: simulation, bugs, crash-lab, chaos, commits, fuzz. What cannot be tried on this machine is printed and counted as skipped.
set -euo pipefail
cd "$(dirname "$0")/.."

scale=${GATE_SCALE:-1}
report=${GATE_REPORT:-}
base=${GATE_BASE:-1}
floors=--floors
[ -z "${CI:-}" ] || floors=
[ -z "$report" ] || mkdir -p "$report"
target=${CARGO_TARGET_DIR:-target}

echo "== programs of the gate"
cargo build --locked --profile gate --features rustydb-tests/planted_bugs \
  -p rustydb-tests -p rustydb-server -p rustydb-cli --bins

names=() results=()
status=0
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# part NAME SECONDS PROGRAM ARGUMENTS...
part() {
  local name=$1 seconds=$(($2 * scale)) program=$3
  shift 3
  local arguments=("$@" --seconds "$seconds")
  [ -z "$report" ] || arguments+=(--report "$report/$name.jsonl")
  printf '\n== %s: %s %s\n' "$name" "$program" "${arguments[*]}"
  "$target/gate/$program" "${arguments[@]}" 2>&1 | tee "$log" || status=1
  names+=("$name")
  results+=("$(tail -n 1 "$log")")
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(simulation bugs crash-lab chaos commits fuzz)
for one in "${wanted[@]}"; do
  case $one in
    simulation) part simulation 480 sim gate --base "$base" ;;
    bugs) part bugs 150 sim bugs ;;
    crash-lab) part crash-lab 170 crash-lab ;;
    # How fast an overload is says little where other work runs beside it.
    chaos) part chaos 250 chaos ${floors:+"$floors"} ;;
    # 40 kills at commit time, 1,000 in a soak.
    commits) part commits 70 kill-commit --kills "$((scale > 1 ? 1000 : 40))" ;;
    fuzz) part fuzz 100 fuzz ;;
    *) echo "there is no part $one; there are simulation, bugs, crash-lab, chaos, commits and fuzz" >&2; exit 2 ;;
  esac
done

printf '\n== the gate\n'
for place in "${!names[@]}"; do printf '%-11s %s\n' "${names[$place]}" "${results[$place]}"; done
exit "$status"
