//! What arrives: requests of the peer, and answers to ours.

use std::net::SocketAddr;
use std::time::Instant;

use super::checks::{Purpose, Transaction};
use super::pair::{self, Pair};
use super::watch::Answered;
use super::{Agent, Output, PAIRS_MAX, Role};
use crate::io::Route;
use crate::wire::frame::{Candidate, CandidateKind};
use crate::wire::stun::canonical;

/// Sources of authentic requests remembered that are no candidates: a symmetric NAT shows one a
/// socket, a moving peer a few more.
pub(super) const REFLEXIVE_MAX: usize = 4;

impl Agent {
    pub(super) fn handle_request(
        &mut self,
        route: Route,
        transaction: Transaction,
        purpose: Purpose,
        now: Instant,
    ) -> bool {
        if !self.local.has_socket(route.local) && !self.guess.has_socket(route.local) {
            return false;
        }
        self.guess.hear(route.remote);
        self.transmit(route, self.signer.response(transaction, route.remote));
        let Some(index) = self.index_of(route).or_else(|| self.learn(route, now)) else {
            return true;
        };
        if purpose == Purpose::Nominate {
            self.note_nomination(index);
            self.consider(index, now);
        }
        if self.pairs[index].hear(now) {
            self.check(index, now);
        }
        true
    }

    /// The controlling side nominates one pair; the other one may ask for several.
    fn note_nomination(&mut self, index: usize) {
        match self.role {
            Role::Controlled => self.pairs.iter_mut().for_each(|pair| pair.nominated = false),
            // What is asked for is done.
            Role::Controlling if self.is_chosen(self.pairs[index].route) => return,
            Role::Controlling => {}
        }
        self.pairs[index].nominated = true;
    }

    /// A request from an unknown source: a peer-reflexive candidate (RFC 8445 section 7.3.1.3).
    /// The number is bounded because a recorded request can be replayed from any source; the
    /// oldest gives way, of those that never answered if there is one, so that the peer's new
    /// mapping is always heard.
    pub(super) fn learn(&mut self, route: Route, now: Instant) -> Option<usize> {
        if !self.local.accepts(route.remote) {
            return None;
        }
        let reflexive = |pair: &Pair| pair.remote.kind == CandidateKind::PeerReflexive;
        if self.pairs.iter().filter(|pair| reflexive(pair)).count() >= REFLEXIVE_MAX {
            let idle = |pair: &Pair| reflexive(pair) && !self.is_chosen(pair.route);
            let silent = |pair: &Pair| idle(pair) && pair.validated().is_none();
            let mut oldest = self.pairs.iter().position(silent);
            oldest = oldest.or_else(|| self.pairs.iter().position(idle));
            self.pairs.remove(oldest?);
        }
        if self.pairs.len() >= PAIRS_MAX {
            return None;
        }
        let remote = Candidate { kind: CandidateKind::PeerReflexive, address: route.remote };
        let mut pair = Pair::new(route, remote, now);
        if self.round.take_source() {
            // The check that the request calls forth is the first one.
            pair.next = Some(now + pair::FIRST_GAP);
        } else {
            pair.rest();
        }
        self.pairs.push(pair);
        Some(self.pairs.len() - 1)
    }

    /// The answer must come back the way its check went (RFC 8445 section 7.2.5.2.1).
    pub(super) fn handle_response(
        &mut self,
        route: Route,
        transaction: Transaction,
        observed: SocketAddr,
        now: Instant,
    ) -> bool {
        let index =
            self.pairs.iter().position(|pair| pair.route == route && pair.awaits(transaction));
        let Some(index) = index.or_else(|| self.adopt(route, transaction, now)) else {
            return false;
        };
        let Some(purpose) = self.pairs[index].answered(transaction, now) else { return false };
        self.pairs[index].mapped = Some(canonical(observed));
        self.guess.hear(route.remote);
        match self.watch.as_mut().filter(|watch| watch.route == route) {
            None => self.consider(index, now),
            Some(watch) => match watch.answered(purpose, now) {
                Answered::Restored => self.outputs.push_back(Output::Restored { route }),
                Answered::AsExpected => {}
            },
        }
        true
    }
}
