//! Nodes and a hub on a small network without NATs: who says what when.

mod hiding;
mod network;
mod punch;
mod readable;
mod reasons;
mod sizes;
mod sleep;
mod streams;
mod third_party;

use crate::time::origin as start_of_time;
use std::collections::BTreeMap;
use std::sync::Arc;

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

mod lan;

use super::spare::SPARES_MAX;
use super::*;
use crate::control::{Exposure, LeaveReason};
use crate::hub::{self, Fast, Hub, Limits, Routes, Verdict};
use crate::id::Boot;
use crate::io::{Ecn, Transmit};
use crate::session::StaticKey;

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

#[test]
fn two_peers_register_meet_and_talk_directly() {
    let mut net = Net::of_two();
    assert_eq!(net.count(1, |e| matches!(e, Event::Registered(_))), 1, "{:#?}", net.seen);
    net.send(1, 7, "bob", "hello");
    net.run(second(1));
    assert_eq!(net.texts(2), ["hello"], "{:#?}", net.seen);
    assert_eq!(net.host(2).messages[0].0, "alice");
    assert!(net.is_delivered(1, 7));
    let path = net.host(1).node.why(&"bob".parse().unwrap()).unwrap().path;
    let is_direct = matches!(path, PathView::Direct { address, .. } if address == self::address(2));
    assert!(is_direct, "{path:?} {:#?}", net.seen);
    net.send(2, 8, "alice", "and back");
    net.run(second(1));
    assert_eq!(net.texts(1), ["and back"]);
}

#[test]
fn a_peer_registered_over_ipv6_is_found_over_ipv4() {
    let mut net = Net::of_two();
    net.add(3, config(3, "carol"));
    net.servers = vec![SERVER_V6.parse().unwrap(), SERVER.parse().unwrap()];
    let sockets = [address(3), address_v6(3)]
        .map(|bound| LocalSocket { bound, addresses: Vec::new() })
        .to_vec();
    net.input(3, Input::Sockets(sockets));
    net.run(second(2));
    assert_eq!(net.host(3).node.whoami().observed, Some(address_v6(3)));
    net.send(1, 1, "carol", "hello");
    net.run(second(3));
    assert_eq!(net.texts(3), ["hello"]);
    let path = net.host(1).node.why(&"carol".parse().unwrap()).unwrap().path;
    let is_direct = matches!(path, PathView::Direct { address, .. } if address == self::address(3));
    assert!(is_direct, "{path:?} {:#?}", net.seen);
}

#[test]
fn without_a_direct_path_the_relay_carries() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    for n in 0..20 {
        net.send(1, n, "bob", &n.to_string());
    }
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 20, "{:#?}", net.seen);
    let why = net.host(1).node.why(&"bob".parse().unwrap()).unwrap();
    assert!(matches!(why.path, PathView::Relay { .. }), "{why:?}");
    net.run(second(100));
    net.send(1, 99, "bob", "later");
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 21);
    net.run(second(600));
    net.send(1, 100, "bob", "much later");
    net.run(second(5));
    assert_eq!(net.texts(2).len(), 22, "a relay channel that was freed comes back");
}

#[test]
fn a_spare_socket_goes_where_the_first_one_failed() {
    let mut net = Net::of_two();
    net.drops = between_first_sockets;
    net.send(1, 1, "bob", "relayed");
    net.run(second(5));
    assert!(net.is_delivered(1, 1));
    assert_eq!(net.host(1).spares + net.host(2).spares, 1, "{:#?}", net.seen);
    for (n, to) in [(1, "bob"), (2, "alice")] {
        let why = net.host(n).node.why(&to.parse().unwrap()).unwrap();
        assert!(matches!(why.path, PathView::Direct { .. }), "{why:?}");
    }
    net.send(2, 2, "alice", "direct");
    net.run(second(1));
    assert_eq!(net.texts(1), ["direct"]);
}

#[test]
fn spares_come_to_an_end_where_nothing_helps() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    net.send(1, 1, "bob", "relayed");
    net.run(second(60));
    assert_eq!(usize::from(net.host(1).spares + net.host(2).spares), SPARES_MAX);
    let asked = |seen: &str| seen.contains(&format!("-> {SERVER} Stun"));
    let requests = |net: &Net| net.seen.iter().filter(|line| asked(line)).count();
    let before = requests(&net);
    assert_eq!(before, SPARES_MAX, "one Binding request for each");
    net.run(second(200));
    assert_eq!(requests(&net), before);
}

/// What a program that ends now leaves to the next one of its name.
fn left_behind(net: &mut Net, n: u8, name: &str) -> Config {
    let mut again = config(n, name);
    for effect in std::mem::take(&mut net.host(n).effects) {
        match effect {
            Effect::RememberServer { key, boot, network, lan_secret } => {
                (again.server_key, again.server_boot) = (Some(key), Some(boot));
                (again.network, again.lan_secret) = (network, lan_secret);
            }
            Effect::RememberPeer(known) => net.known.push(known),
            Effect::Resolve
            | Effect::OpenSockets { .. }
            | Effect::CloseSockets(_)
            | Effect::Announce { .. } => {}
        }
    }
    again.known = net.known.clone();
    net.command(n, Command::Close);
    net.run(second(1));
    again
}

/// Alice, who has talked to bob, begins anew with a message for him in hand.
fn begin_again(net: &mut Net, handle: u64, text: &str) {
    let again = left_behind(net, 1, "alice");
    assert_ne!(again.known[0].boot, Boot(0));
    net.add(1, again);
    net.host(2).messages.clear();
    net.seen.clear();
    net.send(1, handle, "bob", text);
    net.start(1);
}

#[test]
fn a_known_peer_gets_the_first_message_in_one_one_way_trip() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "first");
    net.run(second(1));
    begin_again(&mut net, 2, "second");
    net.run(ONE_WAY * 2 + Duration::from_millis(1));
    assert_eq!(net.texts(2), ["second"], "{:#?}", net.seen);
    net.run(second(1));
    assert!(net.is_delivered(1, 2));
    assert_eq!(net.texts(2).len(), 1);
}

#[test]
fn a_clock_that_jumped_back_costs_round_trips_only() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "first");
    net.run(second(1));
    begin_again(&mut net, 2, "second");
    net.run(second(1));
    net.clock_error = second(3600);
    begin_again(&mut net, 3, "third");
    net.run(ONE_WAY * 2 + Duration::from_millis(1));
    assert_eq!(net.texts(2), [""; 0], "early data of an old counter does not count");
    net.run(second(1));
    assert_eq!(net.texts(2), ["third"], "{:#?}", net.seen);
    assert!(net.is_delivered(1, 3));
}

#[test]
fn what_the_server_refused_for_its_rate_is_asked_again() {
    let mut net = Net::new();
    let limits = Limits { requests_per_second: 1, ..Limits::open() };
    net.hub = Net::make_hub(3, limits, net.now);
    net.routes = net.hub.routes();
    for n in 1..=3 {
        net.add(n, config(n, &format!("peer{n}")));
        net.start(n);
    }
    net.run(second(10));
    let payload = Bytes::from_static(b"all");
    net.command(1, Command::SendAll { handle: Handle(1), payload });
    net.run(second(5));
    assert_eq!(net.count(1, |e| matches!(e, Event::Delivered { .. })), 2, "{:#?}", net.seen);
}

#[test]
fn everybody_gets_a_message_to_everybody() {
    let mut net = Net::new();
    for n in 1..=5 {
        net.add(n, config(n, &format!("peer{n}")));
        net.start(n);
    }
    net.run(second(1));
    let payload = Bytes::from_static(b"all");
    net.command(1, Command::SendAll { handle: Handle(1), payload });
    net.run(second(2));
    for n in 2..=5 {
        assert_eq!(net.texts(n), ["all"], "{n}");
    }
    assert_eq!(net.count(1, |e| matches!(e, Event::Delivered { .. })), 4);
}

#[test]
fn leaving_is_seen_at_once_and_silence_after_the_intervals() {
    let mut net = Net::of_two();
    net.command(2, Command::Close);
    net.run(second(1));
    let is_bye = |e: &Event| matches!(e, Event::Left { reason: LeaveReason::Bye, .. });
    assert_eq!(net.count(1, is_bye), 1, "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Closed)), 1);
    net.add(3, config(3, "carol"));
    net.start(3);
    net.run(second(1));
    net.nodes.remove(&address(3));
    net.run(second(60));
    let is_expired = |e: &Event| matches!(e, Event::Left { reason: LeaveReason::Expired, .. });
    assert_eq!(net.count(1, is_expired), 1);
}

#[test]
fn a_good_bye_waits_for_lost_receipts() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.send(1, 2, "bob", "two");
    net.drops = |transmit| transmit.route.local == address(2);
    net.run(second(1) / 10);
    assert_eq!(net.texts(2), ["one", "two"], "{:#?}", net.seen);
    net.command(2, Command::Close);
    net.run(second(1) / 10);
    net.drops = |_| false;
    net.run(second(2));
    assert!(net.is_delivered(1, 2), "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Closed)), 1);
}

#[test]
fn what_was_asked_for_before_leaves_before_the_good_bye() {
    let mut net = Net::of_two();
    net.send(1, 0, "bob", "hello");
    net.run(second(2));
    let now = net.now;
    let node = &mut net.host(1).node;
    for handle in 1..=3 {
        let to = Recipient::Name("bob".parse().unwrap());
        let payload = vec![b'x'; 1000].into();
        let send = Command::Send { handle: Handle(handle), to, payload };
        node.handle_input(Input::Command(send), now);
    }
    node.send_datagram(&"bob".parse().unwrap(), Bytes::from_static(b"aside"), now).unwrap();
    node.handle_input(Input::Command(Command::Close), now);
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 4, "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Datagram { .. })), 1);
}

#[test]
fn both_send_first_at_the_same_moment() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "from alice");
    net.send(2, 1, "alice", "from bob");
    net.run(second(2));
    assert_eq!(net.texts(2), ["from alice"], "{:#?}", net.seen);
    assert_eq!(net.texts(1), ["from bob"]);
    net.send(1, 2, "bob", "again");
    net.run(second(1));
    assert_eq!(net.texts(2).len(), 2);
}

#[test]
fn a_restarted_server_gets_its_peers_back_and_direct_talk_goes_on() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.restart_hub();
    net.send(1, 2, "bob", "two");
    net.run(Duration::from_millis(200));
    assert_eq!(net.texts(2).len(), 2, "direct needs no server");
    net.run(second(40));
    assert_eq!(net.count(1, |e| matches!(e, Event::Registered(_))), 2, "{:#?}", net.seen);
    assert_eq!(net.hub.status(net.now).peers, 2);
}

#[test]
fn an_unknown_recipient_and_oneself_are_refused() {
    let mut net = Net::of_two();
    net.send(1, 1, "nobody", "x");
    net.send(1, 2, "alice", "x");
    net.run(second(1));
    for (handle, code) in [(1, code::NOT_FOUND), (2, code::BAD_REQUEST)] {
        let is_refused = |e: &Event| {
            matches!(e, Event::Failed { handle: h, problem, .. }
                if h.0 == handle && problem.code == code)
        };
        assert_eq!(net.count(1, is_refused), 1, "{handle}");
    }
}

#[test]
fn a_peer_that_restarts_gets_what_waits_and_nothing_twice() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "before");
    net.run(second(1));
    net.add(2, config(2, "bob"));
    net.send(1, 2, "bob", "while away");
    net.run(second(1));
    net.start(2);
    net.run(second(30));
    assert_eq!(net.texts(2), ["while away"], "{:#?}", net.seen);
    net.send(2, 1, "alice", "back");
    net.run(second(2));
    assert_eq!(net.texts(1), ["back"]);
}

#[test]
fn a_cut_direct_path_falls_back_to_the_relay_and_returns() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.drops = between_peers;
    net.send(1, 2, "bob", "two");
    net.run(second(3));
    assert_eq!(net.texts(2), ["one", "two"], "{:#?}", net.seen);
    net.run(second(10));
    let path = |net: &mut Net| net.host(1).node.why(&"bob".parse().unwrap()).unwrap().path;
    assert!(matches!(path(&mut net), PathView::Relay { .. }));
    net.drops = |_| false;
    net.run(second(70));
    assert!(matches!(path(&mut net), PathView::Direct { .. }));
}

#[test]
fn a_forgotten_peer_gets_what_is_sent_later() {
    let mut net = Net::new();
    net.add(1, config(1, "alice"));
    net.start(1);
    net.run(second(100));
    net.add(2, config(2, "bob"));
    net.start(2);
    net.run(second(10));
    net.send(1, 1, "bob", "first");
    net.run(second(5));
    assert_eq!(net.texts(2), ["first"]);
    net.run(second(1035));
    net.send(1, 2, "bob", "second");
    net.run(second(20));
    assert_eq!(net.texts(2), ["first", "second"]);
}

#[test]
fn a_rename_to_a_pinned_name_is_not_believed() {
    let mut net = Net::new();
    let mut a = config(1, "alice");
    a.known = vec![Known { name: "bob".parse().unwrap(), key: key(9).public(), boot: Boot(1) }];
    net.add(1, a);
    net.add(2, config(2, "mallory"));
    net.start(1);
    net.start(2);
    net.run(second(1));
    net.send(2, 1, "alice", "hi");
    net.run(second(2));
    net.command(2, Command::Register { name: "bob".parse().unwrap() });
    net.run(second(2));
    net.send(2, 2, "alice", "send me the password");
    net.run(second(2));
    assert!(net.host(1).messages.iter().all(|(from, _)| from != "bob"));
}

#[test]
fn a_refused_rename_keeps_the_old_name_for_later() {
    let mut net = Net::of_two();
    net.command(1, Command::Register { name: "bob".parse().unwrap() });
    net.run(second(1));
    net.restart_hub();
    net.run(second(60));
    let who = net.host(1).node.whoami();
    assert!(who.registered);
}

#[test]
fn a_name_given_while_the_server_is_away_counts() {
    let mut net = Net::of_two();
    net.drops = |_| true;
    net.restart_hub();
    net.run(second(40));
    net.command(1, Command::Register { name: "carol".parse().unwrap() });
    net.run(second(3));
    net.drops = |_| false;
    net.run(second(30));
    let who = net.host(1).node.whoami();
    assert_eq!(who.name.unwrap().as_str(), "carol");
}

#[test]
fn a_late_packet_of_an_old_path_does_not_bring_it_back() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "a");
    net.send(2, 1, "alice", "a");
    net.run(second(2));
    let one_controls = key(1).public() < key(2).public();
    let (c, d, dname) = if one_controls { (1, 2, "bob") } else { (2, 1, "alice") };
    net.send(c, 5, dname, "held");
    let from = address(c);
    let at = net.flying.iter().position(|(_, t)| {
        t.route.local == from && between_peers(t) && Family::of(&t.payload) == Family::Data
    });
    let held = net.flying.remove(at.unwrap()).1;
    net.run(second(1));
    net.drops = between_peers;
    net.send(c, 6, dname, "cut");
    net.run(second(10));
    net.drops = |_| false;
    net.run(second(10));
    net.send(c, 7, dname, "again");
    net.run(second(2));
    let preferred = |net: &mut Net| {
        let line = net.host(d).node.diagnose().swap_remove(0);
        line.split("prefers ").nth(1).map(|rest| rest[..9].to_owned())
    };
    let before = preferred(&mut net);
    assert!(before.as_ref().is_some_and(|path| ["PathId(3)", "PathId(4)"].contains(&&**path)));
    net.flying.push((net.now + ONE_WAY, held));
    net.run(Duration::from_millis(100));
    assert_eq!(preferred(&mut net), before);
}

#[test]
fn path_ids_that_run_out_make_a_new_session() {
    let mut net = Net::of_two();
    for n in 1..=140 {
        net.drops = between_peers;
        net.send(1, 2 * n, "bob", &format!("cut {n}"));
        net.send(2, 2 * n, "alice", &format!("cut {n}"));
        net.run(second(8));
        net.drops = |_| false;
        net.send(1, 2 * n + 1, "bob", &format!("whole {n}"));
        net.run(second(5));
        let line = net.host(1).node.diagnose().swap_remove(0);
        assert!(!line.contains("prefers PathId(0)"), "after {n} cuts: {line}");
    }
}

#[test]
fn a_direct_path_is_looked_for_as_long_as_the_pair_talks() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    let checks = |net: &mut Net, time| {
        net.seen.clear();
        net.run(time);
        net.seen.iter().filter(|seen| seen.contains(" Stun ")).count()
    };
    for n in 1..=60 {
        net.send(1, n, "bob", &format!("message {n}"));
        net.run(second(60));
    }
    net.send(1, 61, "bob", "the last");
    let talking = checks(&mut net, second(290));
    assert!((2..=40).contains(&talking), "{talking} checks in five minutes");
    net.run(second(30));
    assert_eq!(checks(&mut net, second(400)), 0, "nobody talks");
    net.drops = |_| false;
    net.send(1, 62, "bob", "again");
    net.run(second(3));
    let line = net.host(1).node.diagnose().swap_remove(0);
    assert!(!line.contains("prefers PathId(0)"), "{line}");
}

#[test]
fn an_absent_peer_is_not_asked_for_over_and_over() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(2));
    net.drops = |t| [t.route.local, t.route.remote].contains(&address(2));
    net.send(1, 2, "bob", "two");
    net.run(second(60));
    net.seen.clear();
    net.run(second(60));
    let opens = net
        .seen
        .iter()
        .filter(|seen| seen.starts_with("198.51.100.1:4000 -> 192.0.2.1") && seen.ends_with("266"));
    assert_eq!(opens.count(), 0, "{:#?}", net.seen);
}
#[test]
fn many_stales_call_forth_one_ping() {
    let mut net = Net::of_two();
    let stale = {
        let up = net.host(1).node.server.up().unwrap();
        crate::wire::encode_stale(up.token)
    };
    let before = net.host(1).node.registrations;
    for _ in 0..5 {
        let route = Route::udp(address(1), SERVER.parse().unwrap());
        let mut s = stale.clone();
        net.input(1, Input::Datagram { route, ecn: Ecn::NotEct, data: &mut s });
    }
    let now = net.now;
    net.host(1).node.handle_timeout(now);
    net.run(second(5));
    assert_eq!(before, net.host(1).node.registrations);
}
