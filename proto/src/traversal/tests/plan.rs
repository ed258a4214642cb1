//! The table of strategies.

use super::super::nat::*;
use super::*;

fn known<T>(value: T) -> Field<T> {
    Field::Known { value, samples: 4 }
}

fn nat(mapping: Dependence, filtering: Dependence, allocation: Allocation) -> Profile {
    Profile {
        mapping: known(mapping),
        filtering: known(filtering),
        allocation: known(allocation),
        ..Profile::default()
    }
}

const KINDS: [Dependence; 4] = [Endpoint, Address, AddressAndPort, NotPort];
const BLOCK: Allocation = Allocation::Block { first: 30_000, last: 32_047 };
const COUNTING: Allocation = Allocation::Sequential { step: -3 };
const RANDOM: Allocation = Allocation::Random;

/// Every profile that differs in what matters here.
fn all() -> Vec<Profile> {
    let kinds = || KINDS.into_iter().map(known).chain([Field::Unknown]);
    let allocations = || {
        let all = [Allocation::Preserving, COUNTING, BLOCK, RANDOM];
        all.into_iter().map(known).chain([Field::Unknown])
    };
    let mut profiles = Vec::new();
    for mapping in kinds() {
        for filtering in kinds() {
            for allocation in allocations() {
                profiles.push(Profile { mapping, filtering, allocation, ..Profile::default() });
            }
        }
    }
    profiles
}

#[test]
fn both_ends_come_to_the_same_plan() {
    for a in all() {
        for b in all() {
            assert_eq!(plan(&a, &b), plan(&b, &a).mirror(), "{a:?} with {b:?}");
        }
    }
}

use Dependence::{Address, AddressAndPort, Endpoint, NotPort};
use Opener::{Controlling, Mine, Theirs};

#[test]
fn every_kind_of_pair_has_its_strategy() {
    let cone = |filtering| nat(Endpoint, filtering, RANDOM);
    let symmetric = |allocation| nat(AddressAndPort, AddressAndPort, allocation);
    let by_address = |filtering, allocation| nat(Address, filtering, allocation);
    let linux = symmetric(Allocation::Preserving);
    let all = PortRange::ALL;
    let block = PortRange { first: 30_000, last: 32_047 };
    let birthday = |opener, range| Strategy::Birthday { opener, range };
    let table = [
        // One side is reached by anybody, or both keep their ports.
        (cone(Endpoint), symmetric(RANDOM), Strategy::Open),
        (cone(AddressAndPort), cone(AddressAndPort), Strategy::Open),
        (cone(AddressAndPort), linux, Strategy::Open),
        (cone(Address), symmetric(RANDOM), Strategy::Open),
        (cone(NotPort), symmetric(COUNTING), Strategy::Open),
        // One side keeps its port and filters by port.
        (cone(AddressAndPort), symmetric(COUNTING), Strategy::Window { opener: Theirs }),
        (cone(AddressAndPort), symmetric(RANDOM), birthday(Theirs, all)),
        (linux, symmetric(RANDOM), birthday(Theirs, all)),
        (cone(AddressAndPort), symmetric(BLOCK), birthday(Theirs, block)),
        (cone(AddressAndPort), by_address(Endpoint, RANDOM), birthday(Theirs, all)),
        // A mapping by address that answers anybody at it.
        (symmetric(RANDOM), by_address(Address, RANDOM), birthday(Theirs, all)),
        (symmetric(RANDOM), by_address(Address, COUNTING), Strategy::Window { opener: Theirs }),
        (by_address(Address, RANDOM), by_address(Endpoint, RANDOM), birthday(Controlling, all)),
        (by_address(Address, BLOCK), by_address(Address, RANDOM), birthday(Mine, block)),
        (by_address(Address, RANDOM), by_address(AddressAndPort, RANDOM), birthday(Mine, all)),
        // Both take new ports.
        (symmetric(COUNTING), symmetric(COUNTING), Strategy::Aligned),
        (symmetric(COUNTING), by_address(AddressAndPort, COUNTING), Strategy::Aligned),
        (symmetric(COUNTING), symmetric(RANDOM), Strategy::Relay),
        (symmetric(RANDOM), symmetric(BLOCK), Strategy::Relay),
        (by_address(AddressAndPort, RANDOM), nat(AddressAndPort, Address, RANDOM), Strategy::Relay),
        // Too little is known.
        (Profile::default(), symmetric(RANDOM), Strategy::Open),
        (
            cone(AddressAndPort),
            Profile { allocation: Field::Unknown, ..symmetric(RANDOM) },
            Strategy::Open,
        ),
    ];
    for (a, b, strategy) in table {
        assert_eq!(plan(&a, &b), strategy, "{a:?} with {b:?}");
    }
}

#[test]
fn a_mapping_that_cannot_be_told_is_taken_for_the_likely_one_and_then_doubted() {
    let easy = nat(Endpoint, AddressAndPort, RANDOM);
    let unsure = nat(NotPort, AddressAndPort, RANDOM);
    assert_eq!(plan(&unsure, &easy), Strategy::Open);
    let strategy = Strategy::Birthday { opener: Mine, range: PortRange::ALL };
    assert_eq!(plan(&unsure.doubted(), &easy), strategy);
    assert_eq!(plan_doubting(&unsure, &easy), strategy);
    // Both may be of the other kind, and both answer anybody.
    let loose = nat(NotPort, NotPort, RANDOM);
    let strategy = Strategy::Birthday { opener: Controlling, range: PortRange::ALL };
    assert_eq!(plan_doubting(&loose, &loose), strategy);
    let preserving = nat(NotPort, AddressAndPort, Allocation::Preserving);
    assert_eq!(plan(&preserving.doubted(), &easy), Strategy::Open);
    assert_eq!(easy.doubted(), easy);
}

/// The sockets and the limit of probes suffice for 99 % everywhere.
#[test]
fn the_table_of_chances_holds() {
    let chance = |range: PortRange, probes: u32| {
        let (ports, open) = (f64::from(range.len()), f64::from(range.sockets()));
        let miss = |i| (ports - open - f64::from(i)) / (ports - f64::from(i));
        1.0 - (0..probes.min(range.len())).map(miss).map(|miss| miss.max(0.0)).product::<f64>()
    };
    let of = |len: u32| PortRange { first: 1024, last: (1023 + len) as u16 };
    for (len, half, most, nearly) in [
        (64_512, 175, 750, 1150),
        (16_384, 89, 380, 579),
        (4096, 44, 186, 283),
        (2048, 22, 92, 140),
    ] {
        for (probes, least) in [(half, 0.5), (most, 0.95), (nearly, 0.99)] {
            let (now, before) = (chance(of(len), probes), chance(of(len), probes * 97 / 100));
            assert!(now >= least - 0.003 && before < least, "{len} {probes}: {before} {now}");
        }
        assert!(chance(of(len), 1750) > 0.9989, "{len}");
    }
}
