//! Bytes and types: datagram families by first byte (SPEC section 2) and their clear headers.
//!
//! Nothing here holds a key or a state. [`Family::of`] is the first look at every datagram.

pub mod beacon;
pub mod codec;
pub mod frame;
pub mod stun;
#[cfg(test)]
mod tests;

use crate::id::{ReceiverId, RelayChannel, Token};
use codec::{DecodeError, Reader, Writer as _};

/// The protocol version spoken here.
pub const VERSION: u8 = 1;
/// Every HANDSHAKE_INIT sent to an address is padded to this, so that no answer is larger.
pub const HANDSHAKE_INIT_LEN: usize = 1200;
/// Largest UDP payload that every path is assumed to carry.
pub const DATAGRAM_LEN_BASE: usize = 1200;
/// Largest UDP payload ever sent: what fits a 1500-byte path under IPv6.
pub const DATAGRAM_LEN_MAX: usize = 1452;
/// Bytes a relay frame puts before the peer's datagram.
pub const RELAY_HEADER_LEN: usize = 12;

/// First bytes of the P2SP family.
pub mod kind {
    /// First message of a handshake.
    pub const HANDSHAKE_INIT: u8 = 0x04;
    /// Second message of a handshake.
    pub const HANDSHAKE_REPLY: u8 = 0x05;
    /// Third message of an XX handshake.
    pub const HANDSHAKE_FINISH: u8 = 0x06;
    /// Asks the initiator to come again with a cookie.
    pub const RETRY: u8 = 0x07;
    /// Sealed packet, key phase 0.
    pub const DATA_0: u8 = 0x08;
    /// Sealed packet, key phase 1.
    pub const DATA_1: u8 = 0x09;
    /// A peer's datagram on its way through the server.
    pub const RELAY: u8 = 0x0A;
    /// The server does not know the token.
    pub const RESET: u8 = 0x0B;
    /// The server knows the token but not the address.
    pub const STALE: u8 = 0x0C;
    /// The versions a responder speaks.
    pub const VERSIONS: u8 = 0x0D;
    /// A peer tells the network's other peers on its LAN that it is there.
    pub const BEACON: u8 = 0x0E;
}

/// What a datagram is, by its first byte.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// RFC 8489, first byte 0x00 to 0x03.
    Stun,
    /// Handshake, first message.
    HandshakeInit,
    /// Handshake, second message.
    HandshakeReply,
    /// Handshake, third message of XX.
    HandshakeFinish,
    /// Come again with a cookie.
    Retry,
    /// Sealed packet.
    Data,
    /// Relay frame.
    Relay,
    /// Unknown token.
    Reset,
    /// Unknown address for the token.
    Stale,
    /// Spoken versions.
    Versions,
    /// A peer of the same LAN is there.
    Beacon,
    /// Anything else: counted and dropped.
    Other,
}

impl Family {
    /// Looks at the first byte only.
    pub const fn of(datagram: &[u8]) -> Self {
        let Some(first) = datagram.first() else { return Self::Other };
        match *first {
            0x00..=0x03 => Self::Stun,
            kind::HANDSHAKE_INIT => Self::HandshakeInit,
            kind::HANDSHAKE_REPLY => Self::HandshakeReply,
            kind::HANDSHAKE_FINISH => Self::HandshakeFinish,
            kind::RETRY => Self::Retry,
            kind::DATA_0 | kind::DATA_1 => Self::Data,
            kind::RELAY => Self::Relay,
            kind::RESET => Self::Reset,
            kind::STALE => Self::Stale,
            kind::VERSIONS => Self::Versions,
            kind::BEACON => Self::Beacon,
            _ => Self::Other,
        }
    }
}

/// The clear header of a relay frame; the peer's datagram follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RelayHeader {
    /// Towards the server: the counterpart as the sender numbers it; from the server: as the
    /// receiver numbers it.
    pub channel: RelayChannel,
    /// The session token of the peer that sends, or receives, the frame.
    pub token: Token,
}

impl RelayHeader {
    /// Splits a relay frame into its header and the datagram inside.
    ///
    /// # Errors
    /// [`DecodeError`] when it is too short or its flags are not zero.
    pub fn decode(frame: &[u8]) -> Result<(Self, &[u8]), DecodeError> {
        let mut reader = Reader::new(frame);
        if reader.u8()? != kind::RELAY || reader.u8()? != 0 {
            return Err(DecodeError::Malformed);
        }
        let channel = RelayChannel(reader.u16()?);
        let token = Token(reader.u64()?);
        Ok((Self { channel, token }, reader.rest()))
    }

    /// The header's bytes.
    pub fn encode(&self) -> [u8; RELAY_HEADER_LEN] {
        let mut bytes = [0; RELAY_HEADER_LEN];
        bytes[0] = kind::RELAY;
        bytes[2..4].copy_from_slice(&self.channel.0.to_be_bytes());
        bytes[4..].copy_from_slice(&self.token.0.to_be_bytes());
        bytes
    }
}

/// The server's word that a token is known but not from this address.
pub fn encode_stale(token: Token) -> Vec<u8> {
    let mut out = Vec::with_capacity(9);
    out.put_u8(kind::STALE);
    out.put_u64(token.0);
    out
}

/// The token that follows the first byte of a STALE, RESET or data packet to a server.
///
/// # Errors
/// [`DecodeError::Truncated`] when it is too short.
pub fn token_of(datagram: &[u8]) -> Result<Token, DecodeError> {
    let mut reader = Reader::new(datagram);
    reader.u8()?;
    reader.u64().map(Token)
}

/// The receiver id that follows the first byte of a datagram to a peer.
///
/// # Errors
/// [`DecodeError::Truncated`] when it is too short.
pub fn receiver_of(datagram: &[u8]) -> Result<ReceiverId, DecodeError> {
    let mut reader = Reader::new(datagram);
    reader.u8()?;
    reader.u32().map(ReceiverId)
}
