//! The simulated internet: hosts with actors, links, gates, and the queue of datagrams under way.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use crate::actor::Actor;
use crate::clock::Clock;
use crate::firewall::{Firewall, FirewallConfig};
use crate::link::{Line, LineState, Link, Way};
use crate::nat::{NatBox, NatConfig};
use crate::packet::Packet;
use crate::topology::{Gate, GateId, GateKind, HostId, Owner, Topology, ZoneId};
use crate::trace::Trace;
use crate::traffic::{Traffic, Trip};

/// Steps at one instant before a world is declared to spin: far more than any honest burst.
const STEPS_WITHOUT_TIME_MAX: u32 = 20_000;
/// Routers in the middle of the internet, between any two access lines.
const CORE_HOPS: u8 = 6;

/// A simulated internet of hosts that all run the same kind of [`Actor`].
///
/// The same seed, topology and calls give the same run, datagram by datagram.
pub struct World<A> {
    clock: Clock,
    rng: ChaCha12Rng,
    topology: Topology,
    hosts: Vec<Host<A>>,
    /// What is under way, by time of arrival and then in order of sending.
    queue: BTreeMap<(Instant, u64), Flight>,
    flights: u64,
    steps: u64,
    steps_at_now: u32,
    trace: Trace,
    traffic: Traffic,
}

struct Host<A> {
    name: String,
    zone: ZoneId,
    addresses: Vec<IpAddr>,
    link: Line,
    actor: A,
    /// What the actor's `poll_timeout` last said.
    deadline: Option<(Instant, &'static str)>,
}

/// A datagram between two places.
#[derive(Clone)]
struct Flight {
    packet: Packet,
    origin: HostId,
    cause: Option<HostId>,
    sent: Instant,
    /// Source and destination as it left.
    left: (SocketAddr, SocketAddr),
    next: Hop,
}

#[derive(Clone, Copy)]
enum Hop {
    Zone(ZoneId),
    /// At the outer side of a gate.
    Gate(GateId),
    Host(HostId),
}

/// Why [`World::run_until`] gave up; the text says it, with deadlines and the last datagrams.
#[derive(Clone, Debug)]
pub struct Stuck(pub String);

impl std::fmt::Display for Stuck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Stuck {}

impl<A: Actor> World<A> {
    /// An internet without hosts.
    pub fn new(seed: u64) -> Self {
        Self {
            clock: Clock::new(),
            rng: ChaCha12Rng::seed_from_u64(seed),
            topology: Topology::new(),
            hosts: Vec::new(),
            queue: BTreeMap::new(),
            flights: 0,
            steps: 0,
            steps_at_now: 0,
            trace: Trace::default(),
            traffic: Traffic::default(),
        }
    }

    // ---- building

    /// A zone of its own, to be joined to others by gates.
    pub fn add_zone(&mut self) -> ZoneId {
        self.topology.add_zone()
    }

    /// A NAT box with outer address `external` between two zones; `uplink` leads outwards.
    pub fn add_nat(
        &mut self,
        inner: ZoneId,
        outer: ZoneId,
        external: &str,
        config: NatConfig,
        uplink: Link,
    ) -> GateId {
        let nat = NatBox::new(config, address(external)).at_any_port(&mut self.rng);
        let kind = GateKind::Nat(nat);
        self.topology.add_gate(Gate { kind, inner, outer, uplink: Line::new(uplink) })
    }

    /// An IPv6 firewall between two zones. Add it before the hosts inside.
    pub fn add_firewall(
        &mut self,
        inner: ZoneId,
        outer: ZoneId,
        config: FirewallConfig,
        uplink: Link,
    ) -> GateId {
        let kind = GateKind::Firewall(Firewall::new(config));
        self.topology.add_gate(Gate { kind, inner, outer, uplink: Line::new(uplink) })
    }

    /// A host with these addresses in a zone.
    pub fn add_host(
        &mut self,
        name: &str,
        zone: ZoneId,
        addresses: &[&str],
        link: Link,
        actor: A,
    ) -> HostId {
        let host = HostId(self.hosts.len());
        let addresses: Vec<IpAddr> = addresses.iter().map(|text| address(text)).collect();
        for address in &addresses {
            self.topology.own(zone, *address, host);
        }
        let (name, link) = (name.to_owned(), Line::new(link));
        self.hosts.push(Host { name, zone, addresses, link, actor, deadline: None });
        self.settle(host, None);
        host
    }

    // ---- looking

    /// The present.
    pub const fn clock(&self) -> &Clock {
        &self.clock
    }

    /// What happened to the last datagrams.
    pub const fn trace(&self) -> &Trace {
        &self.trace
    }

    /// Who reached whom.
    pub const fn traffic(&self) -> &Traffic {
        &self.traffic
    }

    /// The host's actor.
    pub fn actor(&self, host: HostId) -> &A {
        &self.hosts[host.0].actor
    }

    /// A host's addresses.
    pub fn addresses(&self, host: HostId) -> &[IpAddr] {
        &self.hosts[host.0].addresses
    }

    /// Delay between two hosts one way, when every line is at its quickest.
    pub fn distance(&self, from: HostId, to: HostId) -> Duration {
        let [from, to] = [from, to].map(|host| {
            let Host { zone, link, .. } = &self.hosts[host.0];
            self.topology.ways_up(*zone, link.link.latency)
        });
        let meeting = |zone: &ZoneId| to.iter().find(|(other, _)| other == zone);
        let ways = from.iter().filter_map(|(zone, up)| meeting(zone).map(|(_, down)| *up + *down));
        ways.min().unwrap_or_default()
    }

    /// Steps since the start.
    pub const fn steps(&self) -> u64 {
        self.steps
    }

    /// The NAT box at a gate, or `None` at a firewall.
    pub fn nat(&mut self, gate: GateId) -> Option<&mut NatBox> {
        match &mut self.topology.gate(gate).kind {
            GateKind::Nat(nat) => Some(nat),
            GateKind::Firewall(_) => None,
        }
    }

    // ---- interfering

    /// Does something with an actor, then takes up what it wants to send.
    pub fn act<R>(&mut self, host: HostId, what: impl FnOnce(&mut A, Instant) -> R) -> R {
        let result = what(&mut self.hosts[host.0].actor, self.clock.now());
        self.settle(host, None);
        result
    }

    /// Cuts a host's line.
    pub fn cut(&mut self, host: HostId) {
        self.hosts[host.0].link.state = LineState::Cut;
    }

    /// Mends a host's line.
    pub fn heal(&mut self, host: HostId) {
        self.hosts[host.0].link.state = LineState::Whole;
    }

    /// Changes what a host's line does; what is under way is not affected.
    pub fn set_link(&mut self, host: HostId, link: Link) {
        self.hosts[host.0].link.link = link;
    }

    /// Changes what the line above a gate does.
    pub fn set_uplink(&mut self, gate: GateId, link: Link) {
        self.topology.gate(gate).uplink.link = link;
    }

    /// The gate forgets all its state; a NAT box gives new ports from now on.
    pub fn rebind(&mut self, gate: GateId) {
        match &mut self.topology.gate(gate).kind {
            GateKind::Nat(nat) => nat.rebind(&mut self.rng),
            GateKind::Firewall(firewall) => firewall.flush(),
        }
    }

    /// The host moves to another zone with other addresses. Its actor must be told by the caller.
    pub fn relocate(&mut self, host: HostId, zone: ZoneId, addresses: &[&str]) {
        let slot = &mut self.hosts[host.0];
        self.topology.disown(slot.zone, &slot.addresses);
        slot.zone = zone;
        slot.addresses = addresses.iter().map(|text| address(text)).collect();
        for address in slot.addresses.clone() {
            self.topology.own(zone, address, host);
        }
    }

    // ---- running

    /// Steps until `done` holds. True when it does, false when `limit` of virtual time has
    /// passed or nothing is left to happen.
    ///
    /// # Errors
    /// [`Stuck`] when the world spins without time moving.
    pub fn run_until(
        &mut self,
        mut done: impl FnMut(&Self) -> bool,
        limit: Duration,
    ) -> Result<bool, Stuck> {
        let end = self.clock.now() + limit;
        loop {
            if done(self) {
                return Ok(true);
            }
            if self.next_time().is_none_or(|at| at > end) {
                self.advance(end);
                return Ok(done(self));
            }
            self.step()?;
        }
    }

    /// Lets `duration` of virtual time pass.
    ///
    /// # Errors
    /// [`Stuck`] as [`World::run_until`].
    pub fn run_for(&mut self, duration: Duration) -> Result<(), Stuck> {
        self.run_until(|_| false, duration).map(|_| ())
    }

    /// Jumps to the next datagram or deadline and handles it. False when there is none.
    ///
    /// # Errors
    /// [`Stuck`] as [`World::run_until`].
    pub fn step(&mut self) -> Result<bool, Stuck> {
        let Some(at) = self.next_time() else { return Ok(false) };
        self.advance(at);
        self.count_step()?;
        match self.queue.first_entry() {
            Some(entry) if entry.key().0 <= self.clock.now() => {
                let flight = entry.remove();
                self.arrive(flight);
            }
            Some(_) | None => self.wake(),
        }
        Ok(true)
    }

    fn next_time(&self) -> Option<Instant> {
        let packet = self.queue.keys().next().map(|(at, _)| *at);
        let deadlines = self.hosts.iter().filter_map(|host| host.deadline);
        deadlines.map(|(at, _)| at).chain(packet).min()
    }

    fn advance(&mut self, at: Instant) {
        if at > self.clock.now() {
            self.clock.advance(at);
            self.steps_at_now = 0;
        }
    }

    fn count_step(&mut self) -> Result<(), Stuck> {
        self.steps += 1;
        self.steps_at_now += 1;
        if self.steps_at_now < STEPS_WITHOUT_TIME_MAX {
            return Ok(());
        }
        let tail = self.trace.tail(20);
        let (clock, deadlines) = (self.clock, self.deadlines());
        Err(Stuck(format!("spinning at {clock}; deadlines: {deadlines}; last datagrams:\n{tail}")))
    }

    /// Every host's earliest deadline, for people.
    pub fn deadlines(&self) -> String {
        let now = self.clock.now();
        let describe = |host: &Host<A>| {
            host.deadline.map(|(at, name)| {
                let wait = at.saturating_duration_since(now).as_secs_f64();
                format!("{} {name} in {wait:.3} s", host.name)
            })
        };
        self.hosts.iter().filter_map(describe).collect::<Vec<_>>().join(", ")
    }

    /// Fires the deadline of the first host whose time has come.
    fn wake(&mut self) {
        let now = self.clock.now();
        let due = |host: &Host<A>| host.deadline.is_some_and(|(at, _)| at <= now);
        let Some(index) = self.hosts.iter().position(due) else { return };
        self.hosts[index].actor.handle_timeout(now);
        self.settle(HostId(index), None);
    }

    /// Takes up what an actor wants to send, and its next deadline.
    fn settle(&mut self, host: HostId, cause: Option<HostId>) {
        while let Some(packet) = self.hosts[host.0].actor.poll_transmit() {
            self.send(host, cause, packet);
        }
        let slot = &mut self.hosts[host.0];
        slot.deadline = slot.actor.poll_timeout();
    }

    fn send(&mut self, host: HostId, cause: Option<HostId>, packet: Packet) {
        let slot = &mut self.hosts[host.0];
        let next = Hop::Zone(slot.zone);
        let (sent, left) = (self.clock.now(), (packet.src, packet.dst));
        let mut flight = Flight { packet, origin: host, cause, sent, left, next };
        if !slot.addresses.contains(&flight.packet.src.ip()) {
            return self.drop_packet(&flight, "source is not the host's");
        }
        let arrivals = slot.link.carry(Way::Up, &mut flight.packet, flight.sent, &mut self.rng);
        self.traffic.note_sent(host);
        self.note_host(host, &flight.packet, "sent");
        self.schedule(flight, arrivals);
    }

    fn arrive(&mut self, flight: Flight) {
        match flight.next {
            Hop::Zone(zone) => self.cross_zone(flight, zone),
            Hop::Gate(gate) => self.enter_gate(flight, gate),
            Hop::Host(host) => self.deliver(flight, host),
        }
    }

    fn cross_zone(&mut self, mut flight: Flight, zone: ZoneId) {
        if zone == ZoneId::INTERNET
            && let Err(why) = flight.packet.pass(CORE_HOPS)
        {
            return self.drop_packet(&flight, why);
        }
        if flight.packet.dst.ip().is_multicast() {
            return self.flood(&flight, zone);
        }
        match self.topology.owner(zone, flight.packet.dst.ip()) {
            Some(Owner::Host(host)) => {
                flight.next = Hop::Host(host);
                let (line, now) = (&mut self.hosts[host.0].link, self.clock.now());
                let arrivals = line.carry(Way::Down, &mut flight.packet, now, &mut self.rng);
                self.schedule(flight, arrivals);
            }
            Some(Owner::Gate(gate)) => {
                flight.next = Hop::Gate(gate);
                self.carry_uplink(flight, gate, Way::Down);
            }
            None => match self.topology.uplink(zone, flight.packet.dst) {
                Some(gate) => self.leave_gate(flight, gate),
                None => self.drop_packet(&flight, "no route"),
            },
        }
    }

    /// To every other host of the zone; the internet carries no such thing.
    fn flood(&mut self, flight: &Flight, zone: ZoneId) {
        if zone == ZoneId::INTERNET {
            return self.drop_packet(flight, "multicast in the internet");
        }
        let all = (0..self.hosts.len()).map(HostId);
        for host in all.filter(|host| *host != flight.origin).collect::<Vec<_>>() {
            if self.hosts[host.0].zone == zone {
                let mut copy = Flight { next: Hop::Host(host), ..flight.clone() };
                let (line, now) = (&mut self.hosts[host.0].link, self.clock.now());
                let arrivals = line.carry(Way::Down, &mut copy.packet, now, &mut self.rng);
                self.schedule(copy, arrivals);
            }
        }
    }

    fn leave_gate(&mut self, mut flight: Flight, id: GateId) {
        let now = self.clock.now();
        let gate = self.topology.gate(id);
        let outer = gate.outer;
        let judged = match &mut gate.kind {
            GateKind::Nat(nat) if flight.packet.dst.ip() == nat.external() => {
                return self.hairpin(flight, id);
            }
            GateKind::Nat(nat) => nat.outbound(&mut flight.packet, now, &mut self.rng),
            GateKind::Firewall(firewall) => firewall.outbound(&mut flight.packet, now),
        };
        match judged {
            Ok(()) => {
                flight.next = Hop::Zone(outer);
                self.carry_uplink(flight, id, Way::Up);
            }
            Err(why) => self.drop_packet(&flight, why),
        }
    }

    /// An inner host speaks to the outer address of its own box.
    fn hairpin(&mut self, mut flight: Flight, id: GateId) {
        let now = self.clock.now();
        let gate = self.topology.gate(id);
        let GateKind::Nat(nat) = &mut gate.kind else { return };
        let judged = nat.hairpin(&mut flight.packet, now, &mut self.rng);
        let inner = gate.inner;
        match judged {
            Ok(()) => self.cross_zone(flight, inner),
            Err(why) => self.drop_packet(&flight, why),
        }
    }

    /// Arrived at the outer side.
    fn enter_gate(&mut self, mut flight: Flight, id: GateId) {
        let now = self.clock.now();
        let gate = self.topology.gate(id);
        let inner = gate.inner;
        let judged = match &mut gate.kind {
            GateKind::Nat(nat) => nat.inbound(&mut flight.packet, now),
            GateKind::Firewall(firewall) => firewall.inbound(&mut flight.packet, now),
        };
        match judged {
            Ok(()) => self.cross_zone(flight, inner),
            Err(why) => self.drop_packet(&flight, why),
        }
    }

    fn carry_uplink(&mut self, mut flight: Flight, gate: GateId, way: Way) {
        let (line, now) = (&mut self.topology.gate(gate).uplink, self.clock.now());
        let arrivals = line.carry(way, &mut flight.packet, now, &mut self.rng);
        self.schedule(flight, arrivals);
    }

    fn schedule(&mut self, flight: Flight, arrivals: Result<Vec<Instant>, &'static str>) {
        match arrivals {
            Ok(times) => {
                for at in times {
                    self.flights += 1;
                    self.queue.insert((at, self.flights), flight.clone());
                }
            }
            Err(why) => self.drop_packet(&flight, why),
        }
    }

    fn deliver(&mut self, flight: Flight, host: HostId) {
        let now = self.clock.now();
        self.note_host(host, &flight.packet, "arrived");
        let Flight { packet, origin, cause, sent, left, .. } = flight;
        let trip = Trip { sent: left, seen: (packet.src, packet.dst) };
        self.traffic.note_order(origin, host, trip, &packet.payload, sent, now);
        self.traffic.arrived(origin, cause, host, &packet.payload);
        let Packet { src, dst, payload, .. } = packet;
        self.hosts[host.0].actor.handle_datagram(dst, src, payload, now);
        self.settle(host, Some(origin));
    }

    fn drop_packet(&mut self, flight: &Flight, why: &'static str) {
        self.note_host(flight.origin, &flight.packet, why);
    }

    fn note_host(&mut self, host: HostId, packet: &Packet, what: &'static str) {
        self.trace.note(self.clock.elapsed(), &self.hosts[host.0].name, packet, what);
    }
}

/// Addresses in tests are literals; a wrong one is a mistake in the test.
fn address(text: &str) -> IpAddr {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is not an IP address"))
}

/// A socket address from an IP address and a port.
pub fn socket(ip: &str, port: u16) -> SocketAddr {
    SocketAddr::new(address(ip), port)
}
