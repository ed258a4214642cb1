//! The server's answer to a Binding request, and from where and to where it goes (RFC 5780).
//!
//! An answer is no larger than the question, with one exception: the bare answer back to where
//! the question came from, which is 12 bytes larger than a bare request over IPv4 and 24 over
//! IPv6. OTHER-ADDRESS, RESPONSE-ORIGIN, SOFTWARE and FINGERPRINT are left out where they do not
//! fit. The server holds no credentials: it ignores integrity.

use std::net::{IpAddr, SocketAddr};

use super::places::Places;
use super::{
    BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, CHANGE_IP, CHANGE_PORT, FINGERPRINT_LEN,
    HEADER_LEN, Message, Truncated, canonical, fingerprint, kind,
};
use crate::io::Route;

/// Largest answer of [`answer`], in bytes.
pub const ANSWER_LEN_MAX: usize = 128;

/// What [`answer`] decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunVerdict {
    /// Send this many bytes of the buffer.
    Answer {
        /// How many.
        len: usize,
        /// From where and to where: the way the request came, unless it asked for another.
        route: Route,
    },
    /// Send nothing.
    Drop(StunDrop),
}

/// Why a STUN datagram gets no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StunDrop {
    /// Its FINGERPRINT is wrong.
    Fingerprint,
    /// Lengths or attributes do not add up.
    Malformed,
    /// A method other than Binding (RFC 8489 section 6.3: silently discarded).
    Method,
    /// An indication or a response.
    NotRequest,
}

/// Answers a Binding request of anybody: what the server does for the whole world.
///
/// `route` is the way the request came; an IPv4-mapped source is answered as IPv4. A request
/// without the magic cookie is one of RFC 3489 and gets MAPPED-ADDRESS (RFC 8489 section 11).
/// CHANGE-REQUEST and RESPONSE-PORT are understood where the server can do what they ask and the
/// request is no smaller than the bare answer: so they make nobody send more than he received.
pub fn answer(
    request: &[u8],
    route: Route,
    places: &Places,
    out: &mut [u8; ANSWER_LEN_MAX],
) -> StunVerdict {
    let Some(message) = Message::parse(request) else {
        return StunVerdict::Drop(StunDrop::Malformed);
    };
    match message.kind {
        BINDING_REQUEST => {}
        kind if kind & CLASS_MASK == 0 => return StunVerdict::Drop(StunDrop::Method),
        _ => return StunVerdict::Drop(StunDrop::NotRequest),
    }
    let asked = Route { remote: canonical(route.remote), ..route };
    match Survey::of(&message, asked, places) {
        Err(reason) => StunVerdict::Drop(reason),
        Ok(survey) => {
            let len = write_answer(&message, &survey, asked.remote, places, out);
            // What is refused goes back the way it came.
            let route = if survey.unknown_count == 0 { survey.route } else { asked };
            StunVerdict::Answer { len, route }
        }
    }
}

/// Bytes of an answer that holds nothing but the source of the request.
const fn bare_len(source: IpAddr) -> usize {
    HEADER_LEN + 4 + if source.is_ipv4() { 8 } else { 20 }
}

/// What a request's attributes ask of the server.
struct Survey {
    /// Comprehension-required attributes that are not understood, in order.
    unknown: [u16; UNKNOWN_MAX],
    unknown_count: usize,
    fingerprint: bool,
    /// The address that was asked.
    asked_at: SocketAddr,
    /// From where and to where the answer is asked to go.
    route: Route,
}

impl Survey {
    fn of(message: &Message<'_>, route: Route, places: &Places) -> Result<Self, StunDrop> {
        let mut survey = Self {
            unknown: [0; UNKNOWN_MAX],
            unknown_count: 0,
            fingerprint: false,
            asked_at: route.local,
            route,
        };
        // Who asks for an answer elsewhere pays for it with as many bytes.
        let pays = message.bytes.len() >= bare_len(route.remote.ip());
        let mut after_integrity = false;
        for attribute in message.attributes() {
            let attribute = attribute.map_err(|Truncated| StunDrop::Malformed)?;
            match attribute.kind {
                kind::FINGERPRINT if message.is_fingerprint(&attribute) => {
                    survey.fingerprint = true;
                }
                kind::FINGERPRINT => return Err(StunDrop::Fingerprint),
                // RFC 8489 sections 14.5 and 14.6: what follows integrity is ignored.
                kind::MESSAGE_INTEGRITY | kind::MESSAGE_INTEGRITY_SHA256 => after_integrity = true,
                kind if after_integrity || understood(kind, attribute.value) => {}
                kind::CHANGE_REQUEST if pays && survey.change(attribute.value, places) => {}
                kind::RESPONSE_PORT if pays && survey.redirect(attribute.value) => {}
                kind => survey.add_unknown(kind),
            }
        }
        Ok(survey)
    }

    /// CHANGE-REQUEST (RFC 5780 section 7.2); false where there is no such place.
    fn change(&mut self, value: &[u8], places: &Places) -> bool {
        let Ok(flags) = value.try_into().map(u32::from_be_bytes) else { return false };
        let local = self.route.local;
        let port =
            if flags & CHANGE_PORT == 0 { Some(local.port()) } else { places.other_port(local) };
        let ip = if flags & CHANGE_IP == 0 { Some(local.ip()) } else { places.other_ip(local) };
        let (Some(ip), Some(port)) = (ip, port) else { return false };
        self.route.local = SocketAddr::new(ip, port);
        true
    }

    /// RESPONSE-PORT (RFC 5780 section 7.5): another port of the same address.
    fn redirect(&mut self, value: &[u8]) -> bool {
        let port = match value {
            // RFC 5780 counts the padding, some clients do not.
            [high, low] | [high, low, _, _] => u16::from_be_bytes([*high, *low]),
            _ => 0,
        };
        self.route.remote.set_port(port);
        port != 0
    }

    fn add_unknown(&mut self, kind: u16) {
        if self.unknown[..self.unknown_count].contains(&kind) {
            return;
        }
        if let Some(slot) = self.unknown.get_mut(self.unknown_count) {
            *slot = kind;
            self.unknown_count += 1;
        }
    }
}

/// Comprehension-optional, or of RFC 8489 itself, or without effect here. The rest, ICE among it,
/// is not for this server.
fn understood(kind: u16, value: &[u8]) -> bool {
    match kind {
        0x8000.. => true,
        kind::CHANGE_REQUEST => value == [0; 4],
        kind::MAPPED_ADDRESS
        | kind::USERNAME
        | kind::ERROR_CODE
        | kind::UNKNOWN_ATTRIBUTES
        | kind::REALM
        | kind::NONCE
        | kind::PASSWORD_ALGORITHM
        | kind::USERHASH
        | kind::XOR_MAPPED_ADDRESS
        | kind::PADDING => true,
        _ => false,
    }
}

fn write_answer(
    request: &Message<'_>,
    survey: &Survey,
    source: SocketAddr,
    places: &Places,
    out: &mut [u8; ANSWER_LEN_MAX],
) -> usize {
    let mut answer = Answer { bytes: out, len: HEADER_LEN };
    answer.bytes[4..HEADER_LEN].copy_from_slice(&request.bytes[4..HEADER_LEN]);
    let room = request.bytes.len();
    if survey.unknown_count == 0 {
        answer.put_kind(BINDING_SUCCESS);
        answer.put_mapped(request, source);
    } else {
        answer.put_kind(BINDING_ERROR);
        answer.put_error(request, survey, room);
    }
    if request.is_modern() {
        answer.put_extras(request, survey, places);
    }
    answer.put_length();
    answer.len
}

/// The answer as it grows. [`ANSWER_LEN_MAX`] holds the largest: see its test.
struct Answer<'o> {
    bytes: &'o mut [u8; ANSWER_LEN_MAX],
    len: usize,
}

impl Answer<'_> {
    fn put_kind(&mut self, kind: u16) {
        self.bytes[..2].copy_from_slice(&kind.to_be_bytes());
    }

    fn put_length(&mut self) {
        let len = (self.len - HEADER_LEN) as u16;
        self.bytes[2..4].copy_from_slice(&len.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.len..self.len + bytes.len()].copy_from_slice(bytes);
        self.len += bytes.len();
    }

    fn put_u16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    fn put_attribute(&mut self, kind: u16, value: &[u8]) {
        self.put_u16(kind);
        self.put_u16(value.len() as u16);
        self.put(value);
        let padding = self.len.next_multiple_of(4) - self.len;
        self.put(&[0; 3][..padding]);
    }

    /// XOR-MAPPED-ADDRESS, or MAPPED-ADDRESS for a request of RFC 3489.
    fn put_mapped(&mut self, request: &Message<'_>, source: SocketAddr) {
        let (kind, mask) = if request.is_modern() {
            (kind::XOR_MAPPED_ADDRESS, &request.bytes[4..HEADER_LEN])
        } else {
            (kind::MAPPED_ADDRESS, [0; 16].as_slice())
        };
        let (mut value, len) = address_value(source);
        xor(&mut value[2..4], &mask[..2]);
        xor(&mut value[4..], mask);
        self.put_attribute(kind, &value[..len]);
    }

    /// ERROR-CODE 420 and UNKNOWN-ATTRIBUTES; the reason phrase only when it fits.
    fn put_error(&mut self, request: &Message<'_>, survey: &Survey, room: usize) {
        let list = UnknownList::of(request, survey, room);
        let bare = HEADER_LEN + 8 + 4 + list.len.next_multiple_of(4);
        let phrase = if bare + REASON.len().next_multiple_of(4) <= room { REASON } else { &[] };
        let mut code = [0; 4 + REASON.len()];
        code[2] = 4;
        code[3] = 20;
        code[4..4 + phrase.len()].copy_from_slice(phrase);
        self.put_attribute(kind::ERROR_CODE, &code[..4 + phrase.len()]);
        self.put_attribute(kind::UNKNOWN_ATTRIBUTES, &list.bytes[..list.len]);
    }

    /// What a client may like to know, the most useful first, as far as it fits beside
    /// FINGERPRINT; FINGERPRINT where it was used and fits.
    fn put_extras(&mut self, request: &Message<'_>, survey: &Survey, places: &Places) {
        let room = request.bytes.len();
        let fingerprint = survey.fingerprint && self.len + FINGERPRINT_LEN <= room;
        let room = room - if fingerprint { FINGERPRINT_LEN } else { 0 };
        if survey.unknown_count == 0 {
            if let Some(other) = places.other_address(survey.asked_at) {
                self.put_address_within(room, kind::OTHER_ADDRESS, other);
            }
            let origin = places.public(survey.route.local);
            self.put_address_within(room, kind::RESPONSE_ORIGIN, origin);
        }
        if self.len + 4 + SOFTWARE.len() <= room {
            self.put_attribute(kind::SOFTWARE, SOFTWARE);
        }
        if fingerprint {
            self.len += FINGERPRINT_LEN;
            self.put_length();
            self.len -= FINGERPRINT_LEN;
            let value = self::fingerprint(&self.bytes[..self.len]);
            self.put_attribute(kind::FINGERPRINT, &value);
        }
    }

    fn put_address_within(&mut self, room: usize, kind: u16, address: SocketAddr) {
        let (value, len) = address_value(address);
        if self.len + 4 + len <= room && !address.ip().is_unspecified() {
            self.put_attribute(kind, &value[..len]);
        }
    }
}

/// An address as MAPPED-ADDRESS and its kin write it (RFC 8489 section 14.1), and its length.
fn address_value(address: SocketAddr) -> ([u8; 20], usize) {
    let mut value = [0; 20];
    let len = match address.ip() {
        IpAddr::V4(ip) => {
            value[1] = 1;
            value[4..8].copy_from_slice(&ip.octets());
            8
        }
        IpAddr::V6(ip) => {
            value[1] = 2;
            value[4..20].copy_from_slice(&ip.octets());
            20
        }
    };
    value[2..4].copy_from_slice(&address.port().to_be_bytes());
    (value, len)
}

/// The value of UNKNOWN-ATTRIBUTES.
struct UnknownList {
    bytes: [u8; 2 * UNKNOWN_MAX],
    len: usize,
}

impl UnknownList {
    /// As many as make an answer no larger than the question or the smallest error there is.
    fn of(request: &Message<'_>, survey: &Survey, room: usize) -> Self {
        let mut list = Self { bytes: [0; 2 * UNKNOWN_MAX], len: 0 };
        let fitting = (room.max(ERROR_LEN_MIN) - (ERROR_LEN_MIN - 4)) / 2;
        let known = &survey.unknown[..survey.unknown_count.min(fitting)];
        known.iter().for_each(|kind| list.push(*kind));
        // RFC 3489 section 11.2.10: an odd list repeats one entry instead of padding.
        if let (false, 1, Some(last)) = (request.is_modern(), known.len() % 2, known.last()) {
            list.push(*last);
        }
        list
    }

    fn push(&mut self, kind: u16) {
        self.bytes[self.len..self.len + 2].copy_from_slice(&kind.to_be_bytes());
        self.len += 2;
    }
}

fn xor(bytes: &mut [u8], mask: &[u8]) {
    bytes.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Unknown attributes named in one answer: enough to see what is wrong, and a multiple of two so
/// that an odd list has room for its repeated entry.
pub(super) const UNKNOWN_MAX: usize = 8;
/// Bytes of an error answer without a phrase that names one or two attributes.
const ERROR_LEN_MIN: usize = HEADER_LEN + 8 + 8;
const CLASS_MASK: u16 = 0x0110;
const REASON: &[u8] = b"Unknown Attribute";
const SOFTWARE: &[u8] = b"p2sp";
