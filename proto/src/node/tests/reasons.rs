//! What a peer says of the paths it uses, and of its network.

use super::*;

fn why(net: &mut Net) -> Why {
    net.host(1).node.why(&"bob".parse().unwrap()).unwrap()
}

fn unix_now(net: &Net) -> u64 {
    1_700_000_000 + (net.now - net.began).as_secs()
}

#[test]
fn why_says_since_when_and_which_pairs_answered() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(30));
    let direct = why(&mut net);
    assert_eq!(direct.reason, Reason::Direct { address: address(2) });
    assert!(unix_now(&net) - direct.since >= 29, "{direct:?}");
    let chosen = direct.pairs.iter().find(|pair| pair.route.remote == address(2)).unwrap();
    assert!(chosen.answered && chosen.rtt.is_some() && chosen.checks_sent > 0, "{chosen:?}");
    net.drops = between_peers;
    net.send(1, 2, "bob", "two");
    net.run(second(30));
    let lost = why(&mut net);
    assert_eq!(lost.reason, Reason::Lost);
    assert!(lost.since > direct.since && unix_now(&net) - lost.since >= 20, "{lost:?}");
    assert!(lost.pairs.iter().all(|pair| pair.rtt.is_none()), "{lost:?}");
}

#[test]
fn why_says_that_nothing_answered() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    net.send(1, 1, "bob", "one");
    net.run(Duration::from_millis(500));
    assert!(matches!(why(&mut net).reason, Reason::Checking { .. }), "{:?}", why(&mut net));
    net.run(second(60));
    let silent = why(&mut net);
    let pairs = silent.pairs.len();
    let (own, their) = (Router::Unknown, Router::Unknown);
    assert_eq!(silent.reason, Reason::Silent { pairs, own, their });
    assert!(pairs > 0 && silent.pairs.iter().all(|pair| pair.checks_sent > 0));
}

#[test]
fn netcheck_tells_both_ways_to_the_server_and_their_round_trips() {
    let mut net = Net::new();
    net.add(1, config(1, "alice"));
    assert_eq!(net.host(1).node.netcheck().outlook(), Outlook::Offline);
    net.servers = vec![SERVER_V6.parse().unwrap(), SERVER.parse().unwrap()];
    let sockets = [address(1), address_v6(1)]
        .map(|bound| LocalSocket { bound, addresses: vec![bound.ip()] })
        .to_vec();
    net.input(1, Input::Sockets(sockets));
    net.run(second(2));
    let check = net.host(1).node.netcheck();
    let ways: Vec<_> =
        check.ways.iter().map(|way| (way.server.to_string(), way.observed)).collect();
    let expected = [(SERVER_V6.to_owned(), address_v6(1)), (SERVER.to_owned(), address(1))];
    assert_eq!(ways, expected);
    assert!(
        check.ways.iter().all(|way| way.rtt.is_some_and(|rtt| rtt >= ONE_WAY * 2)),
        "{check:?}"
    );
    assert!(check.registered);
    net.drops = |_| true;
    net.run(second(60));
    assert!(!net.host(1).node.netcheck().registered, "the server is silent");
}
