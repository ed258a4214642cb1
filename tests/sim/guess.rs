//! Pairs whose ports must be guessed: how many become direct, how soon, and that what cannot
//! work makes no storm.

use std::time::Duration;

use world::machines::Pickup;
use world::nat::{Dependence, NatConfig, Ports};
use world::oracle::Side;
use world::scenario::{Failure, Stage};

const CONE: NatConfig = NatConfig::PORT_RESTRICTED;
const SYMMETRIC: NatConfig = NatConfig::SYMMETRIC;
const BLOCK: Ports = Ports::Block { first: 30_000, len: 2048 };
const SEEDS: u64 = 50;
/// Longest wait for a direct path: all rounds in a row.
const PATIENCE: Duration = Duration::from_secs(17);

/// What came of a pair.
struct Meeting {
    /// From the first message until payload went both ways directly.
    direct_after: Option<Duration>,
    /// Checks that the two sent to each other, arrived or not, is not known: those that arrived.
    heard: u64,
}

fn meet(a: NatConfig, b: NatConfig, seed: u64) -> Result<Meeting, Failure> {
    let mut stage = Stage::new(seed);
    for (name, number, config) in [("alice", 1, a), ("bob", 2, b)] {
        let site = stage.place(&Side::behind(number, config));
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(Duration::from_secs(10))?;
    // Both have found out what their routers do.
    stage.world.run_for(Duration::from_secs(4))?;
    let start = stage.world.clock().now();
    let (first, second) = if seed % 2 == 0 { ("alice", "bob") } else { ("bob", "alice") };
    stage.send(first, second, "hello");
    let (alice, bob) = (stage.host("alice"), stage.host("bob"));
    let direct = stage.world.run_until(
        |world| {
            let payload = |from, to| world.traffic().direct(from, to).payload();
            payload(alice, bob) > 0 && payload(bob, alice) > 0
        },
        PATIENCE,
    )?;
    let direct_after = direct.then(|| stage.world.clock().now() - start);
    let heard = [(alice, bob), (bob, alice)]
        .map(|(from, to)| stage.world.traffic().direct(from, to).stun)
        .into_iter()
        .sum();
    stage.finish(Duration::from_secs(10))?;
    Ok(Meeting { direct_after, heard })
}

/// Shares and times over many seeds, both sides beginning in turn.
struct Outcome {
    direct: Vec<Duration>,
    runs: u64,
}

impl Outcome {
    fn of(a: NatConfig, b: NatConfig, seeds: u64) -> Self {
        let run = |seed| meet(a, b, seed).unwrap_or_else(|failure| panic!("{seed}: {failure}"));
        let mut direct: Vec<_> = (1..=seeds).filter_map(|seed| run(seed).direct_after).collect();
        direct.sort();
        Self { direct, runs: seeds }
    }

    fn percent(&self) -> u64 {
        self.direct.len() as u64 * 100 / self.runs
    }

    /// Half of all runs were direct by then.
    fn median(&self) -> Duration {
        self.direct.get(self.runs as usize / 2).copied().unwrap_or(Duration::MAX)
    }

    /// At least this share, half of it within this time beyond what a simple pair takes.
    fn expect(&self, what: &str, percent: u64, beyond: Duration) {
        let simple = Self::of(CONE, CONE, 2).median();
        let (share, median) = (self.percent(), self.median());
        let last = self.direct.last();
        println!("{what}: {share} % direct, median {median:?}, last {last:?}, simple {simple:?}");
        assert!(share >= percent, "{what}: {share} % of {} are direct", self.runs);
        assert!(median <= simple + beyond, "{what}: median {median:?}");
    }
}

#[test]
fn random_ports_of_one_side_are_found() {
    let outcome = Outcome::of(CONE, SYMMETRIC, SEEDS);
    outcome.expect("random", 95, Duration::from_secs(1));
}

#[test]
fn a_block_of_ports_is_searched_sooner() {
    let outcome = Outcome::of(CONE, SYMMETRIC.with_ports(BLOCK), SEEDS);
    outcome.expect("block", 99, Duration::from_millis(500));
}

#[test]
fn ports_of_a_box_that_counts_are_enclosed() {
    for step in [1, 2, 3, 5] {
        let counting = SYMMETRIC.with_ports(Ports::Sequential { step });
        let outcome = Outcome::of(CONE, counting, 10);
        outcome.expect(&format!("counting by {step}"), 100, Duration::from_millis(500));
    }
}

#[test]
fn two_boxes_that_count_are_aligned() {
    for (a, b) in [(1, 1), (2, 5), (3, 3)] {
        let counting = |step| SYMMETRIC.with_ports(Ports::Sequential { step });
        let outcome = Outcome::of(counting(a), counting(b), 10);
        outcome.expect(&format!("counting by {a} and {b}"), 100, Duration::from_secs(1));
    }
}

#[test]
fn a_mapping_by_address_is_found_from_anywhere() {
    let by_address = |filtering| SYMMETRIC.with_behaviour(Dependence::Address, filtering);
    let (loose, strict) = (by_address(Dependence::Address), by_address(Dependence::AddressAndPort));
    for (a, b) in [(CONE, strict), (strict, loose), (loose, loose), (SYMMETRIC, loose)] {
        let outcome = Outcome::of(a, b, 10);
        println!("{a:?} {b:?}: {}", outcome.percent());
    }
}

#[test]
fn what_cannot_work_makes_no_storm() {
    let counting = SYMMETRIC.with_ports(Ports::Sequential { step: 1 });
    for (a, b) in [(SYMMETRIC, SYMMETRIC), (SYMMETRIC, counting)] {
        let meeting = meet(a, b, 1).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(meeting.direct_after, None);
        assert!(meeting.heard < 64, "{} checks arrived", meeting.heard);
    }
}
