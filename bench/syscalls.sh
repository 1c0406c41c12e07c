#!/usr/bin/env bash
# Checks costs of Speak that do not depend on the machine: system calls, and memory of pending
# reads.
#
# bench/syscalls.sh [--memory-limit BYTES] [SPEAK]      320 bytes per reader, target/release/speak
#
# Limits: two system calls for a delivery and its next poll, one for a delivery to a stream, two for
# a write, two for an immediate read; 600 bytes per stream. Waits (epoll_wait) are shared by all
# operations of a turn. They are printed, and limited to one per operation, or to two per message if
# the operation only sends. Each load runs twice with different counts; the difference excludes
# start and connecting.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

MEMORY_LIMIT=320
if [ "${1-}" = --memory-limit ]; then
    MEMORY_LIMIT=$2
    shift 2
fi
STREAM_MEMORY_LIMIT=600
SPEAK=${1:-target/release/speak}
READERS=100
# One of the runs may have a call or two more, for the clock or a timer.
SLACK=0.01

build_bench

# counted OUT DRIVE…: writes the server's system calls, a name and a number per line
counted() {
    local out=$1
    shift
    listen_for "$@"
    start strace -f -c -o "$SCRATCH/strace" "$SPEAK" "${LISTEN[@]}"
    speak_bench drive "$@" --at "127.0.0.1:$PORT" >"$SCRATCH/sample"
    # strace writes its summary when its child, the server, has ended.
    end "$(tr -d ' ' <"/proc/$PID/task/$PID/children")"
    stop
    awk '$4 ~ /^[0-9]+$/ && $NF != "total" { print $NF, $4 }' "$SCRATCH/strace" >"$out"
}

# limit NAME OPERATIONS LIMIT [WAITS]: checks the difference of the two counts
limit() {
    awk -v name="$1" -v operations="$2" -v limit="$3" -v waits_limit="${4:-1}" -v slack="$SLACK" '
        FNR == NR { few[$1] = $2; next }
        { more[$1] = $2 }
        END {
            for (call in more) {
                each = (more[call] - few[call]) / operations
                if (each < 0.0005) continue
                if (call ~ /^epoll_p?wait/) { waits += each; continue }
                calls += each
                list = list sprintf(" %s %.3f", call, each)
            }
            bad = calls > limit + slack || waits > waits_limit + slack
            printf "%-14s %.3f calls (at most %.2f), %.3f waits;%s%s\n",
                name, calls, limit, waits, list, bad ? "  TOO MANY" : ""
            exit bad
        }' "$SCRATCH/few" "$SCRATCH/many" || FAILED=yes
}

FAILED=''
# The writes that cause the deliveries need two calls each.
for tls in '' --tls; do
    counted "$SCRATCH/few" fanout --readers $READERS --messages 20 $tls
    counted "$SCRATCH/many" fanout --readers $READERS --messages 120 $tls
    limit "delivery$tls" $((READERS * 100)) "$(awk "BEGIN { print 2 + 2 / $READERS }")"
done

# A stream only receives.
for load in events frames; do
    counted "$SCRATCH/few" $load --readers $READERS --messages 20
    counted "$SCRATCH/many" $load --readers $READERS --messages 120
    limit $load $((READERS * 100)) \
        "$(awk "BEGIN { print 1 + 2 / $READERS }")" "$(awk "BEGIN { print 2 / $READERS }")"
done

counted "$SCRATCH/few" publish --requests 2000
counted "$SCRATCH/many" publish --requests 12000
limit write 10000 2

counted "$SCRATCH/few" poll --requests 2000
counted "$SCRATCH/many" poll --requests 12000
limit read 10000 2

# memory LIMIT DRIVE…: checks the bytes for each of 10,000 readers, and the memory after they left
memory() {
    local limit=$1 sample each left bad=''
    shift
    listen_for "$@"
    start "$SPEAK" "${LISTEN[@]}"
    sample=$(speak_bench drive "$@" --readers 10000 --at "127.0.0.1:$PORT" --pid "$PID")
    stop
    each=${sample#*\"cost\":} left=${sample#*\"left_over_before\":}
    each=${each%%[,\}]*} left=${left%%[,\}]*}
    awk "BEGIN { exit $each > $limit || $left > 1.10 }" || bad='  TOO MUCH' FAILED=yes
    printf '%-12s %s bytes each (at most %s); %s of the base after they left (at most 1.10)%s\n' \
        "$*" "$each" "$limit" "$left" "$bad"
}

ulimit -n "$(ulimit -Hn)"
memory "$MEMORY_LIMIT" idle
memory "$MEMORY_LIMIT" idle --tls
memory $STREAM_MEMORY_LIMIT idle-events
memory $STREAM_MEMORY_LIMIT idle-frames
[ -z "$FAILED" ]
