//! How flows behave on lines of a known rate, delay and loss.

use std::time::Duration;

use super::bottleneck::{BASE, Lane, Line};

const S: Duration = Duration::from_secs(1);
const MS: Duration = Duration::from_millis(1);

#[test]
fn one_flow_fills_the_line() {
    let mut lane = Lane::new(Line::dsl(), 1, 1);
    let used = lane.measure(20 * S)[0] / lane.line.rate;
    assert!(used > 0.9, "{used}");
    assert!(lane.burst <= 11, "{} packets at once", lane.burst);
    let used = lane.measure(20 * S)[0] / lane.line.rate;
    assert!(used > 0.93, "{used} later on");
}

/// A line so fast that one message takes longer than two round trips: only the sender knows that
/// the window holds it back.
#[test]
fn long_messages_follow_each_other_without_a_pause() {
    let line = Line { rate: 50e6, queue: 1e9, delay: MS / 2, ..Line::dsl() };
    let mut lane = Lane::new(line, 1, 8);
    lane.message = vec![7; 256 << 10].into();
    lane.run_for(S / 2);
    let used = lane.measure(S)[0] / lane.line.rate;
    assert!(used > 0.9, "{used}");
}

/// One packet in ten thousand is lost by chance: without any, two deterministic flows fall into step
/// with the queue, and the drops with one of them.
#[test]
fn two_flows_share_a_line() {
    for seed in 0..6 {
        let mut lane = Lane::new(Line { loss: 1e-4, ..Line::dsl() }, 2, seed);
        lane.set_running(1, false);
        lane.run_for(5 * S);
        lane.set_running(1, true);
        lane.run_for(20 * S);
        let rates = lane.measure(60 * S);
        let share = rates[0] / (rates[0] + rates[1]);
        assert!((0.4..=0.6).contains(&share), "{share} with seed {seed}");
        assert!(rates[0] + rates[1] > 0.9 * lane.line.rate, "{rates:?}");
    }
}

/// The reference is the response function of Reno, which RFC 9438 section 4.3 asks CUBIC to
/// match where its own curve, sqrt4(C (3 + beta) / 4 (1 - beta)) (RTT / p)^(3/4) packets, is
/// lower: 1.22 / sqrt(p) packets each round trip.
#[test]
fn random_loss_is_no_collapse() {
    let mut lane = Lane::new(Line { loss: 0.02, ..Line::dsl() }, 1, 3);
    let rate = lane.measure(60 * S)[0];
    let (rtt, loss) = (0.05f64, 0.02f64);
    let reno = 1.22 / loss.sqrt();
    let cubic = (0.4f64 * 3.7 / (4.0 * 0.3)).powf(0.25) * (rtt / loss).powf(0.75);
    let packet = f64::from(lane.flows[0].stats().payload_max);
    let reference = reno.max(cubic) * packet / rtt;
    let part = rate / reference;
    assert!((0.8..2.0).contains(&part), "{rate} bytes a second, {part} of the reference");
}

#[test]
fn reordering_costs_no_window() {
    let window = |reorder| {
        let mut lane = Lane::new(Line { queue: 1e9, ..Line::dsl() }, 1, 4);
        lane.run_for(3 * S);
        lane.line.reorder = reorder;
        let before = lane.flows[0].stats();
        lane.run_for(5 * S);
        let stats = lane.flows[0].stats();
        (stats.congestion_window as f64, stats.lost - before.lost)
    };
    let (plain, none) = window(None);
    assert_eq!(none, 0);
    for by in [5, 10] {
        let (reordered, lost) = window(Some((50, by)));
        assert!(lost > 0 && lost <= 20, "{lost} errors until the threshold had grown");
        assert!(reordered > 0.98 * plain, "by {by}: {reordered}, {plain} without");
    }
}

/// RFC 9002 section 7.6: a line that was away for long is met with the smallest window.
#[test]
fn a_long_outage_is_persistent_congestion_and_a_short_one_is_not() {
    for (outage, collapses) in [(150 * MS, false), (3 * S, true)] {
        let mut lane = Lane::new(Line::dsl(), 1, 5);
        lane.run_for(5 * S);
        let before = lane.flows[0].stats().congestion_window;
        lane.line.up = false;
        lane.run_for(outage);
        lane.line.up = true;
        let mut least = before;
        for _ in 0..2500 {
            lane.run_for(MS);
            least = least.min(lane.flows[0].stats().congestion_window);
        }
        assert_eq!(least < 4 * BASE as u64, collapses, "{outage:?}: {before} to {least}");
        // Slow start leads back to half of what was in use, not to the smallest window.
        let used = lane.measure(S)[0] / lane.line.rate;
        assert!(used > 0.6, "{used} after {outage:?}");
    }
}

#[test]
fn packets_grow_to_what_the_line_carries() {
    for (len_max, least) in [(usize::MAX, 1402), (1360, 1345), (BASE, BASE)] {
        let mut lane = Lane::new(Line { len_max, ..Line::dsl() }, 1, 6);
        lane.run_for(5 * S);
        let size = usize::from(lane.flows[0].stats().payload_max);
        assert!((least..=len_max).contains(&size), "{size} where {len_max} pass");
        lane.lengths.clear();
        lane.run_for(S);
        assert!(lane.lengths[&size] > 1000, "{:?}", lane.lengths);
        let lost = lane.flows[0].stats().lost;
        let mut same = Lane::new(Line { len_max: usize::MAX, ..Line::dsl() }, 1, 6);
        same.run_for(6 * S);
        assert!(lost <= same.flows[0].stats().lost + 50, "{lost}: a lost probe is no loss");
    }
}

#[test]
fn a_line_that_stops_to_carry_large_packets_is_used_with_smaller_ones() {
    for len_max in [1300, BASE] {
        let mut lane = Lane::new(Line::dsl(), 1, 7);
        lane.run_for(5 * S);
        assert_eq!(lane.flows[0].stats().payload_max, 1402);
        lane.line.len_max = len_max;
        let before = lane.flows[0].got;
        lane.run_for(S);
        assert!(lane.flows[0].got > before, "nothing in a second");
        let used = lane.measure(10 * S)[0] / lane.line.rate;
        assert!(used > 0.7, "{used}");
        assert!(usize::from(lane.flows[0].stats().payload_max) <= len_max);
        let events = &lane.flows[0].failed;
        assert_eq!(*events, 0, "the path is given up");
    }
}
