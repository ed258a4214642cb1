//! Introductions and relaying.

use super::*;
use crate::control::{CandidateKindText, CandidateText, Connect, code};

fn meet(world: &mut World, from: usize, to: usize) -> Result<Answer, Problem> {
    let (key, connect) = (world.clients[to].key.public(), ConnectId([5; 16]));
    world.ask(from, Operation::Connect { key, connect, candidates: Vec::new() })
}

pub(super) fn told(world: &World, client: usize) -> Vec<Connect> {
    let connect = |heard: &FromServer| match heard {
        FromServer::Event(Pushed::Connect(connect)) => Some(connect.clone()),
        FromServer::Event(_) | FromServer::Reply(_) => None,
    };
    world.clients[client].heard.iter().filter_map(connect).collect()
}

/// Two registered peers that were introduced, and their channels for each other.
pub(super) fn pair(world: &mut World) -> (usize, usize, RelayChannel, RelayChannel) {
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    meet(world, alice, bob).unwrap();
    let channels = (told(world, alice)[0].channel, told(world, bob)[0].channel);
    (alice, bob, channels.0, channels.1)
}

pub(super) fn frame(world: &World, from: usize, channel: RelayChannel, inner: &[u8]) -> Vec<u8> {
    let header = RelayHeader { channel, token: world.clients[from].token() };
    [&header.encode()[..], inner].concat()
}

#[test]
fn both_sides_are_told_in_one_moment() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    let host =
        CandidateText { kind: CandidateKindText::Host, address: "10.0.0.1:77".parse().unwrap() };
    let (key, connect) = (world.clients[bob].key.public(), ConnectId([5; 16]));
    let candidates = vec![host];
    let before = world.now;
    world.post(alice, Operation::Connect { key, connect, candidates });
    world.exchange();
    assert_eq!(world.now, before, "no deadline had to pass");
    let (to_alice, to_bob) = (&told(&world, alice)[0], &told(&world, bob)[0]);
    assert_eq!(to_bob.member.key, world.clients[alice].key.public());
    assert_eq!(to_bob.member.observed, Some(world.clients[alice].address));
    assert_eq!(to_bob.member.boot, Boot(1));
    assert_eq!(to_alice.member.key, key);
    assert_eq!((to_alice.connect, to_bob.connect), (connect, connect));
    assert_eq!(to_bob.candidates, [host]);
    assert_eq!((to_alice.own_tag, to_alice.their_tag), (to_bob.their_tag, to_bob.own_tag));
    assert_ne!(to_alice.own_tag, to_alice.their_tag);
}

#[test]
fn an_introduction_needs_somebody_else_who_is_here() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.shake(Hello::new(2)));
    assert_eq!(meet(&mut world, alice, alice).unwrap_err().code, code::BAD_REQUEST);
    assert_eq!(meet(&mut world, alice, bob).unwrap_err().code, code::NOT_FOUND);
    assert_eq!(meet(&mut world, bob, alice).unwrap_err().code, code::NOT_REGISTERED);
}

#[test]
fn introductions_are_limited() {
    let limits = Limits { connects_per_minute: 3, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    for _ in 0..3 {
        meet(&mut world, alice, bob).unwrap();
    }
    assert_eq!(meet(&mut world, alice, bob).unwrap_err().code, code::TOO_MANY);
    let introductions = told(&world, alice);
    assert!(introductions.iter().all(|c| c.channel == introductions[0].channel));
}

#[test]
fn relay_frames_reach_the_other_side_under_its_numbers() {
    let mut world = World::new();
    let (alice, bob, to_bob, to_alice) = pair(&mut world);
    let sent = frame(&world, alice, to_bob, b"hello bob");
    let from = world.clients[alice].address;
    let verdict = world.arrive(from, sent);
    assert_eq!(verdict, Verdict::Forward(World::server_route(world.clients[bob].address)));
    world.exchange();
    assert_eq!(world.clients[bob].relayed, [(to_alice, b"hello bob".to_vec())]);
    let back = frame(&world, bob, to_alice, b"hello alice");
    world.arrive(world.clients[bob].address, back);
    world.exchange();
    assert_eq!(world.clients[alice].relayed, [(to_bob, b"hello alice".to_vec())]);
    assert_eq!(world.routes.counters().relayed, 2);
}

#[test]
fn relay_frames_from_elsewhere_get_a_smaller_stale() {
    let mut world = World::new();
    let (alice, bob, to_bob, _) = pair(&mut world);
    let sent = frame(&world, alice, to_bob, b"forged?");
    let elsewhere = SocketAddr::from(([203, 0, 113, 9], 1));
    let len = sent.len();
    let Verdict::Reply(stale) = world.arrive(elsewhere, sent) else { panic!("no STALE") };
    assert_eq!(stale, wire::encode_stale(world.clients[alice].token()));
    assert!(stale.len() < len);
    world.exchange();
    assert!(world.clients[bob].relayed.is_empty());
    let log = world.log();
    assert!(!log.iter().any(|line| line.starts_with("moved")), "a relay frame moves nothing");
}

#[test]
fn channels_not_opened_lead_nowhere() {
    let mut world = World::new();
    let (alice, _, to_bob, _) = pair(&mut world);
    for channel in [to_bob.0 ^ 1, to_bob.0 ^ 0x100] {
        let sent = frame(&world, alice, RelayChannel(channel), b"x");
        assert_eq!(world.arrive(world.clients[alice].address, sent), Verdict::Drop);
    }
    let empty = frame(&world, alice, to_bob, b"");
    assert_eq!(world.arrive(world.clients[alice].address, empty), Verdict::Drop);
    assert_eq!(world.routes.counters().dropped_channel, 2);
}

#[test]
fn relaying_has_a_quota_that_comes_back() {
    let limits = Limits { relay_bytes_per_second: 10_000, ..Limits::open() };
    let mut world = World::with(Config { limits, ..config(&[]) });
    let (alice, _, to_bob, _) = pair(&mut world);
    let from = world.clients[alice].address;
    let send = |world: &mut World| {
        let sent = frame(world, alice, to_bob, &[1; 988]);
        world.arrive(from, sent) != Verdict::Drop
    };
    let at_once = (0..100).filter(|_| send(&mut world)).count();
    assert_eq!(at_once, 16, "the burst");
    assert_eq!(world.routes.counters().dropped_quota, 84);
    world.now += Duration::from_secs(1);
    assert_eq!((0..100).filter(|_| send(&mut world)).count(), 10);
}

#[test]
fn channels_rest_end_and_follow() {
    let mut world = World::new();
    let (alice, bob, to_bob, to_alice) = pair(&mut world);
    // The same process of bob under a new session and address.
    let elsewhere = SocketAddr::from(([203, 0, 113, 2], 9));
    let newer = world.shake(Hello { address: elsewhere, ..Hello::new(2) });
    world.clients[bob].silent = true;
    world.control(newer, ControlFrame::Ping);
    world.run(Duration::from_millis(20));
    let sent = frame(&world, alice, to_bob, b"still there?");
    world.arrive(world.clients[alice].address, sent);
    world.exchange();
    assert_eq!(world.clients[newer].relayed, [(to_alice, b"still there?".to_vec())]);
    let back = frame(&world, newer, to_alice, b"yes");
    world.arrive(elsewhere, back);
    world.exchange();
    assert_eq!(world.clients[alice].relayed, [(to_bob, b"yes".to_vec())]);
    world.control(newer, ControlFrame::Close(code::BYE, String::new()));
    world.run(Duration::from_millis(20));
    let sent = frame(&world, alice, to_bob, b"and now?");
    assert_eq!(world.arrive(world.clients[alice].address, sent), Verdict::Drop);
}

#[test]
fn idle_channels_are_freed() {
    let mut world = World::new();
    let (alice, bob, to_bob, _) = pair(&mut world);
    for _ in 0..7 {
        world.control(alice, ControlFrame::Ping);
        world.control(bob, ControlFrame::Ping);
        world.run(Duration::from_secs(10));
    }
    let sent = frame(&world, alice, to_bob, b"late");
    assert_eq!(world.arrive(world.clients[alice].address, sent), Verdict::Drop);
    meet(&mut world, alice, bob).unwrap();
    assert_ne!(told(&world, alice).last().unwrap().channel, to_bob, "numbers are not reused");
}

#[test]
fn open_introduces_and_hands_over_in_one_flight() {
    let mut world = World::new();
    let (alice, bob) = (world.join(1, "alice"), world.join(2, "bob"));
    let target = world.clients[bob].key.public();
    let open = ControlFrame::Open(target, ConnectId([6; 16]), b"first".to_vec().into());
    world.control(alice, open);
    let before = world.now;
    world.exchange();
    assert_eq!(world.now, before);
    let to_bob = &told(&world, bob)[0];
    assert_eq!(to_bob.connect, ConnectId([6; 16]));
    assert_eq!(world.clients[bob].relayed, [(to_bob.channel, b"first".to_vec())]);
    assert_eq!(told(&world, alice).len(), 1);
}

#[test]
fn an_address_that_never_answered_sets_off_one_introduction() {
    let mut world = World::new();
    let targets = [world.join(2, "bob"), world.join(3, "carol")];
    let mut transport = transport::Transport::new(transport::Config::control(), world.now);
    let register = Operation::Register(registration("alice", None));
    let json = serde_json::to_vec(&Request { id: 1, operation: register }).unwrap();
    transport.send(Channel(0), json.into(), world.now).unwrap();
    for target in targets {
        let key = world.clients[target].key.public();
        let open = ControlFrame::Open(key, ConnectId([6; 16]), b"first".to_vec().into());
        transport.control(open, None, world.now);
    }
    let frames = transport.poll_early(1000, world.now).unwrap();
    let early = Some(EarlyOffer { boot: world.clients[targets[0]].info.boot, counter: 5, frames });
    let alice = world.shake(Hello { early, ..Hello::new(1) });
    assert_eq!(world.clients[alice].info.early, EarlyVerdict::Accepted);
    world.exchange();
    let introduced: usize = targets.iter().map(|target| told(&world, *target).len()).sum();
    assert_eq!(introduced, 1);
}

#[test]
fn an_open_that_leads_nowhere_is_answered() {
    let mut world = World::new();
    let alice = world.join(1, "alice");
    let nobody = PeerKey::from_bytes([3; 32]);
    let open = ControlFrame::Open(nobody, ConnectId([6; 16]), b"first".to_vec().into());
    world.control(alice, open);
    world.exchange();
    let answer = world.clients[alice].heard.iter().any(|heard| {
        matches!(heard, FromServer::Reply(Reply { id: NOT_A_REQUEST, outcome: Outcome::Error(p) })
            if p.code == code::NOT_FOUND)
    });
    assert!(answer, "{:?}", world.clients[alice].heard);
}
