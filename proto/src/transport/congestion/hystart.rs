//! HyStart++ (RFC 9406): leaves the first slow start when the round-trip time begins to grow,
//! before the queue of the bottleneck overflows.

use std::time::Duration;

/// Bounds of the growth that counts, microseconds (MIN_RTT_THRESH, MAX_RTT_THRESH).
const GROWTH_US: (u32, u32) = (4_000, 16_000);
/// The growth that counts as a part of the round-trip time (MIN_RTT_DIVISOR).
const GROWTH_DIVISOR: u32 = 8;
/// Samples of a round before it says anything (N_RTT_SAMPLE).
const SAMPLES_MIN: u8 = 8;
/// How much slower a cautious round grows (CSS_GROWTH_DIVISOR).
const CAUTIOUS_DIVISOR: f32 = 4.0;
/// Cautious rounds before slow start ends (CSS_ROUNDS).
const CAUTIOUS_ROUNDS: u8 = 5;

/// Rounds of slow start. A round ends when a packet sent after its start is acknowledged.
#[derive(Clone, Debug)]
pub(super) struct HyStart {
    last_min_us: u32,
    min_us: u32,
    samples: u8,
    cautious: Option<Cautious>,
}

/// Conservative slow start: the delay grew, perhaps by chance.
#[derive(Clone, Copy, Debug)]
struct Cautious {
    baseline_us: u32,
    rounds: u8,
}

/// How slow start goes on.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum SlowStart {
    /// The window grows by the acknowledged bytes divided by this.
    Goes(f32),
    /// The window is about right.
    Ends,
}

impl HyStart {
    pub(super) fn new() -> Self {
        Self { last_min_us: u32::MAX, min_us: u32::MAX, samples: 0, cautious: None }
    }

    /// A round ended.
    pub(super) fn on_round(&mut self) {
        self.last_min_us = std::mem::replace(&mut self.min_us, u32::MAX);
        self.samples = 0;
        if let Some(cautious) = &mut self.cautious {
            cautious.rounds = cautious.rounds.saturating_add(1);
        }
    }

    /// A round-trip time was measured.
    pub(super) fn on_sample(&mut self, rtt: Duration) {
        self.min_us = self.min_us.min(u32::try_from(rtt.as_micros()).unwrap_or(u32::MAX));
        self.samples = self.samples.saturating_add(1);
        if self.samples < SAMPLES_MIN {
            return;
        }
        match self.cautious {
            Some(cautious) if self.min_us < cautious.baseline_us => self.cautious = None,
            Some(_) => {}
            None if self.last_min_us < u32::MAX => {
                let growth = (self.last_min_us / GROWTH_DIVISOR).clamp(GROWTH_US.0, GROWTH_US.1);
                if self.min_us >= self.last_min_us.saturating_add(growth) {
                    self.cautious = Some(Cautious { baseline_us: self.min_us, rounds: 0 });
                }
            }
            None => {}
        }
    }

    pub(super) fn verdict(&self) -> SlowStart {
        match self.cautious {
            None => SlowStart::Goes(1.0),
            Some(cautious) if cautious.rounds < CAUTIOUS_ROUNDS => {
                SlowStart::Goes(CAUTIOUS_DIVISOR)
            }
            Some(_) => SlowStart::Ends,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A round of acknowledgements after `ms` each.
    fn round(hystart: &mut HyStart, ms: u64, samples: u8) {
        hystart.on_round();
        (0..samples).for_each(|_| hystart.on_sample(Duration::from_millis(ms)));
    }

    #[test]
    fn growing_delay_makes_slow_start_cautious_and_five_rounds_end_it() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 50, 8);
        round(&mut hystart, 56, 8);
        assert_eq!(hystart.verdict(), SlowStart::Goes(1.0), "an eighth of 50 ms is 6.25 ms");
        round(&mut hystart, 64, 7);
        assert_eq!(hystart.verdict(), SlowStart::Goes(1.0), "seven samples say nothing");
        hystart.on_sample(Duration::from_millis(64));
        assert_eq!(hystart.verdict(), SlowStart::Goes(4.0));
        for _ in 0..4 {
            round(&mut hystart, 70, 8);
            assert_eq!(hystart.verdict(), SlowStart::Goes(4.0));
        }
        // The round in which it began counts.
        hystart.on_round();
        assert_eq!(hystart.verdict(), SlowStart::Ends);
    }

    #[test]
    fn a_delay_that_falls_again_takes_slow_start_up() {
        let mut hystart = HyStart::new();
        round(&mut hystart, 50, 8);
        round(&mut hystart, 60, 8);
        assert_eq!(hystart.verdict(), SlowStart::Goes(4.0));
        round(&mut hystart, 55, 7);
        assert_eq!(hystart.verdict(), SlowStart::Goes(4.0));
        hystart.on_sample(Duration::from_millis(55));
        assert_eq!(hystart.verdict(), SlowStart::Goes(1.0));
    }

    #[test]
    fn the_growth_that_counts_is_between_4_and_16_ms() {
        for (before, after, cautious) in
            [(2, 5, false), (2, 6, true), (400, 415, false), (400, 416, true)]
        {
            let mut hystart = HyStart::new();
            round(&mut hystart, before, 8);
            round(&mut hystart, after, 8);
            let goes = hystart.verdict() == SlowStart::Goes(4.0);
            assert_eq!(goes, cautious, "{before} ms, then {after} ms");
        }
    }
}
