//! Bounds and rates. A rate is kept as one number, the moment at which its bucket is full again
//! (the generic cell rate algorithm), so that it fits one atomic word.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Every bound of the server that an operator may want to change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Registered peers per network.
    pub peers_max: u32,
    /// Sessions in all networks together, tentative ones included. At most 2^24.
    pub sessions_max: u32,
    /// Sessions that have not registered yet, in all; they are the first thing an attacker can
    /// make the server remember.
    pub unregistered_max: u32,
    /// The same from one address prefix (/24, /56).
    pub unregistered_per_prefix: u32,
    /// Relayed bytes per second and sending peer, relay header included.
    pub relay_bytes_per_second: u64,
    /// Introductions a peer may ask for in a minute.
    pub connects_per_minute: u32,
    /// All requests together that a peer may make in a second.
    pub requests_per_second: u32,
    /// Lines a peer may write to the operator in a minute.
    pub notices_per_minute: u32,
    /// Live relay channels of one peer, at most 256.
    pub relay_channels_max: u16,
    /// STUN answers per second and address prefix.
    pub stun_per_second: u32,
    /// Handshakes per second and address prefix that need no cookie.
    pub handshakes_per_second: u32,
    /// RESET, STALE and VERSIONS answers per second and address prefix.
    pub refusals_per_second: u32,
    /// How long the name of an absent peer stays bound to its key.
    pub name_kept: Duration,
}

impl Limits {
    /// For a server whose networks are guarded by access tokens.
    pub const fn with_tokens() -> Self {
        Self {
            peers_max: 1 << 20,
            sessions_max: 1 << 21,
            unregistered_max: 1 << 16,
            unregistered_per_prefix: 1 << 12,
            relay_bytes_per_second: 16 << 20,
            connects_per_minute: 600,
            requests_per_second: 200,
            notices_per_minute: 30,
            relay_channels_max: 256,
            stun_per_second: 5_000,
            handshakes_per_second: 500,
            refusals_per_second: 200,
            name_kept: Duration::from_secs(30 * 86_400),
        }
    }

    /// For a server that anybody may use.
    pub const fn open() -> Self {
        Self {
            peers_max: 10_000,
            sessions_max: 1 << 15,
            unregistered_max: 1 << 13,
            unregistered_per_prefix: 256,
            relay_bytes_per_second: 1 << 20,
            connects_per_minute: 60,
            requests_per_second: 50,
            notices_per_minute: 6,
            relay_channels_max: 64,
            stun_per_second: 1_000,
            handshakes_per_second: 100,
            refusals_per_second: 100,
            name_kept: Duration::from_secs(7 * 86_400),
        }
    }
}

/// How many units per second, and how many at once.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rate {
    units: u64,
    period: u64,
    burst_ns: u64,
}

impl Rate {
    /// `units` per `period`, `burst` of them at once. A rate of zero admits nothing.
    pub(super) fn new(units: u64, period: Duration, burst: u64) -> Self {
        let period = period.as_nanos() as u64;
        let burst_ns = if units == 0 { 0 } else { scaled(burst, period, units) };
        Self { units, period, burst_ns }
    }

    /// `units` per second, twice as many at once.
    pub(super) fn per_second(units: u64) -> Self {
        Self::new(units, Duration::from_secs(1), units.saturating_mul(2))
    }

    /// Whether `count` units are allowed at `now_ns`; if so they are spent from `level`.
    pub(super) fn admit(&self, level: &AtomicU64, now_ns: u64, count: u64) -> bool {
        let mut seen = level.load(Ordering::Relaxed);
        // Each failed exchange means that another worker spent from the same bucket; one per
        // worker is the most that a fair machine shows.
        for _ in 0..64 {
            let Some(next) = self.next(seen, now_ns, count) else { return false };
            match level.compare_exchange_weak(seen, next, Ordering::Relaxed, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(other) => seen = other,
            }
        }
        false
    }

    /// As [`Rate::admit`], for a bucket that only one thread sees.
    pub(super) fn admit_own(&self, level: &mut u64, now_ns: u64, count: u64) -> bool {
        let next = self.next(*level, now_ns, count);
        *level = next.unwrap_or(*level);
        next.is_some()
    }

    fn next(&self, level: u64, now_ns: u64, count: u64) -> Option<u64> {
        if self.units == 0 {
            return None;
        }
        let cost = scaled(count, self.period, self.units);
        let next = level.max(now_ns).saturating_add(cost);
        (next - now_ns <= self.burst_ns).then_some(next)
    }
}

fn scaled(count: u64, period: u64, units: u64) -> u64 {
    match count.checked_mul(period) {
        Some(product) => product / units,
        None => u64::try_from(u128::from(count) * u128::from(period) / u128::from(units))
            .unwrap_or(u64::MAX),
    }
}

/// The part of an address that one site is taken to own: /24 of IPv4, /56 of IPv6. 57 bits.
pub(super) fn prefix_of(ip: IpAddr) -> u64 {
    match ip {
        IpAddr::V4(ip) => u64::from(u32::from(ip) >> 8),
        IpAddr::V6(ip) => (1 << 56) | (u128::from(ip) >> 72) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_gives_its_burst_and_then_its_pace() {
        let rate = Rate::new(10, Duration::from_secs(1), 5);
        let level = AtomicU64::new(0);
        assert_eq!((0..9).filter(|_| rate.admit(&level, 0, 1)).count(), 5);
        assert!(!rate.admit(&level, 99_000_000, 1));
        assert!(rate.admit(&level, 100_000_000, 1), "a tenth of a second earns one");
        assert_eq!((0..99).filter(|_| rate.admit(&level, 60_000_000_000, 1)).count(), 5);
    }

    #[test]
    fn large_and_zero_rates_do_not_overflow() {
        let rate = Rate::per_second(u64::MAX);
        assert!(rate.admit_own(&mut 0, u64::MAX / 2, 1 << 40));
        assert!(!Rate::per_second(0).admit_own(&mut 0, 5, 1));
    }

    #[test]
    fn neighbours_share_a_prefix() {
        let of = |text: &str| prefix_of(text.parse().unwrap());
        assert_eq!(of("10.1.2.3"), of("10.1.2.200"));
        assert_ne!(of("10.1.2.3"), of("10.1.3.3"));
        assert_eq!(of("2001:db8:0:1::1"), of("2001:db8:0:1f::9"));
        assert_ne!(of("2001:db8:0:100::1"), of("2001:db8:0:200::1"));
        assert_ne!(of("::"), of("0.0.0.0"));
    }
}
