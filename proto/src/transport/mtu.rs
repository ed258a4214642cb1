//! How large the packets of a path may be: datagram packetization layer path MTU discovery
//! (RFC 8899), in bytes of frames a packet.
//!
//! Every path carries packets of the *base* size. A path that moves bulk data is searched for
//! more, by probes that carry nothing: their loss costs nothing and means nothing but that they
//! may be too large. There is no timer: without data no size matters.

use std::time::{Duration, Instant};

use crate::wire::frame::Ack;
use crate::wire::{DATAGRAM_LEN_BASE, DATAGRAM_LEN_MAX};

/// What the largest packet has beyond the base.
pub(super) const GROWTH_MAX: u16 = (DATAGRAM_LEN_MAX - DATAGRAM_LEN_BASE) as u16;
/// Probes of one size until it counts as too large (MAX_PROBES).
const PROBES_MAX: u8 = 3;
/// The search ends when what passes and what does not differ by no more.
const STEP_MIN: u16 = 16;
/// Full packets acknowledged before a search: fewer would not repay its probes.
const FULL_MIN: u8 = 8;
/// After this time without an answer a probe is lost (the least PROBE_TIMER).
const PROBE_WAIT: Duration = Duration::from_secs(1);
/// A path is searched again after this time (PMTU_RAISE_TIMER).
const RAISE_AFTER: Duration = Duration::from_secs(600);
/// Packets above the base that are lost in a row, while others pass, until the path carries base
/// packets again: one may be chance, and a new search is cheap.
const BLACK_HOLE: u8 = 3;
/// A packet that is smaller than the limit by no more is full.
const FULL_SLACK: u16 = 64;

/// The packet size of one path.
#[derive(Clone, Debug)]
pub(super) struct Mtu {
    base: u16,
    proved: u16,
    full: u8,
    /// There once the path carried bulk data.
    search: Option<Box<Search>>,
}

#[derive(Clone, Debug)]
struct Search {
    /// The smallest size known to be too large.
    ceiling: u16,
    /// Probes of the current size that were lost.
    failures: u8,
    probe: Option<Probe>,
    ended: Option<Instant>,
    /// Packets above the base that were lost since one was acknowledged.
    lost: u8,
    /// The newest packet above the base that was acknowledged.
    largest_acked: u64,
}

#[derive(Clone, Copy, Debug)]
struct Probe {
    count: u64,
    size: u16,
    at: Instant,
}

/// What the loss of a packet says about its size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Size {
    /// Nothing.
    Fits,
    /// The path does not carry packets above the base any more.
    BlackHole,
}

impl Mtu {
    pub(super) fn new(base: u16) -> Self {
        Self { base, proved: base, full: 0, search: None }
    }

    /// What every path carries.
    pub(super) fn base(&self) -> u16 {
        self.base
    }

    /// What this path carries.
    pub(super) fn proved(&self) -> u16 {
        self.proved
    }

    /// The size of the probe that may leave now. `timeout`: after which a packet is answered.
    pub(super) fn next_probe(&mut self, timeout: Duration, now: Instant) -> Option<u16> {
        if self.full < FULL_MIN {
            return None;
        }
        let (base, proved) = (self.base, self.proved);
        let search = self.search.get_or_insert_with(|| Box::new(Search::new(base)));
        if search.ended.is_some_and(|ended| now >= ended + RAISE_AFTER) {
            search.begin(base);
        }
        if let Some(probe) = search.probe {
            if now < probe.at + timeout.max(PROBE_WAIT) {
                return None;
            }
            search.on_probe_lost(probe.size, proved, now);
        }
        search.ended.is_none().then(|| search.next(base, proved))
    }

    pub(super) fn on_probe_sent(&mut self, count: u64, size: u16, now: Instant) {
        if let Some(search) = &mut self.search {
            search.probe = Some(Probe { count, size, at: now });
        }
    }

    /// Whether an acknowledgement answers the probe: the path carries more. `is_overtaken` says
    /// whether so many later packets make one lost.
    pub(super) fn on_ack(
        &mut self,
        ack: &Ack<'_>,
        is_overtaken: impl Fn(u64) -> bool,
        now: Instant,
    ) -> bool {
        let Some(search) = &mut self.search else { return false };
        let Some(probe) = search.probe else { return false };
        if ack.ranges().any(|(low, high)| (low..=high).contains(&probe.count)) {
            self.proved = probe.size;
            search.largest_acked = search.largest_acked.max(probe.count);
            (search.probe, search.failures, search.lost) = (None, 0, 0);
            search.end_if_close(self.proved, now);
            return true;
        }
        if ack.largest > probe.count && is_overtaken(ack.largest - probe.count) {
            search.on_probe_lost(probe.size, self.proved, now);
        }
        false
    }

    /// A packet of data was acknowledged.
    pub(super) fn on_acked(&mut self, count: u64, size: u16) {
        if size.saturating_add(FULL_SLACK) >= self.proved {
            self.full = self.full.saturating_add(1);
        }
        if let Some(search) = self.search.as_mut().filter(|_| size > self.base) {
            search.largest_acked = search.largest_acked.max(count);
            search.lost = 0;
        }
    }

    /// A packet of data was lost; something sent later was acknowledged.
    pub(super) fn on_lost(&mut self, count: u64, size: u16) -> Size {
        let Some(search) = self.search.as_mut().filter(|_| size > self.base) else {
            return Size::Fits;
        };
        if self.proved == self.base || count < search.largest_acked {
            return Size::Fits;
        }
        search.lost += 1;
        if search.lost < BLACK_HOLE {
            return Size::Fits;
        }
        *self = Self::new(self.base);
        Size::BlackHole
    }
}

impl Search {
    fn new(base: u16) -> Self {
        let ceiling = base.saturating_add(GROWTH_MAX + 1);
        Self { ceiling, failures: 0, probe: None, ended: None, lost: 0, largest_acked: 0 }
    }

    /// Upwards from what is proved.
    fn begin(&mut self, base: u16) {
        let Self { lost, largest_acked, .. } = *self;
        *self = Self { lost, largest_acked, ..Self::new(base) };
    }

    /// The most there is, which most paths carry; after that the middle of what is unknown.
    fn next(&self, base: u16, proved: u16) -> u16 {
        let most = base.saturating_add(GROWTH_MAX);
        if self.ceiling > most { most } else { proved + (self.ceiling - proved) / 2 }
    }

    fn on_probe_lost(&mut self, size: u16, proved: u16, now: Instant) {
        self.probe = None;
        self.failures += 1;
        if self.failures >= PROBES_MAX {
            (self.ceiling, self.failures) = (size, 0);
            self.end_if_close(proved, now);
        }
    }

    fn end_if_close(&mut self, proved: u16, now: Instant) {
        if self.ceiling.saturating_sub(proved) <= STEP_MIN {
            self.ended = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::PathId;
    use crate::transport::tests::origin;

    const BASE: u16 = 1150;
    const S: Duration = Duration::from_secs(1);

    /// A path that carries up to `limit`, some data on it, and the sizes probed.
    struct World {
        mtu: Mtu,
        limit: u16,
        count: u64,
        now: Instant,
        probed: Vec<u16>,
    }

    impl World {
        fn new(limit: u16) -> Self {
            let mtu = Mtu::new(BASE);
            Self { mtu, limit, count: 0, now: origin(), probed: Vec::new() }
        }

        /// A packet as large as may be, a round trip for it, and a probe if one is due.
        fn step(&mut self) {
            self.now += Duration::from_millis(50);
            let probe = self.mtu.next_probe(S, self.now);
            if let Some(size) = probe {
                self.probed.push(size);
                self.count += 1;
                self.mtu.on_probe_sent(self.count, size, self.now);
                if size <= self.limit {
                    assert!(self.ack(self.count));
                }
            }
            let size = self.mtu.proved();
            self.count += 10;
            if size <= self.limit {
                self.ack(self.count);
                self.mtu.on_acked(self.count, size);
            } else {
                self.mtu.on_lost(self.count, size);
            }
        }

        fn ack(&mut self, count: u64) -> bool {
            let ranges = [(count, count)];
            let ack = Ack::new(PathId(0), &ranges, 0).unwrap();
            self.mtu.on_ack(&ack, |later| later >= 3, self.now)
        }

        fn steps(&mut self, steps: usize) -> &mut Self {
            (0..steps).for_each(|_| self.step());
            self
        }
    }

    #[test]
    fn the_largest_size_takes_one_probe_after_some_data() {
        let mut world = World::new(1500);
        world.steps(8);
        assert!(world.probed.is_empty());
        world.steps(30);
        assert_eq!((world.probed.as_slice(), world.mtu.proved()), (&[1402][..], 1402));
    }

    #[test]
    fn three_lost_probes_halve_what_is_left() {
        for limit in BASE..=BASE + GROWTH_MAX {
            let mut world = World::new(limit);
            world.steps(60);
            let proved = world.mtu.proved();
            assert!(proved <= limit && limit - proved < STEP_MIN, "{proved} of {limit}");
            assert!(world.probed.len() <= 15, "{:?}", world.probed);
            assert!(world.probed.chunk_by(|a, b| a == b).all(|same| same.len() <= 3));
        }
    }

    #[test]
    fn a_path_is_searched_again_after_ten_minutes() {
        let mut world = World::new(1200);
        world.steps(60);
        let probes = world.probed.len();
        world.limit = 1500;
        world.steps(60);
        assert_eq!(world.probed.len(), probes);
        world.now += RAISE_AFTER;
        world.steps(2);
        assert_eq!((world.probed.len(), world.mtu.proved()), (probes + 1, 1402));
    }

    #[test]
    fn a_probe_without_an_answer_is_repeated_after_a_second() {
        let mut world = World::new(BASE);
        world.steps(9);
        let (sent, count) = (world.now, world.count);
        assert_eq!(world.mtu.next_probe(S / 10, sent), Some(1402));
        world.mtu.on_probe_sent(count + 1, 1402, sent);
        assert_eq!(world.mtu.next_probe(S / 10, sent + S * 9 / 10), None);
        assert_eq!(world.mtu.next_probe(S / 10, sent + S), Some(1402));
        world.mtu.on_probe_sent(count + 2, 1402, sent + S);
        assert_eq!(world.mtu.next_probe(3 * S, sent + 3 * S), None, "slow paths get more time");
    }

    #[test]
    fn three_large_losses_in_a_row_are_a_black_hole() {
        let mut world = World::new(1500);
        world.steps(20);
        let next = world.count + 1;
        assert_eq!(world.mtu.on_lost(next, 1402), Size::Fits);
        assert_eq!(world.mtu.on_lost(next + 1, 1402), Size::Fits);
        world.mtu.on_acked(next + 2, 1402);
        assert_eq!(world.mtu.on_lost(next + 3, 1402), Size::Fits);
        assert_eq!(world.mtu.on_lost(next + 4, BASE), Size::Fits);
        assert_eq!(world.mtu.on_lost(next + 5, 1402), Size::Fits);
        assert_eq!(world.mtu.on_lost(next + 6, 1402), Size::BlackHole);
        assert_eq!(world.mtu.proved(), BASE);
    }

    #[test]
    fn losses_that_a_later_large_packet_overtook_are_congestion() {
        let mut world = World::new(1500);
        world.steps(20);
        let next = world.count + 100;
        world.mtu.on_acked(next, 1402);
        for count in 1..50 {
            assert_eq!(world.mtu.on_lost(next - count, 1402), Size::Fits);
        }
    }
}
