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
mod arrival;
mod binding;
mod commands;
mod core;
mod directory;
mod flight;
mod flush;
mod from_server;
mod introduce;
mod lan;
mod lifetime;
mod neighbours;
mod netcheck;
mod network;
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
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;

pub use self::api::{
    Audience, Command, Config, Deadline, Discovery, Effect, Event, Finality, Guessing, Handle,
    Incoming, Input, Keepalive, Known, LocalSocket, MAPPED_MAX, Mapped, NameKeeping, Output,
    PathView, Recipient, Registration, Scope, SocketUse, StreamHandle, Whoami,
};
use self::binding::OtherFamily;
use self::core::Core;
use self::directory::Directory;
use self::lan::Lan;
use self::lifetime::Lifetime;
pub use self::netcheck::{LanSearch, Measuring, Netcheck, Outlook, Way};
use self::outbox::Outbox;
use self::peer_link::PeerLink;
use self::profile::Profiler;
use self::punch::Punches;
use self::renewal::Renewal;
use self::server_link::{Asked, FirstContact, ServerLink};
use self::spare::Spares;
use self::streams::StreamTable;
pub use self::why::{Party, Reason, Router, Why};
use crate::control::{self, Exposure, Problem, code};
use crate::id::{PeerKey, PeerName, RelayChannel};
use crate::time::{Timers, UnixClock, earliest};
use crate::transport::SendError;
pub use crate::transport::{Read, StreamError, StreamEvent, stream_code};
use crate::traversal::nat::Profile;
use crate::wire::Family;

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
}

fn refused_send(error: SendError) -> Problem {
    let code = match error {
        SendError::TooLong => code::TOO_LARGE,
        SendError::Full | SendError::NoChannel => code::TOO_MANY,
    };
    Problem { code, text: error.to_string() }
}
