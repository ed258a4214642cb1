//! Word of messages that wait.

use super::*;

fn told(net: &mut Net) -> usize {
    net.count(2, |event| matches!(event, Event::Readable))
}

/// What bob gets next from alice.
fn next(net: &mut Net, handle: u64) -> Transmit {
    net.run(second(1));
    net.send(1, handle, "bob", "hello");
    let to_bob = |transmit: &Transmit| transmit.route.remote == address(2);
    net.flying.iter().map(|(_, transmit)| transmit.clone()).find(to_bob).unwrap()
}

#[test]
fn a_message_is_announced_unless_it_was_taken_with_its_datagram() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "hello");
    let transmit = next(&mut net, 2);
    let before = told(&mut net);
    net.deliver(transmit);
    assert_eq!(told(&mut net), before + 1);
    let mut transmit = next(&mut net, 3);
    let before = told(&mut net);
    let now = net.now;
    let route = Route::udp(transmit.route.remote, transmit.route.local);
    let node = &mut net.host(2).node;
    let data = &mut transmit.payload;
    node.handle_input(Input::Datagram { route, ecn: Ecn::NotEct, data }, now);
    assert!(node.poll_message(now).is_some());
    net.drain();
    assert_eq!(told(&mut net), before);
}
