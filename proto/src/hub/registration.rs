//! Who registers, who takes another name, who leaves: members of networks and what is told of them.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::presence::Arrival;
use super::registry::Member;
use super::requests::problem;
use super::sessions::Stage;
use super::{Event, Hub, Output};
use crate::control::{
    self, Answer, CandidateKindText, CandidateText, Exposure, LeaveReason, Problem, Register,
    Registered, StunPorts, code,
};
use crate::id::{PeerKey, PeerName, Token};
use crate::io::Route;
use crate::session::lan_secret;
use crate::wire::frame::CANDIDATES_MAX;

/// Longest keepalive interval a peer may state, in seconds.
const KEEPALIVE_MAX: u16 = 3600;

/// What a session is told whose key registered from elsewhere.
const REPLACED: &str = "replaced: the same key registered from elsewhere";

impl Hub {
    pub(super) fn register(
        &mut self,
        token: Token,
        register: Register,
        now: Instant,
    ) -> Result<Answer, Problem> {
        let wanted = register.name.clone();
        let outcome = self.try_register(token, register, now);
        if let (Err(refused), Some(peer)) = (&outcome, self.sessions.peer(token)) {
            let address = peer.route.remote;
            self.out.push_back(Output::Event(Event::Refused {
                name: wanted,
                address,
                code: refused.code,
                text: refused.text.clone(),
            }));
        }
        outcome
    }

    fn try_register(
        &mut self,
        token: Token,
        register: Register,
        now: Instant,
    ) -> Result<Answer, Problem> {
        if !(1..=KEEPALIVE_MAX).contains(&register.keepalive) {
            let text = "the keepalive interval must be 1 to 3600 seconds; choose another";
            return Err(problem(code::BAD_REQUEST, text));
        }
        let name = PeerName::new(&register.name).map_err(|invalid| {
            problem(code::BAD_REQUEST, format!("{invalid}; choose another name"))
        })?;
        let gone = || problem(code::NOT_REGISTERED, "the session has ended; connect again");
        let server = self.key();
        let peer = self.sessions.peer(token).ok_or_else(gone)?;
        let (key, boot, route) = (peer.key, peer.boot, peer.route);
        let observed = route.remote;
        let proof = &register.token;
        let network = super::tokens::admit(&self.config, server, proof.as_ref(), peer)?;
        let network = self.network_named(&network)?;
        self.networks[network].check(&key, &name, self.config.limits.peers_max)?;
        self.leave_others(token, key, network, now);
        let patience =
            u64::from(self.config.expire_intervals.max(1)) * u64::from(register.keepalive);
        if let Some(peer) = self.sessions.peer(token) {
            peer.network = Some(network);
            peer.patience = Duration::from_secs(patience);
            if peer.stage == Stage::Live {
                self.sessions.count_unregistered(token, None);
            }
        }
        let member = Member {
            name: name.clone(),
            token,
            boot,
            observed,
            exposure: register.exposure,
            since: self.clock.seconds(now),
            candidates: match register.exposure {
                Exposure::Open => sane(register.candidates, observed),
                Exposure::Hidden => Vec::new(),
            },
        };
        self.settle_member(network, key, member, now);
        Ok(Answer::Registered(self.greeting(network, name, route, patience)))
    }

    fn network_named(&self, name: &str) -> Result<usize, Problem> {
        let found = self.networks.iter().position(|network| network.name == name);
        found.ok_or_else(|| problem(code::UNAUTHORIZED, "there is no such network here"))
    }

    fn greeting(&self, network: usize, name: PeerName, route: Route, patience: u64) -> Registered {
        let network = &self.networks[network];
        let limits = &self.config.limits;
        let greeting = self.config.tokens.is_empty().then(|| {
            format!(
                "this server is open to anybody: at most {} peers, {} KiB/s relayed for each; \
                 its operator can close it with access tokens",
                limits.peers_max,
                limits.relay_bytes_per_second / 1024
            )
        });
        let closed = !self.config.tokens.is_empty();
        let lan_secret = closed.then(|| lan_secret(&self.config.reset_key, &network.id));
        Registered {
            name,
            observed: route.remote,
            network: network.name.clone(),
            network_id: network.id,
            expires: u32::try_from(patience).unwrap_or(u32::MAX),
            broadcast_max: self.config.broadcast_max,
            greeting,
            lan_secret,
            stun: self.stun_ports(route.local),
        }
    }

    /// What a peer that registers at `local` is told of our other places.
    fn stun_ports(&self, local: SocketAddr) -> Option<StunPorts> {
        let places = &self.config.places;
        let alt_ip = places.second_ip.map(|second| second.public);
        Some(StunPorts { alt_port: places.other_port(local)?, alt_ip })
    }

    /// Writes the member down and tells everybody whom it concerns.
    fn settle_member(&mut self, network: usize, key: PeerKey, member: Member, now: Instant) {
        let (token, address) = (member.token, member.observed);
        let wire = member.to_wire(key);
        // A broadcast on its way may have passed the place of the new name.
        self.catch_up(token, now);
        let before = self.networks[network].insert(key, member);
        if let Some(old) = before.as_ref().map(|old| old.token).filter(|old| *old != token) {
            let now_s = self.routes.now_s(now);
            self.relay.rebind(&self.routes.slots, key, token, now_s);
            if let Some(peer) = self.sessions.peer(old) {
                // The registration is the newer session's now.
                peer.network = None;
            }
        }
        match before {
            None => self.announce(network, wire, address, Arrival::New),
            Some(old) if old.boot != wire.boot => {
                self.networks[network].presence.unwatch(&key);
                self.farewell_replaced(network, key, &old, now);
                let arrival = if old.name == wire.name {
                    Arrival::Again
                } else {
                    let left = old.to_wire(key);
                    self.networks[network].presence.left(&left, LeaveReason::Replaced);
                    Arrival::New
                };
                self.announce(network, wire, address, arrival);
            }
            Some(old) => {
                if old.token != token {
                    self.free(old.token);
                }
                if old.name != wire.name {
                    self.rename(network, old.name, wire, now);
                }
            }
        }
        self.arm_presence(network, now);
    }

    fn announce(
        &mut self,
        network: usize,
        member: control::Member,
        address: SocketAddr,
        arrival: Arrival,
    ) {
        let (name, key) = (member.name.clone(), member.key);
        let network = &mut self.networks[network];
        network.presence.joined(member, arrival);
        let network = network.name.clone();
        self.out.push_back(Output::Event(Event::Joined { name, key, address, network }));
    }

    fn rename(&mut self, network: usize, from: PeerName, member: control::Member, now: Instant) {
        // What happened under the old name is told before.
        while self.networks[network].presence.has_pending() {
            self.tell(network, now);
        }
        let of = &self.networks[network];
        let to = of.presence.renamed(&from, &member, of.len() as usize);
        let (name, of) = (member.name.clone(), of.name.clone());
        let renamed = control::Event::Renamed { from: from.clone(), member };
        self.spread(network, &renamed, &to, now);
        self.out.push_back(Output::Event(Event::Renamed { from, to: name, network: of }));
    }

    /// The older session of a key that registered from elsewhere.
    fn farewell_replaced(&mut self, network: usize, key: PeerKey, old: &Member, now: Instant) {
        self.close(old.token, code::CONFLICT, REPLACED, now);
        self.out.push_back(Output::Event(Event::Left {
            name: old.name.clone(),
            key,
            address: old.observed,
            network: self.networks[network].name.clone(),
            reason: LeaveReason::Replaced,
        }));
    }

    /// A key is registered in one network at a time, by its newest session.
    fn leave_others(&mut self, token: Token, key: PeerKey, network: usize, now: Instant) {
        let others: Vec<_> = (0..self.networks.len())
            .filter(|other| *other != network)
            .filter_map(|other| Some(self.networks[other].member(&key)?.token))
            .collect();
        for other in others {
            self.withdraw(other, LeaveReason::Replaced, now);
            if other != token {
                self.close(other, code::CONFLICT, REPLACED, now);
            }
        }
    }

    /// Ends the registration of a session, if it has one.
    pub(super) fn withdraw(&mut self, token: Token, reason: LeaveReason, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        let Some(index) = peer.network.take() else { return };
        let key = peer.key;
        let limits = &self.config.limits;
        let (kept, peers_max) = (limits.name_kept, limits.peers_max);
        let member = self.networks[index].leave(&key, kept, peers_max, now);
        self.depart(index, key, member, reason, now);
    }

    fn depart(
        &mut self,
        index: usize,
        key: PeerKey,
        member: Option<Member>,
        reason: LeaveReason,
        now: Instant,
    ) {
        let Some(member) = member else { return };
        self.relay.forget(&self.routes.slots, key);
        let network = &mut self.networks[index];
        network.presence.unwatch(&key);
        network.presence.left(&member.to_wire(key), reason);
        self.out.push_back(Output::Event(Event::Left {
            name: member.name,
            key,
            address: member.observed,
            network: network.name.clone(),
            reason,
        }));
        self.arm_presence(index, now);
    }

    pub(super) fn unregister(&mut self, token: Token, now: Instant) -> Result<Answer, Problem> {
        let (network, key) = self.registered(token)?;
        if let Some(peer) = self.sessions.peer(token) {
            peer.network = None;
            peer.patience = super::sessions::UNREGISTERED_IDLE;
            let prefix = super::limits::prefix_of(peer.route.remote.ip());
            self.sessions.count_unregistered(token, Some(prefix));
        }
        let member = self.networks[network].give_up(&key);
        self.depart(network, key, member, LeaveReason::Bye, now);
        Ok(Answer::Done)
    }
}

/// Candidates worth handing on: a few, and only addresses that a peer could have. Loopback only
/// for who is seen there.
pub(super) fn sane(candidates: Vec<CandidateText>, observed: SocketAddr) -> Vec<CandidateText> {
    let possible = |candidate: &CandidateText| {
        let ip = candidate.address.ip();
        let broadcast = match ip {
            std::net::IpAddr::V4(v4) => v4.is_broadcast(),
            std::net::IpAddr::V6(_) => false,
        };
        candidate.kind != CandidateKindText::Observed
            && candidate.address.port() != 0
            && !ip.is_unspecified()
            && !ip.is_multicast()
            && !broadcast
            && (!ip.is_loopback() || observed.ip().is_loopback())
    };
    candidates.into_iter().filter(possible).take(CANDIDATES_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_possible_candidates_are_handed_on() {
        let of = |text: &str| CandidateText {
            kind: CandidateKindText::Host,
            address: text.parse().unwrap(),
        };
        let all = vec![
            of("10.0.0.1:5"),
            of("10.0.0.1:0"),
            of("0.0.0.0:5"),
            of("224.0.0.1:5"),
            of("255.255.255.255:5"),
            of("127.0.0.1:5"),
            CandidateText { kind: CandidateKindText::Observed, ..of("9.9.9.9:9") },
        ];
        let seen_at = |text: &str| sane(all.clone(), text.parse().unwrap()).len();
        assert_eq!(seen_at("198.51.100.1:1"), 1);
        assert_eq!(seen_at("127.0.0.1:1"), 2);
        assert_eq!(sane(vec![of("10.0.0.1:5"); 20], of("10.0.0.1:5").address).len(), 8);
    }
}
