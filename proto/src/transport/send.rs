//! Messages on their way out: queues per channel, what was sent, acknowledged and lost of each,
//! and how far the other end lets a channel go.

mod channel;
mod message;

use bytes::Bytes;

use self::channel::OutChannel;
use self::message::{OutMessage, State};
use super::packet::{Carried, Packet, Part};
use super::{Config, FrameError, SendError};
use crate::id::{Channel, PathId, Sequence};
use crate::wire::frame::Frame;

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
