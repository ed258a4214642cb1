//! The peer machine: registration, sessions to peers, messages until their receipts.
//!
//! ```text
//!   commands ──> outbox ──> PeerLink (one per peer) ──┬─ relay frames ──> server
//!                  │             │        │           └─ direct datagrams ──> peer
//!               directory     Agent   Conversation
//!                  └──────── ServerLink (registration, requests, keepalive)
//! ```
//!
//! The parts do not know each other: each is handed what it needs and answers with notices,
//! which this module translates into calls on other parts and into events.

mod api;
mod binding;
mod commands;
mod core;
mod directory;
mod flight;
mod from_server;
mod introduce;
mod lan;
mod lifetime;
mod neighbours;
mod netcheck;
mod outbox;
mod peer_link;
mod profile;
mod punch;
mod purse;
mod renewal;
mod server_link;
mod spare;
mod streams;
#[cfg(test)]
mod tests;
mod why;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::api::{
    Audience, Command, Config, Deadline, Discovery, Effect, Event, Finality, Guessing, Handle,
    Incoming, Input, Keepalive, Known, LocalSocket, MAPPED_MAX, Mapped, NameKeeping, Output,
    PathView, Recipient, Registration, Scope, SocketUse, StreamHandle, Whoami,
};
use self::binding::OtherFamily;
use self::core::{Core, Owner};
use self::directory::Directory;
use self::lan::Lan;
use self::lifetime::Lifetime;
pub use self::netcheck::{LanSearch, Measuring, Netcheck, Outlook, Way};
use self::outbox::Outbox;
use self::peer_link::{Flushed, Origin, PeerLink, Via};
use self::profile::{Profiler, Target};
use self::punch::Punches;
use self::renewal::{Need, Renewal};
use self::server_link::{Asked, FirstContact, ServerLink, Sight};
use self::spare::Spares;
use self::streams::StreamTable;
pub use self::why::{Party, Reason, Router, Why};
use crate::control::{self, Exposure, Problem, code};
use crate::id::{PeerKey, PeerName, RelayChannel};
use crate::io::{Ecn, Route};
use crate::time::{Timers, UnixClock, earliest};
use crate::transport::SendError;
pub use crate::transport::{Read, StreamError, StreamEvent, stream_code};
use crate::traversal::nat::{Field, Profile};
use crate::wire::{Family, RELAY_HEADER_LEN, RelayHeader};

/// Most peers talked to at a time; the least recently used idle one makes room.
const LINKS_MAX: usize = 1024;
/// A link nobody used for this long is forgotten: not over a night's sleep of a machine.
const LINK_IDLE: Duration = Duration::from_secs(24 * 3600);
/// Relayed datagrams that wait for their introduction; more than a flight is not worth keeping.
const STRAYS_MAX: usize = 16;
/// A stray waits this long.
const STRAY_TTL: Duration = Duration::from_secs(2);
/// How long a good bye waits for receipts to arrive: a few probe timeouts of a bad line.
const SETTLE_MAX: Duration = Duration::from_secs(2);
/// Messages of one peer that are handed over before another one's.
const READS_IN_ROW: u32 = 16;
/// Commands that wait for the list of members.
const WAITING_MAX: usize = 64;

/// One peer: everything but sockets, clock and disk.
pub struct Node {
    core: Core,
    server: ServerLink,
    registered: Option<Registered>,
    registrations: u64,
    first_contact: FirstContact,
    observed: Option<SocketAddr>,
    directory: Directory,
    outbox: Outbox,
    /// Whom the last message went to, by name, unless the server, the LAN or the person said
    /// anything since.
    familiar: Option<(PeerName, PeerKey)>,
    streams: StreamTable,
    links: BTreeMap<PeerKey, PeerLink>,
    channels: BTreeMap<RelayChannel, PeerKey>,
    strays: VecDeque<(Instant, RelayChannel, Vec<u8>)>,
    /// Lookups under way, so that each question is asked once.
    asking: BTreeSet<Recipient>,
    /// Questions that were refused for their rate, and when to ask them again.
    refused: Vec<Asked>,
    ask_again: Option<Instant>,
    /// Messages to everybody that wait until everybody is known.
    waiting_for_list: VecDeque<(Handle, Bytes)>,
    listings: VecDeque<Handle>,
    lan: Lan,
    spares: Spares,
    punches: Punches,
    other_family: OtherFamily,
    profiler: Profiler,
    lifetime: Lifetime,
    renewal: Renewal,
    /// When each link wants to be looked at; right for all links that are not `touched`.
    timers: Timers<PeerKey>,
    /// Links that have something to flush.
    touched: BTreeSet<PeerKey>,
    /// What was handled since the last flush.
    unflushed: Affected,
    /// The earliest deadline of all but links and messages, as of the last whole flush.
    rest_deadline: Deadline,
    /// Whose message was handed over last, and how many of them in a row.
    reader: Option<(PeerKey, u32)>,
    delivery_timeout: Option<Duration>,
    name_keeping: NameKeeping,
    phase: Phase,
    last_now: Instant,
    sweep_at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// No more is taken; the receipts of what was taken are on their way until this moment at
    /// the latest.
    Settling {
        until: Instant,
    },
    Closing {
        copies: u32,
        next: Instant,
    },
    Closed,
}

/// How much of a node has to be looked at: under load messages come and go, and nothing else does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Affected {
    #[default]
    Nothing,
    /// The links that were touched.
    Links,
    Whole,
}

impl Affected {
    fn of(input: &Input<'_>) -> Self {
        let of_links = match input {
            Input::Command(command) => matches!(command, Command::Send { .. }),
            Input::Datagram { data, .. } => {
                matches!(Family::of(data), Family::Data | Family::Relay)
            }
            Input::Announced { .. }
            | Input::Sockets(_)
            | Input::NetworkChanged
            | Input::Mapped(_)
            | Input::Resolved(_)
            | Input::Opened { .. } => false,
        };
        if of_links { Self::Links } else { Self::Whole }
    }
}

/// What the server granted.
struct Registered {
    name: PeerName,
    network: String,
    broadcast_max: u32,
    /// Where else the server answers Binding requests.
    stun: Option<control::StunPorts>,
}

/// What a page of the list is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Purpose {
    /// To mirror the network.
    Mirror,
    /// A person asked.
    Person(Handle),
}

impl Node {
    /// A node that begins to register as soon as it has a name and sockets. The seed decides
    /// every random choice it makes; `unix_now` is the wall clock at `now`.
    pub fn new(config: Config, seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        let clock = UnixClock::new(now, unix_now);
        let server = ServerLink::new(&config);
        let mut core =
            Core::new(config.static_key, config.aes, config.exposure, seed, (now, clock));
        let discovery = match config.exposure {
            Exposure::Open => config.discovery,
            Exposure::Hidden => Discovery::Off,
        };
        let lan = Lan::new(discovery, config.lan_secret, &mut core, now);
        let mut node = Self {
            core,
            server,
            registered: None,
            registrations: 0,
            first_contact: FirstContact::No,
            observed: None,
            directory: Directory::new(config.known),
            outbox: Outbox::default(),
            familiar: None,
            streams: StreamTable::default(),
            links: BTreeMap::new(),
            channels: BTreeMap::new(),
            strays: VecDeque::new(),
            asking: BTreeSet::new(),
            refused: Vec::new(),
            ask_again: None,
            waiting_for_list: VecDeque::new(),
            listings: VecDeque::new(),
            lan,
            spares: Spares::new(now),
            punches: Punches::new(now),
            other_family: OtherFamily::new(now),
            profiler: Profiler::new(now),
            lifetime: Lifetime::new(now),
            renewal: Renewal::new(),
            timers: Timers::default(),
            touched: BTreeSet::new(),
            unflushed: Affected::Nothing,
            rest_deadline: None,
            reader: None,
            delivery_timeout: config.delivery_timeout,
            name_keeping: config.name_keeping,
            phase: Phase::Running,
            last_now: now,
            sweep_at: now + LINK_IDLE / 4,
        };
        node.core.guessing = config.guessing;
        node.core.network = config.network.unwrap_or_default();
        if let Some(name) = config.name {
            node.register(name.as_str().to_owned(), now);
        }
        node
    }

    /// Takes one input. Drain [`Node::poll_output`] afterwards; several datagrams that came
    /// together may be handed over first.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        let now = self.advance(now);
        self.unflushed = self.unflushed.max(Affected::of(&input));
        match input {
            Input::Datagram { route, ecn, data } => self.handle_datagram(route, ecn, data, now),
            Input::Announced { from, data } => self.handle_beacon(from, data, now),
            Input::Sockets(sockets) => self.handle_sockets(sockets, now),
            Input::NetworkChanged => self.network_changed(now),
            Input::Mapped(mapped) => self.handle_mapped(mapped, now),
            Input::Resolved(addresses) => self.handle_resolved(addresses, now),
            Input::Opened { usage, bound } => self.handle_opened(usage, &bound, now),
            Input::Command(command) => self.handle_command(command, now),
        }
    }

    /// What the wall clock shows now: it runs on while a machine sleeps, and people correct it.
    /// Beacons of a clock that is wrong are taken for recorded ones.
    pub fn set_clock(&mut self, unix_now: Duration, now: Instant) {
        self.core.set_clock(UnixClock::new(now, unix_now));
    }

    /// Lets deadlines pass. Late or spurious calls are harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        let now = self.advance(now);
        let mut notices = Vec::new();
        self.server.handle_timeout(&mut notices, &mut self.core, now);
        self.handle_server_notices(notices, now);
        while let Some(key) = self.timers.take_due(now) {
            if let Some(link) = self.links.get_mut(&key) {
                link.handle_timeout(&mut self.core, now);
                self.touched.insert(key);
            }
        }
        self.ask_again(now);
        self.expire_messages(now);
        self.closing_timeout(now);
        if self.sweep_at <= now {
            self.sweep_at = now + LINK_IDLE / 4;
            self.sweep_links(now);
        }
        self.unflushed = Affected::Whole;
    }

    /// The next thing to do. Call until `None` after whatever changes the node, or after a batch
    /// of such calls: what they call forth then shares packets.
    #[must_use]
    pub fn poll_output(&mut self) -> Option<Output> {
        while self.core.outputs.is_empty() {
            match std::mem::take(&mut self.unflushed) {
                Affected::Nothing => return None,
                Affected::Links if self.phase == Phase::Running => self.flush_links(self.last_now),
                Affected::Links | Affected::Whole => self.flush(self.last_now),
            }
        }
        self.core.outputs.pop_front()
    }

    /// Takes back the payload of a datagram that left, to be written again.
    pub fn recycle(&mut self, payload: Vec<u8>) {
        self.core.recycle(payload);
    }

    /// The earliest deadline and its name.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        debug_assert_eq!(self.rest_deadline, self.find_rest_deadline());
        if self.phase == Phase::Closed {
            return None;
        }
        let delivery = self.outbox.next_deadline().map(|at| (at, "delivery"));
        earliest(earliest(self.rest_deadline, self.timers.earliest()), delivery)
    }

    fn find_rest_deadline(&self) -> Deadline {
        let mut next = self.server.poll_timeout();
        next = earliest(next, self.ask_again.map(|at| (at, "ask again")));
        next = earliest(next, self.spares.poll_timeout());
        next = earliest(next, self.lan.next_beacon().map(|at| (at, "beacon")));
        let other = self.server.other_family(&self.core);
        next = earliest(next, self.other_family.poll_timeout(other));
        next = earliest(next, self.profiler.poll_timeout());
        next = earliest(next, self.lifetime.poll_timeout());
        next = earliest(next, self.renewal.poll_timeout());
        if !self.links.is_empty() {
            next = earliest(next, Some((self.sweep_at, "idle links")));
        }
        match self.phase {
            Phase::Settling { until } => earliest(next, Some((until, "settling"))),
            Phase::Closing { next: at, .. } => earliest(next, Some((at, "closing"))),
            Phase::Running | Phase::Closed => next,
        }
    }

    /// The next message; taking it is what its receipt certifies. Take only what there is room
    /// for: what stays here slows down its own channel alone. None are handed out after
    /// [`Command::Close`].
    pub fn poll_message(&mut self, now: Instant) -> Option<Incoming> {
        let now = self.advance(now);
        if self.phase != Phase::Running {
            return None;
        }
        let (key, in_row) = self.next_readable()?;
        let link = self.links.get_mut(&key)?;
        let message = link.poll_message(now)?;
        let incoming = Incoming {
            from: link.name.clone(),
            key,
            audience: match message.channel {
                channel if channel == Audience::Everybody.channel() => Audience::Everybody,
                _ => Audience::Private,
            },
            id: (link.remote_epoch(), message.channel, message.sequence),
            payload: message.payload,
        };
        self.reader = Some((key, in_row));
        self.touched.insert(key);
        self.unflushed = self.unflushed.max(Affected::Links);
        Some(incoming)
    }

    /// The path to a peer, what was tried, and why it is the one.
    pub fn why(&self, name: &PeerName) -> Option<Why> {
        let link = self.links.values().find(|link| link.name == *name);
        link.map(|link| link.why(&self.core))
    }

    /// Who this peer is, to itself and to the server.
    pub fn whoami(&self) -> Whoami {
        let registered = self.registered.as_ref();
        let wanted = || self.server.wanted().and_then(|wanted| wanted.name.parse().ok());
        Whoami {
            name: registered.map(|registered| registered.name.clone()).or_else(wanted),
            key: self.core.own,
            observed: self.observed,
            mapped: self.core.mapped().collect(),
            network: registered.map(|registered| registered.network.clone()),
            server: self.server.display.clone(),
            server_key: self.server.key,
            registered: registered.is_some(),
        }
    }

    /// What this host's network allows, as far as it is known by now.
    pub fn netcheck(&self) -> Netcheck {
        let nat = self.core.nat;
        let measuring = match self.profile_target() {
            _ if nat != Profile::default() => Measuring::Done,
            Some(_) => Measuring::UnderWay,
            None => Measuring::Impossible,
        };
        Netcheck {
            server: self.server.display.clone(),
            registered: self.registered.is_some() && self.server.is_answering(),
            ways: self.ways().collect(),
            mapped: self.core.mapped().collect(),
            nat,
            measuring,
            lan: self.lan.search(),
            exposure: self.core.exposure,
        }
    }

    /// The ways on which the server answers.
    fn ways(&self) -> impl Iterator<Item = Way> {
        let session = self.via().map(|via| (via.route, self.server.rtt()));
        let other = self.server.other_family(&self.core);
        let other = other.map(|route| (route, self.other_family.rtt()));
        session.into_iter().chain(other).filter_map(|(route, rtt)| {
            let observed = self.core.observed_at(route.local)?;
            Some(Way { server: route.remote, observed, rtt })
        })
    }

    /// Nothing waits for a receipt.
    pub fn is_idle(&self) -> bool {
        self.outbox.is_empty() && self.waiting_for_list.is_empty()
    }

    /// One line for each peer talked to, for logs and failing simulations.
    pub fn diagnose(&self) -> Vec<String> {
        let line = |link: &PeerLink| {
            format!("{} waiting {:?}", link.diagnose(), self.outbox.waiting_for(link.key).len())
        };
        let mut lines: Vec<String> = self.links.values().map(line).collect();
        lines.push(format!("unresolved {:?}", self.outbox.unresolved().len()));
        lines
    }

    /// Present peers, as far as the server told.
    pub fn members(&self) -> impl Iterator<Item = &control::Member> {
        self.directory.members()
    }

    fn handle_opened(&mut self, usage: SocketUse, bound: &[SocketAddr], now: Instant) {
        match usage {
            SocketUse::Spare => {
                let server = self.server_v4();
                self.spares.opened(bound.first().copied(), server, &mut self.core, now);
            }
            SocketUse::Measure => self.profiler.opened(bound, &mut self.core, now),
            SocketUse::Lifetime => self.lifetime.opened(bound, &mut self.core, now),
            SocketUse::Guess => self.opened_for_punch(bound, now),
            SocketUse::Renewal => {
                let server = self.server_v4();
                self.renewal.opened(bound.first().copied(), server, &mut self.core, now);
            }
        }
    }

    /// Time never runs backwards here.
    fn advance(&mut self, now: Instant) -> Instant {
        self.last_now = self.last_now.max(now);
        self.last_now
    }

    /// In turn over the peers, some messages each.
    fn next_readable(&self) -> Option<(PeerKey, u32)> {
        let ready = |(key, link): (&PeerKey, &PeerLink)| link.has_message().then_some((*key, 1));
        let after = self.reader.and_then(|(last, in_row)| {
            let again = in_row < READS_IN_ROW && self.links.get(&last)?.has_message();
            let rest = (std::ops::Bound::Excluded(last), std::ops::Bound::Unbounded);
            again.then_some((last, in_row + 1)).or_else(|| self.links.range(rest).find_map(ready))
        });
        after.or_else(|| self.links.iter().find_map(ready))
    }

    // ---- datagrams

    fn handle_datagram(&mut self, route: Route, ecn: Ecn, data: &mut [u8], now: Instant) {
        match Family::of(data) {
            Family::Relay => self.handle_relayed(route, data, now),
            Family::Stun => self.handle_stun(route, data, now),
            Family::HandshakeInit => {
                // Direct inits come from peers that were introduced; the key inside tells whose.
                self.handle_direct_init(route, data, now);
            }
            Family::HandshakeReply | Family::Data => {
                let owner = peer_link::addressed_to(data).and_then(|id| self.core.owner_of(id));
                match owner {
                    Some(Owner::Server) => self.handle_from_server(route, data, now),
                    Some(Owner::Peer(key)) => {
                        self.handle_from_peer(key, Origin::Direct(route, ecn), data, now);
                    }
                    None => {}
                }
            }
            Family::Retry | Family::Reset | Family::Stale | Family::Versions => {
                self.handle_from_server(route, data, now);
            }
            Family::Beacon => self.handle_beacon(route.remote, data, now),
            Family::HandshakeFinish | Family::Other => {}
        }
    }

    fn handle_from_server(&mut self, route: Route, data: &mut [u8], now: Instant) {
        self.unflushed = Affected::Whole;
        let mut notices = Vec::new();
        self.server.handle_datagram(route, data, &mut notices, &mut self.core, now);
        self.handle_server_notices(notices, now);
    }

    fn handle_from_peer(&mut self, key: PeerKey, origin: Origin, data: &mut [u8], now: Instant) {
        let via = self.via();
        if let Some(link) = self.links.get_mut(&key) {
            link.handle_datagram(origin, data, via, &mut self.core, now);
            self.touched.insert(key);
        }
    }

    fn handle_relayed(&mut self, route: Route, data: &mut [u8], now: Instant) {
        let Ok((header, _)) = RelayHeader::decode(data) else { return };
        let ours = |up: &server_link::Up| up.token == header.token && up.route == route;
        if !self.server.up().is_some_and(ours) {
            return;
        }
        let inner = &mut data[RELAY_HEADER_LEN..];
        match self.channels.get(&header.channel) {
            Some(key) => self.handle_from_peer(*key, Origin::Relay, inner, now),
            None => self.keep_stray(header.channel, inner, now),
        }
    }

    /// The introduction may be a moment behind the first relayed datagram.
    fn keep_stray(&mut self, channel: RelayChannel, datagram: &[u8], now: Instant) {
        self.strays.retain(|(at, ..)| now.saturating_duration_since(*at) < STRAY_TTL);
        if self.strays.len() < STRAYS_MAX {
            self.strays.push_back((now, channel, datagram.to_vec()));
        }
    }

    fn replay_strays(&mut self, channel: RelayChannel, key: PeerKey, now: Instant) {
        let (ours, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.strays).into_iter().partition(|(_, of, _)| *of == channel);
        self.strays = rest;
        for (_, _, mut datagram) in ours {
            self.handle_from_peer(key, Origin::Relay, &mut datagram, now);
        }
    }

    fn handle_direct_init(&mut self, route: Route, data: &mut [u8], now: Instant) {
        let met = self.links.iter().find(|(_, link)| link.has_met_on(route));
        if let Some(key) = met.map(|(key, _)| *key) {
            self.handle_from_peer(key, Origin::Direct(route, Ecn::NotEct), data, now);
        }
    }

    /// A check carries the tag of its pair; each agent knows its own.
    fn handle_stun(&mut self, route: Route, data: &[u8], now: Instant) {
        if self.profiler.handle(route, data) || self.lifetime.handle(route, data) {
            return;
        }
        if let Some(ready) = self.spares.measured(route, data) {
            return self.offer_spare(&ready, now);
        }
        if self.renewal.measured(route, data, &mut self.core) {
            return self.candidates_changed(now);
        }
        if let Some((bound, observed)) = self.other_family.answer(route, data, now) {
            self.renewal.seen(bound, observed, now);
            if self.core.note_observed(bound, observed) {
                self.candidates_changed(now);
            }
            return;
        }
        if self.measured_for_punch(route, data, now) {
            return;
        }
        for (key, link) in &mut self.links {
            if link.handle_check(route, data, now) {
                self.touched.insert(*key);
                return;
            }
        }
        self.handle_check_on_lan(route, data, now);
    }

    /// The server's IPv4 address, whichever family the session uses.
    fn server_v4(&self) -> Option<SocketAddr> {
        self.route_v4().map(|route| route.remote)
    }

    fn route_v4(&self) -> Option<Route> {
        let session = self.via().map(|via| via.route);
        let mut routes = session.into_iter().chain(self.server.other_family(&self.core));
        routes.find(|route| route.remote.is_ipv4())
    }

    /// Where to ask about our NAT: known while registered with a server that has two ports. Who
    /// hides has no use for it.
    fn profile_target(&self) -> Option<Target> {
        if self.core.exposure == Exposure::Hidden {
            return None;
        }
        let stun = self.registered.as_ref()?.stun?;
        let main = self.route_v4().filter(|_| self.phase == Phase::Running)?;
        let other = |ip: &IpAddr| ip.is_ipv4() && *ip != main.remote.ip();
        Some(Target { main, alt_port: stun.alt_port, alt_ip: stun.alt_ip.filter(other) })
    }

    /// Goes on finding out about our NAT.
    fn profile(&mut self, now: Instant) {
        let target = self.profile_target();
        if let Some(nat) = self.profiler.advance(target, &mut self.core, now) {
            self.learn(nat);
        }
        let main = target.map(|target| target.main);
        let main = main.filter(|_| self.core.nat.mapping != Field::Unknown);
        if let Some(lifetime) = self.lifetime.advance(main, &mut self.core, now) {
            self.learn(Profile { lifetime, ..self.core.nat });
        }
        if self.server.follow(self.core.nat.lifetime) && self.registered.is_some() {
            self.server.refresh(now);
        }
    }

    fn learn(&mut self, nat: Profile) {
        if self.core.nat != nat {
            self.core.nat = nat;
            self.core.event(Event::Nat(nat));
            self.touched.extend(self.links.keys());
        }
    }

    /// What is known of our NAT.
    pub fn nat(&self) -> Profile {
        self.core.nat
    }

    fn via(&self) -> Option<Via> {
        self.server.up().map(|up| Via { route: up.route, token: up.token })
    }

    // ---- sockets and addresses

    fn handle_sockets(&mut self, sockets: Vec<LocalSocket>, now: Instant) {
        let first = self.core.sockets.is_empty();
        if self.core.sockets == sockets {
            return;
        }
        self.core.sockets = sockets;
        self.candidates_changed(now);
        if first {
            return self.server.begin(&mut self.core, now);
        }
        self.network_changed(now);
    }

    /// The network changed under us: shows the server and the peers where we are now.
    fn network_changed(&mut self, now: Instant) {
        self.server.network_changed(&mut self.core, now);
        self.other_family.restart(now);
        self.lan.restart();
        self.profiler.restart(&mut self.core, now);
        self.lifetime.restart(&mut self.core, now);
        self.renewal.restart(&mut self.core);
        for (key, link) in &mut self.links {
            link.restart(now);
            self.touched.insert(*key);
        }
    }

    fn handle_mapped(&mut self, mapped: Vec<Mapped>, now: Instant) {
        if self.core.set_mapped(mapped) {
            self.candidates_changed(now);
        }
    }

    fn candidates_changed(&mut self, now: Instant) {
        self.server.set_candidates(self.core.told_candidates());
        if self.registered.is_some() {
            self.server.tell_candidates(now);
        }
        for (key, link) in &mut self.links {
            link.set_local(&self.core, now);
            self.touched.insert(*key);
        }
    }

    fn observed(&mut self, address: SocketAddr, now: Instant) {
        let Some(up) = self.server.up() else { return };
        self.core.note_observed(up.route.local, address);
        self.renewal.seen(up.route.local, address, now);
        let old = self.observed.replace(address);
        if old == Some(address) {
            return self.server.seen(Sight::Same);
        }
        if old.is_some() && self.registered.is_some() {
            self.server.seen(Sight::Moved);
            self.core.event(Event::Observed(address));
            self.profiler.restart(&mut self.core, now);
            self.lifetime.restart(&mut self.core, now);
        }
        self.candidates_changed(now);
    }

    fn handle_resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        let opens = if self.server.can_offer_early() { self.early_opens(now) } else { Vec::new() };
        self.server.handle_resolved(addresses, opens, &mut self.core, now);
    }

    // ---- flushing

    /// Drains the parts until nothing moves.
    fn flush(&mut self, now: Instant) {
        self.settle(now);
        self.profile(now);
        self.flush_links(now);
        while self.grant_punch(now) {
            self.flush_links(now);
        }
        let server = self.server_v4();
        self.spares.advance(server, &mut self.core, now);
        self.renew(now);
        let other = self.server.other_family(&self.core);
        self.other_family.advance(other, &mut self.core, now);
        let name = self.announced_name();
        self.lan.advance(name, &mut self.core, now);
        self.server.flush(&mut self.core, now);
        self.rest_deadline = self.find_rest_deadline();
    }

    /// Where mappings end at a certain age, paths move to a fresh socket before.
    fn renew(&mut self, now: Instant) {
        let server = self.server_v4();
        let need = || match self.links.values().any(PeerLink::depends_on_mapping) {
            true => Need::Paths,
            false => Need::Nothing,
        };
        if self.renewal.advance(need, server, &mut self.core, now) {
            self.candidates_changed(now);
            self.flush_links(now);
        }
    }

    /// Looks only at links that were touched. What does not leave in one go stays for the next flush.
    fn flush_links(&mut self, now: Instant) {
        let mut unfinished = BTreeSet::new();
        while let Some(key) = self.touched.pop_first() {
            let via = self.via();
            let mut notices = Vec::new();
            self.meet_if_near(key, now);
            if let Some(link) = self.links.get_mut(&key) {
                let is_present = || {
                    self.directory.member(&link.name).is_some()
                        || self.lan.neighbour(&key, now).is_some()
                };
                if link.wants_session() && is_present() {
                    link.connect(&mut self.core, now);
                }
                if link.flush(via, &mut notices, &mut self.core, now) == Flushed::Train {
                    unfinished.insert(key);
                }
            }
            self.timers.set(key, self.links.get(&key).and_then(PeerLink::poll_timeout));
            for notice in notices {
                self.handle_link_notice(key, notice, now);
            }
        }
        if !unfinished.is_empty() {
            self.unflushed = self.unflushed.max(Affected::Links);
        }
        // What the set has for its keys stays.
        self.touched.extend(unfinished);
    }

    fn handle_link_notice(&mut self, key: PeerKey, notice: peer_link::Notice, now: Instant) {
        if !notice.is_ordinary() {
            self.unflushed = Affected::Whole;
        }
        match notice {
            peer_link::Notice::Unusual => {}
            peer_link::Notice::Delivered { channel, below, path } => {
                let Some(link) = self.links.get(&key) else { return };
                self.outbox.settle(key, channel, below, |ticket| {
                    let (handle, to) = (ticket.handle, link.name.clone());
                    self.core.event(Event::Delivered { handle, to, path });
                });
            }
            peer_link::Notice::Readable => {
                // Whoever takes what comes with a datagram at once has it by now.
                if self.links.get(&key).is_some_and(PeerLink::has_message) {
                    self.core.event(Event::Readable);
                }
            }
            peer_link::Notice::Writable => self.send_backlog(key, now),
            peer_link::Notice::Stream(stream, event) => {
                self.handle_stream_event(key, stream, event);
            }
            peer_link::Notice::Datagram(payload) => self.handle_datagram_of(key, payload),
            peer_link::Notice::Closed => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.drop_session(&mut self.core, now);
                    self.touched.insert(key);
                }
            }
            peer_link::Notice::Path(path) => {
                if let Some(name) = self.links.get(&key).map(|link| link.name.clone()) {
                    self.core.event(Event::Path { name, path });
                }
            }
            peer_link::Notice::Open { datagram } => self.open(key, datagram, now),
            peer_link::Notice::Reintroduce => self.reintroduce(key, now),
            peer_link::Notice::Spare { nth } => self.spares.want(key, nth),
            peer_link::Notice::Punch => self.punches.want(key),
        }
    }
}

fn refused_send(error: SendError) -> Problem {
    let code = match error {
        SendError::TooLong => code::TOO_LARGE,
        SendError::Full | SendError::NoChannel => code::TOO_MANY,
    };
    Problem { code, text: error.to_string() }
}
