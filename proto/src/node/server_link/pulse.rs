//! How often the server hears of us (SPEC section 5.5).

use std::time::Duration;

use crate::node::api::Keepalive;
use crate::traversal::nat::Field;

/// Where nothing is known: half of what common routers keep an idle mapping for.
const DEFAULT: Duration = Duration::from_secs(15);
/// The longest interval that nobody asked for: silence must be noticed.
const LONGEST: Duration = Duration::from_secs(30);
/// The shortest one after mappings that were lost.
const SHORTEST: Duration = Duration::from_secs(10);
/// A lifetime from which on the interval follows it.
const LIFETIME_MIN: Duration = Duration::from_secs(30);
/// What a person may choose.
const FIXED_MIN: Duration = Duration::from_secs(1);
const FIXED_MAX: Duration = Duration::from_secs(3600);

/// The interval of keepalives.
pub(super) struct Pulse {
    setting: Keepalive,
    interval: Duration,
    /// What lost mappings leave of it in this network.
    bound: Duration,
    /// Whether the server has seen us since the network changed.
    place: Place,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    New,
    Known,
}

/// Where the server sees us now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::node) enum Sight {
    /// Where it did before.
    Same,
    /// At another address.
    Moved,
}

impl Pulse {
    pub(super) fn new(setting: Keepalive) -> Self {
        let interval = match setting {
            Keepalive::Adaptive => DEFAULT,
            Keepalive::Fixed(interval) => interval.clamp(FIXED_MIN, FIXED_MAX),
        };
        Self { setting, interval, bound: LONGEST, place: Place::Known }
    }

    pub(super) const fn interval(&self) -> Duration {
        self.interval
    }

    /// Four fifths of what a mapping lives at least; true where that is news.
    pub(super) fn follow(&mut self, lifetime: Field<Duration>) -> bool {
        if self.setting != Keepalive::Adaptive {
            return false;
        }
        let wanted = match lifetime.value() {
            Some(lifetime) if lifetime >= LIFETIME_MIN => lifetime * 4 / 5,
            Some(_) | None => DEFAULT,
        };
        // A registration states whole seconds.
        let interval = Duration::from_secs(wanted.min(self.bound).as_secs());
        std::mem::replace(&mut self.interval, interval) != interval
    }

    /// The network changed: what was learned of mappings is of the old one.
    pub(super) fn network_changed(&mut self) {
        self.bound = LONGEST;
        self.place = Place::New;
    }

    /// The server told where it sees us. Another address in the same network is a mapping that
    /// did not live until the next keepalive.
    pub(super) fn seen(&mut self, sight: Sight) {
        let place = std::mem::replace(&mut self.place, Place::Known);
        if (place, sight) == (Place::Known, Sight::Moved) {
            self.bound = (self.interval / 2).max(SHORTEST);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn seconds(n: u64) -> Duration {
        Duration::from_secs(n)
    }

    fn known(n: u64) -> Field<Duration> {
        Field::Known { value: seconds(n), samples: 1 }
    }

    #[test]
    fn the_interval_follows_the_lifetime_within_bounds() {
        let mut pulse = Pulse::new(Keepalive::Adaptive);
        assert!(!pulse.follow(Field::Unknown));
        for (lifetime, interval) in
            [(Field::Unknown, 15), (known(30), 24), (known(45), 30), (known(300), 30)]
        {
            pulse.follow(lifetime);
            assert_eq!(pulse.interval(), seconds(interval), "{lifetime:?}");
            assert!(!pulse.follow(lifetime), "no news");
        }
    }

    #[test]
    fn what_a_person_chose_stays() {
        let mut pulse = Pulse::new(Keepalive::Fixed(seconds(60)));
        for sight in [Sight::Same, Sight::Moved, Sight::Moved] {
            pulse.seen(sight);
            assert!(!pulse.follow(known(30)));
        }
        assert_eq!(pulse.interval(), seconds(60));
        assert_eq!(Pulse::new(Keepalive::Fixed(Duration::ZERO)).interval(), FIXED_MIN);
    }

    #[test]
    fn lost_mappings_halve_it_until_the_network_changes() {
        let mut pulse = Pulse::new(Keepalive::Adaptive);
        pulse.follow(known(100));
        pulse.network_changed();
        let mut lose = |sight| {
            pulse.seen(sight);
            pulse.follow(known(100));
            pulse.interval().as_secs()
        };
        // The first word after a change of the network tells of that.
        assert_eq!([Sight::Moved, Sight::Same].map(&mut lose), [30, 30]);
        assert_eq!([Sight::Moved, Sight::Same, Sight::Moved].map(&mut lose), [15, 15, 10]);
        assert_eq!(lose(Sight::Moved), 10);
        pulse.network_changed();
        assert!(pulse.follow(known(100)));
        assert_eq!(pulse.interval(), LONGEST);
    }
}
