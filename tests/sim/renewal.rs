//! Conversations behind routers that end each mapping at a certain age, whatever goes through it.

use std::time::Duration;

use world::nat::{Dependence, NatConfig, Ports, Unsolicited};
use world::oracle::Side;
use world::scenario::Flow;

/// Seeds in which alice is the controlled and the controlling side.
const SEEDS: [u64; 2] = [1, 3];
/// What the boxes allow a mapping.
const AGE: Duration = Duration::from_secs(60);
/// Ends in the course of a conversation; the first two come unprepared.
const ENDS: u32 = 5;
const UNPREPARED_ENDS: u32 = 2;
/// What an end takes to be noticed and mended.
const MENDED: Duration = Duration::from_secs(5);
/// Without losses a message takes 40 ms, and nothing may hold it up for more than a round trip.
const HITCH: Duration = Duration::from_millis(40 + 80);
const UNPREPARED: Duration = Duration::from_secs(2);

const BOX: NatConfig =
    NatConfig::PORT_RESTRICTED.with_ports(Ports::Random).with_absolute_lifetime(AGE);

/// Twenty messages a second, each way, through five ends of mappings.
fn outlives(seed: u64, a: NatConfig, b: NatConfig) {
    let what = format!("seed {seed}, {a:?} and {b:?}");
    let start = Flow::start(seed, [&Side::behind(1, a), &Side::behind(2, b)]);
    let mut flow = start.unwrap_or_else(|failure| panic!("{what}: {failure}"));
    let age = [a, b].into_iter().filter_map(|config| config.absolute).max().unwrap_or_default();
    let since = flow.now();
    flow.talk(age * UNPREPARED_ENDS + MENDED).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    let unprepared = flow.figures(since);
    assert!(unprepared.slowest > HITCH, "{what}: {unprepared}: no mapping ended");
    assert!(unprepared.slowest < UNPREPARED, "{what}: {unprepared}");
    let since = flow.now();
    flow.talk(age * (ENDS - UNPREPARED_ENDS)).unwrap_or_else(|failure| panic!("{what}: {failure}"));
    let prepared = flow.figures(since);
    assert!(prepared.slowest <= HITCH, "{what}: {prepared}");
    assert!(prepared.relayed_percent < 2.0, "{what}: {prepared}");
    flow.finish().unwrap_or_else(|failure| panic!("{what}: {failure}"));
}

#[test]
fn a_path_moves_before_its_mapping_ends() {
    for seed in SEEDS {
        outlives(seed, BOX, NatConfig::PORT_RESTRICTED);
        outlives(seed, NatConfig::PORT_RESTRICTED, BOX);
    }
}

#[test]
fn both_sides_may_have_to_move() {
    let later = BOX.with_absolute_lifetime(Duration::from_secs(75));
    for seed in SEEDS {
        outlives(seed, BOX, BOX);
        outlives(seed, BOX, later);
    }
}

#[test]
fn a_mapping_for_each_destination_is_renewed_too() {
    let each = BOX.with_behaviour(Dependence::AddressAndPort, Dependence::AddressAndPort);
    for seed in SEEDS {
        outlives(seed, each, NatConfig::RESTRICTED);
        outlives(seed, NatConfig::FULL_CONE, each);
    }
}

/// Such a router may move the other side's port: then the path moves a moment later.
#[test]
fn routers_that_remember_strangers_hold_up_nothing() {
    let (accepts, plain) = (Unsolicited::AcceptState, NatConfig::PORT_RESTRICTED);
    for seed in SEEDS {
        outlives(seed, BOX, plain.with_unsolicited(accepts));
        outlives(seed, BOX.with_unsolicited(accepts), plain);
        outlives(seed, BOX.with_unsolicited(accepts), plain.with_unsolicited(accepts));
    }
}

/// Nobody speaks, and the path moves all the same: a word after minutes meets
/// no mapping that has ended.
#[test]
fn an_idle_path_moves_too() {
    for seed in SEEDS {
        let sides = [&Side::behind(1, BOX), &Side::behind(2, NatConfig::PORT_RESTRICTED)];
        let mut flow = Flow::start(seed, sides).unwrap_or_else(|failure| panic!("{failure}"));
        flow.stage.pass(Duration::from_secs(280)).unwrap_or_else(|failure| panic!("{failure}"));
        for _ in 0..4 {
            flow.stage.pass(Duration::from_secs(17)).unwrap_or_else(|failure| panic!("{failure}"));
            let since = flow.now();
            flow.talk(Duration::from_secs(1)).unwrap_or_else(|failure| panic!("{failure}"));
            let figures = flow.figures(since);
            assert!(figures.slowest <= HITCH, "seed {seed}: {figures}");
        }
        flow.finish().unwrap_or_else(|failure| panic!("{failure}"));
    }
}

#[test]
fn losses_cost_no_message() {
    for seed in SEEDS {
        let sides = [&Side::behind(1, BOX), &Side::behind(2, BOX)];
        let mut flow = Flow::start(seed, sides).unwrap_or_else(|failure| panic!("{failure}"));
        flow.set_loss(0.05);
        flow.talk(AGE * ENDS).unwrap_or_else(|failure| panic!("{failure}"));
        flow.finish().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}
