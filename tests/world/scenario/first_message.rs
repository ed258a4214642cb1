//! How long the first message to a known peer takes.

use std::time::Duration;

use super::stage::{ACCESS, Failure, Stage};
use crate::link::Link;
use crate::machines::Pickup;
use crate::nat::NatConfig;

/// What alice has when she sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FirstMessage {
    /// A new process that knows bob from before and is registered already.
    Registered,
    /// A new process that knows server and bob from before and has not sent anything yet.
    Cold,
}

/// Sender to server to receiver: the two access lines and the server's line twice.
const ONE_WAY: Duration =
    ACCESS.saturating_mul(2).saturating_add(Link::lan().latency.saturating_mul(4));

/// A message to a known peer takes one one-way trip through the server, although both are behind
/// port-restricted boxes and have no session.
///
/// # Errors
/// [`Failure`] when it takes longer.
pub fn first_message(seed: u64, case: FirstMessage) -> Result<String, Failure> {
    let mut stage = acquainted(seed)?;
    stage.leave_peer("alice");
    stage.world.run_for(Duration::from_secs(1))?;
    stage.halt_peer("alice");
    let start = match case {
        FirstMessage::Cold => {
            stage.restart_peer_with("alice", "bob", "first");
            stage.world.clock().now()
        }
        FirstMessage::Registered => {
            stage.restart_peer("alice");
            stage.world.run_for(Duration::from_secs(2))?;
            stage.send("alice", "bob", "first");
            stage.world.clock().now()
        }
    };
    stage.finish(Duration::from_secs(10))?;
    let Some(arrival) = stage.arrival("bob", "first") else {
        return Err(stage.failure("the message did not arrive"));
    };
    let took = arrival - start;
    if took > ONE_WAY + Duration::from_millis(1) {
        let text = format!("{case:?}: {took:?} instead of one one-way trip of {ONE_WAY:?}");
        return Err(stage.failure(&text));
    }
    Ok(format!("{case:?}: {took:?}"))
}

/// Two peers that have talked.
fn acquainted(seed: u64) -> Result<Stage, Failure> {
    let mut stage = Stage::new(seed);
    for name in ["alice", "bob"] {
        let site = stage.behind(NatConfig::PORT_RESTRICTED);
        stage.add_peer(name, &site, Pickup::AtOnce);
    }
    stage.wait_registered(Duration::from_secs(2))?;
    stage.send("alice", "bob", "nice to meet you");
    stage.finish(Duration::from_secs(10))?;
    Ok(stage)
}
