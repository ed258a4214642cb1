//! What routers forward, and a network that changes under a node.

use super::*;
use crate::traversal::PairReport;
use crate::traversal::nat::{Dependence, Field, Profile};

const EXTERNAL: &str = "100.64.0.9:5000";

fn mapped(n: u8, external: &str) -> Input<'static> {
    let external = external.parse().unwrap();
    Input::Mapped(vec![Mapped { bound: address(n), external }])
}

/// What node `n` tried towards `to`, a line each.
fn tried(net: &mut Net, n: u8, to: &str) -> String {
    let why = net.host(n).node.why(&to.parse().unwrap()).unwrap();
    let line = |pair: &PairReport| format!("{} {:?}\n", pair.remote.address, pair.remote.kind);
    why.pairs.iter().map(line).collect()
}

/// What leaves node 1 towards `to`, in order.
fn sent_to(net: &Net, to: SocketAddr) -> Vec<&str> {
    let line = format!("{} -> {to} ", address(1));
    net.seen.iter().filter_map(|seen| seen.strip_prefix(line.as_str())).collect()
}

#[test]
fn a_mapped_address_is_part_of_the_introduction() {
    let mut net = Net::of_two();
    net.input(1, mapped(1, EXTERNAL));
    net.run(second(1));
    assert_eq!(net.count(1, |e| matches!(e, Event::Registered(_))), 1, "told without a word");
    let who = net.host(1).node.whoami();
    assert_eq!(who.mapped, [Mapped { bound: address(1), external: EXTERNAL.parse().unwrap() }]);
    // Nothing but the server's words arrives: what bob knows, he knows from the introduction.
    net.drops = |t| between_peers(t) || Family::of(&t.payload) == Family::Relay;
    net.send(2, 1, "alice", "hello");
    net.run(second(1));
    let tried = tried(&mut net, 2, "alice");
    assert!(tried.contains("100.64.0.9:5000 Mapped"), "{tried}");
}

#[test]
fn peers_are_told_when_a_mapping_comes_and_goes() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    net.send(2, 1, "alice", "hello");
    net.run(second(2));
    net.input(1, mapped(1, EXTERNAL));
    net.run(second(2));
    let here = tried(&mut net, 2, "alice");
    assert!(here.contains("100.64.0.9:5000 Mapped"), "{here}");
    net.input(1, Input::Mapped(Vec::new()));
    net.run(second(2));
    let gone = tried(&mut net, 2, "alice");
    assert!(!gone.contains("100.64.0.9"), "{gone}");
}

#[test]
fn mapped_addresses_are_few_and_belong_to_sockets() {
    let mut net = Net::of_two();
    let external = |n: usize| SocketAddr::from(([203, 0, 113, n as u8], 9));
    let forwarded = |bound, n| Mapped { bound, external: external(n) };
    let many = (0..20).map(|n| forwarded(address(1), n)).collect();
    net.input(1, Input::Mapped(many));
    assert_eq!(net.host(1).node.whoami().mapped.len(), MAPPED_MAX);
    let told = net.host(1).node.core.local_candidates(None);
    let kinds: Vec<_> = told.iter().map(|(_, candidate)| candidate.kind).collect();
    use crate::wire::frame::CandidateKind::{Host, Mapped as Forwarded, Observed};
    assert_eq!(kinds, [Observed, Forwarded, Forwarded, Forwarded, Forwarded, Host]);
    net.input(1, Input::Mapped(vec![forwarded(address(7), 1)]));
    assert_eq!(net.host(1).node.whoami().mapped, []);
}

#[test]
fn what_was_mapped_while_registering_is_told_after() {
    let mut net = Net::new();
    net.add(1, config(1, "alice"));
    net.add(2, config(2, "bob"));
    net.start(2);
    net.start(1);
    net.run(ONE_WAY / 2);
    net.input(1, mapped(1, EXTERNAL));
    net.run(second(1));
    net.drops = |t| between_peers(t) || Family::of(&t.payload) == Family::Relay;
    net.send(2, 1, "alice", "hello");
    net.run(second(1));
    let tried = tried(&mut net, 2, "alice");
    assert!(tried.contains("100.64.0.9:5000 Mapped"), "{tried}");
}

#[test]
fn a_changed_network_is_looked_at_in_the_same_moment() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "hello");
    net.run(second(1));
    net.seen.clear();
    net.run(Duration::from_millis(200));
    assert_eq!(net.seen, Vec::<String>::new(), "nothing is due");
    net.input(1, Input::NetworkChanged);
    let server = SERVER.parse().unwrap();
    assert_eq!(sent_to(&net, server).len(), 1, "a keepalive: {:#?}", net.seen);
    let to_bob = sent_to(&net, address(2));
    assert!(to_bob.iter().any(|sent| sent.starts_with("Stun")), "{:#?}", net.seen);
}

#[test]
fn a_changed_network_wakes_an_attempt() {
    let mut net = Net::new();
    net.drops = |_| true;
    net.add(1, config(1, "alice"));
    net.start(1);
    net.run(second(60));
    net.drops = |_| false;
    net.seen.clear();
    net.input(1, Input::NetworkChanged);
    net.run(Duration::from_millis(1));
    assert_eq!(sent_to(&net, SERVER.parse().unwrap()).len(), 1, "{:#?}", net.seen);
    net.run(second(1));
    assert!(net.host(1).node.whoami().registered);
}

#[test]
fn a_server_is_looked_for_over_the_family_that_is_left() {
    let mut net = Net::new();
    net.servers = vec![SERVER_V6.parse().unwrap(), SERVER.parse().unwrap()];
    net.drops = |t| !t.route.local.is_ipv6();
    net.add(1, config(1, "alice"));
    let sockets = |six: bool| {
        let (bound, bound_six) = (address(1), address_v6(1));
        let addresses = if six { vec![bound_six.ip()] } else { Vec::new() };
        vec![
            LocalSocket { bound, addresses: vec![bound.ip()] },
            LocalSocket { bound: bound_six, addresses },
        ]
    };
    net.input(1, Input::Sockets(sockets(true)));
    net.run(second(1));
    assert!(net.host(1).node.whoami().registered);
    net.drops = |t| t.route.local.is_ipv6();
    net.seen.clear();
    net.input(1, Input::Sockets(sockets(false)));
    net.run(Duration::from_millis(1));
    let inits = sent_to(&net, SERVER.parse().unwrap());
    assert!(inits.iter().any(|sent| sent.starts_with("HandshakeInit")), "{:#?}", net.seen);
    net.run(second(1));
    assert_eq!(net.host(1).node.whoami().observed, Some(address(1)));
}

/// Its server has one port: nothing tells of the NAT of the new network.
#[test]
fn what_was_known_of_the_nat_stays_in_the_old_network() {
    let mut net = Net::of_two();
    let known = Field::Known { value: Dependence::Endpoint, samples: 1 };
    net.host(1).node.core.nat = Profile { mapping: known, ..Profile::default() };
    net.run(second(30));
    assert_eq!(net.host(1).node.nat().mapping, known);
    net.input(1, Input::NetworkChanged);
    assert_eq!(net.host(1).node.nat(), Profile::default());
}
