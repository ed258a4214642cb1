//! Spreads a window over a round trip (RFC 9002 section 7.7) with a bucket of bytes.

use std::time::{Duration, Instant};

/// Packets that may leave back to back: as many as the initial window.
const BURST_PACKETS: u64 = 10;
/// Shells wake with about this precision; a burst must cover the time between two wakeups.
const WAKEUP: Duration = Duration::from_millis(2);

/// May be overdrawn by one packet.
#[derive(Clone, Debug)]
pub(super) struct Pacer {
    tokens: i64,
    at: Instant,
}

/// Bytes a second that a path should send.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate(f64);

impl Rate {
    /// `window` bytes each `rtt`, with a margin so that pacing is never what limits: twice in
    /// slow start, five quarters later.
    pub(super) fn new(window: u64, rtt: Duration, slow_start: bool) -> Self {
        let margin = if slow_start { 2.0 } else { 1.25 };
        Self(margin * window as f64 / rtt.as_secs_f64().max(1e-6))
    }
}

impl Pacer {
    /// A full bucket.
    pub(super) fn new(now: Instant) -> Self {
        Self { tokens: i64::MAX, at: now }
    }

    /// When the next packet may leave: `None` for now.
    pub(super) fn delay(&mut self, rate: Rate, packet: u64, now: Instant) -> Option<Instant> {
        self.refill(rate, packet, now);
        if self.tokens > 0 {
            return None;
        }
        let wanted = (1 - self.tokens) as f64 + packet as f64;
        let wait = Duration::from_secs_f64((wanted / rate.0).clamp(1e-6, 1.0));
        Some(now + wait)
    }

    /// A packet of this size leaves.
    pub(super) fn spend(&mut self, bytes: u64) {
        self.tokens = self.tokens.saturating_sub(bytes as i64);
    }

    fn refill(&mut self, rate: Rate, packet: u64, now: Instant) {
        let elapsed = now.saturating_duration_since(self.at).as_secs_f64();
        let burst = ((rate.0 * WAKEUP.as_secs_f64()) as u64).max(BURST_PACKETS * packet) as i64;
        let fresh = (elapsed * rate.0).min(burst as f64) as i64;
        if fresh > 0 || self.tokens > burst {
            self.tokens = self.tokens.saturating_add(fresh).min(burst);
            self.at = now;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transport::tests::origin;

    #[test]
    fn a_second_of_sending_takes_a_second() {
        let start = origin();
        let rate = Rate(1_000_000.0);
        let (mut pacer, mut now, mut sent) = (Pacer::new(start), start, 0u64);
        while now < start + Duration::from_secs(1) {
            match pacer.delay(rate, 1000, now) {
                Some(later) => now = later,
                None => {
                    pacer.spend(1000);
                    sent += 1000;
                }
            }
        }
        assert!((990_000..=1_020_000).contains(&sent), "{sent}");
    }
}
