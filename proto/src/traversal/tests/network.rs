//! Two agents, two NATs and a world between them.

use std::collections::BTreeMap;

use rand::Rng as _;

use super::*;
use crate::traversal::nat::Field;

/// One way between any two hosts.
const DELAY: Duration = Duration::from_millis(20);
const ALICE: usize = 0;
const BOB: usize = 1;

/// How a NAT numbers its outside: one port a socket, or one a socket and destination.
#[derive(Clone, Copy, PartialEq)]
enum Mapping {
    None,
    Independent,
    Symmetric,
}

/// Whose packets it lets in.
#[derive(Clone, Copy, PartialEq)]
enum Filtering {
    Anybody,
    Address,
    AddressAndPort,
}

/// A host behind its NAT: sockets are (inside, outside) addresses.
struct Site {
    mapping: Mapping,
    filtering: Filtering,
    outside: SocketAddr,
    inside: SocketAddr,
    /// Mapped port by destination (one entry when independent).
    ports: BTreeMap<Option<SocketAddr>, u16>,
    /// Where each outside port has sent to.
    sent: Vec<(u16, SocketAddr)>,
}

impl Site {
    fn new(mapping: Mapping, filtering: Filtering, number: u8) -> Self {
        let outside = SocketAddr::from(([203, 0, 113, number], 40_000));
        let inside = match mapping {
            Mapping::None => outside,
            Independent | Symmetric => SocketAddr::from(([192, 168, number, 2], 5000)),
        };
        let ports = BTreeMap::from([(None, 40_000)]);
        Self { mapping, filtering, outside, inside, ports, sent: Vec::new() }
    }

    /// The source address that the world sees.
    fn out(&mut self, to: SocketAddr) -> SocketAddr {
        let key = (self.mapping == Symmetric).then_some(to);
        let next = 40_000 + self.ports.len() as u16 * 7;
        let port = *self.ports.entry(key).or_insert(next);
        self.sent.push((port, to));
        SocketAddr::new(self.outside.ip(), port)
    }

    fn lets_in(&self, port: u16, from: SocketAddr) -> bool {
        let fits = |to: &SocketAddr| match self.filtering {
            Anybody => true,
            Address => to.ip() == from.ip(),
            AddressAndPort => *to == from,
        };
        self.ports.values().any(|own| *own == port)
            && self.sent.iter().any(|(own, to)| *own == port && fits(to))
    }

    fn candidates(&self) -> Vec<(SocketAddr, Candidate)> {
        vec![
            (self.inside, Candidate { kind: CandidateKind::Observed, address: self.outside }),
            (self.inside, Candidate { kind: CandidateKind::Host, address: self.inside }),
        ]
    }
}

/// Two agents, two NATs and the world between them.
struct World {
    now: Instant,
    start: Instant,
    agents: [Agent; 2],
    sites: [Site; 2],
    /// (arrival, order, receiver, source as seen there, bytes)
    flying: Vec<(Instant, u64, usize, SocketAddr, Vec<u8>)>,
    order: u64,
    sent: [u32; 2],
    events: [Vec<(Duration, Output)>; 2],
    loss: f64,
    cut: bool,
    chance: ChaCha12Rng,
}

impl World {
    fn new(a: (Mapping, Filtering), b: (Mapping, Filtering), seed: u8) -> Self {
        let now = origin();
        let agents = [agent(Role::Controlling, seed, now), agent(Role::Controlled, seed, now)];
        let sites = [Site::new(a.0, a.1, 1), Site::new(b.0, b.1, 2)];
        Self {
            now,
            start: now,
            agents,
            sites,
            flying: Vec::new(),
            order: 0,
            sent: [0; 2],
            events: [Vec::new(), Vec::new()],
            loss: 0.0,
            cut: false,
            chance: ChaCha12Rng::from_seed([seed; 32]),
        }
    }

    /// The server tells both in the same moment.
    fn introduce(&mut self) {
        for side in [ALICE, BOB] {
            let own = self.sites[side].candidates();
            self.agents[side].set_local(own, self.now);
        }
        for side in [ALICE, BOB] {
            let theirs = self.agents[1 - side].local_candidates();
            self.agents[side].set_remote(theirs, self.now);
        }
        self.drain();
    }

    fn drain(&mut self) {
        for side in [ALICE, BOB] {
            while let Some(output) = self.agents[side].poll_output() {
                match output {
                    Output::Transmit(transmit) => self.send(side, transmit),
                    event @ (Output::Selected { .. }
                    | Output::Restored { .. }
                    | Output::Lost { .. }
                    | Output::CandidatesChanged
                    | Output::Failed) => self.events[side].push((self.now - self.start, event)),
                }
            }
        }
    }

    fn send(&mut self, side: usize, transmit: Transmit) {
        self.sent[side] += 1;
        assert_eq!(transmit.route.local, self.sites[side].inside);
        let to = transmit.route.remote;
        let from = self.sites[side].out(to);
        // Private addresses of the other site lead nowhere; its NAT decides on arrival.
        let routed = to.ip() == self.sites[1 - side].outside.ip();
        if routed && !self.cut && !self.chance.random_bool(self.loss) {
            self.order += 1;
            let datagram = [to.port().to_be_bytes().to_vec(), transmit.payload].concat();
            self.flying.push((self.now + DELAY, self.order, 1 - side, from, datagram));
        }
    }

    fn arrive(&mut self, side: usize, from: SocketAddr, datagram: &[u8]) {
        let port = u16::from_be_bytes([datagram[0], datagram[1]]);
        if self.sites[side].lets_in(port, from) {
            let route = Route::udp(self.sites[side].inside, from);
            assert!(self.agents[side].handle_datagram(route, &datagram[2..], self.now));
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.drain();
            let arrival = self.flying.iter().map(|flying| flying.0).min();
            let timer = |agent: &Agent| agent.poll_timeout().map(|(at, _)| at);
            let next = [arrival, timer(&self.agents[0]), timer(&self.agents[1])];
            let Some(next) = next.into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            self.flying.sort_by_key(|flying| (flying.0, flying.1));
            while self.flying.first().is_some_and(|flying| flying.0 <= self.now) {
                let (_, _, side, from, datagram) = self.flying.remove(0);
                self.arrive(side, from, &datagram);
            }
            for side in [ALICE, BOB] {
                self.agents[side].handle_timeout(self.now);
            }
        }
        self.now = end;
    }

    /// When a side selected for the first time.
    fn selected(&self, side: usize) -> Option<(Duration, Route)> {
        self.events[side].iter().find_map(|(at, event)| match event {
            Output::Selected { route, .. } => Some((*at, *route)),
            Output::Transmit(_)
            | Output::Restored { .. }
            | Output::Lost { .. }
            | Output::CandidatesChanged
            | Output::Failed => None,
        })
    }

    fn take_events(&mut self, side: usize) -> Vec<Output> {
        std::mem::take(&mut self.events[side]).into_iter().map(|(_, event)| event).collect()
    }
}

use Filtering::{Address, AddressAndPort, Anybody};
use Mapping::{Independent, Symmetric};

const PORT_RESTRICTED: (Mapping, Filtering) = (Independent, AddressAndPort);
const ADDRESS_RESTRICTED: (Mapping, Filtering) = (Independent, Address);
const PUBLIC: (Mapping, Filtering) = (Mapping::None, AddressAndPort);
const SYMMETRIC: (Mapping, Filtering) = (Symmetric, AddressAndPort);

#[test]
fn two_port_restricted_sides_meet_in_two_delays_and_a_half() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 1);
    world.introduce();
    world.run(10 * SECOND);
    for side in [ALICE, BOB] {
        let (at, route) = world.selected(side).expect("a direct path");
        assert_eq!(route.remote, world.sites[1 - side].outside);
        assert!(at <= 3 * DELAY, "side {side} took {at:?}");
        assert_eq!(world.agents[side].report().state, State::Selected);
    }
    // Neither side needs a round trip beyond the first that works.
    for side in [ALICE, BOB] {
        assert!(world.selected(side).unwrap().0 <= 2 * DELAY, "side {side}");
    }
}

#[test]
fn every_simple_pair_of_networks_gets_a_path() {
    let kinds = [PUBLIC, (Independent, Anybody), ADDRESS_RESTRICTED, PORT_RESTRICTED, SYMMETRIC];
    for (x, a) in kinds.into_iter().enumerate() {
        for (y, b) in kinds.into_iter().enumerate() {
            let hard = |one: (Mapping, Filtering), two: (Mapping, Filtering)| {
                one.0 == Symmetric && (two.0 == Symmetric || two == PORT_RESTRICTED)
            };
            let stuck = hard(a, b) || hard(b, a)
                // A symmetric side appears from a port nobody sent to.
                || (a == PUBLIC && b.0 == Symmetric) || (b == PUBLIC && a.0 == Symmetric);
            let mut world = World::new(a, b, 2);
            world.introduce();
            world.run(10 * SECOND);
            for side in [ALICE, BOB] {
                assert_eq!(world.selected(side).is_none(), stuck, "{x} with {y}, side {side}");
            }
        }
    }
}

#[test]
fn a_symmetric_side_is_met_by_its_peer_reflexive_address() {
    let mut world = World::new(ADDRESS_RESTRICTED, SYMMETRIC, 3);
    world.introduce();
    world.run(5 * SECOND);
    let (_, route) = world.selected(ALICE).expect("a path to an unannounced port");
    assert_ne!(route.remote, world.sites[BOB].outside);
    assert_eq!(route.remote.ip(), world.sites[BOB].outside.ip());
    let report = world.agents[ALICE].report();
    let pair = report.pairs.iter().find(|pair| pair.route == route).unwrap();
    assert_eq!(pair.remote.kind, CandidateKind::PeerReflexive);
    assert_eq!(pair.rtt, Some(2 * DELAY));
}

#[test]
fn an_impossible_pair_fails_once_and_goes_on_quietly() {
    let mut world = World::new(SYMMETRIC, PORT_RESTRICTED, 4);
    world.introduce();
    world.run(5 * SECOND / 2);
    assert_eq!(world.take_events(ALICE), [Output::Failed]);
    assert_eq!(world.agents[ALICE].report().state, State::Waiting);
    let first = world.sent[ALICE];
    assert!(first <= 15, "{first} checks for two candidates");
    world.run(600 * SECOND);
    assert_eq!(world.take_events(ALICE), []);
    let background = world.sent[ALICE] - first;
    assert!((10..40).contains(&background), "{background} checks in ten minutes");
}

#[test]
fn the_background_finds_a_path_that_opens_later() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 5);
    world.cut = true;
    world.introduce();
    world.run(20 * SECOND);
    world.cut = false;
    world.run(60 * SECOND);
    assert!(world.selected(ALICE).is_some() && world.selected(BOB).is_some());
}

#[test]
fn one_packet_in_ten_lost_stops_nobody() {
    for seed in 0..50 {
        let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, seed);
        world.loss = 0.1;
        world.introduce();
        world.run(SECOND);
        assert!(world.selected(ALICE).is_some(), "seed {seed}");
        assert!(world.selected(BOB).is_some(), "seed {seed}");
    }
}

#[test]
fn an_idle_path_is_kept_by_few_checks() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 6);
    world.introduce();
    world.run(4 * SECOND);
    let before = world.sent[ALICE];
    world.run(100 * SECOND);
    // Its own ten checks and the answers to the other's ten.
    let sent = world.sent[ALICE] - before;
    assert!((18..=22).contains(&sent), "{sent}");
    for agent in &mut world.agents {
        let lives = |n| Field::Known { value: n * SECOND, samples: 1 };
        agent.keep(Keepalive::of(lives(300), lives(40)));
    }
    world.run(10 * SECOND);
    let before = world.sent[ALICE];
    world.run(200 * SECOND);
    let sent = world.sent[ALICE] - before;
    assert!((18..=22).contains(&sent), "half of forty seconds: {sent}");
    let route = world.selected(ALICE).unwrap().1;
    world.run(SECOND);
    for _ in 0..50 {
        let before = world.sent[ALICE] + world.sent[BOB];
        world.run(SECOND);
        world.agents[ALICE].traffic(route, world.now);
        let back = world.selected(BOB).unwrap().1;
        world.agents[BOB].traffic(back, world.now);
        assert_eq!(world.sent[ALICE] + world.sent[BOB], before);
    }
}

#[test]
fn a_lost_path_is_told_and_comes_back() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 7);
    world.introduce();
    world.run(4 * SECOND);
    let route = world.selected(ALICE).unwrap().1;
    world.take_events(ALICE);
    world.take_events(BOB);
    world.cut = true;
    world.run(14 * SECOND);
    assert_eq!(world.take_events(ALICE)[0], Output::Lost { route });
    assert!(matches!(world.take_events(BOB)[0], Output::Lost { .. }));
    world.cut = false;
    world.run(40 * SECOND);
    assert!(world.selected(ALICE).is_some() && world.selected(BOB).is_some());
}

#[test]
fn a_path_that_transport_gives_up_is_checked_again_at_once() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 8);
    world.introduce();
    world.run(4 * SECOND);
    let route = world.selected(ALICE).unwrap().1;
    world.take_events(ALICE);
    let before = world.now;
    world.agents[ALICE].path_failed(route, world.now);
    world.run(SECOND);
    let events = std::mem::take(&mut world.events[ALICE]);
    assert_eq!(events[0].1, Output::Lost { route });
    let Output::Selected { route: again, .. } = events[1].1 else { panic!("{events:?}") };
    assert_eq!(again, route);
    assert_eq!(events[1].0, before - world.start + 2 * DELAY);
}

#[test]
fn a_path_in_doubt_is_checked_quickly_and_kept() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 8);
    world.introduce();
    world.run(4 * SECOND);
    let route = world.selected(ALICE).unwrap().1;
    world.take_events(ALICE);
    let before = world.now - world.start;
    world.agents[ALICE].doubt(route, world.now);
    world.run(SECOND);
    let events = std::mem::take(&mut world.events[ALICE]);
    assert_eq!(events, [(before + 2 * DELAY, Output::Restored { route })]);
    // Silence is lost only after some seconds, and others are tried before that.
    world.cut = true;
    let (before, sent) = (world.now - world.start, world.sent[ALICE]);
    world.agents[ALICE].doubt(route, world.now);
    world.run(SECOND);
    assert!((7..=30).contains(&(world.sent[ALICE] - sent)), "{}", world.sent[ALICE] - sent);
    world.run(9 * SECOND);
    let events = std::mem::take(&mut world.events[ALICE]);
    assert_eq!(events[0].1, Output::Lost { route });
    let lost_after = events[0].0 - before;
    assert!((3 * SECOND..6 * SECOND).contains(&lost_after), "{lost_after:?}");
}

#[test]
fn what_arrives_on_a_path_in_doubt_says_nothing_of_the_way_out() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 9);
    world.introduce();
    world.run(4 * SECOND);
    let route = world.selected(ALICE).unwrap().1;
    world.cut = true;
    world.agents[ALICE].doubt(route, world.now);
    for _ in 0..100 {
        world.agents[ALICE].traffic(route, world.now);
        world.run(100 * MS);
    }
    assert!(world.take_events(ALICE).contains(&Output::Lost { route }));
}

#[test]
fn a_restart_proves_paths_anew_without_losing_the_chosen_one() {
    let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 9);
    world.introduce();
    world.run(4 * SECOND);
    world.take_events(ALICE);
    let before = world.sent[ALICE];
    world.agents[ALICE].restart(world.now);
    world.drain();
    assert!(world.sent[ALICE] > before);
    world.run(5 * SECOND);
    let route = world.agents[ALICE].selected().expect("a path");
    assert_eq!(world.take_events(ALICE), [Output::Restored { route }]);
}

#[test]
fn a_side_that_starts_late_loses_no_more_than_its_lateness() {
    for late in [5, 13, 60, 170, 400, 1000] {
        let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 10);
        for side in [ALICE, BOB] {
            let own = world.sites[side].candidates();
            world.agents[side].set_local(own, world.now);
        }
        let lists = [ALICE, BOB].map(|side| world.agents[side].local_candidates());
        world.agents[ALICE].set_remote(lists[BOB].clone(), world.now);
        world.run(MS * late);
        world.agents[BOB].set_remote(lists[ALICE].clone(), world.now);
        world.run(SECOND);
        for side in [ALICE, BOB] {
            let (at, _) = world.selected(side).expect("a direct path");
            let bound = MS * late + 4 * DELAY + 15 * MS;
            assert!(at <= bound, "{late} ms late, side {side}: {at:?}");
        }
    }
}

#[test]
fn losses_do_not_take_an_idle_path_away() {
    for seed in 0..10 {
        let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, seed);
        world.loss = 0.1;
        world.introduce();
        world.run(600 * SECOND);
        let lost = |side: usize| {
            let lost = |event: &&(Duration, Output)| matches!(event.1, Output::Lost { .. });
            world.events[side].iter().filter(lost).count()
        };
        assert_eq!((lost(ALICE), lost(BOB)), (0, 0), "seed {seed}");
    }
}

#[test]
fn a_loss_on_one_side_only_is_mended_by_the_other() {
    for side in [ALICE, BOB] {
        let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, 11);
        world.introduce();
        world.run(4 * SECOND);
        let route = world.selected(side).unwrap().1;
        world.take_events(side);
        world.agents[side].path_failed(route, world.now);
        world.run(6 * SECOND);
        assert_eq!(world.selected(side).map(|(_, route)| route), Some(route), "side {side}");
    }
}

#[test]
fn one_seed_gives_the_same_bytes() {
    let run = |seed| {
        let mut world = World::new(PORT_RESTRICTED, PORT_RESTRICTED, seed);
        world.introduce();
        world.flying.iter().map(|flying| flying.4.clone()).collect::<Vec<_>>()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}
