//! What the server says of the peer, and what follows: a relay channel, and an agent that checks.

use std::time::Instant;

use rand::RngCore as _;

use super::super::core::Core;
use super::super::why::Party;
use super::PeerLink;
use crate::control::{self, CandidateKindText, Connect, Exposure};
use crate::id::ConnectId;
use crate::session::{Meeting, check_keys};
use crate::traversal::{self, Agent};
use crate::wire::frame::{Candidate, CandidateKind, Candidates};

impl PeerLink {
    /// What the server says of the peer. Another process of it holds none of our keys.
    pub(in crate::node) fn update(
        &mut self,
        member: &control::Member,
        core: &mut Core,
        now: Instant,
    ) {
        self.name = member.name.clone();
        if self.boot != member.boot {
            self.boot = member.boot;
            self.drop_session(core, now);
            self.relay = None;
        }
    }

    /// The server introduced us: the relay channel is there and checks begin.
    pub(in crate::node) fn introduced(&mut self, event: &Connect, core: &mut Core, now: Instant) {
        self.relay = Some(event.channel);
        self.open_relay(now);
        self.hides = match (core.exposure, event.member.observed) {
            (Exposure::Hidden, _) => Some(Party::Own),
            (Exposure::Open, None) => Some(Party::Other),
            (Exposure::Open, Some(_)) => None,
        };
        if self.hides.is_some() {
            self.stop_punch(core, now);
            self.release_socket(core);
            self.agent = None;
            self.spare = None;
            self.lose_all(now);
            return;
        }
        if self.connect == Some(event.connect) && self.agent.is_some() {
            return;
        }
        self.interrupt_punch(core, now);
        self.punch.set_target(event.member.observed);
        if let Some(offer) = self.offered.take_if(|offer| offer.connect == event.connect) {
            self.release_socket(core);
            self.spare = Some((offer.bound, offer.known));
        }
        let Connect { connect, own_tag, their_tag, .. } = *event;
        let meeting = Meeting { connect, own_tag, their_tag };
        let Some(mut agent) = self.make_agent(&meeting, core, now) else { return };
        if let Some(observed) = event.member.observed {
            agent.vouch(observed);
        }
        agent.set_remote(first_candidates(event), now);
        self.adopt(agent, connect);
    }

    /// An agent for an introduction, whoever made it, that has no candidates of the peer yet.
    pub(in crate::node) fn make_agent(
        &self,
        meeting: &Meeting,
        core: &mut Core,
        now: Instant,
    ) -> Option<Agent> {
        let keys = check_keys(&core.static_key, &self.key, &meeting.connect)?;
        let mut seed = [0; 32];
        core.rng.fill_bytes(&mut seed);
        let Meeting { own_tag, their_tag, .. } = *meeting;
        let config = traversal::Config { role: self.role, keys, own_tag, their_tag, seed };
        let mut agent = Agent::new(config, now);
        agent.set_entry(self.punch.entry());
        agent.favour(core.favoured());
        agent.set_local(core.local_candidates(self.spare), now);
        Some(agent)
    }

    pub(super) fn adopt(&mut self, agent: Agent, connect: ConnectId) {
        self.connect = Some(connect);
        self.agent = Some(Box::new(agent));
        self.candidates_told = 0;
    }
}

/// The candidates of an introduction: those the peer registered and where the server sees it.
fn first_candidates(event: &Connect) -> Candidates {
    let observed = event.member.observed;
    let told = event.candidates.iter().map(|candidate| Candidate {
        kind: match candidate.kind {
            CandidateKindText::Host => CandidateKind::Host,
            CandidateKindText::Observed => CandidateKind::Observed,
            CandidateKindText::Mapped => CandidateKind::Mapped,
        },
        address: candidate.address,
    });
    let as_candidate = |address| Candidate { kind: CandidateKind::Observed, address };
    let mut list: Vec<Candidate> = observed.map(as_candidate).into_iter().collect();
    list.extend(told.filter(|candidate| Some(candidate.address) != observed));
    list.truncate(crate::wire::frame::CANDIDATES_MAX);
    Candidates { generation: 0, list }
}
