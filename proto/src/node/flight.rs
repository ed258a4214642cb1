//! Requests of one measurement that are under way together, and what came of each.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngCore as _;

use crate::io::Route;
use crate::node::core::Core;
use crate::traversal::nat::classify::Reply;
use crate::wire::stun::{self, Change};

/// A request is sent this often at most: with a tenth lost each way, silence is a mistake once
/// in 20000.
const REQUESTS_MAX: u16 = 6;
/// Between two requests, until a round trip is known.
const GAP_MIN: Duration = Duration::from_millis(250);
/// A slower line is not worth the wait.
const GAP_MAX: Duration = Duration::from_secs(2);

/// All requests of a run. Their number is bounded by the sockets: at most three for each.
pub(super) struct Flight {
    asks: Vec<Ask>,
    gap: Duration,
}

/// What a request is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To learn where the other end sees us.
    Plain,
    /// To be answered from elsewhere.
    Changed(Change),
    /// To be answered to another socket of ours, by its external port.
    Redirected { to: SocketAddr, port: u16 },
    /// To be heard by another socket of ours.
    Hairpin,
}

struct Ask {
    purpose: Purpose,
    route: Route,
    /// Where the answer comes from.
    from: SocketAddr,
    transaction: [u8; 12],
    sent: u16,
    /// When to send again; after the last, until when to wait.
    next: Instant,
    outcome: Outcome,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Pending,
    /// The other end sees us here.
    Seen {
        address: SocketAddr,
        after: u16,
    },
    /// A hairpinned request arrived.
    Arrived,
    /// Nothing came, however often it was sent.
    Silence,
    /// The server does not do what was asked.
    Refused,
}

impl Flight {
    pub(super) const fn new() -> Self {
        Self { asks: Vec::new(), gap: GAP_MIN }
    }

    /// Adds a request on `route` from the moment `at` on, whose answer comes from `from`.
    pub(super) fn ask(
        &mut self,
        purpose: Purpose,
        route: Route,
        from: SocketAddr,
        core: &mut Core,
        at: Instant,
    ) {
        let mut transaction = [0; 12];
        core.rng.fill_bytes(&mut transaction);
        let outcome = Outcome::Pending;
        self.asks.push(Ask { purpose, route, from, transaction, sent: 0, next: at, outcome });
    }

    /// Whether a plain request on `route` is, or was, under way.
    pub(super) fn has_asked(&self, route: Route) -> bool {
        self.asks.iter().any(|ask| ask.purpose == Purpose::Plain && ask.route == route)
    }

    /// Sends what is due.
    pub(super) fn advance(&mut self, core: &mut Core, now: Instant) {
        for ask in &mut self.asks {
            if ask.outcome != Outcome::Pending || ask.next > now {
                continue;
            }
            if ask.sent == REQUESTS_MAX {
                ask.outcome = Outcome::Silence;
                continue;
            }
            ask.sent += 1;
            ask.next = now + self.gap;
            core.transmit(ask.route, ask.request());
        }
    }

    /// Whether each request was answered, or sent often enough.
    pub(super) fn is_over(&self) -> bool {
        self.asks.iter().all(|ask| ask.outcome != Outcome::Pending)
    }

    /// Whether only such requests are pending as silence may answer.
    pub(super) fn is_answered(&self) -> bool {
        let pending = |ask: &Ask| ask.outcome == Outcome::Pending;
        !self.asks.iter().any(|ask| ask.purpose == Purpose::Plain && pending(ask))
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        let pending = self.asks.iter().filter(|ask| ask.outcome == Outcome::Pending);
        pending.map(|ask| ask.next).min()
    }

    /// Requests that follow leave an answer time to come before they repeat: as many gaps as the
    /// first answer to a plain request took.
    pub(super) fn adapt(&mut self) {
        let after = |ask: &Ask| match (ask.purpose, ask.outcome) {
            (Purpose::Plain, Outcome::Seen { after, .. }) => Some(after),
            _ => None,
        };
        let gaps = self.asks.iter().filter_map(after).min().unwrap_or(1);
        self.gap = (GAP_MIN * u32::from(gaps)).min(GAP_MAX);
    }

    /// Takes an answer, or a request that went round by the NAT; false where it is none of ours.
    pub(super) fn handle(&mut self, route: Route, datagram: &[u8]) -> bool {
        if let Some((transaction, address)) = stun::read_binding_response(datagram) {
            let Some(ask) = self.awaiting(route, transaction) else { return false };
            // The first answer counts: copies of it say nothing new.
            if !matches!(ask.outcome, Outcome::Seen { .. }) {
                ask.outcome = Outcome::Seen { address, after: ask.sent };
            }
        } else if let Some(transaction) = stun::read_binding_error(datagram) {
            let asked = |ask: &&mut Ask| ask.transaction == transaction && ask.route == route;
            let Some(ask) = self.asks.iter_mut().find(asked) else { return false };
            ask.outcome = Outcome::Refused;
        } else if let Some(transaction) = stun::read_binding_request(datagram) {
            let round = |ask: &&mut Ask| {
                ask.purpose == Purpose::Hairpin
                    && ask.transaction == transaction
                    && ask.route.local != route.local
            };
            let Some(ask) = self.asks.iter_mut().find(round) else { return false };
            ask.outcome = Outcome::Arrived;
        } else {
            return false;
        }
        true
    }

    fn awaiting(&mut self, route: Route, transaction: [u8; 12]) -> Option<&mut Ask> {
        self.asks.iter_mut().find(|ask| {
            ask.transaction == transaction
                && ask.purpose != Purpose::Hairpin
                && ask.hears_at() == route.local
                && ask.from == route.remote
        })
    }

    // ---- what came of it

    /// Where the server's place at the end of `route` sees the socket.
    pub(super) fn seen(&self, route: Route) -> Option<SocketAddr> {
        self.plain(route).map(|(address, _)| address)
    }

    /// The same, where the first request was answered: the mapping is as old as that.
    pub(super) fn seen_at_once(&self, route: Route) -> Option<SocketAddr> {
        self.plain(route).filter(|(_, after)| *after == 1).map(|(address, _)| address)
    }

    fn plain(&self, route: Route) -> Option<(SocketAddr, u16)> {
        let mut asks = self.asks.iter().filter(|ask| ask.route == route);
        asks.find_map(|ask| match (ask.purpose, ask.outcome) {
            (Purpose::Plain, Outcome::Seen { address, after }) => Some((address, after)),
            _ => None,
        })
    }

    /// What came of asking on `route` for an answer from or to elsewhere.
    pub(super) fn elsewhere(&self, route: Route) -> Reply {
        let is_it = |ask: &&Ask| {
            let asks = matches!(ask.purpose, Purpose::Changed(_) | Purpose::Redirected { .. });
            asks && ask.route == route
        };
        self.asks.iter().find(is_it).map_or(Reply::Unsure, Ask::reply)
    }

    /// Whether one of the two sockets heard the other, where that was tried.
    pub(super) fn hairpin(&self) -> Option<Reply> {
        let tries = self.asks.iter().filter(|ask| ask.purpose == Purpose::Hairpin);
        tries.map(Ask::reply).reduce(|one, other| match (one, other) {
            (Reply::Heard, _) | (_, Reply::Heard) => Reply::Heard,
            (Reply::Silent(sent), Reply::Silent(more)) => Reply::Silent(sent + more),
            (Reply::Unsure, _) | (_, Reply::Unsure) => Reply::Unsure,
        })
    }
}

impl Ask {
    fn request(&self) -> Vec<u8> {
        match self.purpose {
            Purpose::Plain | Purpose::Hairpin => stun::binding_request(self.transaction),
            Purpose::Changed(change) => stun::changed_binding_request(self.transaction, change),
            Purpose::Redirected { port, .. } => {
                stun::redirected_binding_request(self.transaction, port)
            }
        }
    }

    /// The socket where the answer arrives.
    const fn hears_at(&self) -> SocketAddr {
        match self.purpose {
            Purpose::Redirected { to, .. } => to,
            Purpose::Plain | Purpose::Changed(_) | Purpose::Hairpin => self.route.local,
        }
    }

    fn reply(&self) -> Reply {
        match self.outcome {
            Outcome::Seen { .. } | Outcome::Arrived => Reply::Heard,
            Outcome::Silence => Reply::Silent(self.sent),
            Outcome::Pending | Outcome::Refused => Reply::Unsure,
        }
    }
}
