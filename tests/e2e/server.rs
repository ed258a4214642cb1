//! The server as its operator meets it.

use std::fs::Permissions;
use std::net::UdpSocket;
use std::os::unix::fs::PermissionsExt as _;

use nix::sys::signal::Signal;

use crate::stage::{Stage, finish, rendezvous};

#[test]
fn what_keeps_a_server_from_starting_is_said_in_one_sentence() {
    let home = tempfile::tempdir().unwrap();
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let port = taken.local_addr().unwrap().port().to_string();
    let tokens = home.path().join("tokens");
    std::fs::write(&tokens, "team.secret net\nno dot\n").unwrap();
    let tokens = tokens.to_str().unwrap();
    for (arguments, code, part) in [
        (&["--listen", &address][..], 1, address.as_str()),
        (&["--listen", "127.0.0.1:0", "--alt-port", &port], 1, &address),
        (&["--listen", "127.0.0.1:0", "--token-file", tokens], 2, "line 2"),
        (&["--listen", "127.0.0.1:0", "--token-file", "/no/such/file"], 2, "/no/such/file"),
    ] {
        let (ended, _, said) = finish(rendezvous(&home.path().join("server")).args(arguments));
        assert_eq!(ended, code, "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn a_foreign_or_open_key_file_and_a_taken_folder_are_refused() {
    let stage = Stage::new();
    let listen = ["--listen", "127.0.0.1:0"];
    let (code, _, said) = finish(rendezvous(&stage.home.path().join("server")).args(listen));
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("another rendezvous server"), "{said}");
    let folder = stage.home.path().join("foreign");
    std::fs::create_dir(&folder).unwrap();
    let key = folder.join("server.key");
    for (content, mode, part) in
        [("-----BEGIN KEY-----", 0o600, "server.key"), (&"a1".repeat(32), 0o644, "chmod 600")]
    {
        std::fs::write(&key, content).unwrap();
        std::fs::set_permissions(&key, Permissions::from_mode(mode)).unwrap();
        let (code, _, said) = finish(rendezvous(&folder).args(listen));
        assert_eq!(code, 1, "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn the_end_of_its_input_stops_nothing_and_signals_tell_the_peers() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut stage = Stage::new();
        stage.server.close();
        let alice = crate::stage::Running::start(&mut stage.command("alice", &[]));
        alice.out.expect("* hello alice");
        stage.server.signal(signal);
        alice.out.expect(&format!("session with {} is over", stage.address));
        assert_eq!(stage.server.code(), 0);
    }
}
