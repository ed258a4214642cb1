//! What all parts of a node share: identity, chance, outputs and the numbering of sessions.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::{RngCore, SeedableRng};
use rand_chacha::ChaCha20Rng;

use super::api::{Effect, Event, Guessing, LocalSocket, MAPPED_MAX, Mapped, Output};
use super::purse::Purse;
use crate::control::{CandidateKindText, CandidateText, Exposure};
use crate::id::{Boot, NetworkId, PeerKey, ReceiverId};
use crate::io::{Route, Train, Transmit};
use crate::session::{EarlyOffer, EarlyVerdict, StaticKey, Suites};
use crate::time::UnixClock;
use crate::traversal::nat::Profile;
use crate::wire::DATAGRAM_LEN_MAX;
use crate::wire::frame::{CANDIDATES_MAX, Candidate, CandidateKind};

/// Peers whose early data is remembered; beyond them it costs a round trip.
const EARLY_COUNTERS_MAX: usize = 4096;

/// Buffers of datagrams that left, kept for those to come: one is filled while another one leaves.
const BUFFERS_MAX: usize = 4;

/// Shared by the link to the server and the links to peers; they get it by reference.
pub(super) struct Core {
    pub(super) static_key: StaticKey,
    pub(super) own: PeerKey,
    pub(super) rng: ChaCha20Rng,
    pub(super) boot: Boot,
    pub(super) suites: Suites,
    pub(super) network: NetworkId,
    /// Whether peers may learn where we are.
    pub(super) exposure: Exposure,
    pub(super) sockets: Vec<LocalSocket>,
    pub(super) outputs: VecDeque<Output>,
    /// At most [`BUFFERS_MAX`].
    buffers: Vec<Vec<u8>>,
    /// What is known of our NAT.
    pub(super) nat: Profile,
    pub(super) guessing: Guessing,
    /// Where the server sees our sockets, by bound address; one of each family at most.
    observed: BTreeMap<SocketAddr, SocketAddr>,
    /// Checks to addresses that only peers vouch for.
    pub(super) claimed: Purse,
    /// Ports that routers forward to our sockets; at most [`MAPPED_MAX`].
    mapped: Vec<Mapped>,
    /// Sockets whose mappings are young, and where the server sees them; the newest first.
    pub(super) fresh: Vec<(SocketAddr, Candidate)>,
    clock: UnixClock,
    last_counter: u64,
    owners: BTreeMap<ReceiverId, Owner>,
    /// Counter of the last early data accepted from each peer.
    early_counters: BTreeMap<PeerKey, u64>,
}

/// Whose session a receiver id names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Owner {
    Server,
    Peer(PeerKey),
}

impl Core {
    pub(super) fn new(
        static_key: StaticKey,
        aes: bool,
        exposure: Exposure,
        seed: [u8; 32],
        (now, clock): (Instant, UnixClock),
    ) -> Self {
        let mut rng = ChaCha20Rng::from_seed(seed);
        let own = static_key.public();
        Self {
            static_key,
            own,
            // Zero stands for "none" on the wire.
            boot: Boot(rng.next_u64() | 1),
            rng,
            suites: Suites::new(aes),
            network: NetworkId::default(),
            exposure,
            sockets: Vec::new(),
            outputs: VecDeque::new(),
            buffers: Vec::new(),
            guessing: Guessing::On,
            observed: BTreeMap::new(),
            nat: Profile::default(),
            claimed: Purse::of_node(now),
            mapped: Vec::new(),
            fresh: Vec::new(),
            clock,
            last_counter: 0,
            owners: BTreeMap::new(),
            early_counters: BTreeMap::new(),
        }
    }

    /// From now on the wall clock is this one.
    pub(super) fn set_clock(&mut self, clock: UnixClock) {
        self.clock = clock;
    }

    /// The wall clock.
    pub(super) fn unix(&self, now: Instant) -> Duration {
        self.clock.unix(now)
    }

    /// A receiver id that is not in use, now owned by `owner`.
    pub(super) fn claim_receiver(&mut self, owner: Owner) -> ReceiverId {
        loop {
            let id = ReceiverId(self.rng.next_u32());
            if let std::collections::btree_map::Entry::Vacant(entry) = self.owners.entry(id) {
                entry.insert(owner);
                return id;
            }
        }
    }

    pub(super) fn owner_of(&self, id: ReceiverId) -> Option<Owner> {
        self.owners.get(&id).copied()
    }

    /// Frees every id of `owner` but those in `kept`.
    pub(super) fn release_receivers(&mut self, owner: Owner, kept: &[ReceiverId]) {
        self.owners.retain(|id, of| *of != owner || kept.contains(id));
    }

    /// Unix seconds.
    pub(super) fn seconds(&self, now: Instant) -> u64 {
        self.clock.seconds(now)
    }

    /// Where the server sees the socket of this bound address.
    pub(super) fn observed_at(&self, bound: SocketAddr) -> Option<SocketAddr> {
        self.observed.get(&bound).copied()
    }

    /// Where the server sees our sockets.
    pub(super) fn observed(&self) -> impl Iterator<Item = SocketAddr> {
        self.observed.values().copied()
    }

    /// Grows with every call and, wall clock willing, over restarts: orders early data.
    pub(super) fn early_counter(&mut self, now: Instant) -> u64 {
        let counter = self.seconds(now).saturating_mul(1 << 20);
        self.last_counter = counter.max(self.last_counter + 1);
        self.last_counter
    }

    /// Early data counts when it names this process and its counter is new (SPEC section 4.7).
    pub(super) fn judge_early(
        &mut self,
        from: PeerKey,
        offer: Option<&EarlyOffer>,
    ) -> EarlyVerdict {
        let Some(offer) = offer else { return EarlyVerdict::None };
        let last = self.early_counters.get(&from).copied();
        let has_room = last.is_some() || self.early_counters.len() < EARLY_COUNTERS_MAX;
        if offer.boot != self.boot || !has_room || last.is_some_and(|last| offer.counter <= last) {
            return EarlyVerdict::Rejected;
        }
        self.early_counters.insert(from, offer.counter);
        EarlyVerdict::Accepted
    }

    /// Where the server sees a socket. True when that is news.
    pub(super) fn note_observed(&mut self, bound: SocketAddr, address: SocketAddr) -> bool {
        self.observed.retain(|other, _| *other == bound || other.is_ipv4() != bound.is_ipv4());
        self.observed.insert(bound, address) != Some(address)
    }

    /// Where the server sees us over IPv4.
    pub(super) fn observed_v4(&self) -> Option<IpAddr> {
        self.observed.values().map(SocketAddr::ip).find(IpAddr::is_ipv4)
    }

    /// What routers forward to us. True when that is news.
    pub(super) fn set_mapped(&mut self, mut mapped: Vec<Mapped>) -> bool {
        mapped.truncate(MAPPED_MAX);
        let news = self.mapped != mapped;
        self.mapped = mapped;
        news
    }

    /// What routers forward to the sockets that are there.
    pub(super) fn mapped(&self) -> impl Iterator<Item = Mapped> {
        let is_there = |bound| self.sockets.iter().any(|socket| socket.bound == bound);
        self.mapped.iter().copied().filter(move |mapped| is_there(mapped.bound))
    }

    /// Our sockets and what each is known as; `spare` is one that a single pair uses. None when
    /// we hide.
    pub(super) fn local_candidates(
        &self,
        spare: Option<(SocketAddr, Candidate)>,
    ) -> Vec<(SocketAddr, Candidate)> {
        if self.exposure == Exposure::Hidden {
            return Vec::new();
        }
        let hosts = self.sockets.iter().flat_map(|socket| {
            socket.addresses.iter().map(|ip| {
                let address = SocketAddr::new(*ip, socket.bound.port());
                (socket.bound, Candidate { kind: CandidateKind::Host, address })
            })
        });
        let observed = self.observed.iter().map(|(bound, address)| {
            (*bound, Candidate { kind: CandidateKind::Observed, address: *address })
        });
        let mapped = self.mapped().map(|Mapped { bound, external }| {
            (bound, Candidate { kind: CandidateKind::Mapped, address: external })
        });
        // The observed address first: it is the one that most pairs need.
        let fresh = self.fresh.iter().copied();
        let all = observed.chain(spare).chain(fresh).chain(mapped).chain(hosts);
        all.take(CANDIDATES_MAX).collect()
    }

    /// The socket whose mapping lives longest, where mappings end at a certain age.
    pub(super) fn favoured(&self) -> Option<SocketAddr> {
        self.fresh.first().map(|(bound, _)| *bound)
    }

    /// The candidates that the server does not see by itself, as a registration writes them.
    pub(super) fn told_candidates(&self) -> Vec<CandidateText> {
        let all = self.local_candidates(None).into_iter();
        let text = |kind, candidate: Candidate| CandidateText { kind, address: candidate.address };
        all.filter_map(|(_, candidate)| match candidate.kind {
            CandidateKind::Host => Some(text(CandidateKindText::Host, candidate)),
            CandidateKind::Mapped => Some(text(CandidateKindText::Mapped, candidate)),
            CandidateKind::Observed | CandidateKind::PeerReflexive | CandidateKind::Predicted => {
                None
            }
        })
        .collect()
    }

    /// Whether the socket of a route serves any address of the host.
    pub(super) fn serves(&self, route: Route) -> bool {
        let mut sockets = self.sockets.iter();
        sockets.any(|socket| socket.bound == route.local && !socket.addresses.is_empty())
    }

    /// Whether the host itself has this address.
    pub(super) fn is_own(&self, ip: IpAddr) -> bool {
        self.sockets.iter().any(|socket| socket.addresses.contains(&ip))
    }

    /// The route to `remote` from the socket of its address family.
    pub(super) fn route_to(&self, remote: SocketAddr) -> Option<Route> {
        let mut fitting = self.sockets.iter().filter(|s| s.bound.is_ipv4() == remote.is_ipv4());
        fitting.next().map(|socket| Route::udp(socket.bound, remote))
    }

    /// An empty buffer for datagrams.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.buffers.pop().unwrap_or_else(|| Vec::with_capacity(DATAGRAM_LEN_MAX))
    }

    /// A buffer that is not needed any more.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.buffers.len() < BUFFERS_MAX && buffer.capacity() >= DATAGRAM_LEN_MAX {
            buffer.clear();
            self.buffers.push(buffer);
        }
    }

    pub(super) fn send_train(&mut self, train: Train) {
        self.outputs.push_back(Output::Train(train));
    }

    pub(super) fn transmit(&mut self, route: Route, payload: Vec<u8>) {
        self.send(Transmit::new(route, payload));
    }

    pub(super) fn send(&mut self, transmit: Transmit) {
        self.outputs.push_back(Output::Transmit(transmit));
    }

    pub(super) fn event(&mut self, event: Event) {
        self.outputs.push_back(Output::Event(event));
    }

    pub(super) fn effect(&mut self, effect: Effect) {
        self.outputs.push_back(Output::Effect(effect));
    }
}
