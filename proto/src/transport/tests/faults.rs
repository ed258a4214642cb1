//! Loss, duplication, reordering, and bytes that make no sense.

use std::time::Duration;

use proptest::prelude::*;

use super::link::{Link, Pair, Side};
use super::origin;
use crate::id::{Channel, Epoch, PacketNumber, PathId, Sequence};
use crate::transport::{Config, FrameError, PathKind, Transport};
use crate::wire::frame::{Ack, Frame, Message};

const MINUTES: Duration = Duration::from_secs(600);

/// Bytes that differ by place and message.
pub(super) fn pattern(seed: u64, len: usize) -> Vec<u8> {
    (0..len as u64).map(|i| (i.wrapping_mul(31) ^ (i >> 8) ^ seed) as u8).collect()
}

#[test]
fn every_message_arrives_once_and_in_order_whatever_the_link_does() {
    for seed in 0..60 {
        let loss = (seed % 9) as f64 * 0.05;
        let mut pair = Pair::new(Link::lossy(20, loss), seed);
        for n in 0..40u64 {
            let len = [0, 1, 64, 900, 1150, 3000, 20_000][(n % 7) as usize];
            for side in [Side::A, Side::B] {
                pair.send(side, (n % 3) as u8, pattern(n, len));
            }
        }
        pair.run_until_idle(MINUTES);
        for side in [Side::A, Side::B] {
            let end = pair.end(side);
            assert_eq!(end.got.len(), 40, "seed {seed}");
            for channel in 0..3u64 {
                let got = end.got.iter().filter(|m| u64::from(m.channel.0) == channel);
                for (index, message) in got.enumerate() {
                    let n = index as u64 * 3 + channel;
                    let len = [0, 1, 64, 900, 1150, 3000, 20_000][(n % 7) as usize];
                    assert_eq!(message.sequence, Sequence(index as u64));
                    assert!(message.payload == pattern(n, len), "seed {seed}: message {n}");
                }
            }
            assert_eq!([0, 1, 2].map(|c| end.delivered(c)), [14, 13, 13], "seed {seed}");
        }
    }
}

#[test]
fn the_longest_message_arrives() {
    let mut pair = Pair::new(Link::lossy(5, 0.01), 3);
    let payload = pattern(1, 16 << 20);
    pair.send(Side::A, 0, payload.clone());
    pair.run_until_idle(MINUTES);
    assert!(pair.b.got[0].payload == payload);
}

fn rejected(frame: &Frame<'_>) -> Option<FrameError> {
    let now = origin();
    let mut transport = Transport::new(Config::control(), now);
    transport.start_session(Epoch(1), now);
    transport.open_path(PathId(0), PathKind::Server, 1150, now);
    let mut bytes = Vec::new();
    frame.encode(&mut bytes);
    transport.handle_packet(PacketNumber(0), &bytes, now).err()
}

#[test]
fn broken_rules_end_the_session() {
    let message = |channel, sequence, total, offset, bytes| {
        Frame::Message(Message {
            channel: Channel(channel),
            sequence: Sequence(sequence),
            total,
            offset,
            bytes,
        })
    };
    assert_eq!(rejected(&message(0, 0, 5, 0, b"hello")), None);
    assert!(rejected(&message(1, 0, 5, 0, b"hello")).is_some(), "channel out of range");
    assert!(rejected(&message(0, 0, 70_000, 0, b"hello")).is_some(), "too long");
    assert!(rejected(&message(0, 0, 65_536, 65_531, b"hello")).is_some(), "beyond the window");
    assert!(rejected(&Frame::Ack(Ack::new(PathId(0), &[(0, 0)], 0).unwrap())).is_some());
    assert!(rejected(&Frame::Ack(Ack::new(PathId(9), &[(0, 0)], 0).unwrap())).is_some());
    assert!(rejected(&Frame::Receipt(Channel(0), Sequence(1))).is_some());
    let now = origin();
    let mut transport = Transport::new(Config::control(), now);
    transport.start_session(Epoch(1), now);
    for (count, total, accepted) in [(0, 1000, true), (1, 1001, false)] {
        let mut bytes = Vec::new();
        message(0, 0, total, 10, b"hello").encode(&mut bytes);
        assert_eq!(transport.handle_packet(PacketNumber(count), &bytes, now).is_ok(), accepted);
    }
    assert!(transport.handle_packet(PacketNumber(2), &[], now).is_err());
    assert!(transport.handle_packet(PacketNumber(2), &[0x3F], now).is_err());
}

fn any_frame() -> impl Strategy<Value = Vec<u8>> {
    let message = (0u8..3, 0u64..6, 0u64..300, 0u64..300, 0usize..60);
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..40),
        message.prop_map(|(channel, sequence, total, offset, len)| {
            let bytes = vec![7; len];
            let mut out = Vec::new();
            let total = total.max(offset + len as u64);
            Frame::Message(Message {
                channel: Channel(channel),
                sequence: Sequence(sequence),
                total,
                offset,
                bytes: &bytes,
            })
            .encode(&mut out);
            out
        }),
        (0u8..12, 0u8..3, 0u64..40).prop_map(|(kind, channel, value)| {
            let (channel, place) = (Channel(channel), Sequence(value));
            let ranges = [(value / 2, value)];
            let mut out = Vec::new();
            match kind {
                0..=2 => Frame::Ack(Ack::new(PathId(channel.0), &ranges, 5).unwrap()),
                3 => Frame::Receipt(channel, place),
                4..=6 => Frame::Skip(channel, place),
                7 => Frame::Window(channel, value << 12),
                8 => Frame::Blocked(channel, value << 12),
                _ => Frame::Confirm,
            }
            .encode(&mut out);
            out
        }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]
    #[test]
    fn no_bytes_make_it_panic(packets in prop::collection::vec((0u8..3, 0u64..50, prop::collection::vec(any_frame(), 1..6)), 1..60)) {
        let mut now = origin();
        let mut transport = Transport::new(Config { channels: 3, ..Config::peer() }, now);
        transport.start_session(Epoch(1), now);
        transport.open_path(PathId(0), PathKind::Relay, 600, now);
        transport.open_path(PathId(1), PathKind::Direct, 1150, now);
        for n in 0..20 {
            transport.send(Channel(n % 3), pattern(0, 100 * usize::from(n)).into(), now).unwrap();
        }
        for (path, count, frames) in packets {
            now += Duration::from_millis(20);
            let _ = transport.handle_packet(PacketNumber::new(PathId(path), count), &frames.concat(), now);
            let mut out = Vec::new();
            for _ in 0..50 {
                if transport.poll_packet(&mut out, now).is_none() { break; }
            }
            transport.handle_timeout(now);
            transport.poll_message(now);
            while transport.poll_event().is_some() {}
        }
    }
}
