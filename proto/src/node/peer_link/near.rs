//! A peer of the same LAN: an introduction that both sides make on their own (SPEC section 15.4).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::super::core::Core;
use super::super::lan::Neighbour;
use super::PeerLink;
use super::handshake::Cause;
use crate::traversal::Agent;

/// How long an init waits for the other side's proof of a route; on a LAN that takes less.
const PROOF_MAX: Duration = Duration::from_millis(20);

impl PeerLink {
    /// Whether messages wait that a meeting may help along.
    pub(in crate::node) fn wants_meeting(&self, neighbour: &Neighbour) -> bool {
        !self.conversation.transport_ref().is_idle() && self.may_meet(neighbour)
    }

    /// Whether a meeting disturbs nothing: no checks are under way, and no session with this
    /// process of the peer goes on.
    pub(in crate::node) fn may_meet(&self, neighbour: &Neighbour) -> bool {
        let Some(agent) = &self.agent else { return true };
        let outlived = !self.has_session() || self.boot != neighbour.boot;
        agent.is_waiting() && outlived && self.connect != Some(neighbour.meeting.connect)
    }

    /// Whether an authentic check of the neighbour begins a meeting, too: one of another process
    /// than ours was shows that this one is gone.
    pub(in crate::node) fn yields_to(&self, neighbour: &Neighbour) -> bool {
        let another = self.boot != neighbour.boot;
        self.may_meet(neighbour) || (another && self.connect != Some(neighbour.meeting.connect))
    }

    /// Checks go to the addresses of the neighbour; the agent is that of its meeting.
    pub(in crate::node) fn meet(
        &mut self,
        mut agent: Agent,
        neighbour: &Neighbour,
        core: &mut Core,
        now: Instant,
    ) {
        agent.hint(&neighbour.addresses, now);
        self.interrupt_punch(core, now);
        self.adopt(agent, neighbour.meeting.connect);
    }

    /// A session that stands is with another process than the one we meet, if its checks prove
    /// it: that one holds none of our keys.
    pub(in crate::node) fn begin_anew(&mut self, core: &mut Core, now: Instant) {
        if self.has_session() && self.handshake.is_none() {
            self.begin_handshake(Cause::Need, core, now);
        }
    }

    /// The peer may be reached at these addresses, too.
    pub(in crate::node) fn hint(&mut self, addresses: &[SocketAddr], now: Instant) {
        if let Some(agent) = &mut self.agent {
            agent.hint(addresses, now);
        }
    }

    /// A route is proved: an init that waits takes it, as soon as the other side has proved it,
    /// too, or it would not be heard. That side's check is answered with our next datagram.
    pub(super) fn hasten_handshake(&mut self, rtt: Option<Duration>, now: Instant) {
        if let Some(handshake) = self.handshake.as_mut().filter(|_| self.relay.is_none()) {
            handshake.next_try = now + rtt.unwrap_or(PROOF_MAX).min(PROOF_MAX);
        }
    }
}
