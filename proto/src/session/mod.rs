//! Keys: the handshake, packet protection, replay windows, rekeying, cookies and resets
//! (SPEC sections 4 and 5).
//!
//! What an observer can do: see sizes, times and the ids in clear headers; nothing it sends,
//! repeats or alters is taken for the other end's. What a thief of a static key can do: be its
//! owner from then on, and read early data sent to it before; nothing else sent before.

pub mod cookie;
pub mod handshake;
mod init;
mod kdf;
pub mod key;
pub mod lan;
mod noise;
mod payload;
mod rekey;
pub mod replay;
pub mod seal;
#[cfg(test)]
mod tests;
pub mod token;
#[cfg(test)]
mod vectors;

pub use cookie::*;
pub use handshake::*;
pub use key::{StaticKey, check_keys};
pub use lan::*;
pub use seal::*;
pub use token::*;
