//! Two nodes on one LAN, and a server that is away.

use super::*;
use crate::id::LanSecret;
use crate::session::{BEACON_LEN, seal_beacon};
use crate::wire::beacon::{Beacon, BeaconKind};

fn secret() -> LanSecret {
    LanSecret([8; 32])
}

fn member(n: u8, name: &str) -> Config {
    Config { lan_secret: Some(secret()), ..config(n, name) }
}

fn met(n: u8, name: &str) -> Known {
    Known { name: name.parse().unwrap(), key: key(n).public(), boot: Boot(77) }
}

fn server_is_away(transmit: &Transmit) -> bool {
    is_server(transmit.route.local) || is_server(transmit.route.remote)
}

/// Alice and bob, who know each other, without a server.
fn cut_off() -> Net {
    let mut net = Net::new();
    net.drops = server_is_away;
    net.add(1, Config { known: vec![met(2, "bob")], ..member(1, "alice") });
    net.add(2, Config { known: vec![met(1, "alice")], ..member(2, "bob") });
    net.start(1);
    net.start(2);
    net
}

/// Alice, whom the server left.
fn alone() -> Net {
    let mut net = cut_off();
    net.nodes.remove(&address(2));
    net.flying.clear();
    net.run(second(3));
    net
}

fn beacons(net: &Net) -> usize {
    net.seen.iter().filter(|line| line.contains("Beacon")).count()
}

fn path(net: &mut Net, n: u8, to: &str) -> PathView {
    net.host(n).node.why(&to.parse().unwrap()).map_or(PathView::None, |why| why.path)
}

#[test]
fn peers_that_know_each_other_talk_without_a_server() {
    let mut net = cut_off();
    net.send(1, 1, "bob", "hello");
    net.run(second(1));
    assert_eq!(net.texts(2), ["hello"], "{:#?}", net.seen);
    assert!(net.is_delivered(1, 1));
    assert!(matches!(path(&mut net, 1, "bob"), PathView::Direct { .. }));
    net.send(2, 2, "alice", "and back");
    net.run(second(1));
    assert_eq!(net.texts(1), ["and back"]);
    assert!(net.is_delivered(2, 2));
    assert_eq!(net.host(2).messages[0].0, "alice");
}

#[test]
fn either_side_may_begin_and_both_at_once() {
    for both in [false, true] {
        let mut net = cut_off();
        net.run(second(1));
        net.send(2, 1, "alice", "from bob");
        if both {
            net.send(1, 1, "bob", "from alice");
        }
        net.run(second(1));
        assert_eq!(net.texts(1), ["from bob"], "{:#?}", net.seen);
        assert_eq!(net.texts(2).len(), usize::from(both));
        assert!(net.is_delivered(2, 1));
    }
}

/// Whoever of them controls the pair, and however their first packets cross.
#[test]
fn what_went_without_a_server_is_reported_as_direct() {
    for (n, late) in (3..8).flat_map(|n| (0..6).map(move |late| (n, late * ONE_WAY / 2))) {
        let mut net = Net::new();
        net.drops = server_is_away;
        net.add(1, Config { known: vec![met(n, "bob")], ..member(1, "alice") });
        net.add(n, Config { known: vec![met(1, "alice")], ..member(n, "bob") });
        net.start(1);
        net.start(n);
        net.run(second(1));
        net.send(1, 1, "bob", "from alice");
        net.run(late);
        net.send(n, 2, "alice", "from bob");
        net.run(second(1));
        for (end, handle) in [(1, 1), (n, 2)] {
            assert!(net.is_delivered(end, handle), "{n} {late:?}");
            let relayed = |e: &Event| matches!(e, Event::Delivered { path, .. } if !matches!(path, PathView::Direct { .. }));
            assert_eq!(net.count(end, relayed), 0, "{n} {late:?} {:#?}", net.seen);
        }
    }
}

#[test]
fn strangers_meet_only_when_there_is_no_server_to_ask() {
    let mut net = Net::new();
    net.drops = server_is_away;
    for (n, name) in [(1, "alice"), (2, "bob")] {
        net.add(n, member(n, name));
        net.start(n);
    }
    net.send(1, 1, "bob", "hello");
    net.run(Duration::from_millis(1900));
    assert_eq!(net.texts(2), [""; 0], "the server may still answer");
    net.run(second(2));
    assert_eq!(net.texts(2), ["hello"], "{:#?}", net.seen);
    assert_eq!(net.count(1, |e| matches!(e, Event::Near(of) if of.name.as_str() == "bob")), 1);
}

#[test]
fn a_name_under_another_key_is_refused() {
    let mut net = cut_off();
    net.add(3, Config { known: vec![met(9, "bob")], ..member(3, "carol") });
    net.start(3);
    net.send(3, 1, "bob", "for the bob I know");
    net.run(second(5));
    assert_eq!(net.texts(2), [""; 0]);
    assert_eq!(net.count(3, |e| matches!(e, Event::PeerKeyChanged { .. })), 1);
}

#[test]
fn the_session_outlives_the_return_of_the_server() {
    let mut net = cut_off();
    net.send(1, 1, "bob", "before");
    net.run(second(3));
    net.drops = |_| false;
    for handle in 2..40 {
        net.send(1, handle, "bob", &handle.to_string());
        net.send(2, handle, "alice", &handle.to_string());
        net.run(Duration::from_millis(200));
    }
    for n in [1, 2] {
        assert_eq!(net.count(n, |e| matches!(e, Event::Registered(_))), 1);
        let lost = |e: &Event| matches!(e, Event::Path { path: PathView::None, .. });
        assert_eq!(net.count(n, lost), 0, "{:#?}", net.seen);
    }
    assert_eq!(net.texts(2).len(), 39);
    assert_eq!(net.texts(1).len(), 38);
    assert!(matches!(path(&mut net, 1, "bob"), PathView::Direct { .. }));
}

#[test]
fn another_process_of_a_neighbour_gets_what_waits() {
    let mut net = cut_off();
    net.send(1, 1, "bob", "one");
    net.run(second(2));
    net.add(2, Config { known: vec![met(1, "alice")], ..member(2, "bob") });
    net.send(1, 2, "bob", "two");
    net.start(2);
    net.run(second(15));
    assert_eq!(net.texts(2), ["two"], "{:#?}", net.seen);
    assert!(net.is_delivered(1, 2));
}

#[test]
fn a_network_without_a_secret_says_nothing() {
    let mut net = Net::of_two();
    net.run(second(30));
    assert_eq!(beacons(&net), 0);
    for config in [
        config(3, "carol"),
        Config { discovery: Discovery::Off, ..member(3, "carol") },
        Config { name: None, ..member(3, "carol") },
    ] {
        net.add(3, config);
        net.start(3);
        net.run(second(30));
        assert_eq!(beacons(&net), 0);
    }
}

#[test]
fn networks_do_not_see_each_other() {
    let mut net = cut_off();
    let other = Some(LanSecret([9; 32]));
    net.add(3, Config { lan_secret: other, known: vec![met(2, "bob")], ..member(3, "carol") });
    net.start(3);
    net.send(3, 1, "bob", "hello");
    net.run(second(20));
    assert_eq!(net.texts(2), [""; 0]);
    assert_eq!(names(&mut net, 3), [""; 0]);
    assert_eq!(names(&mut net, 1), ["bob"]);
}

/// The list, while the server is silent.
fn names(net: &mut Net, n: u8) -> Vec<String> {
    net.command(n, Command::List { handle: Handle(99) });
    let event = net.host(n).events.pop().unwrap();
    let Event::Listing { handle: Handle(99), scope: Scope::Lan, page } = event else {
        panic!("{event:?}")
    };
    page.members.iter().map(|member| member.name.to_string()).collect()
}

#[test]
fn a_neighbour_that_left_or_fell_silent_is_not_listed() {
    let mut net = cut_off();
    net.run(second(3));
    assert_eq!(names(&mut net, 1), ["bob"]);
    net.command(2, Command::Close);
    net.run(second(1));
    assert_eq!(names(&mut net, 1), [""; 0]);
    assert_eq!(names(&mut net, 1), [""; 0]);
    let mut net = cut_off();
    net.run(second(3));
    net.nodes.remove(&address(2));
    net.run(second(30));
    assert_eq!(names(&mut net, 1), ["bob"]);
    net.run(second(10));
    assert_eq!(names(&mut net, 1), [""; 0]);
}

#[test]
fn who_asks_for_the_list_before_the_silence_gets_it_then() {
    let mut net = cut_off();
    net.command(1, Command::List { handle: Handle(5) });
    net.run(second(1));
    let listed = |e: &Event| matches!(e, Event::Listing { scope: Scope::Lan, .. });
    assert_eq!(net.count(1, listed), 0);
    net.run(second(2));
    assert_eq!(net.count(1, listed), 1);
}

/// What a peer of the network says; `n` is its key.
fn beacon_of(n: u16, net: &Net, kind: BeaconKind, age: Duration) -> Vec<u8> {
    let at = second(1_700_000_000) + (net.now - net.began) - age;
    let mut rng = ChaCha12Rng::from_seed([(n % 251) as u8; 32]);
    let mut bytes = [0; 32];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    let beacon = Beacon {
        kind,
        key: PeerKey::from_bytes(bytes),
        boot: Boot(1),
        nonce: [1; 16],
        at,
        port_v4: PORT,
        port_v6: 0,
        name: format!("p{n}").parse().unwrap(),
        addresses: Vec::new(),
    };
    let datagram = seal_beacon(&secret(), &beacon.encode(), at, &mut rng);
    assert_eq!(datagram.len(), BEACON_LEN);
    datagram
}

fn hear(net: &mut Net, datagram: &[u8]) {
    net.input(1, Input::Announced { from: address(7), data: datagram });
}

#[test]
fn recorded_beacons_are_nobody() {
    let mut net = alone();
    let old = beacon_of(3, &net, BeaconKind::Hello, second(601));
    hear(&mut net, &old);
    assert_eq!(names(&mut net, 1), [""; 0]);
    let fresh = beacon_of(3, &net, BeaconKind::Hello, Duration::ZERO);
    let before = beacon_of(3, &net, BeaconKind::Bye, second(1));
    hear(&mut net, &fresh);
    assert_eq!(names(&mut net, 1), ["p3"]);
    let answers = beacons(&net);
    hear(&mut net, &before);
    hear(&mut net, &fresh);
    assert_eq!(names(&mut net, 1), ["p3"], "older than the last");
    assert_eq!(beacons(&net), answers, "a copy is not answered");
}

#[test]
fn neighbours_and_answers_are_bounded() {
    let mut net = alone();
    let before = beacons(&net);
    for n in 10..600 {
        let datagram = beacon_of(n, &net, BeaconKind::Hello, Duration::ZERO);
        hear(&mut net, &datagram);
    }
    assert_eq!(beacons(&net) - before, 32);
    assert_eq!(names(&mut net, 1).len(), 256);
    net.run(second(1));
    let datagram = beacon_of(700, &net, BeaconKind::Hello, Duration::ZERO);
    hear(&mut net, &datagram);
    assert_eq!(names(&mut net, 1).len(), 256, "no room");
}

#[test]
fn a_check_in_a_neighbours_name_leaves_nothing_unless_it_is_authentic() {
    let mut net = cut_off();
    net.run(second(3));
    net.send(2, 1, "alice", "hello");
    let is_check = |transmit: &Transmit| Family::of(&transmit.payload) == Family::Stun;
    let (_, mut check) =
        net.flying.iter().find(|(_, transmit)| is_check(transmit)).cloned().unwrap();
    net.flying.clear();
    let integrity = check.payload.len() - 20;
    check.payload[integrity] ^= 1;
    net.deliver(check.clone());
    assert!(!net.host(1).node.diagnose()[0].starts_with("bob"));
    check.payload[integrity] ^= 1;
    net.deliver(check);
    assert!(net.host(1).node.diagnose()[0].starts_with("bob"));
}

#[test]
fn a_machine_that_slept_is_heard_again_once_its_clock_is_set() {
    let mut net = cut_off();
    net.nodes.remove(&address(1));
    net.clock_error = second(3600);
    net.add(1, Config { known: vec![met(2, "bob")], ..member(1, "alice") });
    net.start(1);
    net.run(second(60));
    assert!(names(&mut net, 2).is_empty(), "an hour behind");
    let (now, unix) = (net.now, second(1_700_000_000) + (net.now - net.began));
    net.host(1).node.set_clock(unix, now);
    net.input(1, Input::NetworkChanged);
    net.run(second(1));
    assert_eq!(names(&mut net, 2), ["alice"]);
}

/// Its other interfaces send the same beacon in the same moment; whoever sends it later recorded
/// it.
#[test]
fn a_recorded_copy_adds_no_address() {
    let mut net = alone();
    let beacon = beacon_of(3, &net, BeaconKind::Hello, Duration::ZERO);
    hear(&mut net, &beacon);
    net.input(1, Input::Announced { from: address(8), data: &beacon });
    net.run(second(2));
    net.input(1, Input::Announced { from: address(9), data: &beacon });
    let now = net.now;
    let node = &net.host(1).node;
    let member = node.lan.members(now).next().unwrap();
    let neighbour = node.lan.neighbour(&member.key, now).unwrap();
    assert_eq!(neighbour.addresses, [address(7), address(8)]);
}
