//! Virtual time: it moves only when the world steps.

use std::fmt;
use std::time::{Duration, Instant};

/// The time of a world. The machines are given [`Instant`]s, whose origin is arbitrary; people
/// are shown the time since the world began.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    start: Instant,
    now: Instant,
}

impl Clock {
    /// The wall clock of every world at its start: time since 1970-01-01 UTC.
    pub const UNIX_START: Duration = Duration::from_secs(1_800_000_000);

    /// A clock at its start.
    pub fn new() -> Self {
        let start = Instant::now();
        Self { start, now: start }
    }

    /// The present.
    pub const fn now(&self) -> Instant {
        self.now
    }

    /// Time since the world began.
    pub fn elapsed(&self) -> Duration {
        self.now - self.start
    }

    /// How long after the start `at` is.
    pub fn since_start(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.start)
    }

    /// The wall clock now.
    pub fn unix_now(&self) -> Duration {
        Self::UNIX_START + self.elapsed()
    }

    /// Moves on to `at`; time never goes back.
    pub(crate) fn advance(&mut self, at: Instant) {
        self.now = self.now.max(at);
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s", self.elapsed().as_secs_f64())
    }
}
