//! Two transports and seeded links between them, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::origin;
use crate::id::{Channel, Epoch, PacketNumber, PathId, Sequence};
use crate::transport::mtu::GROWTH_MAX;
use crate::transport::{Config, Event, FrameError, PathKind, Received, StreamSide, Transport};

pub(super) const PAYLOAD: usize = 1150;
/// More steps than any scenario needs: a live-lock fails instead of hanging.
const STEPS_MAX: usize = 3_000_000;

/// One direction of one path.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    pub(super) loss: f64,
    pub(super) duplication: f64,
    pub(super) delay: Duration,
    pub(super) jitter: Duration,
    /// Bytes a second and bytes that may queue.
    pub(super) rate: Option<(f64, f64)>,
    pub(super) up: bool,
    /// Longer packets are dropped.
    pub(super) len_max: usize,
}

impl Link {
    pub(super) fn clean(delay_ms: u64) -> Self {
        let delay = Duration::from_millis(delay_ms);
        Self {
            loss: 0.0,
            duplication: 0.0,
            delay,
            jitter: Duration::ZERO,
            rate: None,
            up: true,
            len_max: PAYLOAD,
        }
    }

    pub(super) fn lossy(delay_ms: u64, loss: f64) -> Self {
        Self {
            loss,
            duplication: 0.05,
            jitter: Duration::from_millis(delay_ms),
            ..Self::clean(delay_ms)
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Side {
    A,
    B,
}

impl Side {
    pub(super) fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// What one end saw.
pub(super) struct End {
    pub(super) transport: Transport,
    pub(super) epoch: Epoch,
    pub(super) got: Vec<Received>,
    pub(super) events: Vec<Event>,
    pub(super) reads: bool,
    pub(super) error: Option<FrameError>,
    pub(super) packets: u64,
}

impl End {
    fn new(config: Config, epoch: u64, now: Instant) -> Self {
        Self {
            transport: Transport::new(config, now),
            epoch: Epoch(epoch),
            got: Vec::new(),
            events: Vec::new(),
            reads: true,
            error: None,
            packets: 0,
        }
    }

    pub(super) fn delivered(&self, channel: u8) -> u64 {
        let below = |event: &Event| {
            let Event::Delivered { channel: of, below, .. } = event else { return None };
            (of.0 == channel).then_some(below.0)
        };
        self.events.iter().filter_map(below).max().unwrap_or(0)
    }
}

struct Flight {
    to: Side,
    session: u32,
    number: PacketNumber,
    bytes: Vec<u8>,
}

pub(super) struct Pair {
    pub(super) a: End,
    pub(super) b: End,
    pub(super) now: Instant,
    pub(super) links: BTreeMap<(Side, PathId), Link>,
    pub(super) sent: BTreeMap<(Side, PathId), u64>,
    busy_until: BTreeMap<(Side, PathId), Instant>,
    flights: BTreeMap<(Instant, u64), Flight>,
    serial: u64,
    session: u32,
    rng: ChaCha12Rng,
}

impl Pair {
    /// Without session and paths.
    pub(super) fn bare(config: &Config, seed: u64) -> Self {
        let now = origin();
        let of = |side| Config { streams: Some(side), ..config.clone() };
        Self {
            a: End::new(of(StreamSide::Even), 0xA0, now),
            b: End::new(of(StreamSide::Odd), 0xB0, now),
            now,
            links: BTreeMap::new(),
            sent: BTreeMap::new(),
            busy_until: BTreeMap::new(),
            flights: BTreeMap::new(),
            serial: 0,
            session: 0,
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// With a session and one relayed path.
    pub(super) fn new(link: Link, seed: u64) -> Self {
        let mut pair = Self::bare(&Config::peer(), seed);
        pair.start();
        pair.open(0, PathKind::Relay, link);
        pair
    }

    /// A new session: packets of the old one no longer count.
    pub(super) fn start(&mut self) {
        self.session += 1;
        let (a, b) = (self.a.epoch, self.b.epoch);
        self.a.transport.start_session(b, self.now);
        self.b.transport.start_session(a, self.now);
    }

    pub(super) fn open(&mut self, path: u8, kind: PathKind, link: Link) {
        for side in [Side::A, Side::B] {
            self.links.insert((side, PathId(path)), link);
            let now = self.now;
            self.end(side).transport.open_path(PathId(path), kind, PAYLOAD, now);
        }
    }

    pub(super) fn set(&mut self, path: u8, change: impl Fn(&mut Link)) {
        for side in [Side::A, Side::B] {
            change(self.links.get_mut(&(side, PathId(path))).unwrap());
        }
    }

    pub(super) fn prefer(&mut self, path: u8) {
        for side in [Side::A, Side::B] {
            let now = self.now;
            self.end(side).transport.prefer_path(PathId(path), now);
        }
    }

    pub(super) fn end(&mut self, side: Side) -> &mut End {
        match side {
            Side::A => &mut self.a,
            Side::B => &mut self.b,
        }
    }

    pub(super) fn send(&mut self, side: Side, channel: u8, bytes: impl Into<Bytes>) -> Sequence {
        let now = self.now;
        self.end(side).transport.send(Channel(channel), bytes.into(), now).unwrap()
    }

    pub(super) fn is_idle(&self) -> bool {
        self.a.transport.is_idle() && self.b.transport.is_idle()
    }

    /// Until both ends have nothing to do; panics when that takes longer than `limit`.
    pub(super) fn run_until_idle(&mut self, limit: Duration) {
        let end = self.now + limit;
        self.run(end, Self::is_idle);
        assert!(
            self.is_idle(),
            "not idle after {limit:?}: a {:?} b {:?}",
            self.a.transport,
            self.b.transport
        );
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        self.run(end, |_| false);
        self.now = end;
    }

    pub(super) fn run(&mut self, end: Instant, done: impl Fn(&Self) -> bool) {
        let mut same = 0;
        for _ in 0..STEPS_MAX {
            self.drain(Side::A);
            self.drain(Side::B);
            if done(self) {
                return;
            }
            let Some(next) = self.next_instant().filter(|next| *next <= end) else { return };
            same = if next <= self.now { same + 1 } else { 0 };
            let why = (self.a.transport.poll_timeout(), self.b.transport.poll_timeout());
            assert!(same < 50, "spinning: {why:?}");
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            for side in [Side::A, Side::B] {
                let transport = &mut self.end(side).transport;
                if transport.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    transport.handle_timeout(now);
                }
            }
        }
        panic!("too many steps");
    }

    fn next_instant(&self) -> Option<Instant> {
        let timers = [&self.a, &self.b].map(|end| end.transport.poll_timeout().map(|t| t.0));
        let flight = self.flights.keys().next().map(|key| key.0);
        timers.into_iter().chain([flight]).flatten().min()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flights.first_entry().filter(|e| e.key().0 <= self.now) {
            let flight = entry.remove();
            if flight.session != self.session {
                continue;
            }
            let now = self.now;
            let end = self.end(flight.to);
            if let Err(error) = end.transport.handle_packet(flight.number, &flight.bytes, now) {
                end.error = Some(error);
                panic!("{error:?}");
            }
            self.drain(flight.to);
        }
    }

    fn drain(&mut self, side: Side) {
        let now = self.now;
        let end = self.end(side);
        while end.reads
            && let Some(message) = end.transport.poll_message(now)
        {
            end.got.push(message);
        }
        while let Some(event) = end.transport.poll_event() {
            end.events.push(event);
        }
        let mut packets = Vec::new();
        let mut bytes = Vec::new();
        while let Some(number) = end.transport.poll_packet(&mut bytes, now) {
            assert!(!bytes.is_empty() && bytes.len() <= PAYLOAD + usize::from(GROWTH_MAX));
            packets.push((number, std::mem::take(&mut bytes)));
        }
        end.packets += packets.len() as u64;
        for (number, bytes) in packets {
            self.launch(side, number, bytes);
        }
    }

    fn launch(&mut self, from: Side, number: PacketNumber, bytes: Vec<u8>) {
        let key = (from, number.path());
        *self.sent.entry(key).or_default() += bytes.len() as u64;
        let Some(link) = self.links.get(&key).copied() else { return };
        let copies = 1 + usize::from(self.rng.random_bool(link.duplication));
        for _ in 0..copies {
            if !link.up || bytes.len() > link.len_max || self.rng.random_bool(link.loss) {
                continue;
            }
            let mut at = self.now;
            if let Some((rate, queue)) = link.rate {
                let busy = self.busy_until.entry(key).or_insert(at);
                let start = (*busy).max(at);
                if (start - at).as_secs_f64() * rate > queue {
                    continue;
                }
                at = start + Duration::from_secs_f64((bytes.len() + 57) as f64 / rate);
                *busy = at;
            }
            at += link.delay + link.jitter.mul_f64(self.rng.random_range(0.0..1.0));
            self.serial += 1;
            let flight =
                Flight { to: from.other(), session: self.session, number, bytes: bytes.clone() };
            self.flights.insert((at, self.serial), flight);
        }
    }
}
