//! What registered peers, and those who want to be, ask for.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

use super::limits::Rate;
use super::presence::{COALESCE, NAMES_MAX, WHOLE_MAX};
use super::sessions::Stage;
use super::{Event, Hub, NOTICE_LEN_MAX, Output};
use crate::control::{
    self, Answer, Exposure, FromServer, Operation, Outcome, Problem, Reply, Request, code,
};
use crate::id::{PeerKey, PeerName, Token};

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
    pub(super) fn arm_presence(&mut self, network: usize, now: Instant) {
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
