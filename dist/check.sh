#!/bin/sh
# Whether a program is what a static Speak should be: dist/check.sh [PROGRAM]
#
# For the processor of this machine. Static, at any address, stripped, within 1.5 MiB; it serves alone in an empty folder as its root (if we are root, who alone
# may try that), and takes at most 1.5 MiB of memory with nothing to do. Tells its size and that memory.
set -eu
PROGRAM=${1:-target/$(uname -m)-unknown-linux-musl/release/speak}
LIMIT_BYTES=1572864
ROOT=$(mktemp -d)
PID=''
trap '[ -z "$PID" ] || kill "$PID" 2>/dev/null || true; rm -rf "$ROOT"' EXIT

# `ldd` calls programs static that want an interpreter: their headers do not lie.
refuse() {
    echo "$PROGRAM $1" >&2
    exit 1
}
! readelf -lW "$PROGRAM" | grep -q INTERP || refuse 'needs an interpreter'
! readelf -dW "$PROGRAM" | grep -q NEEDED || refuse 'needs a library'
readelf -hW "$PROGRAM" | grep -q 'Type: *DYN' || refuse 'does not run at any address'
! readelf -SW "$PROGRAM" | grep -q ' \.symtab ' || refuse 'is not stripped'
BYTES=$(stat -c %s "$PROGRAM")
[ "$BYTES" -le $LIMIT_BYTES ] || refuse "has $BYTES bytes, over $LIMIT_BYTES"

cp "$PROGRAM" "$ROOT/speak"
if [ "$(id -u)" = 0 ]; then
    chroot "$ROOT" /speak --listen 127.0.0.1:0 2>"$ROOT/log" &
else
    "$ROOT/speak" --listen 127.0.0.1:0 2>"$ROOT/log" &
fi
PID=$!
for _ in $(seq 100); do
    ! grep -q 'listening on' "$ROOT/log" || break
    sleep 0.1
done
grep -q 'listening on' "$ROOT/log" || refuse "does not start: $(cat "$ROOT/log")"
# All of it, also the pages of the program itself.
KIB=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")
[ $((KIB * 1024)) -le $LIMIT_BYTES ] || refuse "takes $KIB KiB with nothing to do"
echo "$PROGRAM: $BYTES bytes, $KIB KiB resident with nothing to do"
