# The kernel NAT lab, for sourcing by bash scripts that run as root (lab_enter makes them so).
#
# The sourcing script sets NATBOX to the helper's binary.
#
#   host a -- router A --[carrier]--\
#                                    internet (natbox delay) -- server
#   host b -- router B -------------/
#
# Every site is a network namespace; the internet is a TUN device in each of server and outermost routers, held by one
# process. The routers translate with nftables; kinds with dashes in their names are played in user space, between their
# TUN device and the internet. Documentation prefixes: server 198.51.100.0/25, A 192.0.2.0/24, B 203.0.113.0/24, and
# 198.51.100.128/25 for the network that A may move to; over IPv6 2001:db8:5::/48, 2001:db8:a::/48 and 2001:db8:b::/48.
# Behind a carrier, routers have addresses of 100.64.0.0/24 (RFC 6598).

PATH="$PATH:/usr/sbin:/sbin"
LAB_KINDS="none fullcone restricted portrestricted symmetric"
LAB_SERVER=198.51.100.1
LAB_SERVER_2=198.51.100.2
LAB_SERVER_SIX=2001:db8:5::1
LAB_SERVER_SIX_2=2001:db8:5::2
LAB_PREFIX="p2sp$$-"
# A bridge would otherwise take over the smallest address of its ports, and change it with them.
LAB_ROUTER_MAC=02:00:00:00:00:01
LAB_PUBLIC_A=192.0.2.1
LAB_PUBLIC_B=203.0.113.1
LAB_PUBLIC_C=198.51.100.129
# What A's provider gives its router after a restart.
LAB_PUBLIC_A_LATER=192.0.2.2
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

# lab_up DIR KEY=VALUE..: builds everything. The keys, with their defaults:
#   a=none b=none    kinds of the two sites' routers, see lab_rules, or one that natbox plays in user space
#   topology=wide    wide: two sites with a router each
#                    lan: both hosts are behind router A
#                    carrier: both routers are behind a further one, the carrier's, and do not see each other there
#                    carrier-a: only router A is
#                    roam: as wide, and host A has a second interface, still down, to a router of A's kind elsewhere
#                    six: as wide, and all have public IPv6 addresses too, behind firewalls that let nobody in unasked
#                    six-a: the same on A's side only
#                    six-only: A has nothing but IPv6, and B nothing but IPv4
#   carrier=none     kind of the carrier's router
#   delay_a=20 delay_b=20   one-way delay of the access links in milliseconds
#   input=drop       what routers do with datagrams to themselves: drop, reject or accept
#   hairpin=off      on: two hosts inside reach each other under their outer addresses
#   ports=joined     isolated: the hosts of one LAN do not see each other
#   range=apart      same: both hosts have the same private address
# Afterwards NS_A, NS_B and NS_SERVER are the namespaces of the hosts and the server, and LAB_CONTROL is the control
# socket of the internet.
lab_up() {
    local dir="$1" option
    local a=none b=none topology=wide carrier=none delay_a=20 delay_b=20
    local input=drop hairpin=off ports=joined range=apart
    shift
    for option in "$@"; do printf -v "${option%%=*}" %s "${option#*=}"; done
    NS_A="${LAB_PREFIX}a" NS_B="${LAB_PREFIX}b" NS_SERVER="${LAB_PREFIX}server" NS_ROUTER_A="${LAB_PREFIX}ra"
    LAB_CONTROL="$dir/internet.sock"
    # For the functions that disturb, which run in a shell of their own.
    export NATBOX LAB_CONTROL NS_A NS_ROUTER_A LAB_PUBLIC_A_LATER
    local ra="$NS_ROUTER_A" rb="${LAB_PREFIX}rb" rc="${LAB_PREFIX}rc" outermost="$NS_ROUTER_A"
    [[ "$topology" != carrier* ]] || outermost="${LAB_PREFIX}carrier"
    lab_sites && lab_internet && lab_public && lab_translate || return 1
    lab_reflector "$dir/reflector" $LAB_SERVER $LAB_SERVER_2 || return 1
    [[ "$topology" != six* ]] || lab_six
}

# Hosts behind routers, and routers behind their carrier; nothing reaches further yet.
lab_sites() {
    # A host without NAT has an address of its site's public prefix; every other one is private.
    local net_a=10.1.0 net_b=10.2.0 ns six_a=off six_b=off
    [ "$range" = same ] && net_b=10.1.0
    [ "$a" = none ] && net_a=192.0.2
    [ "$b" = none ] && net_b=203.0.113
    [[ "$topology" == six* ]] && six_a=on
    [ "$topology" = six ] && six_b=on
    for ns in "$NS_A" "$ra" "$NS_SERVER"; do lab_namespace "$ns" $six_a || return 1; done
    lab_namespace "$NS_B" $six_b && lab_lan "$ra" && lab_host "$NS_A" "$ra" port-a $net_a.129 $net_a.130 || return 1
    if [ "$topology" = lan ]; then
        lab_host "$NS_B" "$ra" port-b $net_a.129 $net_a.131 || return 1
    else
        lab_namespace "$rb" $six_b && lab_lan "$rb" && lab_host "$NS_B" "$rb" port-b $net_b.129 $net_b.130 || return 1
    fi
    if [ "$ports" = isolated ]; then lab_isolate "$ra" port-a port-b || return 1; fi
    case "$topology" in
        carrier*)
            lab_namespace "$outermost" off && lab_lan "$outermost" &&
                lab_host "$ra" "$outermost" home-a 100.64.0.129 100.64.0.130 wan0 || return 1
            ;;
        roam)
            lab_namespace "$rc" off && lab_lan "$rc" && lab_host "$NS_A" "$rc" port-a 10.3.0.129 10.3.0.130 eth1 &&
                ip -n "$NS_A" link set eth1 down && ip -n "$NS_A" addr flush dev eth1 || return 1
            ;;
    esac
    if [ "$topology" = carrier ]; then
        lab_host "$rb" "$outermost" home-b 100.64.0.129 100.64.0.131 wan0 && lab_isolate "$outermost" home-a home-b || return 1
    fi
}

# The internet, with a TUN device in the server's namespace and in each outermost router.
lab_internet() {
    local links=(
        --link "server=$NS_SERVER/wan0,0,198.51.100.0/25,2001:db8:5::/48"
        --link "a=$outermost/wan0,$delay_a,192.0.2.0/24,2001:db8:a::/48"
    )
    case "$topology" in
        lan | carrier) ;;
        *) links+=(--link "b=$rb/wan0,$delay_b,203.0.113.0/24,2001:db8:b::/48") ;;
    esac
    [ "$topology" != roam ] || links+=(--link "c=$rc/wan0,$delay_a,198.51.100.128/25")
    ! lab_in_user_space "$a" || links+=(--router "a=$a@$LAB_PUBLIC_A")
    ! lab_in_user_space "$b" || links+=(--router "b=$b@$LAB_PUBLIC_B")
    rm -f "$LAB_CONTROL"
    "$NATBOX" delay --control "$LAB_CONTROL" --seed "$LAB_SEED" "${links[@]}" &
    LAB_PIDS="$LAB_PIDS $!"
    lab_wait_for "$LAB_CONTROL" || { echo "the internet did not start" >&2; return 1; }
}

# Public addresses of those who have a link to the internet.
lab_public() {
    lab_uplink "$NS_SERVER" $LAB_SERVER $LAB_SERVER_2 && lab_uplink "$outermost" $LAB_PUBLIC_A || return 1
    case "$topology" in
        lan | carrier) ;;
        *) lab_uplink "$rb" $LAB_PUBLIC_B || return 1 ;;
    esac
    [ "$topology" != roam ] || lab_uplink "$rc" $LAB_PUBLIC_C
}

# The rules of all routers. Only the outermost can turn packets round: it holds the address that others see.
lab_translate() {
    local inner_hairpin="$hairpin"
    [ "$outermost" = "$ra" ] || inner_hairpin=off
    lab_rules "$a" "$input" $inner_hairpin | nft_in "$ra" || return 1
    [ "$outermost" = "$ra" ] || lab_rules "$carrier" "$input" "$hairpin" | nft_in "$outermost" || return 1
    [ "$topology" = lan ] || lab_rules "$b" "$input" | nft_in "$rb" || return 1
    [ "$topology" != roam ] || lab_rules "$a" "$input" | nft_in "$rc"
}

# IPv6 beside, or instead of, IPv4.
lab_six() {
    lab_uplink_six "$NS_SERVER" $LAB_SERVER_SIX $LAB_SERVER_SIX_2 && lab_uplink_six "$ra" 2001:db8:a:1::1 &&
        lab_host_six "$NS_A" "$ra" 2001:db8:a || return 1
    if [ "$topology" = six ]; then
        lab_uplink_six "$rb" 2001:db8:b:1::1 && lab_host_six "$NS_B" "$rb" 2001:db8:b || return 1
    fi
    [ "$topology" != six-only ] || ip -n "$NS_A" -4 addr flush dev eth0 || return 1
    lab_reflector "$dir/reflector-six" $LAB_SERVER_SIX $LAB_SERVER_SIX_2
}

lab_in_user_space() { [[ "$1" == *-* ]]; }

# lab_reflector READY ADDRESS ADDRESS
lab_reflector() {
    rm -f "$1"
    in_ns "$NS_SERVER" "$NATBOX" reflector --ready "$1" --addresses "$2" "$3" &
    LAB_PIDS="$LAB_PIDS $!"
    lab_wait_for "$1" || { echo "the reflector did not start" >&2; return 1; }
}

# Removes everything that lab_up made; safe to call at any time.
lab_down() {
    local pid
    for pid in $LAB_PIDS; do kill "$pid" 2>/dev/null; done
    for pid in $LAB_PIDS; do wait "$pid" 2>/dev/null; done
    LAB_PIDS=""
    lab_remove "$LAB_PREFIX"
}

# lab_remove PREFIX: removes all namespaces whose names begin so, and whoever is still in them.
lab_remove() {
    local file ns pid
    for file in /run/netns/"$1"*; do
        [ -e "$file" ] || continue
        ns="${file##*/}"
        for pid in $(ip netns pids "$ns" 2>/dev/null); do kill -9 "$pid" 2>/dev/null; done
        ip netns del "$ns"
    done
}

# What happens to A's network in mid-conversation.
lab_leave() { ip -n "$NS_A" link set eth0 down && ip -n "$NS_A" addr flush dev eth0; }
lab_arrive() {
    ip -n "$NS_A" addr add 10.3.0.130/25 dev eth1 && ip -n "$NS_A" link set eth1 up &&
        ip -n "$NS_A" route add default via 10.3.0.129
}
lab_power_off() { ip -n "$NS_ROUTER_A" link set wan0 down && ip -n "$NS_ROUTER_A" addr flush dev wan0; }
lab_power_on() { lab_uplink "$NS_ROUTER_A" "$LAB_PUBLIC_A_LATER"; }
lab_forget() { "$NATBOX" tell --control "$LAB_CONTROL" rebind a; }
lab_cut() { "$NATBOX" tell --control "$LAB_CONTROL" cut a b; }
lab_mend() { "$NATBOX" tell --control "$LAB_CONTROL" mend a b; }

# lab_namespace NAME [SIX]: without IPv6 where SIX is off; duplicate address detection would delay its addresses by a second.
lab_namespace() {
    local without_six=0
    [ "${2:-on}" = on ] || without_six=1
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

# lab_host HOST ROUTER PORT GATEWAY ADDRESS [INTERFACE]
lab_host() {
    local host="$1" router="$2" port="$3" gateway="$4" address="$5" interface="${6:-eth0}"
    ip -n "$router" link add "$port" type veth peer name "$interface" netns "$host" &&
        ip -n "$router" link set "$port" master lan0 && ip -n "$router" link set "$port" up &&
        ip -n "$router" addr replace "$gateway/25" dev lan0 &&
        ip -n "$host" addr add "$address/25" dev "$interface" && ip -n "$host" link set "$interface" up || return 1
    lab_neighbours "$host" "$interface" "$gateway" "$router" "$address" || return 1
    # Host A has its default route through the first interface until it moves.
    [ -n "$(ip -n "$host" route show default)" ] || ip -n "$host" route add default via "$gateway"
}

# lab_host_six HOST ROUTER SITE: public addresses for a host and the inside of its router.
lab_host_six() {
    local host="$1" router="$2" gateway="$3::1" address="$3::2"
    ip -n "$router" addr add "$gateway/64" dev lan0 && ip -n "$host" addr add "$address/64" dev eth0 &&
        ip -n "$host" route add default via "$gateway" || return 1
    lab_neighbours "$host" eth0 "$gateway" "$router" "$address"
}

# lab_neighbours HOST INTERFACE GATEWAY ROUTER ADDRESS: no address resolution on the way of the first packet.
lab_neighbours() {
    local host="$1" interface="$2" gateway="$3" router="$4" address="$5" mac
    mac="$(ip -n "$host" -o link show dev "$interface" | sed 's/.*link\/ether \([0-9a-f:]*\).*/\1/')"
    ip -n "$host" neigh replace "$gateway" lladdr $LAB_ROUTER_MAC dev "$interface" nud permanent &&
        ip -n "$router" neigh replace "$address" lladdr "$mac" dev lan0 nud permanent
}

# lab_isolate ROUTER PORT..: what comes in by one of these ports does not leave by another.
lab_isolate() {
    local router="$1" port
    shift
    for port in "$@"; do ip -n "$router" link set "$port" type bridge_slave isolated on || return 1; done
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
        [ -e "$1" ] && return 0
        sleep 0.02
    done
    return 1
}

# lab_rules KIND INPUT [HAIRPIN]: the rule set of a router.
# The kernel's own translation keeps the port where it is free and filters by address and port: port-restricted. The two
# looser kinds remember the owner of each mapped port, and whom it has spoken to, and let strangers in accordingly.
# Hairpin lets hosts inside reach the owner of a mapped port too, and shows them each other's outer address.
lab_rules() {
    local kind="$1" input="$2" hairpin="${3:-off}" translate="" admit="" turn_in="" turn_out=""
    local owner='dnat to udp dport map @owners'
    if [ "$hairpin" = on ]; then
        turn_in="iifname lan0 ip daddr $LAB_PUBLIC_A meta l4proto udp $owner"
        turn_out="oifname lan0 ct original ip daddr $LAB_PUBLIC_A ip saddr { 10.0.0.0/8, 100.64.0.0/10 } snat to $LAB_PUBLIC_A"
    fi
    case "$kind" in
        none | *-*) ;;
        fullcone) translate=masquerade admit="$owner" ;;
        restricted) translate=masquerade admit="ip saddr . udp dport @talked $owner" ;;
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
        $turn_in
    }
    chain outgoing {
        type filter hook forward priority filter - 1;
        iifname "lan0" oifname "wan0" meta l4proto udp update @owners { udp sport : ip saddr } update @talked { ip daddr . udp sport }
    }
    chain postrouting {
        type nat hook postrouting priority srcnat;
        ${translate:+oifname \"wan0\" $translate}
        $turn_out
    }
    chain forwarding {
        type filter hook forward priority filter;
        $([ -z "$translate" ] || echo 'iifname "wan0" ct state new ct status & dnat == 0 drop')
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

export -f in_ns lab_uplink lab_leave lab_arrive lab_power_off lab_power_on lab_forget lab_cut lab_mend
