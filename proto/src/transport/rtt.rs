//! Round-trip time of one path (RFC 9002 section 5) and the probe timeout it implies.

use std::time::Duration;

/// Longest time an acknowledgement is held back by either end.
pub(super) const ACK_DELAY_MAX: Duration = Duration::from_millis(25);
/// Timers of a shell are rarely finer (RFC 9002 section 6.1.2).
pub(super) const GRANULARITY: Duration = Duration::from_millis(1);
/// Guess before anything is known (RFC 9002 section 6.2.2).
const RTT_INITIAL: Duration = Duration::from_millis(333);
/// What took longer was no journey: the clock jumped meanwhile, or the machine slept. Taken for a
/// round trip, an hour's jump would put off the loss of the last packet by an hour.
const SAMPLE_MAX: Duration = Duration::from_secs(10);

/// Smoothed round-trip time. Microseconds in 32 bits: 71 minutes, small in an idle session.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rtt {
    smoothed_us: u32,
    variation_us: u32,
    minimum_us: u32,
    latest_us: u32,
    knowledge: Knowledge,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Knowledge {
    Guessed,
    Measured,
}

impl Rtt {
    /// Nothing is known.
    pub(super) fn new() -> Self {
        Self::guess(RTT_INITIAL)
    }

    /// Somebody who measured the route otherwise says it is about this.
    pub(super) fn guess(rtt: Duration) -> Self {
        let us = micros(rtt);
        Self {
            smoothed_us: us,
            variation_us: us / 2,
            minimum_us: us,
            latest_us: us,
            knowledge: Knowledge::Guessed,
        }
    }

    /// An acknowledgement came `latest` after its packet; the other end held it for `delay`.
    pub(super) fn update(&mut self, latest: Duration, delay: Duration) {
        if latest > SAMPLE_MAX {
            return;
        }
        let latest_us = micros(latest).max(1);
        self.latest_us = latest_us;
        if self.knowledge == Knowledge::Guessed {
            *self = Self { knowledge: Knowledge::Measured, ..Self::guess(latest) };
            return;
        }
        self.minimum_us = self.minimum_us.min(latest_us);
        let delay_us = micros(delay.min(ACK_DELAY_MAX));
        let plausible = latest_us >= self.minimum_us.saturating_add(delay_us);
        let adjusted = if plausible { latest_us - delay_us } else { latest_us };
        let deviation = self.smoothed_us.abs_diff(adjusted);
        self.variation_us = blend(self.variation_us, deviation, 4);
        self.smoothed_us = blend(self.smoothed_us, adjusted, 8);
    }

    /// After persistent congestion the next sample is the minimum (RFC 9002 section 5.2).
    pub(super) fn forget_minimum(&mut self) {
        self.minimum_us = u32::MAX;
    }

    /// The smoothed value, once measured.
    pub(super) fn measured(&self) -> Option<Duration> {
        (self.knowledge == Knowledge::Measured).then(|| self.smoothed())
    }

    /// The smoothed value, or the guess.
    pub(super) fn smoothed(&self) -> Duration {
        Duration::from_micros(self.smoothed_us.into())
    }

    /// How much later than a packet sent after it a packet may be acknowledged before it counts
    /// as lost (RFC 9002 section 6.1.2).
    pub(super) fn loss_delay(&self) -> Duration {
        let us = u64::from(self.smoothed_us.max(self.latest_us));
        Duration::from_micros(us * 9 / 8).max(GRANULARITY)
    }

    /// RFC 9002 section 6.2.1, before backoff.
    pub(super) fn probe_timeout(&self) -> Duration {
        let variation = Duration::from_micros(u64::from(self.variation_us) * 4);
        self.smoothed() + variation.max(GRANULARITY) + ACK_DELAY_MAX
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn blend(old: u32, new: u32, weight: u64) -> u32 {
    ((u64::from(old) * (weight - 1) + u64::from(new)) / weight) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_first_sample_replaces_the_guess() {
        let mut rtt = Rtt::new();
        assert_eq!(rtt.measured(), None);
        assert!(rtt.probe_timeout() >= 999 * MS);
        rtt.update(40 * MS, 25 * MS);
        assert_eq!(rtt.measured(), Some(40 * MS));
        assert_eq!(rtt.probe_timeout(), (40 + 80 + 25) * MS);
    }

    #[test]
    fn a_stated_delay_is_taken_off_unless_impossible() {
        let mut rtt = Rtt::new();
        rtt.update(40 * MS, Duration::ZERO);
        rtt.update(56 * MS, 16 * MS);
        assert_eq!(rtt.measured(), Some(40 * MS));
        rtt.update(40 * MS, 20 * MS);
        assert_eq!(rtt.measured(), Some(40 * MS));
    }

    #[test]
    fn a_clock_that_jumped_measures_nothing() {
        let mut rtt = Rtt::new();
        rtt.update(40 * MS, Duration::ZERO);
        rtt.update(Duration::from_secs(3600), Duration::ZERO);
        assert_eq!((rtt.measured(), rtt.probe_timeout()), (Some(40 * MS), (40 + 80 + 25) * MS));
    }
}
