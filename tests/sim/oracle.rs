//! The oracle agrees with the boxes: every pair of behaviours is tried packet by packet, with
//! every order of a few probes, and each probe answered at once.

use std::net::SocketAddr;
use std::time::Instant;

use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use world::nat::{Dependence, Hairpin, NatBox, NatConfig, Ports};
use world::oracle::{Expectation, Side, direct_possible};
use world::{Packet, socket};

/// Probes of each side. Two suffice to find every path (one to open, one to use it); a third
/// shows that more orders change nothing.
const PROBES: u32 = 3;

/// One endpoint and the boxes before it, its own first.
struct End {
    inner: SocketAddr,
    boxes: Vec<NatBox>,
    /// What a server sees, and what the other side sends to.
    observed: SocketAddr,
    /// Sources it has heard.
    learnt: Option<SocketAddr>,
}

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
            let seen = bench.leave(end, socket("203.0.113.1", 3478));
            bench.ends[end].observed = seen;
        }
        bench
    }

    /// Sends from one end; the source that the outer world sees.
    fn leave(&mut self, end: usize, to: SocketAddr) -> SocketAddr {
        let End { inner, boxes, .. } = &mut self.ends[end];
        let mut packet = Packet::new(*inner, to, Vec::new());
        for nat in boxes.iter_mut().chain(&mut self.carrier) {
            nat.outbound(&mut packet, self.now, &mut self.rng).expect("there are free ports");
        }
        packet.src
    }

    /// Whether a packet from outside, or through a hairpin, reaches the end.
    fn enter(&mut self, end: usize, from: SocketAddr, to: SocketAddr) -> bool {
        let now = self.now;
        let mut packet = Packet::new(from, to, Vec::new());
        if let Some(carrier) = &mut self.carrier {
            let turns = carrier.config().hairpin == Hairpin::On;
            if !turns || carrier.inbound(&mut packet, now).is_err() {
                return false;
            }
        }
        let mut boxes = self.ends[end].boxes.iter_mut().rev();
        boxes.all(|nat| nat.inbound(&mut packet, now).is_ok())
    }

    /// One probe to the other side's observed address and to what was heard from it. True when
    /// an answer came back: a path both ways.
    fn probe(&mut self, end: usize) -> bool {
        let other = 1 - end;
        let targets = [Some(self.ends[other].observed), self.ends[end].learnt];
        targets.into_iter().flatten().any(|to| self.ask(end, other, to))
    }

    fn ask(&mut self, end: usize, other: usize, to: SocketAddr) -> bool {
        let from = self.leave(end, to);
        if !self.enter(other, from, to) {
            return false;
        }
        self.ends[other].learnt = Some(from);
        let answer_from = self.leave(other, from);
        self.enter(end, answer_from, from)
    }
}

impl End {
    fn new(number: u8, configs: &[NatConfig]) -> Self {
        let inner = SocketAddr::from(([192, 168, number, 10], 5000 + u16::from(number)));
        let outer = |layer: usize| format!("198.51.{number}.{layer}").parse().expect("an address");
        let boxes = configs.iter().enumerate();
        let boxes = boxes.map(|(layer, config)| NatBox::new(*config, outer(layer))).collect();
        Self { inner, boxes, observed: inner, learnt: None }
    }
}

/// Whether some order of probes finds a path.
fn search(configs: [&[NatConfig]; 2], carrier: Option<NatConfig>) -> bool {
    let orders = (0u32..1 << (2 * PROBES)).filter(|order| order.count_ones() == PROBES);
    orders.into_iter().any(|order| {
        let mut bench = Bench::new(configs, carrier);
        (0..2 * PROBES).any(|turn| bench.probe((order >> turn & 1) as usize))
    })
}

fn side(first_box: u32, configs: &[NatConfig]) -> Side {
    let numbered = configs.iter().zip(first_box..);
    numbered.fold(Side::public(), |side, (config, number)| side.then(number, *config))
}

fn agree(a: &[NatConfig], b: &[NatConfig]) {
    let expected = direct_possible(&side(1, a), &side(100, b));
    let found = search([a, b], None);
    assert_eq!(expected == Expectation::Direct, found, "{expected:?} for\n{a:?}\n{b:?}");
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
    let ports = [Ports::Preserving, Ports::Sequential { step: 1 }, Ports::Random];
    let all = behaviours(&ports);
    assert_eq!(all.len(), 27);
    for a in &all {
        agree(&[*a], &[]);
        for b in &all {
            agree(&[*a], &[*b]);
        }
    }
}

#[test]
fn the_oracle_agrees_with_every_cascade() {
    let all = behaviours(&[Ports::Random]);
    for inner in &all {
        for outer in &all {
            agree(&[*inner, *outer], &[]);
            for single in &all {
                agree(&[*inner, *outer], &[*single]);
                agree(&[*inner, *outer], &[NatConfig::PORT_RESTRICTED, *single]);
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
                let sides = [(1, a), (2, b)].map(|(n, c)| Side::behind(n, *c).then(9, carrier));
                let expected = direct_possible(&sides[0], &sides[1]);
                let found = search([&[*a], &[*b]], Some(carrier));
                assert_eq!(
                    expected == Expectation::Direct,
                    found,
                    "{expected:?} for\n{a:?}\n{b:?}\nbelow {carrier:?}"
                );
            }
        }
    }
}

#[test]
fn well_known_pairs() {
    use Expectation::{Direct, Guessing, Relay};
    let sequential = NatConfig::SYMMETRIC.with_ports(Ports::Sequential { step: 1 });
    let linux = NatConfig::SYMMETRIC.with_ports(Ports::Preserving);
    for (a, b, expected) in [
        (NatConfig::FULL_CONE, NatConfig::SYMMETRIC, Direct),
        (NatConfig::RESTRICTED, NatConfig::SYMMETRIC, Direct),
        (NatConfig::PORT_RESTRICTED, NatConfig::PORT_RESTRICTED, Direct),
        (linux, NatConfig::PORT_RESTRICTED, Direct),
        (NatConfig::PORT_RESTRICTED, NatConfig::SYMMETRIC, Guessing),
        (NatConfig::PORT_RESTRICTED, sequential, Guessing),
        (sequential, sequential, Guessing),
        (sequential, NatConfig::SYMMETRIC, Relay),
        (NatConfig::SYMMETRIC, NatConfig::SYMMETRIC, Relay),
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
