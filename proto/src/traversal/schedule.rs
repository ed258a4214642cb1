//! Which pairs there are, and when each is checked.

use std::time::Instant;

use rand::Rng as _;

use super::checks::{Purpose, Transaction};
use super::pair::Pair;
use super::{Agent, Output, PAIRS_MAX, Role, candidate};
use crate::io::{Carrier, Route, Transmit};
use crate::wire::frame::{Candidate, CandidateKind};

impl Agent {
    pub(super) fn take_remote(&mut self, now: Instant) {
        if self.remote.take(now) {
            self.make_pairs(now);
        }
    }

    /// Drops pairs of candidates that the peer no longer names, but what is chosen or learned from
    /// the peer's own packets. Answers the candidates that it does name.
    pub(super) fn prune(&mut self) -> Vec<Candidate> {
        let wanted = candidate::filter(self.remote.all(), &self.local);
        self.pairs.retain(|pair| {
            pair.remote.kind == CandidateKind::PeerReflexive
                || self.watch.as_ref().is_some_and(|watch| watch.route == pair.route)
                || wanted.contains(&pair.remote)
        });
        wanted
    }

    /// Pairs every socket with every candidate it can reach.
    pub(super) fn make_pairs(&mut self, now: Instant) {
        let wanted = self.prune();
        let mut added: Vec<Pair> = Vec::new();
        for remote in wanted {
            for local in self.local.sockets_for(remote.address) {
                let route = Route { carrier: Carrier::Udp, local, remote: remote.address };
                match self.index_of(route) {
                    // What was learned from a packet has a better name now.
                    Some(index) => self.pairs[index].remote = remote,
                    None => added.push(Pair::new(route, remote, now)),
                }
            }
        }
        added.sort_by_key(|pair| std::cmp::Reverse(pair.class));
        added.truncate(PAIRS_MAX - self.pairs.len().min(PAIRS_MAX));
        let ready = !self.local.is_empty() && self.remote.is_known();
        if ready && (self.round.is_idle() || !added.is_empty()) {
            self.round.extend(now);
        }
        self.pairs.append(&mut added);
        self.send_due(now);
    }

    /// Ends pairs whose socket is gone; the chosen path is lost with its socket.
    pub(super) fn drop_orphans(&mut self, now: Instant) {
        let (local, guess) = (&self.local, &self.guess);
        let has_socket = |bound| local.has_socket(bound) || guess.has_socket(bound);
        self.pairs.retain(|pair| has_socket(pair.route.local));
        if self.watch.as_ref().is_some_and(|watch| !has_socket(watch.route.local)) {
            self.lose(now);
        }
    }

    /// All pairs start over but the chosen one, which is watched.
    pub(super) fn begin_round(&mut self, now: Instant) {
        if self.pairs.is_empty() {
            return;
        }
        self.round.begin(now);
        let chosen = self.selected();
        let others = self.pairs.iter_mut().filter(|pair| Some(pair.route) != chosen);
        others.for_each(|pair| pair.begin_round(now));
        self.send_due(now);
    }

    pub(super) fn end_round(&mut self) {
        if self.watch.is_none() {
            self.outputs.push_back(Output::Failed);
        }
    }

    /// Sends the scheduled checks that are due. Pairs that could not better the chosen path
    /// rest, and so do all once a round has spent its checks.
    pub(super) fn send_due(&mut self, now: Instant) {
        for index in 0..self.pairs.len() {
            let pair = &mut self.pairs[index];
            if pair.next.is_none_or(|next| next > now) {
                continue;
            }
            if self.rests(index) {
                self.pairs[index].next = None;
            } else {
                self.check(index, now);
            }
        }
    }

    fn rests(&self, index: usize) -> bool {
        let pair = &self.pairs[index];
        let Some(watch) = self.watch.as_ref().filter(|watch| !watch.is_doubted()) else {
            return false;
        };
        let chosen = self.index_of(watch.route).map(|index| self.pairs[index].class);
        watch.route == pair.route || chosen.is_some_and(|class| class > pair.class)
    }

    /// A check that counts against the round.
    pub(super) fn check(&mut self, index: usize, now: Instant) {
        if self.round.spend() {
            self.pairs[index].advance(now);
            self.send_check(index, now);
        } else {
            self.pairs[index].next = None;
        }
    }

    pub(super) fn send_check(&mut self, index: usize, now: Instant) {
        let route = self.pairs[index].route;
        let purpose = match self.role {
            Role::Controlling if self.is_chosen(route) => Purpose::Nominate,
            Role::Controlled if self.asks_for(index) => Purpose::Nominate,
            Role::Controlling | Role::Controlled => Purpose::Probe,
        };
        let transaction: Transaction = self.rng.random();
        let priority = candidate::check_priority(route.remote);
        let payload = self.signer.request(transaction, purpose, priority);
        let ttl = self.pairs[index].is_entry().then(|| self.entry.ttl()).flatten();
        self.pairs[index].sent(transaction, purpose, now);
        self.outputs.push_back(Output::Transmit(Transmit { ttl, ..Transmit::new(route, payload) }));
    }
}
