//! Paths to a peer: the relayed one, direct ones, and the agent that finds them (SPEC section 9).

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::time::{Duration, Instant};

use rand::RngCore as _;

use super::super::core::Core;
use super::super::spare::SPARES_MAX;
use super::handshake::Cause;
use super::{Notice, Offer, PeerLink};
use crate::id::{ConnectId, PathId};
use crate::io::Route;
use crate::transport::{ControlFrame, PathKind, PathStats};
use crate::traversal::{self, Agent, Keepalive, Role};
use crate::wire::frame::Candidate;
use crate::wire::{DATAGRAM_LEN_BASE, RELAY_HEADER_LEN};

/// A new introduction is asked for at most this often.
const REINTRODUCE: Duration = Duration::from_secs(5);
/// An introduction that was asked for with a spare comes within this, or not at all: requests to
/// the server are sent again until then.
const OFFER_TTL: Duration = Duration::from_secs(3);
/// A relayed path that stays silent for this long after it became suspect needs another
/// introduction; shorter silence is bad luck on a bad line.
const RELAY_PATIENCE: Duration = Duration::from_secs(1);
/// Paths that wait for a PATH_RESPONSE at a time; more would be somebody else's packets.
const UNPROVED_MAX: usize = 4;

/// Paths out of use whose routes are remembered: what they still carry is acknowledged soon.
const LEFT_KEPT: usize = 4;

/// Ids of direct paths.
const PATH_IDS: RangeInclusive<u8> = 1..=254;
/// Direct paths that one side can begin in a session: half of the ids.
const PATHS_EACH_MAX: u8 = 127;

/// The nth path that a side begins: odd ids are the controlling side's, even ones the other's.
const fn path_of(role: Role, nth: u8) -> PathId {
    match role {
        Role::Controlling => PathId(2 * nth + 1),
        Role::Controlled => PathId(2 * nth + 2),
    }
}

/// Who began a direct path.
const fn began_by(path: PathId) -> Role {
    if path.0 % 2 == 1 { Role::Controlling } else { Role::Controlled }
}

/// Which of its side's paths it is, from 0.
const fn ordinal(path: PathId) -> u8 {
    path.0.saturating_sub(1) / 2
}

impl PeerLink {
    /// Our own candidates changed.
    pub(in crate::node) fn set_local(&mut self, core: &Core, now: Instant) {
        if let Some(agent) = &mut self.agent {
            agent.favour(core.favoured());
            agent.set_local(core.local_candidates(self.spare), now);
        }
    }

    /// What is known of both NATs says how often an idle path is checked.
    pub(super) fn follow_lifetimes(&mut self, core: &Core) {
        let theirs = self.punch.their_nat().unwrap_or_default().lifetime;
        if let Some(agent) = &mut self.agent {
            agent.keep(Keepalive::of(core.nat.lifetime, theirs));
        }
    }

    /// Whether a NAT's mapping may carry the direct path.
    pub(in crate::node) fn depends_on_mapping(&self) -> bool {
        self.agent.as_deref().is_some_and(Agent::depends_on_mapping)
    }

    /// Where the server saw the spare socket in use.
    pub(in crate::node) fn spare(&self) -> Option<Candidate> {
        self.spare.map(|(_, candidate)| candidate)
    }

    /// Takes a spare into use from the introduction `connect` on. False when the pair has no
    /// need of it any more.
    pub(in crate::node) fn offer_spare(
        &mut self,
        connect: ConnectId,
        bound: SocketAddr,
        known: Candidate,
        now: Instant,
    ) -> bool {
        let wanted = self.has_session() && self.direct.is_empty();
        if wanted {
            self.offered = Some(Offer { connect, bound, known, until: now + OFFER_TTL });
        }
        wanted
    }

    /// A round of checks found nothing. One side is enough: the controlling one.
    pub(super) fn want_spare(&mut self, notices: &mut Vec<Notice>, now: Instant) {
        let useful = self.role == Role::Controlling && self.has_session() && self.is_talking(now);
        // Where no port can be guessed, a fresh one is no better.
        let quiet = !self.punch.is_active() && !self.punch.is_hopeless();
        if useful && quiet && self.direct.is_empty() && self.spares_in_row < SPARES_MAX {
            notices.push(Notice::Spare { nth: self.spares_wanted });
            self.spares_wanted += 1;
            self.spares_in_row += 1;
        }
    }

    /// The network under us changed: check everything again at once.
    pub(in crate::node) fn restart(&mut self, now: Instant) {
        self.spares_in_row = 0;
        self.punch.begin_anew();
        if let Some(agent) = &mut self.agent {
            agent.restart(now);
        }
    }

    pub(super) fn forget_paths(&mut self) {
        self.direct.clear();
        self.unproved.clear();
        self.left = VecDeque::new();
        self.preferred = PathId::SERVER;
        self.reintroduce_at = None;
        (self.own_paths, self.their_paths) = (0, 0);
    }

    pub(super) fn open_relay(&mut self, now: Instant) {
        let Some(session) = self.conversation.session() else { return };
        if self.relay.is_some() {
            let payload_max = DATAGRAM_LEN_BASE - RELAY_HEADER_LEN - session.overhead();
            let transport = self.conversation.transport();
            transport.open_path(PathId::SERVER, PathKind::Relay, payload_max, now);
        }
    }

    pub(super) fn relay_stats(&self) -> Option<PathStats> {
        self.conversation.transport_ref().path_stats(PathId::SERVER)
    }

    /// Whether data can leave, for all that is known: a session that two made on their own has
    /// no relayed path.
    pub(super) fn has_open_path(&self) -> bool {
        let transport = self.conversation.transport_ref();
        self.relay_stats().is_some()
            || self.direct.keys().any(|path| transport.path_stats(*path).is_some())
    }

    /// Whether a check of this pair was ever answered on the route. A handshake may begin on it
    /// although the path is given up for the moment: without one no path would last.
    pub(in crate::node) fn has_met_on(&self, route: Route) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.has_worked(route))
    }

    /// Whether a check of this pair was answered on the route.
    fn has_validated(&self, route: Route) -> bool {
        self.agent.as_ref().is_some_and(|agent| agent.is_validated(route))
    }

    /// Whether a STUN message is a check of this pair; handles it if so.
    pub(in crate::node) fn handle_check(
        &mut self,
        route: Route,
        data: &[u8],
        now: Instant,
    ) -> bool {
        let ours = self.agent.as_mut().is_some_and(|agent| agent.handle_datagram(route, data, now));
        if ours {
            self.prove_by_check(route, now);
        }
        ours
    }

    /// The other side put a packet on a path we have not seen: SPEC section 9.
    pub(super) fn learn_path(&mut self, path: PathId, route: Route, core: &mut Core, now: Instant) {
        if self.direct.get(&path).is_some_and(|known| *known != route) {
            return self.move_path(path, route, now);
        }
        if !self.is_welcome(path) {
            if self.route_of(path).is_none() {
                self.remember(path, route);
            }
            return;
        }
        if self.has_validated(route) {
            self.unproved.remove(&path);
            self.open_direct(path, route, now);
        } else if self.unproved.len() < UNPROVED_MAX && !self.unproved.contains_key(&path) {
            let mut challenge = [0; 8];
            core.rng.fill_bytes(&mut challenge);
            self.unproved.insert(path, (challenge, route));
            self.open_transport_path(path, now);
            let frame = ControlFrame::PathChallenge(challenge);
            self.conversation.transport().control(frame, Some(path), now);
        }
    }

    /// A path in use comes from elsewhere: the other side's address changed without its notice.
    /// Only the route that it nominated since, and that answered a check of ours, counts.
    fn move_path(&mut self, path: PathId, route: Route, now: Instant) {
        let chosen = self.agent.as_deref().and_then(Agent::selected) == Some(route);
        if self.role == Role::Controlled && chosen && path == self.preferred {
            self.direct.insert(path, route);
            self.conversation.transport().reset_path(path, now);
        }
    }

    /// Whether a path of the other side is to be taken up. What it left before stays left: a late
    /// packet must not bring it back. The controlled side's path serves until there is one of
    /// the controlling side.
    fn is_welcome(&self, path: PathId) -> bool {
        let theirs = PATH_IDS.contains(&path.0) && began_by(path) == self.role.other();
        let is_new = theirs && ordinal(path) >= self.their_paths;
        is_new && (self.role == Role::Controlled || self.direct.is_empty())
    }

    /// A validated route becomes a path of its own: each one on the controlling side, on the
    /// other side only the first, for it follows. When the ids have run out a new session brings
    /// new ones.
    pub(super) fn use_route(&mut self, route: Route, core: &mut Core, now: Instant) {
        let wanted = match self.role {
            Role::Controlling => self.direct.get(&self.preferred) != Some(&route),
            Role::Controlled => self.direct.is_empty(),
        };
        if !wanted || !self.has_session() {
            return;
        }
        if self.own_paths >= PATHS_EACH_MAX {
            if self.handshake.is_none() {
                self.begin_handshake(Cause::Need, core, now);
            }
            return;
        }
        let path = path_of(self.role, self.own_paths);
        self.open_direct(path, route, now);
        self.conversation.transport().probe(path, now);
    }

    pub(super) fn open_direct(&mut self, path: PathId, route: Route, now: Instant) {
        let old: Vec<PathId> = self.direct.keys().copied().collect();
        self.open_transport_path(path, now);
        for (former, _) in self.left.iter().filter(|(_, of)| *of == route) {
            self.conversation.transport().resume_path(path, *former, now);
        }
        if let Some(rtt) = self.agent.as_ref().and_then(|agent| agent.rtt(route)) {
            self.conversation.transport().set_rtt_hint(path, rtt);
        }
        self.direct.insert(path, route);
        let count =
            if began_by(path) == self.role { &mut self.own_paths } else { &mut self.their_paths };
        *count = (*count).max(ordinal(path) + 1);
        self.prefer(path, now);
        for old in old {
            self.close_direct(old, now);
        }
    }

    pub(super) fn open_transport_path(&mut self, path: PathId, now: Instant) {
        let Some(session) = self.conversation.session() else { return };
        let payload_max = DATAGRAM_LEN_BASE - session.overhead();
        self.conversation.transport().open_path(path, PathKind::Direct, payload_max, now);
    }

    pub(super) fn prefer(&mut self, path: PathId, now: Instant) {
        self.preferred = path;
        self.conversation.transport().prefer_path(path, now);
    }

    pub(super) fn close_direct(&mut self, path: PathId, now: Instant) {
        self.unproved.remove(&path);
        if let Some(route) = self.direct.remove(&path) {
            self.remember(path, route);
            if self.preferred == path {
                self.prefer(PathId::SERVER, now);
            }
        }
        self.conversation.transport().close_path(path, now);
    }

    fn remember(&mut self, path: PathId, route: Route) {
        if self.left.len() >= LEFT_KEPT {
            self.left.pop_front();
        }
        self.left.push_back((path, route));
    }

    /// The route of a direct path that is, will be or was in use. `None` is the relayed path.
    pub(super) fn route_of(&self, path: PathId) -> Option<Route> {
        let unproved = || self.unproved.get(&path).map(|(_, route)| *route);
        let left = || self.left.iter().rfind(|(of, _)| *of == path).map(|(_, route)| *route);
        self.direct.get(&path).copied().or_else(unproved).or_else(left)
    }

    /// A route that was in doubt answers checks.
    fn restore_route(&mut self, route: Route, now: Instant) {
        for (path, _) in self.direct.iter().filter(|(_, of)| **of == route) {
            self.conversation.transport().restore_path(*path, now);
        }
    }

    /// One of the two hides from now on.
    pub(super) fn lose_all(&mut self, now: Instant) {
        let unproved = std::mem::take(&mut self.unproved);
        for path in unproved.into_keys() {
            self.close_direct(path, now);
        }
        for route in self.direct.values().copied().collect::<Vec<_>>() {
            self.lose_route(route, now);
        }
    }

    /// A route no longer answers checks.
    pub(super) fn lose_route(&mut self, route: Route, now: Instant) {
        let lost = self.direct.iter().filter(|(_, of)| **of == route).map(|(path, _)| *path);
        for path in lost.collect::<Vec<_>>() {
            self.close_direct(path, now);
            let frame = ControlFrame::PathRetire(path);
            self.conversation.transport().control(frame, None, now);
        }
    }

    pub(super) fn collect_agent(
        &mut self,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        loop {
            let Some(output) = self.agent.as_deref_mut().and_then(Agent::poll_output) else {
                return;
            };
            match output {
                traversal::Output::Transmit(transmit) => {
                    // What there is no budget for is lost on the way.
                    if self.may_check(transmit.route, core, now) {
                        core.send(transmit);
                    }
                }
                traversal::Output::Selected { route, rtt } => {
                    self.spares_in_row = 0;
                    self.punched(route, core, now);
                    self.restore_route(route, now);
                    self.use_route(route, core, now);
                    self.hasten_handshake(rtt, now);
                }
                traversal::Output::Restored { route } => self.restore_route(route, now),
                traversal::Output::Lost { route } => {
                    self.lost_path(now);
                    self.lose_route(route, now);
                }
                traversal::Output::CandidatesChanged => self.candidates_told = 0,
                traversal::Output::Failed => {
                    self.lose_unwatched(now);
                    if !self.doubt_nat(core, now) {
                        self.want_spare(notices, now);
                    }
                }
            }
        }
    }

    /// Addresses that only the peer vouches for get what the budgets allow, others all.
    fn may_check(&mut self, route: Route, core: &mut Core, now: Instant) -> bool {
        let claimed = self.agent.as_ref().is_some_and(|agent| agent.is_claimed(route));
        !claimed || (self.claimed.take(now) && core.claimed.take(now))
    }

    /// Transport hears nothing from a path. Data goes elsewhere already; quick checks find out
    /// whether it was bad luck.
    pub(super) fn suspect(&mut self, path: PathId, now: Instant) {
        if let Some(agent) = &mut self.agent
            && let Some(route) = self.direct.get(&path)
        {
            if agent.selected() == Some(*route) {
                return agent.doubt(*route, now);
            }
            if agent.selected().is_none() && !agent.is_waiting() {
                // Another introduction checks anew: it will restore the path or lose it.
                return;
            }
        }
        self.give_up(path, now);
    }

    /// A round of checks found nothing: what an earlier introduction found goes, if it is
    /// silent.
    fn lose_unwatched(&mut self, now: Instant) {
        let transport = self.conversation.transport_ref();
        let silent = self.direct.iter().filter(|(path, _)| transport.is_suspect(**path));
        for route in silent.map(|(_, route)| *route).collect::<Vec<_>>() {
            self.lose_route(route, now);
        }
    }

    /// The path acknowledges again.
    pub(super) fn recovered(&mut self, path: PathId, now: Instant) {
        if path == PathId::SERVER {
            self.reintroduce_at = None;
        }
        if let (Some(agent), Some(route)) = (&mut self.agent, self.direct.get(&path)) {
            agent.hope(*route, now);
        }
    }

    /// A path carries nothing, or no payload.
    pub(super) fn give_up(&mut self, path: PathId, now: Instant) {
        if self.unproved.contains_key(&path) {
            return self.close_direct(path, now);
        }
        if let Some(route) = self.direct.get(&path).copied() {
            return match &mut self.agent {
                Some(agent) if agent.selected() == Some(route) => agent.path_failed(route, now),
                // A path that an earlier introduction found: nobody else watches it.
                Some(_) | None => self.lose_route(route, now),
            };
        }
        if path == PathId::SERVER {
            let earliest = self.reintroduced.map_or(now, |at| at + REINTRODUCE);
            self.reintroduce_at = Some(earliest.max(now + RELAY_PATIENCE));
        }
    }

    /// Asks for another introduction if the relayed path has been silent for long enough.
    pub(super) fn reintroduce_when_due(&mut self, notices: &mut Vec<Notice>, now: Instant) {
        if self.reintroduce_at.take_if(|at| *at <= now).is_some() {
            self.reintroduced = Some(now);
            notices.push(Notice::Reintroduce);
        }
    }

    /// The other side gave a path up. Our own checks may go on being answered, so the agent must
    /// be told, or the route would stay chosen without a path.
    pub(super) fn retired(&mut self, path: PathId, now: Instant) {
        let route = self.direct.get(&path).copied();
        self.close_direct(path, now);
        if let (Some(route), Some(agent)) = (route, &mut self.agent) {
            agent.path_failed(route, now);
        }
    }

    /// The first packet on a path often comes a moment before the answer to our check: no need
    /// to wait for the challenge as well. Only the route that both sides chose counts, and only
    /// a path newer than the one in use: what the other side left before stays left.
    pub(super) fn prove_by_check(&mut self, route: Route, now: Instant) {
        if self.agent.as_deref().and_then(Agent::selected) != Some(route) {
            return;
        }
        let waiting = self
            .unproved
            .iter()
            .next_back()
            .filter(|(path, (_, of))| *of == route && self.is_welcome(**path));
        if let Some(path) = waiting.map(|(path, _)| *path) {
            self.unproved.remove(&path);
            self.open_direct(path, route, now);
        }
    }

    pub(super) fn prove(&mut self, data: [u8; 8], now: Instant) {
        let proved = self.unproved.iter().find(|(_, (challenge, _))| *challenge == data);
        let Some((path, route)) = proved.map(|(path, (_, route))| (*path, *route)) else { return };
        self.unproved.remove(&path);
        if self.is_welcome(path) {
            self.open_direct(path, route, now);
        } else {
            self.close_direct(path, now);
        }
    }

    pub(super) fn tell_candidates(&mut self, now: Instant) {
        let news = |agent: &&Agent| agent.local_generation() > self.candidates_told;
        let Some(agent) = self.agent.as_deref().filter(news) else { return };
        let candidates = agent.local_candidates();
        if self.conversation.is_confirmed() && !candidates.list.is_empty() {
            self.candidates_told = candidates.generation;
            let frame = ControlFrame::Candidates(candidates);
            self.conversation.transport().control(frame, None, now);
        }
    }
}
