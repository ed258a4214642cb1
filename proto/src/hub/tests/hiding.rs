//! Peers that hide: nobody learns where they are, and they learn of nobody else.

use super::meeting::told;
use super::*;
use crate::control::{CandidateKindText, CandidateText, code};

/// An address that a hiding peer's client offers all the same.
const OFFERED: &str = "10.77.0.1:77";

fn offered() -> Vec<CandidateText> {
    vec![CandidateText { kind: CandidateKindText::Host, address: OFFERED.parse().unwrap() }]
}

fn join(world: &mut World, n: u8, name: &str, exposure: Exposure) -> usize {
    let client = world.shake(Hello::new(n));
    let register = Register { exposure, candidates: offered(), ..registration(name, None) };
    world.ask(client, Operation::Register(register)).unwrap();
    client
}

/// Alice, who sees everything there is to see, and a bob who hides.
fn watched() -> (World, usize, usize) {
    let mut world = World::new();
    let alice = join(&mut world, 1, "alice", Exposure::Open);
    world.ask(alice, Operation::Watch { names: None }).unwrap();
    let bob = join(&mut world, 2, "bob", Exposure::Hidden);
    world.ask(bob, Operation::Watch { names: None }).unwrap();
    world.run(Duration::from_millis(200));
    (world, alice, bob)
}

fn meet(world: &mut World, from: usize, to: usize) {
    let (key, connect) = (world.clients[to].key.public(), ConnectId([5; 16]));
    world.ask(from, Operation::Connect { key, connect, candidates: offered() }).unwrap();
}

/// All control messages that a client got, as they are written.
fn text(world: &World, client: usize) -> String {
    serde_json::to_string(&world.clients[client].heard).unwrap()
}

#[test]
fn nothing_that_is_told_of_a_hiding_peer_says_where_it_is() {
    let (mut world, alice, bob) = watched();
    let page = world.ask(alice, Operation::List { cursor: None }).unwrap();
    let Answer::Page(page) = page else { panic!("no page") };
    assert_eq!(page.members[0].observed, Some(world.clients[alice].address));
    assert_eq!(page.members[1].observed, None);
    world.ask(alice, Operation::Lookup { who: "bob".into() }).unwrap();
    meet(&mut world, alice, bob);
    meet(&mut world, bob, alice);
    let open = ControlFrame::Open(
        world.clients[alice].key.public(),
        ConnectId([6; 16]),
        b"first".to_vec().into(),
    );
    world.control(bob, open);
    world.exchange();
    let renamed = Register { exposure: Exposure::Hidden, ..registration("robert", None) };
    world.ask(bob, Operation::Register(renamed)).unwrap();
    let heard = text(&world, alice);
    for said in ["\"joined\"", "\"renamed\"", "\"connect\"", "\"page\"", "\"member\""] {
        assert!(heard.contains(said), "{said} is missing: {heard}");
    }
    let address = world.clients[bob].address.to_string();
    assert!(!heard.contains(&address) && !heard.contains(OFFERED), "{heard}");
    assert_eq!(told(&world, alice).len(), 3);
}

#[test]
fn who_hides_is_told_no_address_but_its_own() {
    let (mut world, alice, bob) = watched();
    world.ask(bob, Operation::List { cursor: None }).unwrap();
    world.ask(bob, Operation::Lookup { who: "alice".into() }).unwrap();
    let carol = join(&mut world, 3, "carol", Exposure::Open);
    world.register(carol, "caroline").unwrap();
    world.run(Duration::from_millis(200));
    meet(&mut world, alice, bob);
    let heard = text(&world, bob);
    for said in ["\"joined\"", "\"renamed\"", "\"connect\"", "\"page\"", "\"member\""] {
        assert!(heard.contains(said), "{said} is missing: {heard}");
    }
    assert!(heard.contains(&world.clients[bob].address.to_string()), "its own");
    for other in [alice, carol] {
        assert!(!heard.contains(&world.clients[other].address.to_string()), "{heard}");
    }
    assert!(!heard.contains(OFFERED), "{heard}");
    assert!(text(&world, alice).contains(&world.clients[carol].address.to_string()));
}

#[test]
fn an_address_does_not_lead_to_who_hides_there() {
    let (mut world, alice, bob) = watched();
    let look_up = |world: &mut World, at: SocketAddr| {
        world.ask(alice, Operation::Lookup { who: at.to_string() }).unwrap_err().code
    };
    let first = world.clients[bob].address;
    assert_eq!(look_up(&mut world, first), code::NOT_FOUND);
    let elsewhere = SocketAddr::from(([203, 0, 113, 9], 4321));
    world.clients[bob].address = elsewhere;
    world.control(bob, ControlFrame::Ping);
    world.run(Duration::from_millis(50));
    assert_eq!(look_up(&mut world, elsewhere), code::NOT_FOUND);
    let present = &world.hub.members()[1];
    assert_eq!((present.address, present.exposure), (elsewhere, Exposure::Hidden));
    let shown = Register { exposure: Exposure::Open, ..registration("bob", None) };
    world.ask(bob, Operation::Register(shown)).unwrap();
    let found = world.ask(alice, Operation::Lookup { who: elsewhere.to_string() });
    assert!(found.is_ok(), "it hides no longer: {found:?}");
}
