//! What a peer finds out about its NAT is what the boxes on its way are configured to do.

use std::time::Duration;

use p2sp_proto::traversal::nat::{
    Allocation, Dependence as Found, Field, Hairpin as Turn, Profile, Unsolicited as Left,
};
use rand::Rng as _;
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;
use world::machines::Pickup;
use world::nat::{Dependence, Hairpin, NatConfig, Ports, Unsolicited};
use world::oracle::Side;
use world::scenario::Stage;
use world::{Link, Packet, socket};

/// What the server has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Server {
    OneIp,
    TwoIps,
}

const SERVERS: [Server; 2] = [Server::OneIp, Server::TwoIps];
const PORTS: [Ports; 4] = [
    Ports::Preserving,
    Ports::Sequential { step: 2 },
    Ports::Block { first: 30_000, len: 2048 },
    Ports::Random,
];
/// All flights, with every request repeated.
const MEASURED: Duration = Duration::from_secs(6);

fn stage(server: Server, seed: u64) -> Stage {
    match server {
        Server::OneIp => Stage::new(seed),
        Server::TwoIps => Stage::with_second_ip(seed),
    }
}

/// The boxes on the way of a peer, its own first.
fn side(layers: &[NatConfig]) -> Side {
    let layers = layers.iter().zip(1..);
    layers.fold(Side::public(), |side, (config, number)| side.then(number, *config))
}

fn measure(layers: &[NatConfig], server: Server, seed: u64, loss: f64) -> Profile {
    let mut stage = stage(server, seed);
    let site = stage.place(&side(layers));
    stage.add_peer("alice", &site, Pickup::AtOnce);
    stage.set_line("alice", Link::millis(20).with_loss(loss));
    let settled = stage.wait_registered(Duration::from_secs(10));
    settled.and_then(|()| Ok(stage.world.run_for(MEASURED)?)).expect("a peer registers");
    stage.nat("alice")
}

// ---- what the configuration says

fn is_stable(config: &NatConfig) -> bool {
    config.mapping == Dependence::Endpoint || config.ports == Ports::Preserving
}

/// One IP cannot tell endpoint and address apart.
fn told(by: Dependence, server: Server) -> Found {
    match (by, server) {
        (Dependence::AddressAndPort, _) => Found::AddressAndPort,
        (_, Server::OneIp) => Found::NotPort,
        (Dependence::Address, Server::TwoIps) => Found::Address,
        (Dependence::Endpoint, Server::TwoIps) => Found::Endpoint,
    }
}

fn mapping(layers: &[NatConfig]) -> Dependence {
    let unstable = layers.iter().filter(|config| !is_stable(config));
    unstable.map(|config| config.mapping).max().unwrap_or(Dependence::Endpoint)
}

fn filtering(layers: &[NatConfig]) -> Dependence {
    layers.iter().map(|config| config.filtering).max().unwrap_or(Dependence::Endpoint)
}

/// The outermost box that chooses at all.
fn ports(layers: &[NatConfig]) -> Ports {
    let chosen = layers.iter().rev().map(|config| config.ports);
    chosen.into_iter().find(|ports| *ports != Ports::Preserving).unwrap_or(Ports::Preserving)
}

fn unsolicited(layers: &[NatConfig]) -> Option<Left> {
    if filtering(layers) != Dependence::AddressAndPort
        || mapping(layers) == Dependence::AddressAndPort
    {
        return None;
    }
    let outermost =
        layers.iter().rev().find(|config| config.filtering == Dependence::AddressAndPort)?;
    Some(match outermost.unsolicited {
        Unsolicited::AcceptState => Left::Remembered,
        Unsolicited::Drop | Unsolicited::Reject => Left::Forgotten,
    })
}

fn hairpin(layers: &[NatConfig], server: Server) -> Option<Turn> {
    let told = told(mapping(layers), server);
    if !matches!(told, Found::Endpoint | Found::NotPort) {
        return None;
    }
    let reachable = layers.iter().all(|c| is_stable(c) || c.filtering == Dependence::Endpoint);
    match layers.last()?.hairpin {
        Hairpin::On if reachable => Some(Turn::Works),
        Hairpin::On | Hairpin::Off => Some(Turn::Fails),
    }
}

fn is_chosen(found: Allocation, ports: Ports) -> bool {
    match (found, ports) {
        (Allocation::Preserving, Ports::Preserving) | (Allocation::Random, Ports::Random) => true,
        (Allocation::Sequential { step }, Ports::Sequential { step: true_step }) => {
            step == true_step
        }
        (Allocation::Block { first, last }, Ports::Block { first: true_first, len }) => {
            let margin = len / 8;
            first >= true_first - margin
                && last <= true_first + len + margin
                && last - first >= len / 2
        }
        _ => false,
    }
}

/// How much a measurement may leave open.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Line {
    Clean,
    Lossy,
}

/// What is wrong with a profile.
fn faults(found: &Profile, layers: &[NatConfig], server: Server, line: Line) -> Vec<String> {
    let mut faults = Vec::new();
    let mut check = |what: &str, fits: Option<bool>, needed: bool| {
        if fits == Some(false) || (fits.is_none() && needed && line == Line::Clean) {
            faults.push(what.to_owned());
        }
    };
    // A lost answer from the second IP leaves what one IP can tell.
    let weaker = |found: Found, by: Dependence| {
        line == Line::Lossy && found == Found::NotPort && by != Dependence::AddressAndPort
    };
    let depends = |field: Field<Found>, by: Dependence| {
        field.value().map(|found| found == told(by, server) || weaker(found, by))
    };
    check("mapping", depends(found.mapping, mapping(layers)), true);
    check("filtering", depends(found.filtering, filtering(layers)), true);
    let chosen = found.allocation.value().map(|found| is_chosen(found, ports(layers)));
    check("allocation", chosen, true);
    let left = unsolicited(layers);
    check(
        "unsolicited",
        found.unsolicited.value().map(|found| Some(found) == left),
        left.is_some(),
    );
    let turn = hairpin(layers, server);
    // Where the router remembers, what arrives too early is in the way.
    let needed = turn.is_some() && left != Some(Left::Remembered);
    check("hairpin", found.hairpin.value().map(|found| Some(found) == turn), needed);
    faults
}

/// Every behaviour of one box.
fn boxes() -> Vec<NatConfig> {
    let mut all = Vec::new();
    for mapping in Dependence::ALL {
        for filtering in Dependence::ALL {
            let box_with =
                |ports| NatConfig::FULL_CONE.with_behaviour(mapping, filtering).with_ports(ports);
            all.extend(PORTS.map(box_with));
        }
    }
    all
}

fn check_all(ways: &[Vec<NatConfig>], loss: f64) {
    let line = if loss > 0.0 { Line::Lossy } else { Line::Clean };
    let mut wrong = Vec::new();
    for (seed, layers) in (1..).zip(ways) {
        for server in SERVERS {
            let found = measure(layers, server, seed, loss);
            let faults = faults(&found, layers, server, line);
            if !faults.is_empty() {
                wrong.push(format!("{faults:?}: {server:?}, seed {seed}, {layers:?}\n{found}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong profiles:\n{}", wrong.len(), wrong.join("\n\n"));
}

fn single(change: impl Fn(NatConfig) -> NatConfig) -> Vec<Vec<NatConfig>> {
    boxes().into_iter().map(|config| vec![change(config)]).collect()
}

#[test]
fn every_box_is_known_by_its_behaviour() {
    check_all(&single(|config| config), 0.0);
}

#[test]
fn a_loss_leaves_things_open_and_makes_nothing_wrong() {
    check_all(&single(NatConfig::with_hairpin), 0.05);
}

#[test]
fn hairpins_are_found() {
    check_all(&single(NatConfig::with_hairpin), 0.0);
}

#[test]
fn routers_that_remember_or_reject_are_found() {
    check_all(&single(|config| config.with_unsolicited(Unsolicited::AcceptState)), 0.0);
    check_all(&single(|config| config.with_unsolicited(Unsolicited::Reject)), 0.0);
}

#[test]
fn a_public_host_has_no_nat() {
    check_all(&[vec![]], 0.0);
    check_all(&[vec![]], 0.05);
}

#[test]
fn cascades_count_as_the_stricter_of_two() {
    let block = NatConfig::SYMMETRIC.with_ports(Ports::Block { first: 30_000, len: 2048 });
    let address = NatConfig::SYMMETRIC.with_behaviour(Dependence::Address, Dependence::Address);
    let counting = NatConfig::PORT_RESTRICTED.with_ports(Ports::Sequential { step: 1 });
    check_all(
        &[
            vec![NatConfig::PORT_RESTRICTED, NatConfig::FULL_CONE.with_hairpin()],
            vec![NatConfig::FULL_CONE, block],
            vec![NatConfig::RESTRICTED, address],
            vec![NatConfig::PORT_RESTRICTED, counting],
            vec![counting.with_hairpin(), NatConfig::PORT_RESTRICTED],
        ],
        0.0,
    );
}

/// Others open connections while a box that counts is measured.
#[test]
fn a_box_counts_for_others_too() {
    for (seed, mapping) in (1..).zip(Dependence::ALL) {
        let config = NatConfig::SYMMETRIC
            .with_behaviour(mapping, Dependence::AddressAndPort)
            .with_ports(Ports::Sequential { step: 3 });
        let mut stage = Stage::new(seed);
        let site = stage.place(&side(&[config]));
        stage.add_peer("alice", &site, Pickup::AtOnce);
        stage.wait_registered(Duration::from_secs(10)).unwrap();
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        for port in 1..2000 {
            stage.world.run_for(Duration::from_millis(3)).unwrap();
            if rng.random_bool(0.3) {
                let (from, to) = (socket("192.168.1.99", port), socket("192.0.2.99", 53));
                let now = stage.world.clock().now();
                let gate = stage.world.nat(site.gate().unwrap()).unwrap();
                gate.outbound(&mut Packet::new(from, to, *b"x"), now, &mut rng).unwrap();
            }
        }
        let found = stage.nat("alice").allocation.value();
        assert_eq!(found, Some(Allocation::Sequential { step: 3 }), "{mapping:?}");
    }
}
