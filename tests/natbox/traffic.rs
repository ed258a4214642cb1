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

/// The counters, and the messages, in the course of a conversation.
#[derive(Default)]
pub(crate) struct Course(Vec<Sample>);

/// One moment of it.
#[derive(Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) at: Instant,
    pub(crate) traffic: Traffic,
    /// Bytes of all messages sent until then.
    pub(crate) payload: u64,
    /// Messages that each side has sent until then.
    pub(crate) sent: usize,
    /// Messages of each side that have arrived without a gap.
    pub(crate) arrived: usize,
}

impl Course {
    pub(crate) fn note(&mut self, sample: Sample) {
        self.0.push(sample);
    }

    /// The way that messages took in the last `length`.
    pub(crate) fn latest(&self, length: Duration) -> Option<Route> {
        let last = self.0.last()?;
        let first = self.0.iter().find(|sample| sample.at + length >= last.at)?;
        Some(between(first, last))
    }

    /// The beginning of the first window after `back` whose messages all went directly: they have arrived, and until
    /// then the server's site stood still. (What is sent directly may still be lost at a router's filter.)
    pub(crate) fn direct_since(&self, back: Instant) -> Option<Instant> {
        let mut later = (0..self.0.len()).filter(|index| self.0[*index].at >= back);
        later.find(|index| self.is_direct(*index)).map(|index| self.0[index].at)
    }

    /// The longest time between the beginnings of two such windows, one after the other. The last second cannot be
    /// judged: its messages are under way.
    pub(crate) fn longest_detour(&self) -> Duration {
        let (Some(first), Some(last)) = (self.0.first(), self.0.last()) else {
            return Duration::ZERO;
        };
        let judged = (0..self.0.len()).take_while(|index| self.0[*index].at + 2 * WINDOW < last.at);
        let (mut longest, mut direct) = (Duration::ZERO, first.at);
        for index in judged {
            longest = longest.max(self.0[index].at - direct);
            if self.is_direct(index) {
                direct = self.0[index].at;
            }
        }
        longest
    }

    fn is_direct(&self, index: usize) -> bool {
        let (first, later) = (&self.0[index], &self.0[index..]);
        let end = later.partition_point(|sample| sample.at < first.at + WINDOW);
        let Some(end_sent) = later.get(end).map(|sample| sample.sent) else { return false };
        let settled = later[end..].iter().find(|sample| sample.arrived >= end_sent);
        settled.is_some_and(|settled| between(first, settled) == Route::Direct)
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

    /// A tick is 50 ms, and a message each way of 400 bytes. From tick 14 on they go directly and arrive three ticks
    /// later; before, `lost` tells whether they go to a router that drops them, or through the server.
    fn course(lost: bool) -> (Course, impl Fn(u32) -> Instant) {
        let start = Instant::now();
        let at = move |tick: u32| start + Duration::from_millis(50) * tick;
        let mut course = Course::default();
        let mut traffic = Traffic { between_peers: 0, with_server: 0 };
        for tick in 0..40_u32 {
            let sent = tick as usize;
            let arrived = if lost && sent < 17 { 0 } else { sent.saturating_sub(3) };
            course.note(Sample {
                at: at(tick),
                traffic,
                payload: 800 * u64::from(tick),
                sent,
                arrived,
            });
            if tick >= 14 || lost {
                traffic.between_peers += 1000;
            } else {
                traffic.with_server += 2000;
            }
            if tick == 16 && lost {
                traffic.with_server += 16_000;
            }
        }
        (course, at)
    }

    #[test]
    fn direct_again_begins_with_a_window_without_the_server() {
        let (mut course, at) = course(false);
        assert_eq!(course.direct_since(at(3)), Some(at(13)), "one message may be a straggler");
        assert_eq!(course.direct_since(at(20)), Some(at(20)));
        assert_eq!(course.direct_since(at(30)), None, "not all of its messages have arrived");
        assert_eq!(course.latest(WINDOW), Some(Route::Direct));
        course.0.truncate(14);
        assert_eq!(course.latest(WINDOW), Some(Route::Relay));
    }

    #[test]
    fn what_is_sent_directly_but_arrives_through_the_server_is_not_direct() {
        let (course, at) = course(true);
        assert_eq!(course.direct_since(at(0)), Some(at(17)));
    }

    #[test]
    fn a_detour_lasts_until_the_next_direct_window() {
        let (mut course, at) = course(false);
        assert_eq!(course.longest_detour(), at(13) - at(0));
        course.0.drain(..14);
        assert_eq!(course.longest_detour(), Duration::from_millis(50));
        assert_eq!(Course::default().longest_detour(), Duration::ZERO);
    }
}
