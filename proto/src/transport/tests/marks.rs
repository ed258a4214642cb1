//! Congestion marks: queues that stay short, and ways that treat marks badly.

use std::time::Duration;

use super::bottleneck::{Lane, Line, Marks};
use crate::id::PathId;
use crate::io::Ecn;

const SECOND: Duration = Duration::from_secs(1);

/// Packets counted as lost by all senders.
fn lost(lane: &Lane) -> u64 {
    lane.flows.iter().map(|flow| flow.stats().lost).sum()
}

#[test]
fn a_marking_bottleneck_is_shared_without_loss() {
    let line = Line { marks: Marks::Above(30e3), ..Line::dsl() };
    let mut lane = Lane::new(line, 2, 1);
    lane.run_for(10 * SECOND);
    let (before, marked) = (lost(&lane), lane.marked);
    let rates = lane.measure(60 * SECOND);
    assert_eq!(lost(&lane) - before, 0);
    assert!(lane.marked > marked, "it marked");
    assert!(rates.iter().sum::<f64>() > 0.9 * line.rate, "{rates:?}");
    assert!(rates.iter().all(|rate| *rate > 0.25 * line.rate), "{rates:?}");
}

#[test]
fn marks_that_do_not_arrive_are_given_up() {
    let mut lane = Lane::new(Line { marks: Marks::Erased, ..Line::dsl() }, 1, 1);
    let rate = lane.measure(20 * SECOND)[0];
    assert_eq!(lane.flows[0].sender.mark(PathId(0)), Ecn::NotEct);
    assert!(rate > 0.8 * Line::dsl().rate, "{rate}");
}

/// As if each round trip had a loss: slow, and alive.
#[test]
fn marks_of_every_packet_stop_nothing() {
    let mut lane = Lane::new(Line { marks: Marks::AllCe, ..Line::dsl() }, 1, 1);
    let rate = lane.measure(20 * SECOND)[0];
    assert!((25e3..200e3).contains(&rate), "{rate}");
    assert_eq!(lost(&lane), 0);
}

#[test]
fn a_way_that_drops_what_is_marked_costs_a_probe_timeout() {
    let mut lane = Lane::new(Line { marks: Marks::Dropped, ..Line::dsl() }, 1, 1);
    lane.run_for(3 * SECOND);
    assert_eq!(lane.flows[0].sender.mark(PathId(0)), Ecn::NotEct);
    assert!(lane.measure(20 * SECOND)[0] > 0.8 * Line::dsl().rate);
    assert_eq!(lane.flows[0].failed, 0);
}
