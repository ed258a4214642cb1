//! What registered peers, and those who want to be, ask for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::limits::Rate;
use super::presence::{Arrival, COALESCE, NAMES_MAX, WHOLE_MAX};
use super::registry::Member;
use super::sessions::Stage;
use super::{Event, Hub, NOTICE_LEN_MAX, Output};
use crate::control::{
    self, Answer, CandidateKindText, CandidateText, Exposure, FromServer, LeaveReason, Operation,
    Outcome, Problem, Register, Registered, Reply, Request, StunPorts, code,
};
use crate::id::{PeerKey, PeerName, Token};
use crate::io::Route;
use crate::session::lan_secret;
use crate::wire::frame::CANDIDATES_MAX;

/// Longest keepalive interval a peer may state, in seconds.
const KEEPALIVE_MAX: u16 = 3600;

/// What a session is told whose key registered from elsewhere.
const REPLACED: &str = "replaced: the same key registered from elsewhere";

/// Buckets of one session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Spend {
    Request,
    Connect,
    Notice,
}

pub(super) fn problem(code: u16, text: impl Into<String>) -> Problem {
    Problem { code, text: text.into() }
}

/// JSON of what the server says. These types always serialise.
pub(super) fn encode(message: &FromServer) -> Bytes {
    serde_json::to_vec(message).unwrap_or_default().into()
}

impl Hub {
    /// Answers the requests that have arrived whole.
    pub(super) fn take_requests(&mut self, token: Token, now: Instant) {
        loop {
            if !self.may_ask(token) {
                return;
            }
            let Some(peer) = self.sessions.peer(token) else { return };
            let Some(received) = peer.conversation.transport().poll_message(now) else { return };
            self.request(token, &received.payload, now);
        }
    }

    /// Whether requests of a session are answered now. Those that came as early data wait for
    /// the session's first packet where they could replace another session of their key.
    pub(super) fn may_ask(&mut self, token: Token) -> bool {
        let Some(peer) = self.sessions.peer(token) else { return false };
        let key = peer.key;
        match peer.stage {
            Stage::Live => true,
            Stage::Tentative => !self.sessions.has_current(&key),
            Stage::Closing => false,
        }
    }

    fn request(&mut self, token: Token, json: &[u8], now: Instant) {
        let request: Request = match serde_json::from_slice(json) {
            Ok(request) => request,
            Err(_) => return self.misunderstood(token, json, now),
        };
        let outcome = match self.spend(token, Spend::Request, now) {
            Ok(()) => self.operate(token, request.operation, now),
            Err(refused) => Err(refused),
        };
        self.reply(token, request.id, outcome, now);
    }

    fn reply(&mut self, token: Token, id: u32, outcome: Result<Answer, Problem>, now: Instant) {
        let outcome = outcome.map_or_else(Outcome::Error, Outcome::Ok);
        self.push(token, encode(&FromServer::Reply(Reply { id, outcome })), now);
    }

    /// A request of a later version gets an error; what is no request at all ends the session.
    fn misunderstood(&mut self, token: Token, json: &[u8], now: Instant) {
        #[derive(serde::Deserialize)]
        struct Id {
            id: u32,
        }
        match serde_json::from_slice::<Id>(json) {
            Ok(Id { id }) => {
                let text = "this server does not understand the request";
                self.reply(token, id, Err(problem(code::BAD_REQUEST, text)), now);
            }
            Err(_) => self.close(token, code::BAD_REQUEST, "a control message is no request", now),
        }
    }

    fn operate(
        &mut self,
        token: Token,
        operation: Operation,
        now: Instant,
    ) -> Result<Answer, Problem> {
        match operation {
            Operation::Register(register) => self.register(token, register, now),
            Operation::Unregister => self.unregister(token, now),
            Operation::Lookup { who } => self.lookup(token, &who),
            Operation::List { cursor } => self.list(token, cursor.as_deref()),
            Operation::Watch { names } => self.watch(token, names),
            Operation::Connect { key, connect, candidates } => {
                self.connect(token, key, connect, candidates, now).map(|_| Answer::Done)
            }
            Operation::Notice { text } => self.notice(token, text, now),
        }
    }

    /// Takes one from a bucket of the session.
    pub(super) fn spend(&mut self, token: Token, what: Spend, now: Instant) -> Result<(), Problem> {
        let limits = &self.config.limits;
        let minute = Duration::from_secs(60);
        let rate = match what {
            Spend::Request => Rate::per_second(limits.requests_per_second.into()),
            Spend::Connect => {
                let units = limits.connects_per_minute.into();
                Rate::new(units, minute, units)
            }
            Spend::Notice => {
                let units = limits.notices_per_minute.into();
                Rate::new(units, minute, units)
            }
        };
        let now_ns = self.routes.now_ns(now);
        let Some(peer) = self.sessions.peer(token) else { return Ok(()) };
        if rate.admit_own(&mut peer.spent[what as usize], now_ns, 1) {
            return Ok(());
        }
        let text = match what {
            Spend::Request => "too many requests; slow down",
            Spend::Connect => "too many introductions; try again in a minute",
            Spend::Notice => "too many notices; try again in a minute",
        };
        Err(problem(code::TOO_MANY, text))
    }

    /// The network and key of a registered session.
    pub(super) fn registered(&mut self, token: Token) -> Result<(usize, PeerKey), Problem> {
        let peer = self.sessions.peer(token);
        peer.and_then(|peer| Some((peer.network?, peer.key)))
            .ok_or_else(|| problem(code::NOT_REGISTERED, "register a name first"))
    }

    fn register(
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

    fn unregister(&mut self, token: Token, now: Instant) -> Result<Answer, Problem> {
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

    fn lookup(&mut self, token: Token, who: &str) -> Result<Answer, Problem> {
        let (network, asking) = self.registered(token)?;
        let network = &self.networks[network];
        let viewer = network.exposure(&asking);
        let key = match who.parse::<SocketAddr>() {
            Ok(address) => network.by_address(address),
            Err(_) => PeerName::new(who).ok().and_then(|name| network.by_name(&name)),
        };
        let member = key.and_then(|key| Some(network.member(&key)?.seen_by(viewer, key)));
        member.map(Answer::Member).ok_or_else(|| {
            let who: String = who.chars().take(PeerName::LEN_MAX).collect();
            let text = format!("nobody here is {who:?}; list the members to see who is");
            problem(code::NOT_FOUND, text)
        })
    }

    fn list(&mut self, token: Token, cursor: Option<&str>) -> Result<Answer, Problem> {
        let (network, asking) = self.registered(token)?;
        let network = &self.networks[network];
        let cursor = cursor.map(PeerName::new).transpose().map_err(|_| {
            problem(code::BAD_REQUEST, "the cursor is not one of ours; begin without one")
        })?;
        Ok(Answer::Page(network.page(cursor.as_ref(), network.exposure(&asking))))
    }

    fn watch(&mut self, token: Token, names: Option<Vec<PeerName>>) -> Result<Answer, Problem> {
        let (network, key) = self.registered(token)?;
        let network = &mut self.networks[network];
        match names {
            Some(names) if names.len() > NAMES_MAX => {
                let text = format!("{NAMES_MAX} names can be watched; watch fewer");
                return Err(problem(code::TOO_LARGE, text));
            }
            Some(names) if !network.presence.has_room(names.len()) => {
                let text = "too many names are watched here at present; try later";
                return Err(problem(code::TOO_MANY, text));
            }
            Some(names) => {
                network.presence.watch_names(key, names.into_iter().collect::<BTreeSet<_>>());
            }
            None if network.len() as usize > WHOLE_MAX => {
                let text = format!(
                    "the network has more than {WHOLE_MAX} members; watch those you need by name"
                );
                return Err(problem(code::TOO_LARGE, text));
            }
            None if !network.presence.has_room_for(&key) => {
                let text = "too many peers watch the whole network; watch those you need by name";
                return Err(problem(code::TOO_MANY, text));
            }
            None => network.presence.watch_whole(key),
        }
        Ok(Answer::Done)
    }

    fn notice(&mut self, token: Token, text: String, now: Instant) -> Result<Answer, Problem> {
        let (network, key) = self.registered(token)?;
        if text.len() > NOTICE_LEN_MAX {
            let text = format!("a notice has at most {NOTICE_LEN_MAX} bytes; shorten it");
            return Err(problem(code::TOO_LARGE, text));
        }
        self.spend(token, Spend::Notice, now)?;
        if let Some(member) = self.networks[network].member(&key) {
            let from = member.name.clone();
            self.out.push_back(Output::Event(Event::Notice { from, text }));
        }
        Ok(Answer::Done)
    }

    /// Changes wait a moment for others before they are told.
    fn arm_presence(&mut self, network: usize, now: Instant) {
        if self.networks[network].presence.has_pending()
            && !self.presence_due.contains_key(&network)
        {
            self.presence_due.insert(network, now + COALESCE);
        }
    }

    /// Tells watchers of a network what changed.
    pub(super) fn tell(&mut self, network: usize, now: Instant) {
        self.presence_due.remove(&network);
        let members = self.networks[network].len() as usize;
        for (event, to) in self.networks[network].presence.take(members) {
            self.spread(network, &event, &to, now);
        }
        self.arm_presence(network, now);
    }

    /// One event for several members, encoded once for those who see addresses and once for
    /// those who do not.
    pub(super) fn spread(
        &mut self,
        network: usize,
        event: &control::Event,
        to: &[PeerKey],
        now: Instant,
    ) {
        let open = encode(&FromServer::Event(event.clone()));
        let hidden = encode(&FromServer::Event(event.clone().without_addresses()));
        for key in to {
            let member = self.networks[network].member(key);
            let Some((token, viewer)) = member.map(|member| (member.token, member.exposure)) else {
                continue;
            };
            let message = match viewer {
                Exposure::Open => &open,
                Exposure::Hidden => &hidden,
            };
            self.push(token, message.clone(), now);
        }
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
