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
mod choice;
mod guess;
mod incoming;
pub mod nat;
mod nat_wire;
mod pair;
pub mod plan;
mod round;
mod schedule;
mod watch;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use crate::id::CheckTag;
use crate::io::{Route, Transmit};
use crate::time::earliest;
use crate::wire::frame::{CANDIDATES_MAX, Candidate, Candidates};
use crate::wire::stun::canonical;
use candidate::{Class, LocalSet, RemoteSet, SOCKETS_MAX};
use checks::{Incoming, Signer};
use guess::Guess;
pub use guess::Guessed;
pub(crate) use guess::{Openers, PORT_MIN, PROBES_MAX, WINDOW_MAX};
use incoming::REFLEXIVE_MAX;
use pair::Pair;
use round::{Round, Step};
pub(crate) use watch::Keepalive;
use watch::Watch;

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

    fn transmit(&mut self, route: Route, payload: Vec<u8>) {
        self.outputs.push_back(Output::Transmit(Transmit::new(route, payload)));
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
/// Every socket with every candidate.
const PAIRS_MAX: usize = SOCKETS_MAX * (CANDIDATES_MAX + REFLEXIVE_MAX);

#[cfg(test)]
mod tests;
