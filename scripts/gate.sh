#!/usr/bin/env bash
# Proves the product under faults: runs every program of the gate within its share of the time and prints a table.
#
#   scripts/gate.sh                     about 25 minutes on two cores
#   scripts/gate.sh simulation fuzz     only these parts
#   GATE_SCALE=72 GATE_REPORT=DIR scripts/gate.sh
#                                       a soak of 72 times as long, that goes on from DIR when it is started again
#
# Parts: simulation, bugs, crash-lab, chaos, commits, fuzz, differ. What cannot be tried on this machine is printed and counted as
# skipped. Each commit has its own seeds; GATE_BASE=N tries those of another.
#
# What each part must come to is below. A slow machine gets up to four times the time for it. What an overload leaves, and how
# fast the simulation is, is not held where CI is set, since other work may run beside it: it is printed only.
set -euo pipefail
cd "$(dirname "$0")/.."

scale=${GATE_SCALE:-1}
report=${GATE_REPORT:-}
commit=$(git rev-parse HEAD 2>/dev/null || echo 1)
base=${GATE_BASE:-$((16#${commit:0:7}))}
floors=--floors
[ -z "${CI:-}" ] || floors=
[ -z "$report" ] || mkdir -p "$report"
target=${CARGO_TARGET_DIR:-target}

echo "== programs of the gate; seeds from $base on"
cargo build --locked --profile gate --features rustydb-tests/planted_bugs \
  -p rustydb-tests -p rustydb-server -p rustydb-cli --bins

# require NAME=N,... : what a part must come to. A soak that goes on after an earlier one counts only what it adds.
require() { [ -n "$report" ] || echo "--require $1"; }

names=() results=() failures=
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
  # A part ends by itself within four times its time and a little; one that hangs is ended here and has failed.
  timeout --foreground --kill-after=20 "$((seconds * 4 + 240))" \
    "$target/gate/$program" "${arguments[@]}" 2>&1 | tee "$log" || status=1
  names+=("$name")
  results+=("$(tail -n 1 "$log")")
  failures+=$(sed -n '/^== what failed in /,$p' "$log" | sed '$d')$'\n'
}

wanted=("$@")
[ $# -gt 0 ] || wanted=(simulation bugs crash-lab chaos commits fuzz differ)
for one in "${wanted[@]}"; do
  case $one in
    simulation) part simulation 400 sim gate --base "$base" $(require seeds=400,hours=20,pairs=20,steps=800000,churns=20,watched=40,kinds=20${floors:+,speed=60}) ;;
    # With seeds of their own, that are known to be enough.
    bugs) part bugs 120 sim bugs ;;
    crash-lab) part crash-lab 170 crash-lab --seed "$base" ;;
    chaos)
      part chaos 450 chaos --seed "$base" ${floors:+"$floors"} \
        $(require kills=50,stops=20,fresh=20,histories=200,steps=200000,added=4,removed=4,components=10,links=5,clocks=6,partitions=15)
      ;;
    # 40 kills at commit time, 1,000 in a soak.
    commits) part commits 70 kill-commit --kills "$((scale > 1 ? 1000 : 40))" --seed "$base" ;;
    fuzz) part fuzz 80 fuzz --seed "$base" ;;
    # The same seeds each time: what is looked for is what has changed.
    differ) part differ 200 differ --seeds "$((5 * scale))" $(require statements=20000) ;;
    *) echo "there is no part $one; there are simulation, bugs, crash-lab, chaos, commits, fuzz and differ" >&2; exit 2 ;;
  esac
done

printf '\n== the gate\n'
for place in "${!names[@]}"; do printf '%-11s %s\n' "${names[$place]}" "${results[$place]}"; done
# At the end, where it is seen when only the end of an output is kept.
[ -z "${failures//$'\n'/}" ] || printf '\n%s\n' "$failures"
exit "$status"
