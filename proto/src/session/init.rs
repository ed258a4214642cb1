//! The layout of HANDSHAKE_INIT (SPEC section 4.2): read without any key, and stamped with mac1.

use subtle::ConstantTimeEq as _;

use super::cookie::InitRefusal;
use super::handshake::{Responder, Suites};
use super::kdf;
use crate::id::{PeerKey, ReceiverId};
use crate::wire::codec::Reader;
use crate::wire::{HANDSHAKE_INIT_LEN, VERSION, kind};

/// Bytes before mac1: what the prologue, mac1 and the init's identity cover.
pub(super) const HEAD_LEN: usize = 12;
/// Where the cookie stands.
pub(super) const COOKIE_AT: usize = 28;
/// Where Noise message 1 begins.
pub(super) const NOISE_AT: usize = 44;
/// Length of Noise message 1 of XX: a key and no payload.
pub(super) const XX_LEN: usize = 32;

/// Noise pattern, as the init names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pattern {
    /// The initiator knows the responder's key.
    Ik,
    /// It does not.
    Xx,
}

/// A well-formed HANDSHAKE_INIT of this version; nothing is authenticated.
#[derive(Clone, Copy)]
pub(super) struct Init<'a> {
    pub(super) head: &'a [u8],
    pub(super) pattern: Pattern,
    pub(super) responder: Responder,
    pub(super) suites: Suites,
    pub(super) receiver: ReceiverId,
    pub(super) mac1: [u8; 16],
    pub(super) cookie: [u8; 16],
    pub(super) noise: &'a [u8],
}

impl<'a> Init<'a> {
    /// Splits the datagram. An init to a server is always sent to an address and therefore full
    /// length, so that no answer is larger; one to a peer may have come through a relay.
    pub(super) fn parse(datagram: &'a [u8]) -> Result<Self, InitRefusal> {
        let (version, receiver) = version_of(datagram).ok_or(InitRefusal::Malformed)?;
        if version != VERSION {
            return Err(InitRefusal::UnknownVersion);
        }
        let init = Self::read(datagram, receiver).ok_or(InitRefusal::Malformed)?;
        let short = init.responder == Responder::Server && datagram.len() != HANDSHAKE_INIT_LEN;
        if short || (init.pattern == Pattern::Xx && init.noise.len() != XX_LEN) {
            return Err(InitRefusal::Malformed);
        }
        Ok(init)
    }

    fn read(datagram: &'a [u8], receiver: ReceiverId) -> Option<Self> {
        if datagram.len() > HANDSHAKE_INIT_LEN {
            return None;
        }
        let mut reader = Reader::new(datagram);
        let head = reader.bytes(HEAD_LEN).ok()?;
        let &[_, _, pattern, role, suites, 0, len_high, len_low, ..] = head else { return None };
        let pattern = match pattern {
            0 => Pattern::Ik,
            1 => Pattern::Xx,
            _ => return None,
        };
        Some(Self {
            head,
            pattern,
            responder: Responder::from_wire(role)?,
            suites: Suites::from_wire(suites)?,
            receiver,
            mac1: reader.array().ok()?,
            cookie: reader.array().ok()?,
            noise: reader.bytes(usize::from(u16::from_be_bytes([len_high, len_low]))).ok()?,
        })
    }

    /// Whether mac1 is right for a responder with this key.
    pub(super) fn mac1_holds(&self, own: &PeerKey) -> bool {
        mac1(self.pattern, own, self.head, self.noise).ct_eq(&self.mac1).into()
    }

    /// What makes two inits the same one: everything but mac1, cookie and padding.
    pub(super) fn digest(&self) -> [u8; 32] {
        kdf::sha256(&[self.head, self.noise])
    }
}

/// Version and receiver id of an init of any version.
pub(super) fn version_of(datagram: &[u8]) -> Option<(u8, ReceiverId)> {
    let mut reader = Reader::new(datagram.get(..HEAD_LEN)?);
    let is_init = reader.u8().ok()? == kind::HANDSHAKE_INIT;
    let version = reader.u8().ok()?;
    reader.bytes(6).ok()?;
    let receiver = ReceiverId(reader.u32().ok()?);
    is_init.then_some((version, receiver))
}

/// Keyed by the responder's public key, so that what was not meant for it costs it one hash; with
/// XX, where the key is not known, by zero bytes.
pub(super) fn mac1(pattern: Pattern, responder: &PeerKey, head: &[u8], noise: &[u8]) -> [u8; 16] {
    let key = match pattern {
        Pattern::Ik => kdf::expand(responder.as_bytes(), &[b"p2sp mac1"]),
        Pattern::Xx => kdf::Secret::default(),
    };
    kdf::mac16(&kdf::mac_key(&*key), &[head, noise])
}
