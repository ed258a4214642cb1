//! The rules of the P2SP rendezvous protocol: everything that can be decided without a socket,
//! a clock, a file or a thread. `SPEC.md` beside this crate is the text it implements.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod control;
pub mod conversation;
pub mod hub;
pub mod id;
pub mod io;
pub mod session;
pub mod time;
pub mod transport;
pub mod traversal;
pub mod wire;
