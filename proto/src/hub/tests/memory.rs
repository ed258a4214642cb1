//! What an idle peer takes, against the table of SPEC section 14.

use ring::aead::LessSafeKey;

use super::*;
use crate::conversation::Conversation;
use crate::session::Session;
use crate::transport::Transport;

const SPEC: &str = include_str!("../../../SPEC.md");

/// A number of the table.
fn stated(part: &str) -> usize {
    let section = SPEC.split_once("\n## 14. ").expect("section 14").1;
    let line = section.lines().find(|line| line.starts_with(&format!("| {part} |")));
    let number = line.and_then(|line| line.split('|').nth(2)).expect(part);
    number.trim().parse().expect("a number")
}

#[test]
fn an_idle_peer_takes_no_more_than_is_written() {
    let (peer, conversation) = (size_of::<sessions::Peer>(), size_of::<Conversation>());
    let (transport, session) = (size_of::<Transport>(), size_of::<Session>());
    // One replay window of three blocks, and the highest number sealed, on one path.
    let on_heap = 40 + 3 * size_of::<u64>() + size_of::<u64>();
    for (part, size) in [
        ("slot in the workers' table", size_of::<slots::Slot>()),
        ("entry in the table of sessions", size_of::<sessions::Entry>()),
        ("session state beside the conversation", peer - conversation),
        ("conversation beside transport and keys", conversation - transport - session),
        ("transport, with one channel and one path", transport),
        ("keys and replay window", session + on_heap),
        ("expanded keys", 2 * size_of::<LessSafeKey>()),
        ("member in the registry", size_of::<registry::Member>()),
    ] {
        let limit = stated(part);
        assert!(size <= limit, "{part}: {size} bytes, {limit} are stated");
    }
}
