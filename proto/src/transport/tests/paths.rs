//! Several paths at once.

use std::time::Duration;

use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::faults::pattern;
use super::link::{Link, Pair, Side};
use crate::id::{Channel, PathId, Sequence};
use crate::transport::{ControlFrame, Event, PathKind};

const MINUTES: Duration = Duration::from_secs(600);
const MS: Duration = Duration::from_millis(1);

/// A direct path that proved itself and a slower relay.
fn two_paths(seed: u64) -> Pair {
    let mut pair = Pair::new(Link::clean(40), seed);
    pair.open(1, PathKind::Direct, Link::clean(10));
    pair.prefer(1);
    pair.send(Side::A, 0, b"warm".to_vec());
    pair.send(Side::B, 0, b"warm".to_vec());
    pair.run_until_idle(MINUTES);
    pair
}

#[test]
fn a_dead_path_is_left_and_taken_again() {
    let mut pair = two_paths(1);
    pair.set(1, |link| link.up = false);
    let start = pair.now;
    pair.send(Side::A, 0, b"still there?".to_vec());
    pair.run(start + MINUTES, |pair| pair.a.delivered(0) == 2);
    assert!(pair.now - start < 400 * MS, "{:?}", pair.now - start);
    assert!(pair.a.events.contains(&Event::PathSuspect(PathId(1))));
    let last = Event::Delivered { channel: Channel(0), below: Sequence(2), path: PathId(0) };
    assert!(pair.a.events.contains(&last), "{:?}", pair.a.events);
    pair.set(1, |link| link.up = true);
    pair.run_until_idle(MINUTES);
    assert!(pair.a.events.contains(&Event::PathRecovered(PathId(1))));
    let relayed = pair.sent[&(Side::A, PathId(0))];
    pair.send(Side::A, 0, pattern(0, 50_000));
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.sent[&(Side::A, PathId(0))], relayed, "the direct path carries it alone");
}

/// Other packets that leave meanwhile must not put the probe timeout off.
#[test]
fn a_path_that_dies_in_the_middle_of_a_conversation_is_left_as_soon() {
    let mut pair = two_paths(1);
    pair.set(1, |link| link.up = false);
    let start = pair.now;
    let mut before = 0;
    while pair.a.delivered(0) < 2 {
        assert!(pair.now - start < 400 * MS, "not a single message arrived");
        pair.send(Side::A, 0, b"still there?".to_vec());
        pair.run_for(10 * MS);
        before += 1;
    }
    assert!(before > 5, "{before} messages");
    pair.set(1, |link| link.up = true);
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), before + 1);
}

/// What was on its way goes on the other path as well after one probe timeout, the path being
/// left after two.
#[test]
fn a_path_that_dies_costs_its_messages_one_probe_timeout() {
    let mut pair = two_paths(1);
    let relayed = pair.sent[&(Side::A, PathId(0))];
    for _ in 0..50 {
        pair.send(Side::A, 0, b"one by one".to_vec());
        pair.run_for(10 * MS);
    }
    assert_eq!(pair.sent[&(Side::A, PathId(0))], relayed, "nothing is wrong yet");
    pair.set(1, |link| link.up = false);
    let timeout = pair.a.transport.path_stats(PathId(1)).unwrap().probe_timeout;
    let (start, before) = (pair.now, pair.b.got.len());
    while pair.b.got.len() <= before {
        assert!(pair.now - start <= timeout + 50 * MS, "{timeout:?} and the relay's 40 ms");
        pair.send(Side::A, 0, b"still there?".to_vec());
        pair.run_for(10 * MS);
    }
    pair.run_for(10 * MS);
    assert!(pair.b.got.len() > before + 2, "those that were sent behind it as well");
    pair.set(1, |link| link.up = true);
    pair.run_until_idle(MINUTES);
}

/// While every path is silent, frames leave on one that may stay so.
#[test]
fn what_left_when_all_was_silent_follows_the_path_that_comes_back() {
    let mut pair = two_paths(1);
    for path in [0, 1] {
        pair.set(path, |link| link.up = false);
    }
    pair.send(Side::A, 0, b"into the dark".to_vec());
    pair.a.transport.probe(PathId(0), pair.now);
    pair.run_for(Duration::from_secs(4));
    assert!(pair.a.transport.is_suspect(PathId(0)) && pair.a.transport.is_suspect(PathId(1)));
    let frame = ControlFrame::PathRetire(PathId(100));
    pair.a.transport.control(frame.clone(), None, pair.now);
    pair.send(Side::A, 1, b"and more".to_vec());
    pair.run_for(10 * MS);
    pair.set(0, |link| link.up = true);
    pair.run_for(Duration::from_secs(3));
    let event = Event::Control { path: PathId(0), frame };
    assert!(pair.b.events.contains(&event), "{:?}", pair.b.events);
    assert_eq!(pair.b.got.len(), 3);
}

#[test]
fn a_suspect_path_that_was_proved_otherwise_carries_data_at_once() {
    let mut pair = two_paths(1);
    pair.set(1, |link| link.up = false);
    pair.send(Side::A, 0, b"bad luck".to_vec());
    pair.run_for(Duration::from_secs(1));
    assert!(pair.a.transport.is_suspect(PathId(1)));
    pair.set(1, |link| link.up = true);
    let now = pair.now;
    pair.a.transport.restore_path(PathId(1), now);
    pair.send(Side::A, 0, b"and again".to_vec());
    pair.run_for(11 * MS);
    assert_eq!(pair.b.got.len(), 3, "by the direct path, which is faster");
}

/// Checks are small: a path that only they survive is told from one that is unlucky.
#[test]
fn a_path_that_carries_no_payload_fails_after_three_doubts() {
    for large in [1000, 100] {
        let mut pair = two_paths(1);
        pair.set(1, |link| link.len_max = 500);
        for _ in 0..6 {
            pair.send(Side::A, 0, pattern(1, large));
            pair.run_for(Duration::from_secs(2));
            pair.send(Side::A, 0, b"small".to_vec());
            pair.run_for(Duration::from_secs(2));
        }
        let failed = |event: &&Event| **event == Event::PathFailed(PathId(1));
        let found = pair.a.events.iter().filter(failed).count();
        assert_eq!(found > 0, large > 500, "{large} bytes: {found}");
        assert_eq!(pair.b.got.len(), 13);
    }
}

#[test]
fn bulk_survives_a_path_that_dies_in_the_middle() {
    for seed in 0..10 {
        let mut pair = two_paths(seed);
        let payload = pattern(seed, 2 << 20);
        pair.send(Side::A, 1, payload.clone());
        pair.run_for(Duration::from_millis(20 + 30 * seed));
        pair.set(1, |link| link.up = false);
        let end = pair.now + MINUTES;
        pair.run(end, |pair| pair.a.delivered(1) == 1);
        assert!(pair.b.got.iter().any(|m| m.payload == payload), "seed {seed}");
    }
}

#[test]
fn a_path_is_closed_and_its_data_goes_elsewhere() {
    let mut pair = two_paths(2);
    pair.set(1, |link| link.up = false);
    pair.send(Side::A, 0, pattern(3, 5000));
    pair.run_for(5 * MS);
    let now = pair.now;
    pair.a.transport.close_path(PathId(1), now);
    pair.b.transport.close_path(PathId(1), now);
    pair.run_until_idle(MINUTES);
    assert_eq!(pair.b.got.len(), 2);
    pair.a.transport.open_path(PathId(1), PathKind::Direct, 1150, now);
    assert_eq!(pair.a.transport.path_stats(PathId(1)), None, "ids are never used again");
}

#[test]
fn an_unproven_path_is_doubled_for_small_messages() {
    let mut pair = Pair::new(Link::clean(40), 3);
    pair.open(1, PathKind::Direct, Link { up: false, ..Link::clean(10) });
    pair.prefer(1);
    let start = pair.now;
    pair.send(Side::A, 0, b"first".to_vec());
    pair.run(start + MINUTES, |pair| !pair.b.got.is_empty());
    assert_eq!(pair.now - start, 40 * MS, "the relay's own delay");
    pair.run_for(Duration::from_secs(2));
    assert_eq!(pair.b.got.len(), 1);
}

#[test]
fn loss_on_one_path_resends_nothing_that_came_on_the_other() {
    let mut pair = Pair::new(Link::clean(10), 4);
    pair.open(1, PathKind::Direct, Link { up: false, ..Link::clean(10) });
    // The relay is preferred: the copy goes to the dead direct path.
    pair.send(Side::A, 0, vec![5; 1000]);
    pair.run_for(Duration::from_secs(1));
    assert_eq!(pair.b.got.len(), 1);
    let sent = pair.sent[&(Side::A, PathId(0))];
    assert!(sent < 1200, "{sent} bytes on the relay");
}

#[test]
fn acknowledgements_find_another_way() {
    let mut pair = two_paths(5);
    // Only the way back is broken.
    pair.links.get_mut(&(Side::B, PathId(1))).unwrap().up = false;
    let start = pair.now;
    pair.send(Side::A, 0, pattern(1, 3000));
    pair.run(start + MINUTES, |pair| pair.a.delivered(0) == 2);
    assert!(pair.now - start < 500 * MS, "{:?}", pair.now - start);
    pair.run_for(Duration::from_secs(1));
    let stats = pair.a.transport.path_stats(PathId(1)).unwrap();
    assert_eq!(stats.in_flight, 0, "acknowledged by way of the relay");
}

#[test]
fn dead_paths_are_probed_for_ever_but_rarely() {
    let mut pair = two_paths(6);
    pair.set(1, |link| link.up = false);
    pair.set(0, |link| link.up = false);
    pair.send(Side::A, 0, b"nobody".to_vec());
    pair.run_for(Duration::from_secs(3600));
    assert!(pair.a.packets > 360 && pair.a.packets < 1000, "{}", pair.a.packets);
    pair.set(0, |link| link.up = true);
    pair.run_for(Duration::from_secs(15));
    assert_eq!(pair.b.got.len(), 2);
}

#[test]
fn control_frames_arrive_and_keepalives_stay_alone() {
    let mut pair = two_paths(7);
    let now = pair.now;
    let before = (pair.a.packets, pair.b.packets);
    pair.a.transport.control(ControlFrame::Ping, Some(PathId(0)), now);
    pair.run_for(Duration::from_secs(1));
    let ping = Event::Control { path: PathId(0), frame: ControlFrame::Ping };
    assert!(pair.b.events.contains(&ping));
    assert_eq!((pair.a.packets, pair.b.packets), (before.0 + 1, before.1), "not acknowledged");
    pair.set(1, |link| link.loss = 0.5);
    for n in 0..20 {
        let now = pair.now;
        pair.a.transport.control(ControlFrame::PathRetire(PathId(100 + n)), None, now);
        pair.run_until_idle(MINUTES);
        let event = |path| Event::Control {
            path: PathId(path),
            frame: ControlFrame::PathRetire(PathId(100 + n)),
        };
        assert!(pair.b.events.contains(&event(0)) || pair.b.events.contains(&event(1)));
    }
}

#[test]
fn a_hint_shortens_the_first_probe() {
    let mut pair = Pair::new(Link { up: false, ..Link::clean(10) }, 8);
    pair.a.transport.set_rtt_hint(PathId(0), 20 * MS);
    assert_eq!(pair.a.transport.probe_timeout(), 85 * MS);
    pair.send(Side::A, 0, b"x".to_vec());
    pair.run_for(90 * MS);
    assert_eq!(pair.a.packets, 2);
}

/// Whatever happens below, both directions deliver everything once, in order.
#[test]
fn chaos_of_paths_and_sessions_loses_and_doubles_nothing() {
    for seed in 0..80 {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let mut pair = Pair::new(Link::lossy(40, 0.1), seed);
        pair.open(1, PathKind::Direct, Link::lossy(10, 0.1));
        let (mut direct, mut sent) = (1, [0u64; 2]);
        for _ in 0..40 {
            match rng.random_range(0..8) {
                0 => pair.set(direct, |link| link.up = !link.up),
                1 => pair.set(0, |link| link.loss = 0.4 - link.loss),
                2 => pair.prefer([0, direct][rng.random_range(0..2)]),
                3 => {
                    let now = pair.now;
                    pair.a.transport.close_path(PathId(direct), now);
                    pair.b.transport.close_path(PathId(direct), now);
                    direct += 1;
                    pair.open(direct, PathKind::Direct, Link::lossy(10, 0.1));
                }
                4 if rng.random_bool(0.3) => {
                    pair.start();
                    pair.open(0, PathKind::Relay, Link::lossy(40, 0.1));
                    pair.open(direct, PathKind::Direct, Link::lossy(10, 0.1));
                }
                _ => {
                    let which = rng.random_range(0..2);
                    let len = [10, 1000, 5000, 90_000][rng.random_range(0..4)];
                    pair.send([Side::A, Side::B][which], 0, pattern(sent[which], len));
                    sent[which] += 1;
                }
            }
            pair.run_for(Duration::from_millis(rng.random_range(0..150)));
        }
        pair.set(0, |link| (link.up, link.loss) = (true, 0.1));
        let end = pair.now + MINUTES;
        pair.run(end, |pair| [pair.b.got.len() as u64, pair.a.got.len() as u64] == sent);
        for (side, sent) in [(Side::B, sent[0]), (Side::A, sent[1])] {
            let got = &pair.end(side).got;
            assert_eq!(got.len() as u64, sent, "seed {seed}");
            for (index, message) in got.iter().enumerate() {
                assert_eq!(message.sequence, Sequence(index as u64), "seed {seed}");
                let expected = pattern(index as u64, message.payload.len());
                assert!(message.payload == expected, "seed {seed}: message {index}");
            }
        }
    }
}
