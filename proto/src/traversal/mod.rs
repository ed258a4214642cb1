//! Finding a direct path: an ICE-like agent for two parties that trust one server (SPEC section
//! 9; terms of RFC 8445).
//!
//! - The server tells both sides each other's candidates in one moment; both check every pair at
//!   once. An authentic answer *validates* a pair for the side that asked.
//! - An authentic request is answered at once to where it came from, makes an unknown source a
//!   peer-reflexive candidate, and calls forth a check back.
//! - The controlling side nominates the first pair it validates and moves to a clearly better
//!   one later. The controlled side begins with the first pair it validates, too, and follows
//!   the newest nomination on a pair it validated itself.
//! - The chosen path is checked when idle, and quickly while it is in doubt. When it is lost, a
//!   new round begins at once; after a round without success, single checks go on in the
//!   background, ever more rarely.
//!
//! Sockets, interfaces and the decision what travels over a chosen path are the owner's.

mod candidate;
mod checks;
mod guess;
pub mod nat;
mod nat_wire;
mod pair;
pub mod plan;
mod round;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use crate::id::CheckTag;
use crate::io::{Carrier, Route, Transmit};
use crate::time::earliest;
use crate::wire::frame::{CANDIDATES_MAX, Candidate, CandidateKind, Candidates};
use crate::wire::stun::canonical;
use candidate::{Class, LocalSet, RemoteSet, SOCKETS_MAX};
use checks::{Incoming, Purpose, Signer, Transaction};
use guess::Guess;
pub use guess::Guessed;
pub(crate) use guess::{Openers, PORT_MIN, PROBES_MAX, WINDOW_MAX};
use pair::Pair;
use round::{Round, Step};
pub(crate) use watch::Keepalive;
use watch::{Answered, Due, Nomination, Watch};

/// Who nominates: the smaller static key is controlling.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Chooses the path.
    Controlling,
    /// Follows the choice.
    Controlled,
}

impl Role {
    /// The other side's.
    #[must_use]
    pub const fn other(self) -> Self {
        match self {
            Self::Controlling => Self::Controlled,
            Self::Controlled => Self::Controlling,
        }
    }
}

/// What two peers know of each other before the first check.
pub struct Config {
    /// Who nominates.
    pub role: Role,
    /// (send, receive) from `session::check_keys`.
    pub keys: ([u8; 32], [u8; 32]),
    /// USERNAME of checks sent to us.
    pub own_tag: CheckTag,
    /// USERNAME of checks sent to them.
    pub their_tag: CheckTag,
    /// Source of transaction ids.
    pub seed: [u8; 32],
}

/// One introduction: makes pairs, checks them, nominates, keeps the chosen path alive and
/// watched, for as long as its owner keeps it.
pub struct Agent {
    role: Role,
    signer: Signer,
    rng: ChaCha12Rng,
    local: LocalSet,
    local_generation: u64,
    remote: RemoteSet,
    /// Where the server sees the peer.
    vouched: Option<SocketAddr>,
    /// Best class first within what was added together; at most [`PAIRS_MAX`].
    pairs: Vec<Pair>,
    round: Round,
    /// The chosen path.
    watch: Option<Watch>,
    /// How the first check of a round leaves.
    entry: Entry,
    /// The socket whose mapping lives longest.
    favoured: Option<SocketAddr>,
    keepalive: Keepalive,
    guess: Guess,
    /// Drained by the owner after every call.
    outputs: VecDeque<Output>,
}

/// What the agent wants from its owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// Send this.
    Transmit(Transmit),
    /// This route is proved both ways: use it. On the controlling side it is nominated; on the
    /// controlled side the other nominated it, or it is the first one that is proved.
    Selected {
        /// The path; a path chosen before is given up.
        route: Route,
        /// Round-trip time of its checks.
        rtt: Option<Duration>,
    },
    /// The chosen route was in doubt, and answers.
    Restored {
        /// The path that is chosen still.
        route: Route,
    },
    /// The chosen route stopped answering; checks have begun again.
    Lost {
        /// The path that was chosen.
        route: Route,
    },
    /// Our own candidates changed: send them end to end.
    CandidatesChanged,
    /// A round of checks found nothing; goes on in the background.
    Failed,
}

/// How the first check of a round to the peer's observed address leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Entry {
    /// Like all others.
    Plain,
    /// With a time to live that ends before the other router: that one keeps state for datagrams
    /// that it did not ask for, and then moves its own side's mapping.
    Cautious,
}

/// For people: where an agent stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The whole.
    pub state: State,
    /// Every pair that is being, or was, checked.
    pub pairs: Vec<PairReport>,
    /// What was spent on guessing ports since the last introduction.
    pub guessed: Guessed,
}

/// Where an agent stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// A round of checks is on its way, or will be as soon as there is a pair.
    Checking,
    /// There is a direct path.
    Selected,
    /// The last round found nothing; single checks go on.
    Waiting,
}

/// What was tried on one pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairReport {
    /// From which socket to which address.
    pub route: Route,
    /// The candidate behind the address.
    pub remote: Candidate,
    /// Checks sent, ever.
    pub checks_sent: u32,
    /// Whether any was answered, ever.
    pub answered: bool,
    /// Round-trip time while the pair is proved.
    pub rtt: Option<Duration>,
}

impl Agent {
    /// Checks start as soon as there is a pair.
    pub fn new(config: Config, now: Instant) -> Self {
        Self {
            role: config.role,
            signer: Signer::new(&config),
            rng: ChaCha12Rng::from_seed(config.seed),
            local: LocalSet::default(),
            local_generation: 0,
            remote: RemoteSet::new(now),
            vouched: None,
            pairs: Vec::new(),
            round: Round::new(),
            watch: None,
            entry: Entry::Plain,
            favoured: None,
            keepalive: Keepalive::DEFAULT,
            guess: Guess::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Our sockets and what each is known as: candidates to tell the peer come out of
    /// [`Self::local_candidates`]. The first of each pair is the bound address that names the
    /// socket a check leaves from ([`Route::local`]). A socket takes part in the address
    /// families of its candidates; at most 8 sockets do. Pairs of sockets that are gone end.
    pub fn set_local(&mut self, candidates: Vec<(SocketAddr, Candidate)>, now: Instant) {
        let told = self.local.told();
        let first = self.local.is_empty();
        self.local = LocalSet::new(candidates);
        if self.local.told() != told {
            self.local_generation += 1;
            if !first {
                self.outputs.push_back(Output::CandidatesChanged);
            }
        }
        self.drop_orphans(now);
        self.make_pairs(now);
    }

    /// From now on routes from this socket are better than others of their class, where a NAT's
    /// mapping carries them: it lives longest. The controlled side asks for them.
    pub(crate) fn favour(&mut self, socket: Option<SocketAddr>) {
        self.favoured = socket;
    }

    /// How often an idle path is checked.
    pub(crate) fn keep(&mut self, keepalive: Keepalive) {
        self.keepalive = keepalive;
        if let Some(watch) = &mut self.watch {
            watch.keep(keepalive);
        }
    }

    /// Whether a NAT's mapping may carry the chosen path.
    pub(crate) fn depends_on_mapping(&self) -> bool {
        self.selected().is_some_and(|route| Class::of(route.remote) == Class::Internet)
    }

    /// What to tell the peer: at most 8, and a generation that counts their changes.
    pub fn local_candidates(&self) -> Candidates {
        Candidates { generation: self.local_generation, list: self.local.told() }
    }

    /// The generation of what [`Self::local_candidates`] tells.
    pub fn local_generation(&self) -> u64 {
        self.local_generation
    }

    /// The peer's set; an older generation is ignored. Sets that follow each other faster than
    /// once a second are taken in at that pace, the newest first.
    pub fn set_remote(&mut self, candidates: Candidates, now: Instant) {
        // What went out of use since its candidate was withdrawn is new when that comes back.
        self.prune();
        self.remote.offer(candidates);
        self.take_remote(now);
    }

    /// The server sees the peer there: checks to it are on nobody else's word.
    pub(crate) fn vouch(&mut self, address: SocketAddr) {
        self.vouched = Some(canonical(address));
    }

    /// Addresses that the peer has by another word than its own: checked beside its candidates.
    pub fn hint(&mut self, addresses: &[SocketAddr], now: Instant) {
        if self.remote.hint(addresses) {
            self.make_pairs(now);
        }
    }

    /// Whether the last round of checks found nothing.
    pub fn is_waiting(&self) -> bool {
        self.watch.is_none() && self.round.is_background()
    }

    /// A STUN datagram from `route`. False when it is not ours (bad integrity, other tag,
    /// unknown transaction).
    pub fn handle_datagram(&mut self, route: Route, datagram: &[u8], now: Instant) -> bool {
        let route = Route { remote: canonical(route.remote), ..route };
        match self.signer.read(datagram) {
            None => false,
            Some(Incoming::Request { transaction, purpose }) => {
                self.handle_request(route, transaction, purpose, now)
            }
            Some(Incoming::Response { transaction, observed }) => {
                self.handle_response(route, transaction, observed, now)
            }
        }
    }

    /// Authentic data arrived over `route`: the chosen path needs no check for a while.
    pub fn traffic(&mut self, route: Route, now: Instant) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.route == route) {
            watch.alive(now);
        }
    }

    /// Transport hears nothing from the route. If it is the chosen one it is checked at once and
    /// quickly; [`Output::Restored`] or [`Output::Lost`] follows. Until then any other route that
    /// is proved takes over.
    pub fn doubt(&mut self, route: Route, now: Instant) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.route == route) {
            watch.doubt(now);
            self.watch_path(now);
        }
    }

    /// What transport sent on the route arrives again. The answer may have come another way, so
    /// that it is for a check to restore the route; the next one leaves at once.
    pub fn hope(&mut self, route: Route, now: Instant) {
        if let Some(watch) = self.watch.as_mut().filter(|watch| watch.route == route) {
            watch.hope(now);
            self.watch_path(now);
        }
    }

    /// Transport gave the route up: check everything again at once. A route that fails over and
    /// over, although its checks are answered, is chosen again only after a pause that doubles
    /// from 1 s to 60 s.
    pub fn path_failed(&mut self, route: Route, now: Instant) {
        if let Some(index) = self.index_of(route) {
            self.pairs[index].fail(now);
        }
        if self.is_chosen(route) {
            self.lose(now);
        }
    }

    /// Local network changed: start anew at once. The chosen path stays until another proves
    /// itself first, or it is lost.
    pub fn restart(&mut self, now: Instant) {
        if let Some(watch) = &mut self.watch {
            watch.doubt(now);
        }
        self.begin_round(now);
        self.watch_path(now);
    }

    /// The pair no longer talks: no background checks until [`Self::wake`]. A chosen path is
    /// still kept.
    pub fn rest(&mut self) {
        self.round.rest();
    }

    /// The pair talks.
    pub fn wake(&mut self, now: Instant) {
        self.round.wake(now);
    }

    /// Does what is due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.take_remote(now);
        self.watch_path(now);
        self.guess_on(now);
        match self.round.fire(now) {
            Step::Nothing => {}
            Step::Ended => self.end_round(),
            Step::Background => self.pairs.iter_mut().for_each(|pair| pair.begin_background(now)),
        }
        self.send_due(now);
    }

    /// The earliest deadline and its name.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let checks = self.pairs.iter().filter_map(|pair| pair.next).min();
        let named = [
            (checks, "connectivity check"),
            (self.watch.as_ref().map(|watch| watch.due), "check of the chosen path"),
            (self.round.deadline(), "round of checks"),
            (self.remote.deadline(), "held candidates"),
        ];
        let guess = self.guess.deadline();
        named.into_iter().fold(guess, |first, (at, name)| earliest(first, at.map(|at| (at, name))))
    }

    /// The next thing for the owner to do.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// For people: state, pairs tried and their results.
    pub fn report(&self) -> Report {
        let state = match &self.watch {
            Some(_) => State::Selected,
            None if self.is_waiting() => State::Waiting,
            None => State::Checking,
        };
        let pairs = self.pairs.iter().map(Pair::report).collect();
        Report { state, pairs, guessed: self.guess.guessed() }
    }

    /// The chosen path.
    pub fn selected(&self) -> Option<Route> {
        self.watch.as_ref().map(|watch| watch.route)
    }

    /// Whether a check of ours was answered on the route: it counts as a returned challenge.
    pub fn is_validated(&self, route: Route) -> bool {
        self.rtt(route).is_some()
    }

    /// Whether a check of ours was ever answered on the route, whatever became of it since.
    pub(crate) fn has_worked(&self, route: Route) -> bool {
        self.index_of(route).is_some_and(|index| self.pairs[index].has_worked())
    }

    /// Whether nobody but the peer says that the route leads to it: neither the server nor a
    /// packet.
    pub fn is_claimed(&self, route: Route) -> bool {
        let vouched = self.vouched == Some(route.remote);
        !vouched
            && self.index_of(route).is_some_and(|index| !self.pairs[index].is_proved_by_packet())
    }

    /// Round-trip time of the checks of a validated route.
    pub fn rtt(&self, route: Route) -> Option<Duration> {
        self.pairs[self.index_of(route)?].validated()
    }

    /// Our own address on a validated route, as the peer sees it.
    pub(crate) fn mapped(&self, route: Route) -> Option<SocketAddr> {
        self.pairs[self.index_of(route)?].mapped
    }

    /// What is known of the other router decides how rounds begin.
    pub(crate) fn set_entry(&mut self, entry: Entry) {
        self.entry = entry;
    }

    /// Whether a round goes on in which IPv6, which needs no guessing, may still prove itself.
    pub(crate) fn hopes_for_ipv6(&self) -> bool {
        !self.round.is_background() && self.pairs.iter().any(|pair| pair.class == Class::Ipv6)
    }

    fn take_remote(&mut self, now: Instant) {
        if self.remote.take(now) {
            self.make_pairs(now);
        }
    }

    /// Drops pairs of candidates that the peer no longer names, but what is chosen or learned from
    /// the peer's own packets. Answers the candidates that it does name.
    fn prune(&mut self) -> Vec<Candidate> {
        let wanted = candidate::filter(self.remote.all(), &self.local);
        self.pairs.retain(|pair| {
            pair.remote.kind == CandidateKind::PeerReflexive
                || self.watch.as_ref().is_some_and(|watch| watch.route == pair.route)
                || wanted.contains(&pair.remote)
        });
        wanted
    }

    /// Pairs every socket with every candidate it can reach.
    fn make_pairs(&mut self, now: Instant) {
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
    fn drop_orphans(&mut self, now: Instant) {
        let (local, guess) = (&self.local, &self.guess);
        let has_socket = |bound| local.has_socket(bound) || guess.has_socket(bound);
        self.pairs.retain(|pair| has_socket(pair.route.local));
        if self.watch.as_ref().is_some_and(|watch| !has_socket(watch.route.local)) {
            self.lose(now);
        }
    }

    fn handle_request(
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
    fn learn(&mut self, route: Route, now: Instant) -> Option<usize> {
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
    fn handle_response(
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

    /// Whether a pair should become the chosen path.
    fn consider(&mut self, index: usize, now: Instant) {
        let pair = &self.pairs[index];
        let Some(rtt) = pair.validated() else { return };
        let wanted = match self.role {
            Role::Controlling => self.is_better(pair, rtt),
            Role::Controlled => pair.nominated || self.watch.is_none(),
        };
        if wanted && !self.is_chosen(pair.route) && !self.pairs[index].postpone(now) {
            self.select(index, rtt, now);
        }
    }

    fn select(&mut self, index: usize, rtt: Duration, now: Instant) {
        let route = self.pairs[index].route;
        let nomination = match self.role {
            Role::Controlling => {
                // What the other side asked for is done.
                self.pairs[index].nominated = false;
                Nomination::Pending
            }
            Role::Controlled => {
                self.ask_anew(route, now);
                Nomination::Known
            }
        };
        if let Some(old) = self.watch.take().filter(Watch::is_doubted)
            && let Some(old) = self.index_of(old.route)
        {
            self.pairs[old].forget();
        }
        self.watch = Some(Watch::new(route, nomination, self.keepalive, now));
        self.outputs.push_back(Output::Selected { route, rtt: Some(rtt) });
        self.watch_path(now);
    }

    /// Better than the chosen path by class, by the age of its mapping on this side or, as the
    /// other side says, on that one, or clearly by round-trip time; always, when there is none or
    /// it is in doubt.
    fn is_better(&self, pair: &Pair, rtt: Duration) -> bool {
        let Some(watch) = self.watch.as_ref().filter(|watch| !watch.is_doubted()) else {
            return true;
        };
        let Some(chosen) = self.index_of(watch.route).map(|index| &self.pairs[index]) else {
            return true;
        };
        let rank = |pair: &Pair| (pair.class, self.is_favoured(pair), pair.nominated);
        match rank(pair).cmp(&rank(chosen)) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                chosen.validated().is_none_or(|old| rtt + RTT_GAIN < old && rtt * 5 < old * 4)
            }
        }
    }

    /// Sends the check of the chosen path if it is due.
    fn watch_path(&mut self, now: Instant) {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.due <= now) else { return };
        let route = watch.route;
        match (watch.fire(now), self.index_of(route)) {
            (Due::Check, Some(index)) => self.send_check(index, now),
            (Due::LookAround, Some(index)) => {
                self.send_check(index, now);
                self.begin_round(now);
            }
            (Due::Lost, _) | (Due::Check | Due::LookAround, None) => self.lose(now),
        }
    }

    fn lose(&mut self, now: Instant) {
        if let Some(watch) = self.watch.take() {
            self.outputs.push_back(Output::Lost { route: watch.route });
            self.begin_round(now);
        }
    }

    /// All pairs start over but the chosen one, which is watched.
    fn begin_round(&mut self, now: Instant) {
        if self.pairs.is_empty() {
            return;
        }
        self.round.begin(now);
        let chosen = self.selected();
        let others = self.pairs.iter_mut().filter(|pair| Some(pair.route) != chosen);
        others.for_each(|pair| pair.begin_round(now));
        self.send_due(now);
    }

    fn end_round(&mut self) {
        if self.watch.is_none() {
            self.outputs.push_back(Output::Failed);
        }
    }

    /// Sends the scheduled checks that are due. Pairs that could not better the chosen path
    /// rest, and so do all once a round has spent its checks.
    fn send_due(&mut self, now: Instant) {
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
    fn check(&mut self, index: usize, now: Instant) {
        if self.round.spend() {
            self.pairs[index].advance(now);
            self.send_check(index, now);
        } else {
            self.pairs[index].next = None;
        }
    }

    fn send_check(&mut self, index: usize, now: Instant) {
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

    fn transmit(&mut self, route: Route, payload: Vec<u8>) {
        self.outputs.push_back(Output::Transmit(Transmit::new(route, payload)));
    }

    fn is_favoured(&self, pair: &Pair) -> bool {
        self.favoured == Some(pair.route.local) && pair.class == Class::Internet
    }

    /// The other side chooses an older mapping of ours: pairs that it should choose instead are
    /// checked once more, to say so.
    fn ask_anew(&mut self, chosen: Route, now: Instant) {
        if self.favoured == Some(chosen.local) {
            return;
        }
        for index in 0..self.pairs.len() {
            if self.is_favoured(&self.pairs[index]) && self.pairs[index].validated().is_some() {
                self.pairs[index].begin_round(now);
            }
        }
    }

    /// Whether the controlling side should choose this pair for the age of our mapping.
    fn asks_for(&self, index: usize) -> bool {
        let chosen = self.selected().and_then(|route| self.index_of(route));
        let older = chosen
            .map(|index| &self.pairs[index])
            .is_some_and(|chosen| chosen.class == Class::Internet && !self.is_favoured(chosen));
        older && self.is_favoured(&self.pairs[index])
    }

    fn is_chosen(&self, route: Route) -> bool {
        self.watch.as_ref().is_some_and(|watch| watch.route == route)
    }

    fn index_of(&self, route: Route) -> Option<usize> {
        self.pairs.iter().position(|pair| pair.route == route)
    }
}

impl Entry {
    const fn ttl(self) -> Option<u8> {
        match self {
            Self::Plain => None,
            Self::Cautious => Some(TTL_NEAR),
        }
    }
}

/// Routers that a datagram passes which is to open the own NAT, a carrier's included, and to die
/// before the other's.
pub(crate) const TTL_NEAR: u8 = 5;
/// Sources of authentic requests remembered that are no candidates: a symmetric NAT shows one a
/// socket, a moving peer a few more.
const REFLEXIVE_MAX: usize = 4;
/// Every socket with every candidate.
const PAIRS_MAX: usize = SOCKETS_MAX * (CANDIDATES_MAX + REFLEXIVE_MAX);
/// A path of the same class must be faster by this, and by a fifth, to be worth a move.
const RTT_GAIN: Duration = Duration::from_millis(5);
#[cfg(test)]
mod tests;
