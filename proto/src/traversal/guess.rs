//! Checks on routes that are no pairs yet: *openers* from fresh sockets, which make mappings at
//! the own NAT, and *probes* of ports that the other NAT may have mapped (SPEC section 9.10).
//!
//! Both are ordinary checks. A request that arrives on a fresh socket, or a response from a
//! probed port, makes a peer-reflexive pair, with which all goes on as usual.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng as _;
use rand::seq::SliceRandom as _;

use super::checks::{Purpose, Transaction};
use super::{Agent, candidate};
use crate::io::{Route, Transmit};
use crate::time::earliest;
use crate::wire::frame::OpenPorts;

/// Windows of at most this many ports are probed in order and in whole.
pub(crate) const WINDOW_MAX: u16 = 64;
/// Probes of one punch at most; `plan` has the chances.
pub(crate) const PROBES_MAX: usize = 1750;
/// Times that a window is gone through: a lost probe costs no round.
const SWEEPS: usize = 3;
/// Between two handfuls of probes.
const TICK: Duration = Duration::from_millis(4);
/// Probes in a handful grow by one with this time: from 250 a second...
const RAMP: Duration = Duration::from_millis(100);
/// ...to 1000, which home routers bear.
const HANDFUL_MAX: usize = 4;
/// Ports below are not handed out by NATs and belong to somebody.
pub(crate) const PORT_MIN: u16 = 1024;
/// Openers that are sent again leave again so often...
const REPEATS: u32 = 3;
/// ...first after this, then after twice as long each time: by the first repeat the other side
/// has begun, too.
const REPEAT_GAP: Duration = Duration::from_millis(100);

/// How openers leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Openers {
    /// Once: the other side probes.
    Once,
    /// A few times, later ones with the system's time to live: the other side opens as well, and
    /// they are to arrive.
    Repeated,
}

/// What was spent on guessing, for people.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Guessed {
    /// Sockets that sent openers.
    pub opened: u32,
    /// Probes sent.
    pub probed: u32,
}

/// What is under way. Between two punches all but the tally is empty.
#[derive(Default)]
pub(super) struct Guess {
    /// Fresh sockets, on which requests are heard.
    sockets: BTreeSet<SocketAddr>,
    /// Openers and probes that may be answered: at most [`PROBES_MAX`] and the openers.
    sent: BTreeMap<Transaction, (Route, Instant)>,
    repeats: Option<Repeats>,
    probing: Option<Probing>,
    guessed: Guessed,
}

struct Repeats {
    routes: Vec<Route>,
    next: Instant,
    gap: Duration,
    left: u32,
}

struct Probing {
    routes: VecDeque<Route>,
    since: Instant,
    next: Instant,
}

impl Guess {
    pub(super) fn has_socket(&self, bound: SocketAddr) -> bool {
        self.sockets.contains(&bound)
    }

    pub(super) const fn guessed(&self) -> Guessed {
        self.guessed
    }

    pub(super) fn deadline(&self) -> Option<(Instant, &'static str)> {
        let probing = self.probing.as_ref().map(|probing| (probing.next, "probes"));
        earliest(probing, self.repeats.as_ref().map(|repeats| (repeats.next, "openers")))
    }

    /// An authentic message came from this address: what is being looked for is found.
    pub(super) fn hear(&mut self, remote: SocketAddr) {
        let is_hit = |probing: &mut Probing| {
            probing.routes.front().is_some_and(|route| route.remote.ip() == remote.ip())
        };
        self.probing.take_if(is_hit);
    }

    /// When the opener or probe left that this response answers.
    fn take_sent(&mut self, route: Route, transaction: Transaction) -> Option<Instant> {
        let (_, at) = *self.sent.get(&transaction).filter(|(of, _)| *of == route)?;
        self.sent.remove(&transaction);
        Some(at)
    }

    fn take_repeat(&mut self, now: Instant) -> Vec<Route> {
        let Some(repeats) = self.repeats.as_mut().filter(|repeats| repeats.next <= now) else {
            return Vec::new();
        };
        repeats.left -= 1;
        repeats.gap *= 2;
        repeats.next = now + repeats.gap;
        let routes = repeats.routes.clone();
        self.repeats.take_if(|repeats| repeats.left == 0);
        routes
    }

    fn take_probes(&mut self, now: Instant) -> Vec<Route> {
        let Some(probing) = self.probing.as_mut().filter(|probing| probing.next <= now) else {
            return Vec::new();
        };
        let ramp = now.saturating_duration_since(probing.since).div_duration_f64(RAMP) as usize;
        let handful = (1 + ramp).min(HANDFUL_MAX).min(probing.routes.len());
        probing.next = now + TICK;
        let routes = probing.routes.drain(..handful).collect();
        self.probing.take_if(|probing| probing.routes.is_empty());
        routes
    }
}

impl Agent {
    /// The openers of these routes, each from a fresh socket, for the owner to send at once:
    /// requests are heard on the sockets from now on. `ttl` lets them die before the other NAT.
    pub(crate) fn open(
        &mut self,
        routes: &[Route],
        ttl: Option<u8>,
        how: Openers,
        now: Instant,
    ) -> Vec<Transmit> {
        self.guess.sockets.extend(routes.iter().map(|route| route.local));
        self.guess.guessed.opened += routes.len() as u32;
        match how {
            Openers::Once => {}
            Openers::Repeated => {
                let (routes, gap) = (routes.to_vec(), REPEAT_GAP);
                self.guess.repeats = Some(Repeats { routes, next: now + gap, gap, left: REPEATS });
            }
        }
        routes.iter().map(|route| self.guess_check(*route, ttl, now)).collect()
    }

    /// Probes these ports of `target`, at most `limit` times, until one answers. Answers how many
    /// probes will leave at most: none when the ports make no sense or there is no socket for it.
    pub(crate) fn probe(
        &mut self,
        target: IpAddr,
        ports: OpenPorts,
        limit: usize,
        now: Instant,
    ) -> usize {
        let Some(local) = self.local.observed_v4().filter(|_| target.is_ipv4()) else { return 0 };
        let Some(mut ports) = listed(ports) else { return 0 };
        if ports.len() <= usize::from(WINDOW_MAX) {
            ports = ports.repeat(SWEEPS);
        } else {
            let (chosen, _) = ports.partial_shuffle(&mut self.rng, limit.min(PROBES_MAX));
            ports = chosen.to_vec();
        }
        ports.truncate(limit.min(PROBES_MAX));
        let routes: VecDeque<Route> = ports
            .into_iter()
            .map(|port| Route::udp(local, SocketAddr::new(target, port)))
            .filter(|route| self.local.accepts(route.remote))
            .collect();
        let probes = routes.len();
        self.guess.probing = (probes > 0).then_some(Probing { routes, since: now, next: now });
        self.guess_on(now);
        probes
    }

    /// The punch is over: fresh sockets are heard no more, unless they belong to the local set by
    /// now.
    pub(crate) fn end_guess(&mut self, now: Instant) {
        let guessed = self.guess.guessed;
        self.guess = Guess { guessed, ..Guess::default() };
        self.drop_orphans(now);
    }

    /// Sends what is due.
    pub(super) fn guess_on(&mut self, now: Instant) {
        let probes = self.guess.take_probes(now);
        self.guess.guessed.probed += probes.len() as u32;
        for route in self.guess.take_repeat(now).into_iter().chain(probes) {
            let check = self.guess_check(route, None, now);
            self.outputs.push_back(super::Output::Transmit(check));
        }
    }

    /// A response on a route that is no pair: if it answers an opener or a probe, it is one now.
    pub(super) fn adopt(
        &mut self,
        route: Route,
        transaction: Transaction,
        now: Instant,
    ) -> Option<usize> {
        let at = self.guess.take_sent(route, transaction)?;
        let index = self.index_of(route).or_else(|| self.learn(route, now))?;
        self.pairs[index].sent(transaction, Purpose::Probe, at);
        Some(index)
    }

    fn guess_check(&mut self, route: Route, ttl: Option<u8>, now: Instant) -> Transmit {
        let transaction: Transaction = self.rng.random();
        let priority = candidate::check_priority(route.remote);
        let payload = self.signer.request(transaction, Purpose::Probe, priority);
        self.guess.sent.insert(transaction, (route, now));
        Transmit { ttl, ..Transmit::new(route, payload) }
    }
}

/// The ports one by one, if all are such as NATs hand out.
fn listed(ports: OpenPorts) -> Option<Vec<u16>> {
    let OpenPorts { first, step, count, open } = ports;
    let last = i32::from(first) + i32::from(step) * (i32::from(count) - 1);
    let handed_out = i32::from(PORT_MIN)..=i32::from(u16::MAX);
    let sensible = step != 0 && (1..=count).contains(&open);
    if !sensible || !handed_out.contains(&i32::from(first)) || !handed_out.contains(&last) {
        return None;
    }
    let port = |index| (i32::from(first) + i32::from(step) * i32::from(index)) as u16;
    Some((0..count).map(port).collect())
}
