//! Ports that must be guessed: who opens and probes what, and how much at most.

use super::*;
use crate::transport::ControlFrame;
use crate::traversal::nat::{Allocation, Dependence, Field, Profile};
use crate::wire::frame::{OpenPorts, Punch, PunchStep};

const ALICE: u8 = 1;
const BOB: u8 = 2;
/// Below the ports of sockets here: nothing else is hit.
const BLOCK: Allocation = Allocation::Block { first: 4001, last: 4400 };
/// Above all sockets here, so that nothing is hit.
const ELSEWHERE: OpenPorts = OpenPorts { first: 10_000, step: 1, count: 50_000, open: 256 };

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

/// Whom each probe of [`ELSEWHERE`] went to, in order.
fn probed(net: &Net, from: u8) -> Vec<IpAddr> {
    let target = |line: &String| {
        let mut words = line.split(" -> ").flat_map(|part| part.split(' ').take(1));
        let [local, remote] =
            [words.next(), words.next()].map(|word| word.unwrap().parse::<SocketAddr>().unwrap());
        let probe =
            local == address(from) && remote.port() >= ELSEWHERE.first && !is_server(remote);
        (probe && remote != EVERYBODY).then_some(remote.ip())
    };
    net.seen.iter().filter_map(target).collect()
}

/// Nothing goes from host to host any more.
fn apart(transmit: &Transmit) -> bool {
    !is_server(transmit.route.local) && !is_server(transmit.route.remote)
}

fn is_direct(net: &mut Net, n: u8, name: &str) -> bool {
    let why = net.host(n).node.why(&name.parse().unwrap());
    matches!(why.map(|why| why.path), Some(PathView::Direct { .. }))
}

/// Ports of sockets that a host closed.
fn closed(net: &mut Net, n: u8) -> usize {
    let effects = &net.host(n).effects;
    let count = |effect: &Effect| {
        let Effect::CloseSockets(sockets) = effect else { return 0 };
        sockets.len()
    };
    effects.iter().map(count).sum()
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
        net.drops = apart;
        net.send(ALICE, 1, "bob", "hello");
        net.run(second(20));
        let links = |net: &mut Net, n: u8, name: &str| {
            net.host(n).node.why(&name.parse().unwrap()).and_then(|why| why.their_nat)
        };
        let (alices, bobs) = (links(&mut net, BOB, "alice"), links(&mut net, ALICE, "bob"));
        assert_eq!(alices.is_some(), guessing[0] == Guessing::On);
        assert_eq!(bobs.is_some(), guessing[1] == Guessing::On);
        assert!(probed(&net, BOB).is_empty());
        // Whatever the other asks for.
        let (asks, asked) = if guessing[1] == Guessing::Off { (ALICE, BOB) } else { (BOB, ALICE) };
        ask(&mut net, asks, asked, 1, ELSEWHERE);
        net.run(second(5));
        assert!(probed(&net, asked).is_empty());
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
    net.drops = apart;
    net.send(ALICE, 1, "bob", "hello");
    net.run(second(1));
    let start = net.now;
    let mut rounds = 1;
    while net.now < start + second(29) {
        ask(&mut net, ALICE, BOB, rounds, ELSEWHERE);
        rounds += 1;
        net.run(second(1));
    }
    // Another introduction may cut a round short.
    let series = 2 * 1750..=3 * 1750;
    assert!(series.contains(&probed(&net, BOB).len()), "three rounds, and then a pause");
    while net.now < start + second(290) {
        ask(&mut net, ALICE, BOB, rounds, ELSEWHERE);
        rounds += 1;
        net.run(second(1));
    }
    // Pauses double: 30, 60 and 120 s, the first one longer because the minute is spent.
    let all = probed(&net, BOB);
    assert!((series.start() * 3..=series.end() * 4).contains(&all.len()), "{}", all.len());
    assert!(all.iter().all(|target| *target == address(ALICE).ip()));
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
    net.drops = apart;
    net.send(ALICE, 1, "bob", "hello");
    net.send(3, 1, "bob", "hello");
    net.run(second(1));
    ask(&mut net, ALICE, BOB, 1, ELSEWHERE);
    ask(&mut net, 3, BOB, 1, ELSEWHERE);
    net.run(second(1));
    let mut targets = probed(&net, BOB);
    assert!(targets.len() > 500, "{}", targets.len());
    net.run(second(10));
    // The other's turn comes later, or not at all: its sockets would be gone.
    targets.extend_from_slice(&probed(&net, BOB)[targets.len()..]);
    targets.dedup();
    assert!(targets.len() <= 2, "{targets:?}");
}

/// The socket that a punch found goes with its path.
#[test]
fn a_socket_without_a_path_is_closed() {
    let mut net = net([Guessing::On, Guessing::On]);
    let before = closed(&mut net, ALICE);
    net.send(ALICE, 1, "bob", "hello");
    net.run(second(3));
    assert_eq!(closed(&mut net, ALICE) - before, 63);
    net.host(ALICE).node.core.guessing = Guessing::Off;
    net.drops = apart;
    net.run(second(40));
    assert!(!is_direct(&mut net, ALICE, "bob"));
    assert_eq!(closed(&mut net, ALICE) - before, 64);
}
