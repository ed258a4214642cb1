//! What one address prefix may make the server do, shared by all workers.

use std::hash::{BuildHasher, Hasher};
use std::net::IpAddr;
use std::sync::atomic::AtomicU64;

use dashmap::DashMap;

use super::limits::{Limits, Rate, prefix_of};

/// Most prefixes remembered. A full table is cleared of those that rest; strangers beyond share
/// one bucket, so a flood of sources costs no more memory than this.
const SOURCES_MAX: usize = 1 << 16;

/// What is counted apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Stun,
    Handshake,
    Refusal,
}

/// Buckets per (prefix, class).
pub(super) struct Sources {
    buckets: DashMap<u64, AtomicU64, Keyed>,
    overflow: [AtomicU64; 3],
    stun: Rate,
    handshake: Rate,
    refusal: Rate,
}

impl Sources {
    pub(super) fn new(limits: &Limits, keys: (u64, u64)) -> Self {
        Self {
            buckets: DashMap::with_hasher(Keyed(keys.0, keys.1 | 1)),
            overflow: Default::default(),
            stun: Rate::per_second(limits.stun_per_second.into()),
            handshake: Rate::per_second(limits.handshakes_per_second.into()),
            refusal: Rate::per_second(limits.refusals_per_second.into()),
        }
    }

    /// Whether `ip` may have one more of `class` at `now_ns`.
    pub(super) fn admit(&self, class: Class, ip: IpAddr, now_ns: u64) -> bool {
        let (rate, number) = match class {
            Class::Stun => (&self.stun, 0),
            Class::Handshake => (&self.handshake, 1),
            Class::Refusal => (&self.refusal, 2),
        };
        let key = (prefix_of(ip) << 2) | number as u64;
        if let Some(level) = self.buckets.get(&key) {
            return rate.admit(&level, now_ns, 1);
        }
        if self.buckets.len() >= SOURCES_MAX {
            return rate.admit(&self.overflow[number], now_ns, 1);
        }
        rate.admit(&self.buckets.entry(key).or_default(), now_ns, 1)
    }

    /// Forgets the prefixes whose buckets are full again.
    pub(super) fn sweep(&self, now_ns: u64) {
        if self.buckets.len() >= SOURCES_MAX / 2 {
            self.buckets.retain(|_, level| *level.get_mut() > now_ns);
        }
    }
}

/// Hashes one number under two secret ones, so that a stranger cannot choose prefixes that fall
/// on one shard.
#[derive(Clone, Copy)]
struct Keyed(u64, u64);

impl BuildHasher for Keyed {
    type Hasher = KeyedHasher;

    fn build_hasher(&self) -> KeyedHasher {
        KeyedHasher { state: self.0, factor: self.1 }
    }
}

struct KeyedHasher {
    state: u64,
    factor: u64,
}

impl Hasher for KeyedHasher {
    fn write_u64(&mut self, value: u64) {
        let product = u128::from(self.state ^ value) * u128::from(self.factor);
        self.state = (product >> 64) as u64 ^ product as u64;
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_and_classes_are_counted_apart() {
        let sources = Sources::new(&Limits { refusals_per_second: 2, ..Limits::open() }, (7, 9));
        let of = |ip: &str| ip.parse().unwrap();
        let spend = |ip, class| (0..100).filter(|_| sources.admit(class, of(ip), 0)).count();
        assert_eq!(spend("10.0.0.1", Class::Refusal), 4);
        assert_eq!(spend("10.0.0.2", Class::Refusal), 0, "the same /24");
        assert_eq!(spend("10.0.1.1", Class::Refusal), 4);
        assert_eq!(spend("10.0.0.1", Class::Stun), 100);
    }

    #[test]
    fn a_flood_of_prefixes_stays_bounded() {
        let sources = Sources::new(&Limits { refusals_per_second: 2, ..Limits::open() }, (7, 9));
        for n in 0..70_000u32 {
            sources.admit(Class::Refusal, IpAddr::from((n << 8).to_be_bytes()), 0);
        }
        assert!(sources.buckets.len() <= SOURCES_MAX);
        sources.sweep(10_000_000_000);
        assert!(sources.buckets.is_empty());
    }
}
