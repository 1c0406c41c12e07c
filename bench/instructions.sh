#!/usr/bin/env bash
# Instructions that Speak spends on its hot paths, counted by callgrind: the same on a busy machine.
#
# bench/instructions.sh [--record] [SPEAK]             SPEAK: target/release/speak
# bench/instructions.sh --beside OTHER [SPEAK]         both, and what SPEAK takes by what OTHER does; judges nothing
#
# Each path runs twice with different counts; the difference is free of the start and of connecting.
# Fails where a path needs over 3 % more than instructions.txt tells; --record writes that file anew,
# which a commit may do only by saying why.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/servers.sh"

RECORD='' OTHER=''
case ${1-} in
--record)
    RECORD=yes
    shift
    ;;
--beside)
    OTHER=$2
    shift 2
    ;;
esac
SPEAK=${1:-target/release/speak}
FILE=$BENCH_FOLDER/instructions.txt
LIMIT_PERCENT=3

build_bench

# total PROGRAM DRIVE…: instructions of a whole server's life
total() {
    local program=$1
    shift
    local out="$SCRATCH/callgrind.out"
    rm -f "$out"
    start valgrind --tool=callgrind --callgrind-out-file="$out" "$program" --listen 127.0.0.1:0
    speak_bench drive "$@" --at "127.0.0.1:$PORT" >"$SCRATCH/sample"
    stop
    TOTAL=$(sed -n 's/^totals: //p' "$out")
}

# One at a time on one connection: a turn of the loop then handles one request, in every run.
# The first count is large enough to fill the history and whatever else grows.
path() {
    local name=$1 each=$2 few=$3 many=$4 what=$5
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

# counted PROGRAM DRIVE…: sets COUNT to the instructions an operation, by the names in `path`
counted() {
    total "$@" "$what" "$few"
    local before=$TOTAL
    total "$@" "$what" "$many"
    COUNT=$(((TOTAL - before) / ((many - few) * each)))
}

echo "# instructions an operation of $SPEAK${OTHER:+, of $OTHER, and the ratio}" >&2
path write 1 500 2500 --requests publish --connections 1
path read 1 500 2500 --requests poll --connections 1
path read-empty 1 500 2500 --requests poll --connections 1 --messages 0
# Sixteen in one send: what a request takes without its share of a turn.
path write16 1 480 2400 --requests publish --connections 1 --depth 16
path read16 1 480 2400 --requests poll --connections 1 --depth 16
path delivery 64 110 160 --messages fanout --readers 64
path delivery-jsonp 64 110 160 --messages jsonp --readers 64
path event 64 110 160 --messages events --readers 64
path frame 64 110 160 --messages frames --readers 64

[ -z "$OTHER" ] || exit 0
if [ -n "$RECORD" ]; then
    {
        echo "# Instructions an operation, by bench/instructions.sh --record."
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
        echo "$name takes $count instructions, recorded are $recorded: over $LIMIT_PERCENT % more" >&2
        failed=yes
    fi
done <"$SCRATCH/counts"
[ -z "$failed" ]
