//! A peer of the same LAN: an introduction that both sides make on their own (SPEC section 15.4).

use std::net::SocketAddr;
use std::time::Instant;

use super::super::core::Core;
use super::super::lan::Neighbour;
use super::PeerLink;
use crate::traversal::Agent;

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
        if self.has_session() && self.handshake.is_none() {
            // Another process of the peer, if its checks prove it: it holds none of our keys.
            self.begin_handshake(core, now);
        }
    }

    /// The peer may be reached at these addresses, too.
    pub(in crate::node) fn hint(&mut self, addresses: &[SocketAddr], now: Instant) {
        if let Some(agent) = &mut self.agent {
            agent.hint(addresses, now);
        }
    }

    /// A route is proved: an init that waits takes it at once.
    pub(super) fn hasten_handshake(&mut self, now: Instant) {
        if let Some(handshake) = self.handshake.as_mut().filter(|_| self.relay.is_none()) {
            handshake.next_try = now;
        }
    }
}
