//! How much is done on the word of somebody who may not mean it: checks sent to addresses that
//! only a peer vouches for, work for beacons of a LAN (SPEC section 13).

use std::time::{Duration, Instant};

/// So much at once, and one more in every `pace`.
pub(super) struct Purse {
    size: u32,
    pace: Duration,
    /// When it is full again.
    full_at: Instant,
}

impl Purse {
    /// For the addresses that one peer names: some ten sets of candidates, then a set in ten
    /// seconds.
    pub(super) const fn of_peer(now: Instant) -> Self {
        Self { size: 512, pace: Duration::from_millis(250), full_at: now }
    }

    /// For all peers together: a message to everybody makes 256 pairs with two host candidates
    /// each, on two sockets.
    pub(super) const fn of_node(now: Instant) -> Self {
        Self { size: 8192, pace: Duration::from_millis(10), full_at: now }
    }

    /// For beacons opened, and strangers' checks verified: more than a full LAN sends.
    pub(super) const fn of_beacons(now: Instant) -> Self {
        Self { size: 256, pace: Duration::from_millis(4), full_at: now }
    }

    /// For beacons answered; who got no answer hears the next beacon.
    pub(super) const fn of_answers(now: Instant) -> Self {
        Self { size: 32, pace: Duration::from_millis(30), full_at: now }
    }

    /// Takes one; false when there is none left.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let next = self.full_at.max(now) + self.pace;
        let within = next <= now + self.pace * self.size;
        if within {
            self.full_at = next;
        }
        within
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_gives_its_size_and_then_its_pace() {
        let now = crate::time::origin();
        let mut purse = Purse::of_peer(now);
        let mut taken = |at: Instant| (0..10_000).filter(|_| purse.take(at)).count();
        assert_eq!(taken(now), 512);
        assert_eq!(taken(now + Duration::from_millis(249)), 0);
        assert_eq!(taken(now + Duration::from_secs(60)), 240);
        assert_eq!(taken(now + Duration::from_secs(6000)), 512);
    }
}
