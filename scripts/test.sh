#!/usr/bin/env bash
# Everything that must hold before a change lands: formatting, lints, tests, documentation.
# It leaves the tree as it is. `scripts/test.sh FILTER...` runs only the tests that match.
set -euo pipefail
cd "$(dirname "$0")/.."

step() { printf '\n== %s\n' "$*"; }
seconds=$SECONDS

if [ $# -eq 0 ]; then
  step "formatting"
  cargo fmt --all --check

  step "lints, warnings denied"
  cargo clippy --workspace --all-targets --locked -- -D warnings
fi

# The process tests start these programs; they are not built by testing another package.
step "programs"
cargo build --locked -p rustydb-server -p rustydb-cli

step "tests"
output=$(mktemp)
trap 'rm -f "$output"' EXIT
if ! cargo nextest --version >/dev/null 2>&1; then
  echo "cargo-nextest is missing; installing it"
  cargo install --locked --quiet cargo-nextest || echo "it cannot be installed here; cargo test runs the tests instead"
fi
if cargo nextest --version >/dev/null 2>&1; then
  profile=default; [ -z "${CI:-}" ] || profile=ci
  cargo nextest run --workspace --locked --profile "$profile" "$@" 2>&1 | tee "$output"
  count=$(grep -oE '[0-9]+ tests? run: [0-9]+ passed' "$output" | tail -1)
else
  cargo test --workspace --locked --lib --bins --tests --no-fail-fast -- "$@" 2>&1 | tee "$output"
  count="$(awk '/^test result:/ { passed += $4; failed += $6 } END { print passed + failed " tests run: " passed " passed" }' "$output")"
fi

if [ $# -eq 0 ]; then
  step "documentation, warnings denied"
  cargo test --workspace --locked --doc --quiet 2>&1 | tail -n 3
  RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --locked --document-private-items --quiet
fi

printf '\n%s in %d s\n' "$count" $((SECONDS - seconds))
