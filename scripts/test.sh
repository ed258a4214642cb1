#!/usr/bin/env bash
# All checks, in the order of their cost; stops at the first that fails. On a bare Debian it installs what is missing.
set -u
cd "$(dirname "$(realpath "$0")")/.." || exit 1
export CARGO_TERM_COLOR="${CARGO_TERM_COLOR:-never}"

main() {
    local started=$SECONDS
    check "tools" tools
    check "format" cargo fmt --all --check
    check "clippy" cargo clippy --workspace --all-targets --locked -- -D warnings
    check "documentation" documentation
    check "tests" cargo test --workspace --locked
    check "simulation" scripts/sim chaos --seeds 200
    check "transport" scripts/sim transport --seeds 3000
    check "gap" scripts/sim gap --seeds 100 --check
    check "traversal" scripts/sim traversal --seeds 3 --check
    check "demo" scripts/demo.sh
    check "kernel NATs" scripts/nat-test.sh
    check "port mapping" scripts/portmap-test.sh
    echo "test: all checks passed in $((SECONDS - started)) s"
}

# check NAME COMMAND..
check() {
    local name="$1" started=$SECONDS
    shift
    echo "== $name: $*"
    if ! "$@"; then
        echo "test: $name failed"
        exit 1
    fi
    echo "== $name: passed in $((SECONDS - started)) s"
}

documentation() {
    RUSTDOCFLAGS=-Dwarnings cargo doc --workspace --no-deps --document-private-items --locked
}

# Every program that the checks start, with its Debian package.
REQUIRED="
    cc:build-essential
    ip:iproute2
    nft:nftables
    iptables:iptables
    conntrack:conntrack
    nsenter:util-linux
    ps:procps
    sysctl:procps
    turnutils_stunclient:coturn
    stun:stun-client
    miniupnpd:miniupnpd-nftables
"

tools() {
    local packages
    export PATH="$PATH:/usr/local/sbin:/usr/sbin:/sbin"
    packages="$(missing_packages)"
    [ -z "$packages" ] || install "$packages" || return 1
    packages="$(missing_packages)"
    [ -z "$packages" ] || { echo "still missing after installation: $packages"; return 1; }
    command -v cargo >/dev/null || { echo "cargo is missing: install Rust 1.89 or newer, see https://rustup.rs"; return 1; }
}

missing_packages() {
    local pair
    for pair in $REQUIRED; do
        command -v "${pair%%:*}" >/dev/null || echo "${pair#*:}"
    done | sort -u | tr '\n' ' '
}

install() {
    local root=""
    command -v apt-get >/dev/null || { echo "missing: $1 (and no apt-get to install it)"; return 1; }
    if [ "$(id -u)" != 0 ]; then
        root=sudo
        sudo -n true 2>/dev/null || { echo "missing: $1 (run as root: apt-get install $1)"; return 1; }
    fi
    echo "installing: $1"
    keep_services_still
    # shellcheck disable=SC2086
    $root env DEBIAN_FRONTEND=noninteractive apt-get -qq update &&
        $root env DEBIAN_FRONTEND=noninteractive apt-get -qq install --yes --no-install-recommends $1
    local outcome=$?
    [ -z "$BARRIER" ] || $root rm -f "$BARRIER"
    return $outcome
}

# Only the programs of coturn and miniupnpd are wanted: a policy keeps their services from starting.
keep_services_still() {
    BARRIER=""
    [ -e /usr/sbin/policy-rc.d ] && return
    BARRIER=/usr/sbin/policy-rc.d
    printf '#!/bin/sh\nexit 101\n' | $root tee "$BARRIER" >/dev/null && $root chmod +x "$BARRIER"
}

main
