#!/usr/bin/env bash
# Runs wrk with 64 keep-alive connections on Speak, and on nginx with a fixed response.
#
# bench/wrk/run.sh [SPEAK]      target/release/speak; SECONDS_EACH=5 ROUNDS=2 in the environment
#
# The reliable figure is the server's CPU time per request, compared with nginx's in the same run.
set -eu
. "$(dirname "${BASH_SOURCE[0]}")/../servers.sh"

SPEAK=${1:-target/release/speak}
SECONDS_EACH=${SECONDS_EACH:-5}
ROUNDS=${ROUNDS:-2}
NGINX=$(command -v nginx || echo /usr/sbin/nginx)

# on_core CORE COMMAND…: with two cores, the server has one and wrk the other
on_core() {
    local core=$1
    shift
    if [ "$(nproc)" -ge 2 ]; then
        taskset -c "$core" "$@"
    else
        "$@"
    fi
}

# request TARGET: makes one request
request() {
    exec 3<>"/dev/tcp/127.0.0.1/$PORT"
    printf 'GET %s HTTP/1.0\r\n\r\n' "$1" >&3
    cat <&3 >/dev/null
    exec 3>&-
}

# load NAME PID PORT SCRIPT: runs wrk, and prints the rate and the CPU time per request
load() {
    local name=$1 pid=$2 port=$3 script=$4 before after
    before=$(cpu_ns "$pid")
    on_core 1 wrk -t1 -c64 "-d${SECONDS_EACH}s" --latency -s "$BENCH_FOLDER/wrk/$script.lua" \
        "http://127.0.0.1:$port" >"$SCRATCH/wrk"
    # The CPU clock of a running process may lag by a tick: let the turn finish.
    sleep 0.1
    after=$(cpu_ns "$pid")
    if grep -qE 'Socket errors|Non-2xx' "$SCRATCH/wrk"; then
        cat "$SCRATCH/wrk" >&2
        exit 1
    fi
    awk -v name="$name" -v ns=$((after - before)) '
        /requests in/ { requests = $1 }
        /Requests\/sec/ { rate = $2 }
        $1 == "99%" { p99 = $2 }
        END {
            printf "%-24s %10.0f/s   99 %% within %-9s %6.2f µs of CPU per request\n",
                name, rate, p99, ns / 1000 / requests
        }
    ' "$SCRATCH/wrk"
}

on_core_server=''
[ "$(nproc)" -ge 2 ] && on_core_server='taskset -c 0'
# shellcheck disable=SC2086 # two words, or none
start $on_core_server "$SPEAK" --listen 127.0.0.1:0
if [ -x "$NGINX" ]; then
    # shellcheck disable=SC2086
    start_nginx $on_core_server "$NGINX"
else
    echo "without nginx: it is not installed" >&2
fi
request '/write?channel=wrk-one&message=howdy'

for _ in $(seq "$ROUNDS"); do
    load 'write' "$PID" "$PORT" write
    READ=empty load 'read, no message' "$PID" "$PORT" read
    READ=message load 'read, one message' "$PID" "$PORT" read
    load 'mixed' "$PID" "$PORT" mixed
    [ -z "$NGINX_PID" ] || load 'nginx, return 200' "$NGINX_WORKER" "$NGINX_PORT" read
done
