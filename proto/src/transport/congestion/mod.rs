//! The congestion window of one path: slow start (RFC 9002 section 7.3.1) with HyStart++, CUBIC
//! after it, one reduction a round trip, taken back when its losses turn out to be none.

mod cubic;
mod hystart;

use std::time::{Duration, Instant};

use cubic::{Acked, Cubic};
use hystart::{HyStart, SlowStart};

/// Packets of the initial window (RFC 9002 section 7.2).
const WINDOW_INITIAL_PACKETS: u32 = 10;
/// Packets of the smallest window (RFC 9002 section 7.2).
const WINDOW_MIN_PACKETS: u32 = 2;
/// Bounds what one path may have in flight, and with it the table of sent packets.
const WINDOW_MAX: f32 = (16 << 20) as f32;

/// Windows are bytes in `f32`: 24 bits of mantissa are exact enough for 16 MiB.
#[derive(Clone, Debug)]
pub(super) struct Congestion {
    window: f32,
    threshold: f32,
    cubic: Cubic,
    /// Boxed, like `undo`: an idle path that never carried much has neither.
    slow_start: Option<Box<HyStart>>,
    /// Packets before this one do not reduce the window again.
    recovery: u64,
    /// Reductions so far.
    events: u32,
    undo: Option<Box<Undo>>,
    usage: Usage,
    packet: u16,
}

/// What the last reduction changed.
#[derive(Clone, Debug)]
struct Undo {
    window: f32,
    threshold: f32,
    cubic: Cubic,
    /// Losses of this reduction that are not known to be errors.
    losses: u32,
}

/// Which reduction a loss belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct LossEvent(u32);

/// How much of the window was in flight in this round trip and the one before.
#[derive(Clone, Copy, Debug, Default)]
struct Usage {
    peak: u32,
    peak_before: u32,
    /// The round ends when this packet is acknowledged.
    round_end: u64,
}

impl Congestion {
    /// A path whose packets hold `packet` bytes.
    pub(super) fn new(packet: u16) -> Self {
        Self {
            window: f32::from(packet) * WINDOW_INITIAL_PACKETS as f32,
            threshold: f32::INFINITY,
            cubic: Cubic::default(),
            slow_start: None,
            recovery: 0,
            events: 0,
            undo: None,
            usage: Usage::default(),
            packet,
        }
    }

    /// Full packets hold so many bytes from now on.
    pub(super) fn set_packet(&mut self, packet: u16) {
        self.packet = packet;
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    /// Whether the window still doubles each round trip.
    pub(super) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// So much is in flight now.
    pub(super) fn on_sent(&mut self, in_flight: u64) {
        let in_flight = u32::try_from(in_flight).unwrap_or(u32::MAX);
        self.usage.peak = self.usage.peak.max(in_flight);
    }

    /// An acknowledgement up to packet `largest` came; `newest` was sent last. `sample`: the
    /// round-trip time it measured.
    pub(super) fn on_progress(&mut self, largest: u64, newest: u64, sample: Option<Duration>) {
        let first = self.threshold == f32::INFINITY;
        if largest >= self.usage.round_end {
            self.usage.peak_before = std::mem::take(&mut self.usage.peak);
            self.usage.round_end = newest;
            if let Some(slow_start) = self.slow_start.as_mut().filter(|_| first) {
                slow_start.on_round();
            }
        }
        // Only the first slow start knows nothing of the path (RFC 9406 section 4.3).
        if let Some(sample) = sample.filter(|_| first && self.is_used()) {
            self.slow_start.get_or_insert_with(|| Box::new(HyStart::new())).on_sample(sample);
        }
    }

    /// `bytes` in packet `count` were acknowledged.
    pub(super) fn on_ack(&mut self, bytes: u64, count: u64, rtt: Duration, now: Instant) {
        if count < self.recovery {
            return;
        }
        if !self.is_used() {
            return self.cubic.pause();
        }
        if self.in_slow_start() {
            self.start_slowly(bytes as f32);
        } else {
            let acked = Acked { bytes: bytes as f32, rtt, packet: self.packet.into() };
            self.window = self.cubic.grow(self.window, acked, now).min(WINDOW_MAX);
        }
    }

    /// Packet `count` was lost; `next` is the next to be sent.
    pub(super) fn on_loss(&mut self, count: u64, next: u64) -> LossEvent {
        if count >= self.recovery {
            self.reduce();
            self.recovery = next;
        }
        if let Some(undo) = &mut self.undo {
            undo.losses += 1;
        }
        LossEvent(self.events)
    }

    /// Packets up to `count` met a long queue: reduces as their loss would, once a round trip,
    /// and is never taken back.
    pub(super) fn on_mark(&mut self, count: u64, next: u64) {
        self.on_loss(count, next);
    }

    /// A packet that counted as lost was acknowledged. When all losses of a reduction were
    /// errors it is taken back (RFC 9438 section 4.9).
    pub(super) fn on_spurious_loss(&mut self, event: LossEvent) {
        if event != LossEvent(self.events) {
            return;
        }
        let Some(undo) = &mut self.undo else { return };
        undo.losses = undo.losses.saturating_sub(1);
        if undo.losses > 0 {
            return;
        }
        if let Some(before) = self.undo.take()
            && self.window < before.window
        {
            self.window = before.window;
            self.threshold = before.threshold;
            self.cubic = before.cubic;
            self.recovery = 0;
        }
    }

    /// A loss is not remembered any longer: nobody will know whether it was one.
    pub(super) fn on_forgotten_loss(&mut self, event: LossEvent) {
        if event == LossEvent(self.events) {
            self.undo = None;
        }
    }

    /// Everything sent over three probe timeouts was lost (RFC 9002 section 7.6).
    pub(super) fn on_persistent_congestion(&mut self) {
        self.threshold = self.threshold.min(self.window);
        self.window = self.minimum();
        self.cubic.forget();
        self.undo = None;
    }

    /// What to begin with where this one was in use until lately: as after a loss, for nobody
    /// knows what the route did meanwhile.
    pub(super) fn resumed(&self) -> Self {
        let mut resumed = self.clone();
        resumed.reduce();
        resumed.rest();
        (resumed.recovery, resumed.usage) = (0, Usage::default());
        resumed
    }

    /// Nothing is in flight: what only matters meanwhile is let go.
    pub(super) fn rest(&mut self) {
        self.cubic.pause();
        (self.undo, self.slow_start) = (None, None);
    }

    fn start_slowly(&mut self, bytes: f32) {
        match self.slow_start.as_ref().map_or(SlowStart::Goes(1.0), |start| start.verdict()) {
            SlowStart::Goes(divisor) => {
                let wanted = self.window + bytes / divisor;
                self.window = wanted.min(self.threshold).min(WINDOW_MAX);
            }
            SlowStart::Ends => self.threshold = self.window,
        }
        if !self.in_slow_start() {
            self.slow_start = None;
        }
    }

    fn reduce(&mut self) {
        let before = (self.window, self.threshold, self.cubic.clone());
        self.events = self.events.wrapping_add(1);
        self.window = self.cubic.reduce(self.window).max(self.minimum());
        self.threshold = self.window;
        let (window, threshold, cubic) = before;
        self.undo = Some(Box::new(Undo { window, threshold, cubic, losses: 0 }));
    }

    /// Whether it is the window that bounds what is in flight. Growing on while the application
    /// sends less would say nothing of the path (RFC 9002 section 7.8).
    fn is_used(&self) -> bool {
        let peak = self.usage.peak.max(self.usage.peak_before) as f32;
        // Slow start may run ahead of the application by one doubling; pacing may leave a gap.
        peak >= self.window * if self.in_slow_start() { 0.5 } else { 0.875 }
    }

    fn minimum(&self) -> f32 {
        f32::from(self.packet) * WINDOW_MIN_PACKETS as f32
    }
}

#[cfg(test)]
mod tests;
