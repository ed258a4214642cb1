//! One end: a process with a key, its conversation, and an application that reads as it likes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use p2sp_proto::conversation::{Conversation, PacketError};
use p2sp_proto::id::{Address, Boot, Epoch, PathId};
use p2sp_proto::io::Ecn;
use p2sp_proto::session::StaticKey;
use p2sp_proto::transport::{Config, ControlFrame, Event, PathKind, StreamSide};
use p2sp_proto::wire::frame::Candidates;
use p2sp_proto::wire::{DATAGRAM_LEN_BASE, DATAGRAM_LEN_MAX, RELAY_HEADER_LEN};
use rand::RngCore;

use super::Side;
use super::application::Application;
use super::flows::Flows;
use super::handshake::Handshakes;
use super::ledger::{Ledger, Violation};

/// A slow reader takes a message this often.
const READ_EVERY: Duration = Duration::from_millis(150);
/// An end that waits for an answer for this long asks for a new session.
const PATIENCE: Duration = Duration::from_secs(10);
/// Packets that one call may bring forth; the largest congestion windows hold fewer.
const BURST_MAX: usize = 20_000;
/// What a conversation may hold beyond its memory for one session: whole messages of the session
/// before (half of it), and early data (as much again).
const HELD_FACTOR: usize = 3;

/// A datagram and the path on which it travels.
#[derive(Clone, Debug)]
pub struct Parcel {
    pub(super) path: PathId,
    pub(super) bytes: Vec<u8>,
    pub(super) kind: Kind,
    pub(super) mark: Ecn,
}

/// What its sender made it for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Init,
    Reply,
    Data,
}

/// How the application reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reading {
    /// At once.
    Eager,
    /// A message at a time.
    Slow,
    /// Not at all.
    Never,
}

/// What a new process knows of the other end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remote {
    /// Its key.
    Key,
    /// Its boot value too: a server introduced the two.
    Introduced,
}

/// One of two.
pub struct End {
    pub(super) side: Side,
    pub(super) conversation: Conversation,
    pub(super) handshakes: Handshakes,
    /// What is done with streams.
    pub(super) application: Application,
    /// How far its clock is ahead of the world's.
    pub ahead: Duration,
    /// How it reads from now on.
    pub reading: Reading,
    /// Whether a message was refused and no word of room came since.
    pub refused: bool,
    /// When messages were handed over.
    pub arrivals: Vec<Instant>,
    /// How many datagrams it sent.
    pub datagrams: u64,
    /// Its direct paths, which it opens in every session.
    paths: BTreeMap<PathId, PathKind>,
    next_read: Option<Instant>,
    waiting_since: Option<Instant>,
    /// Generation of the candidates that it told the process at the other end last.
    pub(super) candidates_told: Option<u64>,
    /// The newest generation that it heard.
    pub(super) candidates_heard: Option<u64>,
    /// Grows over all processes of this side.
    generation: u64,
    memory_max: usize,
}

impl End {
    pub(super) fn new(side: Side, config: &Config, now: Instant, rng: &mut impl RngCore) -> Self {
        let [own, remote] =
            [side, side.other()].map(|of| StaticKey::from_bytes([of as u8 + 1; 32]));
        let handshakes = Handshakes::new(side, own, remote.public(), rng);
        let streams = match side {
            Side::A => StreamSide::Even,
            Side::B => StreamSide::Odd,
        };
        let config = Config { streams: Some(streams), ..config.clone() };
        Self {
            side,
            application: Application::new(side, handshakes.epoch),
            handshakes,
            ahead: Duration::ZERO,
            reading: Reading::Eager,
            refused: false,
            arrivals: Vec::new(),
            datagrams: 0,
            paths: BTreeMap::new(),
            next_read: None,
            waiting_since: None,
            candidates_told: None,
            candidates_heard: None,
            generation: 0,
            memory_max: config.receive_memory_max,
            conversation: Conversation::new(config, now),
        }
    }

    pub(super) fn restart(&mut self, config: &Config, now: Instant, rng: &mut impl RngCore) {
        let fresh = Self::new(self.side, config, now, rng);
        let (ahead, reading) = (self.ahead, self.reading);
        let (datagrams, generation) = (self.datagrams, self.generation);
        let counter = self.handshakes.early_counter();
        *self = Self { ahead, reading, datagrams, generation, ..fresh };
        self.handshakes.go_on_counting(counter);
    }

    /// The lineage of the messages it sends.
    pub fn epoch(&self) -> Epoch {
        self.handshakes.epoch
    }

    pub(super) fn boot(&self) -> Boot {
        self.handshakes.boot
    }

    pub(super) fn learn_boot(&mut self, boot: Boot) {
        self.handshakes.remote_boot = boot;
    }

    /// The messages and the session.
    pub fn conversation(&mut self) -> &mut Conversation {
        &mut self.conversation
    }

    /// Begins a handshake, if none is under way.
    pub fn dial(&mut self, now: Instant, rng: &mut impl RngCore) {
        self.handshakes.begin(&mut self.conversation, now, rng);
    }

    /// Opens a direct path, in this session and those to come.
    pub fn open(&mut self, path: PathId, now: Instant) {
        self.paths.insert(path, PathKind::Direct);
        self.open_now(path, PathKind::Direct, now);
    }

    /// Gives a path up for good; `told` says whether the other end hears of it.
    pub fn close(&mut self, path: PathId, told: bool, now: Instant) {
        if self.paths.remove(&path).is_some() {
            let transport = self.conversation.transport();
            transport.close_path(path, now);
            if told {
                transport.control(ControlFrame::PathRetire(path), None, now);
            }
        }
    }

    /// States another generation of candidates, which must arrive.
    pub fn tell_candidates(&mut self, now: Instant) {
        self.generation += 1;
        self.candidates_told = Some(self.generation);
        let frame = Candidates { generation: self.generation, list: Vec::new() };
        self.conversation.transport().control(ControlFrame::Candidates(frame), None, now);
    }

    /// Whether nothing of it waits for anything.
    pub fn is_idle(&self) -> bool {
        self.is_quiet() && self.application.is_idle()
    }

    /// Whether nothing of it waits for anything but the application.
    pub fn is_quiet(&self) -> bool {
        let transport = self.conversation.transport_ref();
        transport.is_idle() && !transport.has_message() && !self.handshakes.is_pending()
    }

    pub(super) fn describe(&self) -> String {
        format!(
            "{:?}: session {:?}, handshake {}, reading {:?}, {:?}",
            self.side,
            self.conversation.session().map(p2sp_proto::session::Session::local),
            self.handshakes.is_pending(),
            self.reading,
            self.conversation.transport_ref()
        )
    }

    pub(super) fn handle(
        &mut self,
        parcel: Parcel,
        spoiled: bool,
        now: Instant,
        rng: &mut impl RngCore,
    ) -> Result<(), Violation> {
        match parcel.kind {
            Kind::Init => {
                if self.handshakes.handle_init(&mut self.conversation, &parcel.bytes, now, rng) {
                    self.began_session(now);
                }
            }
            Kind::Reply => {
                if self.handshakes.handle_reply(&mut self.conversation, &parcel.bytes, now) {
                    self.began_session(now);
                    self.conversation.transport().probe(PathId::SERVER, now);
                }
            }
            Kind::Data => self.handle_packet(parcel, spoiled, now, rng)?,
        }
        Ok(())
    }

    fn handle_packet(
        &mut self,
        mut parcel: Parcel,
        spoiled: bool,
        now: Instant,
        rng: &mut impl RngCore,
    ) -> Result<(), Violation> {
        let before = self.session_address();
        match self.conversation.handle_packet(&mut parcel.bytes, rng, now) {
            Err(PacketError::Open(_)) => {}
            Err(PacketError::Frame(error)) => {
                return Err(Violation(format!("{:?} refuses a packet: {error:?}", self.side)));
            }
            Ok(_) if spoiled => {
                return Err(Violation(format!("{:?} takes a spoiled packet", self.side)));
            }
            Ok(arrived) => {
                let path = arrived.number.path();
                self.conversation.transport().note_mark(path, parcel.mark, now);
                self.waiting_since = None;
                if self.session_address() != before {
                    self.began_session(now);
                }
            }
        }
        Ok(())
    }

    /// Paths have to be opened in every session.
    fn began_session(&mut self, now: Instant) {
        self.waiting_since = None;
        self.open_now(PathId::SERVER, PathKind::Relay, now);
        for (path, kind) in self.paths.clone() {
            self.open_now(path, kind, now);
        }
    }

    fn open_now(&mut self, path: PathId, kind: PathKind, now: Instant) {
        let Some(session) = self.conversation.session() else { return };
        let payload_max = DATAGRAM_LEN_BASE - header(kind) - session.overhead();
        self.conversation.transport().open_path(path, kind, payload_max, now);
    }

    fn session_address(&self) -> Option<Address> {
        self.conversation.session().map(p2sp_proto::session::Session::local)
    }

    /// Takes messages and events out.
    pub(super) fn collect(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        flows: &mut Flows,
    ) -> Result<(), Violation> {
        self.note_events(now, ledger, flows)?;
        loop {
            self.read(now, ledger, flows)?;
            self.application.write(self.conversation.transport(), flows, now)?;
            if !self.note_events(now, ledger, flows)? {
                break;
            }
        }
        let held = self.conversation.transport_ref().held();
        if held > HELD_FACTOR * self.memory_max {
            return Err(Violation(format!("{:?} holds {held} bytes", self.side)));
        }
        Ok(())
    }

    /// Takes all events; answers whether there were any.
    fn note_events(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        flows: &mut Flows,
    ) -> Result<bool, Violation> {
        let mut any = false;
        while let Some(event) = self.conversation.poll_event() {
            any = true;
            self.note(event, now, ledger, flows)?;
        }
        Ok(any)
    }

    fn note(
        &mut self,
        event: Event,
        now: Instant,
        ledger: &mut Ledger,
        flows: &mut Flows,
    ) -> Result<(), Violation> {
        match event {
            Event::Stream(key, event) => self.application.note(key, event, flows)?,
            Event::Datagram(bytes) => flows.note_datagram(self.side, &bytes)?,
            Event::Delivered { channel, below, .. } => {
                ledger.note_receipt(self.side, self.epoch(), channel, below)?;
            }
            Event::Writable => self.refused = false,
            Event::PathFailed(path) => self.close(path, true, now),
            Event::Control { frame: ControlFrame::PathRetire(path), .. } => {
                self.close(path, false, now);
            }
            Event::Control { frame: ControlFrame::Candidates(candidates), .. } => {
                self.candidates_heard = self.candidates_heard.max(Some(candidates.generation));
            }
            Event::Readable
            | Event::PathSuspect(_)
            | Event::PathRecovered(_)
            | Event::Control { .. } => {}
        }
        Ok(())
    }

    fn read(
        &mut self,
        now: Instant,
        ledger: &mut Ledger,
        flows: &mut Flows,
    ) -> Result<(), Violation> {
        let may_read = |next: Option<Instant>, reading: Reading| match reading {
            Reading::Eager => true,
            Reading::Slow => next.is_none_or(|next| next <= now),
            Reading::Never => false,
        };
        while may_read(self.next_read, self.reading) {
            let transport = self.conversation.transport();
            let epoch = transport.remote_epoch();
            let Some(received) = transport.poll_message(now) else { break };
            ledger.note_delivered(self.side.other(), epoch, &received)?;
            self.arrivals.push(now);
            self.next_read = Some(now + READ_EVERY);
        }
        if may_read(self.next_read, self.reading)
            && self.application.read(self.reading, self.conversation.transport(), flows, now)?
        {
            self.next_read = Some(now + READ_EVERY);
        }
        Ok(())
    }

    /// What is to be sent now.
    pub(super) fn poll(
        &mut self,
        now: Instant,
        rng: &mut impl RngCore,
    ) -> Result<Vec<Parcel>, Violation> {
        let mut parcels = self.handshakes.poll(now);
        while let Some((path, bytes)) = self.conversation.poll_datagram(rng, now) {
            let kind = self.paths.get(&path).copied();
            if bytes.len() + kind.map_or(0, header) > DATAGRAM_LEN_MAX {
                return Err(Violation(format!("a datagram of {} bytes", bytes.len())));
            }
            let mark = self.conversation.transport_ref().mark(path);
            parcels.push(Parcel { path, bytes, kind: Kind::Data, mark });
            if parcels.len() > BURST_MAX {
                return Err(Violation(format!("{:?} does not stop sending", self.side)));
            }
        }
        self.datagrams += parcels.len() as u64;
        Ok(parcels)
    }

    /// A session is wanted where there is something to say; one that stays silent is replaced.
    pub(super) fn look_after_session(
        &mut self,
        is_shared: bool,
        now: Instant,
        rng: &mut impl RngCore,
    ) {
        let transport = self.conversation.transport_ref();
        // Who has open streams asks for signs of life.
        if is_shared || transport.is_idle() && !transport.has_open_streams() {
            self.waiting_since = None;
            return;
        }
        let since = *self.waiting_since.get_or_insert(now);
        if self.conversation.session().is_none() || now >= since + PATIENCE {
            self.waiting_since = Some(now);
            self.dial(now, rng);
        }
    }

    pub(super) fn handle_timeout(&mut self, now: Instant) {
        if self.conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.conversation.handle_timeout(now);
        }
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let readable =
            self.conversation.transport_ref().has_message() || self.application.is_readable();
        let read = self.next_read.filter(|_| self.reading == Reading::Slow && readable);
        let patience = self.waiting_since.map(|since| (since + PATIENCE, "patience"));
        self.conversation
            .poll_timeout()
            .into_iter()
            .chain(self.handshakes.poll_timeout())
            .chain(read.map(|at| (at, "reading")))
            .chain(patience)
            .min()
    }
}

/// What goes around a datagram of such a path.
fn header(kind: PathKind) -> usize {
    if kind == PathKind::Relay { RELAY_HEADER_LEN } else { 0 }
}
