//! The chosen path: its nomination, its keepalive and the moment it counts as lost.

use std::time::{Duration, Instant};

use super::checks::Purpose;
use super::pair::FIRST_GAP;
use crate::io::Route;

/// A check of an idle path; NATs keep a mapping for 30 s and more (RFC 4787 REQ-5).
const KEEPALIVE: Duration = Duration::from_secs(5);
/// Between checks while one is unanswered.
const RETRY: Duration = Duration::from_secs(1);
/// Unanswered checks in a row after which the path is lost: six seconds of silence.
const UNANSWERED_MAX: u32 = 6;
/// The same while the nomination is not answered: its early gaps are short.
const NOMINATIONS_MAX: u32 = 14;

pub(super) struct Watch {
    pub(super) route: Route,
    /// When the next check leaves, or the path is given up.
    pub(super) due: Instant,
    nomination: Nomination,
    unanswered: u32,
    gap: Duration,
    /// Set by a restart: any proved route is better than this one until it answers.
    doubted: bool,
}

/// Whether the other side knows the choice.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Nomination {
    /// It answered USE-CANDIDATE, or chose itself.
    Known,
    /// USE-CANDIDATE is repeated until it answers.
    Pending,
}

/// What a due watch asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Check,
    Lost,
}

impl Watch {
    pub(super) fn new(route: Route, nomination: Nomination, now: Instant) -> Self {
        let due = match nomination {
            Nomination::Known => now + KEEPALIVE,
            Nomination::Pending => now,
        };
        Self { route, due, nomination, unanswered: 0, gap: FIRST_GAP, doubted: false }
    }

    /// Call when `due` has come.
    pub(super) fn fire(&mut self, now: Instant) -> Due {
        let limit = match self.nomination {
            Nomination::Known => UNANSWERED_MAX,
            Nomination::Pending => NOMINATIONS_MAX,
        };
        if self.unanswered >= limit {
            return Due::Lost;
        }
        self.unanswered += 1;
        self.due = now + self.wait();
        Due::Check
    }

    /// A check of the path was answered.
    pub(super) fn answered(&mut self, purpose: Purpose, now: Instant) {
        match purpose {
            Purpose::Nominate => self.nomination = Nomination::Known,
            Purpose::Probe => {}
        }
        self.alive(now);
    }

    /// Something authentic came over the path.
    pub(super) fn alive(&mut self, now: Instant) {
        self.doubted = false;
        match self.nomination {
            Nomination::Known => {
                self.unanswered = 0;
                self.due = now + KEEPALIVE;
            }
            Nomination::Pending => {}
        }
    }

    /// The network changed: ask at once.
    pub(super) fn doubt(&mut self, now: Instant) {
        self.doubted = true;
        self.due = now;
    }

    /// Whether another proved route should take over at once.
    pub(super) const fn is_doubted(&self) -> bool {
        self.doubted
    }

    fn wait(&mut self) -> Duration {
        match self.nomination {
            Nomination::Known => RETRY,
            Nomination::Pending => {
                let wait = self.gap;
                self.gap = (self.gap * 3 / 2).min(RETRY);
                wait
            }
        }
    }
}
