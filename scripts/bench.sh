#!/usr/bin/env bash
# What the transport costs beside QUIC, TCP and bare UDP, over a link between two network namespaces.
set -u
usage() {
    cat <<'TEXT'
usage: scripts/bench.sh transport [--check] [--runs N] [--only WORK,..]

  --check  fail unless the figures are as good as they must be; the last line names those that fall short
  --runs   rounds, of which the medians count (default 5)
  --only   only these of bulk, trip, rate, memory

Both ends run on this host, in two namespaces with one virtual Ethernet between them; subjects take turns in every round.
Everything is built in release mode, and each program is one thread. Needs root, or user namespaces.

bulk   one session, encrypted, in one direction; quinn has one stream, TCP (iperf3) no encryption
trip   64 bytes to the other application and back, one at a time; udp is a bare socket of tokio
memory   what each of 1000 idle sessions adds to the far process: four peers with 250 each, one endpoint of quinn;
         measured once
in flight N   64-byte messages a second that the other application echoed, N being on their way at a time
TEXT
}

NEAR=10.99.0.1 FAR=10.99.0.2
PREFIX="p2spbench$$-"
PIDS=""

main() {
    options "$@" || exit 2
    self="$(realpath "$0")"
    cd "$(dirname "$self")/.." || exit 1
    tools || exit 1
    if [ -z "${BENCH_INSIDE:-}" ]; then
        build || { echo "bench: the build failed"; exit 1; }
    fi
    if [ "$(id -u)" != 0 ]; then
        exec unshare -Urnm env BENCH_INSIDE=1 "$self" "$@"
    fi
    if [ -n "${BENCH_INSIDE:-}" ]; then
        mount -t tmpfs lab /run && mkdir -p /run/netns || exit 1
    fi
    bin="$PWD/tests/bench/target/release/p2sp-bench"
    DIR="$(mktemp -d)" || exit 1
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    link || { echo "bench: no network namespaces here"; exit 1; }
    rounds || { echo "bench: a run failed"; exit 1; }
    # shellcheck disable=SC2086
    "$bin" report --sheet "$DIR/sheet" $check
}

options() {
    [ "${1:-}" = transport ] || { usage >&2; return 2; }
    shift
    check="" runs=5 only=bulk,trip,rate,memory
    while [ $# -gt 0 ]; do
        case "$1" in
            --check) check=--check ;;
            --runs | --only)
                [ -n "${2:-}" ] || { echo "$1 needs a value" >&2; return 2; }
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            *) echo "unknown option: $1" >&2; usage >&2; return 2 ;;
        esac
        shift
    done
    [[ "$runs" =~ ^[1-9][0-9]*$ ]] || { echo "--runs needs a number" >&2; return 2; }
}

tools() {
    export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    local root=""
    command -v iperf3 >/dev/null && return
    command -v apt-get >/dev/null || { echo "missing: iperf3 (and no apt-get to install it)"; return 1; }
    [ "$(id -u)" = 0 ] || root="sudo -n"
    echo "installing: iperf3"
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        $root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends iperf3
}

build() { (cd tests/bench && cargo build --release --locked --quiet); }

link() {
    ip netns add "${PREFIX}near" && ip netns add "${PREFIX}far" &&
        ip -n "${PREFIX}near" link add eth0 type veth peer name eth0 netns "${PREFIX}far" &&
        address near $NEAR && address far $FAR
}

address() {
    ip -n "$PREFIX$1" link set lo up && ip -n "$PREFIX$1" addr add "$2/24" dev eth0 && ip -n "$PREFIX$1" link set eth0 up
}

within() {
    local ns="$PREFIX$1"
    shift
    nsenter --net="/run/netns/$ns" -- "$@"
}

clean_up() {
    local pid
    for pid in $PIDS; do kill "$pid" 2>/dev/null; done
    for pid in $PIDS; do wait "$pid" 2>/dev/null; done
    ip netns del "${PREFIX}near" 2>/dev/null
    ip netns del "${PREFIX}far" 2>/dev/null
    rm -rf "$DIR"
}

rounds() {
    local round
    far p2sp 7001 && far quic 7003 && far udp 7004 || return 1
    # Not by way of `within` either.
    nsenter --net="/run/netns/${PREFIX}far" -- iperf3 -s -p 7005 >/dev/null 2>&1 &
    PIDS="$PIDS $!"
    for round in $(seq "$runs"); do
        [[ ",$only," != *,bulk,* ]] || bulk || return 1
        [[ ",$only," != *,trip,* ]] || trip || return 1
        [[ ",$only," != *,rate,* ]] || rate || return 1
    done
    [[ ",$only," != *,memory,* ]] || memory
}

bulk() {
    near p2sp bulk && near quic bulk &&
        within near iperf3 -c $FAR -p 7005 -n 1G -J | "$bin" iperf --sheet "$DIR/sheet"
}

trip() { near p2sp trip && near quic trip && near udp trip; }

rate() { near p2sp rate && near quic rate; }

# A server and far ends of their own, in which nothing happened before.
memory() {
    ulimit -n 8192 || return 1
    far rendezvous 7011 && far crowd 7011 && near crowd memory && far quic 7013 && near quic memory
}

# far SUBJECT PORT: starts the end that answers.
far() {
    local tries
    rm -f "$DIR/ready-$1"
    # Not by way of `within`: its shell would have the process id.
    nsenter --net="/run/netns/${PREFIX}far" -- "$bin" far "$1" --listen "$FAR:$2" --ready "$DIR/ready-$1" &
    printf -v "pid_$1" %s $!
    printf -v "port_$1" %s "$2"
    PIDS="$PIDS $!"
    for tries in $(seq 100); do
        [ ! -e "$DIR/ready-$1" ] || return 0
        sleep 0.1
    done
    echo "the far end did not start: $1" >&2
    return 1
}

# near SUBJECT WORK
near() {
    local port="port_$1" pid="pid_$1"
    within near timeout 120 "$bin" near "$1" "$2" --far "$FAR:${!port}" --far-pid "${!pid}" \
        --ready "$DIR/ready-$1" --sheet "$DIR/sheet" --run "${2}${round:-0}"
}

main "$@"
