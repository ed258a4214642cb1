//! Flows that send as much as they may through one line, in virtual time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::origin;
use crate::id::{Channel, Epoch, PacketNumber, PathId};
use crate::io::Ecn;
use crate::transport::{Config, Event, PathKind, PathStats, Transport};

/// Bytes of frames in a packet of the base size.
pub(super) const BASE: usize = 1150;
const MESSAGE: Bytes = Bytes::from_static(&[7; 32 << 10]);
/// What waits at a sender, so that it never runs dry.
const QUEUE: usize = 2 << 20;

/// The way from the senders to the receivers; the way back only delays.
#[derive(Clone, Copy, Debug)]
pub(super) struct Line {
    /// Bytes a second.
    pub(super) rate: f64,
    /// Bytes that may wait.
    pub(super) queue: f64,
    /// One way.
    pub(super) delay: Duration,
    pub(super) loss: f64,
    pub(super) up: bool,
    /// Longer packets are dropped.
    pub(super) len_max: usize,
    /// Every so manieth packet comes after as many later ones.
    pub(super) reorder: Option<(u64, u32)>,
    pub(super) marks: Marks,
}

/// What a line does to congestion marks.
#[derive(Clone, Copy, Debug)]
pub(super) enum Marks {
    Kept,
    /// Marked packets get CE where more than so many bytes wait.
    Above(f64),
    AllCe,
    Erased,
    /// What is marked is dropped.
    Dropped,
}

impl Line {
    /// 20 Mbit/s, 50 ms there and back, room for one product of the two.
    pub(super) fn dsl() -> Self {
        Self {
            rate: 2.5e6,
            queue: 125e3,
            delay: Duration::from_millis(25),
            loss: 0.0,
            up: true,
            len_max: usize::MAX,
            reorder: None,
            marks: Marks::Kept,
        }
    }
}

pub(super) struct Flow {
    pub(super) sender: Transport,
    receiver: Transport,
    /// Bytes of messages handed over.
    pub(super) got: u64,
    /// How often the sender gave the path up.
    pub(super) failed: u64,
    running: bool,
}

impl Flow {
    pub(super) fn stats(&self) -> PathStats {
        self.sender.path_stats(PathId(0)).unwrap()
    }
}

struct Flight {
    flow: usize,
    back: bool,
    number: PacketNumber,
    mark: Ecn,
    bytes: Vec<u8>,
}

pub(super) struct Lane {
    pub(super) now: Instant,
    pub(super) line: Line,
    pub(super) flows: Vec<Flow>,
    /// Most packets that a sender let go at one moment.
    pub(super) burst: usize,
    /// Lengths of the packets that arrived.
    pub(super) lengths: BTreeMap<usize, u64>,
    /// Packets that the line marked.
    pub(super) marked: u64,
    /// What the flows send, over and over.
    pub(super) message: Bytes,
    busy: Instant,
    flights: BTreeMap<(Instant, u64), Flight>,
    serial: u64,
    rng: ChaCha12Rng,
}

impl Lane {
    pub(super) fn new(line: Line, flows: usize, seed: u64) -> Self {
        let now = origin();
        let end = |remote| {
            let config = Config { send_queue_bytes_max: QUEUE, ..Config::peer() };
            let mut transport = Transport::new(config, now);
            transport.start_session(Epoch(remote), now);
            transport.open_path(PathId(0), PathKind::Direct, BASE, now);
            transport
        };
        let flow = |_| Flow { sender: end(1), receiver: end(2), got: 0, failed: 0, running: true };
        Self {
            now,
            line,
            flows: (0..flows).map(flow).collect(),
            burst: 0,
            lengths: BTreeMap::new(),
            marked: 0,
            message: MESSAGE,
            busy: now,
            flights: BTreeMap::new(),
            serial: 0,
            rng: ChaCha12Rng::seed_from_u64(seed),
        }
    }

    /// Whether a flow sends something new.
    pub(super) fn set_running(&mut self, flow: usize, running: bool) {
        self.flows[flow].running = running;
    }

    /// Bytes a second that each flow handed over in the time to come.
    pub(super) fn measure(&mut self, time: Duration) -> Vec<f64> {
        let before: Vec<u64> = self.flows.iter().map(|flow| flow.got).collect();
        self.run_for(time);
        let rate = |(flow, before): (&Flow, u64)| (flow.got - before) as f64 / time.as_secs_f64();
        self.flows.iter().zip(before).map(rate).collect()
    }

    pub(super) fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            for flow in 0..self.flows.len() {
                self.pump(flow);
            }
            let Some(next) = self.next().filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.deliver();
            let now = self.now;
            for flow in &mut self.flows {
                for transport in [&mut flow.sender, &mut flow.receiver] {
                    if transport.poll_timeout().is_some_and(|(at, _)| at <= now) {
                        transport.handle_timeout(now);
                    }
                }
            }
        }
        self.now = end;
    }

    fn next(&self) -> Option<Instant> {
        let ends = self.flows.iter().flat_map(|flow| [&flow.sender, &flow.receiver]);
        let timers = ends.filter_map(|end| end.poll_timeout()).map(|timer| timer.0);
        timers.chain(self.flights.keys().next().map(|key| key.0)).min()
    }

    fn deliver(&mut self) {
        while let Some(entry) = self.flights.first_entry().filter(|e| e.key().0 <= self.now) {
            let Flight { flow, back, number, mark, bytes } = entry.remove();
            let ends = &mut self.flows[flow];
            let end = if back { &mut ends.sender } else { &mut ends.receiver };
            end.handle_packet(number, &bytes, self.now).unwrap();
            end.note_mark(number.path(), mark, self.now);
            if !back {
                *self.lengths.entry(bytes.len()).or_default() += 1;
            }
            self.pump(flow);
        }
    }

    fn pump(&mut self, index: usize) {
        let now = self.now;
        let flow = &mut self.flows[index];
        let message = &self.message;
        while flow.running && flow.sender.send(Channel(0), message.clone(), now).is_ok() {}
        while let Some(message) = flow.receiver.poll_message(now) {
            flow.got += message.payload.len() as u64;
        }
        let mut packets = Vec::new();
        for (back, end) in [(false, &mut flow.sender), (true, &mut flow.receiver)] {
            while let Some(event) = end.poll_event() {
                flow.failed += u64::from(matches!(event, Event::PathFailed(_)));
            }
            let mut bytes = Vec::new();
            while let Some(number) = end.poll_packet(&mut bytes, now) {
                packets.push(Flight {
                    flow: index,
                    back,
                    number,
                    mark: end.mark(number.path()),
                    bytes: std::mem::take(&mut bytes),
                });
            }
        }
        let forth = packets.iter().filter(|flight| !flight.back).count();
        self.burst = self.burst.max(forth);
        packets.into_iter().for_each(|flight| self.launch(flight));
    }

    fn launch(&mut self, mut flight: Flight) {
        let line = self.line;
        self.serial += 1;
        let mut at = self.now + line.delay;
        if !flight.back {
            let len = flight.bytes.len();
            let start = self.busy.max(self.now);
            let waiting = (start - self.now).as_secs_f64() * line.rate;
            let lost = !line.up || len > line.len_max || self.rng.random_bool(line.loss);
            if lost || waiting > line.queue || !self.treat_mark(&mut flight.mark, waiting) {
                return;
            }
            let packet = Duration::from_secs_f64(len as f64 / line.rate);
            self.busy = start + packet;
            at = self.busy + line.delay;
            if let Some((every, by)) = line.reorder
                && self.serial.is_multiple_of(every)
            {
                at += packet * by + packet / 2;
            }
        } else if !line.up {
            return;
        }
        self.flights.insert((at, self.serial), flight);
    }

    /// Whether the packet goes on.
    fn treat_mark(&mut self, mark: &mut Ecn, waiting: f64) -> bool {
        if *mark == Ecn::NotEct {
            return true;
        }
        match self.line.marks {
            Marks::Above(bytes) if waiting > bytes => *mark = Ecn::Ce,
            Marks::AllCe => *mark = Ecn::Ce,
            Marks::Erased => *mark = Ecn::NotEct,
            Marks::Dropped => return false,
            Marks::Kept | Marks::Above(_) => {}
        }
        self.marked += u64::from(*mark == Ecn::Ce);
        true
    }
}
