//! Shares, quantiles, and the number of successes that is no accident to reach.

use std::time::Duration;

use world::scenario::{Goal, Outcome};

use super::{Played, is_direct};

/// Runs counted together.
pub(crate) struct Tally {
    pub(crate) runs: usize,
    /// Runs in which the network saw a direct path.
    pub(crate) direct: usize,
    /// Runs that are what their class asks for.
    pub(crate) good: usize,
    /// The most datagrams that a host sent in a run until there was a path.
    pub(crate) most_sent: u64,
    /// Time to a direct path and the physical limit for it, the quickest first; nothing for a run
    /// without a direct path, which stands behind all others.
    times: Vec<Option<(Duration, Duration)>>,
}

impl Tally {
    pub(crate) fn of<'a>(played: impl IntoIterator<Item = &'a Played>) -> Self {
        let mut tally = Self { runs: 0, direct: 0, good: 0, most_sent: 0, times: Vec::new() };
        for (_, run) in played.into_iter().flat_map(|played| &played.runs) {
            tally.runs += 1;
            tally.direct += usize::from(is_direct(run));
            tally.good += usize::from(run.as_ref().is_ok_and(Outcome::is_good));
            let time = run.as_ref().ok().filter(|_| is_direct(run)).and_then(time);
            tally.times.push(time);
            let sent = run.as_ref().map_or(0, |outcome| outcome.sent);
            tally.most_sent = tally.most_sent.max(sent);
        }
        tally
    }

    /// The time within which this share of the runs had a direct path.
    pub(crate) fn time(&self, share: f64) -> Option<Duration> {
        self.quantile(share, |(time, _)| time)
    }

    /// The same above the physical limit.
    pub(crate) fn over_floor(&self, share: f64) -> Option<Duration> {
        self.quantile(share, |(time, floor)| time.saturating_sub(floor))
    }

    /// The same in physical limits.
    pub(crate) fn times_floor(&self, share: f64) -> Option<f64> {
        self.quantile(share, |(time, floor)| time.as_secs_f64() / floor.as_secs_f64())
    }

    fn quantile<T: PartialOrd>(
        &self,
        share: f64,
        what: impl Fn((Duration, Duration)) -> T,
    ) -> Option<T> {
        let mut known: Vec<_> = self.times.iter().copied().flatten().map(what).collect();
        known.sort_by(|a, b| a.partial_cmp(b).unwrap_or(std::cmp::Ordering::Equal));
        let index = (share * self.times.len() as f64) as usize;
        known.into_iter().nth(index)
    }
}

/// How long it took, from the first word or from the incident, and the physical limit.
fn time(outcome: &Outcome) -> Option<(Duration, Duration)> {
    let after = match outcome.class.goal() {
        Goal::Direct | Goal::Relay => outcome.confirmed_after,
        Goal::Recovery => outcome.back_after,
    };
    Some((after?, outcome.floor))
}

/// A time in a table.
pub(crate) fn show(time: Option<Duration>) -> String {
    time.map_or_else(|| "-".into(), |time| format!("{} ms", time.as_millis()))
}

/// The number of successes in `runs` that a chance of `share` reaches in 999 of 1000 cases.
pub(crate) fn expectable(runs: usize, share: f64) -> usize {
    let failure = 1.0 - share;
    if failure <= 0.0 {
        return runs;
    }
    // Chances of 0, 1, 2 .. failures, each from the one before; as logarithms, for the first may
    // be too small for a number.
    let mut chance = runs as f64 * share.ln();
    let mut so_far = chance.exp();
    let mut failures = 0;
    while so_far < 0.999 && failures < runs {
        let (n, k) = (runs as f64, failures as f64);
        chance += ((n - k) / (k + 1.0)).ln() + (failure / share).ln();
        so_far += chance.exp();
        failures += 1;
    }
    runs - failures
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_expected_of_a_true_share() {
        // From tables of the binomial distribution.
        assert_eq!(expectable(50, 0.95), 42);
        assert_eq!(expectable(50, 0.99), 46);
        assert_eq!(expectable(1, 0.95), 0);
        assert_eq!(expectable(7, 1.0), 7);
        let large = expectable(20_000, 0.95);
        // Three standard deviations, about.
        assert!((18_900..18_915).contains(&large), "{large}");
    }

    #[test]
    fn runs_without_a_path_are_the_slowest() {
        let millis = |time| Some((Duration::from_millis(time), Duration::from_millis(100)));
        let times = vec![None, millis(300), millis(100), None];
        let tally = Tally { runs: 4, direct: 2, good: 2, most_sent: 0, times };
        assert_eq!(tally.time(0.0), Some(Duration::from_millis(100)));
        assert_eq!(tally.over_floor(0.25), Some(Duration::from_millis(200)));
        assert!(tally.times_floor(0.25).is_some_and(|times| (times - 3.0).abs() < 1e-9));
        assert_eq!(tally.time(0.5), None);
    }
}
