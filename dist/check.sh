#!/bin/sh
# Checks a static build of Speak: dist/check.sh [PROGRAM]
#
# The program is for the processor of this machine. It must be static, position-independent,
# stripped and at most 1.9 MiB. It must serve with an empty folder as its root (checked as root
# only), and use at most 2 MiB of memory when idle. Prints its size and that memory.
set -eu
PROGRAM=${1:-target/$(uname -m)-unknown-linux-musl/release/speak}
FILE_MAX_BYTES=1992294
MEMORY_MAX_BYTES=2097152
ROOT=$(mktemp -d)
PID=''
trap '[ -z "$PID" ] || kill "$PID" 2>/dev/null || true; rm -rf "$ROOT"' EXIT

# Prints what is wrong and exits.
fail() {
    echo "$PROGRAM $1" >&2
    exit 1
}
# The headers show an interpreter even if `ldd` calls the program static.
! readelf -lW "$PROGRAM" | grep -q INTERP || fail 'needs an interpreter'
! readelf -dW "$PROGRAM" | grep -q NEEDED || fail 'needs a library'
readelf -hW "$PROGRAM" | grep -q 'Type: *DYN' || fail 'is not position-independent'
! readelf -SW "$PROGRAM" | grep -q ' \.symtab ' || fail 'is not stripped'
BYTES=$(stat -c %s "$PROGRAM")
[ "$BYTES" -le $FILE_MAX_BYTES ] || fail "has $BYTES bytes, more than $FILE_MAX_BYTES"

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
grep -q 'listening on' "$ROOT/log" || fail "does not start: $(cat "$ROOT/log")"
# Includes the pages of the program itself.
KIB=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")
[ $((KIB * 1024)) -le $MEMORY_MAX_BYTES ] || fail "uses $KIB KiB when idle"
echo "$PROGRAM: $BYTES bytes, $KIB KiB resident when idle"
