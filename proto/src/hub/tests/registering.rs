//! Names, tokens, presence and silence.

use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::control::{StunPorts, code};
use crate::wire::stun::{Places, SecondIp};

fn proof(world: &World, client: usize, id: &str, secret: &str) -> TokenProof {
    let proof = token_proof_session(secret, &world.clients[client].hash);
    TokenProof { id: id.into(), proof }
}

#[test]
fn a_peer_registers_and_is_told_where_it_is_seen() {
    for knows_server in [true, false] {
        let mut world = World::new();
        let alice = world.shake(Hello { knows_server, ..Hello::new(1) });
        let observed = world.clients[alice].address;
        assert_eq!(world.clients[alice].info.observed, Some(observed));
        let Ok(Answer::Registered(registered)) = world.register(alice, "Alice") else {
            panic!("refused");
        };
        assert_eq!(registered.name, name("alice"));
        assert_eq!(registered.observed, observed);
        assert_eq!(registered.network, "open");
        assert_eq!(registered.expires, 45);
        assert!(registered.greeting.unwrap().contains("open to anybody"));
        assert_eq!(world.log(), ["joined alice"]);
        let members = world.hub.members();
        assert_eq!(members.len(), 1);
        assert_eq!(members[0].key, world.clients[alice].key.public());
        assert_eq!(world.hub.status(world.now).peers, 1);
    }
}

#[test]
fn a_taken_name_is_refused_with_what_to_do() {
    let mut world = World::new();
    world.join(1, "alice");
    let mallory = world.shake(Hello::new(2));
    let refused = world.register(mallory, "ALICE").unwrap_err();
    assert_eq!(refused.code, code::CONFLICT);
    assert!(refused.text.contains("choose another name"), "{}", refused.text);
    assert_eq!(world.log(), ["joined alice", "refused ALICE 409"]);
    assert!(world.register(mallory, "mallory").is_ok(), "the session goes on");
}

#[test]
fn bad_names_and_intervals_are_refused() {
    let mut world = World::new();
    let alice = world.shake(Hello::new(1));
    for bad in ["", "a b", "10.0.0.1:5"] {
        assert_eq!(world.register(alice, bad).unwrap_err().code, code::BAD_REQUEST);
    }
    let never = Register { keepalive: 0, ..registration("alice", None) };
    let refused = world.ask(alice, Operation::Register(never)).unwrap_err();
    assert_eq!(refused.code, code::BAD_REQUEST);
}

#[test]
fn a_token_opens_its_network_and_a_false_one_nothing() {
    let mut world = World::with(config(&[("a", "secret-a", "red"), ("b", "secret-b", "blue")]));
    let alice = world.shake(Hello::new(1));
    assert_eq!(world.register(alice, "alice").unwrap_err().code, code::UNAUTHORIZED);
    for (id, secret) in [("a", "secret-b"), ("c", "secret-a")] {
        let proof = proof(&world, alice, id, secret);
        let register = Operation::Register(registration("alice", Some(proof)));
        assert_eq!(world.ask(alice, register).unwrap_err().code, code::UNAUTHORIZED);
    }
    for (n, id, secret, network) in [(2, "a", "secret-a", "red"), (3, "b", "secret-b", "blue")] {
        let client = world.shake(Hello::new(n));
        let proof = proof(&world, client, id, secret);
        let register = Operation::Register(registration("alice", Some(proof)));
        let Ok(Answer::Registered(registered)) = world.ask(client, register) else {
            panic!("refused");
        };
        assert_eq!(registered.network, network);
        assert_eq!(registered.greeting, None);
        let list = world.ask(client, Operation::List { cursor: None });
        let Ok(Answer::Page(page)) = list else { panic!("no list") };
        assert_eq!(page.total, 1, "networks do not see each other");
    }
    assert_eq!(world.hub.status(world.now).networks, 2);
}

#[test]
fn a_key_is_in_one_network_at_a_time() {
    let mut world = World::with(config(&[("a", "secret-a", "red"), ("b", "secret-b", "blue")]));
    let register = |world: &mut World, client, id, secret| {
        let proof = proof(world, client, id, secret);
        world.ask(client, Operation::Register(registration("alice", Some(proof)))).unwrap();
    };
    let first = world.shake(Hello::new(1));
    register(&mut world, first, "a", "secret-a");
    register(&mut world, first, "b", "secret-b");
    assert_eq!(world.log(), ["joined alice", "left alice Replaced", "joined alice"]);
    let other = SocketAddr::from(([203, 0, 113, 1], 9));
    let second = world.shake(Hello { boot: Boot(7), address: other, ..Hello::new(1) });
    register(&mut world, second, "a", "secret-a");
    assert_eq!(world.clients[first].closed(), Some(code::CONFLICT));
    assert_eq!(world.hub.status(world.now).peers, 1);
    assert_eq!(world.hub.members()[0].network, "red");
}

#[test]
fn registering_again_renames_and_watchers_hear_of_it() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.register(alice, "alicia").unwrap();
    assert_eq!(world.clients[bob].pushed(), ["renamed alice alicia"]);
    assert!(world.log().contains(&"renamed alice alicia".to_owned()));
    let carol = world.shake(Hello::new(3));
    assert!(world.register(carol, "alice").is_ok(), "the old name is free");
    world.register(alice, "alicia").unwrap();
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[bob].pushed(), ["joined alice"], "the same again is no news");
}

#[test]
fn watchers_hear_of_coming_and_going() {
    let mut world = World::new();
    let bob = world.join(2, "bob");
    world.ask(bob, Operation::Watch { names: Some(vec![name("alice")]) }).unwrap();
    let alice = world.join(1, "alice");
    world.join(3, "carol");
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[bob].pushed(), ["joined alice"]);
    world.control(alice, ControlFrame::Close(code::BYE, String::new()));
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[bob].pushed(), ["left alice Bye"]);
    assert!(world.log().contains(&"left alice Bye".to_owned()));
    world.ask(bob, Operation::Watch { names: Some(Vec::new()) }).unwrap();
    world.join(1, "alice");
    world.run(Duration::from_millis(200));
    assert!(world.clients[bob].pushed().is_empty(), "watches nobody any more");
}

#[test]
fn watching_has_bounds() {
    let mut world = World::new();
    let bob = world.join(2, "bob");
    let names = (0..1025).map(|n| name(&format!("n{n}"))).collect();
    let refused = world.ask(bob, Operation::Watch { names: Some(names) }).unwrap_err();
    assert_eq!(refused.code, code::TOO_LARGE);
}

#[test]
fn silence_is_the_end_and_keepalives_prevent_it() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.clients[alice].silent = true;
    for _ in 0..3 {
        world.control(bob, ControlFrame::Ping);
        world.run(Duration::from_secs(14));
    }
    assert!(world.clients[bob].pushed().is_empty(), "42 seconds are no silence yet");
    world.control(bob, ControlFrame::Ping);
    world.run(Duration::from_secs(5));
    assert_eq!(world.clients[bob].pushed(), ["left alice Expired"]);
    assert_eq!(world.hub.status(world.now).sessions, 1);
    let observed = ControlFrame::Observed(world.clients[bob].address);
    assert_eq!(world.clients[bob].frames.iter().filter(|f| **f == observed).count(), 4);
}

#[test]
fn who_does_not_register_is_forgotten() {
    let mut world = World::new();
    let alice = world.shake(Hello::new(1));
    let bob = world.shake(Hello { knows_server: false, ..Hello::new(2) });
    world.clients[bob].silent = true;
    world.run(Duration::from_secs(1));
    assert_eq!(world.hub.status(world.now).sessions, 2);
    world.clients[alice].silent = true;
    world.run(Duration::from_secs(31));
    assert_eq!(world.hub.status(world.now).sessions, 0);
}

#[test]
fn the_same_key_from_elsewhere_replaces_the_older() {
    let mut world = World::new();
    let old = world.join(1, "alice");
    let bob = world.join(2, "bob");
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 9));
    let newer = world.shake(Hello { boot: Boot(99), address: elsewhere, ..Hello::new(1) });
    assert_eq!(world.clients[old].closed(), None, "a handshake alone replaces nobody");
    world.register(newer, "alice").unwrap();
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[old].closed(), Some(code::CONFLICT));
    assert_eq!(world.clients[bob].pushed(), ["joined alice"]);
    assert_eq!(world.log()[2..], ["left alice Replaced", "joined alice"]);
    assert_eq!(world.hub.members()[0].address, elsewhere);
    world.run(Duration::from_secs(20));
    assert_eq!(world.hub.status(world.now).sessions, 2, "the old session is forgotten");
    assert_eq!(world.hub.status(world.now).peers, 2);
}

#[test]
fn a_new_handshake_of_the_same_process_changes_nothing() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    let bob = world.join(2, "bob");
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.ask(alice, Operation::Watch { names: Some(vec![name("bob")]) }).unwrap();
    let elsewhere = SocketAddr::from(([203, 0, 113, 1], 9));
    let newer = world.shake(Hello { address: elsewhere, ..Hello::new(1) });
    world.clients[alice].silent = true;
    world.control(newer, ControlFrame::Ping);
    world.run(Duration::from_millis(200));
    assert!(world.clients[bob].pushed().is_empty());
    let Ok(Answer::Page(page)) = world.ask(newer, Operation::List { cursor: None }) else {
        panic!("not registered any more");
    };
    assert_eq!(page.members[0].observed, Some(elsewhere));
    world.register(bob, "bobby").unwrap();
    assert_eq!(world.clients[newer].pushed(), ["renamed bob bobby"]);
    assert_eq!(world.hub.status(world.now).sessions, 2);
}

#[test]
fn the_list_is_paged_and_lookup_finds_names_and_addresses() {
    let mut world = World::new();
    for n in 1..=250 {
        world.join(n, &format!("n{n:03}"));
    }
    let Ok(Answer::Page(first)) = world.ask(0, Operation::List { cursor: None }) else {
        panic!("no list");
    };
    assert_eq!((first.members.len(), first.total), (200, 250));
    let Ok(Answer::Page(second)) = world.ask(0, Operation::List { cursor: first.next }) else {
        panic!("no second page");
    };
    assert_eq!((second.members.len(), second.next), (50, None));
    assert_eq!(second.members[0].name, name("n201"));
    for who in ["N007".to_owned(), world.clients[6].address.to_string()] {
        let Ok(Answer::Member(member)) = world.ask(0, Operation::Lookup { who }) else {
            panic!("not found");
        };
        assert_eq!(member.key, world.clients[6].key.public());
        assert_eq!(member.since, 1_000_000);
    }
    let lost = world.ask(0, Operation::Lookup { who: "nobody".into() }).unwrap_err();
    assert_eq!(lost.code, code::NOT_FOUND);
}

#[test]
fn what_needs_a_name_is_refused_without_one() {
    let mut world = World::new();
    let alice = world.shake(Hello::new(1));
    for operation in [
        Operation::List { cursor: None },
        Operation::Unregister,
        Operation::Watch { names: None },
        Operation::Lookup { who: "bob".into() },
        Operation::Notice { text: "hi".into() },
    ] {
        assert_eq!(world.ask(alice, operation).unwrap_err().code, code::NOT_REGISTERED);
    }
}

#[test]
fn unregistering_frees_the_name_and_keeps_the_session() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.ask(alice, Operation::Unregister).unwrap();
    world.run(Duration::from_millis(200));
    assert_eq!(world.clients[bob].pushed(), ["left alice Bye"]);
    assert!(world.register(bob, "alice").is_ok());
    assert!(world.register(alice, "alice2").is_ok());
}

#[test]
fn a_full_network_says_so() {
    let limits = Limits { peers_max: 1, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    world.join(1, "alice");
    let bob = world.shake(Hello::new(2));
    assert_eq!(world.register(bob, "bob").unwrap_err().code, code::TOO_MANY);
}

/// An offer of early data by peer 1 that registers it as `alice`.
fn early_offer(world: &mut World, counter: u64) -> Option<EarlyOffer> {
    let other = world.shake(Hello::new(9));
    let (boot, server) = (world.clients[other].info.boot, world.hub.key());
    let own = Hello::new(1).key.public();
    let proof = token_proof_early("secret", &server, &own, boot, counter);
    let token = Some(TokenProof { id: "a".into(), proof });
    let operation = Operation::Register(registration("alice", token));
    let json = serde_json::to_vec(&Request { id: 77, operation }).unwrap();
    let mut transport = transport::Transport::new(transport::Config::control(), world.now);
    transport.send(Channel(0), json.into(), world.now).unwrap();
    let frames = transport.poll_early(900, world.now).unwrap();
    Some(EarlyOffer { boot, counter, frames })
}

#[test]
fn early_data_registers_and_counts_once() {
    let mut world = World::with(config(&[("a", "secret", "red")]));
    let (accepted, replayed) = (early_offer(&mut world, 5), early_offer(&mut world, 5));
    let alice = world.shake(Hello { early: accepted, ..Hello::new(1) });
    assert_eq!(world.clients[alice].info.early, EarlyVerdict::Accepted);
    assert_eq!(world.log(), ["joined alice"], "nothing else had to arrive");
    world.control(alice, ControlFrame::Ping);
    world.run(Duration::from_millis(100));
    assert!(world.log().is_empty());
    let again = world.shake(Hello { early: replayed, ..Hello::new(1) });
    assert_eq!(world.clients[again].info.early, EarlyVerdict::Rejected);
}

#[test]
fn early_data_replaces_nobody_until_its_session_is_confirmed() {
    let mut world = World::with(config(&[("a", "secret", "red")]));
    let (first, second) = (early_offer(&mut world, 5), early_offer(&mut world, 6));
    let old = world.shake(Hello { early: first, ..Hello::new(1) });
    world.control(old, ControlFrame::Ping);
    world.run(Duration::from_millis(100));
    world.log();
    let newer = world.shake(Hello { early: second, boot: Boot(2), ..Hello::new(1) });
    assert_eq!(world.clients[newer].info.early, EarlyVerdict::Accepted);
    assert!(world.log().is_empty());
    world.control(newer, ControlFrame::Ping);
    world.exchange();
    assert_eq!(world.log(), ["left alice Replaced", "joined alice"]);
}

#[test]
fn early_data_of_an_address_that_never_answers_is_forgotten() {
    let mut world = World::with(config(&[("a", "secret", "red")]));
    let early = early_offer(&mut world, 5);
    let alice = world.shake(Hello { early, ..Hello::new(1) });
    world.clients[alice].silent = true;
    world.run(Duration::from_secs(29));
    assert_eq!(world.log(), ["joined alice"]);
    let token = world.clients[alice].token();
    assert!(world.routes.slots.find(token).unwrap().route().is_none(), "nothing is relayed to it");
    let sent: usize =
        world.mail.get(&world.clients[alice].address).into_iter().flatten().map(Vec::len).sum();
    assert!(sent <= 3 * 1200, "{sent}");
    world.run(Duration::from_secs(2));
    assert_eq!(world.log(), ["left alice Expired"]);
}

#[test]
fn nonsense_on_the_control_channel_ends_the_session() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    let (of, now) = (&mut world.clients[alice], world.now);
    of.conversation.transport().send(Channel(0), r#"{"id":9,"op":"later"}"#.into(), now).unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(world.clients[alice].closed(), None, "a later version may ask for more");
    let (of, now) = (&mut world.clients[alice], world.now);
    of.conversation.transport().send(Channel(0), "nonsense".into(), now).unwrap();
    world.run(Duration::from_millis(50));
    assert_eq!(world.clients[alice].closed(), Some(code::BAD_REQUEST));
    world.run(Duration::from_secs(10));
    assert_eq!(world.hub.status(world.now).sessions, 0);
}

#[test]
fn a_peer_is_told_where_else_the_server_answers() {
    let answer = |places: Places| {
        let mut world = World::with(Config { places, ..config(&[]) });
        let alice = world.shake(Hello::new(1));
        let Ok(Answer::Registered(registered)) = world.register(alice, "alice") else {
            panic!("refused");
        };
        registered.stun
    };
    assert_eq!(answer(Places::default()), None);
    let any: IpAddr = Ipv4Addr::UNSPECIFIED.into();
    let ports = vec![((any, SERVER.1).into(), (any, 3479).into())];
    let one = Places { ports, ..Places::default() };
    let told = StunPorts { alt_port: 3479, alt_ip: None };
    assert_eq!(answer(one.clone()), Some(told));
    let [local, public] = ["192.0.2.77", "203.0.113.77"].map(|ip| ip.parse().unwrap());
    let second_ip = Some(SecondIp { local, public });
    let told = StunPorts { alt_ip: Some(public), ..told };
    assert_eq!(answer(Places { second_ip, ..one }), Some(told));
}
