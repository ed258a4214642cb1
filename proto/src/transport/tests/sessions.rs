//! Messages outlive sessions and incarnations; early data.

use std::time::Duration;

use super::faults::pattern;
use super::link::{Link, Pair, Side};
use crate::id::{Channel, Epoch, PathId, Sequence};
use crate::transport::{Config, PathKind, Transport};

const MINUTES: Duration = Duration::from_secs(600);

#[test]
fn a_new_session_in_mid_flight_loses_and_doubles_nothing() {
    for seed in 0..60 {
        let mut pair = Pair::new(Link::lossy(20, 0.15), seed);
        for n in 0..30 {
            pair.send(Side::A, (n % 2) as u8, pattern(n, 9000 * (n as usize % 5)));
        }
        for _ in 0..4 {
            pair.run_for(Duration::from_millis(30 + 7 * seed));
            pair.start();
            pair.open(0, PathKind::Relay, Link::lossy(20, 0.15));
        }
        pair.run_until_idle(MINUTES);
        for channel in 0..2u64 {
            let got: Vec<_> =
                pair.b.got.iter().filter(|m| u64::from(m.channel.0) == channel).collect();
            assert_eq!(got.len(), 15, "seed {seed}");
            for (index, message) in got.iter().enumerate() {
                let n = index as u64 * 2 + channel;
                assert_eq!(message.sequence, Sequence(index as u64));
                assert!(message.payload == pattern(n, 9000 * (n as usize % 5)));
            }
        }
    }
}

#[test]
fn a_receiver_without_memory_goes_on_where_the_sender_stands() {
    let mut pair = Pair::new(Link::lossy(20, 0.2), 7);
    for n in 0..5 {
        pair.send(Side::A, 0, pattern(n, 2000));
    }
    pair.run_until_idle(MINUTES);
    pair.b.transport = Transport::new(Config::peer(), pair.now);
    (pair.b.epoch, pair.b.got) = (Epoch(0xB1), Vec::new());
    pair.start();
    pair.open(0, PathKind::Relay, Link::lossy(20, 0.2));
    pair.send(Side::A, 0, b"five".to_vec());
    pair.send(Side::B, 0, b"zero again".to_vec());
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.iter().map(|m| m.sequence.0).collect::<Vec<_>>(), [5]);
    assert_eq!(pair.a.got.len(), 1, "sequence 0 of another epoch is a new message");
}

#[test]
fn marks_of_eight_epochs_are_kept() {
    let mut pair = Pair::new(Link::clean(5), 8);
    let (mut first, now) = (Transport::new(Config::peer(), pair.now), pair.now);
    first.send(Channel(0), b"once".to_vec().into(), now).unwrap();
    for epoch in (0..8).chain([0]) {
        pair.a.epoch = Epoch(epoch);
        if epoch == 0 {
            std::mem::swap(&mut pair.a.transport, &mut first);
        } else {
            pair.a.transport = Transport::new(Config::peer(), pair.now);
        }
        pair.start();
        pair.open(0, PathKind::Relay, Link::clean(5));
        if epoch > 0 {
            pair.send(Side::A, 0, b"other".to_vec());
        }
        pair.run_until_idle(MINUTES);
        if epoch == 0 {
            std::mem::swap(&mut pair.a.transport, &mut first);
            // The sender forgets that its message was delivered, as if the receipt were lost.
            first = Transport::new(Config::peer(), pair.now);
            first.send(Channel(0), b"once".to_vec().into(), now).unwrap();
        }
    }
    assert_eq!(pair.b.got.len(), 8);
}

fn early(accepted: bool, verdict_first: bool, taken_first: bool) -> Pair {
    let mut pair = Pair::bare(&Config::peer(), 9);
    let now = pair.now;
    pair.send(Side::A, 0, b"early".to_vec());
    pair.send(Side::A, 0, pattern(0, 5000));
    pair.send(Side::A, 3, b"bird".to_vec());
    let frames = pair.a.transport.poll_early(900, now).unwrap();
    assert!(frames.len() <= 900);
    if accepted {
        pair.b.transport.handle_early(pair.a.epoch, &frames, now).unwrap();
        assert!(pair.b.transport.has_message(), "at once");
    }
    if taken_first {
        pair.run_for(Duration::from_millis(1));
    }
    if verdict_first {
        pair.a.transport.early_verdict(accepted, now);
    }
    pair.start();
    if !verdict_first {
        pair.a.transport.early_verdict(accepted, now);
    }
    pair.open(0, PathKind::Relay, Link::clean(20));
    pair.run_until_idle(MINUTES);
    pair
}

#[test]
fn early_data_counts_once_accepted_or_not() {
    for (accepted, verdict_first) in [(true, true), (true, false), (false, true), (false, false)] {
        for taken_first in [false, true] {
            let pair = early(accepted, verdict_first, taken_first);
            assert_eq!(pair.b.got.len(), 3, "accepted {accepted}");
            assert_eq!((pair.a.delivered(0), pair.a.delivered(3)), (2, 1));
        }
    }
}

#[test]
fn accepted_early_data_is_sent_again_in_the_session_after() {
    let mut pair = Pair::bare(&Config::peer(), 10);
    let now = pair.now;
    pair.send(Side::A, 0, b"early".to_vec());
    pair.a.transport.poll_early(900, now).unwrap();
    pair.a.transport.early_verdict(true, now);
    // The responder forgot it: only another session can mend that.
    for _ in 0..2 {
        pair.start();
        pair.open(0, PathKind::Relay, Link::clean(20));
        pair.run_for(Duration::from_secs(1));
    }
    assert_eq!(pair.b.got.len(), 1);
}

#[test]
fn early_data_of_a_new_incarnation_silences_the_old_one() {
    let mut pair = Pair::new(Link::clean(20), 11);
    pair.send(Side::A, 0, b"old".to_vec());
    pair.run_until_idle(MINUTES);
    let now = pair.now;
    let mut reborn = Transport::new(Config::peer(), now);
    reborn.send(Channel(0), b"new".to_vec().into(), now).unwrap();
    let frames = reborn.poll_early(900, now).unwrap();
    pair.b.transport.handle_early(Epoch(0xA1), &frames, now).unwrap();
    pair.send(Side::A, 0, b"too late".to_vec());
    pair.run_for(Duration::from_secs(1));
    let got: Vec<_> = pair.b.got.iter().map(|m| m.payload.clone()).collect();
    assert_eq!(got, [&b"old"[..], b"new"]);
    assert!(pair.b.transport.path_stats(PathId(0)).is_some());
}
