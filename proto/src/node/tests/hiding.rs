//! A peer that hides speaks with its server alone.

use super::*;
use crate::id::{CheckTag, ConnectId};
use crate::io::Ecn;

/// Alice hides, bob does not; both are registered.
fn of_two() -> Net {
    let mut net = Net::new();
    net.add(1, Config { exposure: Exposure::Hidden, ..config(1, "alice") });
    net.add(2, config(2, "bob"));
    net.start(1);
    net.start(2);
    net.run(second(1));
    net
}

fn why(net: &mut Net, n: u8, name: &str) -> Why {
    net.host(n).node.why(&name.parse().unwrap()).unwrap()
}

/// Datagrams between the two, whatever is in them.
fn directly(net: &Net) -> Vec<&str> {
    net.seen.iter().map(String::as_str).filter(|line| !line.contains(SERVER)).collect()
}

/// What the server relays to a host and is on its way, without the header; taken off the air.
fn relayed_to(net: &mut Net, n: u8, family: Family) -> Vec<Vec<u8>> {
    let inner = |transmit: &Transmit| {
        let (_, inner) = RelayHeader::decode(&transmit.payload).ok()?;
        (transmit.route.remote == address(n) && Family::of(inner) == family).then(|| inner.to_vec())
    };
    let flying = std::mem::take(&mut net.flying);
    let (taken, rest): (Vec<_>, Vec<_>) =
        flying.into_iter().partition(|(_, transmit)| inner(transmit).is_some());
    net.flying = rest;
    taken.iter().filter_map(|(_, transmit)| inner(transmit)).collect()
}

#[test]
fn messages_pass_and_no_datagram_goes_between_the_two() {
    for first in [1, 2] {
        let mut net = of_two();
        let names = ["alice", "bob"];
        let (to, back) = (names[2 - usize::from(first)], names[usize::from(first) - 1]);
        net.send(first, 1, to, "there");
        net.run(second(2));
        net.send(3 - first, 2, back, "and back");
        net.run(second(100));
        assert!(net.is_delivered(first, 1) && net.is_delivered(3 - first, 2), "{:#?}", net.seen);
        assert_eq!(directly(&net), [""; 0]);
        let (of_alice, of_bob) = (why(&mut net, 1, "bob"), why(&mut net, 2, "alice"));
        for (why, who) in [(of_alice, Party::Own), (of_bob, Party::Other)] {
            assert!(matches!(why.path, PathView::Relay { .. }), "{why:?}");
            assert_eq!((why.reason, why.pairs.len()), (Reason::Hidden(who), 0));
        }
    }
}

#[test]
fn what_comes_directly_is_not_answered() {
    let mut net = of_two();
    net.send(2, 1, "alice", "hello");
    let direct = Route::udp(address(1), address(2));
    let mut inits = Vec::new();
    while inits.is_empty() {
        net.run(Duration::from_millis(1));
        inits = relayed_to(&mut net, 1, Family::HandshakeInit);
    }
    net.seen.clear();
    net.input(1, Input::Datagram { route: direct, ecn: Ecn::NotEct, data: &mut inits[0] });
    assert_eq!(net.seen, [""; 0], "an init");
    net.run(second(5));
    assert!(net.is_delivered(2, 1));
    net.send(2, 2, "alice", "again");
    let mut packets = Vec::new();
    while packets.is_empty() {
        net.run(Duration::from_millis(1));
        packets = relayed_to(&mut net, 1, Family::Data);
    }
    net.seen.clear();
    net.input(1, Input::Datagram { route: direct, ecn: Ecn::NotEct, data: &mut packets[0] });
    assert_eq!(net.seen, [""; 0], "a packet");
    assert_eq!(net.texts(1), ["hello"]);
    net.run(second(5));
    assert_eq!(net.texts(1), ["hello", "again"], "by relay it counts");
    assert_eq!(directly(&net), [""; 0]);
}

#[test]
fn who_hides_finds_others_by_address_and_is_not_found() {
    let mut net = of_two();
    for (from, to) in [(1, 2), (2, 1)] {
        let (handle, payload) = (Handle(from.into()), Bytes::from_static(b"by address"));
        let to = Recipient::Address(address(to));
        net.command(from, Command::Send { handle, to, payload });
    }
    net.run(second(2));
    assert!(net.is_delivered(1, 1));
    let is_unknown =
        |e: &Event| matches!(e, Event::Failed { problem, .. } if problem.code == code::NOT_FOUND);
    assert_eq!(net.count(2, is_unknown), 1);
    let listed: Vec<_> = net.host(2).node.members().map(|member| member.observed).collect();
    assert_eq!(listed, [None, Some(address(2))]);
}

#[test]
fn a_second_address_family_is_not_measured() {
    let mut net = Net::new();
    net.servers = vec![SERVER_V6.parse().unwrap(), SERVER.parse().unwrap()];
    net.add(1, Config { exposure: Exposure::Hidden, ..config(1, "alice") });
    let sockets = [address(1), address_v6(1)]
        .map(|bound| LocalSocket { bound, addresses: vec![bound.ip()] })
        .to_vec();
    net.input(1, Input::Sockets(sockets));
    net.run(second(100));
    assert!(net.host(1).node.whoami().registered);
    assert!(!net.seen.iter().any(|line| line.contains("Stun")), "{:#?}", net.seen);
}

/// The introduction in which one of the two hides ends what an earlier one found.
#[test]
fn who_hides_from_now_on_leaves_the_direct_path_at_once() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "hello");
    net.run(second(2));
    assert!(matches!(why(&mut net, 1, "bob").path, PathView::Direct { .. }));
    let now = net.now;
    let node = &mut net.host(1).node;
    let key = *node.links.keys().next().unwrap();
    let channel = *node.channels.keys().next().unwrap();
    let member = node.directory.member(&"bob".parse().unwrap()).cloned().unwrap();
    let hidden = control::Connect {
        member: control::Member { observed: None, ..member },
        connect: ConnectId([7; 16]),
        channel,
        own_tag: CheckTag([1; 8]),
        their_tag: CheckTag([2; 8]),
        candidates: Vec::new(),
    };
    node.handle_connect(&hidden, now);
    node.touched.insert(key);
    net.run(Duration::ZERO);
    assert!(matches!(why(&mut net, 1, "bob").path, PathView::Relay { .. }));
}
