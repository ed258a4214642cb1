# The kernel NAT lab, for sourcing by bash scripts that run as root (lab_enter makes them so).
#
# The sourcing script sets NATBOX to the helper's binary.
#
#   host a -- router A --\
#                         internet (natbox delay) -- server
#   host b -- router B --/
#
# Every site is a network namespace; the internet is a TUN device in each of server and routers, held by one process.
# The routers translate with nftables. Documentation prefixes: server 198.51.100.0/24, A 192.0.2.0/24, B 203.0.113.0/24;
# over IPv6 2001:db8:5::/48, 2001:db8:a::/48 and 2001:db8:b::/48.

PATH="$PATH:/usr/sbin:/sbin"
LAB_KINDS="none fullcone restricted portrestricted symmetric"
LAB_SERVER=198.51.100.1
LAB_SERVER_2=198.51.100.2
LAB_SERVER_SIX=2001:db8:5::1
LAB_SERVER_SIX_2=2001:db8:5::2
LAB_PREFIX="p2sp$$-"
# A bridge would otherwise take over the smallest address of its ports, and change it with them.
LAB_ROUTER_MAC=02:00:00:00:00:01
LAB_PIDS=""
# Chooses which packets get lost.
LAB_SEED=1

# Says what is missing for a lab on this machine; silent when all is there.
lab_missing() {
    local tool
    for tool in ip nft nsenter sysctl; do
        command -v $tool >/dev/null || echo "the program $tool (packages iproute2, nftables, util-linux, procps)"
    done
    [ -c /dev/net/tun ] || echo "the device /dev/net/tun (kernel module tun)"
    [ -r /dev/net/tun ] && [ -w /dev/net/tun ] || echo "access to /dev/net/tun"
    if [ "$(id -u)" != 0 ]; then
        unshare -Urnm true 2>/dev/null || echo "root, or user namespaces for ordinary users (sysctl kernel.unprivileged_userns_clone)"
    fi
}

# lab_enter SCRIPT ARGS..: makes sure that the lab can run here, running SCRIPT again in a user namespace unless root.
lab_enter() {
    local missing
    # Bare containers have the driver without its file.
    if [ "$(id -u)" = 0 ] && [ ! -e /dev/net/tun ]; then
        mkdir -p /dev/net && mknod -m 0666 /dev/net/tun c 10 200
    fi
    missing="$(lab_missing)"
    if [ -n "$missing" ]; then
        echo "the NAT lab cannot run here; missing:" >&2
        sed 's/^/  - /' <<<"$missing" >&2
        return 1
    fi
    if [ "$(id -u)" != 0 ]; then
        exec unshare -Urnm env LAB_INSIDE=1 "$@"
    fi
    if [ -n "${LAB_INSIDE:-}" ]; then
        mount -t tmpfs lab /run && mkdir -p /run/netns || return 1
    fi
    lab_try || { echo "the NAT lab cannot run here: the kernel refuses network namespaces or nftables" >&2; return 1; }
}

# Whether this kernel makes a namespace that translates.
lab_try() {
    local ns="${LAB_PREFIX}try" outcome=0
    ip netns add "$ns" || return 1
    nft_in "$ns" <<<'table ip lab { chain post { type nat hook postrouting priority srcnat; oifname "lo" masquerade; }; }' || outcome=1
    ip netns del "$ns"
    return $outcome
}

in_ns() { local ns="$1"; shift; nsenter --net="/run/netns/$ns" -- "$@"; }
nft_in() { nsenter --net="/run/netns/$1" -- nft -f -; }

# lab_up DIR KIND_A KIND_B DELAY_MS INPUT TOPOLOGY: builds everything. TOPOLOGY is wide, or lan (both hosts are behind
# router A), or six (as wide, and all have public IPv6 addresses too, behind firewalls that let nobody in unasked).
# INPUT is what routers do with datagrams to themselves: drop, reject or accept.
# Afterwards NS_A, NS_B and NS_SERVER are the namespaces of the hosts and the server, and LAB_CONTROL is the control
# socket of the internet.
lab_up() {
    local dir="$1" kind_a="$2" kind_b="$3" delay="$4" input="$5" topology="$6"
    NS_A="${LAB_PREFIX}a" NS_B="${LAB_PREFIX}b" NS_SERVER="${LAB_PREFIX}server"
    LAB_CONTROL="$dir/internet.sock"
    local ra="${LAB_PREFIX}ra" rb="${LAB_PREFIX}rb" ns
    for ns in "$NS_A" "$NS_B" "$NS_SERVER" "$ra" "$rb"; do lab_namespace "$ns" || return 1; done

    # A host without NAT has an address of its site's public prefix; every other one is private.
    local net_a=10.1.0 net_b=10.2.0
    [ "$kind_a" = none ] && net_a=192.0.2
    [ "$kind_b" = none ] && net_b=203.0.113
    lab_lan "$ra" || return 1
    lab_host "$NS_A" "$ra" port-a "$net_a.129" "$net_a.130" || return 1
    if [ "$topology" = lan ]; then
        lab_host "$NS_B" "$ra" port-b "$net_a.129" "$net_a.131" || return 1
    else
        lab_lan "$rb" && lab_host "$NS_B" "$rb" port-b "$net_b.129" "$net_b.130" || return 1
    fi

    rm -f "$LAB_CONTROL"
    "$NATBOX" delay --control "$LAB_CONTROL" --seed "$LAB_SEED" \
        --link "server=$NS_SERVER/wan0,0,198.51.100.0/24,2001:db8:5::/48" \
        --link "a=$ra/wan0,$delay,192.0.2.0/24,2001:db8:a::/48" \
        --link "b=$rb/wan0,$delay,203.0.113.0/24,2001:db8:b::/48" &
    LAB_PIDS="$LAB_PIDS $!"
    lab_wait_for "$LAB_CONTROL" || { echo "the internet did not start" >&2; return 1; }
    lab_uplink "$NS_SERVER" $LAB_SERVER $LAB_SERVER_2 &&
        lab_uplink "$ra" 192.0.2.1 && lab_uplink "$rb" 203.0.113.1 || return 1
    lab_rules "$kind_a" "$input" | nft_in "$ra" && lab_rules "$kind_b" "$input" | nft_in "$rb" || return 1

    lab_reflector $LAB_SERVER $LAB_SERVER_2
    if [ "$topology" = six ]; then
        lab_uplink_six "$NS_SERVER" $LAB_SERVER_SIX $LAB_SERVER_SIX_2 &&
            lab_uplink_six "$ra" 2001:db8:a:1::1 && lab_uplink_six "$rb" 2001:db8:b:1::1 || return 1
        lab_host_six "$NS_A" "$ra" 2001:db8:a && lab_host_six "$NS_B" "$rb" 2001:db8:b || return 1
        lab_reflector $LAB_SERVER_SIX $LAB_SERVER_SIX_2
    fi
}

lab_reflector() {
    in_ns "$NS_SERVER" "$NATBOX" reflector --addresses "$@" &
    LAB_PIDS="$LAB_PIDS $!"
}

# Removes everything that lab_up made; safe to call at any time.
lab_down() {
    local ns pid
    for pid in $LAB_PIDS; do kill "$pid" 2>/dev/null; done
    for pid in $LAB_PIDS; do wait "$pid" 2>/dev/null; done
    LAB_PIDS=""
    for ns in a b server ra rb try; do
        ns="$LAB_PREFIX$ns"
        [ -e "/run/netns/$ns" ] || continue
        for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$ns"
    done
}

# IPv6 is off unless the topology has it; duplicate address detection would delay its addresses by a second.
lab_namespace() {
    local without_six=1
    [ "$topology" = six ] && without_six=0
    ip netns add "$1" && ip -n "$1" link set lo up &&
        in_ns "$1" sysctl -qew net.ipv6.conf.all.disable_ipv6=$without_six net.ipv6.conf.default.disable_ipv6=$without_six \
            net.ipv6.conf.all.forwarding=1 net.ipv6.conf.default.accept_dad=0 \
            net.ipv4.ip_forward=1 net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.default.rp_filter=0
}

# The inside of a router: a bridge. Its packets must not pass the IP rules, which breaks hairpin and LAN traffic.
lab_lan() {
    ip -n "$1" link add lan0 address $LAB_ROUTER_MAC type bridge && ip -n "$1" link set lan0 up || return 1
    if in_ns "$1" test -e /proc/sys/net/bridge/bridge-nf-call-iptables; then
        in_ns "$1" sysctl -qw net.bridge.bridge-nf-call-iptables=0
    fi
}

# lab_host HOST ROUTER PORT GATEWAY ADDRESS
lab_host() {
    local host="$1" router="$2" port="$3" gateway="$4" address="$5"
    ip -n "$router" link add "$port" type veth peer name eth0 netns "$host" &&
        ip -n "$router" link set "$port" master lan0 && ip -n "$router" link set "$port" up &&
        ip -n "$router" addr replace "$gateway/25" dev lan0 &&
        ip -n "$host" addr add "$address/25" dev eth0 && ip -n "$host" link set eth0 up &&
        ip -n "$host" route add default via "$gateway" || return 1
    lab_neighbours "$host" "$gateway" "$router" "$address"
}

# lab_host_six HOST ROUTER SITE: public addresses for a host and the inside of its router.
lab_host_six() {
    local host="$1" router="$2" gateway="$3::1" address="$3::2"
    ip -n "$router" addr add "$gateway/64" dev lan0 && ip -n "$host" addr add "$address/64" dev eth0 &&
        ip -n "$host" route add default via "$gateway" || return 1
    lab_neighbours "$host" "$gateway" "$router" "$address"
}

# No address resolution on the way of the first packet.
lab_neighbours() {
    local host="$1" gateway="$2" router="$3" address="$4" host_mac
    host_mac="$(ip -n "$host" -o link show dev eth0 | sed 's/.*link\/ether \([0-9a-f:]*\).*/\1/')"
    ip -n "$host" neigh replace "$gateway" lladdr $LAB_ROUTER_MAC dev eth0 nud permanent &&
        ip -n "$router" neigh replace "$address" lladdr "$host_mac" dev lan0 nud permanent
}

# lab_uplink NAMESPACE ADDRESS..
lab_uplink() {
    local ns="$1" address
    shift
    for address in "$@"; do ip -n "$ns" addr add "$address/32" dev wan0 || return 1; done
    ip -n "$ns" link set wan0 up && ip -n "$ns" route add default dev wan0 src "$1"
}

lab_uplink_six() {
    local ns="$1" address
    shift
    for address in "$@"; do ip -n "$ns" addr add "$address/128" dev wan0 || return 1; done
    ip -n "$ns" -6 route add default dev wan0
}

lab_wait_for() {
    local tries
    for tries in $(seq 200); do
        [ -S "$1" ] && return 0
        sleep 0.02
    done
    return 1
}

# lab_rules KIND INPUT: the rule set of a router.
# The kernel's own translation keeps the port where it is free and filters by address and port: port-restricted. The two
# looser kinds remember the owner of each mapped port, and whom it has spoken to, and let strangers in accordingly.
lab_rules() {
    local kind="$1" input="$2" translate="" admit=""
    case "$kind" in
        none) ;;
        fullcone) translate=masquerade admit='dnat to udp dport map @owners' ;;
        restricted) translate=masquerade admit='ip saddr . udp dport @talked dnat to udp dport map @owners' ;;
        portrestricted) translate=masquerade ;;
        symmetric) translate='masquerade random,fully-random' ;;
        *) echo "no such kind of router: $kind" >&2; return 1 ;;
    esac
    cat <<RULES
table ip lab {
    map owners { type inet_service : ipv4_addr; flags dynamic,timeout; size 65535; timeout 2m; }
    set talked { type ipv4_addr . inet_service; flags dynamic,timeout; size 65535; timeout 2m; }
    chain prerouting {
        type nat hook prerouting priority dstnat;
        ${admit:+iifname "wan0" meta l4proto udp $admit}
    }
    chain outgoing {
        type filter hook forward priority filter - 1;
        iifname "lan0" oifname "wan0" meta l4proto udp update @owners { udp sport : ip saddr } update @talked { ip daddr . udp sport }
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ${translate:+oifname \"wan0\" $translate}
    }
    chain forwarding {
        type filter hook forward priority filter;
        $([ "$kind" = none ] || echo 'iifname "wan0" ct state new ct status & dnat == 0 drop')
    }
    chain input {
        type filter hook input priority filter;
        iifname "wan0" ct state new $input
    }
}
table ip6 lab {
    chain forwarding {
        type filter hook forward priority filter;
        iifname "wan0" meta l4proto != ipv6-icmp ct state new drop
    }
    chain input {
        type filter hook input priority filter;
        iifname "wan0" meta l4proto != ipv6-icmp ct state new $input
    }
}
RULES
}
