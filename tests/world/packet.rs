//! What travels: one UDP datagram under its addresses.

use std::net::{IpAddr, SocketAddr};

/// A UDP datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Packet {
    /// Source as the present hop sees it; NAT boxes rewrite it.
    pub src: SocketAddr,
    /// Destination as the present hop sees it.
    pub dst: SocketAddr,
    /// UDP payload.
    pub payload: Vec<u8>,
    /// Routers it may still pass.
    pub ttl: u8,
}

/// What systems set where nothing else is asked for.
const TTL: u8 = 64;

impl Packet {
    /// A datagram from `src` to `dst`.
    pub fn new(src: SocketAddr, dst: SocketAddr, payload: impl Into<Vec<u8>>) -> Self {
        Self { src, dst, payload: payload.into(), ttl: TTL }
    }

    /// The same datagram with another time to live, if there is one.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Option<u8>) -> Self {
        self.ttl = ttl.unwrap_or(TTL);
        self
    }

    /// Counts the packet through `routers` routers, which forward nothing whose time is up
    /// (RFC 1812 section 5.3.1).
    ///
    /// # Errors
    /// A word for the trace when one of them drops it.
    pub fn pass(&mut self, routers: u8) -> Result<(), &'static str> {
        match self.ttl.checked_sub(routers) {
            Some(ttl) if ttl > 0 => self.ttl = ttl,
            Some(_) | None => return Err("ttl expired"),
        }
        Ok(())
    }

    /// Bytes of the IP packet, headers included.
    pub fn ip_len(&self) -> usize {
        let headers = match self.dst.ip() {
            IpAddr::V4(_) => 20 + 8,
            IpAddr::V6(_) => 40 + 8,
        };
        self.payload.len() + headers
    }
}

/// The datagram's family by its first byte, for people who read traces.
pub(crate) const fn family(payload: &[u8]) -> &'static str {
    let Some(first) = payload.first() else { return "empty" };
    match *first {
        0x00..=0x03 => "stun",
        0x04 => "init",
        0x05 => "reply",
        0x06 => "finish",
        0x07 => "retry",
        0x08 | 0x09 => "data",
        0x0A => "relay",
        0x0B => "reset",
        0x0C => "stale",
        0x0D => "versions",
        0x0E => "beacon",
        _ => "other",
    }
}
