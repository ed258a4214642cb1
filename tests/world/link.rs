//! A line between two places: latency, jitter, loss, duplication, reordering, rate, MTU and the
//! routers along it.

use std::time::{Duration, Instant};

use rand::Rng;

use crate::packet::Packet;

/// What a line does to datagrams, the same in both directions.
#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    /// One-way delay.
    pub latency: Duration,
    /// Up to this much is added at random; order is kept.
    pub jitter: Duration,
    /// Chance that a datagram vanishes, 0 to 1.
    pub loss: f64,
    /// Chance that a datagram arrives twice, 0 to 1.
    pub duplication: f64,
    /// Chance that a datagram is held back, so that later ones overtake it, 0 to 1.
    pub reordering: f64,
    /// Longest time a datagram is held back.
    pub reordering_delay: Duration,
    /// Bytes a second; `None`: no limit.
    pub rate: Option<u64>,
    /// Longest time a datagram waits for the line; what would wait longer is dropped at the tail.
    pub queue: Duration,
    /// Largest IP packet in bytes. Larger ones vanish without a word: datagrams of ours are sent
    /// with the don't-fragment flag, and ICMP is often filtered.
    pub mtu: usize,
    /// Routers along the line, each of which counts the time to live down.
    pub hops: u8,
}

/// Routers of a provider between a customer and the middle of the internet.
const ACCESS_HOPS: u8 = 2;

impl Link {
    /// A clean line of this one-way delay.
    pub const fn new(latency: Duration) -> Self {
        Self {
            latency,
            jitter: Duration::ZERO,
            loss: 0.0,
            duplication: 0.0,
            reordering: 0.0,
            reordering_delay: Duration::from_millis(30),
            rate: None,
            queue: Duration::from_millis(200),
            mtu: 1500,
            hops: ACCESS_HOPS,
        }
    }

    /// A clean line of this one-way delay in milliseconds.
    pub const fn millis(latency: u64) -> Self {
        Self::new(Duration::from_millis(latency))
    }

    /// A local network: half a millisecond to its switch.
    pub const fn lan() -> Self {
        Self { hops: 0, ..Self::new(Duration::from_micros(500)) }
    }

    /// The same line with this chance of loss.
    #[must_use]
    pub const fn with_loss(mut self, loss: f64) -> Self {
        self.loss = loss;
        self
    }
}

/// Which way over a line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Towards the internet.
    Up,
    /// Away from it.
    Down,
}

/// A line with what it remembers of the datagrams under way.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) link: Link,
    pub(crate) state: LineState,
    up: Lane,
    down: Lane,
}

/// Whether a line carries anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LineState {
    Whole,
    Cut,
}

#[derive(Debug, Default)]
struct Lane {
    /// Until when earlier datagrams occupy the line.
    busy: Option<Instant>,
    /// Arrival of the last datagram that was not held back: jitter keeps the order.
    last_arrival: Option<Instant>,
}

impl Line {
    pub(crate) fn new(link: Link) -> Self {
        Self { link, state: LineState::Whole, up: Lane::default(), down: Lane::default() }
    }

    /// When a datagram put on the line at `now` arrives: never, once or twice.
    pub(crate) fn carry(
        &mut self,
        way: Way,
        packet: &mut Packet,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<Vec<Instant>, &'static str> {
        if self.state == LineState::Cut {
            return Err("line cut");
        }
        let len = packet.ip_len();
        if len > self.link.mtu {
            return Err("longer than the mtu");
        }
        packet.pass(self.link.hops)?;
        let sent = self.queue(way, len, now).ok_or("queue full")?;
        if chance(self.link.loss, rng) {
            return Err("lost");
        }
        let mut arrivals = vec![self.arrival(way, sent, rng)];
        if chance(self.link.duplication, rng) {
            arrivals.push(self.arrival(way, sent, rng));
        }
        Ok(arrivals)
    }

    /// When the last bit has left, or `None` when the queue is full.
    fn queue(&mut self, way: Way, len: usize, now: Instant) -> Option<Instant> {
        let Some(rate) = self.link.rate else { return Some(now) };
        let queue = self.link.queue;
        let lane = self.lane(way);
        let start = lane.busy.map_or(now, |busy| busy.max(now));
        if start - now > queue {
            return None;
        }
        let end = start + Duration::from_secs_f64(len as f64 / rate as f64);
        lane.busy = Some(end);
        Some(end)
    }

    fn arrival(&mut self, way: Way, sent: Instant, rng: &mut impl Rng) -> Instant {
        let held_back = chance(self.link.reordering, rng);
        let jitter = self.link.jitter.mul_f64(draw(rng));
        let on_time = sent + self.link.latency + jitter;
        if held_back {
            return on_time + self.link.reordering_delay.mul_f64(draw(rng));
        }
        let lane = self.lane(way);
        let arrival = lane.last_arrival.map_or(on_time, |last| last.max(on_time));
        lane.last_arrival = Some(arrival);
        arrival
    }

    fn lane(&mut self, way: Way) -> &mut Lane {
        match way {
            Way::Up => &mut self.up,
            Way::Down => &mut self.down,
        }
    }
}

/// A draw from 0 (included) to 1 (not included).
fn draw(rng: &mut impl Rng) -> f64 {
    rng.random_range(0.0..1.0)
}

fn chance(probability: f64, rng: &mut impl Rng) -> bool {
    probability > 0.0 && draw(rng) < probability
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use rand::SeedableRng as _;
    use rand_chacha::ChaCha12Rng;

    use super::*;

    /// An IP packet of this length.
    fn long(len: usize) -> Packet {
        let to = |port| SocketAddr::from(([192, 0, 2, 1], port));
        Packet::new(to(1), to(2), vec![0; len - 28])
    }

    #[test]
    fn routers_along_the_line_count() {
        let (mut rng, now) = (ChaCha12Rng::seed_from_u64(5), Instant::now());
        let mut line = Line::new(Link { hops: 3, ..Link::millis(1) });
        let mut packet = long(100).with_ttl(Some(4));
        assert!(line.carry(Way::Up, &mut packet, now, &mut rng).is_ok());
        assert_eq!(packet.ttl, 1);
        assert_eq!(line.carry(Way::Up, &mut packet, now, &mut rng), Err("ttl expired"));
    }

    #[test]
    fn a_clean_line_only_delays() {
        let (mut rng, now) = (ChaCha12Rng::seed_from_u64(1), Instant::now());
        let mut line = Line::new(Link::millis(20));
        let arrivals = line.carry(Way::Up, &mut long(1500), now, &mut rng);
        assert_eq!(arrivals, Ok(vec![now + Duration::from_millis(20)]));
        assert_eq!(line.carry(Way::Up, &mut long(1501), now, &mut rng), Err("longer than the mtu"));
        line.state = LineState::Cut;
        assert_eq!(line.carry(Way::Up, &mut long(100), now, &mut rng), Err("line cut"));
    }

    #[test]
    fn loss_and_duplication_keep_their_rates() {
        let (mut rng, now) = (ChaCha12Rng::seed_from_u64(2), Instant::now());
        let mut line = Line::new(Link { duplication: 0.1, ..Link::millis(1).with_loss(0.3) });
        let (mut lost, mut twice) = (0, 0);
        for _ in 0..10_000 {
            match line.carry(Way::Down, &mut long(100), now, &mut rng) {
                Err(_) => lost += 1,
                Ok(arrivals) => twice += usize::from(arrivals.len() == 2),
            }
        }
        assert!((2_800..3_200).contains(&lost), "{lost} lost");
        assert!((600..800).contains(&twice), "{twice} doubled");
    }

    #[test]
    fn jitter_keeps_the_order_and_reordering_breaks_it() {
        let (mut rng, now) = (ChaCha12Rng::seed_from_u64(3), Instant::now());
        let arrivals = |link: Link, rng: &mut ChaCha12Rng| {
            let mut line = Line::new(link);
            (0..200)
                .map(|i| now + Duration::from_millis(i))
                .map(|at| line.carry(Way::Up, &mut long(100), at, rng).unwrap()[0])
                .collect::<Vec<_>>()
        };
        let jitter = Link { jitter: Duration::from_millis(30), ..Link::millis(5) };
        assert!(arrivals(jitter.clone(), &mut rng).is_sorted());
        let reordering = Link { reordering: 0.1, ..jitter };
        assert!(!arrivals(reordering, &mut rng).is_sorted());
    }

    #[test]
    fn a_narrow_line_queues_and_then_drops() {
        let (mut rng, now) = (ChaCha12Rng::seed_from_u64(4), Instant::now());
        let link = Link { rate: Some(10_000), ..Link::millis(0) };
        let mut line = Line::new(link);
        let results: Vec<_> =
            (0..5).map(|_| line.carry(Way::Up, &mut long(1000), now, &mut rng)).collect();
        assert_eq!(results[1], Ok(vec![now + Duration::from_millis(200)]));
        assert_eq!(results[4], Err("queue full"));
        assert!(line.carry(Way::Down, &mut long(1000), now, &mut rng).is_ok());
    }
}
