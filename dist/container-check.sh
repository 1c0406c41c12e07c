#!/bin/sh
# Checks that a container of dist/Containerfile serves: dist/container-check.sh [PROGRAM]
#
# Needs no container engine, but root. The files that the Containerfile copies are the only ones in
# a folder, which becomes the root. The program runs there as the file's user, without capabilities.
# It must serve, and stop at the file's signal.
set -eu
cd "$(dirname "$0")/.."
PROGRAM=${1:-target/$(uname -m)-unknown-linux-musl/release/speak}
FILE=dist/Containerfile
ROOT=$(mktemp -d)
LOG=$(mktemp)
PID=''
trap '[ -z "$PID" ] || kill -KILL "$PID" 2>/dev/null || true; rm -rf "$ROOT" "$LOG"' EXIT

fail() {
    echo "$FILE: $1" >&2
    cat "$LOG" >&2
    exit 1
}
# Prints the arguments of an instruction.
instruction() {
    sed -n "s/^$1 //p" "$FILE"
}
# This script has to know every instruction of the file.
KNOWN='FROM scratch|COPY --chmod=0755 speak /speak|(USER|EXPOSE|STOPSIGNAL|ENTRYPOINT) .*'
UNKNOWN=$(grep -vE "^(#.*|$KNOWN)?\$" "$FILE" || true)
[ -z "$UNKNOWN" ] || fail "unknown to this script: $UNKNOWN"
[ "$(instruction ENTRYPOINT)" = '["/speak"]' ] || fail 'another program'
[ "$(instruction EXPOSE)" = '8080 7732' ] || fail 'other ports than the default ones of Speak'
if [ "$(id -u)" != 0 ]; then
    echo "$FILE: not checked, which needs root" >&2
    exit 0
fi

install -m 755 "$PROGRAM" "$ROOT/speak"
chmod 755 "$ROOT"
env -i "$(command -v chroot)" --userspec="$(instruction USER)" --groups= "$ROOT" \
    /speak --listen 127.0.0.1:0 2>"$LOG" &
PID=$!
for _ in $(seq 100); do
    ! grep -q ' started max_clients=' "$LOG" || break
    sleep 0.1
done
PORT=$(sed -n 's/.* listening on http.*:\([0-9]*\)$/\1/p' "$LOG")
[ -n "$PORT" ] || fail 'it does not start'
STATUS=/proc/$PID/status
RUNNING_UID=$(sed -n 's/^Uid:\t\([0-9]*\)\t.*/\1/p' "$STATUS")
[ "$RUNNING_UID" = "$(instruction USER | cut -d: -f1)" ] || fail 'it runs as another user'
[ -z "$(sed -n 's/^Groups:[[:space:]]*//p' "$STATUS")" ] || fail 'it is in groups'
grep -q '^CapPrm:[[:space:]]*0*$' "$STATUS" || fail 'it has capabilities'
python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()' \
    "http://127.0.0.1:$PORT/health" || fail 'it does not serve'
kill -s "$(instruction STOPSIGNAL | sed s/^SIG//)" "$PID"
wait "$PID" || fail 'it does not stop with status 0'
PID=''
echo "$FILE: serves in an empty root as $(sed -n 's/^USER //p' "$FILE"), and stops"
