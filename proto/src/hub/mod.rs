//! The rendezvous machine.
//!
//! Three parts. [`Fast`] is what each socket worker decides alone about a datagram: STUN, relay,
//! cookies, garbage. [`Routes`] is the table that workers and hub share. [`Hub`] owns everything
//! else: sessions, names, introductions. Worker verdicts [`Verdict::Live`] and [`Verdict::Rest`]
//! lead to the hub by two bounded queues.

mod counters;
mod fast;
mod handshakes;
mod introduce;
mod limits;
mod operator;
mod packets;
mod presence;
mod registration;
mod registry;
mod relay;
mod requests;
mod routes;
mod sessions;
mod slots;
mod sources;
mod tokens;

#[cfg(test)]
mod tests;

pub use counters::Counters;
pub use fast::{Fast, Verdict};
pub use handshakes::{HandshakeDone, HandshakeJob};
pub use limits::Limits;
pub use operator::{OperatorError, Present, Status};
pub use routes::Routes;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use crate::id::{Boot, PeerKey, PeerName, Token};
use crate::io::{Route, Transmit};
use crate::session::StaticKey;
use crate::time::{UnixClock, earliest};
use crate::wire::stun::Places;
use crate::wire::{self, Family};
use handshakes::Handshakes;
use operator::Broadcast;
use registry::Network;
use relay::Relay;
use routes::Secrets;
use sessions::Sessions;

/// Longest text between the operator and a peer, in bytes.
pub const NOTICE_LEN_MAX: usize = 4096;
/// Id of a reply that answers no request: why an OPEN led nowhere. Requests count from 1.
pub const NOT_A_REQUEST: u32 = 0;

/// How often what is too old is thrown away.
const SWEEP_EVERY: Duration = Duration::from_secs(5);
/// Sessions looked at in one go; more are left for the next, at once.
const LOOKS_MAX: usize = 1024;

/// An access token as the operator writes it, `id.secret`, and the network it selects.
#[derive(Clone)]
pub struct AccessToken {
    /// The public part.
    pub id: String,
    /// The part that is never sent.
    pub secret: String,
    /// The network's name.
    pub network: String,
}

/// What a hub is and how it behaves.
#[derive(Clone)]
pub struct Config {
    /// Who the server is.
    pub static_key: StaticKey,
    /// Kept on disk beside the static key, so that resets survive a restart.
    pub reset_key: [u8; 32],
    /// Empty: one open network.
    pub tokens: Vec<AccessToken>,
    /// A peer silent for this many of its own keepalive intervals is gone.
    pub expire_intervals: u32,
    /// Most members that a peer's message to everybody may have; told at registration.
    pub broadcast_max: u32,
    /// Whether the machine has AES hardware.
    pub aes: bool,
    /// From where STUN answers can leave.
    pub places: Places,
    /// Every other bound.
    pub limits: Limits,
}

/// What a hub takes in.
pub enum Input<'a> {
    /// What `Fast` judged to be for the hub.
    Datagram {
        /// Where it came from, and the address it was sent to.
        route: Route,
        /// The UDP payload; opened in place.
        data: &'a mut [u8],
    },
    /// The result of `Effect::Handshake`.
    HandshakeDone(HandshakeDone),
}

/// What a hub gives out.
pub enum Output {
    /// Send it.
    Transmit(Transmit),
    /// For the operator.
    Event(Event),
    /// Do it.
    Effect(Effect),
}

/// Work for the shell.
pub enum Effect {
    /// Work for another thread: call `run` and give the result back.
    Handshake(HandshakeJob),
}

/// For the operator's log and console.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A peer registered.
    Joined {
        /// Its name.
        name: PeerName,
        /// Its key.
        key: PeerKey,
        /// Where it is seen.
        address: SocketAddr,
        /// The network's name.
        network: String,
    },
    /// A peer is gone.
    Left {
        /// Its name.
        name: PeerName,
        /// Its key.
        key: PeerKey,
        /// Where it was seen.
        address: SocketAddr,
        /// The network's name.
        network: String,
        /// Why.
        reason: crate::control::LeaveReason,
    },
    /// A peer took another name.
    Renamed {
        /// The old one.
        from: PeerName,
        /// The new one.
        to: PeerName,
        /// The network's name.
        network: String,
    },
    /// A peer is seen at another address, which it proved.
    Moved {
        /// Its name.
        name: PeerName,
        /// The old address.
        from: SocketAddr,
        /// The new address.
        to: SocketAddr,
    },
    /// A registration was refused.
    Refused {
        /// The name asked for, as typed.
        name: String,
        /// Who asked.
        address: SocketAddr,
        /// One of [`crate::control::code`].
        code: u16,
        /// What the peer was told.
        text: String,
    },
    /// A peer's line to the operator.
    Notice {
        /// Whose.
        from: PeerName,
        /// The line.
        text: String,
    },
}

/// The rendezvous machine.
pub struct Hub {
    config: Config,
    routes: Arc<Routes>,
    rng: ChaCha12Rng,
    clock: UnixClock,
    start: Instant,
    boot: Boot,
    sessions: Sessions,
    /// Fixed at start; members name theirs by index.
    networks: Vec<Network>,
    relay: Relay,
    handshakes: Handshakes,
    out: VecDeque<Output>,
    /// Sessions that may have something to send.
    dirty: VecDeque<Token>,
    /// Networks with changes to tell, and when.
    presence_due: BTreeMap<usize, Instant>,
    broadcasts: VecDeque<Broadcast>,
    broadcast_due: Option<Instant>,
    sweep_at: Instant,
}

impl Hub {
    /// A server as of `now`; all chance comes from `seed`.
    pub fn new(config: Config, seed: [u8; 32], now: Instant, unix_now: Duration) -> Self {
        let mut rng = ChaCha12Rng::from_seed(seed);
        let boot = Boot(rng.next_u64() | 1);
        let mut cookie_seed = [0; 32];
        rng.fill_bytes(&mut cookie_seed);
        let secrets = Secrets { cookie_seed, source_keys: (rng.next_u64(), rng.next_u64()) };
        let routes = Routes::new(&config, secrets, now);
        Self {
            networks: networks(&config),
            config,
            routes: Arc::new(routes),
            rng,
            clock: UnixClock::new(now, unix_now),
            start: now,
            boot,
            sessions: Sessions::default(),
            relay: Relay::default(),
            handshakes: Handshakes::default(),
            out: VecDeque::new(),
            dirty: VecDeque::new(),
            presence_due: BTreeMap::new(),
            broadcasts: VecDeque::new(),
            broadcast_due: None,
            sweep_at: now + SWEEP_EVERY,
        }
    }

    /// The table to share with the workers.
    pub fn routes(&self) -> Arc<Routes> {
        Arc::clone(&self.routes)
    }

    /// The server's public key.
    pub fn key(&self) -> PeerKey {
        self.routes.key
    }

    /// Takes something in; drain [`Hub::poll_output`] afterwards.
    pub fn handle_input(&mut self, input: Input<'_>, now: Instant) {
        match input {
            Input::Datagram { route, data } => self.handle_datagram(route, data, now),
            Input::HandshakeDone(done) => self.handle_done(done, now),
        }
        self.settle(now);
    }

    fn handle_datagram(&mut self, route: Route, data: &mut [u8], now: Instant) {
        match (Family::of(data), wire::token_of(data)) {
            (Family::HandshakeInit, _) => self.handle_init(route, data),
            (Family::HandshakeFinish, Ok(token)) => self.handle_finish(token, route, data),
            (Family::Data, Ok(token)) => self.handle_data(token, route, data, now),
            _ => self.routes.count(counters::Count::DroppedOther),
        }
    }

    /// Lets deadlines pass; drain [`Hub::poll_output`] afterwards.
    pub fn handle_timeout(&mut self, now: Instant) {
        for _ in 0..LOOKS_MAX {
            let Some(token) = self.sessions.take_due(now) else { break };
            self.look(token, now);
        }
        let due = |(network, at): (&usize, &Instant)| (*at <= now).then_some(*network);
        let networks: Vec<_> = self.presence_due.iter().filter_map(due).collect();
        for network in networks {
            self.tell(network, now);
        }
        self.go_on_broadcasting(now);
        let at = self.moment(now);
        self.relay.expire(&self.routes.slots, at);
        if now >= self.sweep_at {
            self.sweep_at = now + SWEEP_EVERY;
            self.handshakes.forget(now);
            self.routes.sources.sweep(self.routes.now_ns(now));
        }
        self.settle(now);
    }

    /// What there is to do; call until `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.out.pop_front()
    }

    /// The earliest deadline and its name.
    pub fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        let presence = self.presence_due.values().min().map(|at| (*at, "presence"));
        [
            self.sessions.next_wake().map(|at| (at, "session")),
            presence,
            self.broadcast_due.map(|at| (at, "broadcast")),
            self.relay.next_deadline().map(|at| (at, "relay channel")),
        ]
        .into_iter()
        .fold(Some((self.sweep_at, "sweep")), earliest)
    }

    fn draw_seed(&mut self) -> [u8; 32] {
        let mut seed = [0; 32];
        self.rng.fill_bytes(&mut seed);
        seed
    }
}

/// The networks that tokens select, each once, in order of name.
fn networks(config: &Config) -> Vec<Network> {
    let mut names: BTreeSet<&str> = BTreeSet::new();
    names.extend(config.tokens.iter().map(|token| token.network.as_str()));
    if names.is_empty() {
        names.insert(tokens::OPEN_NETWORK);
    }
    names.into_iter().map(|name| Network::new(name.to_owned())).collect()
}
