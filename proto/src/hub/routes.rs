//! What the hub shares with the workers.

use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::Config;
use super::counters::{Cells, Count, Counters};
use super::limits::Rate;
use super::slots::Slots;
use super::sources::{Class, Sources};
use crate::id::PeerKey;
use crate::session::cookie::{CookieJar, ResetKey};
use crate::wire::stun::Places;

/// Inits per second that may come without a cookie, in all. Each costs four curve operations,
/// about 200 microseconds of one core.
const OPEN_HANDSHAKES_PER_SECOND: u64 = 2_000;
/// Handshakes under way from which on every init needs a cookie.
const PRESSURE_MAX: u64 = 64;

/// What a worker shares with the hub: the slot table (atomics), relay channels, source limits,
/// counters.
pub struct Routes {
    pub(super) slots: Slots,
    pub(super) sources: Sources,
    pub(super) cells: Cells,
    pub(super) cookies: CookieJar,
    pub(super) resets: ResetKey,
    pub(super) key: PeerKey,
    pub(super) places: Places,
    pub(super) relay_rate: Rate,
    start: Instant,
    pressure: AtomicU64,
    open_handshakes: AtomicU64,
    open_rate: Rate,
}

/// The secrets of [`Routes`], drawn from the hub's seed.
pub(super) struct Secrets {
    pub(super) cookie_seed: [u8; 32],
    pub(super) source_keys: (u64, u64),
}

impl Routes {
    pub(super) fn new(config: &Config, secrets: Secrets, now: Instant) -> Self {
        let limits = &config.limits;
        // A quarter of a second of traffic at once, and always a few datagrams.
        let burst = (limits.relay_bytes_per_second / 4).max(16_384);
        Self {
            slots: Slots::new(limits.sessions_max as usize),
            sources: Sources::new(limits, secrets.source_keys),
            cells: Cells::default(),
            cookies: CookieJar::new(secrets.cookie_seed, now),
            resets: ResetKey::new(config.reset_key),
            key: config.static_key.public(),
            places: config.places.clone(),
            relay_rate: Rate::new(limits.relay_bytes_per_second, Duration::from_secs(1), burst),
            start: now,
            pressure: AtomicU64::new(0),
            open_handshakes: AtomicU64::new(0),
            open_rate: Rate::per_second(OPEN_HANDSHAKES_PER_SECOND),
        }
    }

    /// A snapshot of the counters.
    pub fn counters(&self) -> Counters {
        self.cells.snapshot()
    }

    pub(super) fn count(&self, count: Count) {
        self.cells.add(count, 1);
    }

    pub(super) fn now_ns(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_nanos() as u64
    }

    pub(super) fn now_s(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs()
    }

    pub(super) fn set_pressure(&self, handshakes_under_way: usize) {
        self.pressure.store(handshakes_under_way as u64, Ordering::Relaxed);
    }

    /// Whether an init from `ip` must show that it can be answered there.
    pub(super) fn needs_cookie(&self, ip: IpAddr, now_ns: u64) -> bool {
        self.pressure.load(Ordering::Relaxed) >= PRESSURE_MAX
            || !self.sources.admit(Class::Handshake, ip, now_ns)
            || !self.open_rate.admit(&self.open_handshakes, now_ns, 1)
    }
}
