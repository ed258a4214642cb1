//! Registering, listing and talking.

use world::scenario::talk;

#[test]
fn three_peers_talk() {
    for seed in 1..=5 {
        talk(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}
