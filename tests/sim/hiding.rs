//! A peer that hides: every datagram of its host is looked at.

use std::time::Duration;

use world::nat::NatConfig;
use world::scenario::{Failure, Stage};

/// More lines than the run has: the whole trace is looked at.
const TRACE_MAX: usize = 2000;
/// The server, by both its addresses.
const SERVER: [&str; 2] = ["203.0.113.1:", "[2001:db8:ffff::1]:"];

/// Source and destination of every datagram at every place it came by.
fn ways(stage: &Stage) -> Vec<(String, String)> {
    let trace = stage.world.trace().tail(TRACE_MAX);
    assert!(trace.lines().count() < TRACE_MAX, "the trace does not reach back to the beginning");
    let way = |line: &str| {
        let (source, rest) = line.split_once(" -> ")?;
        let source = source.rsplit(' ').next()?;
        Some((source.to_owned(), rest.split(' ').next()?.to_owned()))
    };
    trace.lines().filter_map(way).collect()
}

/// Alice hides in her home, bob is in the internet where everybody reaches him.
fn talk(seed: u64) -> Result<Stage, Failure> {
    let mut stage = Stage::new(seed);
    let (home, open) = (stage.behind(NatConfig::FULL_CONE), stage.public());
    stage.add_hidden_peer("alice", &home);
    stage.add_peer("bob", &open, world::machines::Pickup::AtOnce);
    stage.wait_registered(Duration::from_secs(2))?;
    for round in 0..5 {
        stage.send("alice", "bob", &format!("to bob, {round}"));
        stage.send("bob", "alice", &format!("to alice, {round}"));
        stage.world.run_for(Duration::from_millis(200))?;
    }
    stage.send_all("bob", "to all");
    stage.finish(Duration::from_secs(5))?;
    stage.pass(Duration::from_secs(25))?;
    Ok(stage)
}

#[test]
fn no_datagram_joins_a_hiding_peer_and_anybody_but_the_server() {
    for seed in 1..=5 {
        let stage = talk(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        assert_eq!(stage.failures(), []);
        let (alice, bob) = (stage.host("alice"), stage.host("bob"));
        let traffic = stage.world.traffic();
        assert!(
            traffic.through(alice, bob).payload() > 5 && traffic.through(bob, alice).payload() > 5
        );
        // Alice's home in and behind its box; neither bob nor the server is there.
        let of_alice = |at: &str| at.starts_with("192.168.1.") || at.starts_with("198.51.100.");
        let of_server = |at: &str| SERVER.iter().any(|server| at.starts_with(server));
        let ways = ways(&stage);
        assert!(ways.iter().any(|(from, to)| of_alice(from) && of_server(to)), "{ways:?}");
        for (from, to) in &ways {
            let hers = of_alice(from) || of_alice(to);
            assert!(!hers || of_server(from) || of_server(to), "{from} -> {to}");
        }
    }
}
