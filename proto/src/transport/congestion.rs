//! The congestion window of one path: slow start, CUBIC (RFC 9438), one reduction a round trip.

use std::time::{Duration, Instant};

/// Window increase constant (RFC 9438 section 4.1), segments per second cubed.
const CUBIC_C: f32 = 0.4;
/// Multiplicative decrease (RFC 9438 section 4.6).
const BETA: f32 = 0.7;
/// Packets of the initial window (RFC 9002 section 7.2).
const WINDOW_INITIAL_PACKETS: u32 = 10;
/// Packets of the smallest window (RFC 9002 section 7.2).
const WINDOW_MIN_PACKETS: u32 = 2;
/// Bounds what one path may have in flight, and with it the table of sent packets.
const WINDOW_MAX: f32 = (16 << 20) as f32;

/// Bytes are kept as `f32`: 24 bits of mantissa are exact enough for a window of 16 MiB.
#[derive(Clone, Debug)]
pub(super) struct Cubic {
    window: f32,
    threshold: f32,
    window_before_loss: f32,
    /// What RENO would have reached (RFC 9438 section 4.3).
    reno: f32,
    epoch: Option<Instant>,
    /// Packets sent before this do not reduce the window again.
    recovery: Option<Instant>,
    packet: u16,
}

impl Cubic {
    /// A path whose packets hold `packet` bytes.
    pub(super) fn new(packet: u16) -> Self {
        Self {
            window: f32::from(packet) * WINDOW_INITIAL_PACKETS as f32,
            threshold: f32::INFINITY,
            window_before_loss: 0.0,
            reno: 0.0,
            epoch: None,
            recovery: None,
            packet,
        }
    }

    /// Bytes that may be in flight.
    pub(super) fn window(&self) -> u64 {
        self.window as u64
    }

    /// Whether the window still doubles each round trip.
    pub(super) fn in_slow_start(&self) -> bool {
        self.window < self.threshold
    }

    /// `bytes` sent at `sent` were acknowledged while the window was well used.
    pub(super) fn on_ack(&mut self, bytes: u64, sent: Instant, rtt: Duration, now: Instant) {
        if self.recovery.is_some_and(|recovery| sent <= recovery) {
            return;
        }
        if self.in_slow_start() {
            self.window = (self.window + bytes as f32).min(WINDOW_MAX);
        } else {
            self.avoid_congestion(bytes as f32, rtt, now);
        }
    }

    /// A packet sent at `sent` was lost.
    pub(super) fn on_loss(&mut self, sent: Instant, now: Instant) {
        if self.recovery.is_some_and(|recovery| sent <= recovery) {
            return;
        }
        self.recovery = Some(now);
        self.epoch = None;
        let converging = self.window < self.window_before_loss;
        let peak = if converging { self.window * (1.0 + BETA) / 2.0 } else { self.window };
        self.window_before_loss = peak;
        self.window = (self.window * BETA).max(self.minimum());
        self.threshold = self.window;
    }

    /// Everything sent over three probe timeouts was lost (RFC 9002 section 7.6).
    pub(super) fn on_persistent_congestion(&mut self) {
        self.threshold = self.threshold.min(self.window);
        self.window = self.minimum();
        self.recovery = None;
        self.epoch = None;
    }

    fn avoid_congestion(&mut self, acked: f32, rtt: Duration, now: Instant) {
        let packet = f32::from(self.packet);
        if self.epoch.is_none() {
            self.epoch = Some(now);
            self.reno = self.window;
            self.window_before_loss = self.window_before_loss.max(self.window);
        }
        let epoch = self.epoch.unwrap_or(now);
        let elapsed = (now.saturating_duration_since(epoch) + rtt).as_secs_f32();
        let rise = (self.window_before_loss - self.threshold).max(0.0) / packet;
        let start = (rise / CUBIC_C).cbrt();
        let cubic = CUBIC_C * (elapsed - start).powi(3) * packet + self.window_before_loss;
        // RFC 9438 section 4.3: this slope makes it as aggressive as RENO on short paths.
        self.reno += 3.0 * (1.0 - BETA) / (1.0 + BETA) * packet * acked / self.window;
        let target = cubic.clamp(self.window, 1.5 * self.window);
        self.window += (target - self.window) * acked / self.window;
        self.window = self.window.max(self.reno).min(WINDOW_MAX);
    }

    fn minimum(&self) -> f32 {
        f32::from(self.packet) * WINDOW_MIN_PACKETS as f32
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::origin;

    const RTT: Duration = Duration::from_millis(50);

    #[test]
    fn slow_start_doubles_and_one_loss_reduces_once() {
        let start = origin();
        let mut cubic = Cubic::new(1000);
        cubic.on_ack(10_000, start, RTT, start + RTT);
        assert_eq!(cubic.window(), 20_000);
        cubic.on_loss(start + RTT, start + 2 * RTT);
        cubic.on_loss(start + RTT, start + 2 * RTT);
        assert_eq!(cubic.window(), 14_000);
        assert!(!cubic.in_slow_start());
    }

    #[test]
    fn avoidance_comes_back_to_the_old_window_and_beyond() {
        let start = origin();
        let mut cubic = Cubic::new(1000);
        cubic.on_ack(190_000, start, RTT, start);
        cubic.on_loss(start, start);
        let mut now = start;
        for _ in 0..400 {
            now += RTT;
            cubic.on_ack(cubic.window(), now, RTT, now);
        }
        assert!(cubic.window() > 200_000, "{}", cubic.window());
    }

    #[test]
    fn the_window_never_falls_below_two_packets() {
        let start = origin();
        let mut cubic = Cubic::new(1000);
        for step in 1..20 {
            cubic.on_loss(start + step * RTT, start + step * RTT);
        }
        assert_eq!(cubic.window(), 2000);
        cubic.on_persistent_congestion();
        assert_eq!(cubic.window(), 2000);
    }
}
