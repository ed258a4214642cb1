//! Nodes and a hub on a small network without NATs: who says what when.

mod hiding;
mod lan;
mod leaving;
mod meeting;
mod names;
mod network;
mod paths;
mod punch;
mod readable;
mod reasons;
mod replay;
mod sizes;
mod sleep;
mod streams;
mod third_party;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use super::spare::SPARES_MAX;
use super::*;
use crate::control::{Exposure, LeaveReason};
use crate::hub::{self, Fast, Hub, Limits, Routes, Verdict};
use crate::id::Boot;
use crate::io::{Ecn, Route, Transmit};
use crate::session::StaticKey;
use crate::time::origin as start_of_time;
use crate::wire::{RELAY_HEADER_LEN, RelayHeader};

const SERVER: &str = "192.0.2.1:3478";
/// Of the first socket of every host; those of spares follow.
const PORT: u16 = 4000;
const SERVER_V6: &str = "[2001:db8::1]:3478";
/// Stands for the addresses of SPEC section 15.1.
const EVERYBODY: SocketAddr =
    SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::new(239, 255, 80, 50)), 23_478);
const ONE_WAY: Duration = Duration::from_millis(20);

/// Everything in flight, and all machines.
struct Net {
    began: Instant,
    now: Instant,
    hub: Hub,
    routes: Arc<Routes>,
    nodes: BTreeMap<SocketAddr, Host>,
    flying: Vec<(Instant, Transmit)>,
    /// Which datagrams get lost.
    drops: fn(&Transmit) -> bool,
    seen: Vec<String>,
    /// What the server's name resolves to.
    servers: Vec<SocketAddr>,
    /// Peers that programs wrote down.
    known: Vec<Known>,
    /// How far behind the wall clock of a program that starts now is.
    clock_error: Duration,
    /// Programs started so far: no two have the same chance.
    started: u8,
}

struct Host {
    node: Node,
    events: Vec<Event>,
    messages: Vec<(String, Vec<u8>)>,
    effects: Vec<Effect>,
    spares: u16,
}

fn key(n: u8) -> StaticKey {
    StaticKey::generate(&mut ChaCha12Rng::from_seed([n; 32]))
}

fn config(n: u8, name: &str) -> Config {
    Config {
        static_key: key(n),
        server: SERVER.to_owned(),
        server_key: None,
        server_boot: None,
        network: None,
        lan_secret: None,
        discovery: Discovery::On,
        token: None,
        name: Some(name.parse().unwrap()),
        keepalive: Keepalive::Adaptive,
        known: Vec::new(),
        aes: true,
        name_keeping: NameKeeping::Keep,
        delivery_timeout: None,
        guessing: Guessing::On,
        exposure: Exposure::Open,
    }
}

fn address(n: u8) -> SocketAddr {
    SocketAddr::from(([198, 51, 100, n], PORT))
}

/// Hosts with two addresses are known by their IPv4 one.
fn as_v4(address: SocketAddr) -> SocketAddr {
    match address.ip() {
        IpAddr::V6(ip) => self::address(ip.octets()[15]),
        IpAddr::V4(_) => address,
    }
}

fn address_v6(n: u8) -> SocketAddr {
    format!("[2001:db8:1::{n:x}]:4000").parse().unwrap()
}

fn is_server(address: SocketAddr) -> bool {
    [SERVER, SERVER_V6].iter().any(|server| *server == address.to_string())
}

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

impl Net {
    fn new() -> Self {
        let now = start_of_time();
        let hub = Self::make_hub(1, Limits::open(), now);
        let routes = hub.routes();
        let (nodes, flying, seen) = (BTreeMap::new(), Vec::new(), Vec::new());
        Self {
            began: now,
            now,
            hub,
            routes,
            nodes,
            flying,
            drops: |_| false,
            seen,
            servers: vec![SERVER.parse().unwrap()],
            known: Vec::new(),
            clock_error: Duration::ZERO,
            started: 0,
        }
    }

    /// Two peers, registered.
    fn of_two() -> Self {
        let mut net = Self::new();
        net.add(1, config(1, "alice"));
        net.add(2, config(2, "bob"));
        net.start(1);
        net.start(2);
        net.run(second(1));
        net
    }

    fn make_hub(seed: u8, limits: Limits, now: Instant) -> Hub {
        let config = hub::Config {
            static_key: key(250),
            reset_key: [9; 32],
            tokens: Vec::new(),
            expire_intervals: 3,
            broadcast_max: 256,
            aes: true,
            places: crate::wire::stun::Places::default(),
            limits,
        };
        Hub::new(config, [seed; 32], now, second(1_700_000_000))
    }

    fn restart_hub(&mut self) {
        self.hub = Self::make_hub(2, Limits::open(), self.now);
        self.routes = self.hub.routes();
    }

    fn add(&mut self, n: u8, config: Config) {
        self.started += 1;
        let unix_now = second(1_700_000_000) + (self.now - self.began);
        let unix_now = unix_now.saturating_sub(self.clock_error);
        let node = Node::new(config, [self.started; 32], self.now, unix_now);
        let (events, messages, effects) = (Vec::new(), Vec::new(), Vec::new());
        self.nodes.insert(address(n), Host { node, events, messages, effects, spares: 0 });
    }

    fn start(&mut self, n: u8) {
        let bound = address(n);
        let sockets = vec![LocalSocket { bound, addresses: vec![bound.ip()] }];
        self.input(n, Input::Sockets(sockets));
    }

    fn input(&mut self, n: u8, input: Input<'_>) {
        let now = self.now;
        self.host(n).node.handle_input(input, now);
        self.drain();
    }

    fn command(&mut self, n: u8, command: Command) {
        self.input(n, Input::Command(command));
    }

    fn send(&mut self, n: u8, handle: u64, to: &str, text: &str) {
        let to = Recipient::Name(to.parse().unwrap());
        let payload = Bytes::copy_from_slice(text.as_bytes());
        self.command(n, Command::Send { handle: Handle(handle), to, payload });
    }

    fn host(&mut self, n: u8) -> &mut Host {
        self.nodes.get_mut(&address(n)).unwrap()
    }

    fn drain(&mut self) {
        let addresses: Vec<SocketAddr> = self.nodes.keys().copied().collect();
        for at in addresses {
            self.drain_node(at);
        }
        while let Some(output) = self.hub.poll_output() {
            match output {
                hub::Output::Transmit(transmit) => self.fly(transmit),
                hub::Output::Event(_) => {}
                hub::Output::Effect(hub::Effect::Handshake(job)) => {
                    self.hub.handle_input(hub::Input::HandshakeDone(job.run()), self.now);
                }
            }
        }
    }

    fn drain_node(&mut self, at: SocketAddr) {
        let now = self.now;
        while let Some(host) = self.nodes.get_mut(&at) {
            match host.node.poll_output() {
                Some(Output::Transmit(transmit)) => self.fly(transmit),
                Some(Output::Train(train)) => {
                    let single = |datagram: &[u8]| Transmit::new(train.route, datagram.to_vec());
                    train.datagrams().map(single).for_each(|transmit| self.fly(transmit));
                }
                Some(Output::Event(event)) => host.events.push(event),
                Some(Output::Effect(Effect::Resolve)) => {
                    let servers = self.servers.clone();
                    host.node.handle_input(Input::Resolved(servers), now);
                }
                Some(Output::Effect(Effect::OpenSockets { usage, count })) => {
                    let open = |_| {
                        host.spares += 1;
                        SocketAddr::new(at.ip(), at.port() + host.spares)
                    };
                    let bound = (0..count).map(open).collect();
                    host.node.handle_input(Input::Opened { usage, bound }, now);
                }
                Some(Output::Effect(Effect::Announce { datagram })) => {
                    self.fly(Transmit::new(Route::udp(at, EVERYBODY), datagram));
                }
                Some(Output::Effect(effect)) => host.effects.push(effect),
                None => {
                    let Some(message) = host.node.poll_message(now) else { return };
                    host.messages.push((message.from.to_string(), message.payload.to_vec()));
                }
            }
        }
    }

    fn fly(&mut self, transmit: Transmit) {
        let (from, to) = (transmit.route.local, transmit.route.remote);
        let family = Family::of(&transmit.payload);
        self.seen.push(format!("{from} -> {to} {family:?} {}", transmit.payload.len()));
        if !(self.drops)(&transmit) {
            self.flying.push((self.now + ONE_WAY, transmit));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let timers = self.nodes.values().filter_map(|host| host.node.poll_timeout());
            let due = timers.chain(self.hub.poll_timeout()).map(|(at, _)| at);
            let next = due.chain(self.flying.iter().map(|(at, _)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let now = self.now;
        let flying = std::mem::take(&mut self.flying);
        let (due, rest) = flying.into_iter().partition::<Vec<_>, _>(|(at, _)| *at <= now);
        self.flying = rest;
        for (_, transmit) in due {
            self.deliver(transmit);
        }
        for host in self.nodes.values_mut() {
            if host.node.poll_timeout().is_some_and(|(at, _)| at <= now) {
                host.node.handle_timeout(now);
            }
        }
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.hub.handle_timeout(now);
        }
    }

    fn deliver(&mut self, mut transmit: Transmit) {
        if transmit.route.remote == EVERYBODY {
            return self.announce(&transmit);
        }
        let route = Route::udp(transmit.route.remote, transmit.route.local);
        let (data, now) = (&mut transmit.payload, self.now);
        if is_server(route.local) {
            self.serve(route, data);
        } else if let Some(host) = self.owner_of(route.local) {
            host.node.handle_input(Input::Datagram { route, ecn: Ecn::NotEct, data }, now);
        }
        self.drain();
    }

    /// The hosts are on one LAN.
    fn announce(&mut self, transmit: &Transmit) {
        let (from, data, now) = (transmit.route.local, &transmit.payload, self.now);
        for (_, host) in self.nodes.iter_mut().filter(|(at, _)| **at != from) {
            host.node.handle_input(Input::Announced { from, data }, now);
        }
        self.drain();
    }

    /// The host with a socket of this address.
    fn owner_of(&mut self, local: SocketAddr) -> Option<&mut Host> {
        let first = SocketAddr::new(as_v4(local).ip(), PORT);
        let spare = local.port() - PORT;
        self.nodes.get_mut(&first).filter(|host| spare <= host.spares)
    }

    fn serve(&mut self, route: Route, data: &mut [u8]) {
        match Fast::handle(&self.routes, data, route, self.now) {
            Verdict::Drop => {}
            Verdict::Reply(payload) => self.fly(Transmit::new(route, payload)),
            Verdict::Elsewhere(transmit) => self.fly(transmit),
            Verdict::Forward(route) => self.fly(Transmit::new(route, data.to_vec())),
            Verdict::Live | Verdict::Rest => {
                self.hub.handle_input(hub::Input::Datagram { route, data }, self.now);
            }
        }
    }

    fn count(&mut self, n: u8, wanted: impl Fn(&Event) -> bool) -> usize {
        self.host(n).events.iter().filter(|event| wanted(event)).count()
    }

    fn is_delivered(&mut self, n: u8, handle: u64) -> bool {
        self.count(n, |e| matches!(e, Event::Delivered { handle: h, .. } if h.0 == handle)) == 1
    }

    fn texts(&mut self, n: u8) -> Vec<String> {
        let text = |(_, bytes): &(String, Vec<u8>)| String::from_utf8(bytes.clone()).unwrap();
        self.host(n).messages.iter().map(text).collect()
    }
}

fn between_peers(transmit: &Transmit) -> bool {
    let server = SERVER.parse().unwrap();
    transmit.route.local != server && transmit.route.remote != server
}

fn between_first_sockets(transmit: &Transmit) -> bool {
    transmit.route.local.port() == PORT && transmit.route.remote.port() == PORT
}
