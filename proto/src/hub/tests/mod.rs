//! Conversations with a hub. The clients are made by hand from the session and the conversation,
//! so that they can also misbehave.

mod chaos;
mod hiding;
mod meeting;
mod memory;
mod operating;
mod registering;
mod roaming;
mod strangers;

pub(super) use crate::time::origin as beginning;
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::control::{
    Answer, Event as Pushed, Exposure, FromServer, Operation, Outcome, Problem, Register, Reply,
    Request, TokenProof,
};
use crate::conversation::{Conversation, Standing};
use crate::id::*;
use crate::session::{
    EarlyOffer, EarlyVerdict, InitConfig, Initiator, Padding, ReplyInfo, Responder, Session, Side,
    Suites, token_proof_early, token_proof_session,
};
use crate::transport::{self, ControlFrame, PathKind};
use crate::wire::{DATAGRAM_LEN_BASE, RelayHeader};

pub(super) const SERVER: ([u8; 4], u16) = ([192, 0, 2, 1], 3478);

/// A hub, its clients, and the wire between them, on which nothing is lost.
pub(super) struct World {
    pub(super) hub: Hub,
    pub(super) routes: Arc<Routes>,
    pub(super) now: Instant,
    pub(super) clients: Vec<Client>,
    pub(super) events: Vec<Event>,
    /// What arrived where, unless a client is there.
    pub(super) mail: BTreeMap<SocketAddr, Vec<Vec<u8>>>,
    config: Config,
}

/// One peer.
pub(super) struct Client {
    pub(super) key: StaticKey,
    pub(super) address: SocketAddr,
    pub(super) conversation: Conversation,
    pub(super) info: ReplyInfo,
    pub(super) hash: [u8; 32],
    pub(super) rng: ChaCha12Rng,
    pub(super) heard: Vec<FromServer>,
    pub(super) relayed: Vec<(RelayChannel, Vec<u8>)>,
    pub(super) frames: Vec<ControlFrame>,
    /// STALE, RESET and whatever else is no packet.
    pub(super) others: Vec<Vec<u8>>,
    /// Takes no part in the exchange.
    pub(super) silent: bool,
    requests: u32,
}

pub(super) fn config(tokens: &[(&str, &str, &str)]) -> Config {
    Config {
        static_key: StaticKey::from_bytes([255; 32]),
        reset_key: [8; 32],
        tokens: tokens
            .iter()
            .map(|(id, secret, network)| AccessToken {
                id: (*id).into(),
                secret: (*secret).into(),
                network: (*network).into(),
            })
            .collect(),
        expire_intervals: 3,
        broadcast_max: 256,
        aes: true,
        places: Places::default(),
        limits: Limits::open(),
    }
}

/// What a client says in its handshake.
pub(super) struct Hello {
    pub(super) key: StaticKey,
    pub(super) boot: Boot,
    pub(super) address: SocketAddr,
    /// IK.
    pub(super) knows_server: bool,
    pub(super) early: Option<EarlyOffer>,
}

impl Hello {
    pub(super) fn new(n: u8) -> Self {
        Self {
            key: StaticKey::from_bytes([n; 32]),
            boot: Boot(n.into()),
            address: SocketAddr::from(([198, 51, 100, n], 5000)),
            knows_server: true,
            early: None,
        }
    }
}

impl World {
    pub(super) fn new() -> Self {
        Self::with(config(&[]))
    }

    pub(super) fn with(config: Config) -> Self {
        let now = beginning();
        let hub = Hub::new(config.clone(), [1; 32], now, Duration::from_secs(1_000_000));
        let routes = hub.routes();
        let (clients, events, mail) = (Vec::new(), Vec::new(), BTreeMap::new());
        Self { hub, routes, now, clients, events, mail, config }
    }

    /// The same server, started anew.
    pub(super) fn restart(&mut self) {
        self.hub = Hub::new(self.config.clone(), [2; 32], self.now, Duration::from_secs(1_000_100));
        self.routes = self.hub.routes();
    }

    pub(super) fn server_route(from: SocketAddr) -> Route {
        Route::udp(SERVER.into(), from)
    }

    /// A datagram reaches the server, judged by a worker first.
    pub(super) fn arrive(&mut self, from: SocketAddr, mut datagram: Vec<u8>) -> Verdict {
        let route = Self::server_route(from);
        let verdict = Fast::handle(&self.routes, &mut datagram, route, self.now);
        match &verdict {
            Verdict::Drop => {}
            Verdict::Reply(reply) => self.deliver(from, reply.clone()),
            Verdict::Elsewhere(other) => self.deliver(other.route.remote, other.payload.clone()),
            Verdict::Forward(to) => {
                assert_eq!(to.local, SERVER.into());
                self.deliver(to.remote, datagram);
            }
            Verdict::Live | Verdict::Rest => {
                self.hub.handle_input(Input::Datagram { route, data: &mut datagram }, self.now);
                self.drain();
            }
        }
        verdict
    }

    pub(super) fn drain(&mut self) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                Output::Transmit(transmit) => {
                    self.deliver(transmit.route.remote, transmit.payload);
                }
                Output::Event(event) => self.events.push(event),
                Output::Effect(Effect::Handshake(job)) => {
                    self.hub.handle_input(Input::HandshakeDone(job.run()), self.now);
                }
            }
        }
    }

    fn deliver(&mut self, to: SocketAddr, datagram: Vec<u8>) {
        self.mail.entry(to).or_default().push(datagram);
    }

    pub(super) fn initiator(&self, hello: &Hello, rng: &mut ChaCha12Rng) -> Initiator {
        let config = InitConfig {
            local: &hello.key,
            remote: hello.knows_server.then(|| self.hub.key()),
            responder: Responder::Server,
            network: NetworkId::default(),
            suites: Suites::new(true),
            receiver: ReceiverId(rng.next_u32()),
            epoch: Epoch(rng.next_u64()),
            boot: hello.boot,
            early: hello.early.clone(),
            padding: Padding::Full,
        };
        Initiator::new(config, rng).unwrap()
    }

    /// Shakes hands; nothing is sent under the new keys yet.
    pub(super) fn shake(&mut self, hello: Hello) -> usize {
        let mut rng = ChaCha12Rng::from_seed([hello.address.port() as u8 ^ 0x55; 32]);
        rng.set_stream(self.clients.len() as u64);
        let mut initiator = self.initiator(&hello, &mut rng);
        self.arrive(hello.address, initiator.datagram().to_vec());
        let mut reply = self.first_mail(hello.address);
        if reply[0] == wire::kind::RETRY {
            assert!(initiator.handle_retry(&reply));
            self.arrive(hello.address, initiator.datagram().to_vec());
            reply = self.first_mail(hello.address);
        }
        let completed = initiator.read_reply(&reply).unwrap();
        let (info, own) = (completed.info, hello.key.public());
        let hash = completed.established.handshake_hash();
        let local = Address::Peer(initiator.receiver());
        let session = Session::new(
            completed.established,
            Side::Initiator,
            own,
            local,
            info.address,
            128,
            self.now,
        );
        if let Some(finish) = completed.finish {
            self.arrive(hello.address, finish);
        }
        let payload_max = DATAGRAM_LEN_BASE - session.overhead();
        let mut conversation = Conversation::new(transport::Config::control(), self.now);
        conversation.install(session, info.epoch, Standing::Confirmed, self.now);
        let transport = conversation.transport();
        transport.open_path(PathId::SERVER, PathKind::Server, payload_max, self.now);
        self.clients.push(Client {
            key: hello.key,
            address: hello.address,
            conversation,
            info,
            hash,
            rng,
            heard: Vec::new(),
            relayed: Vec::new(),
            frames: Vec::new(),
            others: Vec::new(),
            silent: false,
            requests: 0,
        });
        self.clients.len() - 1
    }

    fn first_mail(&mut self, address: SocketAddr) -> Vec<u8> {
        self.mail.get_mut(&address).filter(|mail| !mail.is_empty()).expect("an answer").remove(0)
    }

    /// A peer of number `n` that is registered as `name`.
    pub(super) fn join(&mut self, n: u8, name: &str) -> usize {
        let client = self.shake(Hello::new(n));
        self.register(client, name).expect("registered");
        client
    }

    pub(super) fn register(&mut self, client: usize, name: &str) -> Result<Answer, Problem> {
        self.ask(client, Operation::Register(registration(name, None)))
    }

    /// Asks without waiting for the answer.
    pub(super) fn post(&mut self, client: usize, operation: Operation) -> u32 {
        let (of, now) = (&mut self.clients[client], self.now);
        of.requests += 1;
        let json = serde_json::to_vec(&Request { id: of.requests, operation }).unwrap();
        of.conversation.transport().send(Channel(0), json.into(), now).unwrap();
        of.requests
    }

    /// Asks and waits for the answer.
    pub(super) fn ask(&mut self, client: usize, operation: Operation) -> Result<Answer, Problem> {
        let wanted = self.post(client, operation);
        self.run(Duration::from_millis(50));
        let found = self.clients[client].heard.iter().find_map(|heard| match heard {
            FromServer::Reply(Reply { id, outcome }) if *id == wanted => Some(outcome.clone()),
            FromServer::Reply(_) | FromServer::Event(_) => None,
        });
        match found.unwrap_or_else(|| panic!("no reply; heard {:?}", self.clients[client].heard)) {
            Outcome::Ok(answer) => Ok(answer),
            Outcome::Error(problem) => Err(problem),
        }
    }

    pub(super) fn control(&mut self, client: usize, frame: ControlFrame) {
        let now = self.now;
        self.clients[client].conversation.transport().control(frame, None, now);
    }

    /// Everybody talks until `span` has passed.
    pub(super) fn run(&mut self, span: Duration) {
        let end = self.now + span;
        for _ in 0..100_000 {
            self.exchange();
            let hub = self.hub.poll_timeout().map(|(at, _)| at);
            let speakers = self.clients.iter().filter(|client| !client.silent);
            let clients = speakers.filter_map(|client| client.conversation.poll_timeout());
            let next = clients.map(|(at, _)| at).chain(hub).min();
            let next = next.filter(|at| *at <= end).unwrap_or(end);
            if next == end && self.now == end {
                return;
            }
            // A deadline that is due already must not stop the clock.
            self.now = next.max(self.now + Duration::from_micros(50)).min(end);
            self.hub.handle_timeout(self.now);
            self.drain();
            for client in self.clients.iter_mut().filter(|client| !client.silent) {
                client.conversation.handle_timeout(self.now);
            }
        }
        panic!("the world does not come to rest");
    }

    /// Passes datagrams to and fro until there are none.
    pub(super) fn exchange(&mut self) {
        for _ in 0..1000 {
            let mut moved = false;
            for client in 0..self.clients.len() {
                moved |= self.speak(client);
                moved |= self.listen(client);
            }
            if !moved {
                return;
            }
        }
        panic!("the exchange does not end");
    }

    fn speak(&mut self, client: usize) -> bool {
        let mut moved = false;
        while let Some(datagram) = self.next_datagram(client) {
            let from = self.clients[client].address;
            self.arrive(from, datagram);
            moved = true;
        }
        moved
    }

    /// What a client would send next.
    pub(super) fn next_datagram(&mut self, client: usize) -> Option<Vec<u8>> {
        let (of, now) = (&mut self.clients[client], self.now);
        if of.silent {
            return None;
        }
        of.conversation.poll_datagram(&mut of.rng, now).map(|(_, datagram)| datagram)
    }

    fn listen(&mut self, client: usize) -> bool {
        let (of, now) = (&mut self.clients[client], self.now);
        if of.silent {
            return false;
        }
        let Some(mail) = self.mail.remove(&of.address) else { return false };
        for datagram in mail {
            of.take(datagram, now);
        }
        true
    }

    /// The events of the operator as short lines.
    pub(super) fn log(&mut self) -> Vec<String> {
        std::mem::take(&mut self.events).iter().map(line).collect()
    }
}

fn line(event: &Event) -> String {
    match event {
        Event::Joined { name, .. } => format!("joined {name}"),
        Event::Left { name, reason, .. } => format!("left {name} {reason:?}"),
        Event::Renamed { from, to, .. } => format!("renamed {from} {to}"),
        Event::Moved { name, to, .. } => format!("moved {name} {to}"),
        Event::Refused { name, code, .. } => format!("refused {name} {code}"),
        Event::Notice { from, text } => format!("notice {from}: {text}"),
    }
}

impl Client {
    pub(super) fn token(&self) -> Token {
        let Address::Server(token) = self.info.address else { panic!("no token") };
        token
    }

    fn take(&mut self, mut datagram: Vec<u8>, now: Instant) {
        match Family::of(&datagram) {
            Family::Relay => {
                let (header, inner) = RelayHeader::decode(&datagram).unwrap();
                assert_eq!(header.token, self.token(), "the frame names its receiver");
                self.relayed.push((header.channel, inner.to_vec()));
            }
            Family::Data => self.open(&mut datagram, now),
            Family::Stun
            | Family::HandshakeInit
            | Family::HandshakeReply
            | Family::HandshakeFinish
            | Family::Retry
            | Family::Reset
            | Family::Stale
            | Family::Versions
            | Family::Beacon
            | Family::Other => self.others.push(datagram),
        }
    }

    fn open(&mut self, datagram: &mut [u8], now: Instant) {
        // A packet of an older session of this address is nothing to us.
        let _ = self.conversation.handle_packet(datagram, &mut self.rng, now);
        while let Some(message) = self.conversation.transport().poll_message(now) {
            self.heard.push(serde_json::from_slice(&message.payload).unwrap());
        }
        while let Some(event) = self.conversation.poll_event() {
            let transport::Event::Control { frame, path } = event else { continue };
            if let ControlFrame::PathChallenge(data) = frame {
                let answer = ControlFrame::PathResponse(data);
                self.conversation.transport().control(answer, Some(path), now);
            }
            self.frames.push(frame);
        }
    }

    /// The events pushed to it as short lines.
    pub(super) fn pushed(&mut self) -> Vec<String> {
        let told = |heard: &FromServer| match heard {
            FromServer::Reply(_) => None,
            FromServer::Event(event) => Some(match event {
                Pushed::Joined(member) => format!("joined {}", member.name),
                Pushed::Left { name, reason, .. } => format!("left {name} {reason:?}"),
                Pushed::Renamed { from, member } => format!("renamed {from} {}", member.name),
                Pushed::Connect(connect) => format!("connect {}", connect.member.name),
                Pushed::Notice { text, everybody } => format!("notice {text} {everybody}"),
            }),
        };
        std::mem::take(&mut self.heard).iter().filter_map(told).collect()
    }

    pub(super) fn closed(&self) -> Option<u16> {
        self.frames.iter().find_map(|frame| {
            let ControlFrame::Close(code, _) = frame else { return None };
            Some(*code)
        })
    }
}

pub(super) fn registration(name: &str, token: Option<TokenProof>) -> Register {
    Register {
        name: name.into(),
        token,
        keepalive: 15,
        candidates: Vec::new(),
        exposure: Exposure::Open,
    }
}

pub(super) fn name(text: &str) -> PeerName {
    PeerName::new(text).unwrap()
}
