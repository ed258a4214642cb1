# The part of the kernel NAT lab in which routers map ports, for sourcing behind lab.sh.
#
#   host a, host c -- router A --\
#                                 one segment -- server
#   host b ---------- router B --/
#
# miniupnpd maps ports at router A. It refuses to do so where the router's outer address is not public, so the segment
# has a range of public addresses instead of documentation prefixes; nothing of it leaves the namespaces.
# BIN is the folder of the programs, DIR one for state and logs.

MAP_SERVER=9.9.9.1
MAP_ROUTER_A=9.9.9.2
MAP_ROUTER_B=9.9.9.3
MAP_SERVER_SIX=2a09:9:9::1
MAP_ROUTER_A_SIX=2a09:9:9::2
MAP_ROUTER_B_SIX=2a09:9:9::3
MAP_HOST_A_SIX=2a09:9:a::2
# Longest wait for anything that is to happen.
MAP_PATIENCE=20
# Seconds for which routers map at most, so that a renewal is seen.
MAP_LEASE=4

# map_up KIND_A KIND_B: three hosts, two routers, a server; nothing runs yet.
map_up() {
    local topology=six ns
    NS_A="${LAB_PREFIX}a" NS_B="${LAB_PREFIX}b" NS_C="${LAB_PREFIX}c" NS_SERVER="${LAB_PREFIX}server"
    NS_RA="${LAB_PREFIX}ra" NS_RB="${LAB_PREFIX}rb"
    for ns in "$NS_A" "$NS_B" "$NS_C" "$NS_SERVER" "$NS_RA" "$NS_RB"; do lab_namespace "$ns" || return 1; done
    lab_lan "$NS_RA" && lab_lan "$NS_RB" || return 1
    lab_host "$NS_A" "$NS_RA" port-a 10.1.0.129 10.1.0.130 && lab_host "$NS_C" "$NS_RA" port-c 10.1.0.129 10.1.0.131 &&
        lab_host "$NS_B" "$NS_RB" port-b 10.2.0.129 10.2.0.130 || return 1
    ip -n "$NS_SERVER" link add net0 type bridge && ip -n "$NS_SERVER" link set net0 up &&
        ip -n "$NS_SERVER" addr add $MAP_SERVER/24 dev net0 && ip -n "$NS_SERVER" addr add $MAP_SERVER_SIX/64 dev net0 || return 1
    map_uplink "$NS_RA" ra $MAP_ROUTER_A $MAP_ROUTER_A_SIX && map_uplink "$NS_RB" rb $MAP_ROUTER_B $MAP_ROUTER_B_SIX || return 1
    lab_host_six "$NS_A" "$NS_RA" "${MAP_HOST_A_SIX%::2}" &&
        ip -n "$NS_RB" route add "${MAP_HOST_A_SIX%::2}::/64" via $MAP_ROUTER_A_SIX &&
        ip -n "$NS_SERVER" route add "${MAP_HOST_A_SIX%::2}::/64" via $MAP_ROUTER_A_SIX || return 1
    lab_rules "$1" drop | nft_in "$NS_RA" && lab_rules "$2" drop | nft_in "$NS_RB" || return 1
    map_chains | nft_in "$NS_RA" || return 1
    # What comes from router B to host a, counted where it arrives.
    nft_in "$NS_A" <<RULES
table inet seen {
    chain input {
        type filter hook input priority filter;
        ip saddr $MAP_ROUTER_B udp dport != 0 counter
        ip6 saddr $MAP_ROUTER_B_SIX udp dport != 0 counter
    }
}
RULES
}

# map_uplink ROUTER PORT ADDRESS ADDRESS_SIX
map_uplink() {
    ip -n "$NS_SERVER" link add "$2" type veth peer name wan0 netns "$1" &&
        ip -n "$NS_SERVER" link set "$2" master net0 && ip -n "$NS_SERVER" link set "$2" up &&
        ip -n "$1" addr add "$3/24" dev wan0 && ip -n "$1" addr add "$4/64" dev wan0 && ip -n "$1" link set wan0 up &&
        ip -n "$1" route add default via $MAP_SERVER && ip -n "$1" route add default via $MAP_SERVER_SIX
}

map_down() {
    lab_down
    [ ! -e "/run/netns/${LAB_PREFIX}c" ] || ip netns del "${LAB_PREFIX}c"
}

# The chains into which miniupnpd writes. What it accepts other tables may still drop, so the firewall for IPv6 is here.
map_chains() {
    cat <<'RULES'
delete table ip6 lab
table inet filter {
    chain miniupnpd { }
    chain prerouting_miniupnpd { }
    chain postrouting_miniupnpd { }
    chain forward {
        type filter hook forward priority filter
        jump miniupnpd
        iifname "wan0" meta nfproto ipv6 meta l4proto udp ct state new drop
    }
    chain prerouting { type nat hook prerouting priority dstnat; jump prerouting_miniupnpd; }
    chain postrouting { type nat hook postrouting priority srcnat; jump postrouting_miniupnpd; }
}
RULES
}

# map_router PROTOCOL: starts miniupnpd at router A. PROTOCOL is pcp, natpmp or upnp, and the only one that it speaks.
map_router() {
    local upnp=no natpmp=yes conf="$DIR/miniupnpd.conf" mute="" port=14E7
    case "$1" in
        upnp) upnp=yes natpmp=no port=076C ;;
        # It would answer questions of both versions: those of PCP, which begin with a 2, do not reach it.
        natpmp) mute='udp dport 5351 @th,64,8 2 drop' ;;
    esac
    nft_in "$NS_RA" <<RULES
table ip mute { }
delete table ip mute
table ip mute {
    chain input {
        type filter hook input priority filter
        $mute
    }
}
RULES
    cat >"$conf" <<CONF
ext_ifname=wan0
listening_ip=lan0
enable_natpmp=$natpmp
enable_upnp=$upnp
min_lifetime=1
max_lifetime=$MAP_LEASE
secure_mode=yes
system_uptime=yes
uuid=00000000-0000-0000-0000-000000000001
allow 1024-65535 10.1.0.128/25 1024-65535
deny 0-65535 0.0.0.0/0 0-65535
CONF
    map_start "$NS_RA" miniupnpd -d -f "$conf" -P "$DIR/miniupnpd.pid" >"$DIR/miniupnpd.log" 2>&1
    MAP_ROUTER_PID=$MAP_PID
    map_listens $port
}

# map_listens PORT: waits until the router does, on the UDP port in hexadecimal. A peer that is refused rests before it asks
# again.
map_listens() {
    local try
    for try in $(seq 100); do
        ! nsenter --net="/run/netns/$NS_RA" -- cat /proc/net/udp /proc/net/udp6 | grep -q "^ *[0-9]*: [0-9A-F]*:$1 " || return 0
        sleep 0.05
    done
    echo "miniupnpd does not listen on UDP port $((16#$1))" >&2
    return 1
}

# The router forgets everything.
map_router_stop() {
    map_stop "$MAP_ROUTER_PID"
    nft_in "$NS_RA" <<<'flush chain inet filter prerouting_miniupnpd; flush chain inet filter miniupnpd'
}

# map_start NAMESPACE COMMAND..: in the background, as the process MAP_PID.
map_start() {
    local ns="$1"
    shift
    # Without a word on its input, it would be empty.
    nsenter --net="/run/netns/$ns" -- "$@" <&0 &
    MAP_PID=$!
    LAB_PIDS="$LAB_PIDS $MAP_PID"
}

map_stop() {
    kill "$1"
    wait "$1" 2>/dev/null
    return 0
}

map_server() {
    map_start "$NS_SERVER" "$BIN/rendezvous" --listen $MAP_SERVER:3478 --listen "[$MAP_SERVER_SIX]:3478" --console off \
        --data-dir "$DIR/rendezvous" >"$DIR/rendezvous.log" 2>&1
    MAP_SERVER_PID=$MAP_PID
}

# map_peer NAMESPACE NAME OPTIONS..: starts a chat that reads from a pipe which map_say writes to. MAP_RENDEZVOUS is the
# server, if not its IPv4 address.
map_peer() {
    local ns="$1" name="$2" in
    shift 2
    in="$DIR/$name.in"
    rm -f "$in" && mkfifo "$in"
    map_start "$ns" "$BIN/peer" --rendezvous "${MAP_RENDEZVOUS:-$MAP_SERVER}" --name "$name" --state-dir "$DIR/$name" --json --log debug "$@" \
        <>"$in" >"$DIR/$name.out" 2>"$DIR/$name.err"
    printf -v "PID_$name" %s "$MAP_PID"
}

map_say() { echo "$2" >"$DIR/$1.in"; }

# map_quit NAME: says good bye, which takes MAP_TOOK milliseconds.
map_quit() {
    local pid="PID_$1" started
    started=$(date +%s%3N)
    map_say "$1" /quit
    wait "${!pid}"
    MAP_TOOK=$(($(date +%s%3N) - started))
}

# The address, or addresses, that routers forward to a peer, as its chat says.
map_mapped() {
    "$BIN/peer" --name "$1" --state-dir "$DIR/$1" --json whoami 2>/dev/null |
        sed -n 's/.*"mapped":\["\(.*\)"\],"[a-z].*/\1/p' | sed 's/","/\n/g'
}

# map_forwarded PATTERN NAME: waits for such an address and prints it.
map_forwarded() {
    map_until map_forwarded_now "$1" "$2"
}

map_forwarded_now() { map_mapped "$2" | grep -m1 "$1"; }

# map_until COMMAND..: tries until it succeeds.
map_until() {
    local end=$((SECONDS + MAP_PATIENCE))
    until "$@"; do
        [ $SECONDS -lt $end ] || return 1
        sleep 0.1
    done
}

# map_knock ADDRESS:PORT: sends a datagram from router B; succeeds if it reaches host a.
map_knock() {
    local host="${1%:*}" port="${1##*:}" before
    host="${host#[}" host="${host%]}"
    before="$(map_seen)"
    in_ns "$NS_RB" bash -c "echo knock >/dev/udp/$host/$port" || return 1
    sleep 0.2
    [ "$(map_seen)" -gt "$before" ]
}

map_seen() {
    in_ns "$NS_A" nft list table inet seen | sed -n 's/.*counter packets \([0-9]*\).*/\1/p' | awk '{ n += $1 } END { print n + 0 }'
}

# map_told NAME PATTERN: whether the peer printed such a line.
map_told() { grep -q "$2" "$DIR/$1.out"; }
