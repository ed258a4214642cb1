//! One channel on its way out: what waits, what was sent, and how far it may go.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;

use super::message::{OutMessage, State};
use super::{EarlyVerdict, Settled};
use crate::id::{Channel, Sequence};
use crate::transport::packet::{Carried, Packet, Part};
use crate::transport::ranges::Ranges;
use crate::transport::window::MESSAGE_COST;
use crate::wire::frame::Frame;

/// Room for messages that stays in a queue while they come and go.
const MESSAGES_KEPT: usize = 32;

/// One queue; what it keeps when empty is small.
#[derive(Debug)]
pub(super) struct OutChannel {
    pub(super) channel: Channel,
    pub(super) skip_due: bool,
    /// Sequence of the next message.
    pub(super) next: u64,
    /// Where the messages begun in this session end, laid end to end.
    laid: u64,
    /// Up to where the other end lets us send.
    pub(super) limit: u64,
    /// What cancelled messages take of the window until the other end knows of the SKIP.
    skipped_cost: u64,
    pub(super) active: Option<Box<Active>>,
}

/// What a queue keeps while it holds messages.
#[derive(Debug, Default)]
pub(super) struct Active {
    /// In order, the last one being `next - 1`.
    pub(super) messages: VecDeque<OutMessage>,
    /// Sequences of messages that have lost parts.
    resend: BTreeSet<u64>,
    /// The first message that was not sent to its end.
    unsent: u64,
    /// What the messages begun and not settled take of the window.
    unsettled_cost: u64,
    /// Limit and settled position of the last BLOCKED.
    pub(super) blocked_said: Option<(u64, u64)>,
}

impl OutChannel {
    pub(super) fn new(channel: Channel, limit: u64) -> Self {
        Self { channel, skip_due: false, next: 0, laid: 0, limit, skipped_cost: 0, active: None }
    }

    pub(super) fn first(&self) -> u64 {
        self.next - self.active.as_ref().map_or(0, |active| active.messages.len() as u64)
    }

    pub(super) fn push(&mut self, payload: Bytes) -> Sequence {
        let sequence = self.next;
        let active = self
            .active
            .get_or_insert_with(|| Box::new(Active { unsent: sequence, ..Active::default() }));
        active.messages.push_back(OutMessage::new(payload));
        self.next += 1;
        Sequence(sequence)
    }

    pub(super) fn restart(&mut self, limit: u64) {
        (self.laid, self.limit, self.skipped_cost) = (0, limit, 0);
        self.skip_due = self.next > 0;
        let first = self.first();
        if let Some(active) = &mut self.active {
            active.messages.iter_mut().for_each(OutMessage::restart);
            active.resend = BTreeSet::new();
            (active.unsent, active.unsettled_cost, active.blocked_said) = (first, 0, None);
        }
    }

    pub(super) fn message(&self, sequence: u64) -> Option<&OutMessage> {
        let index = sequence.checked_sub(self.first())?;
        self.active.as_ref()?.messages.get(index as usize)
    }

    pub(super) fn message_mut(&mut self, sequence: u64) -> Option<&mut OutMessage> {
        let index = sequence.checked_sub(self.first())?;
        self.active.as_mut()?.messages.get_mut(index as usize)
    }

    pub(super) fn run(&mut self, first: u64, count: u32) -> impl Iterator<Item = &mut OutMessage> {
        let (from, to) = (self.index_of(first), self.index_of(first + u64::from(count)));
        let active = self.active.as_mut();
        active.into_iter().flat_map(move |active| active.messages.range_mut(from..to))
    }

    /// Where a message lies among those that are not settled, or would.
    fn index_of(&self, sequence: u64) -> usize {
        sequence.min(self.next).saturating_sub(self.first()) as usize
    }

    /// Settles everything below; also says how many messages and bytes that frees.
    pub(super) fn settle(&mut self, below: u64) -> (Settled, usize, usize) {
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
    pub(super) fn cancel(&mut self, sequence: u64) -> Option<usize> {
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
    pub(super) fn on_skip_known(&mut self, below: u64) {
        if below >= self.first() {
            self.skipped_cost = 0;
        }
    }

    pub(super) fn on_lost(&mut self, sequence: u64, start: u32, end: u32) {
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

    pub(super) fn has_work(&self) -> bool {
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
    pub(super) fn room(&self, message: &OutMessage) -> u32 {
        let begun = message.sent > 0;
        let end_of_others = self.laid - if begun { message.cost() } else { 0 };
        let room = self.limit.saturating_sub(end_of_others + MESSAGE_COST);
        if message.payload.is_empty() && self.limit >= end_of_others + MESSAGE_COST {
            return 1;
        }
        (room.min(u32::MAX.into()) as u32).saturating_sub(message.sent)
    }

    /// False when the packet is full.
    pub(super) fn write(&mut self, packet: &mut Packet<'_>) -> bool {
        self.write_lost(packet) && self.write_new(packet) && self.write_blocked(packet)
    }

    pub(super) fn write_lost(&mut self, packet: &mut Packet<'_>) -> bool {
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

    pub(super) fn write_new(&mut self, packet: &mut Packet<'_>) -> bool {
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

    pub(super) fn on_sent(&mut self, sequence: u64, sent: u32) {
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

    pub(super) fn write_early(&mut self, packet: &mut Packet<'_>) {
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

    pub(super) fn end_early(&mut self, verdict: EarlyVerdict) {
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
