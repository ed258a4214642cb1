//! A box at work: its mappings, what they permit, and what unsolicited packets left.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use rand::Rng;

use super::ports::PortPool;
use super::{Dependence, Hairpin, NatConfig, Refresh, Unsolicited};
use crate::packet::Packet;

/// State that an unsolicited packet leaves on the router lives this long: the time Linux gives
/// a UDP connection without an answer.
const STALE_LIFETIME: Duration = Duration::from_secs(30);
/// Mappings of other hosts between two of ours; so many come together once in an age.
const FOREIGN_MAX: usize = 50;
/// The host behind the box that makes them, and whom it speaks to.
const FOREIGN: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 254);
const FOREIGN_REMOTE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 254)), 443);

/// A box at work: its knobs, outer address and tables.
#[derive(Clone, Debug)]
pub struct NatBox {
    config: NatConfig,
    external: IpAddr,
    entries: BTreeMap<Key, Entry>,
    /// Outer ports forwarded for good, and to whom.
    forwards: BTreeMap<u16, SocketAddr>,
    ports: PortPool,
    /// Outer port and remote endpoint of unsolicited packets, and when they are forgotten.
    stale: BTreeMap<(u16, SocketAddr), Instant>,
    /// No entry ends before this.
    sweep: Option<Instant>,
    rejected: u64,
}

/// What a mapping is kept for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) internal: SocketAddr,
    scope: Scope,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scope {
    Any,
    Address(IpAddr),
    Exact(SocketAddr),
}

#[derive(Clone, Debug)]
struct Entry {
    external: u16,
    born: Instant,
    used: Instant,
    /// Remotes that were sent to through this mapping, and when last.
    permits: BTreeMap<SocketAddr, Instant>,
}

impl Entry {
    fn end(&self, config: &NatConfig) -> Instant {
        let unused = self.used + config.lifetime;
        config.absolute.map_or(unused, |absolute| unused.min(self.born + absolute))
    }
}

impl NatBox {
    /// A box with empty tables.
    pub const fn new(config: NatConfig, external: IpAddr) -> Self {
        Self {
            config,
            external,
            entries: BTreeMap::new(),
            forwards: BTreeMap::new(),
            ports: PortPool::new(&config),
            stale: BTreeMap::new(),
            sweep: None,
            rejected: 0,
        }
    }

    /// The same box with its counter, if it counts, at a port by chance.
    #[must_use]
    pub fn at_any_port(mut self, rng: &mut impl Rng) -> Self {
        self.ports.restart(rng);
        self
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

    /// Mappings that live.
    pub fn mappings(&self) -> usize {
        self.entries.len()
    }

    /// Translates a packet on its way out. A packet that goes no further makes no mapping.
    ///
    /// # Errors
    /// A word for the trace when its time is up or there is no free port.
    pub fn outbound(
        &mut self,
        packet: &mut Packet,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(), &'static str> {
        packet.pass(1)?;
        self.map(packet, now, rng)
    }

    /// Translates a packet on its way in.
    ///
    /// # Errors
    /// A word for the trace when no mapping accepts it, or one does and its time is up: what the
    /// router takes itself needs no time for another hop.
    pub fn inbound(&mut self, packet: &mut Packet, now: Instant) -> Result<(), &'static str> {
        self.sweep(now);
        if let Some(internal) = self.forwards.get(&packet.dst.port()).copied() {
            packet.pass(1)?;
            self.answer_from(packet.dst.port(), internal, packet.src, now);
            packet.dst = internal;
            return Ok(());
        }
        let Some(key) = self.accepting(packet.dst.port(), packet.src, now) else {
            return Err(self.refuse(packet, now));
        };
        packet.pass(1)?;
        self.enter(key, packet, now);
        Ok(())
    }

    /// Turns a packet round that an inner host sent to the outer address.
    ///
    /// # Errors
    /// A word for the trace when the box does not do that, or as the two ways above.
    pub fn hairpin(
        &mut self,
        packet: &mut Packet,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(), &'static str> {
        if self.config.hairpin == Hairpin::Off {
            return Err("no hairpin");
        }
        packet.pass(1)?;
        self.map(packet, now, rng)?;
        let key = self.accepting(packet.dst.port(), packet.src, now);
        let key = key.ok_or_else(|| self.refuse(packet, now))?;
        self.enter(key, packet, now);
        Ok(())
    }

    /// The box restarts or its provider moves it: all mappings are forgotten, and preserved or
    /// sequential ports begin elsewhere.
    pub fn rebind(&mut self, rng: &mut impl Rng) {
        self.entries.clear();
        self.stale.clear();
        self.ports.restart(rng);
        for (port, internal) in &self.forwards {
            self.ports.hold(*port, Key { internal: *internal, scope: Scope::Any });
        }
    }

    /// Forwards an outer port to an inner endpoint for good, as a port mapping does.
    pub fn forward(&mut self, port: u16, internal: SocketAddr) {
        self.ports.hold(port, Key { internal, scope: Scope::Any });
        self.forwards.insert(port, internal);
    }

    /// Who came in through a forwarded port is answered from it.
    fn answer_from(&mut self, port: u16, internal: SocketAddr, remote: SocketAddr, now: Instant) {
        let key = Key { internal, scope: Scope::Exact(remote) };
        if self.entries.get(&key).is_some_and(|entry| entry.external == port) {
            return;
        }
        let permits = BTreeMap::from([(remote, now)]);
        let entry = Entry { external: port, born: now, used: now, permits };
        let end = entry.end(&self.config);
        if let Some(moved) = self.entries.insert(key, entry) {
            self.ports.release(moved.external, &key);
        }
        self.ports.hold(port, key);
        self.expect(end);
    }

    /// Makes an outer port unavailable, as if another host held it.
    pub fn occupy(&mut self, port: u16) {
        let internal = SocketAddr::new(self.external, port);
        self.ports.hold(port, Key { internal, scope: Scope::Any });
    }

    /// Gives the packet the source of its mapping, which is made where there is none.
    fn map(
        &mut self,
        packet: &mut Packet,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Result<(), &'static str> {
        self.sweep(now);
        let (internal, remote) = (packet.src, packet.dst);
        let key = self.select(internal, remote);
        if !self.entries.contains_key(&key) {
            self.let_others_map(now, rng);
            self.add(key, remote, now, rng).ok_or("no free port")?;
        }
        let entry = self.entries.get_mut(&key).ok_or("no mapping")?;
        entry.used = now;
        entry.permits.insert(remote, now);
        packet.src = SocketAddr::new(self.external, entry.external);
        let end = entry.end(&self.config);
        self.expect(end);
        Ok(())
    }

    /// Gives the packet the inner endpoint of the mapping that accepted it.
    fn enter(&mut self, key: Key, packet: &mut Packet, now: Instant) {
        if self.config.refresh == Refresh::Both
            && let Some(entry) = self.entries.get_mut(&key)
        {
            entry.used = now;
            if let Some(permit) = entry.permits.get_mut(&packet.src) {
                *permit = now;
            }
        }
        packet.dst = key.internal;
    }

    /// A new mapping; `None` when there is no port for it.
    fn add(
        &mut self,
        key: Key,
        remote: SocketAddr,
        now: Instant,
        rng: &mut impl Rng,
    ) -> Option<()> {
        let is_stale = |port| self.stale.contains_key(&(port, remote));
        let external = self.ports.allocate(key.internal, is_stale, rng)?;
        self.ports.hold(external, key);
        let entry = Entry { external, born: now, used: now, permits: BTreeMap::new() };
        let end = entry.end(&self.config);
        self.entries.insert(key, entry);
        self.expect(end);
        Some(())
    }

    /// What other hosts map before the next of ours. When both arrive by chance, each on its own,
    /// the number between two of ours falls off geometrically.
    fn let_others_map(&mut self, now: Instant, rng: &mut impl Rng) {
        let percent = u32::from(self.config.cross_traffic);
        let one_more =
            |rng: &mut _| percent > 0 && Rng::random_range(rng, 0..100 + percent) < percent;
        for _ in 0..FOREIGN_MAX {
            if !one_more(rng) {
                break;
            }
            let internal = SocketAddr::new(FOREIGN.into(), rng.random());
            let key = self.select(internal, FOREIGN_REMOTE);
            if !self.entries.contains_key(&key) {
                // A box without a free port has none for the others either.
                let _ = self.add(key, FOREIGN_REMOTE, now, rng);
            }
        }
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
        let mut keys = self.ports.holders(port);
        keys.find(|key| self.entries.get(key).is_some_and(|entry| self.accepts(entry, remote, now)))
    }

    fn accepts(&self, entry: &Entry, remote: SocketAddr, now: Instant) -> bool {
        let lifetime = self.config.lifetime;
        let live = |at: &Instant| *at + lifetime > now;
        match self.config.filtering {
            Dependence::Endpoint => true,
            Dependence::Address => {
                entry.permits.iter().any(|(to, at)| to.ip() == remote.ip() && live(at))
            }
            Dependence::AddressAndPort => entry.permits.get(&remote).is_some_and(live),
        }
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
                self.expect(end);
                "taken by the router"
            }
        }
    }

    /// Something ends then.
    fn expect(&mut self, end: Instant) {
        self.sweep = Some(self.sweep.map_or(end, |sweep| sweep.min(end)));
    }

    /// Forgets what has ended.
    fn sweep(&mut self, now: Instant) {
        if self.sweep.is_none_or(|sweep| now < sweep) {
            return;
        }
        let Self { config, entries, ports, stale, .. } = self;
        stale.retain(|_, end| *end > now);
        entries.retain(|key, entry| {
            entry.permits.retain(|_, at| *at + config.lifetime > now);
            let live = entry.end(config) > now;
            if !live {
                ports.release(entry.external, key);
            }
            live
        });
        let ends = entries.values().map(|entry| entry.end(config));
        self.sweep = ends.chain(stale.values().copied()).min();
    }
}
