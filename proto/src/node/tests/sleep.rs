//! Machines that slept for an hour go on talking.

use super::*;

const HOUR: u64 = 3600;

/// Alice and bob talk directly, and then not for a while.
fn friends() -> Net {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "good night");
    net.send(2, 1, "alice", "sleep well");
    net.run(second(5));
    assert_eq!((net.texts(1).len(), net.texts(2).len()), (1, 1), "{:#?}", net.seen);
    for (n, name) in [(1, "bob"), (2, "alice")] {
        let path = net.host(n).node.why(&name.parse().unwrap()).map(|why| why.path);
        assert!(matches!(path, Some(PathView::Direct { .. })), "{path:?}");
    }
    net.run(second(400));
    net
}

/// These hosts sleep, and the world goes on; their clocks say so when they wake.
fn sleep(net: &mut Net, sleepers: &[u8]) {
    let mut taken = |n: &u8| (*n, net.nodes.remove(&address(*n)).unwrap());
    let hosts: Vec<(u8, Host)> = sleepers.iter().map(&mut taken).collect();
    net.run(second(HOUR));
    for (n, host) in hosts {
        net.nodes.insert(address(n), host);
        let (unix, now) = (second(1_700_000_000) + (net.now - net.began), net.now);
        // Every timer of the night is due, before anybody noticed that there was one.
        net.host(n).node.handle_timeout(now);
        net.host(n).node.set_clock(unix, now);
        net.input(n, Input::NetworkChanged);
    }
    net.run(second(1));
}

fn awake(net: &mut Net, sender: u8) {
    let (to, other) = if sender == 1 { ("bob", 2) } else { ("alice", 1) };
    net.seen.clear();
    net.send(sender, 7, to, "awake?");
    net.run(ONE_WAY + Duration::from_millis(1));
    let texts = net.texts(other);
    assert_eq!(texts.last().map(|text| &text[..]), Some("awake?"), "{:#?}", net.seen);
}

/// The server has no part in it: no introduction, and no handshake that goes through it. One that
/// went directly would take more than one way.
#[test]
fn a_session_goes_on_after_both_slept_for_an_hour() {
    for sender in [1, 2] {
        let mut net = friends();
        net.drops = |transmit| is_server(transmit.route.remote);
        sleep(&mut net, &[1, 2]);
        awake(&mut net, sender);
        net.run(ONE_WAY * 4);
        assert!(net.is_delivered(sender, 7), "{:#?}", net.seen);
        let between = |line: &&String| !line.contains(SERVER) && line.contains("Handshake");
        assert_eq!(net.seen.iter().find(between), None);
    }
}

/// Who was awake gave the path up meanwhile, and calls: what the sleeper says arrives at once under
/// the old keys, and the receipt when the two met again.
#[test]
fn what_one_says_after_an_hour_of_sleep_arrives_at_once() {
    for sleeper in [1, 2] {
        let mut net = friends();
        sleep(&mut net, &[sleeper]);
        awake(&mut net, sleeper);
        net.run(second(3));
        assert!(net.is_delivered(sleeper, 7), "{:#?}", net.seen);
    }
}
