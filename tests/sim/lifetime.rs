//! What a peer learns of the time for which its router keeps idle mappings, and what it does
//! with it.

use std::time::Duration;

use p2sp_proto::traversal::nat::Field;
use world::Link;
use world::machines::{Pickup, Seen};
use world::nat::{Dependence, NatConfig, Refresh, Unsolicited};
use world::oracle::Side;
use world::scenario::Stage;

/// All silences of a measurement, and what lies between them.
const MEASURED: Duration = Duration::from_secs(1000);
/// Over this long keepalives are counted.
const COUNTED: Duration = Duration::from_secs(240);

const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Lives of mappings; what is shown of each, and the keepalive that follows from it. The silences
/// are 30, 45, 67, 100, 150, 225 and 300 s.
const LIVES: [(u64, Option<u64>, u64); 6] = [
    (28, None, 15),
    (40, Some(30), 24),
    (66, Some(45), 30),
    (100, Some(67), 30),
    (260, Some(225), 30),
    (600, Some(300), 30),
];

/// A peer behind these boxes, after all was measured.
fn measured(layers: &[NatConfig], seed: u64, loss: f64) -> Stage {
    let mut stage = Stage::new(seed);
    let layers = layers.iter().zip(1..);
    let side = layers.fold(Side::public(), |side, (config, number)| side.then(number, *config));
    let site = stage.place(&side);
    stage.add_peer("alice", &site, Pickup::AtOnce);
    stage.wait_registered(seconds(10)).expect("a peer registers");
    stage.set_line("alice", Link::millis(20).with_loss(loss));
    stage.pass(MEASURED).expect("nothing breaks");
    stage
}

fn shown(stage: &Stage) -> Option<u64> {
    stage.nat("alice").lifetime.value().map(|lifetime| lifetime.as_secs())
}

/// Seconds between two signs of life, rounded.
fn interval(stage: &mut Stage) -> u64 {
    let (alice, server) = (stage.host("alice"), stage.server());
    let before = stage.world.traffic().direct(alice, server).payload();
    stage.pass(COUNTED).expect("nothing breaks");
    let count = stage.world.traffic().direct(alice, server).payload() - before;
    (COUNTED.as_secs() + count / 2) / count
}

/// The peer registered once and was seen at one address.
fn assert_steady(stage: &Stage, what: &str) {
    let is_change = |seen: &Seen| {
        let told = |text: &String| text.starts_with("Observed") || text.starts_with("ServerSilent");
        *seen == Seen::Registered { again: true } || matches!(seen, Seen::Other(text) if told(text))
    };
    let changes: Vec<_> = stage.told("alice").iter().filter(|(_, seen)| is_change(seen)).collect();
    assert!(changes.is_empty(), "{what}: {changes:?}");
}

fn boxes() -> Vec<NatConfig> {
    let accepts = NatConfig::PORT_RESTRICTED.with_unsolicited(Unsolicited::AcceptState);
    let address = NatConfig::SYMMETRIC.with_behaviour(Dependence::Address, Dependence::Address);
    let both = NatConfig { refresh: Refresh::Both, ..NatConfig::PORT_RESTRICTED };
    vec![
        NatConfig::FULL_CONE,
        NatConfig::PORT_RESTRICTED,
        NatConfig::SYMMETRIC,
        accepts,
        address,
        both,
    ]
}

#[test]
fn the_lifetime_is_learned_and_the_keepalive_follows_it() {
    for (seed, config) in (1..).zip(boxes()) {
        for (lives, expected, keepalive) in LIVES {
            let config = NatConfig { lifetime: seconds(lives), ..config };
            let what = format!("seed {seed}, {config:?}");
            let mut stage = measured(&[config], seed, 0.0);
            assert_eq!(shown(&stage), expected, "{what}");
            assert_eq!(interval(&mut stage), keepalive, "{what}");
            assert_steady(&stage, &what);
        }
    }
}

/// What is lost may end the measurement early, and never makes it say too much.
#[test]
fn losses_never_lengthen_a_lifetime() {
    for seed in 1..=6 {
        for (lives, expected, _) in LIVES {
            let config = NatConfig { lifetime: seconds(lives), ..NatConfig::PORT_RESTRICTED };
            let stage = measured(&[config], seed, 0.1);
            assert!(shown(&stage) <= expected, "seed {seed}, {lives} s: {:?}", shown(&stage));
        }
    }
}

#[test]
fn the_shorter_of_two_boxes_counts() {
    let lives = |n| NatConfig { lifetime: seconds(n), ..NatConfig::PORT_RESTRICTED };
    for layers in [[lives(40), lives(600)], [lives(600), lives(40)]] {
        assert_eq!(shown(&measured(&layers, 1, 0.0)), Some(30), "{layers:?}");
    }
}

#[test]
fn a_public_host_measures_nothing() {
    let mut stage = measured(&[], 1, 0.0);
    assert_eq!(stage.nat("alice").lifetime, Field::Unknown);
    assert_eq!(interval(&mut stage), 15);
}

/// A router that ends mappings at some age, whatever goes through them, costs addresses: the
/// keepalive becomes short, and the server never takes the peer for gone.
#[test]
fn lost_mappings_shorten_the_keepalive() {
    let config = NatConfig { lifetime: seconds(600), ..NatConfig::PORT_RESTRICTED }
        .with_ports(world::nat::Ports::Random)
        .with_absolute_lifetime(seconds(400));
    let mut stage = measured(&[config], 1, 0.0);
    let again = Seen::Registered { again: true };
    assert!(!stage.told("alice").iter().any(|(_, seen)| *seen == again));
    assert_eq!(interval(&mut stage), 10);
}

/// What was learned is of the network where it was learned.
#[test]
fn another_network_begins_anew() {
    let lives = |n| NatConfig { lifetime: seconds(n), ..NatConfig::PORT_RESTRICTED };
    let mut stage = measured(&[lives(600)], 1, 0.0);
    assert_eq!(shown(&stage), Some(300));
    let site = stage.behind(lives(40));
    stage.roam("alice", &site);
    stage.change_network("alice");
    stage.pass(seconds(5)).expect("nothing breaks");
    assert_eq!(shown(&stage), None);
    stage.pass(MEASURED).expect("nothing breaks");
    assert_eq!(shown(&stage), Some(30));
    assert_eq!(interval(&mut stage), 24);
}
