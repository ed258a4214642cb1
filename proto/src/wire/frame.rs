//! The frames inside a sealed packet (SPEC section 6).
//!
//! A packet's plaintext is a run of frames to its end. Numbers are written out and never reused.
//! [`Frame::decode`] borrows from the packet: no frame is copied before it is looked at.

mod ack;
mod punch;
mod stream;

use std::net::SocketAddr;

pub use self::ack::{ACK_RANGES_MAX, Ack, EcnCounts};
pub use self::punch::{OpenPorts, Punch, PunchStep};
pub use self::stream::{StreamData, StreamFrame};
use super::codec::{DecodeError, Reader, Writer};
use crate::id::{Channel, ConnectId, PathId, PeerKey, Sequence};

/// Frame type numbers.
pub mod number {
    /// Filler, one byte each.
    pub const PADDING: u8 = 0x00;
    /// Keepalive; asks for OBSERVED.
    pub const PING: u8 = 0x01;
    /// Answer to PING: the address the packet came from.
    pub const OBSERVED: u8 = 0x02;
    /// Acknowledged packet numbers of one path.
    pub const ACK: u8 = 0x03;
    /// A whole message.
    pub const MESSAGE: u8 = 0x04;
    /// Part of a message.
    pub const FRAGMENT: u8 = 0x05;
    /// Every message below a sequence was delivered.
    pub const RECEIPT: u8 = 0x06;
    /// Every message below a sequence is settled; do not wait for it.
    pub const SKIP: u8 = 0x07;
    /// Raises the limit of a channel.
    pub const WINDOW: u8 = 0x08;
    /// The sender would go on but for the limit of a channel.
    pub const BLOCKED: u8 = 0x09;
    /// Nothing, but acknowledged: probes and the first packet of a session.
    pub const CONFIRM: u8 = 0x0A;
    /// Eight bytes to be returned on the same path from the address it arrived at.
    pub const PATH_CHALLENGE: u8 = 0x0B;
    /// The bytes of a PATH_CHALLENGE.
    pub const PATH_RESPONSE: u8 = 0x0C;
    /// A path will not be used again.
    pub const PATH_RETIRE: u8 = 0x0D;
    /// The sender's candidates.
    pub const CANDIDATES: u8 = 0x0E;
    /// Half of a fresh key exchange.
    pub const REKEY: u8 = 0x0F;
    /// The end of the session.
    pub const CLOSE: u8 = 0x10;
    /// Asks the server to introduce the sender to a peer and to hand over a datagram.
    pub const OPEN: u8 = 0x11;
    /// What the sender knows of its own NAT.
    pub const NAT: u8 = 0x12;
    /// One step of finding each other's ports.
    pub const PUNCH: u8 = 0x13;
    /// An ACK that also counts congestion marks.
    pub const ACK_ECN: u8 = 0x14;
    /// Bytes of a stream.
    pub const STREAM: u8 = 0x20;
    /// One direction of a stream is given up by its sender.
    pub const RESET_STREAM: u8 = 0x21;
    /// One direction of a stream is not read any more.
    pub const STOP_SENDING: u8 = 0x22;
    /// Bytes that may get lost.
    pub const DATAGRAM: u8 = 0x23;
    /// Raises the limit of a stream.
    pub const STREAM_WINDOW: u8 = 0x25;
    /// Raises the number of streams that may be opened.
    pub const STREAMS_MAX: u8 = 0x26;
    // 0x24 TICKET is reserved; 0x40 to 0x7F carry a length and are skipped where unknown.
}

/// Longest reason of a CLOSE in bytes.
pub const REASON_LEN_MAX: usize = 256;
/// Most candidates in one CANDIDATES frame; more would let one peer make another send widely.
pub const CANDIDATES_MAX: usize = 8;
/// Longest datagram inside an OPEN: leaves room for the registration in the same packet.
pub const OPEN_DATAGRAM_LEN_MAX: usize = 700;
/// Longest profile in a NAT frame: three times what this version writes.
pub const PROFILE_LEN_MAX: usize = 96;
/// Longest message (16 MiB).
pub const MESSAGE_LEN_MAX: u64 = 16 << 20;

/// One frame, borrowing variable parts from the packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame<'a> {
    /// `count` bytes of filler.
    Padding(usize),
    /// Keepalive. Not ack-eliciting.
    Ping,
    /// The address the PING's packet came from. Not ack-eliciting.
    Observed(SocketAddr),
    /// Acknowledgement for one path.
    Ack(Ack<'a>),
    /// A message or a part of one.
    Message(Message<'a>),
    /// Every message of the channel with a sequence below this was delivered.
    Receipt(Channel, Sequence),
    /// Every message of the channel with a sequence below this is settled.
    Skip(Channel, Sequence),
    /// The messages of the channel begun in this session, laid end to end, may be sent up to
    /// this position (SPEC section 7.2).
    Window(Channel, u64),
    /// The sender would go on but for the limit; everything before this position is settled.
    Blocked(Channel, u64),
    /// Ack-eliciting nothing.
    Confirm,
    /// To be returned in a PATH_RESPONSE.
    PathChallenge([u8; 8]),
    /// Returns a PATH_CHALLENGE.
    PathResponse([u8; 8]),
    /// A path will not be used again.
    PathRetire(PathId),
    /// Addresses where the sender may be reached.
    Candidates(Candidates),
    /// Half of a fresh key exchange.
    Rekey(Rekey),
    /// The end of the session: a numeric code and a sentence.
    Close(u16, &'a str),
    /// Introduce me to `target` and hand over this first datagram.
    Open(Open<'a>),
    /// What the sender knows of its own NAT: a generation that counts changes, and the profile as
    /// `traversal::nat` writes it (SPEC section 9.8).
    Nat(u64, &'a [u8]),
    /// One step of finding each other's ports.
    Punch(Punch),
    /// Something of a stream.
    Stream(StreamFrame<'a>),
    /// Bytes that may get lost.
    Datagram(&'a [u8]),
    /// A frame of the skippable range that this version does not know. Ack-eliciting.
    Unknown(u8),
}

/// A message or a part of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message<'a> {
    /// Its channel.
    pub channel: Channel,
    /// Its place in the channel.
    pub sequence: Sequence,
    /// Length of the whole message, at most [`MESSAGE_LEN_MAX`].
    pub total: u64,
    /// Where `bytes` belong; `offset + bytes.len() <= total`.
    pub offset: u64,
    /// The bytes.
    pub bytes: &'a [u8],
}

impl Message<'_> {
    /// Whether this frame holds the whole message.
    pub const fn is_whole(&self) -> bool {
        self.bytes.len() as u64 == self.total
    }
}

/// Addresses where the sender may be reached, newest generation wins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    /// Counts up whenever the sender's set changes.
    pub generation: u64,
    /// At most [`CANDIDATES_MAX`].
    pub list: Vec<Candidate>,
}

/// One address and what kind it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Candidate {
    /// How it was learned.
    pub kind: CandidateKind,
    /// Where to send.
    pub address: SocketAddr,
}

/// How a candidate was learned (RFC 8445 section 5.1.1 for the first three).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum CandidateKind {
    /// An address of an interface of the host itself.
    Host,
    /// Seen by the server (server reflexive).
    Observed,
    /// Seen by the other peer in a check (peer reflexive); never sent.
    PeerReflexive,
    /// Opened by request at the router, or seen by the server in an answer to a Binding request.
    Mapped,
    /// Guessed from how the NAT allocates ports.
    Predicted,
}

impl CandidateKind {
    const fn number(self) -> u8 {
        match self {
            Self::Host => 0,
            Self::Observed => 1,
            Self::PeerReflexive => 2,
            Self::Mapped => 3,
            Self::Predicted => 4,
        }
    }

    const fn from_number(number: u8) -> Option<Self> {
        Some(match number {
            0 => Self::Host,
            1 => Self::Observed,
            2 => Self::PeerReflexive,
            3 => Self::Mapped,
            4 => Self::Predicted,
            _ => return None,
        })
    }
}

/// Half of a fresh Diffie-Hellman exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rekey {
    /// The key generation it leads to: 1 for the first rekey of a session.
    pub generation: u32,
    /// Offer or answer.
    pub step: RekeyStep,
    /// Ephemeral X25519 public key.
    pub public: [u8; 32],
}

/// Which half a [`Rekey`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RekeyStep {
    /// Begins the exchange.
    Offer,
    /// Ends it.
    Answer,
}

/// Asks the server for an introduction and hands over a first datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Open<'a> {
    /// Whom to introduce.
    pub target: PeerKey,
    /// Chosen by the sender.
    pub connect: ConnectId,
    /// A peer-to-peer datagram, at most [`OPEN_DATAGRAM_LEN_MAX`] bytes, opaque to the server.
    pub datagram: &'a [u8],
}

impl<'a> Frame<'a> {
    /// Takes the next frame off `reader`.
    ///
    /// # Errors
    /// [`DecodeError`] for bytes that are no frame; the session must then be closed with code
    /// 400, since the packet was authentic.
    pub fn decode(reader: &mut Reader<'a>) -> Result<Self, DecodeError> {
        let kind = reader.u8()?;
        Ok(match kind {
            number::PADDING => Self::Padding(1 + skip_padding(reader)),
            number::PING => Self::Ping,
            number::OBSERVED => Self::Observed(reader.address()?),
            number::ACK => Self::Ack(Ack::decode(reader)?),
            number::ACK_ECN => Self::Ack(Ack::decode_marked(reader)?),
            number::MESSAGE => Self::Message(decode_whole(reader)?),
            number::FRAGMENT => Self::Message(decode_fragment(reader)?),
            number::RECEIPT => Self::Receipt(channel(reader)?, sequence(reader)?),
            number::SKIP => Self::Skip(channel(reader)?, sequence(reader)?),
            number::WINDOW => Self::Window(channel(reader)?, reader.varint()?),
            number::BLOCKED => Self::Blocked(channel(reader)?, reader.varint()?),
            number::CONFIRM => Self::Confirm,
            number::PATH_CHALLENGE => Self::PathChallenge(reader.array()?),
            number::PATH_RESPONSE => Self::PathResponse(reader.array()?),
            number::PATH_RETIRE => Self::PathRetire(PathId(reader.u8()?)),
            number::CANDIDATES => Self::Candidates(decode_candidates(reader)?),
            number::REKEY => Self::Rekey(decode_rekey(reader)?),
            number::CLOSE => {
                let code = reader.u16()?;
                let reason = std::str::from_utf8(reader.string(REASON_LEN_MAX)?);
                Self::Close(code, reason.map_err(|_| DecodeError::Malformed)?)
            }
            number::OPEN => Self::Open(Open {
                target: PeerKey::from_bytes(reader.array()?),
                connect: ConnectId(reader.array()?),
                datagram: reader.string(OPEN_DATAGRAM_LEN_MAX)?,
            }),
            number::NAT => Self::Nat(reader.varint()?, reader.string(PROFILE_LEN_MAX)?),
            number::PUNCH => Self::Punch(Punch::decode(reader)?),
            0x40..=0x7F => {
                reader.string(usize::MAX)?;
                Self::Unknown(kind)
            }
            number::DATAGRAM => Self::Datagram(reader.string(usize::MAX)?),
            _ => match StreamFrame::decode(kind, reader)? {
                Some(frame) => Self::Stream(frame),
                None => return Err(DecodeError::UnknownFrame(kind)),
            },
        })
    }

    /// Appends the frame.
    pub fn encode(&self, out: &mut impl Writer) {
        match self {
            Self::Padding(count) => (0..*count).for_each(|_| out.put_u8(number::PADDING)),
            Self::Ping => out.put_u8(number::PING),
            Self::Observed(address) => {
                out.put_u8(number::OBSERVED);
                out.put_address(*address);
            }
            Self::Ack(ack) => ack.encode(out),
            Self::Message(message) => encode_message(message, out),
            Self::Receipt(channel, sequence) => {
                put_pair(out, number::RECEIPT, *channel, sequence.0);
            }
            Self::Skip(channel, sequence) => put_pair(out, number::SKIP, *channel, sequence.0),
            Self::Window(channel, limit) => put_pair(out, number::WINDOW, *channel, *limit),
            Self::Blocked(channel, limit) => put_pair(out, number::BLOCKED, *channel, *limit),
            Self::Confirm => out.put_u8(number::CONFIRM),
            Self::PathChallenge(data) => {
                out.put_u8(number::PATH_CHALLENGE);
                out.put(data);
            }
            Self::PathResponse(data) => {
                out.put_u8(number::PATH_RESPONSE);
                out.put(data);
            }
            Self::PathRetire(path) => {
                out.put_u8(number::PATH_RETIRE);
                out.put_u8(path.0);
            }
            Self::Candidates(candidates) => encode_candidates(candidates, out),
            Self::Rekey(rekey) => {
                out.put_u8(number::REKEY);
                out.put_u32(rekey.generation);
                out.put_u8(match rekey.step {
                    RekeyStep::Offer => 0,
                    RekeyStep::Answer => 1,
                });
                out.put(&rekey.public);
            }
            Self::Close(code, reason) => {
                out.put_u8(number::CLOSE);
                out.put_u16(*code);
                out.put_string(reason.as_bytes());
            }
            Self::Open(open) => {
                out.put_u8(number::OPEN);
                out.put(open.target.as_bytes());
                out.put(&open.connect.0);
                out.put_string(open.datagram);
            }
            Self::Nat(generation, profile) => {
                out.put_u8(number::NAT);
                out.put_varint(*generation);
                out.put_string(profile);
            }
            Self::Punch(punch) => punch.encode(out),
            Self::Stream(frame) => frame.encode(out),
            Self::Datagram(bytes) => {
                out.put_u8(number::DATAGRAM);
                out.put_string(bytes);
            }
            Self::Unknown(kind) => {
                out.put_u8(*kind);
                out.put_string(&[]);
            }
        }
    }

    /// Whether a packet that holds this frame must be acknowledged.
    pub const fn is_ack_eliciting(&self) -> bool {
        !matches!(
            self,
            Self::Padding(_) | Self::Ping | Self::Observed(_) | Self::Ack(_) | Self::Close(..)
        )
    }
}

fn skip_padding(reader: &mut Reader<'_>) -> usize {
    let mut ahead = reader.clone();
    let mut count = 0;
    while ahead.u8() == Ok(number::PADDING) {
        *reader = ahead.clone();
        count += 1;
    }
    count
}

fn channel(reader: &mut Reader<'_>) -> Result<Channel, DecodeError> {
    reader.u8().map(Channel)
}

fn sequence(reader: &mut Reader<'_>) -> Result<Sequence, DecodeError> {
    reader.varint().map(Sequence)
}

fn decode_whole<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let (channel, sequence) = (channel(reader)?, sequence(reader)?);
    let bytes = reader.string(MESSAGE_LEN_MAX as usize)?;
    Ok(Message { channel, sequence, total: bytes.len() as u64, offset: 0, bytes })
}

fn decode_fragment<'a>(reader: &mut Reader<'a>) -> Result<Message<'a>, DecodeError> {
    let (channel, sequence) = (channel(reader)?, sequence(reader)?);
    let total = reader.varint()?;
    let offset = reader.varint()?;
    let bytes = reader.string(MESSAGE_LEN_MAX as usize)?;
    // Neither sum can overflow: a varint has 62 bits. An empty part would say nothing.
    if total > MESSAGE_LEN_MAX || offset + bytes.len() as u64 > total || bytes.is_empty() {
        return Err(DecodeError::Malformed);
    }
    Ok(Message { channel, sequence, total, offset, bytes })
}

fn encode_message(message: &Message<'_>, out: &mut impl Writer) {
    if message.is_whole() {
        put_pair(out, number::MESSAGE, message.channel, message.sequence.0);
    } else {
        put_pair(out, number::FRAGMENT, message.channel, message.sequence.0);
        out.put_varint(message.total);
        out.put_varint(message.offset);
    }
    out.put_string(message.bytes);
}

fn put_pair(out: &mut impl Writer, kind: u8, channel: Channel, value: u64) {
    out.put_u8(kind);
    out.put_u8(channel.0);
    out.put_varint(value);
}

fn decode_candidates(reader: &mut Reader<'_>) -> Result<Candidates, DecodeError> {
    let generation = reader.varint()?;
    let count = reader.u8()? as usize;
    if count > CANDIDATES_MAX {
        return Err(DecodeError::Malformed);
    }
    let list = (0..count)
        .map(|_| {
            let kind = CandidateKind::from_number(reader.u8()?).ok_or(DecodeError::Malformed)?;
            Ok(Candidate { kind, address: reader.address()? })
        })
        .collect::<Result<_, DecodeError>>()?;
    Ok(Candidates { generation, list })
}

fn encode_candidates(candidates: &Candidates, out: &mut impl Writer) {
    let list = &candidates.list[..candidates.list.len().min(CANDIDATES_MAX)];
    out.put_u8(number::CANDIDATES);
    out.put_varint(candidates.generation);
    out.put_u8(list.len() as u8);
    for candidate in list {
        out.put_u8(candidate.kind.number());
        out.put_address(candidate.address);
    }
}

fn decode_rekey(reader: &mut Reader<'_>) -> Result<Rekey, DecodeError> {
    let generation = reader.u32()?;
    let step = match reader.u8()? {
        0 => RekeyStep::Offer,
        1 => RekeyStep::Answer,
        _ => return Err(DecodeError::Malformed),
    };
    Ok(Rekey { generation, step, public: reader.array()? })
}
