//! A simulated internet for machines that have no socket, clock, file or thread.
//!
//! Everything happens in virtual time and follows from one seed.
//!
//! - [`World`] holds zones, gates, hosts and the datagrams under way; it is generic over the
//!   [`Actor`] that lives on its hosts, so that a test can put an echo there and the scenarios
//!   the real machines.
//! - [`link`], [`nat`] and [`firewall`] are what happens to a datagram on its way.
//! - [`traffic`] counts who reached whom; whether a pair is direct is judged there, and not by
//!   what the machines say of themselves.
//! - [`oracle`] says from RFC 4787 alone what is possible between two sides.
//! - [`model`] says which messages must have arrived.
//! - [`pair`] is a world of its own: two conversations, lines, and a list of what was said.
//! - [`machines`] is the one place that knows the machines' interface.
//! - [`scenario`] puts all of it together; the binary `sim` runs scenarios over many seeds.

pub mod actor;
pub mod clock;
pub mod firewall;
pub mod link;
pub mod machines;
pub mod model;
pub mod nat;
pub mod oracle;
pub mod packet;
pub mod pair;
pub mod scenario;
pub mod topology;
pub mod trace;
pub mod traffic;
mod world;

pub use actor::Actor;
pub use clock::Clock;
pub use link::Link;
pub use nat::NatConfig;
pub use packet::Packet;
pub use topology::{GateId, HostId, ZoneId};
pub use world::{Stuck, World, socket};
