//! Why a peer is not let in: exit codes and sentences.

use std::net::UdpSocket;

use crate::stage::{Running, Stage, finish, peer};

/// The exit code, and that of the `error` event.
fn error_code(command: &mut std::process::Command) -> (i32, u64) {
    let (exit, out, said) = finish(command.arg("--json"));
    let error: serde_json::Value = serde_json::from_str(&out).expect(&said);
    assert_eq!(error["event"], "error");
    (exit, error["code"].as_u64().unwrap())
}

#[test]
fn every_failure_has_its_number() {
    let stage = Stage::new();
    let _alice = stage.chat("alice");
    let file = stage.home.path().join("file");
    std::fs::write(&file, "").unwrap();
    let file = file.to_str().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    let nobody = ["--rendezvous", &silent, "--connect-timeout", "1", "userlist"];
    assert_eq!(error_code(peer(stage.home.path()).args(["--name", "b"]).args(nobody)), (3, 408));
    for (arguments, exit, number) in [
        (&["--ephemeral", "userlist"][..], 4, 409),
        (&["--state-dir", file, "userlist"], 1, 500),
        (&["--token-file", "/no/such/file", "userlist"], 2, 400),
        (&["trust", "a b"], 2, 400),
        (&["send", "nobody", "hi"], 5, 404),
        (&["send", "alice", "hi"], 2, 400),
    ] {
        let answer = error_code(&mut stage.command("alice", arguments));
        assert_eq!(answer, (exit, number), "{arguments:?}");
    }
    let unknown = error_code(&mut stage.command("carol", &["trust", "dora"]));
    assert_eq!(unknown, (5, 404));
    stage.server.signal(nix::sys::signal::Signal::SIGSTOP);
    let told = error_code(&mut stage.command("dora", &["--connect-timeout", "1", "whoami"]));
    assert_eq!(told, (3, 408));
}

#[test]
fn a_peers_changed_key_is_refused_until_it_is_trusted_in_the_chat() {
    let stage = Stage::new();
    let mut alice = stage.chat("alice");
    let first = stage.chat_with("bob", &["--ephemeral"]);
    alice.sees("bob");
    alice.say("/send bob one");
    assert_eq!(first.message(), "one");
    let mut first = first;
    first.close();
    assert_eq!(first.code(), 0);
    alice.event("left", |event| event["name"] == "bob");
    let second = stage.chat_with("bob", &["--ephemeral"]);
    alice.sees("bob");
    alice.say("/send bob two");
    let remedy = "/trust bob in a chat, or: peer trust bob --name alice";
    for _ in ["event", "outcome"] {
        let error = alice.event("error", |event| event["code"] == 409);
        assert_eq!((&error["to"], &error["fatal"]), (&"bob".into(), &false.into()), "{error}");
        assert!(error["text"].as_str().unwrap().ends_with(remedy), "{error}");
    }
    alice.say("/trust bob");
    alice.event("trusted", |event| event["who"] == "bob");
    alice.say("/send bob three");
    assert_eq!(second.message(), "three");
}

#[test]
fn wrong_usage_ends_with_2() {
    let home = tempfile::tempdir().unwrap();
    for (arguments, part) in [
        (&["--rendezvous", "127.0.0.1:9"][..], "--name"),
        (&["--name", "alice", "userlist"], "--rendezvous"),
        (&["--rendezvous", "127.0.0.1:9", "--name", "a b", "userlist"], "name"),
        (&["--rendezvous", "127.0.0.1:9", "--name", "1.2.3.4:5", "userlist"], "name"),
        (&["--rendezvous", "127.0.0.1:9", "--name", "a", "--token", "x", "userlist"], "ID.SECRET"),
        (&["--rendezvous", "127.0.0.1:0", "--name", "a"], "port"),
        (&["--keepalive", "0"], "keepalive"),
        (&["--nonsense"], "nonsense"),
    ] {
        let (code, _, said) = finish(peer(home.path()).args(arguments));
        assert_eq!(code, 2, "{arguments:?}: {said}");
        assert!(said.contains(part), "{arguments:?}: {said}");
    }
}

#[test]
fn no_server_ends_with_3_and_its_address() {
    let home = tempfile::tempdir().unwrap();
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    let arguments = ["--rendezvous", &address, "--name", "a", "--connect-timeout", "1", "userlist"];
    let (code, said, _) = finish(peer(home.path()).args(arguments));
    assert_eq!(code, 3, "{said}");
    assert!(said.contains(&format!("no answer from {address}")), "{said}");
}

#[test]
fn a_token_opens_its_network_and_a_wrong_one_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let tokens = folder.path().join("tokens");
    std::fs::write(&tokens, "# ours\nteam.0123456789abcdef home\nguest.fedcba9876543210 away\n")
        .unwrap();
    let arguments = ["--listen", "127.0.0.1:0", "--token-file", tokens.to_str().unwrap()];
    let stage = Stage::with_server(&arguments);
    let alice = stage.chat_with("alice", &["--token", "team.0123456789abcdef"]);
    let (code, out, _) =
        stage.run("bob", &["--token", "team.0123456789abcdef", "send", "alice", "hi"]);
    assert_eq!(code, 0, "{out}");
    assert_eq!(alice.message(), "hi");
    let (code, out, _) =
        stage.run("eve", &["--token", "guest.fedcba9876543210", "send", "alice", "hi"]);
    assert_eq!(code, 5, "another network: {out}");
    for wrong in [
        &["--token", "team.0123456789abcdeX", "userlist"][..],
        &["--token", "x.y", "userlist"],
        &["userlist"],
    ] {
        let (code, _, said) = stage.run("mallory", wrong);
        assert_eq!(code, 4, "{wrong:?}: {said}");
        assert!(said.contains("token"), "{wrong:?}: {said}");
        assert_eq!(error_code(&mut stage.command("mallory", wrong)), (4, 401));
    }
}

#[test]
fn a_name_belongs_to_its_first_key_also_at_the_same_time() {
    let stage = Stage::new();
    let _alice = stage.chat("alice");
    let (code, _, said) = stage.run("alice", &["--ephemeral", "userlist"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("alice"), "{said}");
    // An ephemeral winner would give the name up to the other when it leaves.
    let folders = ["rival1", "rival2"].map(|rival| stage.folder(rival));
    let mut rivals = folders.map(|folder| {
        let arguments = ["--json", "--state-dir", folder.to_str().unwrap()];
        Running::start(&mut stage.command("bob", &arguments))
    });
    let mut codes: Vec<_> = rivals
        .iter_mut()
        .map(|rival| {
            rival.close();
            rival.code()
        })
        .collect();
    codes.sort_unstable();
    assert_eq!(codes, [0, 4]);
}

#[test]
fn an_ephemeral_peer_leaves_its_name_to_anybody() {
    let stage = Stage::new();
    for _ in 0..2 {
        let (code, _, said) = stage.run("carol", &["--ephemeral", "userlist"]);
        assert_eq!(code, 0, "{said}");
    }
}

#[test]
fn a_blocked_peer_is_told_so_and_let_in_again() {
    let mut stage = Stage::new();
    let mut bob = stage.chat("bob");
    stage.server.say("/block bob");
    stage.server.out.expect("bob is blocked");
    bob.event("error", |event| event["fatal"] == true && event["code"] == 403);
    assert_eq!(bob.code(), 4);
    let (code, _, said) = stage.run("bob", &["userlist"]);
    assert_eq!(code, 4, "{said}");
    assert!(said.contains("block"), "{said}");
    stage.server.say("unblock bob");
    stage.server.out.expect("no longer blocked");
    assert_eq!(stage.run("bob", &["userlist"]).0, 0);
}

#[test]
fn a_changed_server_key_is_refused_until_the_printed_command_is_run() {
    let mut stage = Stage::new();
    assert_eq!(stage.run("alice", &["userlist"]).0, 0);
    let data = stage.home.path().join("server");
    stage.server.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(stage.server.code(), 0);
    std::fs::remove_file(data.join("server.key")).unwrap();
    stage.restart_server();
    assert_eq!(error_code(&mut stage.command("alice", &["userlist"])), (4, 409));
    let mut chat = Running::start(&mut stage.command("alice", &[]));
    assert_eq!(chat.code(), 4, "on a pipe nobody can accept it");
    let (code, _, said) = stage.run("alice", &["userlist"]);
    assert_eq!(code, 4, "{said}");
    let printed = format!("peer trust {} --name alice", stage.address);
    assert!(said.contains(&printed), "{said}");
    let words: Vec<_> = printed.split(' ').skip(1).collect();
    let (code, out, said) = finish(peer(stage.home.path()).args(words));
    assert_eq!(code, 0, "{out} {said}");
    assert_eq!(stage.run("alice", &["userlist"]).0, 0);
}
