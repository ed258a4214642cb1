//! Ports that routers forward, and networks that change under a peer.

use std::time::Duration;

use world::machines::{Pickup, Seen};
use world::nat::{NatConfig, Ports};
use world::oracle::Side;
use world::scenario::{Failure, Stage};

/// Longer than a pair takes to find what there is to find.
const SETTLE: Duration = Duration::from_secs(10);

/// Alice and bob on their sides, registered.
fn stage(a: &Side, b: &Side) -> Result<Stage, Failure> {
    let mut stage = Stage::new(1);
    for (name, side) in [("alice", a), ("bob", b)] {
        let site = stage.place(side);
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(SETTLE)?;
    Ok(stage)
}

/// Whether the last path that `name` was told of is direct.
fn is_direct(stage: &Stage, name: &str) -> bool {
    let is_path = |seen: &Seen| matches!(seen, Seen::Path { .. });
    let last = stage.told(name).iter().rfind(|(_, seen)| is_path(seen));
    last.is_some_and(|(_, seen)| matches!(seen, Seen::Path { direct: true, .. }))
}

/// Whether the two find a direct path after alice's word.
fn becomes_direct(stage: &mut Stage) -> Result<bool, Failure> {
    stage.send("alice", "bob", "hello");
    let both = |stage: &Stage| is_direct(stage, "alice") && is_direct(stage, "bob");
    let found = stage.run_until(both, SETTLE)?;
    stage.finish(SETTLE)?;
    Ok(found)
}

#[test]
fn one_mapped_port_is_enough_for_two_symmetric_nats() -> Result<(), Failure> {
    let sides = [1, 2].map(|number| Side::behind(number, NatConfig::SYMMETRIC));
    for mapped in [None, Some("alice"), Some("bob")] {
        let mut stage = stage(&sides[0], &sides[1])?;
        if let Some(name) = mapped {
            stage.map_port(name, 6000);
            stage.pass(Duration::from_secs(1))?;
        }
        assert_eq!(becomes_direct(&mut stage)?, mapped.is_some(), "{mapped:?}");
    }
    Ok(())
}

/// Their routers' outer addresses are private to the carrier, and still of use inside of it.
#[test]
fn customers_of_one_carrier_meet_at_their_routers() -> Result<(), Failure> {
    let cone = NatConfig::PORT_RESTRICTED;
    let home = |number| Side::behind(number, cone).then(9, cone);
    for mapped in [false, true] {
        let mut stage = stage(&home(1), &home(2))?;
        if mapped {
            stage.map_port("alice", 6000);
            stage.map_port("bob", 6000);
            stage.pass(Duration::from_secs(1))?;
        }
        assert_eq!(becomes_direct(&mut stage)?, mapped, "mapped: {mapped}");
    }
    Ok(())
}

#[test]
fn a_mapping_that_comes_late_is_told_to_who_talks() -> Result<(), Failure> {
    let sides = [1, 2].map(|number| Side::behind(number, NatConfig::SYMMETRIC));
    let mut stage = stage(&sides[0], &sides[1])?;
    assert!(!becomes_direct(&mut stage)?);
    stage.map_port("bob", 6000);
    let both = |stage: &Stage| is_direct(stage, "alice") && is_direct(stage, "bob");
    assert!(stage.run_until(both, SETTLE)?, "{}", stage.failure("still relayed"));
    Ok(())
}

/// The router is another one, the addresses are the same: whoever is told begins at once.
#[test]
fn another_network_with_the_same_addresses_is_gathered_anew() -> Result<(), Failure> {
    let config = NatConfig::PORT_RESTRICTED.with_ports(Ports::Random);
    let sides = [1, 2].map(|number| Side::behind(number, config));
    let back_after = |told: bool| -> Result<Duration, Failure> {
        let mut stage = stage(&sides[0], &sides[1])?;
        assert!(becomes_direct(&mut stage)?);
        let before = observed(&stage, "alice");
        stage.rebind("alice");
        let start = stage.world.clock().now();
        if told {
            stage.change_network("alice");
        }
        let again = |stage: &Stage| observed(stage, "alice") > before;
        assert!(stage.run_until(again, Duration::from_secs(60))?);
        Ok(stage.world.clock().now() - start)
    };
    let (told, untold) = (back_after(true)?, back_after(false)?);
    assert!(told < Duration::from_millis(500), "{told:?}");
    assert!(untold > Duration::from_secs(1), "{untold:?}: the case shows nothing");
    Ok(())
}

/// How often the peer was told that the server sees it at another address.
fn observed(stage: &Stage, name: &str) -> usize {
    let is_it = |seen: &Seen| matches!(seen, Seen::Other(text) if text.starts_with("Observed"));
    stage.told(name).iter().filter(|(_, seen)| is_it(seen)).count()
}
