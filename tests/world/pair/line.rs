//! One direction of a path.

use std::time::Duration;

use p2sp_proto::io::Ecn;
use rand::{Rng, RngCore};

/// What a line does to datagrams.
#[derive(Clone, Debug)]
pub struct Line {
    /// Share that is lost.
    pub loss: f64,
    /// Share that arrives twice.
    pub doubling: f64,
    /// Share of which one bit arrives wrong.
    pub spoiling: f64,
    /// How long each takes.
    pub delay: Duration,
    /// What is added at random; it makes later ones overtake.
    pub jitter: Duration,
    /// Longer ones vanish, bytes.
    pub len_max: usize,
    /// Whether it carries anything.
    pub up: bool,
    /// A bottleneck, if there is one.
    pub bottleneck: Option<Bottleneck>,
}

/// A queue that is emptied at a fixed rate.
#[derive(Clone, Debug)]
pub struct Bottleneck {
    /// Bytes a second.
    pub rate: f64,
    /// Longest wait in it; what would wait longer is dropped.
    pub queue: Duration,
    /// Wait from which on it marks what heeds marks.
    mark_from: Option<Duration>,
    free_at: Duration,
}

impl Bottleneck {
    /// An empty one.
    pub const fn new(rate: f64, queue: Duration) -> Self {
        Self { rate, queue, mark_from: None, free_at: Duration::ZERO }
    }

    /// One that marks what would wait so long, if it heeds marks.
    #[must_use]
    pub const fn marking(self, from: Duration) -> Self {
        Self { mark_from: Some(from), ..self }
    }

    /// When something of `len` bytes has left it, and its mark then.
    fn pass(&mut self, len: usize, mark: Ecn, now: Duration) -> Option<(Duration, Ecn)> {
        let start = self.free_at.max(now);
        if start - now > self.queue {
            return None;
        }
        let is_long = self.mark_from.is_some_and(|from| start - now >= from);
        let mark = if is_long && mark != Ecn::NotEct { Ecn::Ce } else { mark };
        self.free_at = start + Duration::from_secs_f64(len as f64 / self.rate);
        Some((self.free_at, mark))
    }
}

/// What becomes of one copy of a datagram.
#[derive(Clone, Copy, Debug)]
pub struct Arrival {
    /// When it is there.
    pub at: Duration,
    /// Which bit of it is wrong.
    pub spoiled_bit: Option<usize>,
    /// Its congestion mark.
    pub mark: Ecn,
}

impl Line {
    /// 20 ms, no fault.
    pub const fn good() -> Self {
        Self {
            loss: 0.0,
            doubling: 0.0,
            spoiling: 0.0,
            delay: Duration::from_millis(20),
            jitter: Duration::ZERO,
            len_max: usize::MAX,
            up: true,
            bottleneck: None,
        }
    }

    /// The fate of a datagram of `len` bytes: none, one or two arrivals.
    pub fn carry(
        &mut self,
        len: usize,
        mark: Ecn,
        now: Duration,
        rng: &mut impl RngCore,
    ) -> Vec<Arrival> {
        let copies = 1 + usize::from(rng.random_bool(self.doubling));
        (0..copies).filter_map(|_| self.carry_one(len, mark, now, rng)).collect()
    }

    fn carry_one(
        &mut self,
        len: usize,
        mark: Ecn,
        now: Duration,
        rng: &mut impl RngCore,
    ) -> Option<Arrival> {
        if !self.up || len > self.len_max || rng.random_bool(self.loss) {
            return None;
        }
        let (left, mark) = match &mut self.bottleneck {
            Some(bottleneck) => bottleneck.pass(len, mark, now)?,
            None => (now, mark),
        };
        let at = left + self.delay + self.jitter.mul_f64(rng.random_range(0.0..1.0));
        let spoiled = rng.random_bool(self.spoiling);
        let spoiled_bit = spoiled.then(|| rng.random_range(0..len * 8));
        Some(Arrival { at, spoiled_bit, mark })
    }
}
