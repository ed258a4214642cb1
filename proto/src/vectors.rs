//! What SPEC writes down to the byte, read out of it: frames, datagrams and checks (section 12.2)
//! and the examples of control messages (section 8.1).

use std::collections::BTreeMap;

use data_encoding::HEXLOWER;

use crate::control::{FromServer, Request};
use crate::id::{
    Channel, CheckTag, ConnectId, PathId, PeerKey, RelayChannel, Sequence, StreamId, Token,
};
use crate::io::Route;
use crate::traversal::{Agent, Config, Output, Role};
use crate::wire::codec::Reader;
use crate::wire::frame::{
    Ack, Candidate, CandidateKind, Candidates, EcnCounts, Frame, Message, Open, OpenPorts, Punch,
    PunchStep, Rekey, RekeyStep, StreamData, StreamFrame,
};
use crate::wire::{Family, RelayHeader, encode_stale};

const SPEC: &str = include_str!("../SPEC.md");

/// The lines `name = hex` of the code block in the section.
fn written() -> BTreeMap<&'static str, Vec<u8>> {
    let section = SPEC.split_once("\n### 12.2 ").expect("section 12.2").1;
    let block = section.split("```").nth(1).expect("a code block");
    let mut vectors = BTreeMap::new();
    for line in block.lines().filter(|line| !line.is_empty()) {
        let (name, hex) = line.split_once(" = ").expect("name = hex");
        let value = HEXLOWER.decode(hex.as_bytes()).expect("hex");
        assert_eq!(vectors.insert(name, value), None, "{name} twice");
    }
    vectors
}

/// Every kind of frame, by its name in the specification.
fn frames() -> Vec<(&'static str, Frame<'static>)> {
    let (channel, sequence) = (Channel(1), Sequence(2));
    let bytes = b"hello";
    let v4 = "192.0.2.1:3478".parse().unwrap();
    let v6 = "[2001:db8::1]:3478".parse().unwrap();
    let ack = Ack::new(PathId(3), &[(90, 100), (70, 80)], 1000).unwrap();
    let marks = EcnCounts { ect0: 300, ect1: 0, ce: 2 };
    let marked = ack.clone().with_marks(Some(marks));
    let whole = Message { channel, sequence, total: 5, offset: 0, bytes };
    let part = Message { total: 70_000, offset: 1000, ..whole };
    let list = vec![
        Candidate { kind: CandidateKind::Host, address: v4 },
        Candidate { kind: CandidateKind::Observed, address: v6 },
    ];
    let offer = Rekey { generation: 1, step: RekeyStep::Offer, public: [0x44; 32] };
    let target = PeerKey::from_bytes([0x55; 32]);
    let id = StreamId(5);
    let data = StreamData { id, offset: 1000, fin: true, bytes };
    let ports = OpenPorts { first: 20_002, step: 2, count: 5, open: 3 };
    vec![
        ("PADDING", Frame::Padding(3)),
        ("PING", Frame::Ping),
        ("OBSERVED v4", Frame::Observed(v4)),
        ("OBSERVED v6", Frame::Observed(v6)),
        ("ACK", Frame::Ack(ack)),
        ("ACK_ECN", Frame::Ack(marked)),
        ("MESSAGE", Frame::Message(whole)),
        ("FRAGMENT", Frame::Message(part)),
        ("RECEIPT", Frame::Receipt(channel, Sequence(64))),
        ("SKIP", Frame::Skip(channel, Sequence(16_384))),
        ("WINDOW", Frame::Window(channel, 1 << 30)),
        ("BLOCKED", Frame::Blocked(channel, 65_536)),
        ("CONFIRM", Frame::Confirm),
        ("PATH_CHALLENGE", Frame::PathChallenge([0x66; 8])),
        ("PATH_RESPONSE", Frame::PathResponse([0x66; 8])),
        ("PATH_RETIRE", Frame::PathRetire(PathId(3))),
        ("CANDIDATES", Frame::Candidates(Candidates { generation: 7, list })),
        ("REKEY offer", Frame::Rekey(offer)),
        ("REKEY answer", Frame::Rekey(Rekey { step: RekeyStep::Answer, ..offer })),
        ("CLOSE", Frame::Close(409, "replaced")),
        ("OPEN", Frame::Open(Open { target, connect: ConnectId([0x33; 16]), datagram: bytes })),
        ("NAT", Frame::Nat(2, NAT_PROFILE)),
        ("PUNCH open", Frame::Punch(Punch { round: 3, step: PunchStep::Open(ports) })),
        (
            "PUNCH base",
            Frame::Punch(Punch { round: 4, step: PunchStep::Base { port: 30_000, step: -2 } }),
        ),
        ("STREAM", Frame::Stream(StreamFrame::Data(data))),
        ("RESET_STREAM", Frame::Stream(StreamFrame::Reset { id, code: 403, final_size: 70_000 })),
        ("STOP_SENDING", Frame::Stream(StreamFrame::Stop { id, code: 0 })),
        ("DATAGRAM", Frame::Datagram(bytes)),
        ("STREAM_WINDOW", Frame::Stream(StreamFrame::Window { id, limit: 1 << 30 })),
        ("STREAMS_MAX", Frame::Stream(StreamFrame::Max(300))),
        ("skippable", Frame::Unknown(0x40)),
    ]
}

/// Mapping by address and port, filtering unknown, counting down by 2, no hairpin, forgets what it
/// did not ask for, mappings live a minute.
const NAT_PROFILE: &[u8] =
    b"\x03\x00\x04\x00\x02\x00\x10\xff\xfe\x02\x00\x02\x01\x00\x01\x01\x00\x03\x3c";

#[test]
fn frames_are_written_and_read_as_the_specification_says() {
    let written = written();
    for (name, frame) in frames() {
        let mut bytes = Vec::new();
        frame.encode(&mut bytes);
        assert_eq!(HEXLOWER.encode(&bytes), HEXLOWER.encode(&written[name]), "{name}");
        let mut reader = Reader::new(&written[name]);
        let mut again = Vec::new();
        Frame::decode(&mut reader).unwrap().encode(&mut again);
        assert!(reader.is_empty(), "{name}");
        assert_eq!(again, written[name], "{name}");
    }
    let named = frames().len() + datagrams().len() + 2;
    assert_eq!(written.len(), named, "every line of the block is checked");
}

fn datagrams() -> Vec<(&'static str, Vec<u8>)> {
    let token = Token(0x0102_0304_0506_0708);
    let relay = RelayHeader { channel: RelayChannel(0x0A0B), token }.encode();
    vec![("relay", [&relay[..], b"hello"].concat()), ("stale", encode_stale(token))]
}

#[test]
fn datagrams_are_written_and_read_as_the_specification_says() {
    let written = written();
    for (name, bytes) in datagrams() {
        assert_eq!(HEXLOWER.encode(&bytes), HEXLOWER.encode(&written[name]), "{name}");
    }
    let (header, inner) = RelayHeader::decode(&written["relay"]).unwrap();
    assert_eq!((header.channel, inner), (RelayChannel(0x0A0B), &b"hello"[..]));
    assert_eq!(Family::of(&written["stale"]), Family::Stale);
}

/// The controlled side takes the check for authentic and answers with exactly these bytes.
#[test]
fn checks_are_those_of_the_specification() {
    let (now, written) = (crate::time::origin(), written());
    let local = "0.0.0.0:5000".parse().unwrap();
    let route = Route::udp(local, "203.0.113.1:40000".parse().unwrap());
    let config = Config {
        role: Role::Controlled,
        keys: ([2; 32], [1; 32]),
        own_tag: CheckTag([0x0B; 8]),
        their_tag: CheckTag([0x0A; 8]),
        seed: [0; 32],
    };
    let mut agent = Agent::new(config, now);
    let host =
        Candidate { kind: CandidateKind::Host, address: "192.168.0.2:5000".parse().unwrap() };
    agent.set_local(vec![(local, host)], now);
    assert!(agent.handle_datagram(route, &written["check request"], now));
    let Some(Output::Transmit(answer)) = agent.poll_output() else { panic!("no answer") };
    assert_eq!(HEXLOWER.encode(&answer.payload), HEXLOWER.encode(&written["check response"]));
    assert_eq!(answer.route, route);
    for at in 0..written["check request"].len() {
        let mut forged = written["check request"].clone();
        forged[at] ^= 1;
        assert!(!agent.handle_datagram(route, &forged, now), "byte {at} does not matter");
    }
}

#[test]
fn the_examples_of_control_messages_are_ours() {
    let section = SPEC.split_once("\n### 8.1 ").expect("section 8.1").1;
    let examples = section.split("```json\n").nth(1).expect("examples");
    let examples = examples.split("```").next().expect("an end");
    for line in examples.lines() {
        let (side, json) = line.split_once(' ').expect("who says it");
        let again = match side {
            ">" => serde_json::to_value(serde_json::from_str::<Request>(json).expect(json)),
            _ => serde_json::to_value(serde_json::from_str::<FromServer>(json).expect(json)),
        };
        let written: serde_json::Value = serde_json::from_str(json).unwrap();
        assert_eq!(again.unwrap(), written, "{line}");
    }
}
