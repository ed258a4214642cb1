//! STUN (RFC 8489): the server's answer to a Binding request without an allocation, a first look
//! at any STUN datagram, and, by way of stun-rs, a peer's own Binding.

mod answer;
mod places;

use std::net::{IpAddr, SocketAddr};

use stun_rs::attributes::discovery::{ChangeRequest, ChangeRequestFlags, ResponsePort};
use stun_rs::attributes::stun::{MappedAddress, Software, XorMappedAddress};
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoder, MessageEncoderBuilder, StunMessage,
    StunMessageBuilder, TransactionId, methods,
};

pub use self::answer::{ANSWER_LEN_MAX, StunDrop, StunVerdict, answer};
pub use self::places::{Places, SecondIp};
use crate::id::CheckTag;

/// Largest STUN message a peer builds or reads; far below where stun-rs' 16-bit lengths wrap.
pub const MESSAGE_LEN_MAX: usize = 1280;

/// Whether `datagram` is a Binding request whose USERNAME is `tag`: a cheap look before any
/// cryptography, proof of nothing.
pub fn is_binding_for(datagram: &[u8], tag: CheckTag) -> bool {
    Message::parse(datagram).is_some_and(|message| {
        message.kind == BINDING_REQUEST && message.has_username(&tag_text(tag))
    })
}

/// A bare Binding request, built by stun-rs.
pub fn binding_request(transaction: [u8; 12]) -> Vec<u8> {
    let message = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
        .with_transaction_id(TransactionId::from(transaction))
        .build();
    encode(&message)
}

/// A Binding request that is answered from elsewhere (RFC 5780 section 7.2), as large as the
/// largest bare answer.
pub(crate) fn changed_binding_request(transaction: [u8; 12], change: Change) -> Vec<u8> {
    let flags = match change {
        Change::Port => ChangeRequestFlags::ChangePort.into(),
        Change::IpAndPort => ChangeRequestFlags::ChangeIp | ChangeRequestFlags::ChangePort,
    };
    let builder = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
        .with_transaction_id(TransactionId::from(transaction))
        .with_attribute(ChangeRequest::new(Some(flags)));
    encode(&padded(builder).build())
}

/// A Binding request that is answered to another port of its source (RFC 5780 section 7.5), as
/// large as the largest bare answer.
pub(crate) fn redirected_binding_request(transaction: [u8; 12], port: u16) -> Vec<u8> {
    let builder = StunMessageBuilder::new(methods::BINDING, MessageClass::Request)
        .with_transaction_id(TransactionId::from(transaction))
        .with_attribute(ResponsePort::from(port));
    encode(&padded(builder).build())
}

fn padded(builder: StunMessageBuilder) -> StunMessageBuilder {
    // Far below the longest that is allowed.
    match Software::new(FILLER) {
        Ok(filler) => builder.with_attribute(filler),
        Err(_) => builder,
    }
}

/// From where an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    /// From the other port.
    Port,
    /// From the other IP and port.
    IpAndPort,
}

/// The transaction of a Binding request of anybody.
pub(crate) fn read_binding_request(datagram: &[u8]) -> Option<[u8; 12]> {
    let parsed = Message::parse(datagram).filter(|parsed| parsed.kind == BINDING_REQUEST)?;
    Some(parsed.transaction())
}

/// The transaction of a Binding request that was refused.
pub(crate) fn read_binding_error(datagram: &[u8]) -> Option<[u8; 12]> {
    let parsed = Message::parse(datagram).filter(|parsed| parsed.kind == BINDING_ERROR)?;
    Some(parsed.transaction())
}

/// Reads a success response to a Binding request with stun-rs: its transaction and the address
/// the server saw. `None` for everything else.
pub fn read_binding_response(datagram: &[u8]) -> Option<([u8; 12], SocketAddr)> {
    let parsed = Message::parse(datagram)?;
    if parsed.kind != BINDING_SUCCESS || !parsed.is_modern() || !parsed.fingerprint_holds() {
        return None;
    }
    let message = decode(datagram)?;
    Some((parsed.transaction(), mapped_address(&message)?))
}

/// Encodes with stun-rs. Our messages are small, so only a fault of ours could make it fail;
/// the result is then empty and nobody answers it.
pub(crate) fn encode(message: &StunMessage) -> Vec<u8> {
    let encoder: MessageEncoder = MessageEncoderBuilder::default().build();
    let mut bytes = vec![0; MESSAGE_LEN_MAX];
    let len = encoder.encode(&mut bytes, message).unwrap_or(0);
    bytes.truncate(len);
    bytes
}

/// Decodes with stun-rs, without any validation.
pub(crate) fn decode(datagram: &[u8]) -> Option<StunMessage> {
    if datagram.len() > MESSAGE_LEN_MAX {
        return None;
    }
    let (message, len) = MessageDecoderBuilder::default().build().decode(datagram).ok()?;
    (len == datagram.len()).then_some(message)
}

/// XOR-MAPPED-ADDRESS, else MAPPED-ADDRESS, in canonical form.
pub(crate) fn mapped_address(message: &StunMessage) -> Option<SocketAddr> {
    let modern = message.get::<XorMappedAddress>().and_then(|a| a.as_xor_mapped_address().ok());
    let classic = message.get::<MappedAddress>().and_then(|a| a.as_mapped_address().ok());
    let address =
        modern.map(|a| *a.socket_address()).or_else(|| classic.map(|a| *a.socket_address()))?;
    Some(canonical(address))
}

/// A check tag as USERNAME writes it: 16 lower-case hexadecimal digits.
pub(crate) fn tag_text(tag: CheckTag) -> [u8; 16] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = [0; 16];
    for (pair, byte) in text.chunks_exact_mut(2).zip(tag.0) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 15)];
    }
    text
}

/// An IPv4-mapped IPv6 address as the IPv4 address it means.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V4(ip) => SocketAddr::from((ip, address.port())),
        IpAddr::V6(_) => address,
    }
}

/// A STUN message whose header and length hold; attributes are read on the way.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    /// The whole datagram.
    bytes: &'a [u8],
    /// Method and class as they stand in the header.
    pub(crate) kind: u16,
}

impl<'a> Message<'a> {
    /// The datagram must be exactly one message.
    pub(crate) fn parse(bytes: &'a [u8]) -> Option<Self> {
        let header: &[u8; HEADER_LEN] = bytes.first_chunk()?;
        let kind = u16::from_be_bytes([header[0], header[1]]);
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        let sound = kind & 0xC000 == 0 && len % 4 == 0 && bytes.len() == HEADER_LEN + len;
        sound.then_some(Self { bytes, kind })
    }

    /// Whether it carries the magic cookie of RFC 5389 and later.
    pub(crate) fn is_modern(&self) -> bool {
        self.bytes[4..8] == MAGIC_COOKIE
    }

    /// The 96-bit transaction id.
    pub(crate) fn transaction(&self) -> [u8; 12] {
        let mut transaction = [0; 12];
        transaction.copy_from_slice(&self.bytes[8..HEADER_LEN]);
        transaction
    }

    /// The attributes in order.
    pub(crate) fn attributes(&self) -> Attributes<'a> {
        Attributes { bytes: self.bytes, at: HEADER_LEN }
    }

    /// Whether the first USERNAME is exactly `name`.
    pub(crate) fn has_username(&self, name: &[u8]) -> bool {
        self.find(kind::USERNAME).is_some_and(|attribute| attribute.value == name)
    }

    /// The first attribute of a kind, if all before it are sound.
    pub(crate) fn find(&self, kind: u16) -> Option<Attribute<'a>> {
        self.attributes().map_while(Result::ok).find(|attribute| attribute.kind == kind)
    }

    /// The input of an integrity attribute that starts at `at` and has `len` bytes in all: the
    /// header, with the length up to and with the attribute, and the bytes between.
    pub(crate) fn integrity_input(&self, at: usize, len: usize) -> ([u8; HEADER_LEN], &'a [u8]) {
        let mut header = [0; HEADER_LEN];
        header.copy_from_slice(&self.bytes[..HEADER_LEN]);
        let covered = (at + len - HEADER_LEN) as u16;
        header[2..4].copy_from_slice(&covered.to_be_bytes());
        (header, &self.bytes[HEADER_LEN..at])
    }

    /// No FINGERPRINT, or a right one in the last place.
    fn fingerprint_holds(&self) -> bool {
        self.find(kind::FINGERPRINT).is_none_or(|found| self.is_fingerprint(&found))
    }

    /// Whether `attribute` is the last one and the right FINGERPRINT of all before it.
    pub(crate) fn is_fingerprint(&self, attribute: &Attribute<'_>) -> bool {
        attribute.at + FINGERPRINT_LEN == self.bytes.len()
            && attribute.value == fingerprint(&self.bytes[..attribute.at])
    }
}

/// One attribute and where it starts in the datagram.
#[derive(Clone, Copy)]
pub(crate) struct Attribute<'a> {
    pub(crate) kind: u16,
    pub(crate) at: usize,
    pub(crate) value: &'a [u8],
}

/// Iterates over attributes; ends after the first that exceeds the message.
#[derive(Clone)]
pub(crate) struct Attributes<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Iterator for Attributes<'a> {
    type Item = Result<Attribute<'a>, Truncated>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.bytes.get(self.at..).filter(|rest| !rest.is_empty())?;
        let at = self.at;
        let attribute = split_attribute(rest, at);
        // After an error nothing can be read: the end is the only safe place.
        self.at = match &attribute {
            Some(found) => at + 4 + found.value.len().next_multiple_of(4),
            None => self.bytes.len(),
        };
        Some(attribute.ok_or(Truncated))
    }
}

/// An attribute is longer than what is left of the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Truncated;

fn split_attribute(rest: &[u8], at: usize) -> Option<Attribute<'_>> {
    let (head, body) = rest.split_first_chunk::<4>()?;
    let kind = u16::from_be_bytes([head[0], head[1]]);
    let len = usize::from(u16::from_be_bytes([head[2], head[3]]));
    // Padding belongs to the message; its content means nothing.
    let value = body.get(..len.next_multiple_of(4))?.get(..len)?;
    Some(Attribute { kind, at, value })
}

/// The value of FINGERPRINT over `bytes` (RFC 8489 section 14.7).
pub(crate) fn fingerprint(bytes: &[u8]) -> [u8; 4] {
    (crc32(bytes) ^ 0x5354_554E).to_be_bytes()
}

/// CRC-32 of ISO HDLC, as ITU-T V.42. Four bytes a step: what a FINGERPRINT covers always has a
/// multiple of four.
fn crc32(bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<4>();
    let crc = words.iter().fold(u32::MAX, |crc, word| {
        let [a, b, c, d] = (crc ^ u32::from_le_bytes(*word)).to_le_bytes().map(usize::from);
        CRC_TABLES[3][a] ^ CRC_TABLES[2][b] ^ CRC_TABLES[1][c] ^ CRC_TABLES[0][d]
    });
    !rest.iter().fold(crc, |crc, byte| crc_step(crc ^ u32::from(*byte)))
}

/// Moves a register on by one byte.
fn crc_step(crc: u32) -> u32 {
    CRC_TABLES[0][(crc & 0xFF) as usize] ^ (crc >> 8)
}

/// Table n moves a byte on by n + 1 bytes.
static CRC_TABLES: [[u32; 256]; 4] = {
    let mut tables = [[0; 256]; 4];
    let mut index = 0;
    while index < 256 {
        let mut crc = index as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 { (crc >> 1) ^ 0xEDB8_8320 } else { crc >> 1 };
            bit += 1;
        }
        tables[0][index] = crc;
        index += 1;
    }
    let mut entry = 256;
    while entry < 4 * 256 {
        let before = tables[entry / 256 - 1][entry % 256];
        tables[entry / 256][entry % 256] = (before >> 8) ^ tables[0][(before & 0xFF) as usize];
        entry += 1;
    }
    tables
};

/// Bytes of a STUN header.
pub(crate) const HEADER_LEN: usize = 20;
/// Bytes of a FINGERPRINT attribute with its header.
pub(crate) const FINGERPRINT_LEN: usize = 8;
const MAGIC_COOKIE: [u8; 4] = [0x21, 0x12, 0xA4, 0x42];
pub(crate) const BINDING_REQUEST: u16 = 0x0001;
pub(crate) const BINDING_SUCCESS: u16 = 0x0101;
const BINDING_ERROR: u16 = 0x0111;
/// SOFTWARE of requests whose answer must not be larger.
const FILLER: &str = "p2sp measures nat";
/// Flags of CHANGE-REQUEST (RFC 5780 section 7.2).
const CHANGE_IP: u32 = 4;
const CHANGE_PORT: u32 = 2;

/// Attribute types (IANA registry).
pub(crate) mod kind {
    pub(super) const MAPPED_ADDRESS: u16 = 0x0001;
    pub(super) const CHANGE_REQUEST: u16 = 0x0003;
    pub(super) const USERNAME: u16 = 0x0006;
    pub(super) const MESSAGE_INTEGRITY: u16 = 0x0008;
    pub(super) const ERROR_CODE: u16 = 0x0009;
    pub(super) const UNKNOWN_ATTRIBUTES: u16 = 0x000A;
    pub(super) const REALM: u16 = 0x0014;
    pub(super) const NONCE: u16 = 0x0015;
    pub(crate) const MESSAGE_INTEGRITY_SHA256: u16 = 0x001C;
    pub(super) const PASSWORD_ALGORITHM: u16 = 0x001D;
    pub(super) const USERHASH: u16 = 0x001E;
    pub(super) const XOR_MAPPED_ADDRESS: u16 = 0x0020;
    pub(super) const PADDING: u16 = 0x0026;
    pub(super) const RESPONSE_PORT: u16 = 0x0027;
    pub(super) const SOFTWARE: u16 = 0x8022;
    pub(crate) const FINGERPRINT: u16 = 0x8028;
    pub(super) const RESPONSE_ORIGIN: u16 = 0x802B;
    pub(super) const OTHER_ADDRESS: u16 = 0x802C;
}

#[cfg(test)]
mod tests;
