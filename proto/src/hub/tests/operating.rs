//! What the operator does.

use super::meeting::{frame, pair};
use super::*;
use crate::control::code;

#[test]
fn a_broadcast_reaches_everybody_paced() {
    let mut world = World::new();
    for n in 1..=250 {
        world.join(n, &format!("n{n:03}"));
    }
    assert_eq!(world.hub.broadcast("tea is ready", world.now), Ok(250));
    world.drain();
    let reached = |world: &mut World| {
        let heard = |client: &mut Client| client.pushed() == ["notice tea is ready true"];
        world.clients.iter_mut().map(heard).filter(|heard| *heard).count()
    };
    world.exchange();
    assert_eq!(reached(&mut world), 100);
    world.run(Duration::from_millis(60));
    assert_eq!(reached(&mut world), 150);
}

/// 150 members and a broadcast that has come to the first hundred of them: the last, whom it has
/// not reached.
fn with_a_broadcast_on_its_way(world: &mut World) -> usize {
    let clients: Vec<_> = (1..=150).map(|n| world.join(n, &format!("n{n:03}"))).collect();
    assert_eq!(world.hub.broadcast("first", world.now), Ok(150));
    world.drain();
    clients[149]
}

#[test]
fn a_word_to_one_peer_does_not_overtake_those_to_everybody() {
    let mut world = World::new();
    let last = with_a_broadcast_on_its_way(&mut world);
    world.hub.broadcast("second", world.now).unwrap();
    world.hub.send("n150", "third", world.now).unwrap();
    world.drain();
    world.run(Duration::from_millis(100));
    let heard = world.clients[last].pushed();
    assert_eq!(heard, ["notice first true", "notice second true", "notice third false"]);
}

#[test]
fn what_was_said_to_everybody_comes_before_the_good_bye() {
    for stop in [|hub: &mut Hub, now| hub.block("n150", now).unwrap(), Hub::shutdown] {
        let mut world = World::new();
        let last = with_a_broadcast_on_its_way(&mut world);
        stop(&mut world.hub, world.now);
        world.drain();
        world.exchange();
        let client = &mut world.clients[last];
        assert_eq!(client.pushed(), ["notice first true"]);
        assert!(client.closed().is_some());
    }
}

#[test]
fn another_name_neither_misses_nor_repeats_a_broadcast() {
    for (from, to) in [(149, "a"), (0, "z")] {
        let mut world = World::new();
        with_a_broadcast_on_its_way(&mut world);
        world.register(from, to).unwrap();
        world.run(Duration::from_millis(100));
        assert_eq!(world.clients[from].pushed(), ["notice first true"], "{to}");
    }
}

#[test]
fn a_word_to_one_peer() {
    let mut world = World::with(config(&[]));
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    assert_eq!(world.hub.send("alice", "psst", world.now), Ok(()));
    assert_eq!(world.hub.send("open/Alice", "psst", world.now), Ok(()));
    assert_eq!(
        world.hub.send("carol", "psst", world.now),
        Err(OperatorError::UnknownName("carol".into()))
    );
    let long = "x".repeat(NOTICE_LEN_MAX + 1);
    assert_eq!(
        world.hub.send("alice", &long, world.now),
        Err(OperatorError::TooLong(NOTICE_LEN_MAX))
    );
    world.drain();
    world.exchange();
    assert_eq!(world.clients[alice].pushed(), ["notice psst false", "notice psst false"]);
    assert!(world.clients[bob].pushed().is_empty());
}

#[test]
fn a_block_disconnects_and_keeps_out_until_it_is_lifted() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.log();
    assert_eq!(world.hub.block("alice", world.now), Ok(()));
    world.drain();
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[alice].closed(), Some(code::FORBIDDEN));
    assert_eq!(world.clients[bob].pushed(), ["left alice Blocked"]);
    assert_eq!(world.log(), ["left alice Blocked"]);
    assert_eq!(world.hub.status(world.now).blocked, 1);
    let again = world.shake(Hello::new(1));
    world.clients[alice].silent = true;
    assert_eq!(world.register(again, "other").unwrap_err().code, code::FORBIDDEN);
    let other = world.shake(Hello::new(3));
    assert_eq!(world.register(other, "alice").unwrap_err().code, code::FORBIDDEN);
    assert_eq!(world.hub.unblock("alice", world.now), Ok(()));
    assert_eq!(
        world.hub.unblock("alice", world.now),
        Err(OperatorError::NotBlocked("alice".into()))
    );
    assert!(world.register(again, "alice").is_ok());
}

#[test]
fn a_blocked_peer_is_not_relayed_any_more() {
    let mut world = World::new();
    let (alice, _, to_bob, _) = pair(&mut world);
    let sent = frame(&world, alice, to_bob, b"x");
    world.hub.block("bob", world.now).unwrap();
    world.drain();
    assert_eq!(world.arrive(world.clients[alice].address, sent), Verdict::Drop);
}

#[test]
fn shutting_down_says_good_bye() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    world.hub.shutdown(world.now);
    world.drain();
    world.exchange();
    assert_eq!(world.clients[alice].closed(), Some(code::GOING_AWAY));
    assert_eq!(world.clients[bob].closed(), Some(code::GOING_AWAY));
}

#[test]
fn a_peer_may_write_to_the_operator_but_not_endlessly() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    world.log();
    let notice = |text: &str| Operation::Notice { text: text.into() };
    for _ in 0..6 {
        world.ask(alice, notice("help")).unwrap();
    }
    assert_eq!(world.log(), ["notice alice: help"; 6]);
    assert_eq!(world.ask(alice, notice("help")).unwrap_err().code, code::TOO_MANY);
    let long = world.ask(alice, notice(&"x".repeat(NOTICE_LEN_MAX + 1))).unwrap_err();
    assert_eq!(long.code, code::TOO_LARGE);
}

#[test]
fn what_the_hub_adds_to_a_conversation_is_small() {
    let session = size_of::<sessions::Peer>() - size_of::<Conversation>();
    let member = size_of::<registry::Member>();
    assert!(session + member <= 400, "{session} + {member} of {}", size_of::<Conversation>());
}

#[test]
fn work_may_move_to_other_threads() {
    const fn moves<T: Send>() {}
    const fn shared<T: Send + Sync>() {}
    moves::<Hub>();
    moves::<HandshakeJob>();
    moves::<HandshakeDone>();
    shared::<Routes>();
}
