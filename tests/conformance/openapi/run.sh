#!/bin/sh
# Checks a binary of Speak against docs/openapi.yaml with schemathesis: run.sh PATH [EXAMPLES]
#
# EXAMPLES requests per call (20), valid and invalid, from a fixed seed; and sequences of calls
# along the links of the page. Reads hardly wait, so a run takes half a minute. The requirements go
# into a virtual environment.
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

# schemathesis leaves caches in its working folder.
mkdir -p "$place/work"
cd "$place/work"
PYTHONPATH=$here SCHEMATHESIS_HOOKS=hooks PYTHONDONTWRITEBYTECODE=1 \
    "$place/bin/st" --no-color --config-file "$here/schemathesis.toml" \
    run "$here/../../../docs/openapi.yaml" --url "http://127.0.0.1:$port" --seed 7 \
    --max-examples "$examples" --continue-on-failure --warnings off
# A server that exited by itself fails the run.
kill -0 "$pid"
