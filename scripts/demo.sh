#!/usr/bin/env bash
# Shows the product at work on one machine: two peers that meet through a rendezvous and talk directly, then two peers
# behind routers that allow no direct path and talk through the relay.
set -u
cd "$(dirname "$(realpath "$0")")/.." || exit 1
BIN="$PWD/target/release"
# For each thing that the demonstration waits for.
LIMIT_SECONDS=15

main() {
    echo "Building ..."
    cargo build --release --locked --quiet -p p2sp-server -p p2sp-peer -p p2sp-tests --bins || fail "the build failed"
    DIR="$(mktemp -d)" || fail "no temporary directory"
    PIDS=""
    trap 'cleanup' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    directly
    relayed
    echo "demo: a direct and a relayed conversation, all messages delivered"
}

directly() {
    echo
    echo "1. A rendezvous and two peers on this machine"
    start_rendezvous
    echo "   The rendezvous listens on 127.0.0.1:$PORT."
    start_peer alice 4
    wait_for alice registered || fail "alice could not register"
    start_peer bob 5
    wait_for bob registered || fail "bob could not register"
    echo "   alice and bob have registered. Neither has been told where the other is."
    wait_for alice joined '"bob"' || fail "alice does not see bob"

    echo "hello bob" >&4
    wait_for bob message 'hello bob' || fail "bob did not get alice's message"
    echo "   bob reads: $(latest bob message text)"
    echo "hello alice" >&5
    wait_for alice message 'hello alice' || fail "alice did not get bob's message"
    echo "   alice reads: $(latest alice message text)"
    say_until_direct || fail "no message went directly"
    echo "   A later message of alice's was delivered to bob directly, without the rendezvous."

    exec 4>&- 5>&-
    wait "$PID_alice" && wait "$PID_bob" || fail "a peer did not end well"
    echo "   Both have said good bye."
}

# Direct paths are looked for while the first messages already travel.
say_until_direct() {
    local number
    for number in $(seq $((LIMIT_SECONDS * 5))); do
        echo "/send bob message $number" >&4
        grep '"event": *"delivered"' "$DIR/alice.out" | grep -q '"direct"' && return 0
        sleep 0.2
    done
    return 1
}

relayed() {
    echo
    echo "2. Two peers behind routers that give every conversation a random port (network namespaces)"
    if ! scripts/nat-test.sh --pairs symmetric:symmetric >"$DIR/lab" 2>&1; then
        sed 's/^/   /' "$DIR/lab"
        fail "the relayed conversation could not be shown"
    fi
    sed 's/^/   /' "$DIR/lab"
    echo "   No direct path exists; every message was delivered once, through the rendezvous, sealed end to end."
}

# The port is a random one; when somebody has it already, the server ends at once and another is tried.
start_rendezvous() {
    local attempt pid
    for attempt in 1 2 3 4 5; do
        PORT=$((20000 + RANDOM % 12000))
        "$BIN/rendezvous" --listen "127.0.0.1:$PORT" --data-dir "$DIR/rendezvous$attempt" --console off \
            </dev/null >"$DIR/rendezvous.out" 2>&1 &
        pid=$!
        sleep 0.3
        if kill -0 "$pid" 2>/dev/null; then
            PIDS="$PIDS $pid"
            return
        fi
    done
    sed 's/^/   /' "$DIR/rendezvous.out"
    fail "the rendezvous did not start"
}

# start_peer NAME FD: lines written to FD are what its person types.
start_peer() {
    local name="$1" fd="$2"
    mkfifo "$DIR/$name.in" || fail "no pipe"
    "$BIN/peer" --rendezvous "127.0.0.1:$PORT" --name "$name" --state-dir "$DIR/$name" --json \
        <"$DIR/$name.in" >"$DIR/$name.out" 2>"$DIR/$name.err" 4>&- 5>&- &
    eval "PID_$name=$!"
    PIDS="$PIDS $!"
    eval "exec $fd>\"$DIR/$name.in\""
}

# wait_for NAME EVENT [TEXT]
wait_for() {
    local tries
    for tries in $(seq $((LIMIT_SECONDS * 20))); do
        grep "\"event\": *\"$2\"" "$DIR/$1.out" | grep -q -- "${3:-}" && return 0
        sleep 0.05
    done
    return 1
}

# latest NAME EVENT KEY: a text field of the newest such line.
latest() { grep "\"event\": *\"$2\"" "$DIR/$1.out" | tail -n 1 | sed -n "s/.*\"$3\": *\"\([^\"]*\)\".*/\1/p"; }

cleanup() {
    local pid
    for pid in $PIDS; do kill "$pid" 2>/dev/null; done
    for pid in $PIDS; do wait "$pid" 2>/dev/null; done
    rm -rf "$DIR"
}

fail() {
    local log
    for log in "${DIR:-/nonexistent}"/*.err; do [ -s "$log" ] && sed "s/^/   $(basename "$log" .err): /" "$log"; done
    echo "demo: failed, $1"
    exit 1
}

main
