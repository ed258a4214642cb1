//! Messages that arrive, byte streams and datagrams, over several paths at once (SPEC sections 7
//! and 16).
//!
//! * [`Transport::send`] queues a message on a channel; it stays queued until the other end's
//!   RECEIPT covers it, over any number of sessions.
//! * [`Transport::poll_packet`] fills packets: acknowledgements and control frames first, then
//!   lost parts of messages, then new ones in turn over the channels. Every path has its own
//!   packet numbers, round-trip time, congestion window and pacing.
//! * [`Transport::handle_packet`] takes a packet apart. Loss belongs to packets, retransmission
//!   to parts of messages: what got there in another packet is not sent again.
//! * [`Transport::poll_message`] hands over whole messages in the order of their channel, each
//!   once; that is what a RECEIPT certifies.
//!
//! After every `handle_*` and every application call, poll packets and events until `None`.

mod ack;
mod api;
mod congestion;
mod control;
mod early;
mod incoming;
mod loss;
mod marking;
mod mtu;
mod outgoing;
mod pacing;
mod packet;
mod path;
mod paths;
mod ranges;
mod receive;
mod rtt;
mod send;
mod stream;
mod streams;
mod window;

#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::id::{Channel, Epoch, PacketNumber, PathId, Sequence};
use crate::time::earliest;
use crate::wire::codec::Reader;
use crate::wire::frame::Frame;
pub use api::{Config, ControlFrame, Event, FrameError, PathKind, PathStats, Received, SendError};
use control::ControlQueue;
use early::{Early, EarlySession};
use incoming::Arrival;
use packet::Carried;
use path::{Path, Silence};
use paths::Closed;
use receive::{Inbox, Part};
use send::Outbox;
use stream::Streams;
pub use stream::{
    DATAGRAMS_MAX, DatagramError, OpenStreamError, Opener, Read, STREAMS_OPEN_MAX, StreamError,
    StreamEvent, StreamKey, StreamSide, stream_code,
};
use streams::Turn;

/// Paths with state at one time. A session numbers at most 256; few are in use at once.
const PATHS_MAX: usize = 16;
/// Guess of a round trip where no path was measured, for growing windows.
const RTT_GUESS: Duration = Duration::from_millis(100);

/// Everything one end keeps about the messages to and from one other end. Outlives sessions.
#[derive(Debug)]
pub struct Transport {
    config: Config,
    outbox: Outbox,
    inbox: Inbox,
    streams: Option<Box<Streams>>,
    turn: Turn,
    paths: Vec<Path>,
    /// One bit per path id that ended in this session: its packet numbers are used up.
    ended: Option<Box<[u64; 4]>>,
    preferred: Option<PathId>,
    /// Where the last part of a message came: receipts go back the same way, since the other
    /// end may know better than we which path works.
    message_path: Option<PathId>,
    control: ControlQueue,
    events: VecDeque<Event>,
    early: Option<Box<Early>>,
    /// Of the path that was closed last.
    closed: Option<Box<Closed>>,
}

impl Transport {
    /// Nothing queued, no path, no session.
    pub fn new(config: Config, _now: Instant) -> Self {
        Self {
            inbox: Inbox::new(&config),
            streams: config.streams.map(|side| Box::new(Streams::new(side))),
            turn: Turn::Messages,
            config,
            outbox: Outbox::default(),
            paths: Vec::new(),
            ended: None,
            preferred: None,
            message_path: None,
            control: ControlQueue::default(),
            events: VecDeque::new(),
            early: None,
            closed: None,
        }
    }

    /// Queues a message; the answer is its place in the channel.
    ///
    /// # Errors
    /// [`SendError::Full`] is followed by [`Event::Writable`] when there is room.
    pub fn send(
        &mut self,
        channel: Channel,
        message: Bytes,
        _now: Instant,
    ) -> Result<Sequence, SendError> {
        self.outbox.push(channel, message, &self.config)
    }

    /// Whether [`Self::send`] would take a message of this length.
    pub fn has_room(&self, len: usize) -> bool {
        len <= self.config.message_len_max && self.outbox.has_room(len, &self.config)
    }

    /// Gives up a message whose receipt has not come; the gap is closed by SKIP. False when it
    /// is already settled. The message may still be delivered if it was on its way.
    pub fn cancel(&mut self, channel: Channel, sequence: Sequence, _now: Instant) -> bool {
        let cancelled = self.outbox.cancel(channel, sequence);
        self.note_writable();
        cancelled
    }

    /// The next complete message in order, in turn over the channels; taking it is what a
    /// receipt certifies.
    pub fn poll_message(&mut self, now: Instant) -> Option<Received> {
        self.inbox.take(now)
    }

    /// The epoch that messages from the other end are numbered in; zero before the first session.
    pub fn remote_epoch(&self) -> Epoch {
        self.inbox.epoch().unwrap_or(Epoch(0))
    }

    /// True when `poll_message` would answer.
    pub fn has_message(&self) -> bool {
        self.inbox.is_readable()
    }

    /// Bytes of messages, whole or in part, that wait for `poll_message`; each counts for 32 more.
    pub fn held(&self) -> usize {
        self.inbox.held()
    }

    /// New keys: number spaces start anew, what was in flight is queued again, SKIP states where
    /// each used channel stands. All paths are closed and have to be opened again.
    /// `remote_epoch` selects the receive marks (last 8 epochs are kept).
    pub fn start_session(&mut self, remote_epoch: Epoch, now: Instant) {
        for path in &mut self.paths {
            for carried in path.take_all() {
                match (carried, &mut self.streams) {
                    (Carried::Control(frame), _) => self.control.keep(&frame),
                    (Carried::Stream(carried), Some(streams)) => streams.on_lost(&carried),
                    _ => {}
                }
            }
        }
        self.paths = Vec::new();
        (self.ended, self.closed) = (None, None);
        (self.preferred, self.message_path) = (None, None);
        self.control.restart();
        self.outbox.restart(&self.config);
        self.inbox.restart(remote_epoch, &self.config, now);
        if let Some(streams) = &mut self.streams {
            streams.start_session(remote_epoch);
        }
        if let Some(early) = &mut self.early {
            early.session = EarlySession::Started;
        }
    }

    /// An authenticated packet of the running session. Frames not owned here come out of
    /// `poll_event` as [`Event::Control`].
    ///
    /// # Errors
    /// [`FrameError`] when the other end broke the rules; close the session.
    pub fn handle_packet(
        &mut self,
        number: PacketNumber,
        frames: &[u8],
        now: Instant,
    ) -> Result<(), FrameError> {
        if frames.is_empty() {
            return Err(FrameError(400, "packet without frames"));
        }
        let index = self.ensure_path(number.path(), now);
        if let Some(index) = index
            && self.paths[index].received.contains(number.count())
        {
            self.paths[index].received.hurry(now);
            return Ok(());
        }
        let rtt = self.data_path().and_then(|index| self.paths[index].rtt.measured());
        self.inbox.set_rtt(rtt.unwrap_or(RTT_GUESS));
        let was_readable = self.inbox.is_readable();
        let mut arrival = Arrival { path: number.path(), eliciting: false, part: Part::Stored };
        let mut reader = Reader::new(frames);
        while !reader.is_empty() {
            let frame = Frame::decode(&mut reader).map_err(|_| MALFORMED)?;
            self.handle_frame(&frame, &mut arrival, now)?;
        }
        self.note_readable(was_readable);
        self.note_writable();
        self.note_arrival(number, &arrival, now);
        Ok(())
    }

    /// Appends the frames of the next packet to `out` and names its number, or `None` when
    /// nothing may be sent now. Call until `None`.
    pub fn poll_packet(&mut self, out: &mut Vec<u8>, now: Instant) -> Option<PacketNumber> {
        if self.is_quiet(now) {
            // As after most packets: nobody has to be asked in turn.
            self.paths.iter_mut().for_each(|path| path.paced_until = None);
            return None;
        }
        let data_path = self.data_path();
        if let Some(index) = data_path
            && let Some(number) = self.fill(index, data_path, out, now)
        {
            return Some(number);
        }
        (0..self.paths.len())
            .filter(|index| Some(*index) != data_path)
            .find_map(|index| self.fill(index, data_path, out, now))
    }

    /// Sends a control frame. On `path` if given, else on the preferred one. Lost reliable frames
    /// are sent again and may then arrive twice.
    pub fn control(&mut self, frame: ControlFrame, path: Option<PathId>, now: Instant) {
        if let Some(path) = path
            && self.ensure_path(path, now).is_none()
        {
            return;
        }
        self.control.push(frame, path);
    }

    /// Ack-eliciting CONFIRM on `path` soon (probing a standby path, confirming a session).
    pub fn probe(&mut self, path: PathId, now: Instant) {
        if let Some(index) = self.ensure_path(path, now) {
            self.paths[index].confirm_due = true;
        }
    }

    /// Looks after losses and silent paths.
    pub fn handle_timeout(&mut self, now: Instant) {
        for index in 0..self.paths.len() {
            let path = &mut self.paths[index];
            if path.is_loss_due(now) {
                let lost = path.detect_lost(now);
                self.requeue(&lost, now);
            } else if path.deadline().is_some_and(|(at, _)| at <= now) {
                self.on_probe_timeout(index, now);
            }
        }
    }

    /// The earliest deadline and its name.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let data_path = self.data_path();
        let paths = self.paths.iter().flat_map(|path| {
            let ack = path.received.due().map(|at| (at, "acknowledgement"));
            let pacing = path.paced_until.map(|at| (at, "pacing"));
            [path.deadline(), ack.filter(|_| data_path.is_some()), pacing]
        });
        // Where the window or the pacer holds it back, their ends wake us.
        let free = self.receipt_path().is_some_and(|index| self.paths[index].is_free());
        let receipt = self.inbox.due().filter(|_| free).map(|at| (at, "receipt"));
        paths.fold(receipt, earliest)
    }

    /// What happened, in order.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front().or_else(|| self.poll_stream_event())
    }

    /// Nothing is said for a while: keeps no more than it must.
    pub fn rest(&mut self) {
        self.outbox.rest();
        self.inbox.rest();
        self.paths.iter_mut().for_each(Path::rest);
        if self.events.is_empty() {
            self.events = VecDeque::new();
        }
    }

    /// Nothing unsent, unacknowledged or unreceipted.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_idle()
            && self.streams.as_ref().is_none_or(|streams| streams.is_idle())
            && self.control.is_empty()
            && self.early.is_none()
            && self.inbox.due().is_none()
            && !self.inbox.has_window()
            && self.paths.iter().all(|path| !path.has_in_flight() && !path.confirm_due)
    }

    /// Whether a receipt waits to be sent, or may be lost on its way.
    pub fn owes_receipts(&self) -> bool {
        let newest = |carried: &Carried| self.inbox.is_newest_receipt(carried);
        self.inbox.due().is_some() || self.paths.iter().any(|path| path.in_flight().any(newest))
    }

    /// Largest probe timeout over the open paths.
    pub fn probe_timeout(&self) -> Duration {
        let open = self.paths.iter().filter(|path| path.is_open());
        open.map(Path::probe_timeout).max().unwrap_or(3 * RTT_GUESS)
    }
}

impl Transport {
    /// Where data goes: the preferred path, or the best other one while that is suspect.
    fn data_path(&self) -> Option<usize> {
        let preferred = self.preferred.and_then(|path| self.index(path));
        match preferred {
            Some(index) if !self.paths[index].suspect => Some(index),
            Some(index) => {
                let other = self.best_path(Some(index));
                other.filter(|other| !self.paths[*other].suspect).or(Some(index))
            }
            None => self.best_path(None),
        }
    }

    /// Where receipts go: back where messages came from, else with the data.
    fn receipt_path(&self) -> Option<usize> {
        let back = self.message_path.and_then(|path| self.index(path));
        let usable =
            back.filter(|index| self.paths[*index].is_open() && !self.paths[*index].suspect);
        usable.or_else(|| self.data_path())
    }

    /// The path for what the data path may not deliver.
    fn standby(&self) -> Option<usize> {
        self.data_path().and_then(|index| self.best_path(Some(index)))
    }

    /// The best open path other than `but`: one that answers before one that does not, then
    /// direct before relayed.
    fn best_path(&self, but: Option<usize>) -> Option<usize> {
        let open = (0..self.paths.len()).filter(|index| self.paths[*index].is_open());
        open.filter(|index| Some(*index) != but).min_by_key(|index| {
            let path = &self.paths[*index];
            (
                path.suspect,
                !path.is_proven(),
                path.kind != Some(PathKind::Direct),
                path.probe_timeout(),
            )
        })
    }

    fn on_probe_timeout(&mut self, index: usize, now: Instant) {
        let path = &mut self.paths[index];
        let (id, silence) = (path.id, path.on_probe_timeout());
        let path = &self.paths[index];
        let oldest = path.in_flight().find(|carried| self.is_unacked(carried)).cloned();
        let (again, event): (Vec<Carried>, _) = match silence {
            Silence::Short => (oldest.into_iter().collect(), None),
            Silence::Suspect => (path.in_flight().cloned().collect(), Some(Event::PathSuspect(id))),
            Silence::Fruitless => {
                (path.in_flight().cloned().collect(), Some(Event::PathFailed(id)))
            }
        };
        if event.is_some() && self.data_path().is_some_and(|other| other != index) {
            self.paths[index].relieve();
        }
        if self.paths[index].is_in_question() && self.data_path() == Some(index) {
            self.copy_in_flight(index);
        }
        self.requeue(&again, now);
        self.events.extend(event);
    }

    /// A path works again, or is new: what left on paths that stay silent need not wait for them.
    fn rescue(&mut self, now: Instant) {
        let silent = self.paths.iter().filter(|path| path.suspect);
        let stranded: Vec<Carried> = silent.flat_map(Path::in_flight).cloned().collect();
        self.requeue(&stranded, now);
    }

    /// What these packets carried is to be sent again where it still matters.
    fn requeue(&mut self, lost: &[Carried], now: Instant) {
        for carried in lost {
            self.outbox.on_lost(carried);
            self.inbox.on_lost(carried, now);
            match (carried, &mut self.streams) {
                (Carried::Control(frame), _) => self.control.on_lost(frame),
                (Carried::Stream(carried), Some(streams)) => streams.on_lost(carried),
                _ => {}
            }
        }
    }

    fn index(&self, path: PathId) -> Option<usize> {
        self.paths.iter().position(|other| other.id == path)
    }

    fn has_ended(&self, path: PathId) -> bool {
        let word = self.ended.as_ref().map_or(0, |ended| ended[usize::from(path.0 / 64)]);
        word >> (path.0 % 64) & 1 == 1
    }

    /// The state of a path, made if needed; `None` for one that ended, or when there are too
    /// many.
    fn ensure_path(&mut self, path: PathId, now: Instant) -> Option<usize> {
        if let Some(index) = self.index(path) {
            return Some(index);
        }
        if self.has_ended(path) {
            return None;
        }
        if self.paths.len() >= PATHS_MAX {
            // The other end must not be able to use up the places.
            let unused = self.paths.iter().position(Path::is_unused)?;
            self.paths.remove(unused);
        }
        self.paths.reserve_exact(1);
        self.paths.push(Path::new(path, now));
        Some(self.paths.len() - 1)
    }
}

const MALFORMED: FrameError = FrameError(400, "malformed frame");
