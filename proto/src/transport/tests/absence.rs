//! What a direct path that was away for a while begins with.

use std::time::Duration;

use super::faults::pattern;
use super::link::{Link, Pair, Side};
use crate::id::PathId;
use crate::transport::PathKind;

const MINUTES: Duration = Duration::from_secs(600);
const SECOND: Duration = Duration::from_secs(1);
/// Ten packets.
const WINDOW_INITIAL: u64 = 15_000;

/// Two that have sent each other enough over a direct path to know what it carries.
fn busy() -> Pair {
    let mut pair = Pair::new(Link::clean(40), 1);
    pair.open(1, PathKind::Direct, fast());
    pair.prefer(1);
    pair.send(Side::A, 0, pattern(0, 2 << 20));
    pair.run_until_idle(MINUTES);
    assert!(window(&pair, 1) > 10 * WINDOW_INITIAL, "{}", window(&pair, 1));
    pair
}

fn fast() -> Link {
    Link { rate: Some((12.5e6, 400e3)), ..Link::clean(10) }
}

fn window(pair: &Pair, path: u8) -> u64 {
    pair.a.transport.path_stats(PathId(path)).expect("an open path").congestion_window
}

/// Sends while the direct path is dead, for three seconds.
fn lose(pair: &mut Pair) {
    pair.set(1, |link| link.up = false);
    for _ in 0..30 {
        pair.send(Side::A, 0, pattern(1, 2000));
        pair.run_for(SECOND / 10);
    }
    assert!(pair.a.transport.is_suspect(PathId(1)));
}

/// What was lost while it was dead is a loss, and no persistent congestion.
#[test]
fn a_path_that_was_suspect_keeps_most_of_its_window() {
    let mut pair = busy();
    let before = window(&pair, 1);
    lose(&mut pair);
    pair.set(1, |link| link.up = true);
    let now = pair.now;
    pair.a.transport.restore_path(PathId(1), now);
    pair.send(Side::A, 0, pattern(1, 2000));
    pair.run_until_idle(MINUTES);
    assert!(window(&pair, 1) >= before / 2, "{} of {before}", window(&pair, 1));
}

/// The same where the path itself answers first.
#[test]
fn a_path_that_recovers_keeps_most_of_its_window() {
    let mut pair = busy();
    let before = window(&pair, 1);
    lose(&mut pair);
    pair.set(1, |link| link.up = true);
    pair.run_until_idle(MINUTES);
    assert!(window(&pair, 1) >= before / 2, "{} of {before}", window(&pair, 1));
}

#[test]
fn a_path_on_the_route_of_one_just_closed_begins_with_its_window() {
    for (absence, known) in [(5 * SECOND, true), (11 * SECOND, false)] {
        let mut pair = busy();
        let before = window(&pair, 1);
        lose(&mut pair);
        let now = pair.now;
        for side in [Side::A, Side::B] {
            pair.end(side).transport.close_path(PathId(1), now);
        }
        pair.run_for(absence);
        pair.open(3, PathKind::Direct, fast());
        let now = pair.now;
        pair.a.transport.resume_path(PathId(3), PathId(1), now);
        let after = window(&pair, 3);
        assert_eq!(after >= before / 2, known, "{after} of {before} after {absence:?}");
        pair.prefer(3);
        pair.send(Side::A, 0, pattern(1, 2000));
        pair.run_until_idle(MINUTES);
    }
}
