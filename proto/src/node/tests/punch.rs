//! Ports that must be guessed: who opens and probes what, and how much at most.

use super::*;
use crate::transport::ControlFrame;
use crate::traversal::nat::{Allocation, Dependence, Field, Profile};
use crate::wire::frame::{OpenPorts, Punch, PunchStep};

const ALICE: u8 = 1;
const BOB: u8 = 2;
/// Below the ports of sockets here: nothing else is hit.
const BLOCK: Allocation = Allocation::Block { first: 4001, last: 4400 };
const EVERYWHERE: OpenPorts = OpenPorts { first: 1024, step: 1, count: 64_512, open: 256 };

fn nat(mapping: Dependence, allocation: Allocation) -> Profile {
    let known = |value| Field::Known { value, samples: 4 };
    Profile {
        mapping: known(mapping),
        filtering: known(Dependence::AddressAndPort),
        allocation: Field::Known { value: allocation, samples: 4 },
        ..Profile::default()
    }
}

/// As between two routers of which one shows a new port to each destination: nothing goes between
/// the main sockets, and openers die on the way.
fn between_routers(transmit: &Transmit) -> bool {
    let Route { local, remote, .. } = transmit.route;
    let direct = !is_server(local) && !is_server(remote);
    direct && (transmit.ttl.is_some() || (local.port() == PORT && remote.port() == PORT))
}

/// Alice behind a router that draws ports at random, Bob behind one that keeps them; both know.
fn net(guessing: [Guessing; 2]) -> Net {
    let mut net = Net::new();
    for (n, name, guessing) in [(ALICE, "alice", guessing[0]), (BOB, "bob", guessing[1])] {
        net.add(n, Config { guessing, ..config(n, name) });
        net.start(n);
    }
    net.drops = between_routers;
    net.run(second(5));
    net.host(ALICE).node.core.nat = nat(Dependence::AddressAndPort, BLOCK);
    net.host(BOB).node.core.nat = nat(Dependence::Endpoint, Allocation::Preserving);
    net.seen.clear();
    net
}

/// Datagrams from one host to another but those between the main sockets.
fn guessed(net: &Net, from: u8, to: u8) -> usize {
    let (from, to) = (address(from), address(to));
    let is_guess = |line: &&String| {
        let mut words = line.split(' ');
        let route = (words.next(), words.nth(1));
        let [Some(local), Some(remote)] =
            [route.0, route.1].map(|word| word.and_then(|w| w.parse::<SocketAddr>().ok()))
        else {
            return false;
        };
        local.ip() == from.ip() && remote.ip() == to.ip() && (local, remote) != (from, to)
    };
    net.seen.iter().filter(is_guess).count()
}

fn is_direct(net: &mut Net, n: u8, name: &str) -> bool {
    let why = net.host(n).node.why(&name.parse().unwrap());
    matches!(why.map(|why| why.path), Some(PathView::Direct { .. }))
}

/// Ports of sockets that a host closed.
fn closed(net: &mut Net, n: u8) -> usize {
    let effects = &net.host(n).effects;
    let closed = effects.iter().filter_map(|effect| match effect {
        Effect::CloseSockets(sockets) => Some(sockets.len()),
        _ => None,
    });
    closed.sum()
}

#[test]
fn a_guessed_port_becomes_the_path_and_its_socket_stays() {
    let mut net = net([Guessing::On, Guessing::On]);
    let before = closed(&mut net, ALICE);
    net.send(ALICE, 1, "bob", "hello");
    net.run(second(3));
    assert!(is_direct(&mut net, ALICE, "bob") && is_direct(&mut net, BOB, "alice"));
    assert_eq!(closed(&mut net, ALICE) - before, 63, "all but the one that was hit");
    // Its mapping is known to both, so that an introduction anew finds it at once.
    net.run(second(60));
    assert!(is_direct(&mut net, ALICE, "bob"));
}

#[test]
fn who_guesses_no_ports_tells_nothing_opens_nothing_and_probes_nothing() {
    for guessing in [[Guessing::Off, Guessing::On], [Guessing::On, Guessing::Off]] {
        let mut net = net(guessing);
        net.send(ALICE, 1, "bob", "hello");
        net.run(second(20));
        let links = |net: &mut Net, n: u8, name: &str| {
            net.host(n).node.why(&name.parse().unwrap()).and_then(|why| why.their_nat)
        };
        let (alices, bobs) = (links(&mut net, BOB, "alice"), links(&mut net, ALICE, "bob"));
        assert_eq!(alices.is_some(), guessing[0] == Guessing::On);
        assert_eq!(bobs.is_some(), guessing[1] == Guessing::On);
        assert!(!is_direct(&mut net, ALICE, "bob"));
        assert_eq!(guessed(&net, BOB, ALICE), 0);
        // Whatever the other asks for.
        let asks = if guessing[1] == Guessing::Off { ALICE } else { BOB };
        ask(&mut net, asks, 3 - asks, 1, EVERYWHERE);
        net.run(second(5));
        assert_eq!(guessed(&net, 3 - asks, asks), 0);
    }
}

/// `n` says it has ports open towards the other.
fn ask(net: &mut Net, n: u8, to: u8, round: u64, ports: OpenPorts) {
    let (now, key) = (net.now, key(to).public());
    let node = &mut net.host(n).node;
    let frame = ControlFrame::Punch(Punch { round, step: PunchStep::Open(ports) });
    node.links.get_mut(&key).unwrap().say(frame, now);
    node.touched.insert(key);
    node.handle_timeout(now);
    net.drain();
}

#[test]
fn a_peer_gets_no_more_probes_than_the_prober_likes_and_only_to_where_the_server_sees_it() {
    let mut net = net([Guessing::On, Guessing::On]);
    // Nothing to be found, so that all is spent; and no plan of Alice's own.
    net.host(ALICE).node.core.nat = Profile::default();
    net.send(ALICE, 1, "bob", "hello");
    net.run(second(1));
    net.drops = |transmit| !is_server(transmit.route.local) && !is_server(transmit.route.remote);
    let start = net.now;
    let mut rounds = 1;
    while net.now < start + second(29) {
        ask(&mut net, ALICE, BOB, rounds, EVERYWHERE);
        rounds += 1;
        net.run(second(1));
    }
    assert_eq!(guessed(&net, BOB, ALICE), 3 * 1750, "three rounds, and then a pause");
    while net.now < start + second(290) {
        ask(&mut net, ALICE, BOB, rounds, EVERYWHERE);
        rounds += 1;
        net.run(second(1));
    }
    // Pauses double: 30, 60 and 120 s, the first one longer because the minute is spent.
    assert_eq!(guessed(&net, BOB, ALICE), 4 * 3 * 1750);
    let elsewhere = |line: &&String| line.starts_with(&format!("{} -> ", address(BOB)));
    let to = |line: &String| line.split(' ').nth(2).unwrap().parse::<SocketAddr>().unwrap();
    let allowed = |to: SocketAddr| is_server(to) || to.ip() == address(ALICE).ip();
    assert!(
        net.seen.iter().filter(elsewhere).all(|line| allowed(to(line)) || to(line) == EVERYBODY)
    );
}

#[test]
fn one_pair_at_a_time_is_served() {
    let mut net = net([Guessing::On, Guessing::On]);
    net.add(3, config(3, "carol"));
    net.start(3);
    net.run(second(5));
    for n in [ALICE, 3] {
        net.host(n).node.core.nat = Profile::default();
    }
    net.send(ALICE, 1, "bob", "hello");
    net.send(3, 1, "bob", "hello");
    net.run(second(1));
    net.drops = |transmit| !is_server(transmit.route.local) && !is_server(transmit.route.remote);
    ask(&mut net, ALICE, BOB, 1, EVERYWHERE);
    ask(&mut net, 3, BOB, 1, EVERYWHERE);
    net.run(second(1));
    let first = [guessed(&net, BOB, ALICE), guessed(&net, BOB, 3)];
    assert!(first.contains(&0) && first.iter().sum::<usize>() > 500, "{first:?}");
    // The other's sockets are gone before its turn comes.
    net.run(second(10));
    assert_eq!(guessed(&net, BOB, ALICE) + guessed(&net, BOB, 3), 1750);
}
