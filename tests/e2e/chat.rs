//! The first chat: what two people see.

use std::net::UdpSocket;

use crate::stage::{Running, Stage};

fn start(stage: &Stage, name: &str) -> Running {
    Running::start(&mut stage.command(name, &[]))
}

#[test]
fn two_people_meet_and_talk_both_ways() {
    let stage = Stage::new();
    let server = stage.address;
    let bind = UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let mut alice = Running::start(&mut stage.command("alice", &["--bind", &bind]));
    alice.out.expect(&format!("* hello alice: {server} sees you at {bind}"));
    alice.out.expect(&format!("* first contact with {server}: its key"));
    let mut bob = start(&stage, "bob");
    bob.out.expect("* hello bob");
    alice.out.expect("* bob is here (127.0.0.1:");

    alice.say("/send bob hi bob");
    bob.out.find("private", |line| (line == "alice (to you): hi bob").then_some(()));
    alice.out.expect("* delivered to bob");
    bob.say("/send alice hi alice");
    alice.out.find("private", |line| (line == "bob (to you): hi alice").then_some(()));
    bob.say("hello everybody");
    alice.out.find("public", |line| (line == "bob: hello everybody").then_some(()));
    bob.out.expect("* delivered to 1");

    alice.say("/userlist");
    alice.out.expect("* 2 here");
    alice.out.expect(&format!("    alice  {bind}"));
    alice.say("/whoami");
    alice.out.expect(&format!("* name alice, registered at {server}"));
    alice.out.expect(&format!("* seen at {bind}"));
    alice.say("/why bob");
    alice.out.expect("* bob: ");

    bob.close();
    bob.out.expect(&format!("* good bye: the session with {server} is over"));
    assert_eq!(bob.code(), 0);
    alice.out.expect("* bob left");
}

#[test]
fn names_and_texts_in_chinese_and_empty_lines_that_say_nothing() {
    let stage = Stage::new();
    let mut ming = stage.chat("小明");
    let mut hua = stage.chat("小华");
    ming.sees("小华");
    hua.say("/send 小明 你好，小明 🙂");
    assert_eq!(ming.message(), "你好，小明 🙂");
    for line in ["", "   ", "bc", "/broadcast ", "大家好"] {
        hua.say(line);
    }
    assert_eq!(ming.message(), "大家好", "empty lines are for nobody");
    hua.say("/userlist");
    let list = hua.event("list", |_| true);
    assert_eq!(list["members"].as_array().unwrap().len(), 2);
}

#[test]
fn old_spellings_in_any_case_and_how_to_say_them() {
    let stage = Stage::new();
    let mut bob = stage.chat("bob");
    let mut alice = stage.chat("alice");
    bob.sees("alice");
    for (line, said) in [
        ("SEND bob one", "one"),
        ("send bob two words", "two words"),
        ("bc three", "three"),
        ("BC four", "four"),
        ("/BroadCast five", "five"),
        ("//send bob six", "/send bob six"),
        (" send me seven", "send me seven"),
        ("exit strategy", "exit strategy"),
    ] {
        alice.say(line);
        assert_eq!(bob.message(), said, "{line:?}");
    }
    alice.say("UserList");
    alice.event("list", |_| true);
    alice.say("/nonsense");
    alice.event("error", |event| event["code"] == 400 && event["fatal"] == false);
    alice.say("EXIT");
    alice.event("bye", |_| true);
    bob.event("left", |event| event["name"] == "alice" && event["reason"] == "bye");
}
