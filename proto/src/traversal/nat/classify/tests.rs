use super::*;

fn at(port: u16) -> Option<SocketAddr> {
    Some(SocketAddr::from(([198, 51, 100, 1], port)))
}

fn seen(main: u16, alt_port: u16, alt_ip: Option<u16>) -> Seen {
    Seen { main: at(main), alt_port: at(alt_port), alt_ip: alt_ip.and_then(at) }
}

#[test]
fn mappings() {
    use Dependence::{Address, AddressAndPort, Endpoint, NotPort};
    for (sockets, expected) in [
        (vec![], None),
        (vec![Seen { main: at(1), ..Seen::default() }], None),
        (vec![Seen { main: at(1), alt_ip: at(1), ..Seen::default() }], None),
        (vec![seen(1, 1, None)], Some((NotPort, 2))),
        (vec![seen(1, 1, Some(1))], Some((Endpoint, 3))),
        (vec![seen(1, 1, Some(2))], Some((Address, 3))),
        (vec![seen(1, 2, None)], Some((AddressAndPort, 2))),
        (vec![seen(1, 2, Some(3))], Some((AddressAndPort, 3))),
        (vec![seen(1, 1, Some(1)), seen(4, 5, None)], Some((AddressAndPort, 5))),
        (vec![seen(1, 1, None), seen(4, 4, Some(5))], Some((Address, 5))),
    ] {
        let expected = expected.map_or(Field::Unknown, |(value, samples)| known(value, samples));
        assert_eq!(mapping(&sockets), expected, "{sockets:?}");
    }
}

#[test]
fn filters() {
    use Dependence::{Address, AddressAndPort, Endpoint, NotPort};
    use Reply::{Heard, Silent, Unsure};
    for (port, ip, expected) in [
        (Heard, None, Some(NotPort)),
        (Silent(6), None, Some(AddressAndPort)),
        (Unsure, None, None),
        (Heard, Some(Heard), Some(Endpoint)),
        (Heard, Some(Silent(6)), Some(Address)),
        (Heard, Some(Unsure), Some(NotPort)),
        (Silent(6), Some(Silent(6)), Some(AddressAndPort)),
        (Silent(6), Some(Unsure), Some(AddressAndPort)),
        (Silent(6), Some(Heard), Some(Endpoint)),
        (Unsure, Some(Heard), Some(Endpoint)),
        (Unsure, Some(Silent(6)), None),
        (Unsure, Some(Unsure), None),
    ] {
        assert_eq!(filtering(port, ip).value(), expected, "{port:?} {ip:?}");
    }
}

#[test]
fn a_moved_mapping_is_a_memory() {
    let (one, two) = (at(1).unwrap(), at(2).unwrap());
    assert_eq!(unsolicited(one, one).value(), Some(Unsolicited::Forgotten));
    assert_eq!(unsolicited(one, two).value(), Some(Unsolicited::Remembered));
}

fn choice(mapping: Dependence, ordered: &[u16]) -> Option<Allocation> {
    let ports = Ports { kept: Vec::new(), ordered: ordered.to_vec(), all: ordered.to_vec() };
    allocation(known(mapping, 1), &ports).value()
}

#[test]
fn kept_ports() {
    for (mapping, kept, expected) in [
        (Dependence::Endpoint, vec![(1, 1), (2, 2)], true),
        (Dependence::NotPort, vec![(1, 1), (2, 2), (3, 9)], true),
        (Dependence::NotPort, vec![(1, 1)], false),
        (Dependence::Endpoint, vec![(1, 1), (2, 7), (3, 9)], false),
        (Dependence::AddressAndPort, vec![(1, 1), (2, 2)], false),
        (Dependence::Address, vec![(1, 1), (2, 2)], false),
    ] {
        let ports = Ports { kept: kept.clone(), ..Ports::default() };
        let found = allocation(known(mapping, 1), &ports).value();
        assert_eq!(found, expected.then_some(Allocation::Preserving), "{mapping:?} {kept:?}");
    }
}

#[test]
fn counted_ports() {
    for (ports, step) in [
        (vec![100, 101, 102, 103, 104, 105, 106], Some(1)),
        (vec![100, 99, 98, 97, 96, 95, 94], Some(-1)),
        (vec![100, 102, 104, 110, 112, 118, 120], Some(2)),
        (vec![100, 103, 112, 115, 127, 130, 133], Some(3)),
        // The counter wraps, or one was overtaken.
        (vec![65_533, 65_534, 65_535, 1024, 1025, 1026, 1027, 1028, 1029], Some(1)),
        (vec![1, 2, 4, 3, 5, 6, 7, 8, 9, 10], Some(1)),
        // Too few, to and fro, too far apart.
        (vec![100, 101, 102, 103, 104, 105], None),
        (vec![100, 101, 100, 101, 100, 101, 100, 101, 100], None),
        (vec![100, 101, 200, 300, 400, 500, 600], None),
        (vec![2000, 4000, 6000, 8000, 10_000, 12_000, 14_000], None),
    ] {
        assert_eq!(super::step(&ports), step, "{ports:?}");
        let expected = step.map(|step| Allocation::Sequential { step });
        let counted = choice(Dependence::AddressAndPort, &ports)
            .filter(|found| matches!(found, Allocation::Sequential { .. }));
        assert_eq!(counted, expected);
    }
}

#[test]
fn drawn_ports() {
    let block = [5100, 5001, 5070, 5020, 5101, 5010, 5060, 5040, 5090];
    let expected = Allocation::Block { first: 4989, last: 5113 };
    assert_eq!(choice(Dependence::AddressAndPort, &block), Some(expected));
    let high = block.map(|port| port + 60_434);
    let expected = Allocation::Block { first: 65_423, last: 65_535 };
    assert_eq!(choice(Dependence::NotPort, &high), Some(expected));
    let low = block.map(|port| port - 3970);
    let expected = Allocation::Block { first: 1024, last: 1143 };
    assert_eq!(choice(Dependence::NotPort, &low), Some(expected));
    let wide = [5100, 51_001, 5070, 35_020, 5101, 25_010, 5060, 5040, 60_090];
    assert_eq!(choice(Dependence::NotPort, &wide), Some(Allocation::Random));
    assert_eq!(choice(Dependence::NotPort, &wide[..7]), None);
    assert_eq!(choice(Dependence::NotPort, &[]), None);
    let unordered = Ports { ordered: vec![5], all: block.to_vec(), ..Ports::default() };
    assert_eq!(allocation(Field::Unknown, &unordered), Field::Unknown);
}
