//! Peers and servers that go, and those that come back.

use super::*;

#[test]
fn leaving_is_seen_at_once_and_silence_after_the_intervals() {
    let mut net = Net::of_two();
    net.command(2, Command::Close);
    net.run(second(1));
    let is_bye = |e: &Event| matches!(e, Event::Left { reason: LeaveReason::Bye, .. });
    assert_eq!(net.count(1, is_bye), 1, "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Closed)), 1);
    net.add(3, config(3, "carol"));
    net.start(3);
    net.run(second(1));
    net.nodes.remove(&address(3));
    net.run(second(60));
    let is_expired = |e: &Event| matches!(e, Event::Left { reason: LeaveReason::Expired, .. });
    assert_eq!(net.count(1, is_expired), 1);
}

/// A command that registers, asks and ends is over before anybody is told that it began.
#[test]
fn who_was_never_seen_to_come_is_not_seen_to_go() {
    let mut net = Net::of_two();
    let (joined, left) = (
        |e: &Event| matches!(e, Event::Joined(member) if member.name.as_str() == "carol"),
        |e: &Event| matches!(e, Event::Left { name, .. } if name.as_str() == "carol"),
    );
    net.add(3, config(3, "carol"));
    net.start(3);
    while !net.host(3).node.whoami().registered {
        net.run(ONE_WAY);
    }
    net.command(3, Command::Close);
    net.run(second(1));
    assert_eq!((net.count(1, joined), net.count(1, left)), (0, 0));
    net.add(3, config(3, "carol"));
    net.start(3);
    net.run(second(1));
    net.command(3, Command::Close);
    net.run(second(1));
    assert_eq!((net.count(1, joined), net.count(1, left)), (1, 1));
}

#[test]
fn a_good_bye_waits_for_lost_receipts() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.send(1, 2, "bob", "two");
    net.drops = |transmit| transmit.route.local == address(2);
    net.run(second(1) / 10);
    assert_eq!(net.texts(2), ["one", "two"], "{:#?}", net.seen);
    net.command(2, Command::Close);
    net.run(second(1) / 10);
    net.drops = |_| false;
    net.run(second(2));
    assert!(net.is_delivered(1, 2), "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Closed)), 1);
}

#[test]
fn what_was_asked_for_before_leaves_before_the_good_bye() {
    let mut net = Net::of_two();
    net.send(1, 0, "bob", "hello");
    net.run(second(2));
    let now = net.now;
    let node = &mut net.host(1).node;
    for handle in 1..=3 {
        let to = Recipient::Name("bob".parse().unwrap());
        let payload = vec![b'x'; 1000].into();
        let send = Command::Send { handle: Handle(handle), to, payload };
        node.handle_input(Input::Command(send), now);
    }
    node.send_datagram(&"bob".parse().unwrap(), Bytes::from_static(b"aside"), now).unwrap();
    node.handle_input(Input::Command(Command::Close), now);
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 4, "{:#?}", net.seen);
    assert_eq!(net.count(2, |e| matches!(e, Event::Datagram { .. })), 1);
}

#[test]
fn a_restarted_server_gets_its_peers_back_and_direct_talk_goes_on() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.restart_hub();
    net.send(1, 2, "bob", "two");
    net.run(Duration::from_millis(200));
    assert_eq!(net.texts(2).len(), 2, "direct needs no server");
    net.run(second(40));
    assert_eq!(net.count(1, |e| matches!(e, Event::Registered(_))), 2, "{:#?}", net.seen);
    assert_eq!(net.hub.status(net.now).peers, 2);
}

#[test]
fn a_peer_that_restarts_gets_what_waits_and_nothing_twice() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "before");
    net.run(second(1));
    net.add(2, config(2, "bob"));
    net.send(1, 2, "bob", "while away");
    net.run(second(1));
    net.start(2);
    net.run(second(30));
    assert_eq!(net.texts(2), ["while away"], "{:#?}", net.seen);
    net.send(2, 1, "alice", "back");
    net.run(second(2));
    assert_eq!(net.texts(1), ["back"]);
}

#[test]
fn a_forgotten_peer_gets_what_is_sent_later() {
    let mut net = Net::new();
    net.add(1, config(1, "alice"));
    net.start(1);
    net.run(second(100));
    net.add(2, config(2, "bob"));
    net.start(2);
    net.run(second(10));
    net.send(1, 1, "bob", "first");
    net.run(second(5));
    assert_eq!(net.texts(2), ["first"]);
    net.run(second(1035));
    net.send(1, 2, "bob", "second");
    net.run(second(20));
    assert_eq!(net.texts(2), ["first", "second"]);
}

#[test]
fn many_stales_call_forth_one_ping() {
    let mut net = Net::of_two();
    let stale = {
        let up = net.host(1).node.server.up().unwrap();
        crate::wire::encode_stale(up.token)
    };
    let before = net.host(1).node.registrations;
    for _ in 0..5 {
        let route = Route::udp(address(1), SERVER.parse().unwrap());
        let mut s = stale.clone();
        net.input(1, Input::Datagram { route, ecn: Ecn::NotEct, data: &mut s });
    }
    let now = net.now;
    net.host(1).node.handle_timeout(now);
    net.run(second(5));
    assert_eq!(before, net.host(1).node.registrations);
}
