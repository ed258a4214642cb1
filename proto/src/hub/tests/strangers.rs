//! What reaches the server from anybody.

use proptest::prelude::*;

use super::*;
use crate::session::is_reset;
use wire::kind;

fn stranger() -> SocketAddr {
    SocketAddr::from(([203, 0, 113, 200], 53))
}

#[test]
fn anybody_learns_its_address_by_stun() {
    let mut world = World::new();
    let request = wire::stun::binding_request([9; 12]);
    let Verdict::Reply(answer) = world.arrive(stranger(), request) else { panic!("no answer") };
    let read = wire::stun::read_binding_response(&answer);
    assert_eq!(read, Some(([9; 12], stranger())));
    assert_eq!(world.routes.counters().stun, 1);
}

#[test]
fn who_asks_for_it_is_answered_from_the_other_port() {
    let at = |port| SocketAddr::new(SocketAddr::from(SERVER).ip(), port);
    let ports = vec![(SERVER.into(), at(9))];
    let places = Places { ports, ..Places::default() };
    let limits = Limits { stun_per_second: 1, ..Limits::open() };
    let mut world = World::with(Config { places, limits, ..config(&[]) });
    let request = wire::stun::changed_binding_request([9; 12], wire::stun::Change::Port);
    let Verdict::Elsewhere(sent) = world.arrive(stranger(), request.clone()) else {
        panic!("not from elsewhere")
    };
    assert_eq!(sent.route, Route::udp(at(9), stranger()));
    assert!(sent.payload.len() <= request.len());
    assert!(matches!(world.arrive(stranger(), request.clone()), Verdict::Elsewhere(_)));
    assert_eq!(world.arrive(stranger(), request), Verdict::Drop, "the limit of a prefix");
}

#[test]
fn a_server_that_forgot_says_so_and_the_peer_registers_again() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    world.restart();
    world.control(alice, ControlFrame::Ping);
    world.exchange();
    let of = &world.clients[alice];
    let tag = of.info.reset.unwrap();
    assert_eq!(of.others.len(), 1);
    assert!(is_reset(&of.others[0], of.token(), &tag), "resets survive a restart");
    world.clients[alice].silent = true;
    let again = world.shake(Hello::new(1));
    assert!(world.register(again, "alice").is_ok());
}

#[test]
fn a_reset_is_smaller_than_what_asks_for_it() {
    let mut world = World::new();
    for first in [kind::DATA_0, kind::DATA_1] {
        let packet = |len: usize| [&[first][..], &vec![5; len - 1]].concat();
        assert_eq!(world.arrive(stranger(), packet(25)), Verdict::Drop);
        let Verdict::Reply(reset) = world.arrive(stranger(), packet(26)) else {
            panic!("no RESET");
        };
        assert_eq!(reset.len(), 25);
    }
}

#[test]
fn resets_are_limited() {
    let limits = Limits { refusals_per_second: 5, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    let packet = |n: u64| [&[kind::DATA_0][..], &n.to_be_bytes(), &[0; 40]].concat();
    let answered = (1..100).filter(|n| world.arrive(stranger(), packet(*n)) != Verdict::Drop);
    assert_eq!(answered.count(), 10);
    assert_eq!(world.routes.counters().dropped_limited, 89);
}

#[test]
fn under_load_a_handshake_must_show_where_it_comes_from() {
    let limits = Limits { handshakes_per_second: 0, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    let hello = Hello::new(1);
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let init = world.initiator(&hello, &mut rng).datagram().to_vec();
    let Verdict::Reply(retry) = world.arrive(hello.address, init.clone()) else {
        panic!("no RETRY");
    };
    assert!(retry[0] == kind::RETRY && retry.len() < init.len());
    world.mail.clear();
    let alice = world.shake(hello);
    assert!(world.register(alice, "alice").is_ok());
    assert_eq!(world.routes.counters().retries, 2);
}

#[test]
fn many_handshakes_under_way_are_a_load() {
    let mut world = World::new();
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let mut verdicts = Vec::new();
    for n in 1..=80 {
        let hello = Hello::new(n);
        let mut init = world.initiator(&hello, &mut rng).datagram().to_vec();
        let route = World::server_route(hello.address);
        let verdict = Fast::handle(&world.routes, &mut init, route, world.now);
        if verdict == Verdict::Rest {
            // Effects are not carried out.
            world.hub.handle_input(Input::Datagram { route, data: &mut init }, world.now);
        }
        verdicts.push(verdict);
    }
    assert_eq!(verdicts.iter().filter(|verdict| **verdict == Verdict::Rest).count(), 64);
}

#[test]
fn the_same_init_gets_the_same_reply() {
    let mut world = World::new();
    let hello = Hello::new(1);
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let init = world.initiator(&hello, &mut rng).datagram().to_vec();
    world.arrive(hello.address, init.clone());
    world.arrive(hello.address, init.clone());
    let replies = world.mail.remove(&hello.address).unwrap();
    assert_eq!(replies.len(), 2);
    assert_eq!(replies[0], replies[1]);
    assert!(replies[0].len() < init.len());
    assert_eq!(world.hub.status(world.now).sessions, 1);
    assert_eq!(world.routes.counters().handshakes, 1);
}

#[test]
fn another_version_is_told_the_spoken_ones() {
    let mut world = World::new();
    let hello = Hello::new(1);
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let mut init = world.initiator(&hello, &mut rng).datagram().to_vec();
    init[1] = 9;
    let Verdict::Reply(versions) = world.arrive(hello.address, init) else { panic!("no answer") };
    assert_eq!(versions[0], kind::VERSIONS);
}

#[test]
fn an_init_without_padding_or_mac_costs_nothing() {
    let mut world = World::new();
    let hello = Hello::new(1);
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let init = world.initiator(&hello, &mut rng).datagram().to_vec();
    assert_eq!(world.arrive(hello.address, init[..1199].to_vec()), Verdict::Drop);
    let mut forged = init;
    forged[12] ^= 1;
    assert_eq!(world.arrive(hello.address, forged), Verdict::Drop);
    assert_eq!(world.routes.counters().dropped_mac, 1);
}

#[test]
fn one_prefix_cannot_fill_the_table() {
    let limits = Limits { unregistered_per_prefix: 4, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    for n in 1..=20 {
        let hello = Hello::new(n);
        let init = world.initiator(&hello, &mut rng).datagram().to_vec();
        world.arrive(hello.address, init);
    }
    assert_eq!(world.hub.status(world.now).sessions, 4);
}

#[test]
fn forged_and_replayed_packets_change_nothing() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    let home = world.clients[alice].address;
    world.control(alice, ControlFrame::Ping);
    let packet = world.next_datagram(alice).unwrap();
    let mut forged = packet.clone();
    *forged.last_mut().unwrap() ^= 1;
    world.arrive(stranger(), forged);
    world.arrive(home, packet.clone());
    world.exchange();
    world.arrive(stranger(), packet);
    assert_eq!(world.routes.counters().dropped_packet, 2);
    assert!(world.mail.is_empty());
}

#[test]
fn a_handshake_with_oneself_is_no_session() {
    let mut world = World::new();
    let hello = Hello { key: world.config.static_key.clone(), ..Hello::new(1) };
    let mut rng = ChaCha12Rng::from_seed([3; 32]);
    let init = world.initiator(&hello, &mut rng).datagram().to_vec();
    world.arrive(hello.address, init);
    assert_eq!(world.hub.status(world.now).sessions, 0);
}

#[test]
fn one_seed_gives_the_same_datagrams() {
    let run = || {
        let mut world = World::new();
        let hello = Hello::new(1);
        let mut rng = ChaCha12Rng::from_seed([3; 32]);
        let init = world.initiator(&hello, &mut rng).datagram().to_vec();
        world.arrive(hello.address, init);
        world.mail.remove(&hello.address).unwrap()
    };
    assert_eq!(run(), run());
}

proptest! {
    #[test]
    fn garbage_is_never_answered_with_more(
        first in prop_oneof![0u8..0x10, any::<u8>()],
        mut rest in proptest::collection::vec(any::<u8>(), 0..1300),
        known in any::<bool>(),
    ) {
        let mut world = World::new();
        let alice = world.shake(Hello::new(1));
        if known && rest.len() >= 11 {
            let at = if first == kind::RELAY { 3 } else { 0 };
            rest[at..at + 8].copy_from_slice(&world.clients[alice].token().0.to_be_bytes());
        }
        let datagram = [&[first][..], &rest].concat();
        let len = datagram.len();
        let plain_stun = first < 4;
        if let Verdict::Reply(answer) = world.arrive(stranger(), datagram.clone()) {
            prop_assert!(answer.len() < len || plain_stun);
        }
        // A hub must stand whatever a worker lets through.
        let (route, mut data) = (World::server_route(stranger()), datagram);
        world.hub.handle_input(Input::Datagram { route, data: &mut data }, world.now);
        world.drain();
        world.hub.handle_timeout(world.now + Duration::from_secs(100));
        let mail: usize = world.mail.remove(&stranger()).into_iter().flatten().map(|d| d.len()).sum();
        prop_assert!(mail < 2 * len || plain_stun);
    }
}
