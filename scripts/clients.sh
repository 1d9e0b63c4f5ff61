#!/usr/bin/env bash
# Installs real clients (drivers of five languages, object mappers, the tools of PostgreSQL) and runs their checks against a
# cluster of three nodes.
#
#   scripts/clients.sh                   all of them, about a minute
#   scripts/clients.sh --only django     one; docs/clients.md names them
#
# Versions are those of tests/clients/requirements.txt and tests/clients/node/package-lock.json. They are installed once, into
# CLIENTS_DIR (default: ~/.cache/rustydb-clients).
set -euo pipefail
cd "$(dirname "$0")/.."

installed=${CLIENTS_DIR:-$HOME/.cache/rustydb-clients}
jdbc=/usr/share/java/postgresql.jar
target=${CARGO_TARGET_DIR:-target}

missing=
for program in psql pgbench pg_dump node npm javac; do
  command -v "$program" >/dev/null || missing+=" $program"
done
[ -e "$jdbc" ] || missing+=" $jdbc"
# Debian keeps the part that makes environments in a package of its own.
python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=" python3-venv"
if [ -n "$missing" ]; then
  echo "missing:$missing; in Debian they are in postgresql-client-15, postgresql-contrib, nodejs, npm, default-jdk-headless," \
    "libpostgresql-jdbc-java and python3-venv" >&2
  exit 1
fi

# up_to_date DIR FILE...: whether what is in DIR was installed by these files.
up_to_date() { [ -e "$1/installed" ] && [ "$(cat "${@:2}" | sha256sum)" = "$(cat "$1/installed")" ]; }
done_with() { cat "${@:2}" | sha256sum > "$1/installed"; }

clients=tests/clients
python=$installed/python node=$installed/node java=$installed/java
if ! up_to_date "$python" "$clients/requirements.txt"; then
  echo "== installing the Python clients"
  rm -rf "$python"
  python3 -m venv "$python"
  "$python/bin/pip" install --quiet --disable-pip-version-check -r "$clients/requirements.txt"
  done_with "$python" "$clients/requirements.txt"
fi
if ! up_to_date "$node" "$clients/node/package.json" "$clients/node/package-lock.json"; then
  echo "== installing the Node.js clients"
  rm -rf "$node"
  mkdir -p "$node"
  cp "$clients/node/package.json" "$clients/node/package-lock.json" "$node"
  npm ci --silent --no-audit --no-fund --prefix "$node"
  done_with "$node" "$clients/node/package.json" "$clients/node/package-lock.json"
fi
if ! up_to_date "$java" "$clients/Jdbc.java"; then
  echo "== compiling the Java client"
  rm -rf "$java"
  mkdir -p "$java"
  javac -cp "$jdbc" -d "$java" "$clients/Jdbc.java"
  done_with "$java" "$clients/Jdbc.java"
fi

echo "== programs"
cargo build --locked -p rustydb-server -p rustydb-cli -p rustydb-tests --bin rustydb --bin rustydb-cli --bin clients
# One that hangs is ended and has failed.
exec timeout --foreground --kill-after=20 900 \
  "$target/debug/clients" --installed "$installed" --jdbc "$jdbc" "$@"
