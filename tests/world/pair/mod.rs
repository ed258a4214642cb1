//! Two conversations with real keys, and nothing else: no server, no search for paths.
//!
//! What two peers say to each other lives here in its smallest world: two [`end`]s that seal and
//! open packets of sessions made by true handshakes, [lines](mod@line) between them that lose, double,
//! delay and spoil what they carry, and a [`ledger`] of messages and one of [`flows`] that are told
//! what was asked of the ends and judge what comes out. The scenario `transport` plays with it.

mod application;
pub mod end;
pub mod flows;
mod handshake;
pub mod ledger;
pub mod line;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use p2sp_proto::id::{Channel, PathId, Sequence};
use p2sp_proto::session::Session;
use p2sp_proto::transport::{Config, DatagramError, STREAMS_OPEN_MAX, SendError};
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use end::{End, Parcel, Remote};
use flows::Flows;
use ledger::{Ledger, Violation};
use line::Line;

/// Events in one moment; more is a pair of ends that never comes to rest.
const SPINS_MAX: u32 = 500;
/// Events of one run; no scenario needs a tenth of it.
const STEPS_MAX: u32 = 4_000_000;

/// Streams that an end may open where none is open: the other end tells of more when an eighth
/// of those that it allows is over.
pub const STREAMS_ALWAYS: usize = STREAMS_OPEN_MAX as usize * 7 / 8;
/// Every path carries a datagram of so many bytes.
pub const DATAGRAM_ALWAYS: usize = 1000;

/// What an application does with one of its streams, counted over those that are not over.
#[derive(Clone, Copy, Debug)]
pub enum StreamAct {
    /// A new one, with so many bytes to write at first.
    Open { len: u64, ends: bool },
    /// More bytes.
    Write { nth: u64, len: u64 },
    /// Those that it wants to write are the last.
    Finish { nth: u64 },
    /// Its writer gives it up.
    Reset { nth: u64 },
    /// Its reader wants no more.
    Stop { nth: u64 },
    /// The other end seems to be gone.
    GiveUp,
    /// All, those to come as well, come to their ends.
    FinishAll,
}

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
    flows: Flows,
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
            flows: Flows::new([0, 1].map(|at: usize| ends[at].epoch())),
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
    pub fn tally(&self) -> String {
        format!("{}; {}", self.ledger.tally(), self.flows.tally())
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
        let epoch = self.ends[side as usize].epoch();
        match self.ledger.pick(side, epoch, nth) {
            Some((channel, sequence)) => self.cancel_message(side, channel, sequence),
            None => Ok(()),
        }
    }

    /// Gives the oldest message of a channel up.
    ///
    /// # Errors
    /// [`Violation`] as above.
    pub fn cancel_oldest(&mut self, side: Side, channel: Channel) -> Result<(), Violation> {
        let epoch = self.ends[side as usize].epoch();
        match self.ledger.oldest(side, epoch, channel) {
            Some(sequence) => self.cancel_message(side, channel, sequence),
            None => Ok(()),
        }
    }

    fn cancel_message(
        &mut self,
        side: Side,
        channel: Channel,
        sequence: Sequence,
    ) -> Result<(), Violation> {
        let now = self.local(side);
        let end = &mut self.ends[side as usize];
        let cancelled = end.conversation().transport().cancel(channel, sequence, now);
        self.ledger.note_cancelled(side, end.epoch(), channel, sequence, cancelled)
    }

    /// Does something with the streams of an end.
    ///
    /// # Errors
    /// [`Violation`] when the end does not do what it should.
    pub fn stream(&mut self, side: Side, act: StreamAct) -> Result<(), Violation> {
        let now = self.local(side);
        let End { application, conversation, .. } = &mut self.ends[side as usize];
        let (transport, flows) = (conversation.transport(), &mut self.flows);
        match act {
            StreamAct::Open { len, ends } => application.open(len, ends, transport, flows, now)?,
            StreamAct::Write { nth, len } => application.write_more(nth, len),
            StreamAct::Finish { nth } => application.finish(nth),
            StreamAct::Reset { nth } => {
                if let Some(key) = application.pick(nth) {
                    let code = flows.note_reset(application.place(key))?;
                    transport.reset_stream(key, code, now);
                }
            }
            StreamAct::Stop { nth } => {
                if let Some(key) = application.pick(nth) {
                    let code = flows.note_stop(application.place(key))?;
                    transport.stop_stream(key, code, now);
                }
            }
            StreamAct::GiveUp => {
                flows.note_surrender(side);
                transport.lose_streams(now);
            }
            StreamAct::FinishAll => application.close(),
        }
        Ok(())
    }

    /// How many streams a living process opened.
    pub fn opened(&self, side: Side) -> usize {
        self.flows.opened(side)
    }

    /// Sends a datagram, noted if it is accepted.
    ///
    /// # Errors
    /// [`Violation`] when it should have been accepted.
    pub fn send_datagram(&mut self, side: Side, len: usize) -> Result<(), Violation> {
        let now = self.local(side);
        let bytes = self.flows.next_datagram(len.max(flows::NAME_LEN as usize));
        let len = bytes.len();
        match self.ends[side as usize].conversation().transport().send_datagram(bytes, now) {
            Ok(()) => self.flows.note_datagram_sent(side, len),
            Err(DatagramError::TooLong(max)) if len > max && max >= DATAGRAM_ALWAYS => {}
            Err(error) => {
                return Err(Violation(format!("{side:?}, a datagram of {len} bytes: {error}")));
            }
        }
        Ok(())
    }

    /// Whether the datagram that was accepted last has come out.
    pub fn datagram_arrived(&self) -> bool {
        self.flows.has_arrived()
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
        self.flows.note_restart(side, end.epoch());
        self.ledger.note_restart(side);
        // Whether they reached the old process or the new one is the owner's to care for.
        self.ends[side.other() as usize].candidates_told = None;
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
        self.flows.check_settled(side)?;
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

    /// Whether nothing is under way or waits for more than an application: what is open may stay so.
    pub fn is_quiet(&self) -> bool {
        let any_open = self.ends.iter().any(|end| !end.application.is_idle());
        let quiet = self.flights.is_empty() && self.ends.iter().all(End::is_quiet);
        quiet && (self.shares_session() || !any_open)
    }

    /// What was written on open streams must have been read, and both ends must know of the same
    /// ones.
    ///
    /// # Errors
    /// [`Violation`] names the first of which that is not so.
    pub fn check_streams(&self) -> Result<(), Violation> {
        Side::BOTH.iter().try_for_each(|side| self.flows.check_open(*side))
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
        end.collect(now, &mut self.ledger, &mut self.flows)?;
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
