//! Byte streams (SPEC section 16): which there are, who opened them, and whose turn it is.
//!
//! Streams outlive sessions as messages do, for as long as both ends remember them: another epoch
//! of the other end begins a new *lineage*, in which stream numbers count from 0 again. A
//! [`StreamKey`] names a stream in all lineages. What of our own streams was never told to the
//! other end goes over into the next lineage; all others are lost with theirs.

mod api;
mod datagrams;
mod packets;
mod receive;
mod send;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound;
use std::time::{Duration, Instant};

pub use self::api::{
    DatagramError, OpenStreamError, Opener, Read, StreamError, StreamEvent, StreamKey, StreamSide,
    stream_code,
};
pub use self::datagrams::DATAGRAMS_MAX;
use self::datagrams::{Datagrams, HEADER_LEN};
use self::receive::ReceiveHalf;
use self::send::SendHalf;
use super::FrameError;
use super::packet::{self, Packet};
use crate::id::{Epoch, StreamId};
use crate::wire::frame::{Frame, StreamFrame};

/// Streams that each end may have open at a time: more than a browser's tunnel needs.
pub const STREAMS_OPEN_MAX: u64 = 256;
/// What may be sent of a stream before the first STREAM_WINDOW, and always held of one.
const WINDOW_FLOOR: u64 = 64 << 10;
/// What the windows of all streams together may have beyond it...
const WINDOW_GROWTH: u64 = 16 << 20;
/// ...and that of one: four that are not read any more leave nothing, but the floor stays.
const WINDOW_GROWTH_EACH: u64 = 4 << 20;
/// Bytes of all streams that are written and not acknowledged, beyond a floor for each...
const SEND_SHARED_MAX: usize = 16 << 20;
/// ...and of one stream.
const SEND_EACH_MAX: usize = 4 << 20;
/// Room that makes a writer who waits write again.
const WRITABLE_MIN: usize = WINDOW_FLOOR as usize / 2;
/// A new number of streams is told when so many may be opened more.
const MAX_STEP: u64 = STREAMS_OPEN_MAX / 8;
/// Streams beyond which nothing of an old lineage is kept.
const KEPT_MAX: usize = STREAMS_OPEN_MAX as usize;

/// What a packet carried of streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    Data { key: StreamKey, start: u64, len: u16, fin: bool },
    Reset(StreamKey),
    Stop(StreamKey),
    Window(StreamKey, u64),
    Max(u64),
}

/// All streams of a conversation, and its datagrams.
#[derive(Debug)]
pub(super) struct Streams {
    side: StreamSide,
    epoch: Option<Epoch>,
    table: BTreeMap<StreamKey, Stream>,
    ours: Numbers,
    theirs: Numbers,
    /// Streams of the other end in this lineage that are over.
    theirs_closed: u64,
    /// The stream that was written last.
    cursor: Option<StreamKey>,
    /// Streams that may have frames to send.
    busy: BTreeSet<StreamKey>,
    /// Streams whose limit is to be told.
    windows_due: BTreeSet<StreamKey>,
    max_due: bool,
    /// Writers that wait for room.
    waiting: BTreeSet<StreamKey>,
    /// What windows may still grow by.
    growth: u64,
    /// Bytes written and not acknowledged.
    held: usize,
    events: VecDeque<(StreamKey, StreamEvent)>,
    pub(super) datagrams: Datagrams,
}

/// The streams that one end opened.
#[derive(Clone, Copy, Debug, Default)]
struct Numbers {
    /// Index of the one that is number 0 in this lineage.
    base: u64,
    /// Index of the next one.
    next: u64,
    /// How many there may be in this lineage.
    max: u64,
}

impl Numbers {
    fn is_known(&self, index: u64) -> bool {
        (self.base..self.next).contains(&index)
    }

    /// Begins a lineage in which the stream of this index is number 0.
    fn restart(&mut self, base: u64) {
        (self.base, self.max) = (base, STREAMS_OPEN_MAX);
    }
}

#[derive(Debug)]
struct Stream {
    send: SendHalf,
    receive: ReceiveHalf,
}

impl Stream {
    /// Whether the owner has use for it.
    fn is_alive(&self) -> bool {
        self.send.is_alive() || self.receive.is_alive()
    }

    fn is_over(&self) -> bool {
        self.send.is_settled() && self.receive.is_settled()
    }
}

// ---- the owner's side

impl Streams {
    pub(super) fn new(side: StreamSide) -> Self {
        let fresh = Numbers { max: STREAMS_OPEN_MAX, ..Numbers::default() };
        Self {
            side,
            epoch: None,
            table: BTreeMap::new(),
            ours: fresh,
            theirs: fresh,
            theirs_closed: 0,
            cursor: None,
            busy: BTreeSet::new(),
            windows_due: BTreeSet::new(),
            max_due: false,
            waiting: BTreeSet::new(),
            growth: WINDOW_GROWTH,
            held: 0,
            events: VecDeque::new(),
            datagrams: Datagrams::default(),
        }
    }

    pub(super) fn open(&mut self) -> Result<StreamKey, OpenStreamError> {
        let key = StreamKey { opener: Opener::Here, index: self.ours.next };
        let open = self.table.range(StreamKey { index: 0, ..key }..key).count() as u64;
        if open >= STREAMS_OPEN_MAX || self.ours.next - self.ours.base >= self.ours.max {
            return Err(OpenStreamError::TooMany);
        }
        self.ours.next += 1;
        self.insert(key, SendHalf::opening());
        self.busy.insert(key);
        Ok(key)
    }

    /// Takes as many bytes as there is room for.
    pub(super) fn write(&mut self, key: StreamKey, bytes: &[u8]) -> Result<usize, StreamError> {
        let stream = self.table.get_mut(&key).ok_or(StreamError::Closed)?;
        if !stream.send.is_open() {
            return Err(StreamError::Closed);
        }
        let taken = bytes.len().min(room(&stream.send, self.held));
        stream.send.write(&bytes[..taken]);
        self.held += taken;
        self.busy.insert(key);
        if taken < bytes.len() {
            self.waiting.insert(key);
        }
        Ok(taken)
    }

    pub(super) fn finish(&mut self, key: StreamKey) {
        self.change_send(key, SendHalf::finish);
    }

    pub(super) fn reset(&mut self, key: StreamKey, code: u64) {
        self.change_send(key, |send| send.reset(code));
    }

    pub(super) fn stop(&mut self, key: StreamKey, code: u64) {
        let Some(stream) = self.table.get_mut(&key) else { return };
        if stream.receive.stop(code) {
            self.growth += stream.receive.take_growth();
            self.busy.insert(key);
        }
        self.settle(Some(key));
    }

    pub(super) fn read(
        &mut self,
        key: StreamKey,
        max: usize,
        rtt: Duration,
        now: Instant,
    ) -> Result<Read, StreamError> {
        let stream = self.table.get_mut(&key).ok_or(StreamError::Closed)?;
        let read = stream.receive.read(max);
        if stream.receive.refresh(&mut self.growth, rtt, now) {
            self.windows_due.insert(key);
        }
        self.settle(Some(key));
        read
    }

    /// The other end is gone: streams that wait for it end here, and there too if it is not.
    pub(super) fn lose_all(&mut self) {
        let keys: Vec<StreamKey> = self.table.keys().copied().collect();
        keys.into_iter().for_each(|key| self.lose(key));
    }

    pub(super) fn poll_event(&mut self) -> Option<(StreamKey, StreamEvent)> {
        self.events.pop_front()
    }

    /// Whether the owner waits for anything of the other end, or the other way round.
    pub(super) fn has_open(&self) -> bool {
        self.table.values().any(Stream::is_alive)
    }

    /// Whether nothing can be sent now. What waits for a window waits for a reader, who may take
    /// his time.
    pub(super) fn is_idle(&self) -> bool {
        !self.table.values().any(|stream| stream.send.has_work())
    }

    /// Whether finished streams have not got there.
    pub(super) fn owes_ends(&self) -> bool {
        self.table.values().any(|stream| stream.send.is_ending())
    }

    pub(super) fn datagram_len_max(payload_max: usize) -> usize {
        payload_max.saturating_sub(HEADER_LEN)
    }
}

// ---- inside

impl Streams {
    fn insert(&mut self, key: StreamKey, send: SendHalf) {
        self.table.insert(key, Stream { send, receive: ReceiveHalf::new() });
    }

    /// The stream of this number; opens those of the other end that were not heard of yet.
    fn locate(&mut self, id: StreamId) -> Result<StreamKey, FrameError> {
        let (number, is_ours) = (id.0 >> 1, id.0 & 1 == self.parity(Opener::Here));
        if is_ours {
            let index = self.ours.base + number;
            let key = StreamKey { opener: Opener::Here, index };
            let known = self.ours.is_known(index);
            return known.then_some(key).ok_or(FrameError(400, "a stream that was never opened"));
        }
        if number >= self.theirs.max {
            return Err(FrameError(400, "more streams than allowed"));
        }
        let key = StreamKey { opener: Opener::There, index: self.theirs.base + number };
        while self.theirs.next <= key.index {
            let key = StreamKey { index: self.theirs.next, ..key };
            self.theirs.next += 1;
            self.insert(key, SendHalf::accepted());
            self.events.push_back((key, StreamEvent::Opened));
        }
        Ok(key)
    }

    /// Its number in this lineage; `None` for one of an older.
    fn id_of(&self, key: StreamKey) -> Option<StreamId> {
        let numbers = match key.opener {
            Opener::Here => &self.ours,
            Opener::There => &self.theirs,
        };
        let number = key.index.checked_sub(numbers.base)?;
        Some(StreamId(number << 1 | self.parity(key.opener)))
    }

    fn parity(&self, opener: Opener) -> u64 {
        match (opener, self.side) {
            (Opener::Here, StreamSide::Even) | (Opener::There, StreamSide::Odd) => 0,
            (Opener::Here, StreamSide::Odd) | (Opener::There, StreamSide::Even) => 1,
        }
    }

    fn next_busy(&self) -> Option<StreamKey> {
        let after = self.cursor.and_then(|last| {
            self.busy.range((Bound::Excluded(last), Bound::Unbounded)).next().copied()
        });
        after.or_else(|| self.busy.first().copied())
    }

    /// False when the packet is full.
    fn write_stream(&mut self, key: StreamKey, packet: &mut Packet<'_>) -> bool {
        let id = self.id_of(key);
        let (Some(stream), Some(id)) = (self.table.get_mut(&key), id) else { return true };
        if let Some(code) = stream.receive.stop_due() {
            if !push(packet, StreamFrame::Stop { id, code }, Carried::Stop(key)) {
                return false;
            }
            stream.receive.stop_said();
        }
        stream.send.write_frames(key, id, packet)
    }

    /// Does something to the sending half, and what follows from it.
    fn change_send(&mut self, key: StreamKey, change: impl FnOnce(&mut SendHalf)) {
        let Some(stream) = self.table.get_mut(&key) else { return };
        let before = stream.send.held();
        change(&mut stream.send);
        self.held -= before - stream.send.held();
        if stream.send.has_work() {
            self.busy.insert(key);
        }
        self.wake_writers();
    }

    fn wake_writers(&mut self) {
        let (table, held) = (&self.table, self.held);
        let events = &mut self.events;
        self.waiting.retain(|key| {
            let send = table.get(key).map(|stream| &stream.send).filter(|send| send.is_open());
            let ready = send.is_some_and(|send| room(send, held) >= WRITABLE_MIN);
            if ready {
                events.push_back((*key, StreamEvent::Writable));
            }
            send.is_some() && !ready
        });
    }

    fn after_arrival(&mut self, key: StreamKey) {
        if let Some(stream) = self.table.get_mut(&key) {
            if stream.receive.announce() {
                self.events.push_back((key, StreamEvent::Readable));
            }
            if !stream.receive.is_alive() {
                self.growth += stream.receive.take_growth();
            }
        }
        self.settle(Some(key));
    }

    fn lose(&mut self, key: StreamKey) {
        let Some(stream) = self.table.get_mut(&key) else { return };
        let waits = stream.send.is_alive() || stream.receive.is_waiting();
        if !waits {
            return;
        }
        stream.receive.lose(stream_code::LOST);
        self.busy.insert(key);
        self.change_send(key, |send| send.reset(stream_code::LOST));
        self.events.push_back((key, StreamEvent::Lost));
        self.after_arrival(key);
    }

    fn settle(&mut self, key: Option<StreamKey>) {
        if let Some(key) = key
            && self.table.get(&key).is_some_and(Stream::is_over)
        {
            self.forget(key);
        }
    }

    fn forget(&mut self, key: StreamKey) {
        let Some(mut stream) = self.table.remove(&key) else { return };
        self.growth += stream.receive.take_growth();
        self.held -= stream.send.held();
        self.busy.remove(&key);
        self.windows_due.remove(&key);
        self.waiting.remove(&key);
        self.events.push_back((key, StreamEvent::Closed));
        if key.opener == Opener::There && key.index >= self.theirs.base {
            self.theirs_closed += 1;
            let max = self.theirs_closed + STREAMS_OPEN_MAX;
            if max >= self.theirs.max + MAX_STEP {
                (self.theirs.max, self.max_due) = (max, true);
            }
        }
    }
}

impl Carried {
    fn key(&self) -> Option<StreamKey> {
        match self {
            Self::Data { key, .. } | Self::Reset(key) | Self::Stop(key) | Self::Window(key, _) => {
                Some(*key)
            }
            Self::Max(_) => None,
        }
    }
}

/// How many bytes a stream takes: a floor is always its own.
fn room(send: &SendHalf, held: usize) -> usize {
    let floor = (WINDOW_FLOOR as usize).saturating_sub(send.held());
    let shared = SEND_SHARED_MAX.saturating_sub(held).min(SEND_EACH_MAX - send.held());
    floor.max(shared)
}

fn push(packet: &mut Packet<'_>, frame: StreamFrame<'_>, carried: Carried) -> bool {
    packet.push_carried(&Frame::Stream(frame), packet::Carried::Stream(carried))
}
