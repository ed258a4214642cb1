#!/usr/bin/env bash
# How the transport shares a bottleneck: with itself, with the kernel's TCP, and on a line that loses packets.
set -u
usage() {
    cat <<'TEXT'
usage: scripts/link-test.sh [--seconds N]

  --seconds  how long each flow is measured (default 15), after 5 seconds to settle

    a -- router --[20 Mbit/s, queue of one bandwidth-delay product]--[25 ms each way]-- b, c, server

alone     one flow of messages fills 90 % of the link
fair      of two such flows neither gets less than 40 % of what both get
beside    of one such flow and one of TCP (CUBIC, iperf3) neither gets less than 30 %
lossy     with 2 % of all packets lost at random, at least as much as TCP CUBIC

Real peers on a direct path, in network namespaces; judged by the counters of the interfaces behind the bottleneck.
LINK_TEST_BIN, a folder with rendezvous, natbox and bulk, saves the build. Runs as root.
TEXT
}

RATE=20000000
# Bytes: RATE times 50 ms.
QUEUE=125000
SETTLE=5
A=192.0.2.1 B=203.0.113.1 C=203.0.113.129 SERVER=198.51.100.1
PREFIX="p2splink$$-"
PIDS=""

main() {
    options "$@" || exit 2
    cd "$(dirname "$(realpath "$0")")/.." || exit 1
    tools || exit 1
    bin="${LINK_TEST_BIN:-$PWD/target/release}"
    [ -n "${LINK_TEST_BIN:-}" ] || build || { echo "link-test: the build failed"; exit 1; }
    DIR="$(mktemp -d)" || exit 1
    failed=1
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    up || { echo "link-test: no lab on this machine"; exit 1; }
    failed=0 flows=0
    printf '%-8s %10s %10s  %s\n' case first second verdict
    alone; fair; beside; lossy
    [ $failed = 0 ] || { echo "link-test: $failed of 4 cases failed"; exit 1; }
    echo "link-test: all passed"
}

options() {
    seconds=15
    while [ $# -gt 0 ]; do
        case "$1" in
            --seconds) [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { usage >&2; return 2; }; seconds="$2"; shift ;;
            --help) usage; exit 0 ;;
            *) usage >&2; return 2 ;;
        esac
        shift
    done
}

tools() {
    [ "$(id -u)" = 0 ] || { echo "link-test: run it as root"; return 1; }
    command -v iperf3 >/dev/null && return
    command -v apt-get >/dev/null || { echo "link-test: iperf3 is missing"; return 1; }
    DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends iperf3 >/dev/null
}

build() {
    cargo build --quiet --release -p p2sp-server -p p2sp-tests --bin rendezvous --bin natbox &&
        cargo build --quiet --release -p p2sp-peer --example bulk && cp target/release/examples/bulk target/release/bulk
}

in_ns() { local ns="$PREFIX$1"; shift; nsenter --net="/run/netns/$ns" -- "$@"; }

# start NAMESPACE COMMAND..: in the background; its process id is in $started.
start() {
    local ns="$PREFIX$1"
    shift
    # Not by way of in_ns: its shell would have the process id.
    nsenter --net="/run/netns/$ns" -- "$@" >>"$DIR/log" 2>&1 &
    started=$!
    PIDS="$PIDS $started"
}

up() {
    local ns
    for ns in a r b c s; do ip netns add "$PREFIX$ns" && ip -n "$PREFIX$ns" link set lo up || return 1; done
    "$bin/natbox" delay --control "$DIR/internet" --link "a=${PREFIX}r/wan0,12,192.0.2.0/24" \
        --link "b=${PREFIX}b/wan0,13,203.0.113.0/25" --link "c=${PREFIX}c/wan0,13,203.0.113.128/25" \
        --link "s=${PREFIX}s/wan0,13,198.51.100.0/24" >>"$DIR/log" 2>&1 &
    PIDS="$PIDS $!"
    until [ -S "$DIR/internet" ]; do sleep 0.1; kill -0 $! || return 1; done
    router && uplink b $B && uplink c $C && uplink s $SERVER || return 1
    in_ns r tc qdisc add dev wan0 root tbf rate $RATE burst 5000 limit $QUEUE || return 1
    start s "$bin/rendezvous" --listen $SERVER:3478 --data-dir "$DIR/server" --console off
    start c iperf3 -s
    start b "$bin/bulk" $SERVER:3478 bob
    start c "$bin/bulk" $SERVER:3478 carol
    sleep 2
}

# The bottleneck is not in the senders' own host, whose kernel would hold TCP back before the queue and nobody else.
router() {
    ip link add "lan0" netns "${PREFIX}r" type veth peer name wan0 netns "${PREFIX}a" && uplink a $A &&
        ip -n "${PREFIX}a" route replace default via 192.0.2.254 dev wan0 onlink &&
        in_ns r sysctl -qw net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0 && ip -n "${PREFIX}r" link set lan0 up &&
        ip -n "${PREFIX}r" link set wan0 up && ip -n "${PREFIX}r" addr add 192.0.2.254/32 dev lan0 &&
        ip -n "${PREFIX}r" route add $A dev lan0 && ip -n "${PREFIX}r" route add default dev wan0
}

uplink() {
    ip -n "$PREFIX$1" addr add "$2/32" dev wan0 && ip -n "$PREFIX$1" link set wan0 up &&
        ip -n "$PREFIX$1" route add default dev wan0
}

clean_up() {
    local pid ns
    for pid in $PIDS; do kill "$pid" 2>/dev/null; done
    wait 2>/dev/null
    for ns in a r b c s; do ip netns del "$PREFIX$ns" 2>/dev/null; done
    [ $failed = 0 ] && rm -rf "$DIR" || echo "what the programs said: $DIR/log"
}

# Each flow ends by itself a little after it was measured.
# A name of a process that ended without a good bye is not free at once.
messages() { flows=$((flows + 1)); start a "$bin/bulk" $SERVER:3478 "$1$flows" "$2" $((SETTLE + seconds + 1)); }
tcp() { start a iperf3 -c $C -C cubic -t $((SETTLE + seconds + 1)); }

received() { in_ns "$1" awk '$1 == "wan0:" { print $2 }' /proc/net/dev; }

# Mbit/s times 100 that arrived in b and c, in $to_b and $to_c.
measure() {
    sleep $SETTLE
    local b c
    b=$(received b) c=$(received c)
    sleep "$seconds"
    to_b=$((($(received b) - b) * 8 / seconds / 10000)) to_c=$((($(received c) - c) * 8 / seconds / 10000))
    sleep 3
}

# row CASE FIRST SECOND GOOD: one line of the table; GOOD is 1 or 0.
row() {
    local verdict=good
    [ "$4" = 1 ] || { verdict="TOO LITTLE"; failed=$((failed + 1)); }
    printf '%-8s %7d.%02d %7d.%02d  %s\n' "$1" $(($2 / 100)) $(($2 % 100)) $(($3 / 100)) $(($3 % 100)) "$verdict"
}

alone() {
    messages alice bob; measure
    row alone $to_b 0 $((to_b * 10000 >= RATE * 9 / 10))
}

fair() {
    messages alice bob; messages anna carol; measure
    row fair $to_b $to_c $((to_b * 100 >= (to_b + to_c) * 40 && to_c * 100 >= (to_b + to_c) * 40))
}

beside() {
    messages alice bob; tcp; measure
    row beside $to_b $to_c $((to_b * 100 >= (to_b + to_c) * 30 && to_c * 100 >= (to_b + to_c) * 30))
}

lossy() {
    "$bin/natbox" tell --control "$DIR/internet" loss 2 >>"$DIR/log" 2>&1
    messages alice bob; measure
    local ours=$to_b
    tcp; measure
    row lossy "$ours" $to_c $((ours >= to_c))
}

main "$@"
