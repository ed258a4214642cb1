//! Addresses that change under a session.

use super::meeting::{frame, pair};
use super::*;

fn elsewhere() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 77], 4321))
}

#[test]
fn a_new_address_that_answers_becomes_the_address() {
    let mut world = World::new();
    let (alice, bob, to_bob, to_alice) = pair(&mut world);
    world.log();
    world.clients[alice].address = elsewhere();
    world.control(alice, ControlFrame::Ping);
    world.exchange();
    assert_eq!(world.log(), [format!("moved alice {}", elsewhere())]);
    let observed = ControlFrame::Observed(elsewhere());
    assert!(world.clients[alice].frames.contains(&observed), "{:?}", world.clients[alice].frames);
    assert_eq!(world.hub.members()[0].address, elsewhere());
    let sent = frame(&world, bob, to_alice, b"to the new address");
    world.arrive(world.clients[bob].address, sent);
    world.exchange();
    assert_eq!(world.clients[alice].relayed.len(), 1);
    let _ = to_bob;
}

#[test]
fn what_a_stranger_repeats_from_elsewhere_moves_nothing() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    world.log();
    world.control(alice, ControlFrame::Ping);
    // The stranger is faster with its copy than the true way.
    let packet = world.next_datagram(alice).unwrap();
    world.arrive(elsewhere(), packet.clone());
    world.arrive(world.clients[alice].address, packet);
    world.exchange();
    world.run(Duration::from_secs(1));
    assert!(world.log().is_empty());
    let sent: usize = world.mail.get(&elsewhere()).into_iter().flatten().map(Vec::len).sum();
    assert!(sent > 0, "it is asked for an answer");
    world.control(alice, ControlFrame::Ping);
    world.run(Duration::from_secs(1));
    assert_eq!(world.hub.members()[0].address, world.clients[alice].address);
}

#[test]
fn a_stranger_that_also_carries_the_answer_does_not_keep_the_session() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    world.log();
    let home = world.clients[alice].address;
    world.control(alice, ControlFrame::Ping);
    let packet = world.next_datagram(alice).unwrap();
    world.arrive(elsewhere(), packet);
    // Everything the server sends to the stranger reaches alice, and what she answers goes both
    // ways, by the stranger first.
    for datagram in world.mail.remove(&elsewhere()).unwrap() {
        let now = world.now;
        world.clients[alice].take(datagram, now);
    }
    while let Some(answer) = world.next_datagram(alice) {
        world.arrive(elsewhere(), answer.clone());
        world.arrive(home, answer);
    }
    assert_eq!(world.log(), [format!("moved alice {}", elsewhere())]);
    world.exchange();
    assert_eq!(world.log(), [format!("moved alice {home}")], "the old address answers too");
}

#[test]
fn relay_frames_count_from_the_address_before_for_a_while() {
    let mut world = World::new();
    let (alice, _, to_bob, _) = pair(&mut world);
    let home = world.clients[alice].address;
    world.clients[alice].address = elsewhere();
    let early = frame(&world, alice, to_bob, b"x");
    assert!(matches!(world.arrive(elsewhere(), early.clone()), Verdict::Reply(_)), "STALE");
    world.control(alice, ControlFrame::Ping);
    world.exchange();
    assert!(matches!(world.arrive(elsewhere(), early.clone()), Verdict::Forward(_)));
    assert!(matches!(world.arrive(home, early.clone()), Verdict::Forward(_)));
    world.now += Duration::from_secs(11);
    assert!(matches!(world.arrive(home, early), Verdict::Reply(_)));
}

#[test]
fn an_address_on_probation_gets_three_times_what_it_sent() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    for n in 2..=200 {
        world.join(n, &format!("n{n:03}{}", "x".repeat(50)));
    }
    world.post(alice, Operation::List { cursor: None });
    let packet = world.next_datagram(alice).unwrap();
    let asked = packet.len();
    world.arrive(elsewhere(), packet);
    world.clients[alice].silent = true;
    let home = world.clients[alice].address;
    world.run(Duration::from_millis(500));
    let got = |address| world.mail.get(&address).into_iter().flatten().map(Vec::len).sum::<usize>();
    assert!(got(elsewhere()) > 0 && got(elsewhere()) <= 3 * asked, "{asked}: {}", got(elsewhere()));
    assert!(got(home) > 3 * asked, "the rest goes where it always went");
}

#[test]
fn another_address_of_the_server_needs_no_proof() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    world.log();
    world.control(alice, ControlFrame::Ping);
    let mut packet = world.next_datagram(alice).unwrap();
    let other = Route::udp(([192, 0, 2, 2], 3478).into(), world.clients[alice].address);
    world.hub.handle_input(Input::Datagram { route: other, data: &mut packet }, world.now);
    let mut answered = 0;
    while let Some(output) = world.hub.poll_output() {
        if let Output::Transmit(transmit) = output {
            assert_eq!(transmit.route, other, "answers leave by the address that was asked");
            answered += 1;
        }
    }
    assert_eq!(answered, 1, "a keepalive is two datagrams");
}

#[test]
fn only_the_newest_packet_can_start_a_move() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    let home = world.clients[alice].address;
    world.control(alice, ControlFrame::Ping);
    let late = world.next_datagram(alice).unwrap();
    world.control(alice, ControlFrame::Ping);
    let newest = world.next_datagram(alice).unwrap();
    world.arrive(home, newest);
    world.arrive(elsewhere(), late);
    assert!(!world.mail.contains_key(&elsewhere()));
    assert_eq!(world.mail[&home].len(), 2, "both are answered where alice is");
}
