//! `--relay-only`: messages pass, and nobody sees where the peer is.

use serde_json::Value;

use crate::stage::{Running, Stage};

/// Whether an event, or a line of a list, leaves the address out.
fn hides(of: &Value) -> bool {
    of.as_object().is_some_and(|fields| !fields.contains_key("address"))
}

#[test]
fn messages_pass_and_lists_do_not_say_where_it_is() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let mut alice = stage.chat_with("alice", &["--relay-only"]);
    assert!(hides(&bob.event("joined", |event| event["name"] == "alice")));
    for number in 0..5 {
        alice.say(&format!("/send bob out {number}"));
        bob.say(&format!("/send alice back {number}"));
        for chat in [&alice, &bob] {
            assert_eq!(chat.event("delivered", |_| true)["path"]["kind"], "relay");
        }
    }
    bob.say("/userlist");
    alice.say("/userlist");
    let (seen, told) = (bob.event("list", |_| true), alice.event("list", |_| true));
    assert!(hides(&seen["members"][0]) && !hides(&seen["members"][1]), "{seen}");
    assert!(hides(&told["members"][0]) && hides(&told["members"][1]), "{told}");
    for (chat, name) in [(&mut alice, "bob"), (&mut bob, "alice")] {
        chat.say(&format!("/why {name}"));
        let why = chat.event("why", |_| true);
        assert_eq!(
            (&why["path"]["kind"], why["candidates"].as_array().map(Vec::len)),
            (&"relay".into(), Some(0))
        );
    }
}

#[test]
fn people_read_hidden_and_the_operator_sees_who_hides() {
    let mut stage = Stage::new();
    let mut alice = Running::start(stage.command("alice", &[]).env("P2SP_RELAY_ONLY", "1"));
    alice.out.expect("* hello alice");
    let mut bob = Running::start(stage.command("bob", &[]).env("P2SP_RELAY_ONLY", "0"));
    bob.out.expect("* hello bob");
    bob.say("/userlist");
    bob.out.expect("    alice  hidden  ");
    bob.out.expect("    bob  127.0.0.1:");
    alice.say("/userlist");
    alice.out.expect("    bob  hidden  ");
    stage.server.say("/userlist");
    let lines = |name: &str| {
        stage
            .server
            .out
            .find("a line of the list", |line| line.starts_with(name).then(|| line.to_owned()))
    };
    let (of_alice, of_bob) = (lines("alice"), lines("bob"));
    assert!(of_alice.contains("  127.0.0.1:") && of_alice.ends_with("  hidden from peers"));
    assert!(!of_bob.contains("hidden"), "{of_bob}");
}
