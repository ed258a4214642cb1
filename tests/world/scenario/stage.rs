//! A server and named peers in a world, with a model of what they say to each other.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use p2sp_proto::control::Exposure;
use p2sp_proto::node::Keepalive;
use p2sp_proto::traversal::nat::Profile;

use crate::clock::Clock;
use crate::firewall::FirewallConfig;
use crate::link::Link;
use crate::machines::{
    Machine, PeerHost, PeerSetup, Pickup, SERVER_PORT, Seen, ServerHost, ServerSetup,
};
use crate::model::{Channel, Model, Phase};
use crate::nat::NatConfig;
use crate::oracle::{Layer, Side};
use crate::topology::{GateId, HostId, ZoneId};
use crate::world::{Stuck, World};

/// The server's addresses.
const SERVER: [&str; 2] = ["203.0.113.1", "2001:db8:ffff::1"];
/// Its further address, where it has one.
const SECOND_IP: &str = "203.0.113.2";
/// One way over a peer's access line, unless a scenario says otherwise.
pub(super) const ACCESS: Duration = Duration::from_millis(20);
/// How finely a stage looks at what the peers were told.
const SLICE: Duration = Duration::from_millis(10);
/// Boxes that belong to one place alone are numbered from here.
const OWN_BOX: u32 = 1_000_000;
/// Lines of the trace that a failure shows.
const TRACE_LINES: usize = 60;

/// Where a peer lives: a home, or a place in the internet.
#[derive(Clone, Debug)]
pub struct Site {
    zone: ZoneId,
    /// The box nearest to it.
    gate: Option<GateId>,
    number: usize,
    /// Line from a host to the zone.
    link: Link,
    family: Family,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Family {
    V4,
    Both,
}

/// What went wrong, with what is needed to understand it.
#[derive(Clone, Debug)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Stuck> for Failure {
    fn from(stuck: Stuck) -> Self {
        Self(stuck.0)
    }
}

/// A server and peers, ready to be played with.
pub struct Stage {
    /// The world below, for scenarios that interfere with it.
    pub world: World<Machine>,
    seed: u64,
    server: HostId,
    /// What the next peers register with.
    token: Option<(String, String)>,
    numbers: usize,
    boxes: BTreeMap<u32, (ZoneId, GateId)>,
    firewalled: BTreeSet<ZoneId>,
    players: BTreeMap<String, Player>,
    model: Model,
    failures: Vec<(String, u16, String)>,
}

struct Player {
    host: HostId,
    gate: Option<GateId>,
    number: usize,
    /// How much of what it was told is in the model.
    read: usize,
    /// What was sent, by handle: recipients and text.
    sent: BTreeMap<u64, (Vec<String>, String)>,
}

impl Stage {
    /// A world with a server in it.
    pub fn new(seed: u64) -> Self {
        Self::with_server(seed, ServerSetup::default())
    }

    /// The same with a server that has a second IP.
    pub fn with_second_ip(seed: u64) -> Self {
        let second_ip = SECOND_IP.parse().ok();
        Self::with_server(seed, ServerSetup { second_ip, ..ServerSetup::default() })
    }

    /// The same with a server whose handshakes take this long on another thread.
    pub fn with_handshake_time(seed: u64, handshake_time: Duration) -> Self {
        Self::with_server(seed, ServerSetup { handshake_time, ..ServerSetup::default() })
    }

    /// A world whose server has these networks, each for those with its token. Peers are of the
    /// first one until [`Self::choose_network`] says otherwise.
    pub fn with_networks(seed: u64, names: &[&str]) -> Self {
        let tokens = names.iter().map(|name| token_of(name)).collect();
        Self::with_server(seed, ServerSetup { tokens, ..ServerSetup::default() })
    }

    /// Peers that are added from now on are of this network.
    pub fn choose_network(&mut self, name: &str) {
        self.token = Some(token_of(name));
    }

    pub(super) fn with_server(seed: u64, setup: ServerSetup) -> Self {
        let mut world = World::new(seed);
        let token = setup.tokens.first().cloned();
        let second_ip = setup.second_ip.map(|ip| ip.to_string());
        let server = ServerHost::start(seed ^ 0x5E12, setup, world.clock());
        let machine = Machine::Server(Box::new(server));
        let addresses: Vec<&str> = SERVER.into_iter().chain(second_ip.as_deref()).collect();
        let server = world.add_host("server", ZoneId::INTERNET, &addresses, Link::lan(), machine);
        let (players, model) = (BTreeMap::new(), Model::new());
        Self {
            world,
            seed,
            server,
            token,
            numbers: 0,
            boxes: BTreeMap::new(),
            firewalled: BTreeSet::new(),
            players,
            model,
            failures: Vec::new(),
        }
    }

    // ---- building

    /// Builds a side's way to the internet; boxes of a number that exists already are shared.
    pub fn place(&mut self, side: &Side) -> Site {
        let (mut zone, mut gate) = (ZoneId::INTERNET, None);
        for layer in side.layers.iter().rev() {
            let (inner, nat) = self.box_in(zone, *layer);
            (zone, gate) = (inner, Some(nat));
        }
        let link = if gate.is_some() { Link::lan() } else { Link::new(ACCESS) };
        let family = if side.ipv6 { Family::Both } else { Family::V4 };
        let is_home = zone != ZoneId::INTERNET;
        if family == Family::Both && is_home && self.firewalled.insert(zone) {
            let firewall = FirewallConfig::STRICT;
            self.world.add_firewall(zone, ZoneId::INTERNET, firewall, Link::new(ACCESS));
        }
        Site { zone, gate, number: self.next_number(), link, family }
    }

    /// A public address of its own.
    pub fn public(&mut self) -> Site {
        self.place(&Side::public())
    }

    /// A home behind a box of its own.
    pub fn behind(&mut self, config: NatConfig) -> Site {
        let number = self.next_number() as u32 + OWN_BOX;
        self.place(&Side::behind(number, config))
    }

    /// The box of this number and the zone inside it.
    fn box_in(&mut self, outer: ZoneId, layer: Layer) -> (ZoneId, GateId) {
        if let Some(known) = self.boxes.get(&layer.number) {
            return *known;
        }
        let (inner, number) = (self.world.add_zone(), self.next_number());
        let (external, uplink) = if outer == ZoneId::INTERNET {
            (format!("198.51.100.{number}"), Link::new(ACCESS))
        } else {
            (format!("100.64.0.{number}"), Link::lan())
        };
        let gate = self.world.add_nat(inner, outer, &external, layer.config, uplink);
        self.boxes.insert(layer.number, (inner, gate));
        (inner, gate)
    }

    /// Puts a peer on a new host of a site; it starts to register at once.
    pub fn add_peer(&mut self, name: &str, site: &Site, pickup: Pickup) {
        self.add(name, site, pickup, Exposure::Open);
    }

    /// The same with a peer that hides.
    pub fn add_hidden_peer(&mut self, name: &str, site: &Site) {
        self.add(name, site, Pickup::AtOnce, Exposure::Hidden);
    }

    fn add(&mut self, name: &str, site: &Site, pickup: Pickup, exposure: Exposure) {
        let number = self.players.len();
        let addresses = site.addresses(number);
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        let setup = PeerSetup {
            name: name.to_owned(),
            addresses: parse(&texts),
            port: 40_000 + number as u16,
            server: parse(&SERVER).into_iter().map(|ip| SocketAddr::new(ip, SERVER_PORT)).collect(),
            keepalive: Keepalive::Adaptive,
            pickup,
            token: self.token.clone(),
            exposure,
            seed: self.seed.wrapping_mul(1000) + number as u64,
        };
        let peer = Machine::Peer(Box::new(PeerHost::start(setup, self.world.clock())));
        let host = self.world.add_host(name, site.zone, &texts, site.link.clone(), peer);
        let player = Player { host, gate: site.gate, number, read: 0, sent: BTreeMap::new() };
        self.players.insert(name.to_owned(), player);
    }

    // ---- playing

    /// Waits until every peer has registered.
    ///
    /// # Errors
    /// [`Failure`] when some have not within `limit`.
    pub fn wait_registered(&mut self, limit: Duration) -> Result<(), Failure> {
        let registered = |stage: &Self| stage.names().iter().all(|name| stage.is_registered(name));
        if self.run_until(registered, limit)? {
            return Ok(());
        }
        let late: Vec<_> = self.names().into_iter().filter(|n| !self.is_registered(n)).collect();
        Err(self.failure(&format!("not registered after {limit:?}: {late:?}")))
    }

    /// Sends a text, which must be unique, from one peer to another.
    pub fn send(&mut self, from: &str, to: &str, text: &str) {
        let host = self.host(from);
        let handle = self.world.act(host, |machine, now| peer(machine).send(to, text, now));
        self.model.accepted(from, to, Channel::Private, text);
        self.note_sent(from, handle, vec![to.to_owned()], text);
    }

    /// Sends a text, which must be unique, to everybody; all peers are expected to be present.
    pub fn send_all(&mut self, from: &str, text: &str) {
        let host = self.host(from);
        let handle = self.world.act(host, |machine, now| peer(machine).send_all(text, now));
        let everybody: Vec<_> = self.names().into_iter().filter(|name| name != from).collect();
        for to in &everybody {
            self.model.accepted(from, to, Channel::Everybody, text);
        }
        self.note_sent(from, handle, everybody, text);
    }

    /// Asks for the list and waits for it.
    ///
    /// # Errors
    /// [`Failure`] when it does not come.
    pub fn list(&mut self, from: &str) -> Result<Vec<String>, Failure> {
        let host = self.host(from);
        let handle = self.world.act(host, |machine, now| peer(machine).list(now));
        let found =
            |stage: &Self| stage.told(from).iter().find_map(|(_, seen)| listing(seen, handle));
        self.run_until(|stage| found(stage).is_some(), Duration::from_secs(5))?;
        found(self).ok_or_else(|| self.failure("the list did not come"))
    }

    /// The peer says good bye.
    pub fn leave_peer(&mut self, name: &str) {
        self.world.act(self.host(name), |machine, now| peer(machine).close(now));
    }

    /// The peer's process ends without a word.
    pub fn halt_peer(&mut self, name: &str) {
        self.collect();
        self.model.crashed(name);
        self.world.act(self.host(name), |machine, _| peer(machine).halt());
        if let Some(player) = self.players.get_mut(name) {
            player.sent.clear();
        }
    }

    /// The peer's process begins anew with what it wrote down.
    pub fn restart_peer(&mut self, name: &str) {
        let clock = *self.world.clock();
        self.world.act(self.host(name), |machine, _| peer(machine).restart(&clock));
    }

    /// The same with a text, which must be unique, to send first of all.
    pub fn restart_peer_with(&mut self, name: &str, to: &str, text: &str) {
        let (clock, host) = (*self.world.clock(), self.host(name));
        let restart = |machine: &mut Machine| peer(machine).restart_with(to, text, &clock);
        let handle = self.world.act(host, |machine, _| restart(machine));
        self.model.accepted(name, to, Channel::Private, text);
        self.note_sent(name, handle, vec![to.to_owned()], text);
    }

    /// The server's process ends without a word.
    pub fn halt_server(&mut self) {
        self.act_server(|server, _| server.halt());
    }

    /// The server's process begins anew with its keys.
    pub fn restart_server(&mut self) {
        self.act_server(|server, clock| server.restart(clock));
    }

    /// The peer's host leaves its network for another, and the peer is told its new addresses.
    pub fn roam(&mut self, name: &str, site: &Site) {
        let Some(player) = self.players.get_mut(name) else { return };
        player.gate = site.gate;
        let (host, addresses) = (player.host, site.addresses(player.number));
        let texts: Vec<&str> = addresses.iter().map(String::as_str).collect();
        self.world.relocate(host, site.zone, &texts);
        self.world.set_link(host, site.link.clone());
        let addresses = parse(&texts);
        self.world.act(host, |machine, now| peer(machine).set_addresses(addresses, now));
    }

    /// Changes the line that leads from the peer's home, or place, to the internet.
    pub fn set_line(&mut self, name: &str, link: Link) {
        match self.players.get(name).map(|player| (player.gate, player.host)) {
            Some((Some(gate), _)) => self.world.set_uplink(gate, link),
            Some((None, host)) => self.world.set_link(host, link),
            None => {}
        }
    }

    /// The box nearest to the peer forwards a port to it, and the peer is told.
    pub fn map_port(&mut self, name: &str, port: u16) {
        let Some(Player { host, gate: Some(gate), .. }) = self.players.get(name) else { return };
        let (host, gate) = (*host, *gate);
        let Some(ip) = self.world.nat(gate).map(|nat| nat.external()) else { return };
        let inner = self.world.addresses(host).iter().copied().find(IpAddr::is_ipv4);
        let external = SocketAddr::new(ip, port);
        let own = self.world.act(host, |machine, now| peer(machine).set_mapped(external, now));
        if let (Some(inner), Some(nat)) = (inner, self.world.nat(gate)) {
            nat.forward(port, SocketAddr::new(inner, own));
        }
    }

    /// The peer learns that its network is another one, with the same addresses.
    pub fn change_network(&mut self, name: &str) {
        let host = self.host(name);
        self.world.act(host, |machine, now| peer(machine).network_changed(now));
    }

    /// The box nearest to the peer forgets its mappings.
    pub fn rebind(&mut self, name: &str) {
        if let Some(gate) = self.players.get(name).and_then(|player| player.gate) {
            self.world.rebind(gate);
        }
    }

    /// Runs until `done` holds, looking every few milliseconds. False when `limit` has passed.
    ///
    /// # Errors
    /// [`Failure`] when the world spins.
    pub fn run_until(
        &mut self,
        done: impl Fn(&Self) -> bool,
        limit: Duration,
    ) -> Result<bool, Failure> {
        let end = self.world.clock().now() + limit;
        loop {
            self.collect();
            if done(self) {
                return Ok(true);
            }
            if self.world.clock().now() >= end {
                return Ok(false);
            }
            self.world.run_for(SLICE)?;
        }
    }

    /// Lets time pass and asks the model, so that a violation is seen while its traces are fresh.
    ///
    /// # Errors
    /// [`Failure`] with every violation so far.
    pub fn pass(&mut self, duration: Duration) -> Result<(), Failure> {
        self.run_until(|_| false, duration)?;
        let broken = self.model.check(Phase::Running);
        if broken.is_empty() { Ok(()) } else { Err(self.failure(&broken.join("\n"))) }
    }

    /// Waits until every message that must arrive has its receipt, then asks the model.
    ///
    /// # Errors
    /// [`Failure`] with every violation.
    pub fn finish(&mut self, limit: Duration) -> Result<(), Failure> {
        self.run_until(|stage| stage.model.is_settled(), limit)?;
        let broken = self.model.check(Phase::Quiet);
        if broken.is_empty() { Ok(()) } else { Err(self.failure(&broken.join("\n"))) }
    }

    // ---- looking

    /// The peers' names.
    pub fn names(&self) -> Vec<String> {
        self.players.keys().cloned().collect()
    }

    /// The host of a peer.
    pub fn host(&self, name: &str) -> HostId {
        self.players.get(name).unwrap_or_else(|| panic!("no peer {name:?} on the stage")).host
    }

    /// The server's host.
    pub const fn server(&self) -> HostId {
        self.server
    }

    /// What is known of the messages.
    pub const fn model(&self) -> &Model {
        &self.model
    }

    /// Messages reported as failed: recipient or sender, code, sentence.
    pub fn failures(&self) -> &[(String, u16, String)] {
        &self.failures
    }

    /// What a peer was told.
    pub fn told(&self, name: &str) -> &[(Instant, Seen)] {
        match self.world.actor(self.host(name)) {
            Machine::Peer(peer) => peer.seen(),
            Machine::Server(_) => &[],
        }
    }

    /// What a peer found out about its NAT.
    pub fn nat(&self, name: &str) -> Profile {
        match self.world.actor(self.host(name)) {
            Machine::Peer(peer) => peer.nat(),
            Machine::Server(_) => Profile::default(),
        }
    }

    /// When `to` got this text.
    pub fn arrival(&self, to: &str, text: &str) -> Option<Instant> {
        let is_it = |seen: &Seen| matches!(seen, Seen::Message { text: t, .. } if t == text);
        self.told(to).iter().find(|(_, seen)| is_it(seen)).map(|(at, _)| *at)
    }

    /// A failure with everything that helps to understand it.
    pub fn failure(&self, what: &str) -> Failure {
        let told: Vec<String> = self.names().iter().map(|name| self.account(name)).collect();
        let (told, trace) = (told.join(""), self.world.trace().tail(TRACE_LINES));
        let (clock, deadlines) = (self.world.clock(), self.world.deadlines());
        Failure(format!(
            "{what}\nat {clock}; deadlines: {deadlines}\n{told}last datagrams:\n{trace}"
        ))
    }

    fn account(&self, name: &str) -> String {
        let told = self.told(name);
        let last = told.iter().skip(told.len().saturating_sub(12));
        let line = |(at, seen): &(Instant, Seen)| {
            let at = self.world.clock().since_start(*at).as_secs_f64();
            format!("  {at:.3} {seen:?}\n")
        };
        let links = match self.world.actor(self.host(name)) {
            Machine::Peer(peer) => peer.diagnose().join("\n  "),
            Machine::Server(_) => String::new(),
        };
        format!("{name} was told:\n{}  {links}\n", last.map(line).collect::<String>())
    }

    fn is_registered(&self, name: &str) -> bool {
        self.told(name).iter().any(|(_, seen)| matches!(seen, Seen::Registered { .. }))
    }

    /// Numbers the boxes and places of the stage, for their addresses.
    fn next_number(&mut self) -> usize {
        self.numbers += 1;
        self.numbers
    }

    fn act_server(&mut self, what: impl FnOnce(&mut ServerHost, &Clock)) {
        let clock = *self.world.clock();
        self.world.act(self.server, |machine, _| {
            if let Some(server) = machine.server() {
                what(server, &clock);
            }
        });
    }

    fn note_sent(&mut self, from: &str, handle: u64, to: Vec<String>, text: &str) {
        if let Some(player) = self.players.get_mut(from) {
            player.sent.insert(handle, (to, text.to_owned()));
        }
    }

    /// Takes over into the model what the peers were told since the last time, in order of time.
    fn collect(&mut self) {
        let mut news = Vec::new();
        for (name, player) in &mut self.players {
            let Machine::Peer(peer) = self.world.actor(player.host) else { continue };
            let fresh = &peer.seen()[player.read..];
            news.extend(fresh.iter().map(|(at, seen)| (*at, name.clone(), seen.clone())));
            player.read += fresh.len();
        }
        news.sort_by_key(|(at, ..)| *at);
        for (_, name, seen) in news {
            self.note(&name, seen);
        }
    }

    fn note(&mut self, name: &str, seen: Seen) {
        match seen {
            Seen::Message { from, channel, text } => {
                self.model.delivered(&from, name, channel, &text);
            }
            Seen::Delivered { handle, to, .. } => {
                if let Some((_, text)) = self.sent(name, handle) {
                    self.model.receipted(&to, &text);
                }
            }
            Seen::Failed { handle, to, code, text } => {
                self.failures.push((to.clone().unwrap_or_else(|| name.to_owned()), code, text));
                if let Some((all, text)) = self.sent(name, handle) {
                    let to = to.map_or(all, |one| vec![one]);
                    to.iter().for_each(|to| self.model.given_up(to, &text));
                }
            }
            Seen::Registered { .. }
            | Seen::Spread { .. }
            | Seen::Path { .. }
            | Seen::Listing { .. }
            | Seen::Refused { .. }
            | Seen::Other(_) => {}
        }
    }

    fn sent(&self, name: &str, handle: u64) -> Option<(Vec<String>, String)> {
        self.players.get(name)?.sent.get(&handle).cloned()
    }
}

impl Site {
    /// The box nearest to the site's hosts.
    pub const fn gate(&self) -> Option<GateId> {
        self.gate
    }

    /// Addresses of a host here. Homes share one private network, as homes do.
    fn addresses(&self, host: usize) -> Vec<String> {
        let number = self.number;
        let v4 = if self.zone == ZoneId::INTERNET {
            format!("192.0.2.{number}")
        } else {
            format!("192.168.1.{}", 10 + host)
        };
        match self.family {
            Family::V4 => vec![v4],
            Family::Both => vec![v4, format!("2001:db8:{number}::{}", 10 + host)],
        }
    }
}

fn peer(machine: &mut Machine) -> &mut PeerHost {
    machine.peer().unwrap_or_else(|| panic!("no peer on this host"))
}

fn listing(seen: &Seen, asked: u64) -> Option<Vec<String>> {
    match seen {
        Seen::Listing { handle, names } if *handle == asked => Some(names.clone()),
        Seen::Listing { .. }
        | Seen::Registered { .. }
        | Seen::Delivered { .. }
        | Seen::Spread { .. }
        | Seen::Failed { .. }
        | Seen::Path { .. }
        | Seen::Message { .. }
        | Seen::Refused { .. }
        | Seen::Other(_) => None,
    }
}

/// Id and secret of the token that selects a network.
pub(super) fn token_of(network: &str) -> (String, String) {
    (network.to_owned(), format!("secret of {network}"))
}

fn parse(texts: &[&str]) -> Vec<IpAddr> {
    texts.iter().filter_map(|text| text.parse().ok()).collect()
}
