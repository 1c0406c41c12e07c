# shellcheck shell=bash
# Starts and ends servers for the other scripts. To be sourced by bash, with `set -eu`.
#
# listen_for DRIVE…     sets LISTEN to the options with which Speak listens for a load
# start COMMAND…        starts a server, waits until it prints its port, and sets PID and PORT
# start_nginx [PREFIX…] NGINX
#                       starts nginx, and sets NGINX_PID, NGINX_PORT and NGINX_WORKER
# stop                  ends both
# cpu_ns PID            prints the CPU time of a process by the scheduler's clock
#
# Ends only processes that it started, each by its ID.

BENCH_FOLDER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
SCRATCH=$(mktemp -d)
PID='' PORT='' NGINX_PID='' NGINX_PORT='' NGINX_WORKER=''

speak_bench() {
    "${CARGO_TARGET_DIR:-$BENCH_FOLDER/target}/release/speak-bench" "$@"
}

# Builds the tool beforehand, so that no measurement includes that.
build_bench() {
    cargo build --quiet --release --locked --manifest-path "$BENCH_FOLDER/Cargo.toml"
}

listen_for() {
    local tests="$BENCH_FOLDER/../tests/tls"
    case " $* " in
    *' --tls '*)
        LISTEN=(--listen tls:127.0.0.1:0)
        LISTEN+=(--tls-cert "$tests/ecdsa.pem" --tls-key "$tests/ecdsa.key")
        ;;
    *) LISTEN=(--listen 127.0.0.1:0) ;;
    esac
}

start() {
    : >"$SCRATCH/log"
    "$@" >/dev/null 2>"$SCRATCH/log" &
    PID=$!
    # Under valgrind a start takes seconds.
    for _ in $(seq 300); do
        PORT=$(sed -n 's|.* listening on https\?://127\.0\.0\.1:\([0-9]*\).*|\1|p;T;q' \
            "$SCRATCH/log")
        [ -n "$PORT" ] && return 0
        kill -0 "$PID" 2>/dev/null || break
        sleep 0.1
    done
    echo "cannot start: $*" >&2
    cat "$SCRATCH/log" >&2
    return 1
}

start_nginx() {
    local conf="$SCRATCH/nginx.conf"
    # nginx cannot choose a free port. If the port is in use, it has no worker.
    for NGINX_PORT in $(shuf -i 20000-30000 -n 20); do
        sed -e "s|@PORT@|$NGINX_PORT|" -e "s|@FOLDER@|$SCRATCH|" \
            "$BENCH_FOLDER/peers/nginx.conf" >"$conf"
        "$@" -p "$SCRATCH" -c "$conf" 2>"$SCRATCH/nginx.log" &
        NGINX_PID=$!
        sleep 0.5
        # shellcheck disable=SC2034 # for the sourcing script
        NGINX_WORKER=$(tr -d ' ' <"/proc/$NGINX_PID/task/$NGINX_PID/children" || true)
        [ -n "$NGINX_WORKER" ] && return 0
        end "$NGINX_PID"
    done
    cat "$SCRATCH/nginx.log" >&2
    return 1
}

# Ends a process and waits for it. Kills it if it has not ended after ten seconds.
end() {
    [ -n "$1" ] || return 0
    kill -TERM "$1" 2>/dev/null || return 0
    for _ in $(seq 100); do
        kill -0 "$1" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -KILL "$1" 2>/dev/null || true
}

stop() {
    end "$PID"
    end "$NGINX_PID"
    wait 2>/dev/null || true
    PID='' NGINX_PID=''
}

cpu_ns() {
    local sum=0 ns _
    # Not awk: nanoseconds soon exceed 2^31, the largest integer of mawk.
    while read -r ns _; do
        sum=$((sum + ns))
    done < <(cat "/proc/$1"/task/*/schedstat)
    echo "$sum"
}

trap 'stop; rm -rf "$SCRATCH"' EXIT
trap 'exit 130' INT TERM
