//! The oracle agrees with the boxes: every pair of behaviours is tried packet by packet.
//!
//! *Simply*: every order of a few probes, each answered at once. *By looking*: as one does who
//! guesses, but with luck: the prober is told which port the target's box gave, and both are told
//! what a box that counts gives next. To be told a port that nobody could have known has a price:
//! a few probes that hit nothing, of which the target does not know how many they were.

use std::net::SocketAddr;
use std::time::Instant;

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use world::nat::{Dependence, Hairpin, NatBox, NatConfig, Ports};
use world::oracle::{Expectation, Side, Technique, direct_possible};
use world::{Packet, socket};

/// Probes of each side. Two suffice to find every path (one to open, one to use it); a third
/// shows that more orders change nothing.
const PROBES: u32 = 3;
/// Probes that hit nothing before one hits a port that was drawn by chance.
const MISSES: u16 = 3;
/// Sockets of an end: the one that spoke to the server, and one that has not spoken yet.
const MAIN: u16 = 5000;
const FRESH: u16 = 6000;

/// One endpoint and the boxes before it, its own first.
#[derive(Clone)]
struct End {
    host: [u8; 4],
    boxes: Vec<NatBox>,
    /// What a server sees, and what the other side sends to.
    observed: SocketAddr,
    /// The source it heard last.
    learnt: Option<SocketAddr>,
}

#[derive(Clone)]
struct Bench {
    now: Instant,
    rng: ChaCha12Rng,
    ends: [End; 2],
    /// A box above both.
    carrier: Option<NatBox>,
}

impl Bench {
    /// Two endpoints that have both spoken to a server.
    fn new(configs: [&[NatConfig]; 2], carrier: Option<NatConfig>) -> Self {
        let mut bench = Self {
            now: Instant::now(),
            rng: ChaCha12Rng::seed_from_u64(11),
            ends: [End::new(1, configs[0]), End::new(2, configs[1])],
            carrier: carrier.map(|config| NatBox::new(config, socket("198.51.100.1", 0).ip())),
        };
        for end in 0..2 {
            let seen = bench.leave(end, MAIN, socket("203.0.113.1", 3478));
            bench.ends[end].observed = seen;
        }
        bench
    }

    /// Sends from a socket of one end; the source that the outer world sees.
    fn leave(&mut self, end: usize, port: u16, to: SocketAddr) -> SocketAddr {
        let End { host, boxes, .. } = &mut self.ends[end];
        let mut packet = Packet::new(SocketAddr::from((*host, port)), to, Vec::new());
        for nat in boxes.iter_mut().chain(&mut self.carrier) {
            nat.outbound(&mut packet, self.now, &mut self.rng).expect("there are free ports");
        }
        packet.src
    }

    /// The source that the next packet will have, if counting on tells it: another chance gives
    /// another answer.
    fn foretell(&self, end: usize, port: u16, to: SocketAddr) -> SocketAddr {
        let mut other = self.clone();
        other.rng = ChaCha12Rng::seed_from_u64(12);
        other.leave(end, port, to)
    }

    /// Whether a packet from outside, or through a hairpin, reaches the socket.
    fn enter(&mut self, end: usize, port: u16, from: SocketAddr, to: SocketAddr) -> bool {
        let now = self.now;
        let mut packet = Packet::new(from, to, Vec::new());
        if let Some(carrier) = &mut self.carrier {
            let turns = carrier.config().hairpin == Hairpin::On;
            if !turns || carrier.inbound(&mut packet, now).is_err() {
                return false;
            }
        }
        let End { host, boxes, .. } = &mut self.ends[end];
        let passes = boxes.iter_mut().rev().all(|nat| nat.inbound(&mut packet, now).is_ok());
        passes && packet.dst == SocketAddr::from((*host, port))
    }

    /// One probe to the other side's observed address and to what was heard from it. True when
    /// there is a path.
    fn probe(&mut self, end: usize) -> bool {
        let targets = [Some(self.ends[1 - end].observed), self.ends[end].learnt];
        targets.into_iter().flatten().any(|to| self.ask(end, [MAIN; 2], to))
    }

    /// A question from one end to an address of the other, and its answer, which counts when it
    /// comes back over the same two addresses. `sockets`: the asking end's and the other's.
    fn ask(&mut self, end: usize, sockets: [u16; 2], to: SocketAddr) -> bool {
        let other = 1 - end;
        let from = self.leave(end, sockets[0], to);
        if !self.enter(other, sockets[1], from, to) {
            return false;
        }
        self.ends[other].learnt = Some(from);
        let answer_from = self.leave(other, sockets[1], from);
        if !self.enter(end, sockets[0], answer_from, from) {
            return false;
        }
        self.ends[end].learnt = Some(answer_from);
        answer_from == to
    }

    /// The target opens a mapping towards the prober, who probes. `aim` says what the target
    /// takes for the source of the probes.
    fn guess(&mut self, prober: usize, socket: u16, aim: Aim) -> bool {
        let target = 1 - prober;
        let somewhere = self.ends[target].observed;
        let to = match aim {
            Aim::Observed => Some(self.ends[prober].observed),
            Aim::Heard => self.ends[target].learnt,
            Aim::Foretold => {
                (socket == FRESH).then(|| self.foretell(prober, socket, nobodys(somewhere, 0)))
            }
        };
        let Some(to) = to else { return false };
        let foretold = self.foretell(target, FRESH, to);
        let opened = self.leave(target, FRESH, to);
        if opened != foretold {
            for miss in 1..=MISSES {
                self.leave(prober, socket, nobodys(opened, miss));
            }
        }
        self.ask(prober, [socket, FRESH], opened)
    }
}

/// What a target knows of the source of the probes.
#[derive(Clone, Copy)]
enum Aim {
    Observed,
    Heard,
    Foretold,
}

/// A port that no box gives out.
fn nobodys(address: SocketAddr, number: u16) -> SocketAddr {
    SocketAddr::new(address.ip(), 1 + number)
}

impl End {
    fn new(number: u8, configs: &[NatConfig]) -> Self {
        let host = [192, 168, number, 10];
        let outer = |layer: usize| format!("198.51.{number}.{layer}").parse().expect("an address");
        let boxes = configs.iter().enumerate();
        let boxes = boxes.map(|(layer, config)| NatBox::new(*config, outer(layer))).collect();
        Self { host, boxes, observed: SocketAddr::from((host, MAIN)), learnt: None }
    }
}

/// Whether some order of probes finds a path.
fn is_simple(start: &Bench) -> bool {
    let orders = (0u32..1 << (2 * PROBES)).filter(|order| order.count_ones() == PROBES);
    orders.into_iter().any(|order| {
        let mut bench = start.clone();
        (0..2 * PROBES).any(|turn| bench.probe((order >> turn & 1) as usize))
    })
}

/// Whether one finds a path who guesses right at once.
fn is_guessable(start: &Bench) -> bool {
    let mut after_trying = start.clone();
    for turn in 0..2 * PROBES {
        after_trying.probe((turn % 2) as usize);
    }
    [0, 1].into_iter().any(|prober| {
        [MAIN, FRESH].into_iter().any(|socket| {
            let mut aims = [Aim::Observed, Aim::Heard, Aim::Foretold].into_iter();
            aims.any(|aim| after_trying.clone().guess(prober, socket, aim))
        })
    })
}

/// Compares with what the oracle says.
fn agree(a: &Side, b: &Side, start: &Bench) {
    let expected = direct_possible(a, b);
    let agrees = match expected {
        Expectation::Direct => is_simple(start),
        Expectation::Guessing(_) => !is_simple(start) && is_guessable(start),
        Expectation::Relay => !is_simple(start) && !is_guessable(start),
    };
    assert!(agrees, "not {expected:?}:\n{a:?}\n{b:?}");
}

fn side(first_box: u32, configs: &[NatConfig]) -> Side {
    let numbered = configs.iter().zip(first_box..);
    numbered.fold(Side::public(), |side, (config, number)| side.then(number, *config))
}

fn agree_apart(a: &[NatConfig], b: &[NatConfig]) {
    agree(&side(1, a), &side(100, b), &Bench::new([a, b], None));
}

fn behaviours(ports: &[Ports]) -> Vec<NatConfig> {
    let of = |ports: Ports| {
        Dependence::ALL.into_iter().flat_map(move |mapping| {
            Dependence::ALL.map(|filtering| {
                NatConfig::SYMMETRIC.with_ports(ports).with_behaviour(mapping, filtering)
            })
        })
    };
    ports.iter().flat_map(|ports| of(*ports)).collect()
}

#[test]
fn the_oracle_agrees_with_every_pair_of_boxes() {
    let ports = [Ports::Preserving, Ports::Sequential { step: -2 }, Ports::Random];
    let all = behaviours(&ports);
    assert_eq!(all.len(), 27);
    for a in &all {
        agree_apart(&[*a], &[]);
        for b in &all {
            agree_apart(&[*a], &[*b]);
        }
    }
}

#[test]
fn the_oracle_agrees_with_every_cascade() {
    let all = behaviours(&[Ports::Random]);
    for inner in &all {
        for outer in &all {
            agree_apart(&[*inner, *outer], &[]);
            for single in &all {
                agree_apart(&[*inner, *outer], &[*single]);
                agree_apart(&[*inner, *outer], &[NatConfig::PORT_RESTRICTED, *single]);
            }
        }
    }
}

#[test]
fn the_oracle_agrees_with_cascades_that_count() {
    let ports = [Ports::Preserving, Ports::Sequential { step: 1 }, Ports::Random];
    let strict = |mapping| NatConfig::SYMMETRIC.with_behaviour(mapping, Dependence::AddressAndPort);
    let all = ports.map(|ports| Dependence::ALL.map(|mapping| strict(mapping).with_ports(ports)));
    let all = all.as_flattened();
    for inner in all {
        for outer in all {
            for single in all {
                agree_apart(&[*inner, *outer], &[*single]);
            }
        }
    }
}

#[test]
fn the_oracle_agrees_with_every_pair_below_one_carrier() {
    let all = behaviours(&[Ports::Random]);
    for carrier in all.iter().flat_map(|config| [*config, config.with_hairpin()]) {
        for a in &all {
            for b in &all {
                let [left, right] =
                    [(1, a), (2, b)].map(|(n, c)| Side::behind(n, *c).then(9, carrier));
                agree(&left, &right, &Bench::new([&[*a], &[*b]], Some(carrier)));
            }
        }
    }
}

#[test]
fn well_known_pairs() {
    use Expectation::{Direct, Guessing, Relay};
    let symmetric = NatConfig::SYMMETRIC;
    let counting = symmetric.with_ports(Ports::Sequential { step: 1 });
    let block = symmetric.with_ports(Ports::Block { first: 30_000, len: 2048 });
    let by_address = symmetric.with_behaviour(Dependence::Address, Dependence::Address);
    let linux = symmetric.with_ports(Ports::Preserving);
    let strict = NatConfig::PORT_RESTRICTED;
    for (a, b, expected) in [
        (NatConfig::FULL_CONE, symmetric, Direct),
        (NatConfig::RESTRICTED, symmetric, Direct),
        (strict, strict, Direct),
        (strict, linux, Direct),
        (strict, symmetric, Guessing(Technique::Birthday)),
        (linux, symmetric, Guessing(Technique::Birthday)),
        (strict, block, Guessing(Technique::Block)),
        (strict, counting, Guessing(Technique::Window)),
        (counting, counting, Guessing(Technique::Aligned)),
        (by_address, symmetric, Guessing(Technique::ByAddress)),
        (counting, symmetric, Relay),
        (block, block, Relay),
        (symmetric, symmetric, Relay),
    ] {
        let (a, b) = (Side::behind(1, a), Side::behind(2, b));
        assert_eq!(direct_possible(&a, &b), expected, "{a:?} x {b:?}");
        assert_eq!(direct_possible(&b, &a), expected, "{b:?} x {a:?}");
    }
}

#[test]
fn neighbours_carriers_and_ipv6() {
    use Expectation::{Direct, Relay};
    let symmetric = NatConfig::SYMMETRIC;
    let home = |number, carrier| Side::behind(number, NatConfig::PORT_RESTRICTED).then(9, carrier);
    let cone = NatConfig::PORT_RESTRICTED;

    let same_lan = direct_possible(&Side::behind(1, symmetric), &Side::behind(1, symmetric));
    assert_eq!(same_lan, Direct);
    assert_eq!(direct_possible(&home(1, cone), &home(2, cone)), Relay, "no hairpin");
    let hairpin = cone.with_hairpin();
    assert_eq!(direct_possible(&home(1, hairpin), &home(2, hairpin)), Direct);
    let in_carrier = Side::behind(9, cone);
    assert_eq!(direct_possible(&in_carrier, &home(1, cone)), Direct, "local address");
    let six = |number| Side::behind(number, symmetric).with_ipv6();
    assert_eq!(direct_possible(&six(1), &six(2)), Direct);
    assert_eq!(direct_possible(&six(1), &Side::behind(2, symmetric)), Relay, "one has no IPv6");
}
