//! The chosen path: its nomination, its keepalive and the moment it counts as lost.

use std::time::{Duration, Instant};

use super::checks::Purpose;
use super::nat::Field;
use super::pair::FIRST_GAP;
use crate::io::Route;

/// Between checks of an idle path where nothing is known of the NATs: common ones keep an idle
/// mapping for 30 s at least, so that two may get lost.
const KEEPALIVE: Duration = Duration::from_secs(10);
/// The longest interval: a path that died in silence must be found before it is needed.
const KEEPALIVE_MAX: Duration = Duration::from_secs(25);
/// Between checks while one is unanswered, at most.
const RETRY: Duration = Duration::from_secs(1);
/// Unanswered checks in a row after which an idle path is lost: six seconds of silence.
const UNANSWERED_MAX: u32 = 6;
/// The same while the path is in doubt, with gaps that grow: some four seconds.
const DOUBTED_MAX: u32 = 12;
/// Unanswered checks of a path in doubt after which others are tried beside it: 0.4 s, more
/// than a round trip on most paths and more than a few losses.
const LOOK_AROUND_AFTER: u32 = 6;
/// The same as [`UNANSWERED_MAX`] while the nomination is not answered: its early gaps are short.
const NOMINATIONS_MAX: u32 = 14;

pub(super) struct Watch {
    pub(super) route: Route,
    /// When the next check leaves, or the path is given up.
    pub(super) due: Instant,
    nomination: Nomination,
    trust: Trust,
    unanswered: u32,
    gap: Duration,
    keepalive: Keepalive,
}

/// Between checks of an idle path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Keepalive(Duration);

/// Whether the other side knows the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nomination {
    /// It answered USE-CANDIDATE, or chose itself.
    Known,
    /// USE-CANDIDATE is repeated until it answers.
    Pending,
}

/// Whether the path is believed to work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trust {
    Sure,
    /// Payload is not acknowledged, or the network changed: until a check is answered any
    /// proved route is better.
    Doubted,
}

/// What a due watch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Check,
    /// A check, and of the other pairs too.
    LookAround,
    Lost,
}

/// What the answer to a check of the path brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answered {
    AsExpected,
    /// The path was in doubt.
    Restored,
}

impl Keepalive {
    pub(crate) const DEFAULT: Self = Self(KEEPALIVE);

    /// Half of what the own NAT keeps an idle mapping for, and of what the other's does where
    /// that is known: each side keeps its own mapping open by itself.
    pub(crate) fn of(own: Field<Duration>, theirs: Field<Duration>) -> Self {
        let Some(own) = own.value() else { return Self::DEFAULT };
        let shortest = theirs.value().map_or(own, |theirs| theirs.min(own));
        Self((shortest / 2).clamp(KEEPALIVE, KEEPALIVE_MAX))
    }
}

impl Watch {
    pub(super) fn new(
        route: Route,
        nomination: Nomination,
        keepalive: Keepalive,
        now: Instant,
    ) -> Self {
        let due = match nomination {
            Nomination::Known => now + keepalive.0,
            Nomination::Pending => now,
        };
        let (trust, gap) = (Trust::Sure, FIRST_GAP);
        Self { route, due, nomination, trust, unanswered: 0, gap, keepalive }
    }

    /// From the next sign of life on.
    pub(super) fn keep(&mut self, keepalive: Keepalive) {
        self.keepalive = keepalive;
    }

    /// Call when `due` has come.
    pub(super) fn fire(&mut self, now: Instant) -> Due {
        let limit = match (self.nomination, self.trust) {
            (Nomination::Pending, _) => NOMINATIONS_MAX,
            (Nomination::Known, Trust::Doubted) => DOUBTED_MAX,
            (Nomination::Known, Trust::Sure) => UNANSWERED_MAX,
        };
        if self.unanswered >= limit {
            return Due::Lost;
        }
        self.unanswered += 1;
        self.due = now + self.wait();
        if self.is_doubted() && self.unanswered == LOOK_AROUND_AFTER {
            return Due::LookAround;
        }
        Due::Check
    }

    /// A check of the path was answered.
    pub(super) fn answered(&mut self, purpose: Purpose, now: Instant) -> Answered {
        match purpose {
            Purpose::Nominate => self.nomination = Nomination::Known,
            Purpose::Probe => {}
        }
        let was = std::mem::replace(&mut self.trust, Trust::Sure);
        self.alive(now);
        match was {
            Trust::Sure => Answered::AsExpected,
            Trust::Doubted => Answered::Restored,
        }
    }

    /// Something authentic came over the path. That says nothing of the way out, so that doubt
    /// stays.
    pub(super) fn alive(&mut self, now: Instant) {
        match (self.nomination, self.trust) {
            (Nomination::Known, Trust::Sure) => {
                self.unanswered = 0;
                self.due = now + self.keepalive.0;
            }
            (Nomination::Pending, _) | (_, Trust::Doubted) => {}
        }
    }

    /// The path may not work any more: ask at once.
    pub(super) fn doubt(&mut self, now: Instant) {
        if self.trust == Trust::Sure {
            self.trust = Trust::Doubted;
            self.unanswered = 0;
            self.gap = FIRST_GAP;
            self.due = now;
        }
    }

    /// The way out works again, as others found out: ask anew.
    pub(super) fn hope(&mut self, now: Instant) {
        if self.is_doubted() {
            self.unanswered = 0;
            self.gap = FIRST_GAP;
            self.due = now;
        }
    }

    /// Whether another proved route should take over at once.
    pub(super) fn is_doubted(&self) -> bool {
        self.trust == Trust::Doubted
    }

    fn wait(&mut self) -> Duration {
        match (self.nomination, self.trust) {
            (Nomination::Known, Trust::Sure) => RETRY,
            (Nomination::Pending, _) | (_, Trust::Doubted) => {
                let wait = self.gap;
                self.gap = (self.gap * 3 / 2).min(RETRY);
                wait
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_idle_path_is_checked_as_often_as_both_nats_need() {
        let known = |n| Field::Known { value: Duration::from_secs(n), samples: 1 };
        for (own, theirs, seconds) in [
            (Field::Unknown, Field::Unknown, 10),
            // Of our own NAT nothing is known.
            (Field::Unknown, known(300), 10),
            (known(30), Field::Unknown, 15),
            (known(45), known(30), 15),
            (known(300), known(300), 25),
            (known(5), known(300), 10),
        ] {
            let keepalive = Keepalive::of(own, theirs);
            assert_eq!(keepalive.0, Duration::from_secs(seconds), "{own:?} {theirs:?}");
        }
    }
}
