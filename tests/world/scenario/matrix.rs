//! Two peers behind every pair of boxes: does the network see the path that the oracle expects?

use std::fmt;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::stage::{ACCESS, Failure, Stage};
use crate::link::Link;
use crate::machines::Pickup;
use crate::nat::{NatConfig, Ports, Unsolicited};
use crate::oracle::{Expectation, Side, direct_possible};

/// The classic kinds of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// A public address.
    None,
    /// Endpoint-independent mapping and filtering.
    FullCone,
    /// Filtering by address.
    Restricted,
    /// Filtering by address and port.
    PortRestricted,
    /// Mapping and filtering by address and port, ports at random.
    Symmetric,
}

impl Kind {
    /// All five.
    pub const ALL: [Self; 5] =
        [Self::None, Self::FullCone, Self::Restricted, Self::PortRestricted, Self::Symmetric];

    /// The box, or `None` for a public address.
    pub const fn config(self) -> Option<NatConfig> {
        match self {
            Self::None => None,
            Self::FullCone => Some(NatConfig::FULL_CONE),
            Self::Restricted => Some(NatConfig::RESTRICTED),
            Self::PortRestricted => Some(NatConfig::PORT_RESTRICTED),
            Self::Symmetric => Some(NatConfig::SYMMETRIC),
        }
    }
}

/// Two sides that shall meet. `a` sends first.
#[derive(Clone, Debug)]
pub struct Pair {
    /// For people; unique.
    pub name: String,
    /// Alice's way to the internet.
    pub a: Side,
    /// Bob's.
    pub b: Side,
}

impl Pair {
    /// Two kinds of access, each behind its own router.
    pub fn classic(a: Kind, b: Kind, unsolicited: Unsolicited) -> Self {
        let side = |number, kind: Kind| {
            let config = kind.config().map(|config| config.with_unsolicited(unsolicited));
            config.map_or_else(Side::public, |config| Side::behind(number, config))
        };
        Self { name: format!("{a:?} x {b:?}, {unsolicited:?}"), a: side(1, a), b: side(2, b) }
    }

    /// The classic matrix with one kind of router.
    pub fn matrix(unsolicited: Unsolicited) -> Vec<Self> {
        let row = |a| Kind::ALL.map(|b| Self::classic(a, b, unsolicited));
        Kind::ALL.into_iter().flat_map(row).collect()
    }

    /// Neighbours, carriers, cascades, IPv6 and counting boxes.
    pub fn special() -> Vec<Self> {
        let (cone, symmetric) = (NatConfig::PORT_RESTRICTED, NatConfig::SYMMETRIC);
        let counting = symmetric.with_ports(Ports::Sequential { step: 1 });
        let linux = symmetric.with_ports(Ports::Preserving);
        let home = |number, carrier| Side::behind(number, cone).then(9, carrier);
        let six = |number| Side::behind(number, symmetric).with_ipv6();
        let pair = |name: &str, a, b| Self { name: name.to_owned(), a, b };
        vec![
            pair("same lan", Side::behind(1, cone), Side::behind(1, cone)),
            pair("same lan, symmetric", Side::behind(1, symmetric), Side::behind(1, symmetric)),
            pair(
                "same carrier, hairpin",
                home(1, cone.with_hairpin()),
                home(2, cone.with_hairpin()),
            ),
            pair("same carrier, no hairpin", home(1, cone), home(2, cone)),
            pair("home and carrier's zone", home(1, cone), Side::behind(9, cone)),
            pair("cascade x cone", home(1, cone), Side::behind(2, cone)),
            pair("cascade x symmetric", home(1, cone), Side::behind(2, symmetric)),
            pair("ipv6 x ipv6", six(1), six(2)),
            pair("ipv6 x ipv4 only", six(1), Side::behind(2, symmetric)),
            pair("linux x linux", Side::behind(1, linux), Side::behind(2, linux)),
            pair("linux x symmetric", Side::behind(1, linux), Side::behind(2, symmetric)),
            pair("counting x cone", Side::behind(1, counting), Side::behind(2, cone)),
            pair("counting x counting", Side::behind(1, counting), Side::behind(2, counting)),
        ]
    }

    /// Everything.
    pub fn all() -> Vec<Self> {
        let routers = [Unsolicited::Drop, Unsolicited::Reject, Unsolicited::AcceptState];
        let mut pairs: Vec<_> = routers.into_iter().flat_map(Self::matrix).collect();
        pairs.extend(Self::special());
        pairs
    }

    /// What the oracle expects.
    pub fn expected(&self) -> Expectation {
        direct_possible(&self.a, &self.b)
    }

    /// Whether simple simultaneous open over two access lines is all there is to it, so that
    /// [`PairResult::FLOOR`] is its physical limit.
    pub fn is_simple(&self) -> bool {
        let apart = self.a.layers.len() <= 1 && self.b.layers.len() <= 1;
        let same_box = !self.a.layers.is_empty() && self.a.layers == self.b.layers;
        apart && !same_box && self.expected() == Expectation::Direct
    }
}

/// The path that the network saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Payload went between the two hosts, and not through the server.
    Direct,
    /// Payload went through the server.
    Relay,
}

/// What the access lines are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// All the same and without fault: for the figures.
    Clean,
    /// Drawn from the seed: distance, jitter and loss.
    Rough,
}

/// What came of a pair.
#[derive(Clone, Debug)]
pub struct PairResult {
    /// Which.
    pub pair: Pair,
    /// What the oracle says.
    pub expected: Expectation,
    /// What the network saw.
    pub judged: Path,
    /// From the first message's command to its arrival.
    pub first_delivery: Duration,
    /// From the first message's command until both hosts could know of a direct path, each by an
    /// answer on it.
    pub confirmed_after: Option<Duration>,
    /// From the first message's command until payload had gone both ways directly.
    pub direct_after: Option<Duration>,
    /// What the sending node says of its path.
    pub why: String,
}

impl PairResult {
    /// The physical limit for [`PairResult::confirmed_after`]: the go of the server and one round
    /// trip, (R_A + R_B)/2 + 2 D, each with the local networks on its way.
    pub const FLOOR: Duration =
        ACCESS.saturating_mul(6).saturating_add(Link::lan().latency.saturating_mul(8));

    /// Whether the network saw what the oracle expects. Where ports must be guessed both are
    /// right.
    pub fn is_as_expected(&self) -> bool {
        match self.expected {
            Expectation::Direct => self.judged == Path::Direct,
            Expectation::Relay => self.judged == Path::Relay,
            Expectation::Guessing => true,
        }
    }
}

impl fmt::Display for PairResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { pair, expected, judged, first_delivery, confirmed_after, direct_after, .. } =
            self;
        write!(f, "{}: expected {expected:?}, judged {judged:?}", pair.name)?;
        write!(f, ", first delivery {} ms", first_delivery.as_millis())?;
        if let (Some(confirmed), Some(direct)) = (confirmed_after, direct_after) {
            let (confirmed, direct) = (confirmed.as_millis(), direct.as_millis());
            write!(f, ", direct path confirmed after {confirmed} ms, used after {direct} ms")?;
        }
        Ok(())
    }
}

/// Longest time a pair may take to become direct before it counts as relayed.
const SETTLE: Duration = Duration::from_secs(10);
/// Messages each way by which the path is judged.
const JUDGED_MESSAGES: u64 = 10;

/// Runs a pair and compares with the oracle.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn check_pair(pair: &Pair, seed: u64, lines: Lines) -> Result<PairResult, Failure> {
    let (stage, result) = play(pair, seed, lines)?;
    if result.is_as_expected() {
        return Ok(result);
    }
    let why = &result.why;
    Err(stage.failure(&format!("{result}\nalice says: {why}")))
}

/// Runs a pair: both register, alice speaks, both settle, ten messages each way are judged.
///
/// # Errors
/// [`Failure`] when a message does not arrive.
pub fn run_pair(pair: &Pair, seed: u64, lines: Lines) -> Result<PairResult, Failure> {
    play(pair, seed, lines).map(|(_, result)| result)
}

fn play(pair: &Pair, seed: u64, lines: Lines) -> Result<(Stage, PairResult), Failure> {
    let mut stage = Stage::new(seed);
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    for (name, side) in [("alice", &pair.a), ("bob", &pair.b)] {
        let site = stage.place(side);
        stage.add_peer(name, &site, Pickup::AtOnce);
        if lines == Lines::Rough {
            stage.set_line(name, rough(&mut rng));
        }
    }
    stage.wait_registered(Duration::from_secs(10))?;
    // Whatever registration started has settled.
    stage.world.run_for(Duration::from_secs(1))?;
    let start = stage.world.clock().now();
    let (first_delivery, direct_after) = meet(&mut stage)?;
    let confirmed_after = confirmed(&stage).map(|at| at - start);
    let judged = judge(&mut stage)?;
    stage.finish(Duration::from_secs(10))?;
    let alice = stage.host("alice");
    let why = stage
        .world
        .act(alice, |machine, _| machine.peer().map_or_else(String::new, |alice| alice.why("bob")));
    let expected = pair.expected();
    let pair = pair.clone();
    let result =
        PairResult { pair, expected, judged, first_delivery, confirmed_after, direct_after, why };
    Ok((stage, result))
}

/// Near or far, with jitter that breaks the triangle inequality, and some loss.
fn rough(rng: &mut ChaCha12Rng) -> Link {
    Link {
        jitter: Duration::from_millis(rng.random_range(0..15)),
        loss: rng.random_range(0.0..0.1),
        ..Link::millis(rng.random_range(5..80))
    }
}

/// Alice's first message: when it arrives, and when payload has gone both ways directly.
fn meet(stage: &mut Stage) -> Result<(Duration, Option<Duration>), Failure> {
    let start = stage.world.clock().now();
    stage.send("alice", "bob", "hello");
    let (alice, bob) = (stage.host("alice"), stage.host("bob"));
    let direct = stage.world.run_until(
        |world| {
            let payload = |from, to| world.traffic().direct(from, to).payload();
            payload(alice, bob) > 0 && payload(bob, alice) > 0
        },
        SETTLE,
    )?;
    let direct_after = direct.then(|| stage.world.clock().now() - start);
    if !stage.run_until(|stage| stage.arrival("bob", "hello").is_some(), SETTLE)? {
        return Err(stage.failure("the first message did not arrive"));
    }
    let arrival = stage.arrival("bob", "hello").map_or(SETTLE, |at| at - start);
    Ok((arrival, direct_after))
}

/// When both hosts could know of a direct path.
fn confirmed(stage: &Stage) -> Option<Instant> {
    let (alice, bob, traffic) = (stage.host("alice"), stage.host("bob"), stage.world.traffic());
    Some(traffic.confirmed(alice, bob)?.max(traffic.confirmed(bob, alice)?))
}

/// Which way ten messages each way go, as the network counts them.
fn judge(stage: &mut Stage) -> Result<Path, Failure> {
    stage.world.run_for(Duration::from_secs(1))?;
    let before = payload(stage);
    for round in 0..JUDGED_MESSAGES {
        stage.send("alice", "bob", &format!("a{round}"));
        stage.send("bob", "alice", &format!("b{round}"));
        stage.world.run_for(Duration::from_millis(100))?;
    }
    stage.finish(Duration::from_secs(10))?;
    let after = payload(stage);
    let grown = |index: usize| after[index] - before[index];
    // The relay is kept warm beside a direct path, and helps when something is lost; it must not
    // carry as much.
    let is_direct = |way: usize| grown(way) >= JUDGED_MESSAGES && grown(way + 2) < grown(way);
    Ok(if is_direct(0) && is_direct(1) { Path::Direct } else { Path::Relay })
}

/// Payload datagrams: direct from alice, direct from bob, relayed from alice, relayed from bob.
fn payload(stage: &Stage) -> [u64; 4] {
    let (alice, bob) = (stage.host("alice"), stage.host("bob"));
    let traffic = stage.world.traffic();
    [
        traffic.direct(alice, bob).payload(),
        traffic.direct(bob, alice).payload(),
        traffic.through(alice, bob).datagrams,
        traffic.through(bob, alice).datagrams,
    ]
}
