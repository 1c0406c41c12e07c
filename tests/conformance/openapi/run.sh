#!/bin/sh
# Holds docs/openapi.yaml and a binary of Speak against each other, by schemathesis: run.sh PATH [EXAMPLES]
#
# So many requests for each call (20), right ones and wrong ones, from a fixed seed; and rows of calls along the links of the
# page. Reads wait hardly, so that it takes half a minute. What it needs goes into a virtual environment of its own.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
binary=$(cd "$(dirname "$1")" && pwd)/$(basename "$1")
examples=${2:-20}
place=$here/../../../target/openapi
"$here/../../../.ci/venv" "$place" "$here/requirements.txt"

log=$(mktemp)
pid=''
trap '[ -z "$pid" ] || kill "$pid" 2>/dev/null || true; rm -f "$log"' EXIT
"$binary" --listen 127.0.0.1:0 --poll-timeout 20ms --connection-timeout 60s 2>"$log" &
pid=$!
port=''
for _ in $(seq 150); do
    port=$(sed -n 's|.* listening on http://127\.0\.0\.1:\([0-9]*\)$|\1|p' "$log")
    [ -z "$port" ] || break
    sleep 0.1
done
[ -n "$port" ] || { cat "$log" >&2; exit 1; }

# It leaves caches in the folder where it is run.
mkdir -p "$place/work"
cd "$place/work"
PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 \
    "$place/bin/st" --no-color --config-file "$here/schemathesis.toml" run "$here/../../../docs/openapi.yaml" \
    --url "http://127.0.0.1:$port" --seed 7 --max-examples "$examples" --continue-on-failure --warnings off
# A server that ended by itself passes nothing.
kill -0 "$pid"
