#!/bin/sh
# Checks a static build of Speak: dist/check.sh PROGRAM full|small
#
# The program is for the processor of this machine. It must be static, position-independent and
# stripped. It must serve with an empty folder as its root (checked as root only). Its file, and its
# memory when idle, must not be larger than the limits below. Prints both.
set -eu
PROGRAM=$1
case $2 in
# 2.5 and 1 MiB.
full) FILE_MAX_BYTES=2621440 MEMORY_MAX_BYTES=1048576 ;;
# 1.5 and 1 MiB.
small) FILE_MAX_BYTES=1572864 MEMORY_MAX_BYTES=1048576 ;;
*) echo "$0: no build is called $2" >&2 && exit 2 ;;
esac
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
if [ "$2" = small ]; then
    STATUS=0
    ERROR=$("$PROGRAM" --cluster redis://127.0.0.1 --version 2>&1) || STATUS=$?
    EXPECTED='speak: --cluster: this build has no cluster; use the full one'
    [ "$STATUS:$ERROR" = "2:$EXPECTED" ] || fail "says with --cluster, at status $STATUS: $ERROR"
fi

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
# After this line the server is done with its start, and gives back the pages of its file.
sleep 0.2
KIB=$(sed -n 's/^VmRSS:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$PID/status")
[ $((KIB * 1024)) -le $MEMORY_MAX_BYTES ] || fail "uses $KIB KiB when idle"
echo "$PROGRAM: $BYTES bytes, $KIB KiB resident when idle"
