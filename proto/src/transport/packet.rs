//! A packet while it is being filled, and what is remembered of it afterwards.

use std::time::Instant;

use smallvec::SmallVec;

use super::{ControlFrame, stream};
use crate::id::{Channel, PathId, Sequence};
use crate::wire::codec::varint_len;
use crate::wire::frame::{Frame, Message};

/// Fragments shorter than this are not worth their header unless they end a message.
const FRAGMENT_LEN_MIN: usize = 64;

/// Type, channel, sequence and length of a whole message that fits a datagram.
const WHOLE_HEADER_MAX: usize = 12;

/// What a sent packet carried: enough to settle it or to queue it again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Carried {
    /// Positions of a message; an empty message has the one position 0.
    Data {
        channel: Channel,
        sequence: Sequence,
        start: u32,
        end: u32,
    },
    /// Whole messages in a row: small ones cost a packet no memory each.
    Whole {
        channel: Channel,
        first: Sequence,
        count: u32,
    },
    Receipt(Channel, u64),
    Skip(Channel, u64),
    Window(Channel, u64),
    Blocked(Channel),
    Control(Box<ControlFrame>),
    Stream(stream::Carried),
    /// An ACK of `path` up to `largest`.
    Ack {
        path: PathId,
        largest: u64,
    },
}

/// All that a packet carried. A busy one has an ACK, a RECEIPT and data: those take nothing on the
/// heap.
pub(super) type Load = SmallVec<[Carried; 3]>;

/// An ack-eliciting packet that is neither acknowledged nor lost.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) count: u64,
    pub(super) at: Instant,
    pub(super) size: u16,
    /// Its place among the ack-eliciting packets of the path, modulo 2^32.
    pub(super) ordinal: u32,
    pub(super) carried: Load,
}

/// Frames go to the end of `out`, at most `len_max` bytes of them.
pub(super) struct Packet<'a> {
    out: &'a mut Vec<u8>,
    start: usize,
    len_max: usize,
    eliciting: bool,
    pub(super) carried: Load,
}

impl<'a> Packet<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>, len_max: usize) -> Self {
        let start = out.len();
        Self { out, start, len_max, eliciting: false, carried: Load::new() }
    }

    /// Bytes so far.
    pub(super) fn len(&self) -> usize {
        self.out.len() - self.start
    }

    /// Bytes that still fit.
    pub(super) fn room(&self) -> usize {
        self.len_max.saturating_sub(self.len())
    }

    /// Bytes that an empty one holds.
    pub(super) fn len_max(&self) -> usize {
        self.len_max
    }

    /// Whether the other end has to acknowledge this packet.
    pub(super) fn is_ack_eliciting(&self) -> bool {
        self.eliciting
    }

    /// Adds the frame if it fits.
    pub(super) fn push(&mut self, frame: &Frame<'_>) -> bool {
        let before = self.out.len();
        frame.encode(self.out);
        if self.len() > self.len_max {
            self.out.truncate(before);
            return false;
        }
        self.eliciting |= frame.is_ack_eliciting();
        true
    }

    /// Adds the frame if it fits, and remembers it.
    pub(super) fn push_carried(&mut self, frame: &Frame<'_>, carried: Carried) -> bool {
        let fits = self.push(frame);
        if fits {
            self.carried.push(carried);
        }
        fits
    }

    /// Takes everything back that was added.
    pub(super) fn abandon(self) {
        self.out.truncate(self.start);
    }

    /// Adds positions `start..end` of a message, or as many of them as fit; says where it
    /// ended. A message that fits a packet is never divided.
    pub(super) fn push_data(&mut self, part: Part<'_>) -> Option<u32> {
        let Part { channel, sequence, payload, start, end } = part;
        let total = payload.len();
        let names = 2 + varint_len(sequence.0);
        let whole = names + varint_len(total as u64) + total;
        if start == 0 && end as usize >= total && whole <= self.room() {
            self.put(part, total);
            return Some(end);
        }
        if whole <= self.len_max {
            let divided = start > 0 || (end as usize) < total;
            let header = self.fragment_header(part);
            if !divided || header + (end - start) as usize > self.room() {
                return None;
            }
        }
        let header = self.fragment_header(part);
        let wanted = (end - start) as usize;
        let room = self.room().checked_sub(header)?.min(wanted);
        if room < wanted.min(FRAGMENT_LEN_MIN) {
            return None;
        }
        self.put(Part { channel, sequence, payload, start, end }, start as usize + room);
        Some(start + room as u32)
    }

    /// Adds a message only if all of it fits.
    pub(super) fn push_whole(&mut self, part: Part<'_>) -> bool {
        let total = part.payload.len();
        let len = 2 + varint_len(part.sequence.0) + varint_len(total as u64) + total;
        let fits = len <= self.room();
        if fits {
            self.put(part, total);
        }
        fits
    }

    /// Whether an otherwise empty packet has room for a message of this length.
    pub(super) fn holds_whole(&self, total: usize) -> bool {
        total + WHOLE_HEADER_MAX <= self.len_max
    }

    fn fragment_header(&self, part: Part<'_>) -> usize {
        2 + varint_len(part.sequence.0)
            + varint_len(part.payload.len() as u64)
            + varint_len(part.start.into())
            + varint_len(self.len_max as u64)
    }

    fn put(&mut self, part: Part<'_>, end: usize) {
        let Part { channel, sequence, payload, start, .. } = part;
        let bytes = &payload[start as usize..end];
        let total = payload.len() as u64;
        let offset = u64::from(start);
        Frame::Message(Message { channel, sequence, total, offset, bytes }).encode(self.out);
        self.eliciting = true;
        if start == 0 && end == payload.len() {
            self.note_whole(channel, sequence);
        } else {
            let end = end as u32;
            self.carried.push(Carried::Data { channel, sequence, start, end });
        }
    }

    fn note_whole(&mut self, channel: Channel, sequence: Sequence) {
        if let Some(Carried::Whole { channel: of, first, count }) = self.carried.last_mut()
            && *of == channel
            && first.0 + u64::from(*count) == sequence.0
        {
            *count += 1;
            return;
        }
        self.carried.push(Carried::Whole { channel, first: sequence, count: 1 });
    }
}

/// Positions of a message that shall be sent.
#[derive(Clone, Copy)]
pub(super) struct Part<'a> {
    pub(super) channel: Channel,
    pub(super) sequence: Sequence,
    pub(super) payload: &'a [u8],
    pub(super) start: u32,
    pub(super) end: u32,
}
