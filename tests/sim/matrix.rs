//! Every pair of boxes with every kind of router: the path is the one that the oracle expects.

use std::time::Duration;

use world::nat::Unsolicited;
use world::oracle::Expectation;
use world::scenario::{Kind, Lines, Pair, PairResult, check_pair};

fn check_all(pairs: &[Pair]) {
    let failures: Vec<_> =
        pairs.iter().filter_map(|pair| check_pair(pair, 1, Lines::Clean).err()).collect();
    let texts: Vec<_> = failures.iter().map(ToString::to_string).collect();
    assert!(failures.is_empty(), "{} pairs fail:\n{}", failures.len(), texts.join("\n\n"));
}

#[test]
fn every_pair_with_routers_that_drop() {
    check_all(&Pair::matrix(Unsolicited::Drop));
}

#[test]
fn every_pair_with_routers_that_reject() {
    check_all(&Pair::matrix(Unsolicited::Reject));
}

#[test]
fn every_pair_with_routers_that_keep_state() {
    check_all(&Pair::matrix(Unsolicited::AcceptState));
}

/// With jitter and loss, a check reaches the other router before that side has sent: the pairs
/// and seeds are some where this happens.
#[test]
fn a_moved_mapping_is_healed_from_a_fresh_port() {
    let (restricted, port_restricted) = (Kind::Restricted, Kind::PortRestricted);
    for (a, b, seed) in [
        (Kind::Symmetric, restricted, 5),
        (restricted, port_restricted, 6),
        (port_restricted, restricted, 18),
        (port_restricted, port_restricted, 23),
        (restricted, Kind::Symmetric, 31),
    ] {
        let pair = Pair::classic(a, b, Unsolicited::AcceptState);
        check_pair(&pair, seed, Lines::Rough).unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn neighbours_carriers_cascades_and_ipv6() {
    check_all(&Pair::special());
}

#[test]
fn the_oracle_knows_the_classic_matrix() {
    let expected = |a, b| Pair::classic(a, b, Unsolicited::Drop).expected();
    for a in Kind::ALL {
        for b in Kind::ALL {
            let hard = [a, b].iter().filter(|kind| **kind >= Kind::PortRestricted).count();
            let symmetric = [a, b].iter().filter(|kind| **kind == Kind::Symmetric).count();
            let right = match (hard, symmetric) {
                (2, 1) => Expectation::Guessing,
                (2, 2) => Expectation::Relay,
                _ => Expectation::Direct,
            };
            assert_eq!(expected(a, b), right, "{a:?} x {b:?}");
        }
    }
}

#[test]
fn a_simple_pair_is_direct_soon() {
    let cone = Kind::PortRestricted;
    let pair = Pair::classic(cone, cone, Unsolicited::Drop);
    let result = check_pair(&pair, 1, Lines::Clean).unwrap_or_else(|failure| panic!("{failure}"));
    let limit = PairResult::FLOOR.mul_f64(1.2) + Duration::from_millis(5);
    assert!(result.confirmed_after.is_some_and(|after| after <= limit), "{result}");
}
