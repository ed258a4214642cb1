//! `peer netcheck` on loopback, where there is no NAT.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::stage::Stage;

#[test]
fn people_read_what_to_expect() {
    let stage = Stage::new();
    let (code, out, _) = stage.run("alice", &["netcheck"]);
    let server = stage.address;
    assert_eq!(code, 0, "{out}");
    for line in [
        format!("* {server}: registered"),
        format!("    IPv4: {server} answers in "),
        "    IPv6: no way to the server".to_owned(),
        "    mapping: not port-dependent (".to_owned(),
        "    filtering: not port-dependent (".to_owned(),
        "    socket buffers: ".to_owned(),
        "* direct paths work with almost everybody".to_owned(),
    ] {
        assert!(out.lines().any(|said| said.starts_with(&line)), "{line:?} is missing:\n{out}");
    }
}

#[test]
fn scripts_read_fields_through_a_running_peer_too() {
    let stage = Stage::new();
    let _running = stage.chat("alice");
    for name in ["alice", "bob"] {
        let (code, out, _) = stage.run(name, &["netcheck", "--json"]);
        let check: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((code, &check["event"]), (0, &"netcheck".into()));
        let fields: Vec<_> = check.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(
            fields,
            [
                "buffers",
                "event",
                "hidden",
                "ipv6",
                "lan",
                "measured",
                "nat",
                "outlook",
                "registered",
                "server",
                "verdict",
                "ways"
            ]
        );
        assert_eq!((&check["measured"], &check["outlook"]), (&"done".into(), &"everybody".into()));
        assert_eq!(check["nat"]["mapping"]["value"], "not_port", "{check}");
        assert_eq!(check["ways"][0]["server"], stage.address.to_string());
        assert!(check["ways"][0]["rtt_ms"].as_f64().unwrap() > 0.0);
        let buffers = &check["buffers"];
        assert!(buffers["asked"].as_u64() >= buffers["receive"].as_u64(), "{buffers}");
        assert!(buffers["receive"].as_u64().unwrap() > 0, "{buffers}");
    }
}

#[test]
fn who_hides_measures_nothing_and_is_told_so() {
    let stage = Stage::new();
    let (code, out, _) = stage.run("alice", &["--relay-only", "netcheck", "--json"]);
    let check: Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &check["hidden"], &check["outlook"]), (0, &true.into(), &"hidden".into()));
    assert_eq!(
        (&check["measured"], &check["nat"]["mapping"]),
        (&"impossible".into(), &Value::Null)
    );
}

#[test]
fn a_silent_server_ends_it_with_3() {
    let stage = Stage::new();
    stage.server.signal(Signal::SIGSTOP);
    let (code, out, _) = stage.run("alice", &["netcheck", "--connect-timeout", "1"]);
    assert_eq!(code, 3, "{out}");
    assert!(out.contains("no answer from "), "{out}");
}
