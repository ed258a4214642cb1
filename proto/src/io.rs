//! What crosses the border between a machine and its shell besides its own inputs and outputs:
//! where datagrams come from and go to.

mod buffers;
mod ecn;

use std::net::SocketAddr;

pub use buffers::{Shortage, SocketBuffers};
pub use ecn::Ecn;

/// The kind of transport below a route. UDP is the first; stream carriers follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Carrier {
    /// One datagram of ours in one UDP datagram.
    #[default]
    Udp,
}

/// Where a datagram came from or goes to. `local` is the address it was received on, as exactly
/// as the shell knows it: an answer given the same route leaves from there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Route {
    /// What carries it.
    pub carrier: Carrier,
    /// Our side. At a server: the address asked. At a peer: the bound address of one of its
    /// sockets, as the shell announced it.
    pub local: SocketAddr,
    /// The other side, as seen from here; never an IPv4-mapped IPv6 address.
    pub remote: SocketAddr,
}

impl Route {
    /// A UDP route.
    pub const fn udp(local: SocketAddr, remote: SocketAddr) -> Self {
        Self { carrier: Carrier::Udp, local, remote }
    }
}

/// A datagram to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transmit {
    /// Where to and from where.
    pub route: Route,
    /// The UDP payload.
    pub payload: Vec<u8>,
    /// Time to live (IPv4) or hop limit (IPv6) of this datagram alone; `None`: what the system
    /// sets. A small one opens the sender's own NAT and dies before the other's.
    pub ttl: Option<u8>,
    /// Its congestion mark.
    pub ecn: Ecn,
}

impl Transmit {
    /// A datagram with the system's time to live and without a mark.
    pub const fn new(route: Route, payload: Vec<u8>) -> Self {
        Self { route, payload, ttl: None, ecn: Ecn::NotEct }
    }
}

/// Datagrams of one length and one way, to be sent in one go where the system knows how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Train {
    /// Where to and from where.
    pub route: Route,
    /// The UDP payloads, end to end: at most [`TRAIN_LEN_MAX`] bytes.
    pub payload: Vec<u8>,
    /// Bytes of each but the last one, which may be shorter.
    pub segment: usize,
    /// The congestion mark of each.
    pub ecn: Ecn,
}

/// Bytes of a train: what the length field of one UDP datagram holds, headers set aside.
pub const TRAIN_LEN_MAX: usize = 65_000;

impl Train {
    /// Its datagrams.
    pub fn datagrams(&self) -> impl Iterator<Item = &[u8]> {
        self.payload.chunks(self.segment.max(1))
    }
}
