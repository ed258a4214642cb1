//! What lives on a host: the machine contract, seen from the network.

use std::net::SocketAddr;
use std::time::Instant;

use crate::packet::Packet;

/// Something with sockets. The world calls `handle_*`, then drains [`Actor::poll_transmit`],
/// then asks for the next deadline.
pub trait Actor {
    /// A datagram for `local`, one of the host's addresses with any port. Whether a socket is
    /// bound there is the actor's business.
    fn handle_datagram(&mut self, local: SocketAddr, from: SocketAddr, data: Vec<u8>, now: Instant);

    /// The deadline of [`Actor::poll_timeout`] has come.
    fn handle_timeout(&mut self, now: Instant);

    /// The next datagram to send; its source must be an address of the host.
    fn poll_transmit(&mut self) -> Option<Packet>;

    /// The earliest deadline and its name.
    fn poll_timeout(&self) -> Option<(Instant, &'static str)>;
}
