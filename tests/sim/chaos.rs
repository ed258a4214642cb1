//! A few storms; `scripts/sim chaos` raises as many as wanted.

use world::scenario::chaos;

#[test]
fn what_was_accepted_survives_the_storm() {
    for seed in 1..=10 {
        chaos(seed).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
    }
}
