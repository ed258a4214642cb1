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

/// Whether a peer can tell a mapping by address from a stable one.
#[derive(Clone, Copy)]
enum Server {
    OneIp,
    TwoIps,
}

/// What came of a pair.
struct Meeting {
    /// From the first message until payload went both ways directly.
    direct_after: Option<Duration>,
    /// Datagrams that left the two meanwhile.
    sent: u64,
}

fn meet(a: NatConfig, b: NatConfig, server: Server, seed: u64) -> Result<Meeting, Failure> {
    let mut stage = match server {
        Server::OneIp => Stage::new(seed),
        Server::TwoIps => Stage::with_second_ip(seed),
    };
    for (name, number, config) in [("alice", 1, a), ("bob", 2, b)] {
        let site = stage.place(&Side::behind(number, config));
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(Duration::from_secs(10))?;
    // Both have found out what their routers do.
    stage.world.run_for(Duration::from_secs(4))?;
    let start = stage.world.clock().now();
    let sent = |stage: &Stage, name| stage.world.traffic().sent(stage.host(name));
    let before = sent(&stage, "alice") + sent(&stage, "bob");
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
    let sent = sent(&stage, "alice") + sent(&stage, "bob") - before;
    stage.finish(Duration::from_secs(10))?;
    Ok(Meeting { direct_after, sent })
}

/// Shares and times over many seeds, both sides beginning in turn.
struct Outcome {
    direct: Vec<Duration>,
    runs: u64,
}

impl Outcome {
    fn of(a: NatConfig, b: NatConfig, seeds: u64) -> Self {
        Self::with(a, b, Server::OneIp, seeds)
    }

    fn with(a: NatConfig, b: NatConfig, server: Server, seeds: u64) -> Self {
        let run =
            |seed| meet(a, b, server, seed).unwrap_or_else(|failure| panic!("{seed}: {failure}"));
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
        let seen = format!("{what}: {share} % direct, median {median:?}, last {last:?}");
        assert!(share >= percent, "{seen}");
        assert!(median <= simple + beyond, "{seen}, a simple pair {simple:?}");
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

const fn counting(step: i16) -> NatConfig {
    SYMMETRIC.with_ports(Ports::Sequential { step })
}

#[test]
fn ports_of_a_box_that_counts_are_enclosed() {
    for step in [1, 2, 5, -1, -3] {
        let outcome = Outcome::of(CONE, counting(step), 10);
        outcome.expect(&format!("counting by {step}"), 100, Duration::from_millis(500));
    }
    let outcome = Outcome::of(CONE, counting(2).with_cross_traffic(20), SEEDS);
    outcome.expect("counting, busy", 95, Duration::from_millis(500));
}

#[test]
fn two_boxes_that_count_are_aligned() {
    for (a, b) in [(1, 1), (2, -5), (-3, -3)] {
        let outcome = Outcome::of(counting(a), counting(b), 10);
        outcome.expect(&format!("counting by {a} and {b}"), 100, Duration::from_secs(1));
    }
    let busy = |step| counting(step).with_cross_traffic(20);
    let outcome = Outcome::of(busy(1), busy(2), SEEDS);
    outcome.expect("both counting, both busy", 95, Duration::from_secs(1));
}

#[test]
fn a_mapping_by_address_is_found_from_anywhere() {
    let by_address = |filtering| SYMMETRIC.with_behaviour(Dependence::Address, filtering);
    let (loose, strict) = (by_address(Dependence::Address), by_address(Dependence::AddressAndPort));
    let counting = loose.with_ports(Ports::Sequential { step: 2 });
    for (a, b) in
        [(CONE, strict), (strict, loose), (loose, loose), (SYMMETRIC, loose), (strict, counting)]
    {
        let what = format!("{:?} and {:?}", (a.mapping, a.filtering), (b.mapping, b.filtering));
        let outcome = Outcome::with(a, b, Server::TwoIps, 10);
        outcome.expect(&what, 100, Duration::from_secs(1));
        // Where it cannot be told, the simple way comes first, and then the doubt.
        let outcome = Outcome::with(a, b, Server::OneIp, 10);
        outcome.expect(&format!("{what}, doubted"), 90, Duration::from_secs(6));
    }
}

#[test]
fn what_cannot_work_makes_no_storm() {
    let strict = SYMMETRIC.with_behaviour(Dependence::Address, Dependence::AddressAndPort);
    for (a, b) in [(SYMMETRIC, SYMMETRIC), (SYMMETRIC, counting(1)), (SYMMETRIC, strict)] {
        let meeting = meet(a, b, Server::TwoIps, 1).unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(meeting.direct_after, None);
        // Less than one burst of sockets on either side.
        assert!(meeting.sent < 2 * 256, "{} datagrams", meeting.sent);
    }
}
