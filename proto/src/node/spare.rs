//! Spare sockets: a new local port, and so a new mapping at the NAT, for pairs whose checks all
//! failed (SPEC section 9).
//!
//! Where a datagram reaches a router before its own side has sent, some routers keep state for
//! it, and what that side sends later leaves from another port than the one it is known by. Such
//! state is tied to both endpoints, so that a fresh socket on one side is free of it. A spare is
//! measured with a Binding request right before use; pairs share the few there are.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::LINKS_MAX;
use super::api::{Deadline, Effect, SocketUse};
use super::binding::Probe;
use super::core::Core;
use crate::id::PeerKey;
use crate::io::Route;

/// Spare sockets open at most; also the rounds of checks that a pair spends on them in a row.
pub(super) const SPARES_MAX: usize = SocketUse::Spare.limit() as usize;
/// Between two introductions for the sake of spares: half of what an open network grants.
const PACE: Duration = Duration::from_secs(2);

/// Opens and measures, for one pair at a time.
pub(super) struct Spares {
    open: Vec<SocketAddr>,
    /// Pairs that want one, and which.
    queue: VecDeque<(PeerKey, usize)>,
    current: Option<Current>,
    /// When the next pair may begin.
    free_at: Instant,
}

struct Current {
    key: PeerKey,
    step: Step,
}

enum Step {
    /// The shell was asked for a socket.
    Opening,
    Measuring(Probe),
}

/// A spare that is ready for a pair.
pub(super) struct Ready {
    pub(super) key: PeerKey,
    pub(super) bound: SocketAddr,
    /// Where the server sees it.
    pub(super) observed: SocketAddr,
}

impl Spares {
    pub(super) const fn new(now: Instant) -> Self {
        Self { open: Vec::new(), queue: VecDeque::new(), current: None, free_at: now }
    }

    /// The pair `key` wants its `nth` spare, counted from 0 and taken round in a circle.
    pub(super) fn want(&mut self, key: PeerKey, nth: usize) {
        let waits = self.queue.iter().any(|(waiting, _)| *waiting == key);
        if !waits && self.queue.len() < LINKS_MAX {
            self.queue.push_back((key, nth % SPARES_MAX));
        }
    }

    /// Does what is due. `server` is where Binding requests go: spares are for IPv4 alone,
    /// because nothing translates IPv6.
    pub(super) fn advance(&mut self, server: Option<SocketAddr>, core: &mut Core, now: Instant) {
        match &mut self.current {
            Some(Current { step: Step::Measuring(probe), .. }) => {
                if !probe.advance(core, now) {
                    self.current = None;
                }
            }
            Some(_) => {}
            None => self.begin(server, core, now),
        }
    }

    fn begin(&mut self, server: Option<SocketAddr>, core: &mut Core, now: Instant) {
        if self.free_at > now {
            return;
        }
        let Some((key, nth)) = self.queue.pop_front() else { return };
        let Some(server) = server.filter(SocketAddr::is_ipv4) else { return };
        self.free_at = now + PACE;
        let step = if let Some(bound) = self.open.get(nth) {
            Step::Measuring(Probe::begin(Route::udp(*bound, server), core, now))
        } else {
            core.effect(Effect::OpenSockets { usage: SocketUse::Spare, count: 1 });
            Step::Opening
        };
        self.current = Some(Current { key, step });
    }

    /// The shell's answer to [`Effect::OpenSockets`].
    pub(super) fn opened(
        &mut self,
        bound: Option<SocketAddr>,
        server: Option<SocketAddr>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(Current { step: step @ Step::Opening, .. }) = &mut self.current else { return };
        match (bound, server.filter(SocketAddr::is_ipv4)) {
            (Some(bound), Some(server)) => {
                self.open.push(bound);
                *step = Step::Measuring(Probe::begin(Route::udp(bound, server), core, now));
            }
            (bound, _) => {
                self.open.extend(bound);
                self.current = None;
            }
        }
    }

    /// Takes the server's answer to a Binding request; `None` for every other datagram.
    pub(super) fn measured(&mut self, route: Route, datagram: &[u8]) -> Option<Ready> {
        let Some(Current { key, step: Step::Measuring(probe) }) = &self.current else {
            return None;
        };
        let observed = probe.answer(route, datagram)?;
        let ready = Ready { key: *key, bound: route.local, observed };
        self.current = None;
        Some(ready)
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        match &self.current {
            Some(Current { step: Step::Measuring(probe), .. }) => {
                Some((probe.deadline(), "spare socket"))
            }
            Some(Current { step: Step::Opening, .. }) => None,
            None if self.queue.is_empty() => None,
            None => Some((self.free_at, "next spare socket")),
        }
    }
}
