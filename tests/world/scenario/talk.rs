//! Three peers in different places register, list each other and talk.

use std::time::Duration;

use super::stage::{Failure, Stage};
use crate::machines::Pickup;
use crate::nat::NatConfig;

/// Messages each way.
const MESSAGES: usize = 20;

/// Everybody sees everybody, and every message arrives once and in order.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn talk(seed: u64) -> Result<String, Failure> {
    let mut stage = Stage::new(seed);
    let sites = [
        stage.public(),
        stage.behind(NatConfig::PORT_RESTRICTED),
        stage.behind(NatConfig::SYMMETRIC),
    ];
    let slowly = Pickup::Every(Duration::from_millis(50));
    let peers = [("alice", Pickup::AtOnce), ("bob", Pickup::AtOnce), ("carol", slowly)];
    for (site, (name, pickup)) in sites.iter().zip(peers) {
        stage.add_peer(name, site, pickup);
    }
    stage.wait_registered(Duration::from_secs(2))?;
    check_lists(&mut stage)?;
    for round in 0..MESSAGES {
        for (from, to) in pairs() {
            stage.send(from, to, &format!("{from} to {to}, {round}"));
        }
        stage.world.run_for(Duration::from_millis(20))?;
    }
    stage.send_all("bob", "bob to everybody");
    stage.finish(Duration::from_secs(30))?;
    if let Some(failed) = stage.failures().first() {
        return Err(stage.failure(&format!("a message failed: {failed:?}")));
    }
    Ok(format!("{:?}", stage.model().tally()))
}

fn check_lists(stage: &mut Stage) -> Result<(), Failure> {
    for name in stage.names() {
        let list = stage.list(&name)?;
        if list != stage.names() {
            return Err(stage.failure(&format!("{name} sees {list:?}")));
        }
    }
    Ok(())
}

fn pairs() -> impl Iterator<Item = (&'static str, &'static str)> {
    let names = ["alice", "bob", "carol"];
    names
        .into_iter()
        .flat_map(move |from| names.into_iter().map(move |to| (from, to)))
        .filter(|(from, to)| from != to)
}
