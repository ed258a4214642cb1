//! Binding requests of our own (RFC 8489): where the server sees a socket that does not carry
//! the session with it.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rand::RngCore as _;

use super::api::Deadline;
use super::core::Core;
use crate::io::Route;
use crate::wire::stun;

/// Between two Binding requests of one measurement.
const RETRY: Duration = Duration::from_millis(250);
/// Binding requests that a measurement takes at most.
const REQUESTS_MAX: u32 = 4;
/// Between two measurements of the other address family: keeps the NAT's mapping open.
const REPEAT: Duration = Duration::from_secs(20);

/// One measurement.
pub(super) struct Probe {
    route: Route,
    transaction: [u8; 12],
    sent: u32,
    next: Instant,
}

impl Probe {
    /// Sends the first request on `route`, which leads to a server.
    pub(super) fn begin(route: Route, core: &mut Core, now: Instant) -> Self {
        let mut transaction = [0; 12];
        core.rng.fill_bytes(&mut transaction);
        let mut probe = Self { route, transaction, sent: 0, next: now };
        probe.send(core, now);
        probe
    }

    /// Sends again when that is due; false when nobody answered the last request either.
    pub(super) fn advance(&mut self, core: &mut Core, now: Instant) -> bool {
        if self.next <= now && self.sent < REQUESTS_MAX {
            self.send(core, now);
        }
        self.next > now
    }

    /// Where the server sees the socket, if this datagram is its answer.
    pub(super) fn answer(&self, route: Route, datagram: &[u8]) -> Option<SocketAddr> {
        let (transaction, observed) = stun::read_binding_response(datagram)?;
        (self.route == route && self.transaction == transaction).then_some(observed)
    }

    /// Round trip of an answer that comes now; unknown where it may answer either of two requests.
    fn rtt(&self, now: Instant) -> Option<Duration> {
        let sent = self.next - RETRY;
        (self.sent == 1).then(|| now.saturating_duration_since(sent))
    }

    pub(super) fn deadline(&self) -> Instant {
        self.next
    }

    fn send(&mut self, core: &mut Core, now: Instant) {
        self.sent += 1;
        self.next = now + RETRY;
        core.transmit(self.route, stun::binding_request(self.transaction));
    }
}

/// Measures the socket of the address family that the session with the server does not use, so
/// that peers of that family alone can be reached.
pub(super) struct OtherFamily {
    probe: Option<Probe>,
    next: Instant,
    /// Round trip of the last measurement that tells one.
    rtt: Option<Duration>,
}

impl OtherFamily {
    pub(super) const fn new(now: Instant) -> Self {
        Self { probe: None, next: now, rtt: None }
    }

    /// Does what is due; `route` leads to the server in the other family, where there is one.
    pub(super) fn advance(&mut self, route: Option<Route>, core: &mut Core, now: Instant) {
        let Some(route) = route else {
            self.probe = None;
            return;
        };
        if self.probe.as_mut().is_some_and(|probe| !probe.advance(core, now)) {
            self.probe = None;
        }
        if self.probe.is_none() && self.next <= now {
            self.next = now + REPEAT;
            self.probe = Some(Probe::begin(route, core, now));
        }
    }

    /// The socket and where the server sees it, if this datagram is the answer.
    pub(super) fn answer(
        &mut self,
        route: Route,
        data: &[u8],
        now: Instant,
    ) -> Option<(SocketAddr, SocketAddr)> {
        let observed = self.probe.as_ref()?.answer(route, data)?;
        self.rtt = self.probe.take().and_then(|probe| probe.rtt(now)).or(self.rtt);
        Some((route.local, observed))
    }

    /// Round trip to the server in this family.
    pub(super) const fn rtt(&self) -> Option<Duration> {
        self.rtt
    }

    /// The network changed: measure again at once.
    pub(super) fn restart(&mut self, now: Instant) {
        self.probe = None;
        self.rtt = None;
        self.next = now;
    }

    pub(super) fn poll_timeout(&self, route: Option<Route>) -> Deadline {
        route?;
        let at = self.probe.as_ref().map_or(self.next, Probe::deadline);
        Some((at, "other address family"))
    }
}
