//! Whose turn it is to punch: one pair at a time, within what the node can spare (SPEC section
//! 9.10).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::Node;
use super::api::{Effect, SocketUse};
use super::peer_link::{Grant, PeerLink};
use crate::id::PeerKey;
use crate::io::Route;
use crate::traversal::PROBES_MAX;

/// Probes in a minute over all pairs, whatever peers ask for: three whole punches.
const PROBES_A_MINUTE: usize = 3 * PROBES_MAX;
/// Sockets opened in a minute, whatever peers tell of their NATs: three times three whole rounds.
const SOCKETS_A_MINUTE: usize = 9 * 256;
const MINUTE: Duration = Duration::from_secs(60);

/// One turn after the other.
pub(super) struct Punches {
    current: Option<PeerKey>,
    /// Each link is in it once at most.
    queue: VecDeque<PeerKey>,
    /// Probes of this minute, and sockets.
    probes: usize,
    sockets: usize,
    minute_ends: Instant,
}

impl Punches {
    pub(super) const fn new(now: Instant) -> Self {
        Self { current: None, queue: VecDeque::new(), probes: 0, sockets: 0, minute_ends: now }
    }

    pub(super) fn want(&mut self, key: PeerKey) {
        if !self.queue.contains(&key) {
            self.queue.push_back(key);
        }
    }

    /// Probes and sockets left in this minute.
    fn left(&mut self, now: Instant) -> (usize, usize) {
        if self.minute_ends <= now {
            (self.probes, self.sockets) = (0, 0);
            self.minute_ends = now + MINUTE;
        }
        let sockets = SOCKETS_A_MINUTE.saturating_sub(self.sockets);
        (PROBES_A_MINUTE.saturating_sub(self.probes), sockets)
    }
}

impl Node {
    /// Gives the turn to the next link if nobody has it. True when there was one.
    pub(super) fn grant_punch(&mut self, now: Instant) -> bool {
        let current = self.punches.current.and_then(|key| self.links.get(&key));
        if current.is_some_and(PeerLink::is_punching) {
            return false;
        }
        self.punches.current = None;
        let Some(key) = self.punches.queue.pop_front() else { return false };
        let grant = self.punch_means(now);
        if let Some(link) = self.links.get_mut(&key) {
            self.punches.current = Some(key);
            self.punches.probes += link.grant_punch(&grant, &mut self.core, now);
            self.touched.insert(key);
        }
        true
    }

    fn punch_means(&mut self, now: Instant) -> Grant {
        let kept = self.links.values().filter(|link| link.keeps_socket()).count();
        let limit = usize::from(SocketUse::Guess.limit());
        let (probes, sockets) = self.punches.left(now);
        Grant { probes, sockets: limit.saturating_sub(kept).min(sockets) as u16 }
    }

    /// Sockets that nobody waits for any more are closed.
    pub(super) fn opened_for_punch(&mut self, bound: &[SocketAddr], now: Instant) {
        let server = self.server_v4();
        self.punches.sockets += bound.len();
        let link = self.punches.current.and_then(|key| self.links.get_mut(&key));
        let taken = link.is_some_and(|link| {
            self.touched.insert(link.key);
            link.opened_for_punch(bound, server, &mut self.core, now)
        });
        if !taken && !bound.is_empty() {
            self.core.effect(Effect::CloseSockets(bound.to_vec()));
        }
    }

    /// Whether this is the server's answer to a Binding of the punch under way.
    pub(super) fn measured_for_punch(
        &mut self,
        route: Route,
        datagram: &[u8],
        now: Instant,
    ) -> bool {
        let link = self.punches.current.and_then(|key| self.links.get_mut(&key));
        let Some(link) = link else { return false };
        let ours = link.measured_for_punch(route, datagram, &mut self.core, now);
        if ours {
            self.touched.insert(link.key);
        }
        ours
    }
}
