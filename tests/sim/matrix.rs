//! A handful of pairs: the path is the one that the oracle expects. The binary `sim` runs all.

use std::time::Duration;

use world::nat::Unsolicited;
use world::oracle::{Expectation, Technique};
use world::scenario::{Class, Incident, Kind, Lines, Pair, check_pair, run_pair};

const CLASSIC: [Kind; 5] =
    [Kind::Public, Kind::FULL_CONE, Kind::RESTRICTED, Kind::PORT_RESTRICTED, Kind::SYMMETRIC];

/// Both ways round: who speaks first depends on the seed.
fn check_all(pairs: impl IntoIterator<Item = Pair>) {
    let runs = pairs.into_iter().flat_map(|pair| [(pair.clone(), 1), (pair, 2)]);
    let failures: Vec<_> = runs.filter_map(|(pair, seed)| check_pair(&pair, seed).err()).collect();
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} runs fail:\n{}", failures.len(), texts.join("\n\n"));
}

fn classic(unsolicited: Unsolicited) -> Vec<Pair> {
    let row = |a| CLASSIC.map(|b| Pair::with_routers(a, b, unsolicited));
    CLASSIC.into_iter().flat_map(row).collect()
}

#[test]
fn every_pair_with_routers_that_drop() {
    check_all(classic(Unsolicited::Drop));
}

#[test]
fn every_pair_with_routers_that_reject() {
    check_all(classic(Unsolicited::Reject));
}

#[test]
fn every_pair_with_routers_that_keep_state() {
    check_all(classic(Unsolicited::AcceptState));
}

#[test]
fn neighbours_carriers_cascades_and_ipv6() {
    check_all(Pair::specials());
}

#[test]
fn the_oracle_knows_the_classic_matrix() {
    let expected = |a, b| Pair::of(a, b).expected();
    for a in CLASSIC {
        for b in CLASSIC {
            let count = |kinds: &[Kind]| [a, b].iter().filter(|kind| kinds.contains(kind)).count();
            let symmetric = count(&[Kind::SYMMETRIC]);
            let hard = count(&[Kind::SYMMETRIC, Kind::PORT_RESTRICTED]);
            let right = match (hard, symmetric) {
                (2, 1) => Expectation::Guessing(Technique::Birthday),
                (2, 2) => Expectation::Relay,
                _ => Expectation::Direct,
            };
            assert_eq!(expected(a, b), right, "{a} x {b}");
        }
    }
}

/// One way between two homes.
const WAY: Duration = Duration::from_millis(42);

/// In both orders, and whichever side is the controlling one.
#[test]
fn every_simple_pair_is_direct_soon() {
    let simple = |pair: &Pair| pair.expected() == Expectation::Direct;
    for pair in classic(Unsolicited::Drop).into_iter().filter(simple) {
        for seed in 1..=4 {
            let outcome = check_pair(&pair, seed).unwrap_or_else(|failure| panic!("{failure}"));
            let within = |after: Option<Duration>, floor: Duration| {
                after.is_some_and(|after| after <= floor.mul_f64(1.2))
            };
            assert!(within(outcome.confirmed_after, outcome.floor), "{}: {outcome}", pair.name);
            assert!(within(outcome.told_after, outcome.floor), "{}: {outcome}", pair.name);
            // Payload takes a way more, and the way back where the first packet shows the port.
            let used = outcome.floor + 2 * WAY;
            assert!(within(outcome.direct_after, used), "{}: {outcome}", pair.name);
        }
    }
}

#[test]
fn a_hopeless_pair_sends_little() {
    let pair = Pair::of(Kind::SYMMETRIC, Kind::counting(1));
    assert_eq!(pair.class, Class::Hopeless);
    let outcome = check_pair(&pair, 1).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(outcome.is_good(), "{outcome}");
}

#[test]
fn a_conversation_survives_a_router_that_restarts() {
    let cone = Kind::PORT_RESTRICTED;
    let pair = Pair::of(cone, cone).with_incident(Incident::Reboot);
    let outcome = run_pair(&pair, 1).unwrap_or_else(|failure| panic!("{failure}"));
    assert!(outcome.is_good(), "{outcome}");
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = Pair::all().into_iter().map(|pair| pair.name).collect();
    let all = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), all);
}

#[test]
fn the_physical_limit_follows_the_lines() {
    let cone = Kind::PORT_RESTRICTED;
    let floor = |lines| {
        let outcome = run_pair(&Pair::of(cone, cone).over(lines), 1);
        outcome.unwrap_or_else(|failure| panic!("{failure}")).floor
    };
    // Six times over an access line of 20 ms, and eight times over half a millisecond of a local
    // network; with one of 2 and one of 80 ms three times over each.
    assert_eq!(floor(Lines::Clean), Duration::from_millis(124));
    assert_eq!(floor(Lines::Uneven), Duration::from_millis(3 * 82 + 4));
}
