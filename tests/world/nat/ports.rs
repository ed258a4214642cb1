//! The outer ports of a box: who holds which, and which comes next.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;

use rand::Rng;

use super::table::Key;
use super::{Dependence, NatConfig, Ports};

/// Ports below are never handed out.
const PORT_MIN: u16 = 1024;
/// Draws before a random allocation gives up; a box this full has no port for anybody.
const DRAWS_MAX: usize = 1000;

/// The outer ports of a box.
#[derive(Clone, Debug)]
pub(super) struct PortPool {
    choice: Ports,
    mapping: Dependence,
    holders: BTreeMap<u16, BTreeSet<Key>>,
    /// What a box that counts gives out next.
    next: u16,
}

impl PortPool {
    pub(super) const fn new(config: &NatConfig) -> Self {
        let holders = BTreeMap::new();
        Self { choice: config.ports, mapping: config.mapping, holders, next: 20_000 }
    }

    /// Nothing is held, and counting begins anywhere.
    pub(super) fn restart(&mut self, rng: &mut impl Rng) {
        self.holders.clear();
        self.next = rng.random_range(PORT_MIN..=u16::MAX);
    }

    /// A port for a new mapping of `internal`; one that `is_stale` is passed over.
    pub(super) fn allocate(
        &mut self,
        internal: SocketAddr,
        is_stale: impl Fn(u16) -> bool,
        rng: &mut impl Rng,
    ) -> Option<u16> {
        let choice = self.choice;
        let is_free = |pool: &Self, port| pool.is_free(port, internal) && !is_stale(port);
        let draw = |pool: &Self, first, last, rng: &mut _| {
            let mut ports = (0..DRAWS_MAX).map(|_| Rng::random_range(rng, first..=last));
            ports.find(|port| is_free(pool, *port))
        };
        match choice {
            Ports::Preserving => {
                let own = Some(internal.port()).filter(|port| is_free(self, *port));
                own.or_else(|| draw(self, PORT_MIN, u16::MAX, rng))
            }
            Ports::Sequential { step } => (0..DRAWS_MAX).find_map(|_| {
                let port = self.count(step);
                is_free(self, port).then_some(port)
            }),
            Ports::Random => draw(self, PORT_MIN, u16::MAX, rng),
            Ports::Block { first, len } => draw(self, first, first + (len - 1), rng),
        }
    }

    pub(super) fn hold(&mut self, port: u16, key: Key) {
        self.holders.entry(port).or_default().insert(key);
    }

    pub(super) fn release(&mut self, port: u16, key: &Key) {
        if let Some(keys) = self.holders.get_mut(&port) {
            keys.remove(key);
            if keys.is_empty() {
                self.holders.remove(&port);
            }
        }
    }

    /// The mappings of a port: one, or in a preserving box all of one inner endpoint.
    pub(super) fn holders(&self, port: u16) -> impl Iterator<Item = Key> {
        self.holders.get(&port).into_iter().flatten().copied()
    }

    /// A port nobody holds; a preserving box lets one inner endpoint use its port again.
    fn is_free(&self, port: u16, internal: SocketAddr) -> bool {
        let shares = self.choice == Ports::Preserving && self.mapping != Dependence::Endpoint;
        self.holders(port).all(|key| shares && key.internal == internal)
    }

    fn count(&mut self, step: i16) -> u16 {
        let port = self.next;
        let first = if step > 0 { PORT_MIN } else { u16::MAX };
        let next = port.checked_add_signed(step).filter(|next| *next >= PORT_MIN);
        self.next = next.unwrap_or(first);
        port
    }
}
