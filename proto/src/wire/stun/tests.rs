use std::net::SocketAddr;

use proptest::prelude::*;
use stun_rs::attributes::discovery::{ChangeRequest, ChangeRequestFlags, ResponseOrigin};
use stun_rs::attributes::ice::Priority;
use stun_rs::attributes::stun::{
    ErrorCode, Fingerprint, MessageIntegritySha256, Software, UnknownAttributes, UserName,
};
use stun_rs::{DecoderContextBuilder, ErrorCode as Code, HMACKey, StunAttribute};

use super::answer::UNKNOWN_MAX;
use super::*;
use crate::io::Route;

mod discovery;

const TRANSACTION: [u8; 12] = *b"transaction!";

fn v4() -> SocketAddr {
    "203.0.113.9:40123".parse().unwrap()
}

fn v6() -> SocketAddr {
    "[2001:db8::7]:40123".parse().unwrap()
}

/// Where the server is asked.
fn server() -> SocketAddr {
    "192.0.2.1:3478".parse().unwrap()
}

/// What a server without a second place says, or why it says nothing.
fn ask(request: &[u8], from: SocketAddr) -> Result<Vec<u8>, StunDrop> {
    let route = Route::udp(server(), from);
    let (answer, sent) = ask_at(request, route, &Places::default())?;
    assert_eq!(sent, Route::udp(server(), canonical(from)));
    Ok(answer)
}

/// What a server says and which way, or why it says nothing.
fn ask_at(request: &[u8], route: Route, places: &Places) -> Result<(Vec<u8>, Route), StunDrop> {
    let mut out = [0xEE; ANSWER_LEN_MAX];
    match answer(request, route, places, &mut out) {
        StunVerdict::Answer { len, route } => Ok((out[..len].to_vec(), route)),
        StunVerdict::Drop(reason) => Err(reason),
    }
}

fn build(class: MessageClass) -> StunMessageBuilder {
    StunMessageBuilder::new(methods::BINDING, class)
        .with_transaction_id(TransactionId::from(TRANSACTION))
}

fn bytes(builder: StunMessageBuilder) -> Vec<u8> {
    encode(&builder.build())
}

/// A request whose attributes are written by hand.
fn raw(kind: u16, cookie: [u8; 4], attributes: &[(u16, &[u8])]) -> Vec<u8> {
    let mut body = Vec::new();
    for (kind, value) in attributes {
        body.extend(kind.to_be_bytes());
        body.extend((value.len() as u16).to_be_bytes());
        body.extend(*value);
        body.resize(body.len().next_multiple_of(4), 0xAA);
    }
    let mut request = kind.to_be_bytes().to_vec();
    request.extend((body.len() as u16).to_be_bytes());
    request.extend(cookie);
    request.extend(TRANSACTION);
    request.extend(body);
    request
}

fn validated(answer: &[u8]) -> StunMessage {
    let context = DecoderContextBuilder::default().with_validation().build();
    let decoder = MessageDecoderBuilder::default().with_context(context).build();
    let (message, len) = decoder.decode(answer).unwrap();
    assert_eq!(len, answer.len());
    message
}

#[test]
fn a_bare_request_gets_its_source_byte_for_byte_as_stun_rs_writes_it() {
    for (from, extra) in [(v4(), 12), (v6(), 24)] {
        let request = binding_request(TRANSACTION);
        let expected =
            build(MessageClass::SuccessResponse).with_attribute(XorMappedAddress::from(from));
        let answer = ask(&request, from).unwrap();
        assert_eq!(answer, bytes(expected));
        assert_eq!(answer.len(), request.len() + extra);
        assert_eq!(read_binding_response(&answer), Some((TRANSACTION, from)));
    }
}

#[test]
fn an_ipv4_mapped_source_is_answered_as_ipv4() {
    let mapped = "[::ffff:203.0.113.9]:40123".parse().unwrap();
    let request = binding_request(TRANSACTION);
    assert_eq!(ask(&request, mapped), ask(&request, v4()));
}

#[test]
fn software_and_fingerprint_come_where_they_fit() {
    let request = bytes(
        build(MessageClass::Request)
            .with_attribute(Software::new("a client with a long name").unwrap())
            .with_attribute(Fingerprint::default()),
    );
    let expected = build(MessageClass::SuccessResponse)
        .with_attribute(XorMappedAddress::from(v4()))
        .with_attribute(ResponseOrigin::from(server()))
        .with_attribute(Software::new("p2sp").unwrap())
        .with_attribute(Fingerprint::default());
    let answer = ask(&request, v4()).unwrap();
    assert_eq!(answer, bytes(expected));
    assert!(validated(&answer).get::<Fingerprint>().is_some());
}

#[test]
fn fingerprint_is_left_out_where_it_would_make_the_answer_larger() {
    let request = bytes(build(MessageClass::Request).with_attribute(Fingerprint::default()));
    assert_eq!(request.len(), 28);
    assert_eq!(ask(&request, v4()).unwrap().len(), 32);
    assert_eq!(ask(&request, v6()).unwrap().len(), 44);
}

#[test]
fn fingerprint_is_not_volunteered() {
    let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &[(0x8022, &[b'x'; 200])]);
    let message = validated(&ask(&request, v4()).unwrap());
    assert!(message.get::<Fingerprint>().is_none());
    assert!(message.get::<Software>().is_some());
}

#[test]
fn the_checksum_is_the_common_one() {
    assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    assert_eq!(crc32(b""), 0);
}

#[test]
fn a_wrong_or_misplaced_fingerprint_is_dropped() {
    let good = bytes(build(MessageClass::Request).with_attribute(Fingerprint::default()));
    for index in 8..good.len() {
        // Flips in the attribute's own header make it another attribute.
        if (20..24).contains(&index) {
            continue;
        }
        let mut bad = good.clone();
        bad[index] ^= 1;
        assert_eq!(ask(&bad, v4()), Err(StunDrop::Fingerprint), "byte {index}");
    }
    let twice = bytes(
        build(MessageClass::Request)
            .with_attribute(Fingerprint::default())
            .with_attribute(Software::new("behind").unwrap()),
    );
    assert_eq!(ask(&twice, v4()), Err(StunDrop::Fingerprint));
}

#[test]
fn unknown_required_attributes_get_420_and_their_names() {
    let request = bytes(
        build(MessageClass::Request)
            .with_attribute(Priority::new(7))
            .with_attribute(ChangeRequest::new(Some(ChangeRequestFlags::ChangePort.into())))
            .with_attribute(Software::new("more than enough room for a phrase").unwrap())
            .with_attribute(Fingerprint::default()),
    );
    let expected = build(MessageClass::ErrorResponse)
        .with_attribute(ErrorCode::from(Code::new(420, "Unknown Attribute").unwrap()))
        .with_attribute(UnknownAttributes::from([0x0024, 0x0003].as_slice()))
        .with_attribute(Software::new("p2sp").unwrap())
        .with_attribute(Fingerprint::default());
    let answer = ask(&request, v4()).unwrap();
    assert!(answer.len() <= request.len());
    assert_eq!(answer, bytes(expected));
}

#[test]
fn error_answers_shed_their_phrase_before_they_grow() {
    for count in 1..=UNKNOWN_MAX {
        let kinds: Vec<u16> = (0x7000..).take(count).collect();
        let attributes: Vec<(u16, &[u8])> =
            kinds.iter().map(|kind| (*kind, [].as_slice())).collect();
        let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &attributes);
        let answer = ask(&request, v4()).unwrap();
        assert!(answer.len() <= request.len().max(36), "{count}: {}", answer.len());
        let message = validated(&answer);
        let error = message.get::<ErrorCode>().unwrap().as_error_code().unwrap();
        assert_eq!((error.error_code().error_code(), error.error_code().reason()), (420, ""));
        let list = message.get::<UnknownAttributes>().unwrap().as_unknown_attributes().unwrap();
        // Empty attributes leave no room to name them all.
        let named = [0, 1, 2, 2, 2, 4, 6, 7, 8][count];
        assert_eq!(list.attributes(), &kinds[..named]);
    }
}

#[test]
fn an_unknown_attribute_is_named_once() {
    let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &[(0x7000, &[]), (0x7000, &[])]);
    let message = validated(&ask(&request, v4()).unwrap());
    let list = message.get::<UnknownAttributes>().unwrap().as_unknown_attributes().unwrap();
    assert_eq!(list.attributes(), [0x7000]);
}

#[test]
fn a_change_request_that_changes_nothing_is_understood() {
    let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &[(kind::CHANGE_REQUEST, &[0; 4])]);
    assert_eq!(read_binding_response(&ask(&request, v4()).unwrap()), Some((TRANSACTION, v4())));
    let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &[(kind::CHANGE_REQUEST, &[0, 0, 0, 4])]);
    assert_eq!(ask(&request, v4()).unwrap()[..2], [0x01, 0x11]);
}

#[test]
fn integrity_is_ignored_and_so_is_what_follows_it() {
    let key = HMACKey::new_short_term("whatever").unwrap();
    let request = bytes(
        build(MessageClass::Request)
            .with_attribute(UserName::new("somebody").unwrap())
            .with_attribute(MessageIntegritySha256::new(key))
            .with_attribute(Priority::new(7)),
    );
    assert_eq!(read_binding_response(&ask(&request, v4()).unwrap()), Some((TRANSACTION, v4())));
}

/// RFC 3489 as Debian's `stun` speaks it: no cookie, CHANGE-REQUEST always.
#[test]
fn classic_clients_get_a_plain_mapped_address() {
    let request = raw(BINDING_REQUEST, *b"clas", &[(kind::CHANGE_REQUEST, &[0; 4])]);
    let answer = ask(&request, v4()).unwrap();
    let mut expected = vec![0x01, 0x01, 0, 12];
    expected.extend(&request[4..20]);
    expected.extend([0, 1, 0, 8, 0, 1, 0x9C, 0xBB, 203, 0, 113, 9]);
    assert_eq!(answer, expected);
    let other = raw(BINDING_REQUEST, *b"clas", &[(kind::CHANGE_REQUEST, &[0, 0, 0, 6])]);
    let answer = ask(&other, v4()).unwrap();
    assert_eq!(answer[20..], [0, 9, 0, 4, 0, 0, 4, 20, 0, 10, 0, 4, 0, 3, 0, 3]);
}

#[test]
fn what_is_no_binding_request_gets_no_answer() {
    let plain = binding_request(TRANSACTION);
    for (kind, reason) in [
        (0x0011, StunDrop::NotRequest),
        (0x0101, StunDrop::NotRequest),
        (0x0111, StunDrop::NotRequest),
        (0x0003, StunDrop::Method),
        (0x0000, StunDrop::Method),
        (0x3EEF, StunDrop::Method),
        (0x4001, StunDrop::Malformed),
    ] {
        let request = raw(kind, MAGIC_COOKIE, &[]);
        assert_eq!(ask(&request, v4()), Err(reason), "{kind:#06x}");
    }
    for len in 0..plain.len() {
        assert_eq!(ask(&plain[..len], v4()), Err(StunDrop::Malformed));
    }
    let trailing = [plain.as_slice(), &[0; 4]].concat();
    assert_eq!(ask(&trailing, v4()), Err(StunDrop::Malformed));
    let mut cut = raw(BINDING_REQUEST, MAGIC_COOKIE, &[(0x8022, b"abcd")]);
    cut[23] = 5;
    assert_eq!(ask(&cut, v4()), Err(StunDrop::Malformed));
}

#[test]
fn a_tag_is_recognised_before_any_cryptography() {
    let tag = CheckTag([0, 1, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xFF]);
    let user = UserName::new("000123456789abff").unwrap();
    let request = bytes(build(MessageClass::Request).with_attribute(user));
    assert!(is_binding_for(&request, tag));
    assert!(!is_binding_for(&request, CheckTag([9; 8])));
    assert!(!is_binding_for(&binding_request(TRANSACTION), tag));
}

#[test]
fn a_peer_reads_only_sound_answers() {
    let good = bytes(
        build(MessageClass::SuccessResponse)
            .with_attribute(XorMappedAddress::from(v6()))
            .with_attribute(Fingerprint::default()),
    );
    assert_eq!(read_binding_response(&good), Some((TRANSACTION, v6())));
    let mut bad = good.clone();
    bad[30] ^= 1;
    assert_eq!(read_binding_response(&bad), None);
    assert_eq!(read_binding_response(&[good, vec![0; 4]].concat()), None);
    assert_eq!(read_binding_response(&binding_request(TRANSACTION)), None);
    let classic = build(MessageClass::SuccessResponse).with_attribute(MappedAddress::from(v4()));
    assert_eq!(read_binding_response(&bytes(classic)), Some((TRANSACTION, v4())));
    let empty = build(MessageClass::SuccessResponse);
    assert_eq!(read_binding_response(&bytes(empty)), None);
}

fn attribute() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let kind = prop_oneof![
        any::<u16>(),
        prop::sample::select(vec![
            0x0001, 0x0003, 0x0006, 0x0008, 0x001C, 0x0024, 0x0026, 0x0027, 0x8022, 0x8028
        ]),
    ];
    (kind, prop::collection::vec(any::<u8>(), 0..40))
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = ask(&datagram, v4());
        let _ = read_binding_response(&datagram);
        let _ = is_binding_for(&datagram, CheckTag([1; 8]));
    }

    #[test]
    fn every_answer_is_sound_and_bounded(
        attributes in prop::collection::vec(attribute(), 0..24),
        fingerprint in any::<bool>(),
        modern in any::<bool>(),
        six in any::<bool>(),
        second in any::<bool>(),
    ) {
        let from = if six { v6() } else { v4() };
        let route = discovery::route_from(from);
        let places = if second { discovery::two_of_each() } else { Places::default() };
        let cookie = if modern { MAGIC_COOKIE } else { *b"clas" };
        let list: Vec<(u16, &[u8])> =
            attributes.iter().map(|(kind, value)| (*kind, value.as_slice())).collect();
        let mut request = raw(BINDING_REQUEST, cookie, &list);
        if fingerprint {
            request = raw(BINDING_REQUEST, cookie, &[list.as_slice(), &[(0x8028, &[0; 4])]].concat());
            let at = request.len() - FINGERPRINT_LEN;
            let value = super::fingerprint(&request[..at]);
            request[at + 4..].copy_from_slice(&value);
        }
        if let Ok((answer, sent)) = ask_at(&request, route, &places) {
            prop_assert_eq!(sent.remote.ip(), from.ip());
            prop_assert!(sent == route || answer.len() <= request.len());
            let plain = if six { 44 } else { 32 };
            let bare_error = 36;
            prop_assert!(answer.len() <= request.len().max(plain).max(bare_error));
            if modern {
                let message = validated(&answer);
                prop_assert_eq!(message.transaction_id().as_bytes(), &TRANSACTION);
                if message.class() == MessageClass::SuccessResponse {
                    prop_assert_eq!(mapped_address(&message), Some(from));
                }
                prop_assert!(!message.attributes().iter().any(StunAttribute::is_unknown));
            }
        }
    }
}
