//! A NAT box with the knobs of RFC 4787, and the ones that real routers add.
//!
//! *Mapping* (RFC 4787 section 4.1) says for which destinations an inner endpoint keeps its outer
//! port; *filtering* (section 5) says from whom such a port accepts. As in deployed boxes, a
//! permission belongs to the mapping that the inner endpoint sent through: a packet that arrives
//! at a mapping made for one destination is judged by what was sent through that mapping.
//!
//! [`Ports::Preserving`] together with a dependent mapping is how Linux masquerades: every
//! connection has a mapping of its own, but all of one inner endpoint keep its port as long as
//! nobody else holds it, so that from outside the box looks endpoint-independent.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use crate::packet::Packet;

/// How far a mapping, or a permission, reaches (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// The same for every remote endpoint (EIM, EIF).
    Endpoint,
    /// One for each remote address (ADM, ADF).
    Address,
    /// One for each remote address and port (APDM, APDF).
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Address, Self::AddressAndPort];
}

/// How a box picks the outer port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inner port where it is free, else one at random.
    Preserving,
    /// The last one plus `step`.
    Sequential {
        /// Distance from one allocation to the next.
        step: u16,
    },
    /// Any from 1024 up.
    Random,
    /// At random from a block, as carrier-grade boxes hand one to a subscriber.
    Block {
        /// First port.
        first: u16,
        /// Ports in the block.
        len: u16,
    },
}

/// What keeps a mapping alive (RFC 4787 REQ-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Only what goes out.
    Outbound,
    /// What comes in as well.
    Both,
}

/// Whether two inner hosts reach each other under their outer addresses (RFC 4787 REQ-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// Yes, and the outer source address is shown.
    On,
    /// No: such packets are dropped.
    Off,
}

/// What happens to a packet that no mapping accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsolicited {
    /// Dropped without a trace.
    Drop,
    /// Answered with an ICMP error (counted; nothing is forwarded), no state kept.
    Reject,
    /// Accepted on the router's own input, which leaves state for (outer port, remote): a later
    /// mapping of that port towards that remote clashes with it and is moved to another port.
    AcceptState,
}

/// The knobs of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// When an inner endpoint gets another outer port.
    pub mapping: Dependence,
    /// From whom an outer port accepts.
    pub filtering: Dependence,
    /// Choice of outer ports.
    pub ports: Ports,
    /// A mapping or permission unused for this long is gone.
    pub lifetime: Duration,
    /// What counts as use.
    pub refresh: Refresh,
    /// Inner hosts meeting at the outer address.
    pub hairpin: Hairpin,
    /// Packets that nothing accepts.
    pub unsolicited: Unsolicited,
}

impl NatConfig {
    /// Endpoint-independent mapping and filtering ("full cone").
    pub const FULL_CONE: Self = Self::cone(Dependence::Endpoint);
    /// Endpoint-independent mapping, address-dependent filtering ("restricted cone").
    pub const RESTRICTED: Self = Self::cone(Dependence::Address);
    /// Endpoint-independent mapping, address-and-port-dependent filtering ("port-restricted").
    pub const PORT_RESTRICTED: Self = Self::cone(Dependence::AddressAndPort);
    /// Everything depends on address and port, ports at random ("symmetric").
    pub const SYMMETRIC: Self =
        Self { mapping: Dependence::AddressAndPort, ports: Ports::Random, ..Self::PORT_RESTRICTED };

    const fn cone(filtering: Dependence) -> Self {
        Self {
            mapping: Dependence::Endpoint,
            filtering,
            ports: Ports::Preserving,
            lifetime: Duration::from_secs(120),
            refresh: Refresh::Outbound,
            hairpin: Hairpin::Off,
            unsolicited: Unsolicited::Drop,
        }
    }

    /// The same box with another answer to unsolicited packets.
    #[must_use]
    pub const fn with_unsolicited(mut self, unsolicited: Unsolicited) -> Self {
        self.unsolicited = unsolicited;
        self
    }

    /// The same box with hairpinning.
    #[must_use]
    pub const fn with_hairpin(mut self) -> Self {
        self.hairpin = Hairpin::On;
        self
    }

    /// The same box with another choice of ports.
    #[must_use]
    pub const fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// The same box with other mapping and filtering.
    #[must_use]
    pub const fn with_behaviour(mut self, mapping: Dependence, filtering: Dependence) -> Self {
        self.mapping = mapping;
        self.filtering = filtering;
        self
    }
}

/// State that an unsolicited packet leaves on the router lives this long: the time Linux gives
/// a UDP connection without an answer.
const STALE_LIFETIME: Duration = Duration::from_secs(30);
/// Ports below are never handed out.
const PORT_MIN: u16 = 1024;
/// Draws before a random allocation gives up; a box this full has no port for anybody.
const DRAWS_MAX: usize = 1000;

/// A box at work: its knobs, outer address and tables.
#[derive(Debug)]
pub struct NatBox {
    config: NatConfig,
    external: IpAddr,
    entries: BTreeMap<Key, Entry>,
    /// Outer ports forwarded for good, and to whom.
    forwards: BTreeMap<u16, SocketAddr>,
    /// How many mappings use an outer port, and the inner endpoint they serve.
    holders: BTreeMap<u16, (SocketAddr, usize)>,
    /// Outer port and remote endpoint of unsolicited packets, and when they are forgotten.
    stale: BTreeMap<(u16, SocketAddr), Instant>,
    next_port: u16,
    /// No entry ends before this.
    sweep: Option<Instant>,
    rejected: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Key {
    internal: SocketAddr,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Any,
    Address(IpAddr),
    Exact(SocketAddr),
}

#[derive(Debug)]
struct Entry {
    external: u16,
    used: Instant,
    /// Remotes that were sent to through this mapping, and when last.
    permits: BTreeMap<SocketAddr, Instant>,
}

impl NatBox {
    /// A box with empty tables.
    pub fn new(config: NatConfig, external: IpAddr) -> Self {
        Self {
            config,
            external,
            entries: BTreeMap::new(),
            forwards: BTreeMap::new(),
            holders: BTreeMap::new(),
            stale: BTreeMap::new(),
            // Where the counter of a sequential box happens to stand.
            next_port: 20_000,
            sweep: None,
            rejected: 0,
        }
    }

    /// Its address on the outer side.
    pub const fn external(&self) -> IpAddr {
        self.external
    }

    /// Its knobs.
    pub const fn config(&self) -> &NatConfig {
        &self.config
    }

    /// Packets answered with an ICMP error.
    pub const fn rejected(&self) -> u64 {
        self.rejected
    }

    /// Translates a packet on its way out.
    ///
    /// # Errors
    /// A word for the trace when there is no free port.
    pub fn outbound(
        &mut self,
        packet: &mut Packet,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(), &'static str> {
        self.sweep(now);
        let key = self.select(packet.src, packet.dst);
        if !self.entries.contains_key(&key) {
            let port = self.allocate(packet.src, packet.dst, rng).ok_or("no free port")?;
            self.hold(port, packet.src);
            let entry = Entry { external: port, used: now, permits: BTreeMap::new() };
            self.entries.insert(key, entry);
        }
        let entry = self.entries.get_mut(&key).ok_or("no mapping")?;
        entry.used = now;
        entry.permits.insert(packet.dst, now);
        packet.src = SocketAddr::new(self.external, entry.external);
        self.expect_end(now);
        Ok(())
    }

    /// Translates a packet on its way in.
    ///
    /// # Errors
    /// A word for the trace when no mapping accepts it.
    pub fn inbound(&mut self, packet: &mut Packet, now: Instant) -> Result<(), &'static str> {
        self.sweep(now);
        if let Some(internal) = self.forwards.get(&packet.dst.port()).copied() {
            self.answer_from(packet.dst.port(), internal, packet.src, now);
            packet.dst = internal;
            return Ok(());
        }
        let Some(key) = self.accepting(packet.dst.port(), packet.src, now) else {
            return Err(self.refuse(packet, now));
        };
        if self.config.refresh == Refresh::Both
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.used = now;
            if let Some(permit) = entry.permits.get_mut(&packet.src) {
                *permit = now;
            }
        }
        packet.dst = key.internal;
        Ok(())
    }

    /// The box restarts or its provider moves it: all mappings are forgotten, and preserved or
    /// sequential ports begin elsewhere.
    pub fn rebind(&mut self, rng: &mut impl Rng) {
        self.entries.clear();
        self.holders.clear();
        self.stale.clear();
        for (port, internal) in self.forwards.clone() {
            self.hold(port, internal);
        }
        self.next_port = rng.random_range(PORT_MIN..=u16::MAX);
    }

    /// Forwards an outer port to an inner endpoint for good, as a port mapping does.
    pub fn forward(&mut self, port: u16, internal: SocketAddr) {
        self.hold(port, internal);
        self.forwards.insert(port, internal);
    }

    /// Who came in through a forwarded port is answered from it.
    fn answer_from(&mut self, port: u16, internal: SocketAddr, remote: SocketAddr, now: Instant) {
        let key = Key { internal, scope: Scope::Exact(remote) };
        if self.entries.get(&key).is_some_and(|entry| entry.external == port) {
            return;
        }
        self.hold(port, internal);
        let entry = Entry { external: port, used: now, permits: BTreeMap::from([(remote, now)]) };
        if let Some(moved) = self.entries.insert(key, entry) {
            self.release(moved.external);
        }
        self.expect_end(now);
    }

    /// Makes inner endpoint `internal`'s own port unavailable, as if another host held it.
    pub fn occupy(&mut self, port: u16) {
        self.hold(port, SocketAddr::new(self.external, port));
    }

    /// Which mapping serves `internal` towards `remote`.
    fn select(&self, internal: SocketAddr, remote: SocketAddr) -> Key {
        let exact = Key { internal, scope: Scope::Exact(remote) };
        if self.entries.contains_key(&exact) {
            return exact;
        }
        let scope = match self.config.mapping {
            Dependence::Endpoint => Scope::Any,
            Dependence::Address => Scope::Address(remote.ip()),
            Dependence::AddressAndPort => Scope::Exact(remote),
        };
        let natural = Key { internal, scope };
        match self.entries.get(&natural) {
            Some(entry) if self.clashes(entry, remote) => exact,
            Some(_) | None => natural,
        }
    }

    /// Whether state of an unsolicited packet stands in the way of a new connection.
    fn clashes(&self, entry: &Entry, remote: SocketAddr) -> bool {
        !entry.permits.contains_key(&remote) && self.stale.contains_key(&(entry.external, remote))
    }

    fn accepting(&self, port: u16, remote: SocketAddr, now: Instant) -> Option<Key> {
        let lifetime = self.config.lifetime;
        let live = |at: &Instant| *at + lifetime > now;
        let accepts = |entry: &Entry| match self.config.filtering {
            Dependence::Endpoint => true,
            Dependence::Address => {
                entry.permits.iter().any(|(to, at)| to.ip() == remote.ip() && live(at))
            }
            Dependence::AddressAndPort => entry.permits.get(&remote).is_some_and(live),
        };
        let mut entries = self.entries.iter().filter(|(_, entry)| entry.external == port);
        entries.find(|(_, entry)| accepts(entry)).map(|(key, _)| *key)
    }

    fn refuse(&mut self, packet: &Packet, now: Instant) -> &'static str {
        match self.config.unsolicited {
            Unsolicited::Drop => "filtered",
            Unsolicited::Reject => {
                self.rejected += 1;
                "rejected"
            }
            Unsolicited::AcceptState => {
                let end = now + STALE_LIFETIME;
                self.stale.insert((packet.dst.port(), packet.src), end);
                self.sweep = Some(self.sweep.map_or(end, |sweep| sweep.min(end)));
                "taken by the router"
            }
        }
    }

    fn allocate(
        &mut self,
        internal: SocketAddr,
        remote: SocketAddr,
        rng: &mut impl Rng,
    ) -> Option<u16> {
        match self.config.ports {
            Ports::Preserving => {
                let own = Some(internal.port());
                own.filter(|port| self.is_free(*port, internal, remote))
                    .or_else(|| self.draw(PORT_MIN, u16::MAX, internal, remote, rng))
            }
            Ports::Sequential { step } => self.count_on(step, internal, remote),
            Ports::Random => self.draw(PORT_MIN, u16::MAX, internal, remote, rng),
            Ports::Block { first, len } => {
                self.draw(first, first + (len - 1), internal, remote, rng)
            }
        }
    }

    fn count_on(&mut self, step: u16, internal: SocketAddr, remote: SocketAddr) -> Option<u16> {
        for _ in 0..DRAWS_MAX {
            let port = self.next_port;
            self.next_port = port.checked_add(step).unwrap_or(PORT_MIN);
            if self.is_free(port, internal, remote) {
                return Some(port);
            }
        }
        None
    }

    fn draw(
        &self,
        first: u16,
        last: u16,
        internal: SocketAddr,
        remote: SocketAddr,
        rng: &mut impl Rng,
    ) -> Option<u16> {
        (0..DRAWS_MAX)
            .map(|_| rng.random_range(first..=last))
            .find(|port| self.is_free(*port, internal, remote))
    }

    /// A port nobody holds; a preserving box lets one inner endpoint use its port again.
    fn is_free(&self, port: u16, internal: SocketAddr, remote: SocketAddr) -> bool {
        let held = match self.holders.get(&port) {
            None => false,
            Some((holder, _)) => {
                self.config.ports != Ports::Preserving
                    || self.config.mapping == Dependence::Endpoint
                    || *holder != internal
            }
        };
        !held && !self.stale.contains_key(&(port, remote))
    }

    fn hold(&mut self, port: u16, internal: SocketAddr) {
        self.holders.entry(port).or_insert((internal, 0)).1 += 1;
    }

    fn expect_end(&mut self, now: Instant) {
        let end = now + self.config.lifetime;
        self.sweep = Some(self.sweep.map_or(end, |sweep| sweep.min(end)));
    }

    /// Forgets what has ended.
    fn sweep(&mut self, now: Instant) {
        if self.sweep.is_none_or(|sweep| now < sweep) {
            return;
        }
        let lifetime = self.config.lifetime;
        self.stale.retain(|_, end| *end > now);
        let mut freed = Vec::new();
        self.entries.retain(|_, entry| {
            entry.permits.retain(|_, at| *at + lifetime > now);
            let live = entry.used + lifetime > now;
            if !live {
                freed.push(entry.external);
            }
            live
        });
        for port in freed {
            self.release(port);
        }
        let ends = self.entries.values().map(|entry| entry.used + lifetime);
        self.sweep = ends.chain(self.stale.values().copied()).min();
    }

    fn release(&mut self, port: u16) {
        if let Some((_, count)) = self.holders.get_mut(&port) {
            *count -= 1;
            if *count == 0 {
                self.holders.remove(&port);
            }
        }
    }
}
