#!/usr/bin/env bash
# Real routers' port mapping: miniupnpd in the kernel lab, asked by real peers over PCP, NAT-PMP and UPnP.
#
# usage: scripts/portmap-test.sh [CASE..]; the cases are those of ALL below.
# PORTMAP_TEST_BIN, a folder with rendezvous and peer, saves the build.
set -u
ALL="pcp natpmp upnp taken pinhole pair"

main() {
    local self case passed=0 failed=0
    self="$(realpath "$0")"
    cd "$(dirname "$self")/.." || exit 1
    . tests/natbox/lab.sh
    . tests/natbox/portmap.sh
    BIN="${PORTMAP_TEST_BIN:-$PWD/target/release}"
    command -v miniupnpd >/dev/null || { echo "portmap-test: the program miniupnpd is missing (package miniupnpd-nftables)"; exit 1; }
    [ -n "${LAB_INSIDE:-}${PORTMAP_TEST_BIN:-}" ] || cargo build --release --locked --quiet -p p2sp-server -p p2sp-peer --bins ||
        { echo "portmap-test: the build failed"; exit 1; }
    lab_enter "$self" "$@" || { echo "portmap-test: could not run"; exit 1; }
    DIR="$(mktemp -d)" || exit 1
    trap 'map_down; rm -rf "$DIR"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    for case in ${*:-$ALL}; do
        if run "$case"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
    done
    echo "portmap-test: $passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

run() {
    local outcome=0
    rm -rf "${DIR:?}"/* && map_up symmetric symmetric || { echo "$1: the lab did not start"; map_down; return 1; }
    WHAT="the server did not start"
    map_server
    case "$1" in
        pcp | natpmp | upnp) mapped_by "$1" || outcome=1 ;;
        taken) taken || outcome=1 ;;
        pinhole) pinhole || outcome=1 ;;
        pair) pair || outcome=1 ;;
        *) WHAT="no such case (there are $ALL)" outcome=1 ;;
    esac
    map_down
    if [ $outcome = 0 ]; then echo "$1: passed"; else
        echo "$1: failed: $WHAT"
        last_words
    fi
    return $outcome
}

# step WHAT COMMAND..: a failure is told as "not WHAT".
step() {
    WHAT="not $1"
    shift
    "$@"
}

# One protocol from the first mapping to the end.
mapped_by() {
    local address
    map_router "$1"
    map_peer "$NS_A" a
    step "mapped" map_forwarded "^$MAP_ROUTER_A:" a >"$DIR/address" || return 1
    address="$(cat "$DIR/address")"
    step "forwarded to $address" map_knock "$address" || return 1
    sleep $((MAP_LEASE + 2))
    step "renewed" map_knock "$address" || return 1
    map_router_stop
    map_router "$1"
    # The same address, gone and back: another network.
    ip -n "$NS_A" addr del 10.1.0.130/25 dev eth0 && ip -n "$NS_A" addr add 10.1.0.130/25 dev eth0 &&
        ip -n "$NS_A" route replace default via 10.1.0.129 || return 1
    step "mapped again when the network changed" map_until knock_mapped || return 1
    address="$(map_forwarded_now "^$MAP_ROUTER_A:" a)"
    map_quit a
    step "ended soon: $MAP_TOOK ms" [ "$MAP_TOOK" -lt 3000 ] || return 1
    WHAT="given back: $address is still forwarded"
    ! map_knock "$address"
}

knock_mapped() {
    local address
    address="$(map_forwarded_now "^$MAP_ROUTER_A:" a)" && map_knock "$address"
}

# Two hosts want the same port of one router.
taken() {
    local protocol first second
    for protocol in pcp upnp; do
        map_router $protocol
        map_peer "$NS_C" c --bind 0.0.0.0:40000
        step "the first mapped by $protocol" map_forwarded "^$MAP_ROUTER_A:" c >"$DIR/c.address" || return 1
        map_peer "$NS_A" a --bind 0.0.0.0:40000
        step "the second mapped by $protocol" map_forwarded "^$MAP_ROUTER_A:" a >"$DIR/a.address" || return 1
        first="$(cat "$DIR/c.address")" second="$(cat "$DIR/a.address")"
        step "a port of its own for the second: $first and $second" [ "$first" != "$second" ] || return 1
        step "forwarded to the second" map_knock "$second" || return 1
        map_quit a
        map_quit c
        map_router_stop
    done
}

# The IPv6 firewall of the router is opened by PCP.
pinhole() {
    local address
    map_router pcp
    MAP_RENDEZVOUS="[$MAP_SERVER_SIX]" map_peer "$NS_A" a --bind "[::]:40000"
    step "mapped" map_forwarded "^\[$MAP_HOST_A_SIX\]:40000" a >"$DIR/address" || return 1
    address="$(cat "$DIR/address")"
    step "let in" map_knock "$address" || return 1
    map_quit a
    WHAT="closed again: $address is still open"
    ! map_knock "$address"
}

# Two symmetric NATs of random ports: a direct path where one of the routers maps a port, and only there.
pair() {
    map_router pcp
    map_peer "$NS_A" a --no-port-mapping
    map_peer "$NS_B" b --no-port-mapping
    step "registered" both_told '"event":"registered"' || return 1
    map_say b "/send a one"
    step "delivered by relay" map_until map_told b '"event":"delivered"' || return 1
    sleep 3
    WHAT="relayed without a mapped port"
    ! map_told a '"kind":"direct"' || return 1
    map_quit a
    map_until map_told b '"event":"left"' || return 1
    : >"$DIR/b.out"
    map_peer "$NS_A" a
    step "mapped" map_forwarded "^$MAP_ROUTER_A:" a >/dev/null || return 1
    step "seen again" map_until map_told b '"event":"joined"' || return 1
    map_say b "/send a two"
    step "direct" map_until both_direct || return 1
    map_stop "$MAP_SERVER_PID"
    : >"$DIR/b.out"
    map_say b "/send a three"
    step "delivered without a server" map_until map_told b '"event":"delivered"'
}

both_told() { map_until map_told a "$1" && map_until map_told b "$1"; }
both_direct() { map_told a '"kind":"direct"' && map_told b '"kind":"direct"'; }

last_words() {
    local log
    for log in "$DIR"/{a.out,a.err,b.out,b.err,c.err,miniupnpd.log,rendezvous.log}; do
        [ -s "$log" ] && tail -n "${PORTMAP_TEST_LINES:-5}" "$log" | cut -c1-300 | sed "s/^/    $(basename "$log"): /"
    done
}

main "$@"
