#!/bin/sh
# Whether dist/Containerfile makes a container that serves: dist/container-check.sh [PROGRAM]
#
# Without a container engine: what the file copies is all there is in a folder, which becomes the root; the program runs there as
# the file's user, without a capability, has to serve, and to stop by the file's signal. Only root may try that.
set -eu
cd "$(dirname "$0")/.."
PROGRAM=${1:-target/$(uname -m)-unknown-linux-musl/release/speak}
FILE=dist/Containerfile
ROOT=$(mktemp -d)
LOG=$(mktemp)
PID=''
trap '[ -z "$PID" ] || kill -KILL "$PID" 2>/dev/null || true; rm -rf "$ROOT" "$LOG"' EXIT

refuse() {
    echo "$FILE: $1" >&2
    cat "$LOG" >&2
    exit 1
}
word() {
    sed -n "s/^$1 //p" "$FILE"
}
# What else it may come to say, this script would have to learn.
UNKNOWN=$(grep -vE '^(#.*|FROM scratch|COPY --chmod=0755 speak /speak|(USER|EXPOSE|STOPSIGNAL|ENTRYPOINT) .*)?$' "$FILE" || true)
[ -z "$UNKNOWN" ] || refuse "not understood here: $UNKNOWN"
[ "$(word ENTRYPOINT)" = '["/speak"]' ] || refuse 'another program'
[ "$(word EXPOSE)" = '8080 7732' ] || refuse 'other ports than those on which Speak listens by itself'
if [ "$(id -u)" != 0 ]; then
    echo "$FILE: only root may try it" >&2
    exit 0
fi

install -m 755 "$PROGRAM" "$ROOT/speak"
chmod 755 "$ROOT"
env -i "$(command -v chroot)" --userspec="$(word USER)" --groups= "$ROOT" /speak --listen 127.0.0.1:0 2>"$LOG" &
PID=$!
for _ in $(seq 100); do
    ! grep -q ' started max_clients=' "$LOG" || break
    sleep 0.1
done
PORT=$(sed -n 's/.* listening on http.*:\([0-9]*\)$/\1/p' "$LOG")
[ -n "$PORT" ] || refuse 'it does not start'
STATUS=/proc/$PID/status
[ "$(sed -n 's/^Uid:\t\([0-9]*\)\t.*/\1/p' "$STATUS")" = "$(word USER | cut -d: -f1)" ] || refuse 'it runs as somebody else'
[ -z "$(sed -n 's/^Groups:[[:space:]]*//p' "$STATUS")" ] || refuse 'it is in groups'
grep -q '^CapPrm:[[:space:]]*0*$' "$STATUS" || refuse 'it has capabilities'
python3 -c 'import sys, urllib.request; urllib.request.urlopen(sys.argv[1]).read()' "http://127.0.0.1:$PORT/health" ||
    refuse 'it does not serve'
kill -s "$(word STOPSIGNAL | sed s/^SIG//)" "$PID"
wait "$PID" || refuse 'it does not stop as it should'
PID=''
echo "$FILE: serves in an empty root as $(sed -n 's/^USER //p' "$FILE"), and stops"
