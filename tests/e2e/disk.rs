//! A disk without room for the peer's state.

use std::process::Command;

use crate::programs::program;
use crate::stage::{Stage, finish};

#[test]
fn a_full_disk_ends_with_1_and_a_sentence() {
    let stage = Stage::new();
    let place = stage.home.path().join("full");
    std::fs::create_dir(&place).unwrap();
    // A disk of one page, taken already, in a namespace of its own.
    let script = "mount -t tmpfs -o size=4k none \"$0\" && echo taken >\"$0/taken\" && exec \"$@\"";
    let (code, out, said) = finish(
        Command::new("unshare")
            .args(["--mount", "--map-root-user", "sh", "-c", script])
            .arg(&place)
            .arg(program("peer"))
            .args(["--rendezvous", &stage.address.to_string(), "--name", "alice", "--state-dir"])
            .arg(place.join("alice"))
            .arg("userlist"),
    );
    assert_eq!(code, 1, "{out} {said}");
    assert!(said.starts_with("peer: cannot use") && said.contains("space"), "{said}");
}
