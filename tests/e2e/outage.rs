//! Servers and peers that go away, with and without a word.

use std::time::Duration;

use nix::sys::signal::Signal;

use crate::stage::Stage;

#[test]
fn a_restarted_server_gets_its_peers_back_and_talk_goes_on_meanwhile() {
    let mut stage = Stage::new();
    let mut alice = stage.chat_with("alice", &["--keepalive", "1"]);
    let bob = stage.chat_with("bob", &["--keepalive", "1"]);
    alice.sees("bob");
    alice.talk_directly("bob");
    stage.server.signal(Signal::SIGKILL);
    assert_eq!(stage.server.code(), 128 + 9);
    alice.say("/send bob without the server");
    bob.event("message", |event| event["text"] == "without the server");
    assert_eq!(alice.event("delivered", |_| true)["path"]["kind"], "direct");
    alice.event("silent", |_| true);
    stage.restart_server();
    for peer in [&alice, &bob] {
        assert_eq!(peer.event("registered", |_| true)["again"], true);
    }
    assert_eq!(stage.run("carol", &["send", "bob", "back"]).0, 0);
    bob.event("message", |event| event["text"] == "back");
}

#[test]
fn a_silent_peer_is_gone_for_the_others_within_ten_seconds() {
    let stage = Stage::with_server(&["--listen", "127.0.0.1:0", "--expire-intervals", "2"]);
    let mut alice = stage.chat("alice");
    let stopped = stage.chat_with("stopped", &["--keepalive", "5"]);
    let killed = stage.chat_with("killed", &["--keepalive", "5"]);
    alice.sees("stopped");
    alice.sees("killed");
    stopped.signal(Signal::SIGSTOP);
    killed.signal(Signal::SIGKILL);
    // Two intervals since its last sign of life, and a second for the way.
    let patience = Duration::from_secs(11);
    for name in ["stopped", "killed"] {
        let left = alice.event_within(patience, "left", |event| event["name"] == name);
        assert_eq!(left["reason"], "expired");
    }
    stopped.signal(Signal::SIGCONT);
    alice.sees("stopped");
}

#[test]
fn a_killed_peer_comes_back_before_it_has_expired() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let mut alice = stage.chat("alice");
    bob.sees("alice");
    bob.say("/send alice one");
    assert_eq!(alice.message(), "one");
    // Without the receipt it would rightly be sent to the next process, too.
    bob.event("delivered", |_| true);
    alice.signal(Signal::SIGKILL);
    assert_eq!(alice.code(), 128 + 9);
    let alice = stage.chat("alice");
    bob.say("/send alice two");
    assert_eq!(alice.message(), "two");
}
