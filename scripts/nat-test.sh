#!/usr/bin/env bash
# Two real peers and a real rendezvous across the kernel's NATs, every pair of router kinds, judged from outside.
set -u
usage() {
    cat <<'TEXT'
usage: scripts/nat-test.sh [--pairs A:B,..] [--delay MS] [--loss PCT] [--runs N] [--list] [--lab-only]

  --pairs     only these cases; see --list for their names
  --delay     one-way delay of each peer's access link in milliseconds (default 20)
  --loss      per cent of the packets lost in every case (default: what the case says)
  --runs      run every case this many times (default 1)
  --list      print the cases with the path that is expected, and stop
  --lab-only  verify the lab itself, without the programs under test

Time zero is when the first message is typed, in the moment in which the two peers begin to look for each other:
first_ms   the first message is delivered
direct_ms  one of the two peers has a confirmed direct path; for simple pairs this takes at least
           (R_A + R_B) / 2 + 2 D, which is 6 times the delay (120 ms by default)
both_ms    both have
With --runs, the medians follow the runs of a case. The path is judged from outside, by who carried the bytes.

NAT_TEST_BIN, a folder with rendezvous, peer and natbox, saves the build.
TEXT
}

# NAME KIND_A KIND_B EXPECTED LOSS INPUT TOPOLOGY
# Expected paths follow from RFC 4787 alone: with endpoint-independent mapping on both sides, or with filtering that
# ignores ports opposite a mapping that does not, the two can meet. Only where one side maps every destination to a
# random port and the other filters by port (or does the same) they cannot.
cases() {
    local a b expected
    for a in $LAB_KINDS; do
        for b in $LAB_KINDS; do
            case "$a:$b" in
                portrestricted:symmetric | symmetric:portrestricted | symmetric:symmetric) expected=relay ;;
                *) expected=direct ;;
            esac
            echo "$a:$b $a $b $expected 0 drop wide"
        done
    done
    echo "same-lan portrestricted portrestricted lan 0 drop lan"
    echo "loss-5 portrestricted portrestricted direct 5 drop wide"
    echo "loss-20 portrestricted portrestricted direct 20 drop wide"
    echo "relay-loss-20 symmetric symmetric relay 20 drop wide"
    echo "reject portrestricted portrestricted direct 0 reject wide"
    echo "accept portrestricted portrestricted direct 0 accept wide"
    echo "ipv6-firewall symmetric symmetric direct 0 drop six"
    echo "accept-restricted restricted restricted direct 0 accept wide"
}

main() {
    options "$@" || exit 2
    self="$(realpath "$0")"
    cd "$(dirname "$self")/.." || exit 1
    . tests/natbox/lab.sh
    [ "$list" = no ] || { list_cases; exit 0; }
    check_names || exit 2
    bin="${NAT_TEST_BIN:-$PWD/target/release}"
    NATBOX="$bin/natbox"
    [ -n "${LAB_INSIDE:-}${NAT_TEST_BIN:-}" ] || build || { echo "nat-test: the build failed"; exit 1; }
    lab_enter "$self" "$@" || { echo "nat-test: could not run"; exit 1; }
    DIR="$(mktemp -d)" || exit 1
    trap 'lab_down; rm -rf "$DIR"' EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP

    passed=0 failed=0
    header
    while read -r case_line <&3; do
        medians=""
        for LAB_SEED in $(seq "$runs"); do
            # shellcheck disable=SC2086
            if one_case $case_line; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        done
        [ "$runs" = 1 ] || [ "$lab_only" = yes ] || print_medians
    done 3< <(chosen_cases)
    echo "nat-test: $passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

options() {
    pairs="" delay=20 loss="" runs=1 list=no lab_only=no
    while [ $# -gt 0 ]; do
        case "$1" in
            --pairs | --delay | --loss | --runs)
                [ -n "${2:-}" ] || { echo "$1 needs a value" >&2; return 2; }
                printf -v "${1#--}" %s "$2"
                shift
                ;;
            --list) list=yes ;;
            --lab-only) lab_only=yes ;;
            -h | --help) usage; exit 0 ;;
            *) echo "unknown option: $1" >&2; usage >&2; return 2 ;;
        esac
        shift
    done
    [[ "$delay" =~ ^[0-9]+$ && "$runs" =~ ^[1-9][0-9]*$ && "${loss:-0}" =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        { echo "--delay, --loss and --runs need numbers" >&2; return 2; }
}

list_cases() { cases | while read -r name _ _ expected _; do printf '%-32s %s\n' "$name" "$expected"; done; }

chosen_cases() {
    if [ -z "$pairs" ]; then cases; else
        cases | awk -v wanted="$pairs" 'BEGIN { split(wanted, w, ","); for (i in w) want[w[i]] } $1 in want'
    fi
}

check_names() {
    local name
    for name in ${pairs//,/ }; do
        cases | grep -q "^$name " || { echo "no such case: $name (see --list)" >&2; return 2; }
    done
}

build() {
    local packages="-p p2sp-tests"
    [ "$lab_only" = yes ] || packages="$packages -p p2sp-server -p p2sp-peer"
    # shellcheck disable=SC2086
    cargo build --release --locked --quiet $packages --bins
}

header() {
    if [ "$lab_only" = yes ]; then
        printf '%-32s %-7s %s\n' case expect "control experiment"
    else
        row case expect path first_ms direct_ms both_ms sent delivered doubled
    fi
}

row() { printf '%-32s %-7s %-7s %8s %9s %7s %6s %9s %7s\n' "$@"; }

# Of the runs of a case, by column; a run that has no figure does not count.
print_medians() {
    row "  median" "" "" "$(median 1)" "$(median 2)" "$(median 3)" "" "" ""
}

median() {
    awk -v column="$1" '$column ~ /^[0-9]+$/ { print $column }' <<<"$medians" | sort -n |
        awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "-" }'
}

# One line of the table; fails when anything is not as it must be.
one_case() {
    local name="$1" kind_a="$2" kind_b="$3" expected="$4" loss_here="${loss:-$5}" input="$6" topology="$7" outcome=0
    rm -rf "${DIR:?}/run" && mkdir "$DIR/run" || return 1
    if lab_up "$DIR/run" "$kind_a" "$kind_b" "$delay" "$input" "$topology" && verify >"$DIR/verify" 2>&1; then
        "$NATBOX" loss --control "$LAB_CONTROL" "$loss_here" || outcome=1
        if [ "$lab_only" = yes ]; then control_experiment || outcome=1; else talk || outcome=1; fi
    else
        printf '%-32s %-7s %s\n' "$name" "$expected" "the lab is wrong:"
        sed 's/^/    /' "$DIR/verify"
        outcome=1
    fi
    lab_down
    return $outcome
}

# Both routers are what the case says, and the internet is as long as it should be, or the run does not count.
verify() {
    local remembers=forgotten pid outcome=0
    [ "$input" = accept ] && remembers=remembered
    verify_host "$NS_A" "$kind_a" & pid=$!
    verify_host "$NS_B" "$kind_b" || outcome=1
    wait $pid || outcome=1
    return $outcome
}

verify_host() {
    local expect_input=$remembers
    case "$2" in none | symmetric) expect_input=unknown ;; esac
    "$NATBOX" probe --namespace "$1" --addresses $LAB_SERVER $LAB_SERVER_2 --wait $((4 * delay + 100)) \
        --expect "$2" --expect-input $expect_input --expect-rtt $((2 * delay))
}

control_experiment() {
    local found verdict=no reflector=$LAB_SERVER:5001
    [ "$topology" = six ] && reflector="[$LAB_SERVER_SIX]:5001"
    found="$("$NATBOX" punch --a "$NS_A" --b "$NS_B" --reflector "$reflector" \
        --limit $((10 * delay + 500)))"
    printf '%-32s %-7s %s\n' "$name" "$expected" "$found"
    [ "$expected" = direct ] && verdict=yes
    # Behind one router, punching by mapped addresses would need hairpin.
    [[ "$found" == "direct=$verdict"* ]]
}

talk() {
    local found observed=- first_ms=- direct_ms=- both_ms=- sent=- delivered=- doubled=- outcome=0 word
    found="$("$NATBOX" talk --a "$NS_A" --b "$NS_B" --server "$NS_SERVER" --listen $LAB_SERVER:3478 \
        --rendezvous-bin "$bin/rendezvous" --peer-bin "$bin/peer" \
        --control "$LAB_CONTROL" --dir "$DIR/run" --expect "$expected" 2>"$DIR/complaint")" || outcome=1
    for word in $found; do
        case "$word" in
            observed=* | first_ms=* | direct_ms=* | both_ms=* | sent=* | delivered=* | doubled=*) local "$word" ;;
        esac
    done
    row "$name" "$expected" "$observed" "$first_ms" "$direct_ms" "$both_ms" "$sent" "$delivered" "$doubled"
    medians+="$first_ms $direct_ms $both_ms"$'\n'
    [ $outcome = 0 ] || { sed 's/^/    /' "$DIR/complaint"; last_words; }
    return $outcome
}

# What the programs said last, for whoever has to find out why a case failed.
last_words() {
    local log
    for log in "$DIR"/run/{rendezvous.log,a.err,b.err,a.log,b.log}; do
        [ -s "$log" ] && tail -n 3 "$log" | sed "s/^/    $(basename "$log"): /"
    done
}

main "$@"
