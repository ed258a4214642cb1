//! Messages on their way out: queues per channel, what was sent, acknowledged and lost of each,
//! and how far the other end lets a channel go.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::packet::{Carried, Packet, Part};
use super::ranges::Ranges;
use super::window::{MESSAGE_COST, cost};
use super::{Config, FrameError, SendError};
use crate::id::{Channel, PathId, Sequence};
use crate::wire::frame::Frame;

/// Room for messages that stays in a queue while they come and go.
const MESSAGES_KEPT: usize = 32;

/// Every message whose receipt has not come.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    /// In order of channel.
    channels: Vec<OutChannel>,
    messages: usize,
    bytes: usize,
    /// Index of the channel whose turn it is.
    cursor: usize,
    refused: bool,
}

/// What a RECEIPT settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Settled {
    pub(super) path: Option<PathId>,
}

impl Outbox {
    pub(super) fn push(
        &mut self,
        channel: Channel,
        payload: Bytes,
        config: &Config,
    ) -> Result<Sequence, SendError> {
        if u16::from(channel.0) >= config.channels {
            return Err(SendError::NoChannel);
        }
        if payload.len() > config.message_len_max {
            return Err(SendError::TooLong);
        }
        if !self.has_room(payload.len(), config) {
            self.refused = true;
            return Err(SendError::Full);
        }
        self.messages += 1;
        self.bytes += payload.len();
        Ok(self.open(channel, config).push(payload))
    }

    /// Whether there is room for a message of this length.
    pub(super) fn has_room(&self, len: usize, config: &Config) -> bool {
        self.messages < config.send_queue_messages_max
            && self.bytes + len <= config.send_queue_bytes_max
    }

    pub(super) fn cancel(&mut self, channel: Channel, sequence: Sequence) -> bool {
        let Some(queue) = self.find(channel) else { return false };
        let Some(freed) = queue.cancel(sequence.0) else { return false };
        self.messages -= 1;
        self.bytes -= freed;
        true
    }

    /// A new session: nothing counts as sent, and each used channel states where it stands.
    pub(super) fn restart(&mut self, config: &Config) {
        self.channels.iter_mut().for_each(|queue| queue.restart(config.channel_window));
    }

    /// The other end delivered everything below.
    pub(super) fn on_receipt(
        &mut self,
        channel: Channel,
        below: Sequence,
    ) -> Result<Option<Settled>, FrameError> {
        let unsent = FrameError(400, "receipt for a message that was not sent");
        let queue = self.find(channel).ok_or(unsent)?;
        if below.0 > queue.next {
            return Err(unsent);
        }
        if below.0 <= queue.first() {
            return Ok(None);
        }
        let (settled, messages, bytes) = queue.settle(below.0);
        self.messages -= messages;
        self.bytes -= bytes;
        Ok(Some(settled))
    }

    pub(super) fn on_window(&mut self, channel: Channel, limit: u64) {
        if let Some(queue) = self.find(channel) {
            queue.limit = queue.limit.max(limit);
        }
    }

    pub(super) fn on_acked(&mut self, carried: &Carried, path: PathId) {
        match carried {
            Carried::Data { channel, sequence, start, end } => {
                if let Some(message) = self.message(*channel, *sequence) {
                    message.on_acked(*start, *end, path);
                }
            }
            Carried::Whole { channel, first, count } => {
                for message in self.run(*channel, *first, *count) {
                    message.on_acked(0, message.extent(), path);
                }
            }
            Carried::Skip(channel, below) => {
                if let Some(queue) = self.find(*channel) {
                    queue.on_skip_known(*below);
                }
            }
            Carried::Receipt(..)
            | Carried::Window(..)
            | Carried::Blocked(_)
            | Carried::Control(_)
            | Carried::Stream(_)
            | Carried::Ack { .. } => {}
        }
    }

    /// What was carried is to be sent again, unless it got there in another packet.
    pub(super) fn on_lost(&mut self, carried: &Carried) {
        match carried {
            Carried::Data { channel, sequence, start, end } => {
                if let Some(queue) = self.find(*channel) {
                    queue.on_lost(sequence.0, *start, *end);
                }
            }
            Carried::Whole { channel, first, count } => {
                let Some(queue) = self.find(*channel) else { return };
                for sequence in first.0..first.0 + u64::from(*count) {
                    queue.on_lost(sequence, 0, u32::MAX);
                }
            }
            Carried::Skip(channel, below) => {
                if let Some(queue) = self.find(*channel) {
                    queue.skip_due |= *below == queue.first();
                }
            }
            Carried::Blocked(channel) => {
                if let Some(active) = self.find(*channel).and_then(|q| q.active.as_mut()) {
                    active.blocked_said = None;
                }
            }
            Carried::Receipt(..)
            | Carried::Window(..)
            | Carried::Control(_)
            | Carried::Stream(_)
            | Carried::Ack { .. } => {}
        }
    }

    /// Whether any of this is worth a packet of its own.
    pub(super) fn is_unacked(&self, carried: &Carried) -> bool {
        let (channel, first, count, start, end) = match *carried {
            Carried::Data { channel, sequence, start, end } => (channel, sequence, 1, start, end),
            Carried::Whole { channel, first, count } => (channel, first, count, 0, u32::MAX),
            Carried::Receipt(..)
            | Carried::Skip(..)
            | Carried::Window(..)
            | Carried::Blocked(_)
            | Carried::Control(_)
            | Carried::Stream(_)
            | Carried::Ack { .. } => return true,
        };
        let queue = self.channels.iter().find(|queue| queue.channel == channel);
        let of = |sequence| queue.and_then(|queue| queue.message(sequence));
        let mut messages = (first.0..first.0 + u64::from(count)).filter_map(of);
        messages.any(|message| !message.acked.covers(start, end.min(message.extent())))
    }

    /// Adds SKIP and BLOCKED frames and parts of messages, in turn over the channels.
    pub(super) fn write(&mut self, packet: &mut Packet<'_>) {
        self.write_skips(packet);
        let count = self.channels.len();
        for step in 0..count {
            let index = (self.cursor + step) % count;
            if !self.channels[index].write(packet) {
                // Full: the next packet begins where this one ended.
                self.cursor = (index + usize::from(step == 0)) % count;
                return;
            }
        }
    }

    /// Adds a second copy of a whole message; false when it does not fit.
    pub(super) fn write_copy(
        &mut self,
        channel: Channel,
        sequence: Sequence,
        packet: &mut Packet<'_>,
    ) -> bool {
        let Some(message) = self.message(channel, sequence) else { return true };
        let end = message.extent();
        let fits = packet.holds_whole(message.payload.len());
        // A part of a copy helps nobody.
        if !fits || !message.acked.is_empty() || message.state != State::Wanted {
            return true;
        }
        let part = Part { channel, sequence, payload: &message.payload, start: 0, end };
        packet.push_data(part).is_some()
    }

    /// Marks a message as copied; false when it was before, or is too long.
    pub(super) fn claim_copy(&mut self, channel: Channel, sequence: Sequence) -> bool {
        let Some(message) = self.message(channel, sequence) else { return false };
        !std::mem::replace(&mut message.copied, true)
    }

    /// Whether `write` would add anything.
    pub(super) fn has_work(&self) -> bool {
        self.channels.iter().any(|queue| queue.skip_due || queue.has_work())
    }

    /// Whether every message has its receipt and nothing has to be stated.
    pub(super) fn is_idle(&self) -> bool {
        self.messages == 0 && !self.channels.iter().any(|queue| queue.skip_due)
    }

    /// True once when there is room again after a refusal.
    pub(super) fn take_writable(&mut self, config: &Config) -> bool {
        let room = self.messages < config.send_queue_messages_max
            && self.bytes < config.send_queue_bytes_max;
        room && std::mem::take(&mut self.refused)
    }

    /// Whole messages for early data, with the SKIP that a receiver without memory needs.
    pub(super) fn write_early(&mut self, packet: &mut Packet<'_>) {
        for queue in &mut self.channels {
            queue.write_early(packet);
        }
    }

    /// Nothing is said for a while: keeps no more than it must.
    pub(super) fn rest(&mut self) {
        for queue in &mut self.channels {
            queue.active.take_if(|active| active.messages.is_empty());
        }
    }

    /// Settles what early data carried.
    pub(super) fn end_early(&mut self, verdict: EarlyVerdict) {
        for queue in &mut self.channels {
            queue.end_early(verdict);
        }
    }

    /// Bytes on the heap.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        let active = self.channels.iter().filter(|queue| queue.active.is_some()).count();
        assert_eq!(active, 0, "a queue is not empty");
        self.channels.capacity() * size_of::<OutChannel>()
    }

    fn write_skips(&mut self, packet: &mut Packet<'_>) {
        for queue in self.channels.iter_mut().filter(|queue| queue.skip_due) {
            let below = queue.first();
            let frame = Frame::Skip(queue.channel, Sequence(below));
            if !packet.push_carried(&frame, Carried::Skip(queue.channel, below)) {
                return;
            }
            queue.skip_due = false;
        }
    }

    fn find(&mut self, channel: Channel) -> Option<&mut OutChannel> {
        let at = self.channels.binary_search_by_key(&channel, |queue| queue.channel).ok()?;
        self.channels.get_mut(at)
    }

    fn message(&mut self, channel: Channel, sequence: Sequence) -> Option<&mut OutMessage> {
        self.find(channel)?.message_mut(sequence.0)
    }

    /// Those of some messages in a row that are not settled.
    fn run(
        &mut self,
        channel: Channel,
        first: Sequence,
        count: u32,
    ) -> impl Iterator<Item = &mut OutMessage> {
        self.find(channel).into_iter().flat_map(move |queue| queue.run(first.0, count))
    }

    fn open(&mut self, channel: Channel, config: &Config) -> &mut OutChannel {
        let at = match self.channels.binary_search_by_key(&channel, |queue| queue.channel) {
            Ok(at) => at,
            Err(at) => {
                self.channels.reserve_exact(1);
                self.channels.insert(at, OutChannel::new(channel, config.channel_window));
                at
            }
        };
        &mut self.channels[at]
    }
}

/// What became of early data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum EarlyVerdict {
    /// Acknowledged in the session that runs.
    Accepted,
    /// Acknowledged in the session about to start.
    AcceptedBefore,
    /// To be sent again.
    Rejected,
}

/// One queue; what it keeps when empty is small.
#[derive(Debug)]
struct OutChannel {
    channel: Channel,
    skip_due: bool,
    /// Sequence of the next message.
    next: u64,
    /// Where the messages begun in this session end, laid end to end.
    laid: u64,
    /// Up to where the other end lets us send.
    limit: u64,
    /// What cancelled messages take of the window until the other end knows of the SKIP.
    skipped_cost: u64,
    active: Option<Box<Active>>,
}

/// What a queue keeps while it holds messages.
#[derive(Debug, Default)]
struct Active {
    /// In order, the last one being `next - 1`.
    messages: VecDeque<OutMessage>,
    /// Sequences of messages that have lost parts.
    resend: BTreeSet<u64>,
    /// The first message that was not sent to its end.
    unsent: u64,
    /// What the messages begun and not settled take of the window.
    unsettled_cost: u64,
    /// Limit and settled position of the last BLOCKED.
    blocked_said: Option<(u64, u64)>,
}

#[derive(Debug)]
struct OutMessage {
    payload: Bytes,
    acked: Ranges,
    lost: Ranges,
    /// Positions below this were sent in this session.
    sent: u32,
    state: State,
    copied: bool,
    /// Where the last acknowledged part went.
    path: Option<PathId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// To be sent, or sent.
    Wanted,
    Cancelled,
    /// In message 1 of a handshake whose answer has not come.
    Early,
    /// Accepted with a handshake whose session has not started.
    EarlyAccepted,
}

impl OutMessage {
    fn new(payload: Bytes) -> Self {
        Self {
            payload,
            acked: Ranges::default(),
            lost: Ranges::default(),
            sent: 0,
            state: State::Wanted,
            copied: false,
            path: None,
        }
    }

    /// Positions of the message; an empty one has a single position.
    fn extent(&self) -> u32 {
        (self.payload.len() as u32).max(1)
    }

    fn cost(&self) -> u64 {
        cost(self.payload.len() as u64)
    }

    fn on_acked(&mut self, start: u32, end: u32, path: PathId) {
        self.acked.insert(start, end);
        self.lost.remove(start, end);
        self.path = Some(path);
    }

    fn restart(&mut self) {
        let accepted = self.state == State::EarlyAccepted;
        (self.acked, self.lost) = (Ranges::default(), Ranges::default());
        (self.sent, self.copied, self.path) = (0, false, None);
        if accepted {
            self.accept();
        }
    }

    fn accept(&mut self) {
        self.state = State::Wanted;
        self.acked.insert(0, self.extent());
    }

    /// Whether nothing of it has to be sent for the first time.
    fn is_sent(&self) -> bool {
        self.sent >= self.extent()
            || self.state == State::Cancelled
            || self.acked.is_whole(self.extent())
    }
}

impl OutChannel {
    fn new(channel: Channel, limit: u64) -> Self {
        Self { channel, skip_due: false, next: 0, laid: 0, limit, skipped_cost: 0, active: None }
    }

    fn first(&self) -> u64 {
        self.next - self.active.as_ref().map_or(0, |active| active.messages.len() as u64)
    }

    fn push(&mut self, payload: Bytes) -> Sequence {
        let sequence = self.next;
        let active = self
            .active
            .get_or_insert_with(|| Box::new(Active { unsent: sequence, ..Active::default() }));
        active.messages.push_back(OutMessage::new(payload));
        self.next += 1;
        Sequence(sequence)
    }

    fn restart(&mut self, limit: u64) {
        (self.laid, self.limit, self.skipped_cost) = (0, limit, 0);
        self.skip_due = self.next > 0;
        let first = self.first();
        if let Some(active) = &mut self.active {
            active.messages.iter_mut().for_each(OutMessage::restart);
            active.resend = BTreeSet::new();
            (active.unsent, active.unsettled_cost, active.blocked_said) = (first, 0, None);
        }
    }

    fn message(&self, sequence: u64) -> Option<&OutMessage> {
        let index = sequence.checked_sub(self.first())?;
        self.active.as_ref()?.messages.get(index as usize)
    }

    fn message_mut(&mut self, sequence: u64) -> Option<&mut OutMessage> {
        let index = sequence.checked_sub(self.first())?;
        self.active.as_mut()?.messages.get_mut(index as usize)
    }

    fn run(&mut self, first: u64, count: u32) -> impl Iterator<Item = &mut OutMessage> {
        let (from, to) = (self.index_of(first), self.index_of(first + u64::from(count)));
        let active = self.active.as_mut();
        active.into_iter().flat_map(move |active| active.messages.range_mut(from..to))
    }

    /// Where a message lies among those that are not settled, or would.
    fn index_of(&self, sequence: u64) -> usize {
        sequence.min(self.next).saturating_sub(self.first()) as usize
    }

    /// Settles everything below; also says how many messages and bytes that frees.
    fn settle(&mut self, below: u64) -> (Settled, usize, usize) {
        let (mut messages, mut bytes, mut path) = (0, 0, None);
        while self.first() < below {
            let Some(message) = self.pop_first() else { break };
            if message.state != State::Cancelled {
                messages += 1;
                bytes += message.payload.len();
                path = message.path;
            }
            self.take_cost(&message);
        }
        self.on_skip_known(below);
        self.drop_cancelled_head();
        (Settled { path }, messages, bytes)
    }

    /// Gives a message up; says how many bytes that frees.
    fn cancel(&mut self, sequence: u64) -> Option<usize> {
        let message = self.message_mut(sequence)?;
        if message.state == State::Cancelled {
            return None;
        }
        let freed = message.payload.len();
        message.state = State::Cancelled;
        message.lost = Ranges::default();
        if let Some(active) = &mut self.active {
            active.resend.remove(&sequence);
        }
        self.drop_cancelled_head();
        Some(freed)
    }

    /// Cancelled messages at the head become a SKIP.
    fn drop_cancelled_head(&mut self) {
        while self.message(self.first()).is_some_and(|m| m.state == State::Cancelled) {
            let Some(message) = self.pop_first() else { return };
            if message.sent > 0 {
                self.skipped_cost += message.cost();
            }
            self.take_cost(&message);
            self.skip_due = true;
        }
    }

    /// Nothing of a settled message counts as in use any more.
    fn take_cost(&mut self, message: &OutMessage) {
        if let (Some(active), true) = (&mut self.active, message.sent > 0) {
            active.unsettled_cost -= message.cost();
        }
    }

    fn pop_first(&mut self) -> Option<OutMessage> {
        let first = self.first();
        let active = self.active.as_mut()?;
        let message = active.messages.pop_front()?;
        active.resend.remove(&first);
        active.unsent = active.unsent.max(first + 1);
        if active.messages.is_empty() {
            let cost = if message.sent > 0 { message.cost() } else { 0 };
            debug_assert_eq!(active.unsettled_cost, cost, "costs of settled messages remain");
            active.messages.shrink_to(MESSAGES_KEPT);
            active.blocked_said = None;
        }
        Some(message)
    }

    /// The other end knows that everything below is settled.
    fn on_skip_known(&mut self, below: u64) {
        if below >= self.first() {
            self.skipped_cost = 0;
        }
    }

    fn on_lost(&mut self, sequence: u64, start: u32, end: u32) {
        let Some(message) = self.message_mut(sequence) else { return };
        if message.state == State::Cancelled {
            return;
        }
        for (start, end) in message.acked.missing(start, end.min(message.extent())) {
            message.lost.insert(start, end);
        }
        let lost = !message.lost.is_empty();
        if let (Some(active), true) = (&mut self.active, lost) {
            active.resend.insert(sequence);
        }
    }

    fn has_work(&self) -> bool {
        let Some(active) = &self.active else { return false };
        !active.resend.is_empty()
            || active.blocked_said.is_none() && active.unsent < self.next
            || self.may_begin(active)
    }

    /// Whether the window has room for more of the next message.
    fn may_begin(&self, active: &Active) -> bool {
        let Some(message) = self.message(active.unsent) else { return false };
        message.state == State::Wanted && self.room(message) > 0
    }

    /// Positions of the next message that the window has room for.
    fn room(&self, message: &OutMessage) -> u32 {
        let begun = message.sent > 0;
        let end_of_others = self.laid - if begun { message.cost() } else { 0 };
        let room = self.limit.saturating_sub(end_of_others + MESSAGE_COST);
        if message.payload.is_empty() && self.limit >= end_of_others + MESSAGE_COST {
            return 1;
        }
        (room.min(u32::MAX.into()) as u32).saturating_sub(message.sent)
    }

    /// False when the packet is full.
    fn write(&mut self, packet: &mut Packet<'_>) -> bool {
        self.write_lost(packet) && self.write_new(packet) && self.write_blocked(packet)
    }

    fn write_lost(&mut self, packet: &mut Packet<'_>) -> bool {
        let (channel, first) = (self.channel, self.first());
        let Some(active) = &mut self.active else { return true };
        while let Some(sequence) = active.resend.first().copied() {
            let message = &mut active.messages[(sequence - first) as usize];
            if let Some((start, end)) = message.lost.first() {
                let sequence = Sequence(sequence);
                let part = Part { channel, sequence, payload: &message.payload, start, end };
                let Some(end) = packet.push_data(part) else { return false };
                message.lost.remove(start, end);
            }
            if message.lost.is_empty() {
                active.resend.remove(&sequence);
            }
        }
        true
    }

    fn write_new(&mut self, packet: &mut Packet<'_>) -> bool {
        while let Some(sequence) = self.next_unsent() {
            let Some(message) = self.message(sequence) else { return true };
            let room = self.room(message);
            let (start, extent) = (message.sent, message.extent());
            let end = extent.min(start.saturating_add(room));
            // A message that fits a packet waits for credit rather than being divided.
            let clipped = start == 0 && end < extent && packet.holds_whole(message.payload.len());
            if message.state != State::Wanted || room == 0 || clipped {
                return true;
            }
            let part = Part {
                channel: self.channel,
                sequence: Sequence(sequence),
                payload: &message.payload,
                start,
                end,
            };
            let Some(sent) = packet.push_data(part) else { return false };
            self.on_sent(sequence, sent);
        }
        true
    }

    /// Moves over what needs no first sending.
    fn next_unsent(&mut self) -> Option<u64> {
        let first = self.first();
        let active = self.active.as_mut()?;
        while active.messages.get((active.unsent - first) as usize)?.is_sent() {
            active.unsent += 1;
        }
        Some(active.unsent)
    }

    fn on_sent(&mut self, sequence: u64, sent: u32) {
        let Some(message) = self.message_mut(sequence) else { return };
        let begun = message.sent > 0;
        message.sent = sent;
        let cost = message.cost();
        if let (Some(active), false) = (&mut self.active, begun) {
            active.unsettled_cost += cost;
            self.laid += cost;
        }
    }

    /// Says once per limit and position that there would be more.
    fn write_blocked(&mut self, packet: &mut Packet<'_>) -> bool {
        let Some(unsent) = self.next_unsent() else { return true };
        let wanted = self.message(unsent).is_some_and(|m| m.state == State::Wanted);
        let Some(active) = &self.active else { return true };
        let settled = self.laid - active.unsettled_cost - self.skipped_cost;
        let state = (self.limit, settled);
        if !wanted || active.blocked_said == Some(state) {
            return true;
        }
        let frame = Frame::Blocked(self.channel, settled);
        let fits = packet.push_carried(&frame, Carried::Blocked(self.channel));
        if let (Some(active), true) = (&mut self.active, fits) {
            active.blocked_said = Some(state);
        }
        fits
    }

    fn write_early(&mut self, packet: &mut Packet<'_>) {
        let (channel, first) = (self.channel, self.first());
        let Some(active) = &mut self.active else { return };
        let stated = first == 0 || packet.push(&Frame::Skip(channel, Sequence(first)));
        for (index, message) in active.messages.iter_mut().enumerate() {
            let sequence = Sequence(first + index as u64);
            if message.state == State::Cancelled || !stated {
                return;
            }
            let part = Part {
                channel,
                sequence,
                payload: &message.payload,
                start: 0,
                end: message.extent(),
            };
            let whole = packet.push_whole(part);
            if !whole {
                return;
            }
            message.state = State::Early;
        }
    }

    fn end_early(&mut self, verdict: EarlyVerdict) {
        let first = self.first();
        let Some(active) = &mut self.active else { return };
        for message in active.messages.iter_mut().filter(|m| m.state == State::Early) {
            match verdict {
                EarlyVerdict::Accepted => message.accept(),
                EarlyVerdict::AcceptedBefore => message.state = State::EarlyAccepted,
                EarlyVerdict::Rejected => message.state = State::Wanted,
            }
        }
        active.unsent = active.unsent.min(first);
    }
}
