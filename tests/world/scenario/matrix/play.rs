//! Playing a pair: both register, one speaks, both go on talking, and the network is asked what
//! way it went.

use std::fmt;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::class::{BACK, Class, Goal, STORM};
use super::pair::{Incident, Lines, Pair};
use crate::link::Link;
use crate::machines::{Pickup, Seen};
use crate::oracle::{self, Expectation};
use crate::scenario::stage::{ACCESS, Failure, Stage};
use crate::topology::HostId;

/// The path that the network saw.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Path {
    /// Payload went between the two hosts, and not through the server.
    Direct,
    /// Payload went through the server.
    Relay,
}

/// What came of a pair.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What the oracle says.
    pub expected: Expectation,
    /// What it is counted with.
    pub class: Class,
    /// What the network saw.
    pub judged: Path,
    /// From the first message's command to its arrival.
    pub first_delivery: Duration,
    /// From the first message's command until one of the hosts could know of a direct path, by
    /// an answer on it.
    pub confirmed_after: Option<Duration>,
    /// From the first message's command until one of the nodes said that its path is direct.
    pub told_after: Option<Duration>,
    /// From the first message's command until payload had gone both ways directly.
    pub direct_after: Option<Duration>,
    /// The physical limit for `confirmed_after` and `told_after`: the go of the server and one round trip,
    /// (R_A + R_B)/2 + 2 D. Where only packets of the side that asked can be heard first, its go
    /// takes a round trip to the server, which may be longer; where no side is stable, the two
    /// need a trip or two more ([`oracle::opens`]).
    pub floor: Duration,
    /// Datagrams that the busier host sent from the first message until there was a direct path,
    /// or for ten seconds.
    pub sent: u64,
    /// From an incident until payload had gone both ways directly again.
    pub back_after: Option<Duration>,
}

impl Outcome {
    /// Whether the run is what the class asks for.
    pub fn is_good(&self) -> bool {
        match self.class.goal() {
            Goal::Direct => self.judged == Path::Direct,
            Goal::Relay => self.judged == Path::Relay && self.sent <= STORM,
            Goal::Recovery => {
                self.judged == Path::Direct && self.back_after.is_some_and(|after| after <= BACK)
            }
        }
    }

    /// Whether the network saw nothing that the oracle excludes. Where ports must be guessed both
    /// paths are right.
    pub fn is_as_expected(&self) -> bool {
        match self.expected {
            Expectation::Direct => self.judged == Path::Direct,
            Expectation::Relay => self.judged == Path::Relay,
            Expectation::Guessing(_) => true,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { expected, judged, first_delivery, floor, sent, .. } = self;
        write!(f, "expected {expected:?}, judged {judged:?}")?;
        write!(f, ", first delivery {} ms, {sent} datagrams sent", first_delivery.as_millis())?;
        let mut time = |what: &str, after: Option<Duration>| {
            after.map_or(Ok(()), |after| write!(f, ", {what} after {} ms", after.as_millis()))
        };
        time("direct path confirmed", self.confirmed_after)?;
        time("told", self.told_after)?;
        time("used", self.direct_after)?;
        time("back", self.back_after)?;
        write!(f, ", physical limit {} ms", floor.as_millis())
    }
}

/// Whatever registration started has settled, and a peer has found out what its router is like.
const WARM_UP: Duration = Duration::from_secs(6);
/// Longest time a pair may take to become direct before it counts as relayed.
const SETTLE: Duration = Duration::from_secs(10);
/// Between two lines of the two who talk meanwhile.
const LINE: Duration = Duration::from_millis(500);
/// Messages each way by which the path is judged.
const JUDGED_MESSAGES: u64 = 10;
/// How often it is judged before a pair counts as relayed: on lossy lines a few lost datagrams
/// in a row put a moment's traffic on the relay, which says nothing of the path.
const JUDGEMENTS: u32 = 3;
/// On each of two lines: one datagram in twenty does not come through both.
const LOSS: f64 = 0.0253;
/// Conversation before something happens to it.
const BEFORE: Duration = Duration::from_secs(2);
/// Between two messages of a conversation that something happens to.
const BEAT: Duration = Duration::from_millis(50);

/// Runs a pair and compares with the oracle.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn check_pair(pair: &Pair, seed: u64) -> Result<Outcome, Failure> {
    let mut play = Play::new(pair, seed);
    let outcome = play.run()?;
    if outcome.is_as_expected() { Ok(outcome) } else { Err(play.account(&outcome)) }
}

/// Runs a pair.
///
/// # Errors
/// [`Failure`] when a message does not arrive.
pub fn run_pair(pair: &Pair, seed: u64) -> Result<Outcome, Failure> {
    Play::new(pair, seed).run()
}

/// Runs a pair and tells everything about it.
pub fn tell_pair(pair: &Pair, seed: u64) -> String {
    let mut play = Play::new(pair, seed);
    match play.run() {
        Ok(outcome) => play.account(&outcome).to_string(),
        Err(failure) => failure.to_string(),
    }
}

const NAMES: [&str; 2] = ["alice", "bob"];

struct Play<'a> {
    pair: &'a Pair,
    stage: Stage,
    /// Who says the first word.
    first: &'static str,
    second: &'static str,
    rng: ChaCha12Rng,
    lines: u32,
}

impl<'a> Play<'a> {
    /// A run is a matter of the pair and the seed; each pair has chances of its own.
    fn new(pair: &'a Pair, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed ^ hash(&pair.name));
        let [first, second] = if seed.is_multiple_of(2) { NAMES } else { [NAMES[1], NAMES[0]] };
        let seed = rng.random::<u32>().into();
        let stage =
            if pair.maps_by_address() { Stage::with_second_ip(seed) } else { Stage::new(seed) };
        Self { pair, stage, first, second, rng, lines: 0 }
    }

    fn run(&mut self) -> Result<Outcome, Failure> {
        for (name, side) in NAMES.into_iter().zip([&self.pair.a, &self.pair.b]) {
            let site = self.stage.place(side);
            self.stage.add_peer(name, &site, Pickup::AtOnce);
        }
        self.lay_lines();
        self.stage.wait_registered(SETTLE)?;
        self.stage.world.run_for(WARM_UP)?;
        let floor = self.floor();

        let (start, before) = (self.stage.world.clock().now(), self.sent());
        let direct_after = self.meet()?;
        let sent = self.sent().into_iter().zip(before).map(|(after, before)| after - before);
        let sent = sent.max().unwrap_or_default();
        let confirmed_after = self.confirmed().map(|at| at - start);
        let told_after = self.told().map(|at| at - start);
        let arrival = self.stage.arrival(self.second, "hello");
        let first_delivery = arrival.map_or(SETTLE, |at| at - start);

        let mut judged = self.judge()?;
        let mut back_after = None;
        if judged == Path::Direct && self.pair.incident != Incident::None {
            back_after = self.suffer()?;
            judged = self.judge()?;
        }
        let (expected, class) = (self.pair.expected(), self.pair.class);
        Ok(Outcome {
            expected,
            class,
            judged,
            first_delivery,
            confirmed_after,
            told_after,
            direct_after,
            floor,
            sent,
            back_after,
        })
    }

    /// A failure that tells everything about a run that came to its end.
    fn account(&mut self, outcome: &Outcome) -> Failure {
        let host = self.stage.host(self.first);
        let why = self.stage.world.act(host, |machine, _| {
            machine.peer().map_or_else(String::new, |peer| peer.why(self.second))
        });
        let (name, first) = (&self.pair.name, self.first);
        self.stage.failure(&format!("{name}: {outcome}\n{first} says: {why}"))
    }

    fn lay_lines(&mut self) {
        let lines = match self.pair.lines {
            Lines::Clean => return,
            Lines::Lossy => [(); 2].map(|()| Link::new(ACCESS).with_loss(LOSS)),
            Lines::Jittery => {
                let line = Link { jitter: Duration::from_millis(10), ..Link::new(ACCESS) };
                [line.clone(), line]
            }
            Lines::Uneven => [Link::millis(2), Link::millis(80)],
            Lines::Rough => [rough(&mut self.rng), rough(&mut self.rng)],
        };
        for (name, line) in NAMES.into_iter().zip(lines) {
            self.stage.set_line(name, line);
        }
    }

    /// The go of the server, and a question and its answer between the two.
    fn floor(&self) -> Duration {
        let [asking, asked] = [self.first, self.second].map(|name| self.stage.host(name));
        let (world, server) = (&self.stage.world, self.stage.server());
        let (near, far) = (world.distance(asking, server), world.distance(asked, server));
        let between = world.distance(asking, asked);
        let Pair { a, b, .. } = self.pair;
        let (x, y) = if self.first == NAMES[0] { (a, b) } else { (b, a) };
        let by_the_asked = oracle::opens(y, x).map(|trips| near + far + between * trips);
        let by_the_asking = oracle::opens(x, y).map(|trips| near + near.max(far) + between * trips);
        let simple = near + far + between * 2;
        [by_the_asked, by_the_asking].into_iter().flatten().min().unwrap_or(simple)
    }

    /// The first message, and small talk until payload has gone both ways directly, or for ten
    /// seconds: when that was.
    fn meet(&mut self) -> Result<Option<Duration>, Failure> {
        let start = self.stage.world.clock().now();
        let [a, b] = self.hosts();
        self.stage.send(self.first, self.second, "hello");
        while self.stage.world.clock().now() < start + SETTLE {
            let is_direct = self.stage.world.run_until(
                |world| {
                    let payload = |from, to| world.traffic().direct(from, to).payload();
                    payload(a, b) > 0 && payload(b, a) > 0
                },
                LINE,
            )?;
            if is_direct {
                return Ok(Some(self.stage.world.clock().now() - start));
            }
            self.exchange();
        }
        Ok(None)
    }

    /// When the first of the two could know of a direct path.
    fn confirmed(&self) -> Option<Instant> {
        let ([a, b], traffic) = (self.hosts(), self.stage.world.traffic());
        let known = [traffic.confirmed(a, b), traffic.confirmed(b, a)];
        known.into_iter().flatten().min()
    }

    /// When the first of the two nodes said that its path is direct.
    fn told(&self) -> Option<Instant> {
        let direct = |seen: &Seen| matches!(seen, Seen::Path { direct: true, .. });
        let first = |name| {
            let mut told = self.stage.told(name).iter();
            told.find(|(_, seen)| direct(seen)).map(|(at, _)| *at)
        };
        NAMES.into_iter().filter_map(first).min()
    }

    /// Which way ten messages each way go, as the network counts them; nothing may be lost.
    fn judge(&mut self) -> Result<Path, Failure> {
        for _ in 0..JUDGEMENTS {
            self.stage.world.run_for(Duration::from_secs(1))?;
            let before = self.payload();
            for _ in 0..JUDGED_MESSAGES {
                self.exchange();
                self.stage.world.run_for(Duration::from_millis(100))?;
            }
            self.stage.finish(SETTLE)?;
            let after = self.payload();
            let grown = |index: usize| after[index] - before[index];
            // The relay is kept warm beside a direct path, and helps when something is lost; it
            // must not carry as much.
            let is_direct =
                |way: usize| grown(way) >= JUDGED_MESSAGES && grown(way + 2) < grown(way);
            if is_direct(0) && is_direct(1) {
                return Ok(Path::Direct);
            }
        }
        Ok(Path::Relay)
    }

    /// What the pair is meant to suffer, in the middle of a conversation: how long until payload
    /// that was sent afterwards had arrived directly on both sides.
    fn suffer(&mut self) -> Result<Option<Duration>, Failure> {
        self.converse(BEFORE, |_| false)?;
        let start = self.stage.world.clock().now();
        match self.pair.incident {
            Incident::None => {}
            Incident::Reboot => self.stage.rebind("bob"),
            Incident::Move => {
                let site = self.stage.place(&self.pair.b.renumbered(2));
                self.stage.roam("bob", &site);
            }
        }
        let [a, b] = self.hosts();
        self.converse(SETTLE, |stage| {
            let newest = |from, to| stage.world.traffic().newest_payload(from, to);
            newest(a, b).min(newest(b, a)).is_some_and(|sent| sent > start)
        })
        .map(|end| end.map(|end| end - start))
    }

    /// Messages both ways until `done`: when that was.
    fn converse(
        &mut self,
        limit: Duration,
        done: impl Fn(&Stage) -> bool,
    ) -> Result<Option<Instant>, Failure> {
        let end = self.stage.world.clock().now() + limit;
        while self.stage.world.clock().now() < end {
            self.exchange();
            self.stage.world.run_for(BEAT)?;
            if done(&self.stage) {
                return Ok(Some(self.stage.world.clock().now()));
            }
        }
        Ok(None)
    }

    /// A line each way.
    fn exchange(&mut self) {
        self.lines += 1;
        let line = self.lines;
        self.stage.send("alice", "bob", &format!("a{line}"));
        self.stage.send("bob", "alice", &format!("b{line}"));
    }

    fn hosts(&self) -> [HostId; 2] {
        NAMES.map(|name| self.stage.host(name))
    }

    fn sent(&self) -> [u64; 2] {
        self.hosts().map(|host| self.stage.world.traffic().sent(host))
    }

    /// Payload datagrams: direct from alice, direct from bob, relayed from alice, relayed from
    /// bob.
    fn payload(&self) -> [u64; 4] {
        let ([a, b], traffic) = (self.hosts(), self.stage.world.traffic());
        [
            traffic.direct(a, b).payload(),
            traffic.direct(b, a).payload(),
            traffic.through(a, b).datagrams,
            traffic.through(b, a).datagrams,
        ]
    }
}

/// Near or far, with jitter that breaks the triangle inequality, and some loss.
fn rough(rng: &mut ChaCha12Rng) -> Link {
    Link {
        jitter: Duration::from_millis(rng.random_range(0..15)),
        loss: rng.random_range(0.0..0.1),
        ..Link::millis(rng.random_range(5..80))
    }
}

/// FNV-1a.
fn hash(text: &str) -> u64 {
    text.bytes().fold(0xCBF2_9CE4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3)
    })
}
