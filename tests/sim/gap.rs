//! A direct path that dies costs a conversation less than three probe timeouts.

use world::scenario::{Death, gap};

#[test]
fn a_conversation_whose_direct_path_dies_goes_on_soon() {
    for seed in 1..=30 {
        for death in [Death::BothWays, Death::OneWay] {
            let gap = gap(seed, death).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
            assert!(gap.timeouts() < 3.0, "seed {seed}, {death:?}: {gap:?}");
        }
    }
}
