//! Members of a network on one LAN, with and without their server.

use std::time::Duration;

use world::link::Link;
use world::machines::{Pickup, Seen};
use world::nat::NatConfig;
use world::scenario::{Failure, Site, Stage};

const PEERS: [&str; 2] = ["alice", "bob"];

fn second(n: u64) -> Duration {
    Duration::from_secs(n)
}

/// Peers of one network in one home, who registered once and learned its secret.
fn home(seed: u64) -> Result<(Stage, Site), Failure> {
    let mut stage = Stage::with_networks(seed, &["family", "guests"]);
    let site = stage.behind(NatConfig::SYMMETRIC);
    for name in PEERS {
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(second(2))?;
    Ok((stage, site))
}

/// All processes begin anew, and the server does not.
fn cut_off(stage: &mut Stage) {
    for name in PEERS {
        stage.halt_peer(name);
    }
    stage.halt_server();
    for name in PEERS {
        stage.restart_peer(name);
    }
}

fn talk(stage: &mut Stage, rounds: std::ops::Range<u32>) -> Result<(), Failure> {
    for round in rounds {
        for (from, to) in [("alice", "bob"), ("bob", "alice")] {
            stage.send(from, to, &format!("{from} to {to}, {round}"));
        }
        stage.pass(Duration::from_millis(100))?;
    }
    Ok(())
}

/// How often a peer lost every path to another.
fn interruptions(stage: &Stage, name: &str, since: usize) -> usize {
    let lost = |seen: &Seen| matches!(seen, Seen::Path { direct: false, .. });
    stage.told(name)[since..].iter().filter(|(_, seen)| lost(seen)).count()
}

fn registrations(stage: &Stage, name: &str) -> usize {
    let registered = |seen: &Seen| matches!(seen, Seen::Registered { .. });
    stage.told(name).iter().filter(|(_, seen)| registered(seen)).count()
}

#[test]
fn a_home_talks_while_the_server_is_away_and_goes_on_when_it_is_back() {
    for seed in 1..=5 {
        let run = || -> Result<(), Failure> {
            let (mut stage, _) = home(seed)?;
            cut_off(&mut stage);
            talk(&mut stage, 0..20)?;
            stage.finish(second(5))?;
            assert_eq!(registrations(&stage, "alice"), 1, "the server is away");
            let told = stage.told("alice").len();
            stage.restart_server();
            talk(&mut stage, 20..100)?;
            stage.finish(second(10))?;
            assert!(stage.failures().is_empty(), "{:?}", stage.failures());
            for name in PEERS {
                assert_eq!(registrations(&stage, name), 2);
            }
            assert_eq!(interruptions(&stage, "alice", told), 0);
            Ok(())
        };
        run().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn a_lossy_home_talks_too() {
    for seed in 1..=5 {
        let run = || -> Result<(), Failure> {
            let (mut stage, _) = home(seed)?;
            for name in PEERS {
                let host = stage.host(name);
                stage.world.set_link(host, Link::lan().with_loss(0.1));
            }
            cut_off(&mut stage);
            talk(&mut stage, 0..50)?;
            stage.finish(second(30))
        };
        run().unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}

#[test]
fn the_first_message_within_a_home_does_not_wait_for_the_server() {
    let (mut stage, _) = home(1).unwrap();
    stage.send("alice", "bob", "hello");
    stage.finish(second(1)).unwrap();
    stage.halt_peer("alice");
    stage.pass(second(1)).unwrap();
    let began = stage.world.clock().now();
    stage.restart_peer_with("alice", "bob", "quick");
    stage.finish(second(1)).unwrap();
    let took = stage.arrival("bob", "quick").unwrap() - began;
    // One way to the server takes 20 ms.
    assert!(took < Duration::from_millis(20), "{took:?}");
}

#[test]
fn networks_on_one_lan_do_not_see_each_other() {
    let (mut stage, site) = home(2).unwrap();
    stage.choose_network("guests");
    stage.add_peer("carol", &site, Pickup::AtOnce);
    stage.wait_registered(second(2)).unwrap();
    stage.halt_server();
    stage.pass(second(60)).unwrap();
    assert_eq!(stage.list("carol").unwrap(), [""; 0]);
    assert_eq!(stage.list("alice").unwrap(), ["bob"]);
    let (carol, alice) = (stage.host("carol"), stage.host("alice"));
    let answered = stage.world.traffic().direct(alice, carol).datagrams;
    stage.send("carol", "alice", "hello");
    stage.pass(second(10)).unwrap();
    let beacons = stage.world.traffic().direct(alice, carol).datagrams - answered;
    assert!(beacons <= 2, "beacons to everybody and nothing else: {beacons}");
}

#[test]
fn an_open_network_says_nothing_on_the_lan() {
    let mut stage = Stage::new(3);
    let site = stage.behind(NatConfig::SYMMETRIC);
    for name in PEERS {
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(second(2)).unwrap();
    stage.pass(second(60)).unwrap();
    stage.halt_server();
    stage.pass(second(60)).unwrap();
    let (alice, bob) = (stage.host("alice"), stage.host("bob"));
    assert_eq!(stage.world.traffic().direct(alice, bob).datagrams, 0);
}

#[test]
fn peers_of_other_homes_wait_for_the_server() {
    let mut stage = Stage::with_networks(4, &["family"]);
    for name in PEERS {
        let site = stage.behind(NatConfig::PORT_RESTRICTED);
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(second(2)).unwrap();
    cut_off(&mut stage);
    talk(&mut stage, 0..20).unwrap();
    assert_eq!(stage.arrival("bob", "alice to bob, 0"), None);
    stage.restart_server();
    stage.finish(second(10)).unwrap();
    assert!(stage.failures().is_empty());
}

#[test]
fn two_who_move_to_another_lan_find_each_other_there() {
    let (mut stage, _) = home(5).unwrap();
    stage.send("alice", "bob", "at home");
    stage.finish(second(2)).unwrap();
    stage.halt_server();
    let away = stage.behind(NatConfig::SYMMETRIC);
    for name in PEERS {
        stage.roam(name, &away);
    }
    talk(&mut stage, 0..20).unwrap();
    stage.finish(second(20)).unwrap();
    let (alice, bob) = (stage.host("alice"), stage.host("bob"));
    assert!(stage.world.traffic().direct(alice, bob).payload() > 0);
    assert!(stage.failures().is_empty(), "{:?}", stage.failures());
}
