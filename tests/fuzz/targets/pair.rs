//! Two honest conversations under operations and faults that the fuzzer chooses, judged by the
//! ledger of the simulation.

#![no_main]

use libfuzzer_sys::fuzz_target;
use rand::{RngCore, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use world::scenario::play;

fuzz_target!(|input: (u64, &[u8])| {
    let (seed, bytes) = input;
    let rest = ChaCha8Rng::seed_from_u64(seed);
    if let Err(failure) = play(&mut Choices { bytes, rest }, seed) {
        panic!("{failure}");
    }
});

/// Every choice is a part of the input; when it has ended, chance goes on.
struct Choices<'a> {
    bytes: &'a [u8],
    rest: ChaCha8Rng,
}

impl RngCore for Choices<'_> {
    fn next_u32(&mut self) -> u32 {
        let Some((first, rest)) = self.bytes.split_first_chunk() else {
            return self.rest.next_u32();
        };
        self.bytes = rest;
        u32::from_le_bytes(*first)
    }

    fn next_u64(&mut self) -> u64 {
        u64::from(self.next_u32()) << 32 | u64::from(self.next_u32())
    }

    fn fill_bytes(&mut self, dst: &mut [u8]) {
        self.rest.fill_bytes(dst);
    }
}
