//! Windows, memory, queues, receipts and how few packets it takes.

use std::time::Duration;

use super::faults::pattern;
use super::link::{Link, Pair, Side};
use super::origin;
use crate::id::{Channel, PathId, Sequence};
use crate::transport::path::Path;
use crate::transport::{Config, Event, PathKind, SendError, Transport};

const MINUTES: Duration = Duration::from_secs(600);
const MS: Duration = Duration::from_millis(1);

#[test]
fn a_thin_pipe_is_filled() {
    let link = Link { rate: Some((2.5e6, 125e3)), ..Link::clean(20) };
    let mut pair = Pair::new(link, 1);
    let start = pair.now;
    for n in 0..20 {
        pair.send(Side::A, 0, pattern(n, 1 << 20));
    }
    pair.run(start + MINUTES, |pair| pair.b.got.len() == 20);
    let used = (20 << 20) as f64 / (pair.now - start).as_secs_f64() / 2.5e6;
    assert!(used > 0.8, "utilisation {used}");
}

#[test]
fn a_fast_reader_is_given_a_larger_window() {
    let link = Link { rate: Some((12.5e6, 400e3)), ..Link::clean(20) };
    let mut pair = Pair::new(link, 13);
    let start = pair.now;
    for n in 0..4000 {
        pair.send(Side::A, 0, pattern(n, 10_000));
    }
    pair.run(start + MINUTES, |pair| pair.b.got.len() == 4000);
    let used = 40e6 / (pair.now - start).as_secs_f64() / 12.5e6;
    // A window of 64 KiB would allow 64 KiB each 40 ms: an eighth.
    assert!(used > 0.7, "utilisation {used}");
}

#[test]
fn every_channel_may_begin_the_longest_message() {
    let mut pair = Pair::new(Link::clean(2), 2);
    let config = Config { send_queue_bytes_max: 1 << 33, ..Config::peer() };
    pair.a.transport = Transport::new(config, pair.now);
    pair.start();
    pair.open(0, PathKind::Relay, Link::clean(2));
    let payload = bytes::Bytes::from(pattern(9, 16 << 20));
    for channel in 0..=255 {
        pair.send(Side::A, channel, payload.clone());
    }
    // A few of them are enough to see that they take turns; all would take minutes.
    let end = pair.now + MINUTES;
    pair.run(end, |pair| pair.b.got.len() >= 4);
    assert_eq!(pair.b.got.len(), 4);
    assert!(pair.b.got.iter().all(|message| message.payload == payload));
}

#[test]
fn every_channel_may_hold_a_message_beyond_its_window() {
    let mut pair = Pair::new(Link::lossy(10, 0.1), 4);
    for channel in 0..=255 {
        pair.send(Side::A, channel, pattern(channel.into(), 100_000));
    }
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 256);
}

#[test]
fn the_longest_control_messages_follow_each_other() {
    let mut pair = Pair::bare(&Config::control(), 5);
    pair.start();
    pair.open(0, PathKind::Server, Link::lossy(10, 0.1));
    for n in 0..10 {
        pair.send(Side::A, 0, pattern(n, 64 << 10));
    }
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 10);
}

#[test]
fn a_reader_that_stops_bounds_what_is_held_and_loses_nothing() {
    let mut pair = Pair::new(Link::clean(5), 6);
    pair.b.reads = false;
    for n in 0..200 {
        pair.send(Side::A, (n % 4) as u8, pattern(n, 10_000));
    }
    pair.run_for(Duration::from_secs(20));
    assert!(pair.b.got.is_empty());
    let sent = pair.sent[&(Side::A, PathId(0))];
    assert!(sent < 4 * 80_000, "sent {sent} into four windows of 64 KiB");
    pair.b.reads = true;
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 200);
}

#[test]
fn empty_messages_are_bounded_too() {
    let mut pair = Pair::new(Link::clean(5), 7);
    pair.b.reads = false;
    for _ in 0..5000 {
        pair.send(Side::A, 0, Vec::new());
    }
    pair.run_for(Duration::from_secs(20));
    pair.b.reads = true;
    let mut held = 0;
    while pair.b.transport.poll_message(pair.now).is_some() {
        held += 1;
    }
    assert_eq!(held, 2048);
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 5000 - 2048);
}

#[test]
fn a_full_queue_says_when_there_is_room() {
    let config = Config { send_queue_messages_max: 2, ..Config::peer() };
    let mut pair = Pair::bare(&config, 8);
    pair.start();
    pair.open(0, PathKind::Relay, Link::clean(5));
    pair.send(Side::A, 0, b"one".to_vec());
    pair.send(Side::A, 0, b"two".to_vec());
    let now = pair.now;
    let third = pair.a.transport.send(Channel(0), b"three".to_vec().into(), now);
    assert_eq!(third, Err(SendError::Full));
    pair.run_until_idle(MINUTES);
    assert!(pair.a.events.contains(&Event::Writable));
    pair.send(Side::A, 0, b"three".to_vec());
}

#[test]
fn limits_of_a_message_are_checked() {
    let now = origin();
    let mut transport = Transport::new(Config::control(), now);
    let send = |t: &mut Transport, channel, len| t.send(Channel(channel), vec![0; len].into(), now);
    assert_eq!(send(&mut transport, 1, 1), Err(SendError::NoChannel));
    assert_eq!(send(&mut transport, 0, 65_537), Err(SendError::TooLong));
    assert_eq!(send(&mut transport, 0, 65_536), Ok(Sequence(0)));
}

#[test]
fn a_message_and_its_receipt_take_three_packets() {
    let mut pair = Pair::new(Link::clean(20), 9);
    let start = pair.now;
    pair.send(Side::A, 0, b"hello".to_vec());
    pair.run(start + MINUTES, |pair| pair.a.delivered(0) == 1);
    assert!(pair.now - start <= 41 * MS, "{:?}", pair.now - start);
    pair.run_until_idle(MINUTES);
    assert_eq!((pair.a.packets, pair.b.packets), (2, 1));
}

#[test]
fn small_messages_share_packets() {
    let mut pair = Pair::new(Link::clean(20), 10);
    for n in 0..100 {
        pair.send(Side::A, n % 2, vec![n; 64]);
    }
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 100);
    assert!(pair.a.packets <= 10, "{}", pair.a.packets);
}

#[test]
fn a_cancelled_message_leaves_no_gap() {
    for seed in 0..40 {
        let mut pair = Pair::new(Link::lossy(15, 0.2), seed);
        for n in 0..12 {
            pair.send(Side::A, 0, pattern(n, if n % 2 == 0 { 30_000 } else { 100 }));
        }
        pair.run_for(Duration::from_millis(10 * seed));
        let now = pair.now;
        for n in [0, 2, 3, 11] {
            pair.a.transport.cancel(Channel(0), Sequence(n), now);
        }
        assert!(!pair.a.transport.cancel(Channel(0), Sequence(2), now), "once");
        for n in 12..20 {
            pair.send(Side::A, 0, pattern(n, 60_000));
        }
        pair.run_until_idle(MINUTES);
        let got: Vec<u64> = pair.b.got.iter().map(|m| m.sequence.0).collect();
        assert!(got.windows(2).all(|w| w[0] < w[1]), "{got:?}");
        for n in (0..20).filter(|n| ![0, 2, 3, 11].contains(n)) {
            assert!(got.contains(&n), "seed {seed}: {n} is missing");
        }
        assert!(
            pair.b
                .got
                .iter()
                .all(|m| m.payload.len() != 30_000 || m.payload == pattern(m.sequence.0, 30_000))
        );
    }
}

#[test]
fn channels_take_turns() {
    let mut pair = Pair::new(Link { rate: Some((1e6, 50e3)), ..Link::clean(10) }, 11);
    pair.send(Side::A, 0, pattern(0, 4 << 20));
    pair.run_for(Duration::from_millis(500));
    pair.send(Side::A, 1, b"quick".to_vec());
    let start = pair.now;
    pair.run(start + MINUTES, |pair| !pair.b.got.is_empty());
    assert_eq!(pair.b.got[0].payload, &b"quick"[..]);
    assert!(pair.now - start < 200 * MS, "{:?}", pair.now - start);
}

#[test]
fn an_idle_transport_is_small() {
    let mut pair = Pair::new(Link::clean(20), 12);
    pair.send(Side::A, 0, pattern(0, 100_000));
    pair.send(Side::B, 0, b"hello".to_vec());
    pair.run_until_idle(MINUTES);
    pair.run_for(Duration::from_secs(5));
    for end in [&mut pair.a, &mut pair.b] {
        let transport = &mut end.transport;
        transport.rest();
        let paths: usize = transport.paths.iter().map(|path| size_of::<Path>() + path.heap()).sum();
        let heap = transport.outbox.heap() + transport.inbox.heap() + paths;
        assert_eq!((transport.control.is_empty(), transport.events.capacity()), (true, 0));
        // Section 14 of the SPEC, and the search for larger packets that bulk data began.
        assert!(size_of::<Transport>() + heap <= 980 + 64, "{} + {heap}", size_of::<Transport>());
    }
}

#[test]
fn what_is_held_is_told() {
    let mut pair = Pair::new(Link::clean(5), 21);
    pair.b.reads = false;
    pair.send(Side::A, 0, pattern(1, 1000));
    pair.send(Side::A, 1, pattern(2, 5000));
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.transport.held(), 6000 + 2 * 32);
    pair.b.reads = true;
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.transport.held(), 0);
}
