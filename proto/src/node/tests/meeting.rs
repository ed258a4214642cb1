//! Peers that register, find each other and begin to talk.

use super::*;

#[test]
fn two_peers_register_meet_and_talk_directly() {
    let mut net = Net::of_two();
    assert_eq!(net.count(1, |e| matches!(e, Event::Registered(_))), 1, "{:#?}", net.seen);
    net.send(1, 7, "bob", "hello");
    net.run(second(1));
    assert_eq!(net.texts(2), ["hello"], "{:#?}", net.seen);
    assert_eq!(net.host(2).messages[0].0, "alice");
    assert!(net.is_delivered(1, 7));
    let path = net.host(1).node.why(&"bob".parse().unwrap()).unwrap().path;
    let is_direct = matches!(path, PathView::Direct { address, .. } if address == self::address(2));
    assert!(is_direct, "{path:?} {:#?}", net.seen);
    net.send(2, 8, "alice", "and back");
    net.run(second(1));
    assert_eq!(net.texts(1), ["and back"]);
}

#[test]
fn a_peer_registered_over_ipv6_is_found_over_ipv4() {
    let mut net = Net::of_two();
    net.add(3, config(3, "carol"));
    net.servers = vec![SERVER_V6.parse().unwrap(), SERVER.parse().unwrap()];
    let sockets = [address(3), address_v6(3)]
        .map(|bound| LocalSocket { bound, addresses: Vec::new() })
        .to_vec();
    net.input(3, Input::Sockets(sockets));
    net.run(second(2));
    assert_eq!(net.host(3).node.whoami().observed, Some(address_v6(3)));
    net.send(1, 1, "carol", "hello");
    net.run(second(3));
    assert_eq!(net.texts(3), ["hello"]);
    let path = net.host(1).node.why(&"carol".parse().unwrap()).unwrap().path;
    let is_direct = matches!(path, PathView::Direct { address, .. } if address == self::address(3));
    assert!(is_direct, "{path:?} {:#?}", net.seen);
}

/// What a program that ends now leaves to the next one of its name.
fn left_behind(net: &mut Net, n: u8, name: &str) -> Config {
    let mut again = config(n, name);
    for effect in std::mem::take(&mut net.host(n).effects) {
        match effect {
            Effect::RememberServer { key, boot, network, lan_secret } => {
                (again.server_key, again.server_boot) = (Some(key), Some(boot));
                (again.network, again.lan_secret) = (network, lan_secret);
            }
            Effect::RememberPeer(known) => net.known.push(known),
            Effect::Resolve
            | Effect::OpenSockets { .. }
            | Effect::CloseSockets(_)
            | Effect::Announce { .. } => {}
        }
    }
    again.known = net.known.clone();
    net.command(n, Command::Close);
    net.run(second(1));
    again
}

/// Alice, who has talked to bob, begins anew with a message for him in hand.
fn begin_again(net: &mut Net, handle: u64, text: &str) {
    let again = left_behind(net, 1, "alice");
    assert_ne!(again.known[0].boot, Boot(0));
    net.add(1, again);
    net.host(2).messages.clear();
    net.seen.clear();
    net.send(1, handle, "bob", text);
    net.start(1);
}

#[test]
fn a_known_peer_gets_the_first_message_in_one_one_way_trip() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "first");
    net.run(second(1));
    begin_again(&mut net, 2, "second");
    net.run(ONE_WAY * 2 + Duration::from_millis(1));
    assert_eq!(net.texts(2), ["second"], "{:#?}", net.seen);
    net.run(second(1));
    assert!(net.is_delivered(1, 2));
    assert_eq!(net.texts(2).len(), 1);
}

#[test]
fn a_clock_that_jumped_back_costs_round_trips_only() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "first");
    net.run(second(1));
    begin_again(&mut net, 2, "second");
    net.run(second(1));
    net.clock_error = second(3600);
    begin_again(&mut net, 3, "third");
    net.run(ONE_WAY * 2 + Duration::from_millis(1));
    assert_eq!(net.texts(2), [""; 0], "early data of an old counter does not count");
    net.run(second(1));
    assert_eq!(net.texts(2), ["third"], "{:#?}", net.seen);
    assert!(net.is_delivered(1, 3));
}

#[test]
fn what_the_server_refused_for_its_rate_is_asked_again() {
    let mut net = Net::new();
    let limits = Limits { requests_per_second: 1, ..Limits::open() };
    net.hub = Net::make_hub(3, limits, net.now);
    net.routes = net.hub.routes();
    for n in 1..=3 {
        net.add(n, config(n, &format!("peer{n}")));
        net.start(n);
    }
    net.run(second(10));
    let payload = Bytes::from_static(b"all");
    net.command(1, Command::SendAll { handle: Handle(1), payload });
    net.run(second(5));
    assert_eq!(net.count(1, |e| matches!(e, Event::Delivered { .. })), 2, "{:#?}", net.seen);
}

#[test]
fn everybody_gets_a_message_to_everybody() {
    let mut net = Net::new();
    for n in 1..=5 {
        net.add(n, config(n, &format!("peer{n}")));
        net.start(n);
    }
    net.run(second(1));
    let payload = Bytes::from_static(b"all");
    net.command(1, Command::SendAll { handle: Handle(1), payload });
    net.run(second(2));
    for n in 2..=5 {
        assert_eq!(net.texts(n), ["all"], "{n}");
    }
    assert_eq!(net.count(1, |e| matches!(e, Event::Delivered { .. })), 4);
}

#[test]
fn both_send_first_at_the_same_moment() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "from alice");
    net.send(2, 1, "alice", "from bob");
    net.run(second(2));
    assert_eq!(net.texts(2), ["from alice"], "{:#?}", net.seen);
    assert_eq!(net.texts(1), ["from bob"]);
    net.send(1, 2, "bob", "again");
    net.run(second(1));
    assert_eq!(net.texts(2).len(), 2);
}

#[test]
fn an_unknown_recipient_and_oneself_are_refused() {
    let mut net = Net::of_two();
    net.send(1, 1, "nobody", "x");
    net.send(1, 2, "alice", "x");
    net.run(second(1));
    for (handle, code) in [(1, code::NOT_FOUND), (2, code::BAD_REQUEST)] {
        let is_refused = |e: &Event| {
            matches!(e, Event::Failed { handle: h, problem, .. }
                if h.0 == handle && problem.code == code)
        };
        assert_eq!(net.count(1, is_refused), 1, "{handle}");
    }
}

#[test]
fn an_absent_peer_is_not_asked_for_over_and_over() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(2));
    net.drops = |t| [t.route.local, t.route.remote].contains(&address(2));
    net.send(1, 2, "bob", "two");
    net.run(second(60));
    net.seen.clear();
    net.run(second(60));
    let opens = net
        .seen
        .iter()
        .filter(|seen| seen.starts_with("198.51.100.1:4000 -> 192.0.2.1") && seen.ends_with("266"));
    assert_eq!(opens.count(), 0, "{:#?}", net.seen);
}
