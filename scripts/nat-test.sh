#!/usr/bin/env bash
# Two real peers and a real rendezvous across the kernel's NATs, every pair of router kinds, judged from outside.
set -u
usage() {
    cat <<'TEXT'
usage: scripts/nat-test.sh [--pairs CASE,..] [--delay MS] [--loss PCT] [--runs N] [--jobs N] [--list] [--lab-only]

  --pairs     only these cases; see --list for their names
  --delay     one-way delay of each peer's access link in milliseconds (default: what the case says, mostly 20)
  --loss      per cent of the packets lost in every case (default: what the case says)
  --runs      run every case this many times (default 1; cases that have to guess ports: at least 5)
  --jobs      run this many cases at once, but those alone whose figures are times (default 2)
  --list      print the cases with the path that is expected, and stop
  --lab-only  verify the lab itself, without the programs under test

Time zero is when the first message is typed, in the moment in which the two peers begin to look for each other:
first_ms   the first message is delivered
direct_ms  one of the two peers has a confirmed direct path; for simple pairs this takes at least
           (R_A + R_B) / 2 + 2 D, which is 6 times the delay (120 ms by default)
both_ms    both have
again_ms   after a disturbance: from when the network is back to when all messages go directly again; where mappings end
           by themselves: the longest time in which not all did
Numbered messages flow both ways, 20 a second around a disturbance; each must arrive once and in order. With --runs, the
medians follow the runs of a case. The path is judged from outside, by who carried the bytes.

Two labs may run at once. NAT_TEST_BIN, a folder with rendezvous, peer and natbox, saves the build.
TEXT
}

# Of several runs, a pair that has to guess must be direct as often as a true rate of 95 % is in 999 of 1000 series.
GUESS_RUNS=5
GUESS_RATE=0.95
GUESS_DOUBT=0.001

main() {
    options "$@" || exit 2
    self="$(realpath "$0")"
    cd "$(dirname "$self")/.." || exit 1
    . tests/natbox/lab.sh
    . tests/natbox/cases.sh
    DIR="" JOBS=()
    trap clean_up EXIT
    trap 'exit 130' INT
    trap 'exit 143' TERM HUP
    [ "$list" = no ] || { list_cases; exit 0; }
    check_names || exit 2
    bin="${NAT_TEST_BIN:-$PWD/target/release}"
    NATBOX="$bin/natbox"
    [ -n "${LAB_INSIDE:-}${NAT_TEST_BIN:-}" ] || build || { echo "nat-test: the build failed"; exit 1; }
    lab_enter "$self" "$@" || { echo "nat-test: could not run"; exit 1; }
    DIR="$(mktemp -d)" || exit 1

    header
    run_all
    echo "nat-test: $passed passed, $failed failed"
    [ "$failed" = 0 ] && [ "$passed" -gt 0 ]
}

options() {
    pairs="" delay="" loss="" runs=1 jobs=2 list=no lab_only=no
    while [ $# -gt 0 ]; do
        case "$1" in
            --pairs | --delay | --loss | --runs | --jobs)
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
    [[ "${delay:-0}" =~ ^[0-9]+$ && "$runs$jobs" =~ ^[1-9][0-9]*$ && "$jobs" =~ ^[1-9] ]] &&
        [[ "${loss:-0}" =~ ^[0-9]+(\.[0-9]+)?$ ]] ||
        { echo "--delay, --loss, --runs and --jobs need numbers" >&2; return 2; }
}

list_cases() { cases | while read -r name expected _; do printf '%-32s %s\n' "$name" "$expected"; done; }

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
        row case expect path first_ms direct_ms both_ms again_ms sent delivered doubled
    fi
}

row() { printf '%-32s %-7s %-7s %8s %9s %7s %8s %6s %9s %7s\n' "$@"; }

# Every run is a job in the background; their reports are printed in the order of the cases.
run_all() {
    local line seed before=yes
    passed=0 failed=0 started=0 printed=0 medians="" direct_runs=0 case_runs=0 JOBS=() LAST_OF=()
    while read -r line <&3; do
        # shellcheck disable=SC2086
        read_case $line
        for seed in $(seq "$(runs_of_case)"); do
            if [ "$timed$before" = nono ]; then wait_for_room "$jobs"; else wait_for_room 1; fi
            before="$timed"
            start_job "$seed"
        done
        LAST_OF[started]="$expected"
    done 3< <(chosen_cases)
    wait_for_room 1
}

# read_case NAME EXPECTED KEY=VALUE..: sets a variable for each key, and LAB to what lab_up is told.
read_case() {
    local option
    name="$1" expected="$2" LAB=()
    shift 2
    a=none b=none topology=wide carrier=none delay_a=20 delay_b=20 input=drop hairpin=off ports=joined range=apart
    weather=0 jitter=0 way=open event=none timed=no server=one limit=8
    for option in "$@"; do
        case "$option" in
            loss=*) weather="${option#*=}" ;;
            *) printf -v "${option%%=*}" %s "${option#*=}" ;;
        esac
    done
    [ -z "$delay" ] || delay_a="$delay" delay_b="$delay"
    weather="${loss:-$weather}"
    for option in a b topology carrier delay_a delay_b input hairpin ports range; do LAB+=("$option=${!option}"); done
}

runs_of_case() {
    if [ "$expected" = guess ] && [ "$lab_only" = no ] && [ "$runs" -lt $GUESS_RUNS ]; then
        echo $GUESS_RUNS
    else
        echo "$runs"
    fi
}

# start_job SEED: with a folder and a process group of its own, so that whatever it starts can be ended with it.
start_job() {
    started=$((started + 1))
    set -m
    (
        DIR="$DIR/$started" LAB_PREFIX="$LAB_PREFIX$started-" LAB_SEED="$1"
        mkdir "$DIR" && one_case
        outcome=$?
        lab_down
        exit $outcome
    ) </dev/null >"$DIR/report$started" 2>&1 &
    JOBS[started]=$!
    set +m
}

# wait_for_room N: until fewer than N jobs run; prints what is ready meanwhile.
wait_for_room() {
    local number running
    while true; do
        running=0
        for number in "${!JOBS[@]}"; do
            if kill -0 "${JOBS[number]}" 2>/dev/null; then running=$((running + 1)); fi
        done
        print_reports
        [ "$running" -ge "$1" ] || return 0
        sleep 0.05
    done
}

print_reports() {
    local number
    while [ "$printed" -lt "$started" ]; do
        number=$((printed + 1))
        ! kill -0 "${JOBS[number]}" 2>/dev/null || return 0
        if wait "${JOBS[number]}"; then passed=$((passed + 1)); else failed=$((failed + 1)); fi
        cat "$DIR/report$number"
        note_run "$DIR/report$number"
        [ -z "${LAST_OF[number]:-}" ] || finish_case "${LAST_OF[number]}"
        unset "JOBS[number]"
        rm -rf "${DIR:?}/$number"
        printed=$number
    done
}

# What a case's last lines are made of: the figures of its runs.
note_run() {
    local path first direct both again
    [ "$lab_only" = no ] || return 0
    read -r _ _ path first direct both again _ <"$1" || return 0
    case_runs=$((case_runs + 1))
    [ "$path" != direct ] || direct_runs=$((direct_runs + 1))
    medians+="$first $direct $both $again"$'\n'
}

finish_case() {
    local floor
    if [ $case_runs -gt 1 ]; then
        row "  median" "" "" "$(median 1)" "$(median 2)" "$(median 3)" "$(median 4)" "" "" ""
    fi
    if [ "$1" = guess ] && [ $case_runs -gt 0 ]; then
        floor="$(guess_floor $case_runs)"
        echo "  direct in $direct_runs of $case_runs runs, at least $floor expected"
        [ "$direct_runs" -ge "$floor" ] || failed=$((failed + 1))
    fi
    medians="" direct_runs=0 case_runs=0
}

# Of the runs of a case, by column; a run that has no figure does not count.
median() {
    awk -v column="$1" '$column ~ /^[0-9]+$/ { print $column }' <<<"$medians" | sort -n |
        awk '{ value[NR] = $1 } END { print NR ? value[int((NR + 1) / 2)] : "-" }'
}

# guess_floor RUNS: how often a pair with the true rate is direct at least, but for the doubt: the smallest k with
# P(at most k of RUNS) > doubt. Of 5 runs that is 2, of 10 it is 6, of 20 it is 15.
guess_floor() {
    awk -v runs="$1" -v rate=$GUESS_RATE -v doubt=$GUESS_DOUBT 'BEGIN {
        term = (1 - rate) ^ runs
        for (k = 0; k < runs; k++) {
            at_most += term
            if (at_most > doubt) break
            term *= (runs - k) / (k + 1) * rate / (1 - rate)
        }
        print k
    }'
}

# One line of the table; fails when anything is not as it must be.
one_case() {
    local outcome=0
    if ! { lab_up "$DIR" "${LAB[@]}" && verify; } >"$DIR/verify" 2>&1; then
        printf '%-32s %-7s %s\n' "$name" "$expected" "the lab is wrong:"
        sed 's/^/    /' "$DIR/verify"
        return 1
    fi
    tell loss "$weather" && tell jitter "$jitter" || return 1
    [ "$way" = open ] || tell cut a b || return 1
    if [ "$lab_only" = yes ]; then control_experiment || outcome=1; else talk || outcome=1; fi
    if [ $event = move ] || [ $event = restart ] || [ $event = rebind ]; then
        [ "$lab_only" = yes ] || verify_later || outcome=1
    fi
    return $outcome
}

tell() { "$NATBOX" tell --control "$LAB_CONTROL" "$@"; }

# The routers are what the case says, and the internet is as long as it should be, or the run does not count.
verify() {
    local pid outcome=0 seen_a="$a" seen_b="$b" far_b="$delay_b"
    case "$topology" in
        lan) seen_b="$a" far_b="$delay_a" ;;
        carrier) seen_a="$(stricter "$a" "$carrier")" seen_b="$(stricter "$b" "$carrier")" far_b="$delay_a" ;;
        carrier-a) seen_a="$(stricter "$a" "$carrier")" ;;
    esac
    if [[ "$topology" == six* ]]; then
        verify_host "$NS_A" firewall "$delay_a" $LAB_SERVER_SIX $LAB_SERVER_SIX_2 || outcome=1
    fi
    if [ "$topology" = six ]; then
        verify_host "$NS_B" firewall "$delay_b" $LAB_SERVER_SIX $LAB_SERVER_SIX_2 || outcome=1
    fi
    if [ "$topology" = lan ]; then verify_lan || outcome=1; fi
    verify_host "$NS_B" "$seen_b" "$far_b" & pid=$!
    [ "$topology" = six-only ] || verify_host "$NS_A" "$seen_a" "$delay_a" || outcome=1
    wait $pid || outcome=1
    return $outcome
}

# verify_host NAMESPACE KIND DELAY [REFLECTOR REFLECTOR]
verify_host() {
    local ns="$1" kind="$2" far="$3" found_input=unknown round=()
    shift 3
    [ $# = 2 ] || set -- $LAB_SERVER $LAB_SERVER_2
    case "$kind:$input" in
        *cone:accept | *restricted:accept) found_input=remembered ;;
        *cone:* | *restricted:* | eim-*-pres:*) found_input=forgotten ;;
    esac
    case "$topology" in lan | carrier) round=(--expect-hairpin "$hairpin") ;; esac
    "$NATBOX" probe --namespace "$ns" --addresses "$@" --wait $((4 * far + 100)) --expect "$kind" \
        --expect-input $found_input --expect-rtt $((2 * far)) "${round[@]}"
}

# The two hosts see each other in their LAN, or do not.
verify_lan() {
    local expected=yes
    [ "$ports" = joined ] || expected=no
    "$NATBOX" reach --from "$NS_A" --to "$NS_B" --address 10.1.0.131 --expect $expected
}

# After the network has changed, A is behind such a router again.
verify_later() {
    verify_host "$NS_A" "$a" "$delay_a" >"$DIR/verify" 2>&1 && return 0
    echo "    the lab is wrong after the disturbance:"
    sed 's/^/    /' "$DIR/verify"
    return 1
}

# stricter KIND KIND: what a router behind a router looks like from outside.
stricter() {
    local kind strict=none
    for kind in $LAB_KINDS; do
        if [ "$kind" = "$1" ] || [ "$kind" = "$2" ]; then strict="$kind"; fi
    done
    echo "$strict"
}

control_experiment() {
    local found punched=no reflector=$LAB_SERVER:5001
    [ "$topology" = six ] && reflector="[$LAB_SERVER_SIX]:5001"
    if [ "$topology" = six-only ]; then
        found="-" punched="-"
    else
        found="$("$NATBOX" punch --a "$NS_A" --b "$NS_B" --reflector "$reflector" \
            --limit $((5 * (delay_a + delay_b) + 500)))"
        # Within one site, punching by mapped addresses needs hairpin.
        case "$expected:$hairpin" in direct:* | lan:on) punched=yes ;; esac
        punched="direct=$punched"
    fi
    printf '%-32s %-7s %s\n' "$name" "$expected" "$found"
    [[ "$found" == "$punched"* ]]
}

talk() {
    local found observed=- first_ms=- direct_ms=- both_ms=- again_ms=- sent=- delivered=- doubled=- outcome=0 word
    local listen=("$LAB_SERVER:3478") second=()
    [ "$topology" != six-only ] || listen+=("[$LAB_SERVER_SIX]:3478")
    [ "$server" = one ] || second=(--alt-ip $LAB_SERVER_2)
    # shellcheck disable=SC2046
    found="$("$NATBOX" talk --a "$NS_A" --b "$NS_B" --server "$NS_SERVER" --listen "${listen[@]}" \
        "${second[@]}" --direct-limit "$limit" --rendezvous-bin "$bin/rendezvous" --peer-bin "$bin/peer" --control "$LAB_CONTROL" --dir "$DIR" \
        --expect "$expected" $(disturbance) 2>"$DIR/complaint")" || outcome=1
    for word in $found; do
        case "$word" in
            observed=* | first_ms=* | direct_ms=* | both_ms=* | again_ms=* | sent=* | delivered=* | doubled=*)
                local "$word"
                ;;
        esac
    done
    row "$name" "$expected" "$observed" "$first_ms" "$direct_ms" "$both_ms" "$again_ms" "$sent" "$delivered" "$doubled"
    [ $outcome = 0 ] || { sed 's/^/    /' "$DIR/complaint"; last_words; }
    return $outcome
}

# What happens in mid-conversation: functions of lab.sh, and how long after the first the second comes.
disturbance() {
    case "$event" in
        none) ;;
        move) echo --disturb lab_leave --outage 500 --mend lab_arrive ;;
        restart) echo --disturb lab_power_off --outage 1000 --mend lab_power_on ;;
        rebind) echo --mend lab_forget ;;
        # The first two ends are met unprepared.
        age) echo --endure 80000 ;;
        # Nothing tells the two that the way is open again, so that it takes until the next of their attempts.
        cut) echo --disturb lab_cut --outage 3000 --relayed-meanwhile --mend lab_mend --again 8000 ;;
    esac
}

# What the programs said last, for whoever has to find out why a case failed.
last_words() {
    local log
    for log in "$DIR"/{rendezvous.log,a.err,b.err,a.log,b.log}; do
        [ -s "$log" ] && tail -n 3 "$log" | sed "s/^/    $(basename "$log"): /"
    done
}

# Nothing is left of a run that was interrupted.
clean_up() {
    local pid
    for pid in "${JOBS[@]}"; do kill -KILL -- "-$pid" 2>/dev/null; done
    for pid in "${JOBS[@]}"; do wait "$pid" 2>/dev/null; done
    lab_remove "$LAB_PREFIX"
    [ -z "$DIR" ] || rm -rf "$DIR"
}

main "$@"
