//! The receiving half of a stream: reassembly, order and credit.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Read, StreamError, WINDOW_FLOOR, WINDOW_GROWTH_EACH};
use crate::transport::FrameError;
use crate::transport::ranges::Ranges;
use crate::transport::receive::Part;
use crate::wire::frame::StreamData;

/// Holes in one stream: more than packets of a full window can cause. Beyond it parts are not
/// acknowledged and come again.
const HOLES_MAX: usize = 4 << 10;

/// Bytes that came and were not read, and what the other end may send.
#[derive(Debug)]
pub(super) struct ReceiveHalf {
    state: State,
    /// What follows `base`, holes included.
    ring: VecDeque<u8>,
    /// Everything below was read.
    base: u64,
    got: Ranges<u64>,
    /// Where the last byte that came ends.
    highest: u64,
    final_size: Option<u64>,
    limit: u64,
    /// What the window has beyond [`WINDOW_FLOOR`].
    growth: u64,
    /// When the limit was raised last.
    raised: Option<Instant>,
    /// Whether the owner was told to read.
    announced: bool,
    stop: Stop,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Open,
    /// The other end gave it up.
    Reset(u64),
    /// The other end is gone.
    Lost,
    /// Nobody reads here.
    Stopped,
    /// Read to its end, or the owner knows that there is none.
    Settled,
}

/// How far the other end knows that nobody reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stop {
    Idle,
    Due(u64),
    Said(u64),
}

impl ReceiveHalf {
    pub(super) fn new() -> Self {
        Self {
            state: State::Open,
            ring: VecDeque::new(),
            base: 0,
            got: Ranges::default(),
            highest: 0,
            final_size: None,
            limit: WINDOW_FLOOR,
            growth: 0,
            raised: None,
            announced: false,
            stop: Stop::Idle,
        }
    }

    pub(super) fn limit(&self) -> u64 {
        self.limit
    }

    pub(super) fn is_settled(&self) -> bool {
        self.state == State::Settled
    }

    /// Whether bytes may still come, or wait to be read.
    pub(super) fn is_alive(&self) -> bool {
        self.state == State::Open
    }

    /// Whether bytes are still to come.
    pub(super) fn is_waiting(&self) -> bool {
        self.state == State::Open && !self.is_complete()
    }

    /// What the window has beyond the floor, given back.
    pub(super) fn take_growth(&mut self) -> u64 {
        std::mem::take(&mut self.growth)
    }

    /// Stores bytes of the stream.
    pub(super) fn on_data(&mut self, data: &StreamData<'_>) -> Result<Part, FrameError> {
        let end = data.offset + data.bytes.len() as u64;
        self.check_end(end, data.fin)?;
        if data.fin {
            self.final_size = Some(end);
        }
        let start = data.offset.max(self.base);
        if self.state != State::Open || (start >= end && !data.fin) {
            return Ok(self.note_end(Part::Repeated));
        }
        if start < end {
            self.highest = self.highest.max(end);
            let fresh = self.got.insert(start, end);
            if self.got.len() > HOLES_MAX {
                // It stands alone, or it would have closed a hole rather than made one.
                self.got.remove(start, end);
                return Ok(Part::Refused);
            }
            if fresh == 0 {
                return Ok(Part::Repeated);
            }
            self.store(start, &data.bytes[(start - data.offset) as usize..]);
        }
        Ok(Part::Stored)
    }

    /// The other end gives the stream up. What had arrived to the end stays.
    pub(super) fn on_reset(&mut self, code: u64, final_size: u64) -> Result<(), FrameError> {
        self.check_end(final_size, true)?;
        let complete = self.is_complete();
        self.final_size = Some(final_size);
        match self.state {
            State::Open if !complete => {
                self.drop_bytes();
                self.state = State::Reset(code);
            }
            State::Stopped | State::Lost => self.state = State::Settled,
            State::Open | State::Reset(_) | State::Settled => {}
        }
        Ok(())
    }

    /// The next bytes, at most `max`, which is not 0.
    pub(super) fn read(&mut self, max: usize) -> Result<Read, StreamError> {
        match self.state {
            State::Open => {}
            State::Reset(code) => {
                self.state = State::Settled;
                return Err(StreamError::Reset(code));
            }
            State::Lost => return Err(StreamError::Lost),
            State::Stopped | State::Settled => return Err(StreamError::Closed),
        }
        let len = self.ready().min(max as u64) as usize;
        if len > 0 {
            return Ok(Read::Bytes(self.take(len)));
        }
        if self.final_size == Some(self.base) {
            self.state = State::Settled;
            return Ok(Read::End);
        }
        self.announced = false;
        Ok(Read::Pending)
    }

    /// Nobody reads here any more. False when that makes no difference.
    pub(super) fn stop(&mut self, code: u64) -> bool {
        match self.state {
            State::Open if self.final_size.is_none() => {
                self.drop_bytes();
                (self.state, self.stop) = (State::Stopped, Stop::Due(code));
            }
            State::Open | State::Reset(_) => {
                self.drop_bytes();
                self.state = State::Settled;
            }
            State::Stopped | State::Lost | State::Settled => return false,
        }
        true
    }

    /// The other end is gone: what is not complete never will be.
    pub(super) fn lose(&mut self, code: u64) {
        if self.is_waiting() {
            self.drop_bytes();
            (self.state, self.stop) = (State::Lost, Stop::Due(code));
        }
    }

    /// The reason in the STOP_SENDING that is due.
    pub(super) fn stop_due(&self) -> Option<u64> {
        match self.stop {
            Stop::Due(code) => Some(code),
            Stop::Idle | Stop::Said(_) => None,
        }
    }

    pub(super) fn stop_said(&mut self) {
        if let Stop::Due(code) = self.stop {
            self.stop = Stop::Said(code);
        }
    }

    pub(super) fn on_stop_acked(&mut self) {
        self.stop = Stop::Idle;
        if matches!(self.state, State::Stopped | State::Lost) {
            self.state = State::Settled;
        }
    }

    pub(super) fn on_stop_lost(&mut self) {
        if let Stop::Said(code) = self.stop
            && !self.is_settled()
        {
            self.stop = Stop::Due(code);
        }
    }

    /// True once until the owner has found nothing more to read.
    pub(super) fn announce(&mut self) -> bool {
        let readable = match self.state {
            State::Open => self.ready() > 0 || self.final_size == Some(self.base),
            State::Reset(_) => true,
            State::Lost | State::Stopped | State::Settled => false,
        };
        readable && !std::mem::replace(&mut self.announced, true)
    }

    /// Raises the limit when half the window was read, and the window too, out of `pool`, when
    /// that took less than two round trips. True when there is a new limit.
    pub(super) fn refresh(&mut self, pool: &mut u64, rtt: Duration, now: Instant) -> bool {
        let window = WINDOW_FLOOR + self.growth;
        let wanted = self.state == State::Open && self.final_size.is_none();
        if !wanted || self.base + window < self.limit + window / 2 {
            return false;
        }
        let fast = self.raised.is_some_and(|at| now.saturating_duration_since(at) < 2 * rtt);
        if fast {
            let more = window.min(*pool).min(WINDOW_GROWTH_EACH - self.growth);
            *pool -= more;
            self.growth += more;
        }
        self.raised = Some(now);
        self.limit = self.base + WINDOW_FLOOR + self.growth;
        true
    }

    /// Whether everything up to the end has come.
    fn is_complete(&self) -> bool {
        self.final_size.is_some_and(|size| self.base + self.ready() == size)
    }

    /// Bytes that can be read.
    fn ready(&self) -> u64 {
        let first = self.got.first().filter(|(low, _)| *low <= self.base);
        first.map_or(0, |(_, high)| high - self.base)
    }

    fn take(&mut self, len: usize) -> Bytes {
        let (front, back) = self.ring.as_slices();
        let from_front = len.min(front.len());
        let mut bytes = Vec::with_capacity(len);
        bytes.extend_from_slice(&front[..from_front]);
        bytes.extend_from_slice(&back[..len - from_front]);
        self.ring.drain(..len);
        self.base += len as u64;
        self.got.remove(0, self.base);
        if self.ring.is_empty() && self.ring.capacity() > WINDOW_FLOOR as usize {
            self.ring = VecDeque::new();
        }
        bytes.into()
    }

    /// Puts bytes, none of them below `base`, where they belong.
    fn store(&mut self, start: u64, bytes: &[u8]) {
        let at = (start - self.base) as usize;
        if at >= self.ring.len() {
            self.ring.resize(at, 0);
            self.ring.extend(bytes);
            return;
        }
        let end = at + bytes.len();
        if end > self.ring.len() {
            self.ring.resize(end, 0);
        }
        let (front, back) = self.ring.as_mut_slices();
        let in_front = front.len().saturating_sub(at).min(bytes.len());
        let at_front = at.min(front.len());
        front[at_front..][..in_front].copy_from_slice(&bytes[..in_front]);
        let from = at.saturating_sub(front.len());
        back[from..][..bytes.len() - in_front].copy_from_slice(&bytes[in_front..]);
    }

    fn check_end(&self, end: u64, fin: bool) -> Result<(), FrameError> {
        if end > self.limit {
            return Err(FrameError(400, "beyond the window of a stream"));
        }
        let wrong = match self.final_size {
            Some(size) => end > size || fin && end != size,
            None => fin && end < self.highest,
        };
        if wrong {
            return Err(FrameError(400, "two final sizes of a stream"));
        }
        Ok(())
    }

    /// A stream that nobody reads is over when its end is known.
    fn note_end(&mut self, part: Part) -> Part {
        if self.final_size.is_some() && matches!(self.state, State::Stopped | State::Lost) {
            self.state = State::Settled;
        }
        part
    }

    fn drop_bytes(&mut self) {
        self.ring = VecDeque::new();
        self.got = Ranges::default();
    }
}
