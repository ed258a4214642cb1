//! Rounds of checks: a first one of all pairs, then single checks in the background.

use std::time::{Duration, Instant};

use crate::time::Backoff;

/// A round without success is reported after this: what the longest schedule takes, and time for
/// its last answer.
const ROUND: Duration = Duration::from_secs(2);
/// The first background checks follow a round this soon.
const BACKGROUND_FIRST: Duration = Duration::from_secs(1);
/// Background checks are never rarer.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(60);
/// Checks in one round over all pairs, so that no set of candidates makes a flood: more than
/// every candidate of two sockets needs.
const CHECKS_MAX: u32 = 256;
/// Unknown sources of requests that a round checks at once. Where both NATs take a port for each
/// destination and filter loosely, every answer comes from yet another source: without an end,
/// the two would follow each other for ever.
const SOURCES_MAX: u32 = 8;
/// The same after a round, until the next background checks: a peer that moved is followed.
const SOURCES_BACKGROUND: u32 = 2;

pub(super) struct Round {
    phase: Phase,
    backoff: Backoff,
    spent: u32,
    sources: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// No pair yet.
    Idle,
    /// All pairs are being checked.
    First { ends: Instant },
    /// The next single checks.
    Background { next: Instant },
    /// Nobody needs a path.
    Resting,
}

/// What a deadline brings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Nothing,
    /// The first round is over.
    Ended,
    /// One check of each likely pair.
    Background,
}

impl Round {
    pub(super) const fn new() -> Self {
        let backoff = Backoff::new(BACKGROUND_FIRST, BACKGROUND_LIMIT);
        Self { phase: Phase::Idle, backoff, spent: 0, sources: SOURCES_MAX }
    }

    /// All pairs start over.
    pub(super) fn begin(&mut self, now: Instant) {
        self.spent = 0;
        self.sources = SOURCES_MAX;
        self.extend(now);
    }

    /// New pairs get the time of a round.
    pub(super) fn extend(&mut self, now: Instant) {
        if self.is_background() {
            self.spent = 0;
            self.sources = SOURCES_MAX;
        }
        self.backoff.reset();
        self.phase = Phase::First { ends: now + ROUND };
    }

    /// No more background checks until [`Self::wake`].
    pub(super) fn rest(&mut self) {
        if self.is_background() {
            self.phase = Phase::Resting;
        }
    }

    /// Background checks begin again, the first at once.
    pub(super) fn wake(&mut self, now: Instant) {
        if self.phase == Phase::Resting {
            self.backoff.reset();
            self.phase = Phase::Background { next: now };
        }
    }

    /// Takes one check from the round's purse; false when it is empty.
    pub(super) fn spend(&mut self) -> bool {
        let left = self.spent < CHECKS_MAX;
        self.spent += u32::from(left);
        left
    }

    /// Whether one more unknown source is checked at once.
    pub(super) fn take_source(&mut self) -> bool {
        let left = self.sources > 0;
        self.sources -= u32::from(left);
        left
    }

    pub(super) fn fire(&mut self, now: Instant) -> Step {
        let step = match self.phase {
            Phase::First { ends } if now >= ends => Step::Ended,
            Phase::Background { next } if now >= next => Step::Background,
            Phase::Idle | Phase::First { .. } | Phase::Background { .. } | Phase::Resting => {
                return Step::Nothing;
            }
        };
        self.spent = 0;
        self.sources = SOURCES_BACKGROUND;
        self.phase = Phase::Background { next: now + self.backoff.advance() };
        step
    }

    pub(super) const fn deadline(&self) -> Option<Instant> {
        match self.phase {
            Phase::Idle | Phase::Resting => None,
            Phase::First { ends } => Some(ends),
            Phase::Background { next } => Some(next),
        }
    }

    pub(super) const fn is_idle(&self) -> bool {
        matches!(self.phase, Phase::Idle)
    }

    pub(super) const fn is_background(&self) -> bool {
        matches!(self.phase, Phase::Background { .. } | Phase::Resting)
    }
}
