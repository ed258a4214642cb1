//! Several commands on one state folder, and one key in several places.

use std::fs::File;
use std::os::unix::net::UnixListener;
use std::thread;

use crate::stage::{Running, Stage};

/// A process about to end, as the next one finds it: its socket accepts, nobody is behind it.
fn dying(stage: &Stage, name: &str) -> (UnixListener, File) {
    let folder = stage.folder(name);
    std::fs::create_dir_all(&folder).unwrap();
    let lock = File::create(folder.join("lock")).unwrap();
    lock.lock().unwrap();
    (UnixListener::bind(folder.join("control.sock")).unwrap(), lock)
}

#[test]
fn a_process_that_is_just_ending_is_waited_for() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let (socket, lock) = dying(&stage, "alice");
    let ends = thread::spawn(move || {
        // Two look for it before it has ended.
        for _ in 0..2 {
            drop(socket.accept().unwrap());
        }
        drop(lock);
        while socket.accept().is_ok() {}
    });
    let alice = stage.chat("alice");
    bob.sees("alice");
    drop((alice, ends));
    for arguments in [&["send", "bob", "hi"][..], &["trust", "bob"]] {
        let (socket, lock) = dying(&stage, "carol");
        let ends = thread::spawn(move || {
            drop((socket.accept().unwrap(), socket));
            drop(lock);
        });
        let (code, out, said) = stage.run("carol", arguments);
        assert_eq!(code, 0, "{arguments:?}: {out} {said}");
        ends.join().unwrap();
    }
}

#[test]
fn a_process_that_holds_the_folder_and_serves_nobody_is_named() {
    let stage = Stage::new();
    let (socket, _lock) = dying(&stage, "alice");
    thread::spawn(move || while socket.accept().is_ok() {});
    let (code, out, said) = stage.run("alice", &["--json", "userlist"]);
    assert_eq!(code, 1, "{out} {said}");
    let error: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((&error["code"], &error["fatal"]), (&500.into(), &true.into()), "{out}");
    let folder = stage.folder("alice").display().to_string();
    assert!(error["text"].as_str().unwrap().contains(&folder), "{out}");
}

#[test]
fn a_second_command_works_through_the_running_peer() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let alice = stage.chat("alice");
    bob.sees("alice");
    let (code, out, _) = stage.run("alice", &["send", "bob", "through the socket"]);
    assert_eq!(code, 0, "{out}");
    assert!(out.contains("* delivered to bob"), "{out}");
    assert_eq!(bob.message(), "through the socket");
    let (code, out, _) = stage.run("alice", &["userlist"]);
    assert_eq!((code, out.lines().next()), (0, Some("* 2 here")));
    let (code, out, _) = stage.run("alice", &["whoami"]);
    assert!(code == 0 && out.contains("* name alice, registered"), "{out}");
    let (code, out, _) = stage.run("alice", &["why", "bob"]);
    assert!(code == 0 && out.contains("* bob: "), "{out}");
    assert_eq!(stage.run("alice", &["send", "nobody", "x"]).0, 5);
    let mut attached = Running::start(&mut stage.command("alice", &["--json"]));
    attached.say("from the attached");
    assert_eq!(bob.message(), "from the attached");
    bob.say("/send alice to both");
    assert_eq!(attached.message(), "to both");
    assert_eq!(alice.message(), "to both");
    attached.close();
    assert_eq!(attached.code(), 0);
    bob.say("/userlist");
    bob.event("list", |event| event["members"].as_array().unwrap().len() == 2);
    let joins = bob.out.so_far().iter().filter(|line| line.contains("\"joined\"")).count();
    // None, where she was there at bob's first look.
    assert!(joins <= 1, "alice registered once: {:#?}", bob.out.so_far());
    assert!(!bob.out.so_far().iter().any(|line| line.contains("\"left\"")));
}

#[test]
fn the_same_key_from_elsewhere_takes_over_and_the_older_says_so() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let mut older = Running::start(&mut stage.command("alice", &[]));
    older.out.expect("* hello alice");
    let elsewhere = stage.home.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    std::fs::copy(stage.folder("alice").join("key"), elsewhere.join("key")).unwrap();
    let newer = stage.chat_with("alice", &["--state-dir", elsewhere.to_str().unwrap()]);
    assert_eq!(older.code(), 4);
    let said = older.out.to_end().join("\n");
    assert!(said.contains("elsewhere") || said.contains("another"), "{said}");
    bob.say("/send alice hi");
    assert_eq!(newer.message(), "hi");
}

#[test]
fn nobody_connects_to_itself() {
    let stage = Stage::new();
    let mut alice = stage.chat("alice");
    alice.say("/whoami");
    let address = alice.event("whoami", |_| true)["address"].as_str().unwrap().to_owned();
    for to in ["alice", &address] {
        alice.say(&format!("/send {to} me"));
        let error = alice.event("error", |_| true);
        assert_eq!(error["code"], 400, "{error}");
    }
}
