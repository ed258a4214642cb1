//! Which addresses are worth a check, and how good a route through them would be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use crate::wire::frame::{CANDIDATES_MAX, Candidate, CandidateKind, Candidates};
use crate::wire::stun::canonical;

/// Local sockets that take part: one per family and interface of an ordinary host, with room.
pub(super) const SOCKETS_MAX: usize = 8;
/// Between two sets of the peer's candidates.
const REMOTE_GAP: Duration = Duration::from_secs(1);
/// Addresses of the peer by another word than its own: as many as itself may name.
const HINTS_MAX: usize = CANDIDATES_MAX;
/// Local candidates remembered; what goes to the peer is bounded by [`CANDIDATES_MAX`].
const LOCAL_MAX: usize = 32;

/// Our sockets and what each is known as.
#[derive(Default)]
pub(super) struct LocalSet {
    list: Vec<(SocketAddr, Candidate)>,
}

impl LocalSet {
    pub(super) fn new(candidates: Vec<(SocketAddr, Candidate)>) -> Self {
        let mut set = Self::default();
        for (bound, candidate) in candidates {
            let candidate = Candidate { address: canonical(candidate.address), ..candidate };
            let known = set.has_socket(bound) || set.sockets().len() < SOCKETS_MAX;
            if known && set.list.len() < LOCAL_MAX && !set.list.contains(&(bound, candidate)) {
                set.list.push((bound, candidate));
            }
        }
        set
    }

    pub(super) fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// What the peer is told: the surest first, no address twice.
    pub(super) fn told(&self) -> Vec<Candidate> {
        let mut sorted: Vec<Candidate> = self
            .list
            .iter()
            .map(|(_, candidate)| *candidate)
            .filter(|candidate| is_plausible(candidate.address))
            .collect();
        sorted.sort_by_key(|candidate| told_rank(candidate.kind));
        let mut told: Vec<Candidate> = Vec::new();
        for candidate in sorted {
            if told.len() < CANDIDATES_MAX && told.iter().all(|t| t.address != candidate.address) {
                told.push(candidate);
            }
        }
        told
    }

    pub(super) fn has_socket(&self, bound: SocketAddr) -> bool {
        self.list.iter().any(|(local, _)| *local == bound)
    }

    /// The sockets that can reach an address of the family of `remote`: those that are known by
    /// one of it.
    pub(super) fn sockets_for(&self, remote: SocketAddr) -> Vec<SocketAddr> {
        let mut sockets = Vec::new();
        for (bound, candidate) in &self.list {
            let fits = candidate.address.is_ipv4() == remote.is_ipv4();
            if fits && !sockets.contains(bound) {
                sockets.push(*bound);
            }
        }
        sockets
    }

    /// The socket of which the server tells an IPv4 address.
    pub(super) fn observed_v4(&self) -> Option<SocketAddr> {
        let observed = |candidate: &Candidate| {
            candidate.kind == CandidateKind::Observed && candidate.address.is_ipv4()
        };
        let mut list = self.list.iter();
        list.find(|(_, candidate)| observed(candidate)).map(|(bound, _)| *bound)
    }

    /// Whether a check may go to `remote`. Loopback only when we are on it ourselves.
    pub(super) fn accepts(&self, remote: SocketAddr) -> bool {
        let own = |(_, candidate): &(SocketAddr, Candidate)| candidate.address == remote;
        let on_loopback =
            |(_, candidate): &(SocketAddr, Candidate)| candidate.address.ip().is_loopback();
        is_plausible(remote)
            && !self.list.iter().any(own)
            && (!remote.ip().is_loopback() || self.list.iter().any(on_loopback))
    }

    fn sockets(&self) -> Vec<SocketAddr> {
        let mut sockets: Vec<_> = self.list.iter().map(|(bound, _)| *bound).collect();
        sockets.sort_unstable();
        sockets.dedup();
        sockets
    }
}

/// The peer's candidates that are worth a check, each once, canonical.
pub(super) fn filter<'a>(
    list: impl Iterator<Item = &'a Candidate>,
    local: &LocalSet,
) -> Vec<Candidate> {
    let mut kept: Vec<Candidate> = Vec::new();
    for candidate in list {
        let candidate = Candidate { address: canonical(candidate.address), ..*candidate };
        let new = kept.iter().all(|k| k.address != candidate.address);
        if new && local.accepts(candidate.address) {
            kept.push(candidate);
        }
    }
    kept
}

/// The peer's candidates, taken in at a bounded pace: each set costs checks to addresses that
/// only the peer vouches for.
pub(super) struct RemoteSet {
    /// At most [`CANDIDATES_MAX`].
    list: Vec<Candidate>,
    /// By another word than the peer's; at most [`HINTS_MAX`].
    hints: Vec<Candidate>,
    generation: Option<u64>,
    /// The newest set that came too soon.
    held: Option<Candidates>,
    /// When the next set may be taken in.
    open_at: Instant,
}

impl RemoteSet {
    pub(super) fn new(now: Instant) -> Self {
        Self { list: Vec::new(), hints: Vec::new(), generation: None, held: None, open_at: now }
    }

    pub(super) fn is_known(&self) -> bool {
        self.generation.is_some() || !self.hints.is_empty()
    }

    /// All addresses, hints first: they lead over the shortest way.
    pub(super) fn all(&self) -> impl Iterator<Item = &Candidate> {
        self.hints.iter().chain(&self.list)
    }

    /// True when these are other hints than before.
    pub(super) fn hint(&mut self, addresses: &[SocketAddr]) -> bool {
        let host =
            |address: &SocketAddr| Candidate { kind: CandidateKind::Host, address: *address };
        let hints: Vec<Candidate> = addresses.iter().take(HINTS_MAX).map(host).collect();
        let news = self.hints != hints;
        self.hints = hints;
        news
    }

    pub(super) fn offer(&mut self, candidates: Candidates) {
        let held = self.held.as_ref().map(|held| held.generation);
        if held.max(self.generation).is_none_or(|newest| candidates.generation >= newest) {
            self.held = Some(candidates);
        }
    }

    /// True when there is a new list.
    pub(super) fn take(&mut self, now: Instant) -> bool {
        let Some(set) = self.held.take_if(|_| now >= self.open_at) else { return false };
        self.list = set.list;
        self.list.truncate(CANDIDATES_MAX);
        self.generation = Some(set.generation);
        self.open_at = now + REMOTE_GAP;
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.held.as_ref().map(|_| self.open_at)
    }
}

/// How good a route to an address is, whatever its round-trip time: the worst first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Class {
    /// IPv4 through NATs, or a public IPv4 host.
    Internet,
    /// IPv6 end to end.
    Ipv6,
    /// The same site: private, unique local or loopback addresses.
    Lan,
}

impl Class {
    pub(super) fn of(remote: SocketAddr) -> Self {
        match remote.ip() {
            IpAddr::V4(ip) if ip.is_private() || ip.is_link_local() || ip.is_loopback() => {
                Self::Lan
            }
            IpAddr::V4(_) => Self::Internet,
            IpAddr::V6(ip) if ip.is_unique_local() || ip.is_loopback() => Self::Lan,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// The priority of the peer-reflexive candidate that a check may make (RFC 8445 section 7.1.1).
pub(super) fn check_priority(remote: SocketAddr) -> u32 {
    const PEER_REFLEXIVE: u32 = 110;
    let local_preference: u32 = if remote.is_ipv6() { 65_535 } else { 65_534 };
    // The component is always 1.
    (PEER_REFLEXIVE << 24) | (local_preference << 8) | 255
}

/// An address that can belong to one host and be written on the wire without a zone.
fn is_plausible(address: SocketAddr) -> bool {
    let ip = match address.ip() {
        IpAddr::V4(ip) => is_plausible_v4(ip),
        IpAddr::V6(ip) => is_plausible_v6(ip),
    };
    ip && address.port() != 0
}

/// Not "this network", multicast, reserved or broadcast.
fn is_plausible_v4(ip: Ipv4Addr) -> bool {
    !matches!(ip.octets()[0], 0 | 224..=255)
}

/// Not unspecified or multicast; link-local addresses need a zone, which the wire does not carry.
fn is_plausible_v6(ip: Ipv6Addr) -> bool {
    !ip.is_unspecified() && !ip.is_multicast() && !ip.is_unicast_link_local()
}

const fn told_rank(kind: CandidateKind) -> u8 {
    match kind {
        CandidateKind::Observed => 0,
        CandidateKind::Mapped => 1,
        CandidateKind::Host => 2,
        CandidateKind::Predicted | CandidateKind::PeerReflexive => 3,
    }
}
