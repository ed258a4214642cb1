//! The machines on hosts of the world: the one place that knows their interface.
//!
//! A [`PeerHost`] runs a `Node`, carries out its effects, takes messages as an application
//! would and writes down what it is told as [`Seen`]. A [`ServerHost`] runs the three parts of
//! the rendezvous: every datagram meets `Fast` first, and `Hub` where `Fast` says so.

mod peer;
mod seen;
mod server;

use std::net::SocketAddr;
use std::time::Instant;

use rand::RngCore as _;
use rand_chacha::ChaCha12Rng;

pub use self::peer::{LAN, PeerHost, PeerSetup, Pickup};
pub use self::seen::Seen;
pub use self::server::{SERVER_PORT, ServerHost, ServerSetup};
use crate::actor::Actor;
use crate::packet::Packet;

/// What lives on a host.
pub enum Machine {
    /// A peer.
    Peer(Box<PeerHost>),
    /// A rendezvous server.
    Server(Box<ServerHost>),
}

impl Machine {
    /// The peer on this host, if there is one.
    pub fn peer(&mut self) -> Option<&mut PeerHost> {
        match self {
            Self::Peer(peer) => Some(peer),
            Self::Server(_) => None,
        }
    }

    /// The server on this host, if there is one.
    pub fn server(&mut self) -> Option<&mut ServerHost> {
        match self {
            Self::Server(server) => Some(server),
            Self::Peer(_) => None,
        }
    }
}

impl Actor for Machine {
    fn handle_datagram(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        data: Vec<u8>,
        now: Instant,
    ) {
        match self {
            Self::Peer(peer) => peer.handle_datagram(local, from, data, now),
            Self::Server(server) => server.handle_datagram(local, from, data, now),
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        match self {
            Self::Peer(peer) => peer.handle_timeout(now),
            Self::Server(server) => server.handle_timeout(now),
        }
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        match self {
            Self::Peer(peer) => peer.poll_transmit(),
            Self::Server(server) => server.poll_transmit(),
        }
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        match self {
            Self::Peer(peer) => peer.poll_timeout(),
            Self::Server(server) => server.poll_timeout(),
        }
    }
}

/// Whether a host's process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Process {
    Running,
    /// Ended without a word; hears and does nothing.
    Halted,
}

fn seed_from(rng: &mut ChaCha12Rng) -> [u8; 32] {
    let mut seed = [0; 32];
    rng.fill_bytes(&mut seed);
    seed
}
