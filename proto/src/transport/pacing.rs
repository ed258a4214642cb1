//! Spreads a window over a round trip (RFC 9002 section 7.7) with a bucket of bytes.

use std::time::{Duration, Instant};

/// Packets that may leave back to back: as many as the initial window (RFC 9002 section 7.7).
const BURST_PACKETS: u64 = 10;
/// Timers of a shell are no finer: on a fast path a packet leaves with all that this time allows,
/// which is also what makes trains of them.
const TIMER: Duration = Duration::from_millis(1);
/// A burst must cover the time between two wakeups, one of which may be late.
const WAKEUP: Duration = TIMER.saturating_mul(2);

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
        let wait = Duration::from_secs_f64((wanted / rate.0).min(1.0));
        Some(now + wait.max(TIMER))
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

    const MS: Duration = Duration::from_millis(1);

    /// What leaves in a second, and the most that leaves at one moment.
    fn sent(rate: Rate, packet: u64) -> (u64, u64) {
        let start = origin();
        let (mut pacer, mut now, mut sent, mut burst, mut most) =
            (Pacer::new(start), start, 0, 0, 0);
        while now < start + 1000 * MS {
            match pacer.delay(rate, packet, now) {
                Some(later) => {
                    assert!(later >= now + TIMER, "{:?}", later - now);
                    (now, burst) = (later, 0);
                }
                None => {
                    pacer.spend(packet);
                    (sent, burst) = (sent + packet, burst + packet);
                    most = most.max(burst);
                }
            }
        }
        (sent, most)
    }

    #[test]
    fn a_second_of_sending_takes_a_second_on_slow_and_fast_paths() {
        for rate in [20_000.0, 1e6, 30e6, 1e9] {
            let (sent, most) = sent(Rate(rate), 1000);
            let part = (sent as f64 - 10_000.0) / rate;
            assert!((0.94..=1.01).contains(&part), "{sent} at {rate}");
            let allowed = (rate * 0.002).max(10_000.0) + 1000.0;
            assert!(most as f64 <= allowed, "{most} at once at {rate}");
        }
    }

    #[test]
    fn a_pause_saves_up_no_more_than_a_burst() {
        let (rate, start) = (Rate(1e6), origin());
        let mut pacer = Pacer::new(start);
        pacer.spend(5000);
        let later = start + 60_000 * MS;
        let mut burst = 0;
        while pacer.delay(rate, 1000, later).is_none() {
            pacer.spend(1000);
            burst += 1;
        }
        assert_eq!(burst, BURST_PACKETS);
    }

    #[test]
    fn the_rate_is_the_window_each_round_trip_with_a_margin() {
        assert!((Rate::new(100_000, 50 * MS, false).0 - 2.5e6).abs() < 1.0);
        assert!((Rate::new(100_000, 50 * MS, true).0 - 4e6).abs() < 1.0);
    }
}
