//! Where the time of all tests begins, and tests of what is made of time.

use super::*;

/// Where the time of tests begins; nothing depends on its value.
#[expect(clippy::disallowed_methods, reason = "an Instant has no other origin")]
pub(crate) fn origin() -> Instant {
    Instant::now()
}

#[test]
fn timers_come_in_order_and_once() {
    let start = origin();
    let at = |seconds| start + Duration::from_secs(seconds);
    let mut timers = Timers::default();
    timers.set('a', Some((at(3), "a")));
    timers.set('b', Some((at(2), "b")));
    timers.set('a', Some((at(1), "sooner")));
    assert_eq!(timers.earliest(), Some((at(1), "sooner")));
    timers.set('b', None);
    assert_eq!(timers.take_due(at(0)), None);
    assert_eq!(timers.take_due(at(9)), Some('a'));
    assert_eq!(timers.take_due(at(9)), None);
}

#[test]
fn durations_read_well() {
    for (seconds, text) in
        [(0, "0 s"), (61, "1 min 1 s"), (7_260, "2 h 1 min"), (90_000, "1 d 1 h")]
    {
        assert_eq!(span(Duration::from_secs(seconds)), text);
    }
}

#[test]
fn a_backoff_doubles_to_its_limit() {
    let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(3));
    let delays: Vec<u64> = (0..4).map(|_| backoff.advance().as_secs()).collect();
    assert_eq!(delays, [1, 2, 3, 3]);
    backoff.reset();
    assert_eq!(backoff.advance().as_secs(), 1);
}
