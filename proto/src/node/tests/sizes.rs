//! Datagrams grow to what the network carries.

use super::*;

/// Lengths of the datagrams of this family that node 1 sent to `to`, and how many had each.
fn lengths(net: &Net, to: SocketAddr, family: Family) -> BTreeMap<usize, usize> {
    let line = format!("{} -> {to} {family:?} ", address(1));
    let mut lengths = BTreeMap::new();
    for seen in net.seen.iter().filter_map(|seen| seen.strip_prefix(line.as_str())) {
        *lengths.entry(seen.parse().unwrap()).or_default() += 1;
    }
    lengths
}

/// Alice says hello, and much more once that arrived; the lengths of what she sent then.
fn bulk(drops: fn(&Transmit) -> bool, to: SocketAddr, family: Family) -> BTreeMap<usize, usize> {
    let mut net = Net::of_two();
    net.drops = drops;
    net.send(1, 1, "bob", "hello");
    net.run(second(5));
    net.seen.clear();
    // This network is so fast that one message would be gone before the search ends.
    for n in 2..8 {
        net.send(1, n, "bob", &"x".repeat(1 << 20));
        net.run(second(3));
    }
    assert_eq!(net.host(2).messages.len(), 7, "all arrived");
    lengths(&net, to, family)
}

#[test]
fn a_direct_path_carries_1452_bytes() {
    let lengths = bulk(|_| false, address(2), Family::Data);
    assert_eq!(lengths.last_key_value().map(|(len, _)| *len), Some(1452), "{lengths:?}");
    assert!(lengths[&1452] > 500, "{lengths:?}");
}

#[test]
fn so_does_the_relay_with_its_header() {
    let lengths = bulk(between_peers, SERVER.parse().unwrap(), Family::Relay);
    assert_eq!(lengths.last_key_value().map(|(len, _)| *len), Some(1452), "{lengths:?}");
    assert!(lengths[&1452] > 500, "{lengths:?}");
}

#[test]
fn a_narrow_network_is_used_as_far_as_it_goes() {
    let narrow = |t: &Transmit| t.payload.len() > 1372;
    let lengths = bulk(narrow, address(2), Family::Data);
    let too_long: usize = lengths.range(1373..).map(|(_, count)| count).sum();
    assert!((3..=12).contains(&too_long), "probes alone: {lengths:?}");
    let most = lengths.range(1357..=1372).map(|(_, count)| count).max();
    assert!(most.is_some_and(|count| *count > 500), "{lengths:?}");
}
