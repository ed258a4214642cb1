//! The sending half of a stream: bytes until they are acknowledged.

use std::collections::VecDeque;

use super::{Carried, StreamKey, WINDOW_FLOOR, push};
use crate::id::StreamId;
use crate::transport::packet::Packet;
use crate::transport::ranges::Ranges;
use crate::wire::codec::varint_len;
use crate::wire::frame::{StreamData, StreamFrame};

/// Fewer bytes are not worth the header of a frame unless there are no more.
const PART_LEN_MIN: u64 = 64;

/// Bytes that were written and not acknowledged, and what is to be said of them.
#[derive(Debug)]
pub(super) struct SendHalf {
    state: State,
    /// What follows `base`.
    buffer: VecDeque<u8>,
    /// Everything below is acknowledged.
    base: u64,
    acked: Ranges<u64>,
    lost: Ranges<u64>,
    /// Positions below were sent.
    sent: u64,
    /// Up to where the other end lets us send.
    limit: u64,
    announcement: Statement,
    end: Statement,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// Bytes may be written.
    Open,
    /// No more are written.
    Finished,
    /// Given up, for this reason.
    Reset(u64),
    /// The other end has everything, or knows that it was given up.
    Settled,
}

/// How far the other end knows of something that is said once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Statement {
    /// There is nothing to say yet.
    Idle,
    Due,
    Said,
    /// What said it got lost.
    Unheard,
    Known,
}

impl Statement {
    fn is_due(self) -> bool {
        matches!(self, Self::Due | Self::Unheard)
    }

    fn say(&mut self) {
        if self.is_due() {
            *self = Self::Said;
        }
    }

    fn lose(&mut self) {
        if *self == Self::Said {
            *self = Self::Unheard;
        }
    }
}

impl SendHalf {
    /// Of a stream that this end opens: the other one is told of it at once.
    pub(super) fn opening() -> Self {
        Self { announcement: Statement::Due, ..Self::accepted() }
    }

    /// Of a stream that the other end opened.
    pub(super) fn accepted() -> Self {
        Self {
            state: State::Open,
            buffer: VecDeque::new(),
            base: 0,
            acked: Ranges::default(),
            lost: Ranges::default(),
            sent: 0,
            limit: WINDOW_FLOOR,
            announcement: Statement::Known,
            end: Statement::Idle,
        }
    }

    /// Bytes kept.
    pub(super) fn held(&self) -> usize {
        self.buffer.len()
    }

    /// Takes bytes while the stream is open.
    pub(super) fn write(&mut self, bytes: &[u8]) {
        if self.state == State::Open {
            self.buffer.extend(bytes);
        }
    }

    pub(super) fn is_open(&self) -> bool {
        self.state == State::Open
    }

    /// Whether the other end has to learn more of it.
    pub(super) fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    /// Whether its end is on its way.
    pub(super) fn is_ending(&self) -> bool {
        self.state == State::Finished
    }

    /// Whether it takes bytes, or has to bring some over.
    pub(super) fn is_alive(&self) -> bool {
        matches!(self.state, State::Open | State::Finished)
    }

    /// Whether the other end cannot know of the stream.
    pub(super) fn is_untold(&self) -> bool {
        self.announcement == Statement::Due
    }

    /// No more bytes follow.
    pub(super) fn finish(&mut self) {
        if self.state == State::Open {
            (self.state, self.end) = (State::Finished, Statement::Due);
        }
    }

    /// Gives up what is not acknowledged.
    pub(super) fn reset(&mut self, code: u64) {
        if self.is_alive() {
            (self.state, self.end) = (State::Reset(code), Statement::Due);
            self.announcement = Statement::Known;
            self.buffer = VecDeque::new();
            (self.acked, self.lost) = (Ranges::default(), Ranges::default());
        }
    }

    /// There is nobody to say anything to.
    pub(super) fn abandon(&mut self) {
        (self.state, self.buffer) = (State::Settled, VecDeque::new());
    }

    pub(super) fn on_window(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }

    /// True when the other end now has everything that was written, and its end.
    pub(super) fn on_acked(&mut self, start: u64, end: u64, fin: bool) -> bool {
        self.announcement = Statement::Known;
        if !self.is_alive() {
            return false;
        }
        self.acked.insert(start.max(self.base), end);
        self.lost.remove(start, end);
        if let Some((low, high)) = self.acked.first()
            && low <= self.base
        {
            self.buffer.drain(..(high - self.base) as usize);
            self.base = high;
            self.acked.remove(0, high);
            self.shrink();
        }
        if fin {
            self.end = Statement::Known;
        }
        let settled = self.end == Statement::Known && self.buffer.is_empty();
        if settled {
            self.state = State::Settled;
        }
        settled
    }

    pub(super) fn on_reset_acked(&mut self) {
        if matches!(self.state, State::Reset(_)) {
            self.state = State::Settled;
        }
    }

    /// These positions are to be sent again, unless they got there in another packet.
    pub(super) fn on_lost(&mut self, start: u64, end: u64, fin: bool) {
        self.announcement.lose();
        if !self.is_alive() {
            return;
        }
        for (start, end) in self.acked.missing(start.max(self.base), end.max(self.base)) {
            self.lost.insert(start, end);
        }
        if fin {
            self.end.lose();
        }
    }

    pub(super) fn on_reset_lost(&mut self) {
        if matches!(self.state, State::Reset(_)) {
            self.end.lose();
        }
    }

    /// Whether any of these positions is not known to have arrived.
    pub(super) fn is_unacked(&self, start: u64, end: u64, fin: bool) -> bool {
        let open = end > self.base && !self.acked.covers(start.max(self.base), end);
        self.is_alive() && (open || fin && self.end != Statement::Known)
            || self.announcement != Statement::Known
    }

    /// Whether `write_frames` would add anything.
    pub(super) fn has_work(&self) -> bool {
        self.announcement.is_due()
            || self.end.is_due() && (self.end_is_near() || !self.is_alive())
            || !self.lost.is_empty()
            || self.sent < self.limit.min(self.total())
    }

    /// False when the packet is full.
    pub(super) fn write_frames(
        &mut self,
        key: StreamKey,
        id: StreamId,
        packet: &mut Packet<'_>,
    ) -> bool {
        if self.end.is_due()
            && let State::Reset(code) = self.state
        {
            let frame = StreamFrame::Reset { id, code, final_size: self.sent };
            if !push(packet, frame, Carried::Reset(key)) {
                return false;
            }
            self.end.say();
        }
        self.write_lost(key, id, packet) && self.write_new(key, id, packet)
    }

    fn write_lost(&mut self, key: StreamKey, id: StreamId, packet: &mut Packet<'_>) -> bool {
        while let Some((start, end)) = self.lost.first() {
            let Some(end) = self.write_part(key, id, (start, end), packet) else { return false };
            self.lost.remove(start, end);
        }
        true
    }

    fn write_new(&mut self, key: StreamKey, id: StreamId, packet: &mut Packet<'_>) -> bool {
        loop {
            let (start, end) = (self.sent, self.limit.min(self.total()).max(self.sent));
            let ends = self.end.is_due() && self.state == State::Finished && end == self.total();
            let says = self.announcement.is_due() || ends;
            if start >= end && !says {
                return true;
            }
            let Some(end) = self.write_part(key, id, (start, end), packet) else { return false };
            self.sent = end;
        }
    }

    /// Adds as many of the positions as fit, and the end of the stream if they reach it; says
    /// where it stopped.
    fn write_part(
        &mut self,
        key: StreamKey,
        id: StreamId,
        (start, end): (u64, u64),
        packet: &mut Packet<'_>,
    ) -> Option<u64> {
        let header = 2 + varint_len(id.0) + varint_len(start) + 2;
        let room = packet.room().checked_sub(header)? as u64;
        let wanted = end - start;
        if room < wanted.min(PART_LEN_MIN) {
            return None;
        }
        let bytes = self.slice(start, wanted.min(room));
        let end = start + bytes.len() as u64;
        let fin = self.state == State::Finished && end == self.total();
        let frame = StreamFrame::Data(StreamData { id, offset: start, fin, bytes });
        let len = bytes.len() as u16;
        if !push(packet, frame, Carried::Data { key, start, len, fin }) {
            return None;
        }
        self.announcement.say();
        if fin {
            self.end.say();
        }
        Some(end)
    }

    /// The bytes from `start` on, at most `len`; fewer where the buffer begins anew.
    fn slice(&self, start: u64, len: u64) -> &[u8] {
        let (front, back) = self.buffer.as_slices();
        let from = (start - self.base) as usize;
        let part = match from.checked_sub(front.len()) {
            None => &front[from..],
            Some(from) => &back[from..],
        };
        &part[..part.len().min(len as usize)]
    }

    /// How many bytes were written in all.
    fn total(&self) -> u64 {
        match self.state {
            State::Open | State::Finished => self.base + self.buffer.len() as u64,
            State::Reset(_) | State::Settled => self.sent,
        }
    }

    /// Whether the window lets the last byte go.
    fn end_is_near(&self) -> bool {
        self.total() <= self.limit
    }

    fn shrink(&mut self) {
        if self.buffer.is_empty() && self.buffer.capacity() > WINDOW_FLOOR as usize {
            self.buffer = VecDeque::new();
        }
    }
}
