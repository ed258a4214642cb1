//! Machines that slept for an hour go on talking.

use super::*;
use crate::id::Address;

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

/// These hosts sleep for an hour, and the world goes on.
fn sleep(net: &mut Net, sleepers: &[u8]) {
    sleep_while(net, sleepers, |net| net.run(second(HOUR)));
    net.run(second(1));
}

/// These hosts sleep; their clocks say for how long when they wake.
fn sleep_while(net: &mut Net, sleepers: &[u8], meanwhile: impl FnOnce(&mut Net)) {
    let mut taken = |n: &u8| (*n, net.nodes.remove(&address(*n)).unwrap());
    let hosts: Vec<(u8, Host)> = sleepers.iter().map(&mut taken).collect();
    meanwhile(net);
    for (n, host) in hosts {
        net.nodes.insert(address(n), host);
        let (unix, now) = (second(1_700_000_000) + (net.now - net.began), net.now);
        // Every timer of the night is due, before anybody noticed that there was one.
        net.host(n).node.handle_timeout(now);
        net.host(n).node.set_clock(unix, now);
        net.input(n, Input::NetworkChanged);
    }
}

fn awake(net: &mut Net, sender: u8) {
    let (to, other) = if sender == 1 { ("bob", 2) } else { ("alice", 1) };
    net.seen.clear();
    net.send(sender, 7, to, "awake?");
    net.run(ONE_WAY + Duration::from_millis(1));
    let texts = net.texts(other);
    assert_eq!(texts.last().map(|text| &text[..]), Some("awake?"), "{:#?}", net.seen);
}

/// The sessions that the two send in.
fn sessions(net: &mut Net) -> [Option<Address>; 2] {
    [1, 2].map(|n| net.host(n).node.links.values().next().unwrap().session_id())
}

/// The server has no part in it: no introduction, and no handshake that goes through it. One that
/// went directly would take more than one way.
#[test]
fn a_session_goes_on_after_both_slept_for_an_hour() {
    for sender in [1, 2] {
        let mut net = friends();
        let before = sessions(&mut net);
        net.drops = |transmit| is_server(transmit.route.remote);
        sleep(&mut net, &[1, 2]);
        awake(&mut net, sender);
        net.run(ONE_WAY * 4);
        assert!(net.is_delivered(sender, 7), "{:#?}", net.seen);
        assert_eq!(sessions(&mut net), before);
    }
}

/// Who was awake gave the path up meanwhile, and calls: what the sleeper says arrives at once under
/// the old keys, and the receipt when the two met again.
#[test]
fn what_one_says_after_an_hour_of_sleep_arrives_at_once() {
    for sleeper in [1, 2] {
        let mut net = friends();
        let before = sessions(&mut net);
        sleep(&mut net, &[sleeper]);
        awake(&mut net, sleeper);
        net.run(second(3));
        assert!(net.is_delivered(sleeper, 7), "{:#?}", net.seen);
        assert_eq!(sessions(&mut net), before);
    }
}

/// Who stayed awake calls in vain, and begins to shake hands. The sleeper, which holds the keys as
/// before, gets what waits as soon as the two met again, and the handshake ends.
#[test]
fn what_was_said_to_a_sleeper_arrives_in_the_same_session() {
    for (sleeper, name) in [(1, "alice"), (2, "bob")] {
        let mut net = friends();
        let (waker, before) = (3 - sleeper, sessions(&mut net));
        sleep_while(&mut net, &[sleeper], |net| {
            net.run(second(300));
            net.send(waker, 8, name, "are you there?");
            net.run(second(300));
            net.seen.clear();
        });
        net.run(second(3));
        assert!(net.is_delivered(waker, 8), "{:#?}", net.seen);
        assert_eq!(net.texts(sleeper).last().map(|text| &text[..]), Some("are you there?"));
        assert_eq!(sessions(&mut net), before, "{sleeper} {:#?}", net.seen);
        net.seen.clear();
        net.send(sleeper, 9, if sleeper == 1 { "bob" } else { "alice" }, "now I am");
        net.run(second(30));
        assert!(net.is_delivered(sleeper, 9));
        assert_eq!(sessions(&mut net), before, "{sleeper} {:#?}", net.seen);
    }
}
