//! Which path carries: the relay, direct ones, and what becomes of those that were left.

use super::*;

#[test]
fn without_a_direct_path_the_relay_carries() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    for n in 0..20 {
        net.send(1, n, "bob", &n.to_string());
    }
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 20, "{:#?}", net.seen);
    let why = net.host(1).node.why(&"bob".parse().unwrap()).unwrap();
    assert!(matches!(why.path, PathView::Relay { .. }), "{why:?}");
    net.run(second(100));
    net.send(1, 99, "bob", "later");
    net.run(second(2));
    assert_eq!(net.texts(2).len(), 21);
    net.run(second(600));
    net.send(1, 100, "bob", "much later");
    net.run(second(5));
    assert_eq!(net.texts(2).len(), 22, "a relay channel that was freed comes back");
}

#[test]
fn a_spare_socket_goes_where_the_first_one_failed() {
    let mut net = Net::of_two();
    net.drops = between_first_sockets;
    net.send(1, 1, "bob", "relayed");
    net.run(second(5));
    assert!(net.is_delivered(1, 1));
    assert_eq!(net.host(1).spares + net.host(2).spares, 1, "{:#?}", net.seen);
    for (n, to) in [(1, "bob"), (2, "alice")] {
        let why = net.host(n).node.why(&to.parse().unwrap()).unwrap();
        assert!(matches!(why.path, PathView::Direct { .. }), "{why:?}");
    }
    net.send(2, 2, "alice", "direct");
    net.run(second(1));
    assert_eq!(net.texts(1), ["direct"]);
}

#[test]
fn spares_come_to_an_end_where_nothing_helps() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    net.send(1, 1, "bob", "relayed");
    net.run(second(60));
    assert_eq!(usize::from(net.host(1).spares + net.host(2).spares), SPARES_MAX);
    let asked = |seen: &str| seen.contains(&format!("-> {SERVER} Stun"));
    let requests = |net: &Net| net.seen.iter().filter(|line| asked(line)).count();
    let before = requests(&net);
    assert_eq!(before, SPARES_MAX, "one Binding request for each");
    net.run(second(200));
    assert_eq!(requests(&net), before);
}

#[test]
fn a_cut_direct_path_falls_back_to_the_relay_and_returns() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "one");
    net.run(second(1));
    net.drops = between_peers;
    net.send(1, 2, "bob", "two");
    net.run(second(3));
    assert_eq!(net.texts(2), ["one", "two"], "{:#?}", net.seen);
    net.run(second(10));
    let path = |net: &mut Net| net.host(1).node.why(&"bob".parse().unwrap()).unwrap().path;
    assert!(matches!(path(&mut net), PathView::Relay { .. }));
    net.drops = |_| false;
    net.run(second(70));
    assert!(matches!(path(&mut net), PathView::Direct { .. }));
}

#[test]
fn a_late_packet_of_an_old_path_does_not_bring_it_back() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "a");
    net.send(2, 1, "alice", "a");
    net.run(second(2));
    let one_controls = key(1).public() < key(2).public();
    let (c, d, dname) = if one_controls { (1, 2, "bob") } else { (2, 1, "alice") };
    net.send(c, 5, dname, "held");
    let from = address(c);
    let at = net.flying.iter().position(|(_, t)| {
        t.route.local == from && between_peers(t) && Family::of(&t.payload) == Family::Data
    });
    let held = net.flying.remove(at.unwrap()).1;
    net.run(second(1));
    net.drops = between_peers;
    net.send(c, 6, dname, "cut");
    net.run(second(10));
    net.drops = |_| false;
    net.run(second(10));
    net.send(c, 7, dname, "again");
    net.run(second(2));
    let preferred = |net: &mut Net| {
        let line = net.host(d).node.diagnose().swap_remove(0);
        line.split("prefers ").nth(1).map(|rest| rest[..9].to_owned())
    };
    let before = preferred(&mut net);
    assert!(before.as_ref().is_some_and(|path| ["PathId(3)", "PathId(4)"].contains(&&**path)));
    net.flying.push((net.now + ONE_WAY, held));
    net.run(Duration::from_millis(100));
    assert_eq!(preferred(&mut net), before);
}

#[test]
fn path_ids_that_run_out_make_a_new_session() {
    let mut net = Net::of_two();
    for n in 1..=140 {
        net.drops = between_peers;
        net.send(1, 2 * n, "bob", &format!("cut {n}"));
        net.send(2, 2 * n, "alice", &format!("cut {n}"));
        net.run(second(8));
        net.drops = |_| false;
        net.send(1, 2 * n + 1, "bob", &format!("whole {n}"));
        net.run(second(5));
        let line = net.host(1).node.diagnose().swap_remove(0);
        assert!(!line.contains("prefers PathId(0)"), "after {n} cuts: {line}");
    }
}

#[test]
fn a_direct_path_is_looked_for_as_long_as_the_pair_talks() {
    let mut net = Net::of_two();
    net.drops = between_peers;
    let checks = |net: &mut Net, time| {
        net.seen.clear();
        net.run(time);
        net.seen.iter().filter(|seen| seen.contains(" Stun ")).count()
    };
    for n in 1..=60 {
        net.send(1, n, "bob", &format!("message {n}"));
        net.run(second(60));
    }
    net.send(1, 61, "bob", "the last");
    let talking = checks(&mut net, second(290));
    assert!((2..=40).contains(&talking), "{talking} checks in five minutes");
    net.run(second(30));
    assert_eq!(checks(&mut net, second(400)), 0, "nobody talks");
    net.drops = |_| false;
    net.send(1, 62, "bob", "again");
    net.run(second(3));
    let line = net.host(1).node.diagnose().swap_remove(0);
    assert!(!line.contains("prefers PathId(0)"), "{line}");
}

/// Both sides know at once how long a round trip takes, and how much may be on its way.
#[test]
fn a_route_that_is_found_again_goes_on_with_what_was_measured() {
    let mut net = Net::of_two();
    for n in 1..4 {
        net.send(1, n, "bob", &"x".repeat(1 << 20));
        net.send(2, n, "alice", &"x".repeat(1 << 20));
        net.run(second(3));
    }
    net.drops = between_peers;
    net.send(1, 8, "bob", "into the gap");
    net.run(second(6));
    for (n, other) in [(1, "bob"), (2, "alice")] {
        let path = net.host(n).node.why(&other.parse().unwrap()).unwrap().path;
        assert!(matches!(path, PathView::Relay { .. }), "{path:?}");
        net.host(n).events.clear();
    }
    net.drops = |_| false;
    net.run(second(5));
    for n in [1, 2] {
        let resumed = |e: &Event| {
            matches!(e, Event::Path { path: PathView::Direct { rtt: Some(_), .. }, .. })
        };
        assert_eq!(net.count(n, resumed), 1, "{n} {:#?}", net.host(n).events);
    }
}

/// Expanded keys, and room for messages on their way.
#[test]
fn a_quiet_link_gives_back_what_it_can_make_again() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "hello");
    net.send(2, 1, "alice", "hello");
    net.run(second(290));
    for (n, other) in [(1, 2), (2, 1)] {
        let later = net.now + second(30);
        let Node { links, core, .. } = &mut net.host(n).node;
        let link = links.get_mut(&key(other).public()).unwrap();
        let took = allocation_counter::measure(|| link.handle_timeout(core, later));
        assert!(took.bytes_current <= -1500, "{took:?}");
    }
    net.send(1, 2, "bob", "again");
    net.run(second(1));
    assert!(net.is_delivered(1, 2));
}
