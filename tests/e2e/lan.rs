//! Peers of one host, which is a LAN of its own, whose server is away.

use nix::sys::signal::Signal;

use crate::stage::{Running, Stage};

/// A server with one network, and what its peers say on their command lines.
struct Team {
    stage: Stage,
    tokens: tempfile::NamedTempFile,
}

const PEER: [&str; 4] = ["--token", "team.secret", "--bind", "127.0.0.1"];

impl Team {
    /// A server that alice and bob have met, and that is away now.
    fn cut_off() -> Self {
        let tokens = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(tokens.path(), "team.secret team\n").unwrap();
        let file = tokens.path().to_str().unwrap();
        let mut stage = Stage::with_server(&["--listen", "127.0.0.1:0", "--token-file", file]);
        for name in ["alice", "bob"] {
            let (code, out, said) = stage.run(name, &[&PEER[..], &["userlist"]].concat());
            assert_eq!(code, 0, "{out} {said}");
        }
        stage.server.signal(Signal::SIGKILL);
        assert_eq!(stage.server.code(), 128 + 9);
        Self { stage, tokens }
    }

    fn chat(&self, name: &str, more: &[&str]) -> Running {
        let arguments = [&PEER[..], more, &["--json", "--connect-timeout", "1"]].concat();
        Running::start(&mut self.stage.command(name, &arguments))
    }
}

#[test]
fn two_peers_of_one_lan_talk_without_their_server_and_go_on_with_it() {
    let mut team = Team::cut_off();
    let (mut alice, mut bob) = (team.chat("alice", &[]), team.chat("bob", &[]));
    alice.event("near", |event| event["name"] == "bob");
    alice.say("/send bob hello");
    assert_eq!(bob.message(), "hello");
    assert_eq!(alice.event("delivered", |_| true)["path"]["kind"], "direct");
    bob.say("/userlist");
    let list = bob.event("list", |_| true);
    assert_eq!((&list["scope"], &list["members"][0]["name"]), (&"lan".into(), &"alice".into()));
    let file = team.tokens.path().to_str().unwrap();
    team.stage.restart_server_with(&["--token-file", file]);
    for peer in [&alice, &bob] {
        peer.event("registered", |_| true);
    }
    bob.say("/send alice and back");
    assert_eq!(alice.message(), "and back");
    assert_eq!(bob.event("delivered", |_| true)["path"]["kind"], "direct");
    for peer in [&alice, &bob] {
        let lost = |line: &String| line.contains(r#""kind":"none""#);
        assert!(!peer.out.so_far().iter().any(lost), "{:#?}", peer.out.so_far());
    }
}

#[test]
fn one_message_needs_no_server_either() {
    let team = Team::cut_off();
    let bob = team.chat("bob", &[]);
    let (code, out, said) =
        team.stage.run("alice", &[&PEER[..], &["send", "bob", "hello"]].concat());
    assert_eq!(code, 0, "{out} {said}");
    assert_eq!(bob.message(), "hello");
}

#[test]
fn who_does_not_want_to_be_seen_is_not() {
    let team = Team::cut_off();
    let mut alice = team.chat("alice", &[]);
    let bob = team.chat("bob", &["--no-lan"]);
    for peer in [&alice, &bob] {
        peer.event("silent", |_| true);
    }
    alice.say("/userlist");
    assert_eq!(alice.event("list", |_| true)["members"], serde_json::json!([]));
}
