//! Whatever is written is read back as it was; whatever is read, nothing panics.

use std::net::SocketAddr;

use proptest::prelude::*;

use super::codec::{VARINT_MAX, address_len, varint_len};
use super::frame::*;
use super::*;
use crate::id::{Channel, ConnectId, PathId, PeerKey, Sequence, StreamId};

/// A frame's parts that live outside of it.
#[derive(Clone, Debug)]
struct Owned {
    bytes: Vec<u8>,
    text: String,
    ranges: Vec<(u64, u64)>,
}

/// Inclusive ranges below `largest`, newest first, with at least one number between neighbours.
fn ranges(largest: u64, steps: &[(u16, u16)]) -> Vec<(u64, u64)> {
    let mut high = Some(largest);
    let mut ranges = Vec::new();
    for (len, gap) in steps {
        let Some(top) = high else { break };
        let low = top.saturating_sub(u64::from(*len));
        ranges.push((low, top));
        high = low.checked_sub(u64::from(*gap) + 2);
    }
    ranges
}

fn owned() -> impl Strategy<Value = Owned> {
    let steps = prop::collection::vec(any::<(u16, u16)>(), 1..=ACK_RANGES_MAX);
    let parts = (prop::collection::vec(any::<u8>(), 1..300), ".{0,60}", 0..=VARINT_MAX, steps);
    parts.prop_map(|(bytes, text, largest, steps)| Owned {
        bytes,
        text,
        ranges: ranges(largest, &steps),
    })
}

fn address() -> impl Strategy<Value = SocketAddr> {
    prop_oneof![
        any::<([u8; 4], u16)>().prop_map(SocketAddr::from),
        any::<([u8; 16], u16)>().prop_map(SocketAddr::from),
    ]
}

fn candidate() -> impl Strategy<Value = Candidate> {
    let kinds = vec![
        CandidateKind::Host,
        CandidateKind::Observed,
        CandidateKind::PeerReflexive,
        CandidateKind::Mapped,
        CandidateKind::Predicted,
    ];
    (prop::sample::select(kinds), address()).prop_map(|(kind, address)| Candidate { kind, address })
}

/// What the numbers of a frame are made from.
#[derive(Clone, Debug)]
struct Numbers {
    kind: u8,
    small: u8,
    word: u32,
    varint: u64,
    offset: u64,
    address: SocketAddr,
    key: [u8; 32],
    candidates: Vec<Candidate>,
}

fn numbers() -> impl Strategy<Value = Numbers> {
    let candidates = prop::collection::vec(candidate(), 0..=CANDIDATES_MAX);
    let varints = (0..=VARINT_MAX, 0..MESSAGE_LEN_MAX - 300);
    let small = (0u8..27, any::<u8>(), any::<u32>());
    (small, varints, address(), any::<[u8; 32]>(), candidates).prop_map(
        |((kind, small, word), (varint, offset), address, key, candidates)| Numbers {
            kind,
            small,
            word,
            varint,
            offset,
            address,
            key,
            candidates,
        },
    )
}

/// One frame of each kind in turn.
fn frame<'a>(numbers: &Numbers, owned: &'a Owned) -> Frame<'a> {
    let Numbers { kind, small, word, varint, offset, address, key, ref candidates } = *numbers;
    let (channel, sequence, bytes) = (Channel(small), Sequence(varint), &owned.bytes[..]);
    let (eight, sixteen) = (*key.first_chunk().unwrap(), *key.first_chunk().unwrap());
    let len = bytes.len() as u64;
    match kind {
        0 => Frame::Padding(1 + usize::from(small)),
        1 => Frame::Ping,
        2 => Frame::Observed(address),
        3 => {
            let ack = Ack::new(PathId(small), &owned.ranges, varint).unwrap();
            let marks = EcnCounts { ect0: varint, ect1: offset, ce: small.into() };
            Frame::Ack(ack.with_marks((word & 1 == 1).then_some(marks)))
        }
        4 => Frame::Message(Message { channel, sequence, total: len, offset: 0, bytes }),
        5 => {
            let total = offset + len + 1;
            Frame::Message(Message { channel, sequence, total, offset, bytes })
        }
        6 => Frame::Receipt(channel, sequence),
        7 => Frame::Skip(channel, sequence),
        8 => Frame::Window(channel, varint),
        9 => Frame::Blocked(channel, varint),
        10 => Frame::Confirm,
        11 => Frame::PathChallenge(eight),
        12 => Frame::PathResponse(eight),
        13 => Frame::PathRetire(PathId(small)),
        14 => Frame::Candidates(Candidates { generation: varint, list: candidates.clone() }),
        15 => {
            let step = if small & 1 == 0 { RekeyStep::Offer } else { RekeyStep::Answer };
            Frame::Rekey(Rekey { generation: word, step, public: key })
        }
        16 => Frame::Close(word as u16, &owned.text),
        17 => Frame::Open(Open {
            target: PeerKey::from_bytes(key),
            connect: ConnectId(sixteen),
            datagram: bytes,
        }),
        18 => Frame::Nat(varint, &bytes[..bytes.len().min(PROFILE_LEN_MAX)]),
        19 => Frame::Punch(Punch {
            round: varint,
            step: PunchStep::Base { port: word as u16, step: (word >> 16) as i16 },
        }),
        20 => Frame::Datagram(bytes),
        21 => {
            let (id, fin) = (StreamId(varint), small & 1 == 1);
            Frame::Stream(StreamFrame::Data(StreamData { id, offset, fin, bytes }))
        }
        22 => {
            let (id, code) = (StreamId(varint), word.into());
            Frame::Stream(StreamFrame::Reset { id, code, final_size: offset })
        }
        23 => Frame::Stream(StreamFrame::Stop { id: StreamId(varint), code: offset }),
        24 => Frame::Stream(StreamFrame::Window { id: StreamId(varint), limit: offset }),
        25 => Frame::Stream(StreamFrame::Max(varint)),
        _ => {
            let (first, step) = (word as u16, (word >> 16) as i16);
            let (count, open) = (offset as u16, varint as u16);
            let ports = OpenPorts { first, step, count, open };
            Frame::Punch(Punch { round: varint, step: PunchStep::Open(ports) })
        }
    }
}

/// Frames are equal when they say the same; how an ACK holds its ranges does not matter.
fn same(a: &Frame<'_>, b: &Frame<'_>) -> bool {
    match (a, b) {
        (Frame::Ack(a), Frame::Ack(b)) => {
            (a.path, a.largest, a.delay_us, a.marks) == (b.path, b.largest, b.delay_us, b.marks)
                && a.ranges().eq(b.ranges())
        }
        _ => a == b,
    }
}

proptest! {
    #[test]
    fn a_run_of_frames_is_read_as_it_was_written(
        all in prop::collection::vec((numbers(), owned()), 1..6)
    ) {
        // Padding beside padding would be read as one run.
        let frames: Vec<Frame<'_>> = all
            .iter()
            .map(|(numbers, owned)| frame(numbers, owned))
            .flat_map(|frame| [frame, Frame::Confirm])
            .collect();
        let mut bytes = Vec::new();
        frames.iter().for_each(|frame| frame.encode(&mut bytes));
        let mut reader = Reader::new(&bytes);
        for frame in &frames {
            let read = Frame::decode(&mut reader).unwrap();
            prop_assert!(same(frame, &read), "{frame:?} became {read:?}");
        }
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn a_frame_cut_short_is_no_frame(numbers in numbers(), owned in owned(), cut in 1usize..400) {
        let frame = frame(&numbers, &owned);
        prop_assume!(!matches!(frame, Frame::Padding(_)));
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        bytes.truncate(bytes.len().saturating_sub(cut));
        prop_assert!(Frame::decode(&mut Reader::new(&bytes)).is_err());
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let mut reader = Reader::new(&bytes);
        while let Ok(frame) = Frame::decode(&mut reader) {
            if let Frame::Ack(ack) = &frame {
                prop_assert!(ack.ranges().count() <= ACK_RANGES_MAX);
            }
            let mut again = Vec::new();
            frame.encode(&mut again);
            prop_assert!(!again.is_empty());
        }
        let _ = RelayHeader::decode(&bytes);
        let _ = token_of(&bytes);
        let _ = receiver_of(&bytes);
        let _ = Reader::new(&bytes).address();
        let _ = Family::of(&bytes);
    }

    #[test]
    fn skippable_frames_are_skipped(
        kind in 0x40u8..=0x7F,
        body in prop::collection::vec(any::<u8>(), 0..100),
    ) {
        let mut bytes = vec![kind];
        bytes.put_string(&body);
        Frame::Confirm.encode(&mut bytes);
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(Frame::decode(&mut reader), Ok(Frame::Unknown(kind)));
        prop_assert_eq!(Frame::decode(&mut reader), Ok(Frame::Confirm));
    }

    #[test]
    fn headers_are_read_as_they_were_written(
        channel in any::<u16>(),
        token in any::<u64>(),
        inner in prop::collection::vec(any::<u8>(), 0..50),
    ) {
        let header = RelayHeader { channel: RelayChannel(channel), token: Token(token) };
        let bytes = [&header.encode()[..], &inner].concat();
        prop_assert_eq!(RelayHeader::decode(&bytes), Ok((header, &inner[..])));
        prop_assert_eq!(token_of(&encode_stale(Token(token))), Ok(Token(token)));
    }

    #[test]
    fn values_are_read_as_they_were_written(value in 0..=VARINT_MAX, address in address()) {
        let mut bytes = Vec::new();
        bytes.put_varint(value);
        prop_assert_eq!(bytes.len(), varint_len(value));
        bytes.put_address(address);
        prop_assert_eq!(bytes.len(), varint_len(value) + address_len(address));
        let mut reader = Reader::new(&bytes);
        prop_assert_eq!(reader.varint(), Ok(value));
        prop_assert_eq!(reader.address(), Ok(address));
        prop_assert!(reader.is_empty());
    }
}

#[test]
fn variable_length_integers_are_those_of_rfc_9000() {
    // Appendix A.1.
    for (hex, value) in [
        ("c2197c5eff14e88c", 151_288_809_941_952_652),
        ("9d7f3e7d", 494_878_333),
        ("7bbd", 15_293),
        ("25", 37),
        ("4025", 37),
    ] {
        let bytes = data_encoding::HEXLOWER.decode(hex.as_bytes()).unwrap();
        assert_eq!(Reader::new(&bytes).varint(), Ok(value));
    }
}

fn refused(bytes: &[u8]) -> DecodeError {
    Frame::decode(&mut Reader::new(bytes)).unwrap_err()
}

#[test]
fn frames_outside_their_ranges_are_refused() {
    assert_eq!(refused(&[0x15]), DecodeError::UnknownFrame(0x15));
    assert_eq!(refused(&[0x24]), DecodeError::UnknownFrame(0x24), "reserved is unknown");
    assert_eq!(refused(&[0x80]), DecodeError::UnknownFrame(0x80));
    let malformed: [(&str, &[u8]); 10] = [
        ("a fin of 2", &[0x20, 0, 0, 2, 0]),
        ("a stream that is too long", &[0x20, 0, 255, 255, 255, 255, 255, 255, 255, 255, 0, 1, 7]),
        ("an address of family 5", &[0x02, 5, 1, 2, 3, 4, 0, 1]),
        ("an ACK below zero", &[0x03, 0, 5, 0, 0, 6]),
        ("an ACK of 33 ranges", &[0x03, 0, 63, 0, 32, 0]),
        ("an empty part", &[0x05, 0, 0, 5, 0, 0]),
        ("a part behind the end", &[0x05, 0, 0, 2, 1, 2, 7, 7]),
        ("nine candidates", &[0x0E, 0, 9]),
        ("a rekey of step 2", &[0x0F, 0, 0, 0, 1, 2]),
        ("a reason that is no text", &[0x10, 0, 0, 1, 0xFF]),
    ];
    for (what, bytes) in malformed {
        assert_eq!(refused(bytes), DecodeError::Malformed, "{what}");
    }
    let long_reason = [&[0x10, 0, 0, 0x41, 0x01][..], &[b'x'; 257]].concat();
    assert_eq!(refused(&long_reason), DecodeError::Malformed);
    let long_message = [0x05, 0, 0, 0x81, 0x00, 0x00, 0x01, 0, 1, 7];
    assert_eq!(refused(&long_message), DecodeError::Malformed, "16 MiB and one byte");
}

#[test]
fn a_relay_frame_has_no_flags() {
    let header = RelayHeader { channel: RelayChannel(1), token: Token(2) };
    let mut bytes = header.encode();
    bytes[1] = 1;
    assert_eq!(RelayHeader::decode(&bytes), Err(DecodeError::Malformed));
    assert_eq!(RelayHeader::decode(&header.encode()[..11]), Err(DecodeError::Truncated));
}
