//! Messages on their way in: reassembly, order, what was delivered, receipts and credit.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::packet::{Carried, Packet};
use super::ranges::Ranges;
use super::window::{Credit, MESSAGE_COST, Pool, cost};
use super::{Config, FrameError, Received};
use crate::id::{Channel, Epoch, Sequence};
use crate::wire::codec::VARINT_MAX;
use crate::wire::frame::{Frame, Message};

/// Epochs of one sender whose marks are kept (SPEC section 7), the current one included.
const EPOCHS_MAX: usize = 8;
/// Longest time a RECEIPT waits for another frame to share its packet.
const RECEIPT_DELAY: Duration = Duration::from_millis(1);
/// Holes in one message. More than a full congestion window can cause; beyond it parts are not
/// acknowledged and come again.
const RANGES_MAX: usize = 16 << 10;

/// Room for messages that stays in a channel while they come and go.
const MESSAGES_KEPT: usize = 32;

/// Whether a part was stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Stored,
    /// Every byte of it had arrived before.
    Repeated,
    /// There is no room: it must not be acknowledged.
    Refused,
}

/// Everything received and not yet taken, and the marks.
#[derive(Debug)]
pub(super) struct Inbox {
    epoch: Option<Epoch>,
    /// In order of channel.
    channels: Vec<InChannel>,
    /// Marks of other epochs, the newest last.
    older: Vec<(Epoch, Vec<(Channel, u64)>)>,
    pool: Pool,
    cursor: usize,
    /// About how long a round trip takes.
    rtt: Duration,
    receipt_due: Option<Instant>,
    window_due: bool,
    session: Stage,
}

/// Whether packets of the session speak of the current epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Running,
    /// Early data named another epoch than the running session's.
    Ahead,
}

impl Inbox {
    pub(super) fn new(config: &Config) -> Self {
        Self {
            epoch: None,
            channels: Vec::new(),
            older: Vec::new(),
            pool: Pool::new(config),
            cursor: 0,
            rtt: Duration::ZERO,
            receipt_due: None,
            window_due: false,
            session: Stage::Running,
        }
    }

    /// The epoch messages are numbered in.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    /// A new session with this epoch of the other end: windows start anew, partial messages are
    /// dropped, whole ones stay, and every mark is stated.
    pub(super) fn restart(&mut self, epoch: Epoch, config: &Config, now: Instant) {
        self.select(epoch);
        self.session = Stage::Running;
        self.pool = Pool::new(config);
        let held = self.held();
        // What stays is not under the new windows, so it must not pile up session by session.
        let keep_all = held <= config.receive_memory_max / 2;
        for channel in &mut self.channels {
            channel.restart(&self.pool, keep_all);
        }
        // A receipt may have been lost with the old session, or early data taken before this one.
        let stated = self.channels.iter().any(|channel| channel.receipt_due);
        (self.receipt_due, self.window_due) = (stated.then_some(now), false);
    }

    /// Early data of this epoch comes.
    pub(super) fn begin_early(&mut self, epoch: Epoch) {
        if self.epoch != Some(epoch) {
            self.session = if self.epoch.is_some() { Stage::Ahead } else { Stage::Running };
            self.select(epoch);
        }
    }

    /// Whether messages of the running session are to be ignored: their sender is gone.
    pub(super) fn is_ahead(&self) -> bool {
        self.session == Stage::Ahead
    }

    pub(super) fn on_message(
        &mut self,
        message: &Message<'_>,
        origin: Origin,
        config: &Config,
        now: Instant,
    ) -> Result<Part, FrameError> {
        if message.total > config.message_len_max as u64 {
            return Err(FrameError(413, "message too long"));
        }
        if origin == Origin::Early && self.held() > config.receive_memory_max {
            return Err(FrameError(429, "too much early data"));
        }
        let at = self.open(message.channel);
        let channel = &mut self.channels[at];
        if message.sequence.0 < channel.mark {
            channel.receipt_due = true;
            self.receipt_due = Some(now);
            return Ok(Part::Repeated);
        }
        let part = channel.store(message, origin)?;
        self.grant_head(at);
        Ok(part)
    }

    pub(super) fn on_skip(&mut self, channel: Channel, below: Sequence, now: Instant) {
        let at = self.open(channel);
        let channel = &mut self.channels[at];
        if below.0 < channel.mark {
            channel.receipt_due = true;
            self.receipt_due = Some(now);
            return;
        }
        channel.skip(below.0, &mut self.pool);
        self.after_settling(at, now);
    }

    /// The other end would go on; everything before `settled` is settled there.
    pub(super) fn on_blocked(
        &mut self,
        channel: Channel,
        settled: u64,
        now: Instant,
    ) -> Result<(), FrameError> {
        if settled > VARINT_MAX / 2 {
            return Err(FrameError(400, "position out of range"));
        }
        let at = self.open(channel);
        let channel = &mut self.channels[at];
        let head = channel.head_cost();
        channel.credit.settle(settled, head, &mut self.pool);
        if !channel.is_readable() {
            // The reader took all there was: it is the window that holds the sender back.
            channel.credit.grow(&mut self.pool);
        }
        if channel.credit.unblock(&mut self.pool, self.rtt, now) {
            self.tell_window(at);
        }
        self.after_settling(at, now);
        Ok(())
    }

    /// The next message in order, in turn over the channels.
    pub(super) fn take(&mut self, now: Instant) -> Option<Received> {
        let count = self.channels.len();
        let index = (0..count)
            .map(|step| (self.cursor + step) % count)
            .find(|index| self.channels[*index].is_readable())?;
        self.cursor = (index + 1) % count;
        let received = self.channels[index].take(&mut self.pool)?;
        self.channels[index].receipt_due = true;
        self.receipt_due = self.receipt_due.or(Some(now + RECEIPT_DELAY));
        self.after_settling(index, now);
        Some(received)
    }

    /// About how long a round trip takes.
    pub(super) fn set_rtt(&mut self, rtt: Duration) {
        self.rtt = rtt;
    }

    pub(super) fn is_readable(&self) -> bool {
        self.channels.iter().any(InChannel::is_readable)
    }

    /// Bytes of messages that were not taken, and what each costs besides.
    pub(super) fn held(&self) -> usize {
        self.channels.iter().map(InChannel::bytes).sum()
    }

    /// When a RECEIPT or WINDOW must leave, if nothing else does before.
    pub(super) fn due(&self) -> Option<Instant> {
        self.receipt_due
    }

    /// Whether this is a receipt that no later one of its channel replaces.
    pub(super) fn is_newest_receipt(&self, carried: &Carried) -> bool {
        let Carried::Receipt(channel, mark) = carried else { return false };
        self.channels.iter().any(|of| of.channel == *channel && of.mark == *mark)
    }

    /// Whether there is a WINDOW to state.
    pub(super) fn has_window(&self) -> bool {
        self.window_due
    }

    /// Adds RECEIPT and WINDOW frames.
    pub(super) fn write(&mut self, packet: &mut Packet<'_>) {
        if self.receipt_due.is_none() && !self.window_due {
            return;
        }
        if self.channels.iter_mut().all(|channel| channel.write(packet)) {
            (self.receipt_due, self.window_due) = (None, false);
        }
    }

    /// States the newest values again where the lost ones were the newest.
    pub(super) fn on_lost(&mut self, carried: &Carried, now: Instant) {
        match carried {
            Carried::Receipt(channel, mark) => {
                let found = self.find(*channel).filter(|channel| channel.mark == *mark);
                if let Some(channel) = found {
                    channel.receipt_due = true;
                    self.receipt_due = Some(now);
                }
            }
            Carried::Window(channel, limit) => {
                let found = self.find(*channel).filter(|ch| ch.credit.limit() == *limit);
                if let Some(channel) = found {
                    channel.window_due = true;
                    self.window_due = true;
                }
            }
            Carried::Data { .. }
            | Carried::Whole { .. }
            | Carried::Skip(..)
            | Carried::Blocked(_)
            | Carried::Control(_)
            | Carried::Stream(_)
            | Carried::Ack { .. } => {}
        }
    }

    /// Nothing is said for a while: keeps no more than it must.
    pub(super) fn rest(&mut self) {
        for channel in &mut self.channels {
            channel.active.take_if(|active| active.is_empty());
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        let active = self.channels.iter().filter(|channel| channel.active.is_some()).count();
        assert_eq!(active, 0, "a channel holds parts");
        self.channels.capacity() * size_of::<InChannel>()
    }

    /// Gives credit for the rest of the head message of a channel, if it needs more.
    fn grant_head(&mut self, at: usize) {
        let channel = &mut self.channels[at];
        if let Some(cost) = channel.head_cost()
            && channel.credit.admit(channel.channel, cost, &mut self.pool)
        {
            self.tell_window(at);
        }
    }

    fn after_settling(&mut self, at: usize, now: Instant) {
        if self.channels[at].credit.refresh(&mut self.pool, self.rtt, now) {
            self.tell_window(at);
        }
        let channel = &self.channels[at];
        if channel.head_cost().is_none() {
            let id = channel.channel;
            self.pool.leave_queue(id);
        }
        self.grant_head(at);
        self.serve_waiting();
    }

    /// Lets channels that wait for the reserve have it, in their order.
    fn serve_waiting(&mut self) {
        while let Some(channel) = self.pool.next_waiting() {
            let at = self.open(channel);
            if self.channels[at].head_cost().is_none() {
                self.pool.leave_queue(channel);
                continue;
            }
            self.grant_head(at);
            if self.pool.next_waiting() == Some(channel) {
                return;
            }
        }
    }

    fn tell_window(&mut self, at: usize) {
        self.channels[at].window_due = true;
        self.window_due = true;
    }

    fn select(&mut self, epoch: Epoch) {
        if self.epoch == Some(epoch) {
            return;
        }
        if let Some(old) = self.epoch {
            let marks = self.channels.iter().map(|ch| (ch.channel, ch.mark)).collect();
            self.older.push((old, marks));
        }
        self.channels = Vec::new();
        self.epoch = Some(epoch);
        if let Some(at) = self.older.iter().position(|(other, _)| *other == epoch) {
            let (_, marks) = self.older.remove(at);
            for (channel, mark) in marks {
                let at = self.open(channel);
                self.channels[at].mark = mark;
            }
        }
        if self.older.len() >= EPOCHS_MAX {
            self.older.remove(0);
        }
    }

    fn find(&mut self, channel: Channel) -> Option<&mut InChannel> {
        let at = self.channels.binary_search_by_key(&channel, |ch| ch.channel).ok()?;
        self.channels.get_mut(at)
    }

    fn open(&mut self, channel: Channel) -> usize {
        match self.channels.binary_search_by_key(&channel, |ch| ch.channel) {
            Ok(at) => at,
            Err(at) => {
                self.channels.reserve_exact(1);
                self.channels.insert(at, InChannel::new(channel, &self.pool));
                at
            }
        }
    }
}

/// How a part came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// In message 1 of a handshake: outside the windows.
    Early,
    Session,
}

#[derive(Debug)]
struct InChannel {
    channel: Channel,
    receipt_due: bool,
    window_due: bool,
    /// Everything below was delivered or skipped.
    mark: u64,
    credit: Credit,
    active: Option<Box<Active>>,
}

/// What a channel keeps while it holds parts of messages.
#[derive(Debug, Default)]
struct Active {
    /// Whole messages in a row from the mark on: most arrive in order, and are taken in order.
    ready: VecDeque<Assembly>,
    /// Messages beyond these.
    rest: BTreeMap<u64, Assembly>,
    /// What the parts that came in this session take of the window.
    charged: u64,
}

/// One message on its way in.
#[derive(Debug)]
struct Assembly {
    body: Body,
    total: u32,
    /// What its parts of this session take of the window; 0 when none came.
    charged: u64,
    origin: Origin,
}

#[derive(Debug)]
enum Body {
    /// Grows as bytes arrive.
    Partial {
        bytes: Vec<u8>,
        got: Ranges,
    },
    Whole(Bytes),
}

impl InChannel {
    fn new(channel: Channel, pool: &Pool) -> Self {
        let credit = Credit::new(pool);
        Self { channel, receipt_due: false, window_due: false, mark: 0, credit, active: None }
    }

    fn restart(&mut self, pool: &Pool, keep_all: bool) {
        self.credit = Credit::new(pool);
        (self.receipt_due, self.window_due) = (self.mark > 0, false);
        if let Some(active) = &mut self.active {
            active.restart(self.mark, keep_all);
        }
        self.shrink();
    }

    fn bytes(&self) -> usize {
        let messages = self.active.iter().flat_map(|active| active.messages());
        messages.map(|message| message.len() + MESSAGE_COST as usize).sum()
    }

    fn store(&mut self, message: &Message<'_>, origin: Origin) -> Result<Part, FrameError> {
        let committed = match origin {
            Origin::Early => u64::MAX,
            Origin::Session => self.credit.committed(),
        };
        if cost(message.offset + message.bytes.len() as u64) > committed {
            return Err(FrameError(400, "beyond the window"));
        }
        let active = self.active.get_or_insert_default();
        let assembly = active.assembly(self.mark, message, origin);
        if u64::from(assembly.total) != message.total {
            return Err(FrameError(400, "two lengths for one message"));
        }
        let Some(fresh) = assembly.insert(message) else { return Ok(Part::Refused) };
        let part = if fresh == 0 { Part::Repeated } else { Part::Stored };
        if origin == Origin::Session && fresh > 0 {
            let begun = assembly.charged > 0;
            let bytes = if message.total == 0 { 0 } else { u64::from(fresh) };
            let charge = bytes + if begun { 0 } else { MESSAGE_COST };
            assembly.charged += charge;
            active.charged += charge;
        }
        if active.charged > committed {
            return Err(FrameError(400, "beyond the window"));
        }
        active.line_up(self.mark);
        Ok(part)
    }

    fn is_readable(&self) -> bool {
        self.active.as_ref().is_some_and(|active| !active.ready.is_empty())
    }

    /// What the incomplete message at the head takes of the window.
    fn head_cost(&self) -> Option<u64> {
        let active = self.active.as_ref().filter(|active| active.ready.is_empty())?;
        active.rest.get(&self.mark).map(|head| cost(head.total.into()))
    }

    fn take(&mut self, pool: &mut Pool) -> Option<Received> {
        let assembly = self.active.as_mut()?.ready.pop_front()?;
        self.settle(&assembly, pool);
        let sequence = Sequence(self.mark);
        self.mark += 1;
        self.shrink();
        match assembly.body {
            Body::Whole(payload) => Some(Received { channel: self.channel, sequence, payload }),
            Body::Partial { .. } => None,
        }
    }

    fn skip(&mut self, below: u64, pool: &mut Pool) {
        while let Some(assembly) =
            self.active.as_mut().and_then(|active| active.pop_below(self.mark, below))
        {
            self.settle(&assembly, pool);
            self.mark += 1;
        }
        self.mark = below;
        if let Some(active) = &mut self.active {
            active.line_up(below);
        }
        self.shrink();
    }

    /// A message that was taken out gives its credit back.
    fn settle(&mut self, assembly: &Assembly, pool: &mut Pool) {
        if let Some(active) = &mut self.active {
            active.charged -= assembly.charged;
        }
        if assembly.charged > 0 {
            self.credit.consume(cost(assembly.total.into()), pool);
        }
    }

    /// What a burst took goes with it.
    fn shrink(&mut self) {
        if let Some(active) = self.active.as_mut().filter(|active| active.ready.is_empty()) {
            active.ready.shrink_to(MESSAGES_KEPT);
        }
    }

    /// False when the packet is full.
    fn write(&mut self, packet: &mut Packet<'_>) -> bool {
        if self.receipt_due {
            let frame = Frame::Receipt(self.channel, Sequence(self.mark));
            let carried = Carried::Receipt(self.channel, self.mark);
            self.receipt_due = !packet.push_carried(&frame, carried);
        }
        if self.window_due {
            let limit = self.credit.limit();
            let carried = Carried::Window(self.channel, limit);
            self.window_due = !packet.push_carried(&Frame::Window(self.channel, limit), carried);
        }
        !self.receipt_due && !self.window_due
    }
}

impl Active {
    fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.rest.is_empty()
    }

    fn messages(&self) -> impl Iterator<Item = &Assembly> {
        self.ready.iter().chain(self.rest.values())
    }

    /// The message that a part belongs to; `mark` is where `ready` begins.
    fn assembly(&mut self, mark: u64, message: &Message<'_>, origin: Origin) -> &mut Assembly {
        let (sequence, end) = (message.sequence.0, mark + self.ready.len() as u64);
        if sequence < end {
            return &mut self.ready[(sequence - mark) as usize];
        }
        if sequence == end && message.is_whole() && !self.rest.contains_key(&sequence) {
            // It needs no place among those that wait for others.
            let place = self.ready.len();
            self.ready.push_back(Assembly::new(message, origin));
            return &mut self.ready[place];
        }
        let entry = self.rest.entry(sequence);
        entry.or_insert_with(|| Assembly::new(message, origin))
    }

    /// Whole messages that follow those in a row join them.
    fn line_up(&mut self, mark: u64) {
        let mut next = mark + self.ready.len() as u64;
        while let Some(first) = self.rest.first_entry()
            && *first.key() == next
            && first.get().is_whole()
        {
            self.ready.push_back(first.remove());
            next += 1;
        }
    }

    /// Takes out a message below `below`, the lowest first.
    fn pop_below(&mut self, mark: u64, below: u64) -> Option<Assembly> {
        if mark < below && !self.ready.is_empty() {
            return self.ready.pop_front();
        }
        let first = self.rest.first_entry().filter(|first| *first.key() < below)?;
        Some(first.remove())
    }

    /// Windows start anew: parts of messages go, and whole ones too if they shall.
    fn restart(&mut self, mark: u64, keep_all: bool) {
        self.charged = 0;
        let ready = std::mem::take(&mut self.ready).into_iter();
        self.rest.extend((mark..).zip(ready));
        self.rest.retain(|_, m| m.is_whole() && (keep_all || m.origin == Origin::Early));
        self.rest.values_mut().for_each(|message| message.charged = 0);
        self.line_up(mark);
    }
}

impl Assembly {
    fn new(message: &Message<'_>, origin: Origin) -> Self {
        let body = Body::Partial { bytes: Vec::new(), got: Ranges::default() };
        Self { body, total: message.total as u32, charged: 0, origin }
    }

    fn is_whole(&self) -> bool {
        matches!(self.body, Body::Whole(_))
    }

    fn len(&self) -> usize {
        match &self.body {
            Body::Partial { bytes, .. } => bytes.capacity(),
            Body::Whole(bytes) => bytes.len(),
        }
    }

    /// Stores a part; says how many positions are new, `None` when there are too many holes.
    fn insert(&mut self, message: &Message<'_>) -> Option<u32> {
        let Body::Partial { bytes, got } = &mut self.body else { return Some(0) };
        if message.is_whole() {
            // Without parts that came before, nothing has to be counted.
            let known =
                if got.is_empty() { self.total.max(1) } else { got.insert(0, self.total.max(1)) };
            self.body = Body::Whole(Bytes::copy_from_slice(message.bytes));
            return Some(known);
        }
        if got.len() >= RANGES_MAX {
            return None;
        }
        let start = message.offset as usize;
        let end = start + message.bytes.len();
        if bytes.capacity() < end {
            let room = (bytes.len() * 2).clamp(end, self.total as usize);
            bytes.reserve_exact(room - bytes.len());
        }
        if bytes.len() == start {
            bytes.extend_from_slice(message.bytes);
        } else {
            bytes.resize(bytes.len().max(end), 0);
            bytes[start..end].copy_from_slice(message.bytes);
        }
        let fresh = got.insert(start as u32, end as u32);
        if got.is_whole(self.total) {
            self.body = Body::Whole(Bytes::from(std::mem::take(bytes)));
        }
        Some(fresh)
    }
}
