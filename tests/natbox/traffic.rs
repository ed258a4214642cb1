//! Which way messages took, judged by the internet's counters and never by what the peers say.

use crate::Failure;
use crate::control::{self, Count};
use std::fmt;
use std::path::Path;
use std::time::{Duration, Instant};

/// Traffic is judged over this long: ten messages each way at the pace of a disturbed conversation.
pub(crate) const WINDOW: Duration = Duration::from_millis(500);

/// The way that messages take, as the internet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Route {
    /// Between the two sites; the server's site stands still.
    Direct,
    /// Through the server's site.
    Relay,
    /// Not seen at all: the two are in the same site.
    Lan,
    /// Some of each.
    Mixed,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Lan => "lan",
            Self::Mixed => "mixed",
        })
    }
}

/// Bytes that crossed the internet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Traffic {
    between_peers: u64,
    with_server: u64,
}

impl Traffic {
    pub(crate) fn read(control: &Path) -> Result<Self, Failure> {
        let mut traffic = Self { between_peers: 0, with_server: 0 };
        for ((from, to), Count { bytes, .. }) in control::counters(control)? {
            if from == "server" || to == "server" {
                traffic.with_server += bytes;
            } else {
                traffic.between_peers += bytes;
            }
        }
        Ok(traffic)
    }

    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            between_peers: self.between_peers - before.between_peers,
            with_server: self.with_server - before.with_server,
        }
    }

    /// The way that `payload` bytes took. Keepalives and checks are far below a quarter of it; what is relayed crosses
    /// the server's link twice.
    pub(crate) fn route(self, payload: u64) -> Route {
        let still = |bytes: u64| bytes < payload / 4;
        match (self.between_peers, self.with_server) {
            (peers, server) if peers >= payload && still(server) => Route::Direct,
            (peers, server) if still(peers) && still(server) => Route::Lan,
            (_, server) if server >= payload * 3 / 2 => Route::Relay,
            _ => Route::Mixed,
        }
    }
}

/// The counters in the course of a conversation.
#[derive(Default)]
pub(crate) struct Course(Vec<Sample>);

#[derive(Clone, Copy)]
struct Sample {
    at: Instant,
    traffic: Traffic,
    /// Bytes of all messages sent until then.
    payload: u64,
}

impl Course {
    /// Notes what has crossed the internet by now, and how many bytes were sent in messages.
    pub(crate) fn note(&mut self, at: Instant, traffic: Traffic, payload: u64) {
        self.0.push(Sample { at, traffic, payload });
    }

    /// The way that messages took in the last `length`.
    pub(crate) fn latest(&self, length: Duration) -> Option<Route> {
        let last = self.0.last()?;
        let first = self.0.iter().find(|sample| sample.at + length >= last.at)?;
        Some(between(first, last))
    }

    /// The beginning of the first window after `back` in which all messages went directly.
    pub(crate) fn direct_since(&self, back: Instant) -> Option<Instant> {
        let after = self.0.iter().filter(|sample| sample.at >= back);
        after.clone().find_map(|first| {
            let last = self.0.iter().find(|sample| sample.at >= first.at + WINDOW)?;
            (between(first, last) == Route::Direct).then_some(first.at)
        })
    }
}

fn between(first: &Sample, last: &Sample) -> Route {
    last.traffic.since(first.traffic).route(last.payload - first.payload)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_route_follows_from_who_carried_the_bytes() {
        let route = |between_peers, with_server| Traffic { between_peers, with_server }.route(1000);
        assert_eq!(route(1200, 100), Route::Direct);
        assert_eq!(route(0, 2400), Route::Relay);
        assert_eq!(route(5000, 2400), Route::Relay);
        assert_eq!(route(10, 100), Route::Lan);
        assert_eq!(route(600, 600), Route::Mixed);
        assert_eq!(route(600, 1200), Route::Mixed);
    }

    #[test]
    fn direct_again_begins_with_a_window_without_the_server() {
        let start = Instant::now();
        let at = |tick: u64| start + Duration::from_millis(50 * tick);
        let mut course = Course::default();
        let mut traffic = Traffic { between_peers: 0, with_server: 0 };
        for tick in 0..40 {
            course.note(at(tick), traffic, 800 * tick);
            match tick {
                ..14 => traffic.with_server += 2000,
                14.. => traffic.between_peers += 1000,
            }
        }
        assert_eq!(course.direct_since(at(3)), Some(at(13)), "a message in 10 may be a straggler");
        assert_eq!(course.direct_since(at(20)), Some(at(20)));
        assert_eq!(course.direct_since(at(35)), None, "no full window is left");
        assert_eq!(course.latest(WINDOW), Some(Route::Direct));
        course.0.truncate(14);
        assert_eq!(course.latest(WINDOW), Some(Route::Relay));
    }
}
