//! A peer of the world: a node, its shell and its application.

use std::collections::{BTreeMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2sp_proto::control::Exposure;
use p2sp_proto::id::PeerName;
use p2sp_proto::io::{Ecn, Route, Transmit};
use p2sp_proto::node::{self, Audience, Command, Handle, Known, LocalSocket, Node};
use p2sp_proto::session::StaticKey;
use p2sp_proto::time::earliest;
use p2sp_proto::traversal::nat::Profile;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use super::seen::Seen;
use super::{Process, seed_from};
use crate::actor::Actor;
use crate::clock::Clock;
use crate::model::Channel;
use crate::packet::Packet;

/// Where peers speak to everybody on their LAN: SPEC section 15.1, IPv4.
pub const LAN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(239, 255, 80, 50)), 23_478);

/// How an application takes its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pickup {
    /// As they come.
    AtOnce,
    /// One every so often.
    Every(Duration),
}

/// Who a peer is and how it behaves.
#[derive(Clone, Debug)]
pub struct PeerSetup {
    /// The name it registers.
    pub name: String,
    /// Its host's addresses.
    pub addresses: Vec<IpAddr>,
    /// The port of its sockets.
    pub port: u16,
    /// Addresses of the server.
    pub server: Vec<SocketAddr>,
    /// Time between keepalives.
    pub keepalive: node::Keepalive,
    /// How messages are taken.
    pub pickup: Pickup,
    /// Its access token, id and secret.
    pub token: Option<(String, String)>,
    /// Whether peers may learn where it is.
    pub exposure: Exposure,
    /// Decides its key and all its chance.
    pub seed: u64,
}

/// A peer: the machine, its sockets and its application.
pub struct PeerHost {
    process: Process,
    setup: PeerSetup,
    node: Node,
    known: Memory,
    /// Ports of spare sockets.
    spares: Vec<u16>,
    /// What the system picks next.
    next_port: u16,
    outbox: VecDeque<Packet>,
    seen: Vec<(Instant, Seen)>,
    next_pickup: Option<Instant>,
    handles: u64,
    incarnation: u64,
}

/// What the shell writes down for the next incarnation.
#[derive(Clone, Debug, Default)]
struct Memory {
    server: Option<(p2sp_proto::id::PeerKey, p2sp_proto::id::Boot)>,
    network: Option<p2sp_proto::id::NetworkId>,
    lan_secret: Option<p2sp_proto::id::LanSecret>,
    peers: BTreeMap<PeerName, Known>,
}

impl PeerHost {
    /// Starts a peer that registers at once.
    pub fn start(setup: PeerSetup, clock: &Clock) -> Self {
        let known = Memory::default();
        let mut peer = Self {
            process: Process::Running,
            node: boot(&setup, &known, 0, clock),
            next_port: setup.port + 1,
            setup,
            known,
            spares: Vec::new(),
            outbox: VecDeque::new(),
            seen: Vec::new(),
            next_pickup: None,
            handles: 0,
            incarnation: 0,
        };
        peer.announce(clock.now());
        peer
    }

    /// The process ends without a word.
    pub fn halt(&mut self) {
        self.process = Process::Halted;
        self.outbox.clear();
    }

    /// A new process begins, with the key and what the old one wrote down.
    pub fn restart(&mut self, clock: &Clock) {
        self.process = Process::Running;
        self.incarnation += 1;
        self.node = boot(&self.setup, &self.known, self.incarnation, clock);
        self.outbox.clear();
        self.spares.clear();
        self.next_pickup = None;
        self.announce(clock.now());
    }

    /// A new process begins with a message in hand: it is accepted before a socket is there.
    /// Answers the handle.
    pub fn restart_with(&mut self, to: &str, text: &str, clock: &Clock) -> u64 {
        self.process = Process::Running;
        self.incarnation += 1;
        self.node = boot(&self.setup, &self.known, self.incarnation, clock);
        let handle = self.send(to, text, clock.now());
        self.announce(clock.now());
        handle
    }

    /// The host has other addresses now.
    pub fn set_addresses(&mut self, addresses: Vec<IpAddr>, now: Instant) {
        self.setup.addresses = addresses;
        self.announce(now);
    }

    /// The network changed under the same addresses.
    pub fn network_changed(&mut self, now: Instant) {
        self.node.handle_input(node::Input::NetworkChanged, now);
        self.drain(now);
    }

    /// A router forwards this address to the peer; answers to which port of the host.
    pub fn set_mapped(&mut self, external: SocketAddr, now: Instant) -> u16 {
        let port = self.setup.port;
        let mapped = node::Mapped { bound: bound(port, false), external };
        self.node.handle_input(node::Input::Mapped(vec![mapped]), now);
        self.drain(now);
        port
    }

    /// Sends a text to a peer; answers the handle.
    pub fn send(&mut self, to: &str, text: &str, now: Instant) -> u64 {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        let to = node::Recipient::Name(name(to));
        self.command(now, |handle| Command::Send { handle, to, payload })
    }

    /// Sends a text to everybody; answers the handle.
    pub fn send_all(&mut self, text: &str, now: Instant) -> u64 {
        let payload = Bytes::copy_from_slice(text.as_bytes());
        self.command(now, |handle| Command::SendAll { handle, payload })
    }

    /// Asks for the list; answers the handle.
    pub fn list(&mut self, now: Instant) -> u64 {
        self.command(now, |handle| Command::List { handle })
    }

    /// Says good bye.
    pub fn close(&mut self, now: Instant) {
        self.command(now, |_| Command::Close);
    }

    /// What it was told so far and when.
    pub fn seen(&self) -> &[(Instant, Seen)] {
        &self.seen
    }

    /// Whether it was told this.
    pub fn has_seen(&self, test: impl Fn(&Seen) -> bool) -> bool {
        self.seen.iter().any(|(_, seen)| test(seen))
    }

    /// What the node found out about its NAT.
    pub fn nat(&self) -> Profile {
        self.node.nat()
    }

    /// Why the node uses the path it uses, for people.
    pub fn why(&self, peer: &str) -> String {
        self.node.why(&name(peer)).map_or_else(|| "unknown".into(), |why| format!("{why:?}"))
    }

    /// Where the node stands with each peer.
    pub fn diagnose(&self) -> Vec<String> {
        self.node.diagnose()
    }

    fn command(&mut self, now: Instant, make: impl FnOnce(Handle) -> Command) -> u64 {
        self.handles += 1;
        self.node.handle_input(node::Input::Command(make(Handle(self.handles))), now);
        self.drain(now);
        self.handles
    }

    /// Tells the node its sockets, one for each family the host has an address of.
    fn announce(&mut self, now: Instant) {
        let sockets = [false, true].into_iter().filter_map(|ipv6| self.socket(ipv6)).collect();
        self.node.handle_input(node::Input::Sockets(sockets), now);
        self.drain(now);
    }

    fn socket(&self, ipv6: bool) -> Option<LocalSocket> {
        let own = self.setup.addresses.iter().copied();
        let addresses: Vec<IpAddr> = own.filter(|ip| ip.is_ipv6() == ipv6).collect();
        let bound = bound(self.setup.port, ipv6);
        (!addresses.is_empty()).then_some(LocalSocket { bound, addresses })
    }

    /// Whether a socket of this host has the port.
    fn has_port(&self, port: u16) -> bool {
        port == self.setup.port || self.spares.contains(&port)
    }

    /// Carries out what the node wants, lets the application take messages, and carries out what
    /// follows from that: taking a message is what its receipt certifies.
    fn drain(&mut self, now: Instant) {
        self.carry_out_all(now);
        self.pick_up(now);
        self.carry_out_all(now);
    }

    fn carry_out_all(&mut self, now: Instant) {
        while let Some(output) = self.node.poll_output() {
            match output {
                node::Output::Transmit(transmit) => self.transmit(transmit),
                node::Output::Train(train) => {
                    for datagram in train.datagrams() {
                        self.transmit(Transmit::new(train.route, datagram.to_vec()));
                    }
                }
                node::Output::Event(event) => self.seen.push((now, Seen::from(event))),
                node::Output::Effect(effect) => self.carry_out(effect, now),
            }
        }
    }

    /// To everybody in the zone.
    fn tell_lan(&mut self, datagram: Vec<u8>) {
        if let Some(ip) = self.setup.addresses.iter().find(|ip| ip.is_ipv4()) {
            let (source, group) = (SocketAddr::new(*ip, LAN.port()), LAN);
            self.outbox.push_back(Packet::new(source, group, datagram).with_ttl(Some(1)));
        }
    }

    fn transmit(&mut self, Transmit { route, payload, ttl, .. }: Transmit) {
        let ipv6 = route.remote.is_ipv6();
        let source = self.setup.addresses.iter().find(|ip| ip.is_ipv6() == ipv6);
        let port = route.local.port();
        let is_ours = route.local == bound(port, ipv6) && self.has_port(port);
        if let Some(ip) = source.filter(|_| is_ours) {
            let source = SocketAddr::new(*ip, port);
            let packet = Packet::new(source, route.remote, payload);
            self.outbox.push_back(packet.with_ttl(ttl));
        }
    }

    fn carry_out(&mut self, effect: node::Effect, now: Instant) {
        match effect {
            node::Effect::Resolve => {
                let server = self.setup.server.clone();
                self.node.handle_input(node::Input::Resolved(server), now);
            }
            node::Effect::OpenSockets { usage, count } => {
                let ports = self.next_port..self.next_port + count;
                self.next_port = ports.end;
                self.spares.extend(ports.clone());
                let bound = ports.map(|port| bound(port, false)).collect();
                self.node.handle_input(node::Input::Opened { usage, bound }, now);
            }
            node::Effect::CloseSockets(closed) => {
                self.spares.retain(|port| !closed.contains(&bound(*port, false)));
            }
            node::Effect::Announce { datagram } => self.tell_lan(datagram),
            node::Effect::RememberServer { key, boot, network, lan_secret } => {
                self.known.server = Some((key, boot));
                if network.is_some() {
                    (self.known.network, self.known.lan_secret) = (network, lan_secret);
                }
            }
            node::Effect::RememberPeer(known) => {
                self.known.peers.insert(known.name.clone(), known);
            }
        }
    }

    /// The application takes what it has room for.
    fn pick_up(&mut self, now: Instant) {
        match self.setup.pickup {
            Pickup::AtOnce => while self.take_one(now) {},
            Pickup::Every(pause) => {
                if self.next_pickup.is_none_or(|at| at <= now) {
                    self.take_one(now);
                    self.next_pickup = Some(now + pause);
                }
            }
        }
    }

    fn take_one(&mut self, now: Instant) -> bool {
        let Some(message) = self.node.poll_message(now) else { return false };
        let text = String::from_utf8_lossy(&message.payload).into_owned();
        let channel = match message.audience {
            Audience::Private => Channel::Private,
            Audience::Everybody => Channel::Everybody,
        };
        let from = message.from.to_string();
        self.seen.push((now, Seen::Message { from, channel, text }));
        true
    }
}

impl Actor for PeerHost {
    fn handle_datagram(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        mut data: Vec<u8>,
        now: Instant,
    ) {
        if self.process == Process::Halted {
            return;
        }
        if local == LAN {
            self.node.handle_input(node::Input::Announced { from, data: &data }, now);
            return self.drain(now);
        }
        if !self.has_port(local.port()) {
            return;
        }
        let route = Route::udp(bound(local.port(), local.is_ipv6()), from);
        self.node
            .handle_input(node::Input::Datagram { route, ecn: Ecn::NotEct, data: &mut data }, now);
        self.drain(now);
    }

    fn handle_timeout(&mut self, now: Instant) {
        if self.node.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.node.handle_timeout(now);
        }
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.process == Process::Halted {
            return None;
        }
        earliest(self.node.poll_timeout(), self.next_pickup.map(|at| (at, "pickup")))
    }
}

/// Sockets are bound to every address, so that the node cannot confuse a socket's identity with
/// an address of the host.
fn bound(port: u16, ipv6: bool) -> SocketAddr {
    let any =
        if ipv6 { IpAddr::V6(Ipv6Addr::UNSPECIFIED) } else { IpAddr::V4(Ipv4Addr::UNSPECIFIED) };
    SocketAddr::new(any, port)
}

/// A new node with what an earlier one left behind.
fn boot(setup: &PeerSetup, known: &Memory, incarnation: u64, clock: &Clock) -> Node {
    let mut rng = ChaCha12Rng::seed_from_u64(setup.seed);
    let static_key = StaticKey::generate(&mut rng);
    let mut chance = ChaCha12Rng::seed_from_u64(setup.seed ^ (incarnation + 1) << 48);
    let config = node::Config {
        static_key,
        server: "rendezvous.example:3478".into(),
        server_key: known.server.map(|(key, _)| key),
        server_boot: known.server.map(|(_, boot)| boot),
        network: known.network,
        lan_secret: known.lan_secret.clone(),
        discovery: node::Discovery::On,
        token: setup.token.clone(),
        name: Some(name(&setup.name)),
        keepalive: setup.keepalive,
        known: known.peers.values().cloned().collect(),
        aes: false,
        name_keeping: node::NameKeeping::Keep,
        delivery_timeout: None,
        guessing: node::Guessing::On,
        exposure: setup.exposure,
    };
    Node::new(config, seed_from(&mut chance), clock.now(), clock.unix_now())
}

/// Names in scenarios are literals.
fn name(text: &str) -> PeerName {
    PeerName::new(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}
