#!/usr/bin/env bash
# Feeds everything that reads what strangers write with what a fuzzer thinks of.
set -u
usage() {
    cat <<'TEXT'
usage: scripts/fuzz.sh [--seconds N] [TARGET..]

  --seconds  how long each target runs (default 600)

datagrams  a stranger's datagram, at every function that looks into one before it is authenticated
frames     the frames of a packet
control    requests and answers in JSON, names, keys
stun       STUN, as a server and as a client
nat        NAT profiles, as they travel and as they are kept
session    handshakes and packets, spoiled, repeated, across rekeys
transport  a transport whose other end says anything at all
pair       two honest conversations under operations and faults, judged by the ledger of the simulation

Each begins with tests/fuzz/corpus/TARGET; what it finds besides stays in tests/fuzz/target/found. An input that fails is
kept in tests/fuzz/artifacts/TARGET and played again by: tests/fuzz/target/x86_64-unknown-linux-gnu/release/TARGET FILE
Needs a nightly toolchain and cargo-fuzz (cargo install cargo-fuzz).
TEXT
}

TARGETS="datagrams frames control stun nat session transport pair"
# The longest input, bytes, and the longest time that one may take, seconds.
LEN_MAX=4096 INPUT_SECONDS=20

main() {
    options "$@" || exit 2
    cd "$(dirname "$(realpath "$0")")/.." || exit 1
    cargo fuzz --version >/dev/null 2>&1 || { echo "fuzz: cargo-fuzz is missing: cargo install cargo-fuzz"; exit 1; }
    # The crates hold no unsafe code: no sanitizer is needed, and without one inputs are played several times as fast.
    cargo +nightly fuzz build --sanitizer none --fuzz-dir tests/fuzz || { echo "fuzz: the build failed"; exit 1; }
    local failed="" target
    printf '%-10s %12s %10s %8s  %s\n' target executions coverage seconds outcome
    for target in $targets; do
        run "$target" || failed="$failed $target"
    done
    [ -z "$failed" ] || { echo "fuzz: failed:$failed"; exit 1; }
    echo "fuzz: nothing found"
}

options() {
    seconds=600 targets=""
    while [ $# -gt 0 ]; do
        case "$1" in
            --seconds) [[ "${2:-}" =~ ^[1-9][0-9]*$ ]] || { usage >&2; return 2; }; seconds="$2"; shift ;;
            --help) usage; exit 0 ;;
            *) [[ " $TARGETS " == *" $1 "* ]] || { echo "fuzz: no target $1" >&2; usage >&2; return 2; }
                targets="$targets $1" ;;
        esac
        shift
    done
    targets="${targets:-$TARGETS}"
}

# run TARGET: one row of the table; false when an input failed.
run() {
    local dir=tests/fuzz host outcome=clean status
    host="$(rustc -vV | sed -n 's/^host: //p')"
    mkdir -p "$dir/target/found/$1" "$dir/artifacts/$1" "$dir/corpus/$1"
    "$dir/target/$host/release/$1" -max_total_time="$seconds" -max_len=$LEN_MAX -timeout=$INPUT_SECONDS \
        -print_final_stats=1 -artifact_prefix="$dir/artifacts/$1/" \
        "$dir/target/found/$1" "$dir/corpus/$1" >"$dir/target/$1.log" 2>&1
    status=$?
    [ $status = 0 ] || outcome="FAILED, see $dir/target/$1.log"
    printf '%-10s %12s %10s %8s  %s\n' "$1" \
        "$(sed -n 's/^stat::number_of_executed_units: *//p' "$dir/target/$1.log")" \
        "$(sed -n 's/.* cov: \([0-9]*\).*/\1/p' "$dir/target/$1.log" | tail -1)" "$seconds" "$outcome"
    return $status
}

main "$@"
