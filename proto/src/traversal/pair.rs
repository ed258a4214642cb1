//! One pair of a local socket and a remote candidate: when to check it, and what came of it.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::PairReport;
use super::candidate::Class;
use super::checks::{Purpose, Transaction};
use crate::io::Route;
use crate::time::Backoff;
use crate::wire::frame::{Candidate, CandidateKind};

/// Wait after the first check; both sides start in the same moment, so the first check of one is
/// often lost at the other's NAT and the second should follow soon.
pub(super) const FIRST_GAP: Duration = Duration::from_millis(20);
/// Checks of a route in a first round that the server or a packet vouches for. With gaps that
/// grow by half they span a second and a half, more than one path's round trip.
const LIKELY_CHECKS: u32 = 10;
/// Checks in a first round of an address that only the peer vouches for: few, because it may
/// belong to somebody who has nothing to do with this.
const CLAIMED_CHECKS: u32 = 5;
/// Checks in a round that requests of the peer may call forth beyond the schedule.
const TRIGGERED_CHECKS: u32 = 4;
/// A request calls forth no check when one has left this shortly before.
const TRIGGER_GAP: Duration = Duration::from_millis(10);
/// Wait before a route is chosen again that transport gave up twice.
const FAILURE_FIRST: Duration = Duration::from_secs(1);
/// Longest such wait.
const FAILURE_LIMIT: Duration = Duration::from_secs(60);
/// A route that worked this long beyond the longest wait has no past.
const FAILURE_MEMORY: Duration = Duration::from_secs(60);
/// Checks after such a wait.
const POSTPONED_CHECKS: u32 = 3;
/// Unanswered checks remembered; more than one schedule has.
const TRANSACTIONS_MAX: usize = 16;

pub(super) struct Pair {
    pub(super) route: Route,
    pub(super) remote: Candidate,
    pub(super) class: Class,
    /// When the next scheduled check leaves.
    pub(super) next: Option<Instant>,
    /// The other side asked for this pair: it nominated it or, as the controlled side, wants it.
    pub(super) nominated: bool,
    /// Our own address on this route, as the last answer told it.
    pub(super) mapped: Option<SocketAddr>,
    /// Round-trip time of the route since it last proved itself in this round.
    validated: Option<Duration>,
    /// An authentic request came this way in this round.
    heard: bool,
    /// It worked once, so that trying again bothers no stranger.
    worked: bool,
    gap: Duration,
    sent_in_round: u32,
    triggered_in_round: u32,
    checks_sent: u32,
    last_sent: Option<Instant>,
    failed_at: Option<Instant>,
    penalty: Backoff,
    barred_until: Option<Instant>,
    transactions: VecDeque<Sent>,
}

/// A check on its way.
#[derive(Clone, Copy)]
struct Sent {
    transaction: Transaction,
    at: Instant,
    purpose: Purpose,
}

impl Pair {
    /// The first check is due at once.
    pub(super) fn new(route: Route, remote: Candidate, now: Instant) -> Self {
        Self {
            route,
            remote,
            class: Class::of(route.remote),
            next: Some(now),
            nominated: false,
            mapped: None,
            validated: None,
            heard: false,
            worked: false,
            gap: FIRST_GAP,
            sent_in_round: 0,
            triggered_in_round: 0,
            checks_sent: 0,
            last_sent: None,
            failed_at: None,
            penalty: Backoff::new(FAILURE_FIRST, FAILURE_LIMIT),
            barred_until: None,
            transactions: VecDeque::new(),
        }
    }

    /// Forgets what was proved and starts the schedule again.
    pub(super) fn begin_round(&mut self, now: Instant) {
        self.next = Some(now);
        self.forget();
        self.heard = false;
        self.gap = FIRST_GAP;
        self.sent_in_round = 0;
        self.triggered_in_round = 0;
    }

    /// One more check now, if this pair is worth going on with.
    pub(super) fn begin_background(&mut self, now: Instant) {
        if self.validated.is_none() && self.is_likely() {
            self.sent_in_round = self.budget() - 1;
            self.triggered_in_round = 0;
            self.next = Some(now);
        }
    }

    /// A check leaves.
    pub(super) fn sent(&mut self, transaction: Transaction, purpose: Purpose, now: Instant) {
        if self.transactions.len() == TRANSACTIONS_MAX {
            self.transactions.pop_front();
        }
        self.transactions.push_back(Sent { transaction, at: now, purpose });
        self.checks_sent = self.checks_sent.saturating_add(1);
        self.last_sent = Some(now);
    }

    /// Plans the check after a scheduled one that just left.
    pub(super) fn advance(&mut self, now: Instant) {
        self.sent_in_round += 1;
        let more = self.validated.is_none() && self.sent_in_round < self.budget();
        self.next = more.then_some(now + self.gap);
        // Five checks double their gaps, to span a time worth waiting for.
        self.gap = if self.is_likely() { self.gap * 3 / 2 } else { self.gap * 2 };
    }

    /// Whether `transaction` is one of ours on this pair that still waits.
    pub(super) fn awaits(&self, transaction: Transaction) -> bool {
        self.transactions.iter().any(|sent| sent.transaction == transaction)
    }

    /// Takes in the answer to a check.
    pub(super) fn answered(&mut self, transaction: Transaction, now: Instant) -> Option<Purpose> {
        let index = self.transactions.iter().position(|sent| sent.transaction == transaction)?;
        let sent = self.transactions.remove(index)?;
        let sample = now.saturating_duration_since(sent.at);
        self.validated = Some(match self.validated {
            // The smoothing of RFC 6298.
            Some(smoothed) => (smoothed * 7 + sample) / 8,
            None => sample,
        });
        self.worked = true;
        self.next = None;
        Some(sent.purpose)
    }

    /// An authentic request came this way. True when a check should answer it at once.
    pub(super) fn hear(&mut self, now: Instant) -> bool {
        self.heard = true;
        let idle = self.last_sent.is_none_or(|last| now >= last + TRIGGER_GAP);
        let wanted = self.validated.is_none() && idle && self.triggered_in_round < TRIGGERED_CHECKS;
        if wanted {
            self.triggered_in_round += 1;
        }
        wanted
    }

    /// Nothing is sent before the next background checks, whatever is heard.
    pub(super) fn rest(&mut self) {
        self.next = None;
        self.triggered_in_round = TRIGGERED_CHECKS;
    }

    /// Transport gave the route up. The first time proves little; again within a minute, the
    /// route must wait longer and longer to be chosen.
    pub(super) fn fail(&mut self, now: Instant) {
        self.forget();
        let again = self.failed_at.is_some_and(|at| now < at + FAILURE_MEMORY + FAILURE_LIMIT);
        if again {
            self.barred_until = Some(now + self.penalty.advance());
        } else {
            self.penalty.reset();
        }
        self.failed_at = Some(now);
    }

    /// Whether the pair must wait before it may be chosen; it is proved again afterwards.
    pub(super) fn postpone(&mut self, now: Instant) -> bool {
        let Some(until) = self.barred_until.filter(|until| *until > now) else { return false };
        self.validated = None;
        self.sent_in_round = self.budget().saturating_sub(POSTPONED_CHECKS);
        self.gap = FIRST_GAP;
        self.next = Some(until);
        true
    }

    /// Nothing is proved any more.
    pub(super) fn forget(&mut self) {
        self.validated = None;
        self.nominated = false;
        self.transactions.clear();
    }

    /// Whether the check that leaves now is the first of a round to an address of which the other
    /// side may not have sent yet.
    pub(super) fn is_entry(&self) -> bool {
        self.remote.kind == CandidateKind::Observed
            && self.sent_in_round == 1
            && !self.heard
            && self.validated.is_none()
    }

    /// The route's round-trip time if it is proved.
    pub(super) fn validated(&self) -> Option<Duration> {
        self.validated
    }

    /// Whether it was ever proved.
    pub(super) fn has_worked(&self) -> bool {
        self.worked
    }

    pub(super) fn report(&self) -> PairReport {
        PairReport {
            route: self.route,
            remote: self.remote,
            checks_sent: self.checks_sent,
            answered: self.worked,
            rtt: self.validated,
        }
    }

    fn budget(&self) -> u32 {
        if self.is_likely() { LIKELY_CHECKS } else { CLAIMED_CHECKS }
    }

    /// Whether it is said to be seen by the server, or a packet proves it.
    pub(super) fn is_likely(&self) -> bool {
        self.remote.kind == CandidateKind::Observed || self.is_proved_by_packet()
    }

    /// Whether a packet of the peer came from there; what it says of itself proves nothing.
    pub(super) fn is_proved_by_packet(&self) -> bool {
        self.remote.kind == CandidateKind::PeerReflexive || self.heard || self.worked
    }
}
