//! Deadlines as data: machines keep them here and the shell asks for the earliest.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

/// The earlier of two optional, named deadlines.
pub fn earliest(
    a: Option<(Instant, &'static str)>,
    b: Option<(Instant, &'static str)>,
) -> Option<(Instant, &'static str)> {
    match (a, b) {
        (Some(a), Some(b)) => Some(if b.0 < a.0 { b } else { a }),
        (one, None) | (None, one) => one,
    }
}

/// A span of time for people: two units at most.
pub fn span(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// One deadline for each of many keys, the earliest at hand.
#[derive(Clone, Debug)]
pub struct Timers<K> {
    by_key: BTreeMap<K, (Instant, &'static str)>,
    /// Mirror of `by_key`, in order of time.
    queue: BTreeSet<(Instant, K)>,
}

impl<K> Default for Timers<K> {
    fn default() -> Self {
        Self { by_key: BTreeMap::new(), queue: BTreeSet::new() }
    }
}

impl<K: Copy + Ord> Timers<K> {
    /// Replaces the deadline of a key, or removes it.
    pub fn set(&mut self, key: K, deadline: Option<(Instant, &'static str)>) {
        let old = match deadline {
            Some(deadline) => self.by_key.insert(key, deadline),
            None => self.by_key.remove(&key),
        };
        if let Some((at, _)) = old {
            self.queue.remove(&(at, key));
        }
        if let Some((at, _)) = deadline {
            self.queue.insert((at, key));
        }
    }

    /// The earliest deadline and its name.
    pub fn earliest(&self) -> Option<(Instant, &'static str)> {
        let (_, key) = self.queue.first()?;
        self.by_key.get(key).copied()
    }

    /// Takes out a key whose deadline has come.
    pub fn take_due(&mut self, now: Instant) -> Option<K> {
        let (_, key) = *self.queue.first().filter(|(at, _)| *at <= now)?;
        self.set(key, None);
        Some(key)
    }
}

/// Delays that double from a first one up to a limit.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    limit: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts at `first` and never exceeds `limit`.
    pub const fn new(first: Duration, limit: Duration) -> Self {
        Self { first, limit, next: first }
    }

    /// The delay to wait now; the one after it is twice as long.
    pub fn advance(&mut self) -> Duration {
        let delay = self.next;
        self.next = (delay * 2).min(self.limit);
        delay
    }

    /// Begins again with the first delay.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

/// The wall clock, derived from the monotonic one: machines are told both at their start, and again where
/// the two may have parted.
#[derive(Clone, Copy, Debug)]
pub struct UnixClock {
    start: Instant,
    unix_start: Duration,
}

impl UnixClock {
    /// `unix_now` is the time since 1970-01-01 UTC at `now`.
    pub const fn new(now: Instant, unix_now: Duration) -> Self {
        Self { start: now, unix_start: unix_now }
    }

    /// Time since 1970-01-01 UTC at `now`.
    pub fn unix(&self, now: Instant) -> Duration {
        self.unix_start + now.saturating_duration_since(self.start)
    }

    /// Seconds since 1970-01-01 UTC at `now`.
    pub fn seconds(&self, now: Instant) -> u64 {
        self.unix(now).as_secs()
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::origin;
