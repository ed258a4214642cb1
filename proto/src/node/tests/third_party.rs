//! A peer that names addresses of others as its own: how much it makes them hear.

use super::*;
use crate::transport::ControlFrame;
use crate::wire::frame::{Candidate, CandidateKind, Candidates};

/// Hosts that have nothing to do with it; a peer may name 8 at a time.
const STRANGERS: &str = "203.0.113.";

/// The sockets of a host that claims so many addresses, from the `first` on.
fn claiming(n: u8, first: u8, count: u8) -> Vec<LocalSocket> {
    let strangers = (first..first + count).map(|host| format!("{STRANGERS}{host}"));
    let addresses = strangers.map(|text| text.parse().unwrap()).collect();
    vec![LocalSocket { bound: address(n), addresses }]
}

/// Alice, who is honest, and a mallory who claims strangers' addresses.
fn of_two() -> Net {
    let mut net = Net::new();
    let limits = Limits { connects_per_minute: 600, ..Limits::open() };
    net.hub = Net::make_hub(1, limits, net.now);
    net.routes = net.hub.routes();
    net.add(1, config(1, "alice"));
    net.add(2, config(2, "mallory"));
    net.start(1);
    net.input(2, Input::Sockets(claiming(2, 1, 20)));
    net.run(second(1));
    net
}

/// Datagrams that alice sent to strangers.
fn heard_by_strangers(net: &Net) -> usize {
    let from = format!("{} -> {STRANGERS}", address(1));
    net.seen.iter().filter(|line| line.starts_with(&from)).count()
}

#[test]
fn an_introduction_makes_strangers_hear_forty_checks_at_most() {
    let mut net = of_two();
    net.send(2, 1, "alice", "hello");
    net.run(second(100));
    assert!(net.is_delivered(2, 1), "{:#?}", net.seen);
    let heard = heard_by_strangers(&net);
    assert!((1..=40).contains(&heard), "{heard}");
}

#[test]
fn whatever_a_peer_claims_there_is_a_limit_for_a_minute() {
    let mut net = of_two();
    net.send(2, 1, "alice", "hello");
    net.run(second(2));
    let begun = heard_by_strangers(&net);
    let (now, alice) = (net.now, key(1).public());
    let mut asked = 0;
    while net.now < now + second(60) {
        // Other strangers ten times a second, told end to end, and new introductions.
        asked += 1;
        let addresses = claiming(2, (asked % 24) as u8 * 10, 8);
        net.input(2, Input::Sockets(addresses));
        let at = net.now;
        net.host(2).node.reintroduce(alice, at);
        net.host(2).node.flush(at);
        net.run(Duration::from_millis(100));
    }
    let heard = heard_by_strangers(&net) - begun;
    assert!((500..=512 + 240).contains(&heard), "{heard} of {asked} rounds");
    let introduced = net.seen.iter().filter(|line| line.contains("Stun")).count();
    assert!(introduced > 1000, "the addresses that the server vouches for go on: {introduced}");
}

#[test]
fn calling_an_address_observed_makes_it_no_less_claimed() {
    let mut net = of_two();
    net.send(2, 1, "alice", "hello");
    net.run(second(2));
    let begun = heard_by_strangers(&net);
    let (start, alice) = (net.now, key(1).public());
    let mut generation = 1000;
    while net.now < start + second(60) {
        generation += 1;
        let stranger = |host: u64| SocketAddr::from(([203, 0, 113, (host % 240) as u8 + 1], PORT));
        let observed = |address| Candidate { kind: CandidateKind::Observed, address };
        let list = (generation * 8..).take(8).map(stranger).map(observed).collect();
        let now = net.now;
        let node = &mut net.host(2).node;
        let told = ControlFrame::Candidates(Candidates { generation, list });
        node.links.get_mut(&alice).unwrap().say(told, now);
        node.reintroduce(alice, now);
        node.touched.insert(alice);
        node.handle_timeout(now);
        net.drain();
        net.run(second(1));
    }
    let heard = heard_by_strangers(&net) - begun;
    assert!((200..=512 + 240).contains(&heard), "{heard}");
}
