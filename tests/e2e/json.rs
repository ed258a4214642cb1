//! What scripts rely on: events, their fields, and the end of the input.

use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::stage::{Running, Stage};

fn fields(event: &Value) -> Vec<&str> {
    event.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn every_event_has_its_documented_fields() {
    let mut stage = Stage::new();
    let alice = Running::start(stage.command("alice", &["--json"]).env("LANG", "C"));
    let registered = alice.event("registered", |_| true);
    assert_eq!(
        fields(&registered),
        [
            "address",
            "again",
            "event",
            "first_contact",
            "greeting",
            "name",
            "network",
            "server",
            "server_key"
        ]
    );
    assert_eq!(registered["server"], stage.address.to_string());
    assert_eq!((&registered["again"], &registered["first_contact"]), (&false.into(), &true.into()));
    let mut bob = stage.chat("bob");
    let joined = alice.event("joined", |_| true);
    assert_eq!(fields(&joined), ["address", "event", "key", "name"]);
    bob.say("/send alice hi");
    let message = alice.event("message", |_| true);
    assert_eq!(fields(&message), ["event", "from", "id", "key", "text", "to"]);
    assert_eq!((&message["from"], &message["to"]), (&"bob".into(), &"me".into()));
    assert_eq!(message["key"], joined["key"]);
    let delivered = bob.event("delivered", |_| true);
    assert_eq!(fields(&delivered), ["event", "handle", "path", "to"]);
    bob.talk_directly("alice");
    let path = bob.event("path", |event| event["path"]["kind"] == "direct");
    assert_eq!(fields(&path), ["event", "name", "path"]);
    bob.say("to everybody");
    let spread = bob.event("spread", |_| true);
    assert_eq!((&spread["delivered"], &spread["failed"]), (&1.into(), &0.into()));
    alice.event("message", |event| event["to"] == "everybody");
    stage.server.say("/broadcast tea at four");
    let notice = alice.event("notice", |_| true);
    assert_eq!((&notice["text"], &notice["everybody"]), (&"tea at four".into(), &true.into()));
    bob.say("/send nobody hi");
    let error = bob.event("error", |_| true);
    assert_eq!(fields(&error), ["code", "event", "fatal", "handle", "text", "to"]);
    assert_eq!((&error["code"], &error["to"]), (&404.into(), &"nobody".into()));
    bob.close();
    let bye = bob.event("bye", |_| true);
    assert_eq!(fields(&bye), ["event", "reason", "server"]);
    assert_eq!(bob.code(), 5, "one message had no recipient");
    let left = alice.event("left", |_| true);
    assert_eq!((fields(&left), &left["reason"]), (vec!["event", "name", "reason"], &"bye".into()));
}

#[test]
fn the_end_of_the_input_waits_for_receipts() {
    let stage = Stage::new();
    let alice = stage.chat("alice");
    let mut bob = Running::start(&mut stage.command("bob", &["--json"]));
    // Written before it is registered: it waits for that, too.
    bob.say("/send alice first");
    bob.say("/send alice second");
    bob.close();
    assert_eq!(bob.code(), 0);
    assert_eq!([alice.message(), alice.message()], ["first", "second"]);
    let kinds: Vec<_> = bob
        .out
        .to_end()
        .iter()
        .map(|line| {
            serde_json::from_str::<Value>(line).unwrap()["event"].as_str().unwrap().to_owned()
        })
        .collect();
    assert_eq!(kinds.iter().filter(|kind| *kind == "delivered").count(), 2, "{kinds:?}");
    assert_eq!(kinds.last().unwrap(), "bye", "{kinds:?}");
}

#[test]
fn one_shot_commands_and_what_they_say() {
    let stage = Stage::new();
    let alice = stage.chat("alice");
    let (code, out, _) = stage.run("bob", &["send", "alice", "好"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("* delivered to alice"), "{out}");
    assert_eq!(alice.message(), "好");
    let (code, out, _) = stage.run("bob", &["broadcast", "all"]);
    assert_eq!((code, out.as_str()), (0, "* delivered to 1"));
    let (code, out, _) = stage.run("bob", &["userlist", "--json"]);
    let list: Value = serde_json::from_str(&out).unwrap();
    let names: Vec<_> =
        list["members"].as_array().unwrap().iter().map(|m| m["name"].as_str().unwrap()).collect();
    assert_eq!((code, names), (0, vec!["alice", "bob"]));
    let (code, out, _) = stage.run("bob", &["send", "nobody", "hi"]);
    assert_eq!(code, 5, "{out}");
    assert!(out.contains("nobody"), "{out}");
}

#[test]
fn a_closed_standard_output_ends_quietly() {
    let stage = Stage::new();
    let mut alice = stage.chat("alice");
    let reader = Running::start(
        std::process::Command::new("sh")
            .args(["-c", "{ \"$@\"; echo $? >&2; } | head -n 1", "sh"])
            .arg(crate::programs::program("peer"))
            .args(["--rendezvous", &stage.address.to_string(), "--name", "bob", "--ephemeral"]),
    );
    reader.out.expect("* hello bob");
    // The first line was read; those that follow find nobody.
    let until = Instant::now() + Duration::from_secs(20);
    while !reader.err.so_far().iter().any(|line| line == "0") {
        assert!(Instant::now() < until, "bob goes on");
        alice.say("hello");
        std::thread::sleep(Duration::from_millis(200));
    }
    alice.event("left", |event| event["name"] == "bob");
}

#[test]
fn an_interrupted_command_ends_with_130() {
    let stage = Stage::new();
    stage.server.signal(Signal::SIGSTOP);
    let mut peer = Running::start(&mut stage.command("bob", &["--log", "debug", "userlist"]));
    peer.err.expect("resolved");
    peer.signal(Signal::SIGINT);
    assert_eq!(peer.code(), 130);
}
