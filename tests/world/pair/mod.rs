//! Two conversations with real keys, and nothing else: no server, no search for paths.
//!
//! What two peers say to each other lives here in its smallest world: two [`end`]s that seal and
//! open packets of sessions made by true handshakes, [lines](mod@line) between them that lose, double,
//! delay and spoil what they carry, and a [`ledger`] that is told what was asked of the ends and
//! judges what comes out. The scenario `transport` plays with it.

pub mod end;
mod handshake;
pub mod ledger;
pub mod line;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use p2sp_proto::id::{Channel, PathId};
use p2sp_proto::session::Session;
use p2sp_proto::transport::{Config, SendError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use end::{End, Parcel, Remote};
use ledger::{Ledger, Violation};
use line::Line;

/// Events in one moment; more is a pair of ends that never comes to rest.
const SPINS_MAX: u32 = 500;
/// Events of one run; no scenario needs a tenth of it.
const STEPS_MAX: u32 = 4_000_000;

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The controlling one: its handshake survives when two cross.
    A,
    /// The other.
    B,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::A, Self::B];

    /// The one at the other end.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// Two ends, the lines between them, and who keeps count.
pub struct Pair {
    ends: [End; 2],
    /// One for each direction of each path; the other end of a path without is out of reach.
    lines: BTreeMap<(Side, PathId), Line>,
    /// What is under way, in order of arrival.
    flights: BTreeMap<(Duration, u64), Flight>,
    ledger: Ledger,
    config: Config,
    start: Instant,
    elapsed: Duration,
    serial: u64,
    steps: u32,
    rng: ChaCha12Rng,
}

struct Flight {
    to: Side,
    spoiled: bool,
    parcel: Parcel,
}

impl Pair {
    /// Two new processes that know each other's keys and have said nothing, with one good line,
    /// that of the relayed path.
    pub fn new(config: &Config, seed: u64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let start = Instant::now();
        let ends = Side::BOTH.map(|side| End::new(side, config, start, &mut rng));
        let lines = Side::BOTH.map(|side| ((side, PathId::SERVER), Line::good()));
        Self {
            ends,
            lines: lines.into_iter().collect(),
            flights: BTreeMap::new(),
            ledger: Ledger::new(config),
            config: config.clone(),
            start,
            elapsed: Duration::ZERO,
            serial: 0,
            steps: 0,
            rng,
        }
    }

    /// An end, to do something with; [`Self::run`] afterwards.
    pub fn end(&mut self, side: Side) -> &mut End {
        &mut self.ends[side as usize]
    }

    /// An end begins a handshake, if none is under way.
    pub fn dial(&mut self, side: Side) {
        let now = self.local(side);
        self.ends[side as usize].dial(now, &mut self.rng);
    }

    /// What was asked of the ends, and what came of it.
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// The time since the beginning.
    pub fn elapsed(&self) -> Duration {
        self.elapsed
    }

    /// The line of a path, from one side, made if needed.
    pub fn line(&mut self, from: Side, path: PathId) -> &mut Line {
        self.lines.entry((from, path)).or_insert_with(Line::good)
    }

    /// The lines of all paths.
    pub fn lines(&mut self) -> impl Iterator<Item = &mut Line> {
        self.lines.values_mut()
    }

    /// The time that an end sees.
    pub fn local(&self, side: Side) -> Instant {
        self.start + self.elapsed + self.ends[side as usize].ahead
    }

    /// Sends a message, noted in the ledger if it is accepted.
    ///
    /// # Errors
    /// [`Violation`] when it should have been accepted, or should not.
    pub fn send(&mut self, side: Side, channel: Channel, len: usize) -> Result<(), Violation> {
        let now = self.local(side);
        let end = &mut self.ends[side as usize];
        let epoch = end.epoch();
        let payload = self.ledger.next_payload(side, epoch, channel, len);
        let answer = end.conversation().transport().send(channel, payload, now);
        end.refused |= answer == Err(SendError::Full);
        self.ledger.note_sent(side, epoch, channel, len, answer)
    }

    /// Gives a message up; `nth` counts those that the ledger takes for unsettled.
    ///
    /// # Errors
    /// [`Violation`] when the end has another opinion of what is settled.
    pub fn cancel(&mut self, side: Side, nth: u64) -> Result<(), Violation> {
        let now = self.local(side);
        let end = &mut self.ends[side as usize];
        let epoch = end.epoch();
        let Some((channel, sequence)) = self.ledger.pick(side, epoch, nth) else { return Ok(()) };
        let cancelled = end.conversation().transport().cancel(channel, sequence, now);
        self.ledger.note_cancelled(side, epoch, channel, sequence, cancelled)
    }

    /// A new process takes the place of an end: it has the key and nothing else, but for the
    /// other's boot value, which a server may have told it.
    pub fn restart(&mut self, side: Side, remote: Remote) {
        let boot = self.ends[side.other() as usize].boot();
        let end = &mut self.ends[side as usize];
        end.restart(&self.config, self.start + self.elapsed + end.ahead, &mut self.rng);
        if remote == Remote::Introduced {
            end.learn_boot(boot);
        }
        // Whether they reached the old process or the new one is the owner's to care for.
        self.ends[side.other() as usize].candidates_told = None;
        self.ledger.note_restart(side);
    }

    /// Lets time pass.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn run(&mut self, time: Duration) -> Result<(), Violation> {
        self.run_until(time, |_| false)
    }

    /// Lets time pass until something is true.
    ///
    /// # Errors
    /// The first [`Violation`].
    pub fn run_until(
        &mut self,
        time: Duration,
        done: impl Fn(&Self) -> bool,
    ) -> Result<(), Violation> {
        let end = self.elapsed + time;
        let mut spins = 0;
        loop {
            for side in Side::BOTH {
                self.drain(side)?;
            }
            if done(self) {
                return Ok(());
            }
            let Some((next, why)) = self.next().filter(|(next, _)| *next <= end) else { break };
            spins = if next <= self.elapsed { spins + 1 } else { 0 };
            self.steps += 1;
            if spins > SPINS_MAX || self.steps > STEPS_MAX {
                return Err(Violation(format!("spinning at {:?}: {why}", self.elapsed)));
            }
            self.elapsed = self.elapsed.max(next);
            self.deliver()?;
            for side in Side::BOTH {
                let now = self.local(side);
                self.ends[side as usize].handle_timeout(now);
            }
        }
        self.elapsed = end;
        Ok(())
    }

    /// Everything that the present process of one side said must have arrived, and it must know.
    ///
    /// # Errors
    /// [`Violation`] says what did not.
    pub fn check_settled(&self, side: Side) -> Result<(), Violation> {
        let (end, other) = (&self.ends[side as usize], &self.ends[side.other() as usize]);
        self.ledger.check_settled(side, end.epoch())?;
        if end.refused {
            return Err(Violation(format!("{side:?} does not say that there is room again")));
        }
        match end.candidates_told {
            Some(told) if other.candidates_heard != Some(told) => Err(Violation(format!(
                "{side:?} told candidates {told}, the other has {:?}",
                other.candidates_heard
            ))),
            _ => Ok(()),
        }
    }

    /// Whether both ends have nothing left to do and nothing is under way.
    pub fn is_idle(&self) -> bool {
        self.flights.is_empty() && self.ends.iter().all(End::is_idle)
    }

    /// Datagrams that both ends sent so far.
    pub fn datagrams(&self) -> u64 {
        self.ends.iter().map(|end| end.datagrams).sum()
    }

    /// Under which generation of keys each end seals, if it has a session.
    pub fn generations(&self) -> [Option<u32>; 2] {
        [0, 1].map(|at| self.ends[at].conversation.session().map(Session::generation))
    }

    /// What the ends look like, for people who look into a failure.
    pub fn describe(&self) -> String {
        let ends: Vec<String> = self.ends.iter().map(End::describe).collect();
        format!("at {:?}\n{}", self.elapsed, ends.join("\n"))
    }

    /// The next moment at which something happens, and what.
    fn next(&self) -> Option<(Duration, &'static str)> {
        let flight = self.flights.keys().next().map(|key| (key.0, "a datagram"));
        let timers = self.ends.iter().filter_map(|end| {
            let (at, why) = end.poll_timeout()?;
            Some((at.saturating_duration_since(self.start + end.ahead), why))
        });
        timers.chain(flight).min()
    }

    fn deliver(&mut self) -> Result<(), Violation> {
        while let Some(entry) = self.flights.first_entry().filter(|e| e.key().0 <= self.elapsed) {
            let Flight { to, spoiled, parcel } = entry.remove();
            let now = self.local(to);
            self.ends[to as usize].handle(parcel, spoiled, now, &mut self.rng)?;
            self.drain(to)?;
        }
        Ok(())
    }

    /// Takes out of an end what it has to give.
    fn drain(&mut self, side: Side) -> Result<(), Violation> {
        let now = self.local(side);
        let is_shared = self.shares_session();
        let end = &mut self.ends[side as usize];
        end.look_after_session(is_shared, now, &mut self.rng);
        end.collect(now, &mut self.ledger)?;
        let parcels = end.poll(now, &mut self.rng)?;
        for parcel in parcels {
            self.launch(side, parcel);
        }
        Ok(())
    }

    /// Whether each seals for the other. What is stuck then is the transport's to free: a new
    /// session would hide it.
    fn shares_session(&self) -> bool {
        let [a, b] = [0, 1].map(|at| self.ends[at].conversation.session());
        let (Some(a), Some(b)) = (a, b) else { return false };
        a.remote_address() == b.local() && b.remote_address() == a.local()
    }

    fn launch(&mut self, from: Side, parcel: Parcel) {
        let Some(line) = self.lines.get_mut(&(from, parcel.path)) else { return };
        for arrival in line.carry(parcel.bytes.len(), parcel.mark, self.elapsed, &mut self.rng) {
            let mut parcel = Parcel { mark: arrival.mark, ..parcel.clone() };
            if let Some(bit) = arrival.spoiled_bit {
                parcel.bytes[bit / 8] ^= 1 << (bit % 8);
            }
            self.serial += 1;
            let spoiled = arrival.spoiled_bit.is_some();
            let flight = Flight { to: from.other(), spoiled, parcel };
            self.flights.insert((arrival.at, self.serial), flight);
        }
    }
}
