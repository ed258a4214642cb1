//! Some conversations under faults; `scripts/sim transport` plays as many as wanted.

use world::scenario::transport;

#[test]
fn what_is_said_arrives_once_and_in_order_whatever_happens() {
    for seed in 1..=100 {
        transport(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}
