//! The handshake (SPEC section 4): Noise IK where the responder's key is known, else XX.
//!
//! - An [`Initiator`] has an init to send, and to send again until its answer comes.
//! - The other end reads it into an [`Accepted`], learns who calls, and replies. With IK that is
//!   all; with XX a [`PendingFinish`] waits for the third message.
//! - Both ends hold an [`Established`]. snow's state is gone by then: only keys leave it.
//!
//! Forged datagrams change nothing: what waits goes on waiting for the true one.

use std::fmt;
use std::net::SocketAddr;

use snow::HandshakeState;

use super::init::{Init, NOISE_AT};
use super::kdf::Secret;
use super::noise;
use super::payload::LastPayload;
use crate::id::{Address, Boot, Epoch, PeerKey};
use crate::wire::HANDSHAKE_INIT_LEN;

mod initiator;
mod responder;
mod suite;

pub use initiator::{Completed, InitConfig, Initiator, Padding};
pub use responder::{Accepted, PendingFinish, Replied};
pub use suite::{Responder, Suite, Suites, has_aes_hardware};

/// Bytes by which a Noise message exceeds its payload at most: a key, a sealed key and a tag.
const NOISE_OVERHEAD_MAX: usize = 32 + 48 + 16;

/// Early data of an IK message 1 (SPEC section 4.7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EarlyOffer {
    /// The responder's boot value as the initiator knows it; not 0.
    pub boot: Boot,
    /// Larger than that of any earlier offer to this responder.
    pub counter: u64,
    /// Frames; see [`InitConfig::early`] for how many.
    pub frames: Vec<u8>,
}

/// Most bytes of early frames that an init has room for.
pub const EARLY_LEN_MAX: usize = HANDSHAKE_INIT_LEN - NOISE_AT - NOISE_OVERHEAD_MAX - 32;

/// What the responder says in message 2.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplyInfo {
    /// The responder's address for data packets of this session.
    pub address: Address,
    /// One of those offered.
    pub suite: Suite,
    /// Lineage of the sequence numbers it sends.
    pub epoch: Epoch,
    /// Its boot value.
    pub boot: Boot,
    /// What became of early data.
    pub early: EarlyVerdict,
    /// Server only: where the init came from.
    pub observed: Option<SocketAddr>,
    /// Server only: by which a true RESET is known.
    pub reset: Option<[u8; 16]>,
}

/// What became of early data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EarlyVerdict {
    /// There was none.
    None,
    /// It was handled.
    Accepted,
    /// It was dropped: send its content again as ordinary data.
    Rejected,
}

/// Identity of an init datagram: the same init again gets the same reply. Covers the clear header
/// and the Noise message; `None` for what is not a well-formed init.
pub fn init_id(init: &[u8]) -> Option<[u8; 16]> {
    Init::parse(init).ok()?.digest().first_chunk().copied()
}

/// The outcome of a handshake: keys for [`crate::session::Session::new`] and who is at the other
/// end.
pub struct Established {
    pub(in crate::session) root: Secret,
    hash: [u8; 32],
    remote: PeerKey,
    said: LastPayload,
    suite: Suite,
}

impl Established {
    fn new(noise: HandshakeState, said: LastPayload, suite: Suite) -> Result<Self, HandshakeError> {
        let remote = remote_of(&noise).ok_or(HandshakeError::Unauthentic)?;
        let (root, hash) = noise::finish(noise);
        Ok(Self { root, hash, remote, said, suite })
    }

    /// The other end's key.
    pub const fn remote(&self) -> PeerKey {
        self.remote
    }

    /// Lineage of the sequence numbers the other end sends.
    pub const fn remote_epoch(&self) -> Epoch {
        self.said.epoch
    }

    /// The other end's boot value.
    pub const fn remote_boot(&self) -> Boot {
        self.said.boot
    }

    /// Hash of the whole handshake; what an access token is proved over.
    pub const fn handshake_hash(&self) -> [u8; 32] {
        self.hash
    }

    /// How packets are protected.
    pub const fn suite(&self) -> Suite {
        self.suite
    }

    /// The outcome of a handshake that never was.
    #[cfg(test)]
    pub(in crate::session) const fn with_root(root: Secret, remote: PeerKey, suite: Suite) -> Self {
        let said = LastPayload { epoch: Epoch(1), boot: Boot(1) };
        Self { root, hash: [0; 32], remote, said, suite }
    }
}

impl fmt::Debug for Established {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Established").field("remote", &self.remote).finish_non_exhaustive()
    }
}

/// Why a handshake datagram was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HandshakeError {
    /// It is not what the format demands.
    #[error("malformed handshake datagram")]
    Malformed,
    /// It was not made by, or not for, the right key.
    #[error("the handshake does not authenticate")]
    Unauthentic,
    /// It brings a key whose shared secrets are zero.
    #[error("the handshake uses a key of low order")]
    WeakKey,
}

fn write(noise: &mut HandshakeState, payload: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut message = vec![0; payload.len() + NOISE_OVERHEAD_MAX];
    let len = noise.write_message(payload, &mut message)?;
    message.truncate(len);
    Ok(message)
}

fn read(noise: &mut HandshakeState, message: &[u8]) -> Result<Vec<u8>, HandshakeError> {
    let mut payload = vec![0; message.len()];
    let len = noise.read_message(message, &mut payload)?;
    payload.truncate(len);
    Ok(payload)
}

fn remote_of(noise: &HandshakeState) -> Option<PeerKey> {
    noise.get_remote_static()?.try_into().ok().map(PeerKey::from_bytes)
}
