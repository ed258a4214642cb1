//! What a responder does before any curve operation: screening, cookies, versions, resets.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use ring::hmac;
use subtle::ConstantTimeEq as _;

use super::init::{Init, version_of};
use super::kdf::{self, Secret};
use crate::id::{PeerKey, Token};
use crate::wire::codec::Writer as _;
use crate::wire::{VERSION, kind};

/// How long a cookie key is the newest; a cookie lives one to two of these.
const COOKIE_PERIOD: Duration = Duration::from_secs(60);

/// Makes and checks Retry cookies (SPEC section 4.5). The key changes every 60 s and the last two
/// are valid. It never changes itself, so all workers may share one.
pub struct CookieJar {
    seed: Secret,
    start: Instant,
}

impl CookieJar {
    /// `seed` is secret and random; periods are counted from `now`.
    pub fn new(seed: [u8; 32], now: Instant) -> Self {
        Self { seed: Secret::new(seed), start: now }
    }

    /// The RETRY datagram for this init from this address, shorter than the init; `None` for
    /// what is not a well-formed init.
    pub fn retry(&self, init: &[u8], from: SocketAddr, now: Instant) -> Option<Vec<u8>> {
        let init = Init::parse(init).ok()?;
        let mut out = Vec::with_capacity(37);
        out.put_u8(kind::RETRY);
        out.put_u32(init.receiver.0);
        out.put(&init.mac1);
        out.put(&self.cookie(self.period(now), &init, from));
        Some(out)
    }

    /// Whether `init` carries a cookie made for it and `from`. Constant time.
    pub fn is_valid(&self, init: &[u8], from: SocketAddr, now: Instant) -> bool {
        let Ok(init) = Init::parse(init) else { return false };
        let period = self.period(now);
        let newest = self.cookie(period, &init, from).ct_eq(&init.cookie);
        let last = self.cookie(period.saturating_sub(1), &init, from).ct_eq(&init.cookie);
        (newest | last).into()
    }

    fn period(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.start).as_secs() / COOKIE_PERIOD.as_secs()
    }

    fn cookie(&self, period: u64, init: &Init<'_>, from: SocketAddr) -> [u8; 16] {
        let key = kdf::expand(&*self.seed, &[b"p2sp cookie", &period.to_be_bytes()]);
        cookie(&key, &init.digest(), from)
    }
}

/// The cookie under one key, for the init with this digest.
pub(super) fn cookie(key: &[u8; 32], digest: &[u8; 32], from: SocketAddr) -> [u8; 16] {
    let mut address = Vec::with_capacity(19);
    address.put_address(from);
    kdf::mac16(&kdf::mac_key(key), &[&address, digest])
}

/// Cheap check before any curve operation: well-formed, known version and pattern, mac1 keyed by
/// our static public key (or unkeyed for XX). An init to a server must have its full length.
///
/// # Errors
/// Why the init is to be dropped, or answered with [`versions_reply`].
pub fn screen_init(init: &[u8], own: &PeerKey) -> Result<(), InitRefusal> {
    let init = Init::parse(init)?;
    if init.mac1_holds(own) { Ok(()) } else { Err(InitRefusal::BadMac) }
}

/// Why an init goes no further than [`screen_init`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InitRefusal {
    /// It is no init, cut short, or of an unknown pattern, role or suite.
    #[error("malformed init")]
    Malformed,
    /// It was not made for our key.
    #[error("the init is not for this key")]
    BadMac,
    /// It is of another version of the protocol.
    #[error("unknown protocol version")]
    UnknownVersion,
}

/// The VERSIONS answer to an init of an unknown version; `None` for anything else.
pub fn versions_reply(init: &[u8]) -> Option<Vec<u8>> {
    let (version, receiver) = version_of(init)?;
    if version == VERSION {
        return None;
    }
    let mut out = Vec::with_capacity(7);
    out.put_u8(kind::VERSIONS);
    out.put_u32(receiver.0);
    out.put(&[1, VERSION]);
    Some(out)
}

/// A server's secret for RESET (SPEC section 5.6). Kept on disk, so that a restarted server can
/// still tell its former peers that it has forgotten them.
pub struct ResetKey {
    key: hmac::Key,
}

impl ResetKey {
    /// `key` is secret and random.
    pub fn new(key: [u8; 32]) -> Self {
        Self { key: kdf::mac_key(&*Secret::new(key)) }
    }

    /// What the holder of `token` is given in the handshake, to know a true RESET by.
    pub fn tag(&self, token: Token) -> [u8; 16] {
        kdf::mac16(&self.key, &[&token.0.to_be_bytes()])
    }

    /// The RESET datagram: 25 bytes, fewer than any packet that may trigger it.
    pub fn datagram(&self, token: Token) -> Vec<u8> {
        let mut out = Vec::with_capacity(25);
        out.put_u8(kind::RESET);
        out.put_u64(token.0);
        out.put(&self.tag(token));
        out
    }
}

/// Whether `datagram` is the RESET for `token`, whose holder was given `tag`. Constant time.
pub fn is_reset(datagram: &[u8], token: Token, tag: &[u8; 16]) -> bool {
    let mut expected = [0; 25];
    expected[0] = kind::RESET;
    expected[1..9].copy_from_slice(&token.0.to_be_bytes());
    expected[9..].copy_from_slice(tag);
    datagram.ct_eq(&expected).into()
}
