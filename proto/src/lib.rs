//! The rules of the P2SP rendezvous protocol: everything that can be decided without a socket,
//! a clock, a file or a thread. `SPEC.md` beside this crate is the text it implements.
//!
//! # Where to read
//! ```text
//!   hub            node               two whole machines: the server's, the peer's
//!    │               │  └ traversal   finding a direct path (ICE-like)
//!    └ conversation ─┘                one other end: a session and its messages
//!        │       └ transport          messages over several paths: ack, loss, congestion
//!        └ session                    keys: handshake, packet protection, replay, rekey
//!   control        wire               JSON requests; bytes and types
//!   id  io  time                      one type per meaning
//! ```
//! Arrows point down only: parts know nothing of wholes, hub and node nothing of each other.
//!
//! # The contract of a machine
//! [`hub::Hub`] and [`node::Node`] are driven the same way, by a shell that owns the sockets,
//! the clock and the disk, and in tests by a simulated internet:
//!
//! ```text
//!   new(config, seed, now, unix_now)     the seed decides every random choice
//!   handle_input(input, now)             a datagram, a command, the result of an effect
//!   handle_timeout(now)                  late and spurious calls are harmless
//!   poll_output() -> Option<Output>      Transmit | Event | Effect; drain it after a handle_* or a few
//!   poll_timeout() -> Option<(Instant, name)>   when to call handle_timeout, and why
//! ```
//!
//! The loop of a shell is: drain outputs, arm one timer, wait for a datagram, a command, a
//! result or the timer, read the clock, call `handle_*` for what came together, again. `now` never
//! comes from anywhere else, so the same bytes, times and seed give the same datagrams.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod control;
pub mod conversation;
pub mod hub;
pub mod id;
pub mod io;
pub mod node;
pub mod session;
pub mod time;
pub mod transport;
pub mod traversal;
#[cfg(test)]
mod vectors;
pub mod wire;
