//! Who reached whom, counted by the network and not by what the programs say.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use crate::topology::HostId;

/// What arrived of one kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Datagrams.
    pub datagrams: u64,
    /// Bytes of UDP payload.
    pub bytes: u64,
    /// Datagrams among them that are STUN: connectivity checks, no payload.
    pub stun: u64,
}

impl Count {
    /// Datagrams that are not connectivity checks.
    pub const fn payload(&self) -> u64 {
        self.datagrams - self.stun
    }

    fn add(&mut self, payload: &[u8]) {
        self.datagrams += 1;
        self.bytes += payload.len() as u64;
        self.stun += u64::from(is_stun(payload));
    }
}

/// A datagram's addresses at both ends of its way; boxes between may have changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Trip {
    /// As its sender wrote them: source and destination.
    pub(crate) sent: (SocketAddr, SocketAddr),
    /// As its receiver saw them.
    pub(crate) seen: (SocketAddr, SocketAddr),
}

impl Trip {
    /// That of an answer over the same addresses.
    const fn back(self) -> Self {
        Self { sent: (self.seen.1, self.seen.0), seen: (self.sent.1, self.sent.0) }
    }
}

/// Arrived datagrams by sending and receiving host.
#[derive(Debug, Default)]
pub struct Traffic {
    /// Datagrams that a host put on its line, wherever they went.
    sent: BTreeMap<HostId, u64>,
    direct: BTreeMap<(HostId, HostId), Count>,
    through: BTreeMap<(HostId, HostId), Count>,
    /// When the newest payload that arrived directly was sent.
    newest: BTreeMap<(HostId, HostId), Instant>,
    /// When the first datagram of a direction arrived in this way.
    heard: BTreeMap<(HostId, HostId, Trip), Instant>,
    /// When the first datagram arrived that its sender sent after having heard the receiver over
    /// the same addresses.
    answered: BTreeMap<(HostId, HostId), Instant>,
}

fn is_stun(payload: &[u8]) -> bool {
    payload.first().is_some_and(|first| *first < 4)
}

/// First byte of a relay frame.
const RELAY: u8 = 0x0A;

impl Traffic {
    /// Datagrams that the host put on its line, to anybody, whatever became of them.
    pub fn sent(&self, host: HostId) -> u64 {
        self.sent.get(&host).copied().unwrap_or_default()
    }

    /// What `from` sent and `to` received without a host between.
    pub fn direct(&self, from: HostId, to: HostId) -> Count {
        self.direct.get(&(from, to)).copied().unwrap_or_default()
    }

    /// Relay frames that reached `to` because another host forwarded what it got from `from`.
    pub fn through(&self, from: HostId, to: HostId) -> Count {
        self.through.get(&(from, to)).copied().unwrap_or_default()
    }

    /// When the newest payload was sent that went from `from` to `to` directly.
    pub fn newest_payload(&self, from: HostId, to: HostId) -> Option<Instant> {
        self.newest.get(&(from, to)).copied()
    }

    /// When `at` first heard from `from`, over a pair of addresses, that its own datagrams arrive
    /// there over the same pair, in whatever way it is told: the earliest moment at which it can
    /// know of a direct path.
    pub fn confirmed(&self, from: HostId, at: HostId) -> Option<Instant> {
        self.answered.get(&(from, at)).copied()
    }

    pub(crate) fn note_sent(&mut self, host: HostId) {
        *self.sent.entry(host).or_default() += 1;
    }

    /// Notes a direct arrival's place in the conversation.
    pub(crate) fn note_order(
        &mut self,
        from: HostId,
        to: HostId,
        trip: Trip,
        payload: &[u8],
        sent: Instant,
        now: Instant,
    ) {
        if !is_stun(payload) {
            let newest = self.newest.entry((from, to)).or_insert(sent);
            *newest = sent.max(*newest);
        }
        self.heard.entry((from, to, trip)).or_insert(now);
        if self.heard.get(&(to, from, trip.back())).is_some_and(|heard| *heard <= sent) {
            self.answered.entry((from, to)).or_insert(now);
        }
    }

    /// `cause` is the host whose datagram made `from` send this one.
    pub(crate) fn arrived(
        &mut self,
        from: HostId,
        cause: Option<HostId>,
        to: HostId,
        payload: &[u8],
    ) {
        self.direct.entry((from, to)).or_default().add(payload);
        let relayed = payload.first() == Some(&RELAY);
        if let Some(cause) = cause.filter(|cause| relayed && *cause != to) {
            self.through.entry((cause, to)).or_default().add(payload);
        }
    }
}
