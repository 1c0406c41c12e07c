#!/usr/bin/env bash
# Counts the instructions of Speak's hot paths with callgrind: the same on a busy machine.
#
# bench/instructions.sh [--record] [SPEAK]       SPEAK: target/release/speak
# bench/instructions.sh --against OTHER [SPEAK]  counts both and prints the ratio; has no limits
#
# Each path runs twice with different counts; the difference excludes start and connecting. Fails if
# a path needs over 3 % more than instructions.txt has. --record rewrites that file; the commit has
# to say why.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

RECORD='' OTHER=''
case ${1-} in
--record)
    RECORD=yes
    shift
    ;;
--against)
    OTHER=$2
    shift 2
    ;;
esac
SPEAK=${1:-target/release/speak}
FILE=$BENCH_FOLDER/instructions.txt
LIMIT_PERCENT=3

build_bench

# total PROGRAM DRIVE…: sets TOTAL to the instructions of a server from start to end
total() {
    local program=$1
    shift
    listen_for "$@"
    local out="$SCRATCH/callgrind.out"
    rm -f "$out"
    start valgrind --tool=callgrind --callgrind-out-file="$out" "$program" "${LISTEN[@]}"
    speak_bench drive "$@" --at "127.0.0.1:$PORT" >"$SCRATCH/sample"
    stop
    TOTAL=$(sed -n 's/^totals: //p' "$out")
}

# path NAME OPERATIONS FEW MANY KIND DRIVE…: counts a path; FEW and MANY are numbers of KIND, each
# of which makes so many OPERATIONS
#
# With one request at a time on one connection, a turn of the loop handles one request in every run.
# FEW is large enough to fill the history and all that grows.
path() {
    local name=$1 each=$2 few=$3 many=$4 kind=$5
    shift 5
    counted "$SPEAK" "$@"
    local line="$name $COUNT"
    if [ -n "$OTHER" ]; then
        local own=$COUNT
        counted "$OTHER" "$@"
        line="$line $COUNT $(awk "BEGIN { printf \"%.3f\", $own / $COUNT }")"
    fi
    echo "$line" | tee -a "$SCRATCH/counts"
}

# counted PROGRAM DRIVE…: sets COUNT to the instructions per operation; uses the variables of path
counted() {
    total "$@" "$kind" "$few"
    local before=$TOTAL
    total "$@" "$kind" "$many"
    COUNT=$(((TOTAL - before) / ((many - few) * each)))
}

echo "# instructions per operation of $SPEAK${OTHER:+, of $OTHER, and the ratio}" >&2
path write 1 500 2500 --requests publish --connections 1
path read 1 500 2500 --requests poll --connections 1
path read-empty 1 500 2500 --requests poll --connections 1 --messages 0
# Sixteen requests in one send: the cost of a request without its share of a turn.
path write16 1 480 2400 --requests publish --connections 1 --depth 16
path read16 1 480 2400 --requests poll --connections 1 --depth 16
path delivery 64 110 160 --messages fanout --readers 64
# In valgrind, the processor has no instructions for SHA-256, and narrow ones for AES.
path delivery-tls 64 110 160 --messages fanout --readers 64 --tls
path delivery-jsonp 64 110 160 --messages jsonp --readers 64
path event 64 110 160 --messages events --readers 64
path frame 64 110 160 --messages frames --readers 64

[ -z "$OTHER" ] || exit 0
if [ -n "$RECORD" ]; then
    {
        echo "# Instructions per operation, by bench/instructions.sh --record."
        echo "# $(rustc --version), $(uname -m)"
        cat "$SCRATCH/counts"
    } >"$FILE"
    exit 0
fi

failed=''
while read -r name count; do
    recorded=$(awk -v name="$name" '$1 == name { print $2 }' "$FILE" 2>/dev/null || true)
    if [ -z "$recorded" ]; then
        echo "$name is not recorded: run bench/instructions.sh --record" >&2
        failed=yes
    elif [ $((count * 100)) -gt $((recorded * (100 + LIMIT_PERCENT))) ]; then
        echo "$name: $count instructions, over $LIMIT_PERCENT % more than $recorded" >&2
        failed=yes
    fi
done <"$SCRATCH/counts"
[ -z "$failed" ]
