//! The boxes do what their knobs say, measured from outside as RFC 4787 and RFC 5780 do.

use std::time::Duration;

use world::firewall::FirewallConfig;
use world::nat::{Dependence, NatConfig, Ports, Refresh, Unsolicited};
use world::{Link, World, ZoneId, socket};

use crate::probe::{INNER, Lab, Manner, OUTER, Probe};

fn behaviour(mapping: Dependence, filtering: Dependence) -> NatConfig {
    NatConfig::SYMMETRIC.with_behaviour(mapping, filtering)
}

#[test]
fn a_mapping_depends_on_what_it_should() {
    use Dependence::{Address, AddressAndPort, Endpoint};
    for (mapping, same_for_port, same_for_address) in
        [(Endpoint, true, true), (Address, true, false), (AddressAndPort, false, false)]
    {
        let mut lab = Lab::new(behaviour(mapping, AddressAndPort));
        let first = lab.out(0, 1).unwrap();
        assert_eq!(first.ip(), socket(OUTER, 0).ip());
        assert_eq!(lab.out(0, 1), Some(first), "{mapping:?}: the same again");
        assert_eq!(lab.out(0, 2) == Some(first), same_for_port, "{mapping:?}: other port");
        assert_eq!(lab.out(1, 1) == Some(first), same_for_address, "{mapping:?}: other address");
    }
}

#[test]
fn a_filter_depends_on_what_it_should() {
    use Dependence::{Address, AddressAndPort, Endpoint};
    for (filtering, from_port, from_address) in
        [(Endpoint, true, true), (Address, true, false), (AddressAndPort, false, false)]
    {
        let mut lab = Lab::new(behaviour(Endpoint, filtering));
        let outer = lab.out(0, 1).unwrap();
        assert!(lab.is_let_in(0, 1, outer), "{filtering:?}: the answer");
        assert_eq!(lab.is_let_in(0, 2, outer), from_port, "{filtering:?}: other port");
        assert_eq!(lab.is_let_in(1, 1, outer), from_address, "{filtering:?}: other address");
    }
}

#[test]
fn ports_are_chosen_as_configured() {
    let outer_ports = |ports: Ports| {
        let mut lab = Lab::new(NatConfig::SYMMETRIC.with_ports(ports));
        (1..=20).map(|port| lab.out(0, port).unwrap().port()).collect::<Vec<_>>()
    };
    assert!(outer_ports(Ports::Preserving).iter().all(|port| *port == 5000));
    let counted = outer_ports(Ports::Sequential { step: 3 });
    assert!(counted.windows(2).all(|pair| pair[1] == pair[0] + 3), "{counted:?}");
    let down = outer_ports(Ports::Sequential { step: -2 });
    assert!(down.windows(2).all(|pair| pair[1] == pair[0] - 2), "{down:?}");
    let block = outer_ports(Ports::Block { first: 30_000, len: 64 });
    assert!(block.iter().all(|port| (30_000..30_064).contains(port)), "{block:?}");
    let random = outer_ports(Ports::Random);
    assert!(random.iter().max().unwrap() - random.iter().min().unwrap() > 10_000, "{random:?}");
}

#[test]
fn a_full_block_has_no_port_left() {
    let mut lab = Lab::new(NatConfig::SYMMETRIC.with_ports(Ports::Block { first: 30_000, len: 2 }));
    assert!(lab.out(0, 1).is_some() && lab.out(0, 2).is_some());
    assert_eq!(lab.out(0, 3), None);
    assert!(lab.out(0, 1).is_some(), "the first mapping still works");
}

#[test]
fn other_hosts_disturb_the_count() {
    let config = NatConfig::SYMMETRIC.with_ports(Ports::Sequential { step: 1 });
    let mut lab = Lab::new(config.with_cross_traffic(20));
    let ports: Vec<_> = (1..=500).map(|port| lab.out(0, port).unwrap().port()).collect();
    let foreign: u16 = ports.windows(2).map(|pair| pair[1].wrapping_sub(pair[0]) - 1).sum();
    assert!((70..130).contains(&foreign), "{foreign} for 500, not about 100");
    let others = lab.world.nat(lab.gate).unwrap().mappings() - ports.len();
    assert!((foreign..foreign + 10).contains(&(others as u16)), "{others} mappings of others");
}

#[test]
fn a_mapping_may_end_at_an_age() {
    let config = NatConfig { refresh: Refresh::Both, ..NatConfig::SYMMETRIC };
    let mut lab = Lab::new(config.with_absolute_lifetime(Duration::from_secs(60)));
    let outer = lab.out(0, 1).unwrap();
    for _ in 0..5 {
        lab.wait(Duration::from_secs(10));
        assert!(lab.is_let_in(0, 1, outer));
        assert_eq!(lab.out(0, 1), Some(outer));
    }
    lab.wait(Duration::from_secs(10));
    assert!(!lab.is_let_in(0, 1, outer), "whatever went through it");
    assert_ne!(lab.out(0, 1), Some(outer));
}

/// A datagram passes its own box, dies before it reaches the other one, and has opened the way.
#[test]
fn a_short_life_opens_the_own_box_only() {
    let mut lab = Lab::new(NatConfig::PORT_RESTRICTED);
    let outer = lab.out(0, 1).unwrap();
    // One router is the box, two belong to the access line, six are in the middle.
    for ttl in [1, 2, 3, 8, 9] {
        assert_eq!(lab.out_with_ttl(1, 7, ttl), None, "{ttl}");
    }
    let port_7_is_open = lab.is_let_in(1, 7, outer);
    assert!(port_7_is_open, "although nothing arrived there");
    assert_eq!(lab.out_with_ttl(1, 7, 10), Some(outer));
}

#[test]
fn what_a_box_does_not_forward_leaves_no_mapping() {
    let mut lab = Lab::new(NatConfig::SYMMETRIC);
    assert_eq!(lab.out_with_ttl(0, 1, 1), None);
    assert_eq!(lab.world.nat(lab.gate).unwrap().mappings(), 0);
    assert_eq!(lab.out_with_ttl(0, 1, 2), None);
    assert_eq!(lab.world.nat(lab.gate).unwrap().mappings(), 1);
}

#[test]
fn a_packet_whose_time_is_up_is_not_translated_inwards() {
    for (ttl, passes) in [(9, false), (10, true)] {
        let mut lab = Lab::new(NatConfig::PORT_RESTRICTED);
        let outer = lab.out(0, 1).unwrap();
        assert_eq!(lab.is_let_in_with_ttl(0, 1, outer, ttl), passes, "{ttl}");
    }
    // What the router keeps for itself needs no time for another hop.
    let mut lab = Lab::new(NatConfig::PORT_RESTRICTED.with_unsolicited(Unsolicited::AcceptState));
    let outer = lab.out(0, 1).unwrap();
    assert!(!lab.is_let_in_with_ttl(1, 7, outer, 9));
    assert_ne!(lab.out(1, 7), Some(outer), "the early one left state");
}

#[test]
fn a_taken_port_is_not_preserved() {
    let mut lab = Lab::new(NatConfig::PORT_RESTRICTED);
    lab.world.nat(lab.gate).unwrap().occupy(5000);
    let outer = lab.out(0, 1).unwrap();
    assert_ne!(outer.port(), 5000);
    assert_eq!(lab.out(1, 1), Some(outer));
}

#[test]
fn two_hosts_never_share_an_outer_port() {
    let mut lab = Lab::new(NatConfig::FULL_CONE);
    let probe = Probe::new(Manner::Silent);
    let second = lab.world.add_host("second", lab.home, &["192.168.1.11"], Link::lan(), probe);
    let first = lab.out(0, 1).unwrap();
    let other = lab.out_from(second, socket("192.168.1.11", 5000), 0, 1).unwrap();
    assert_ne!(first, other);
}

#[test]
fn an_unused_mapping_ends() {
    let config = NatConfig { lifetime: Duration::from_secs(30), ..NatConfig::SYMMETRIC };
    let mut lab = Lab::new(config);
    let outer = lab.out(0, 1).unwrap();
    lab.wait(Duration::from_secs(25));
    assert_eq!(lab.out(0, 1), Some(outer), "sending keeps it");
    lab.wait(Duration::from_secs(25));
    assert!(lab.is_let_in(0, 1, outer));
    lab.wait(Duration::from_secs(10));
    assert!(!lab.is_let_in(0, 1, outer), "receiving does not");
    assert_ne!(lab.out(0, 1), Some(outer));
}

#[test]
fn a_mapping_may_be_kept_by_what_comes_in() {
    let config = NatConfig {
        lifetime: Duration::from_secs(30),
        refresh: Refresh::Both,
        ..NatConfig::PORT_RESTRICTED
    };
    let mut lab = Lab::new(config);
    let outer = lab.out(0, 1).unwrap();
    for _ in 0..3 {
        lab.wait(Duration::from_secs(25));
        assert!(lab.is_let_in(0, 1, outer));
    }
    lab.wait(Duration::from_secs(31));
    assert!(!lab.is_let_in(0, 1, outer));
}

#[test]
fn a_router_that_takes_unsolicited_packets_moves_the_mapping() {
    use Unsolicited::{AcceptState, Drop, Reject};
    for (unsolicited, moved) in [(Drop, false), (Reject, false), (AcceptState, true)] {
        let mut lab = Lab::new(NatConfig::PORT_RESTRICTED.with_unsolicited(unsolicited));
        let outer = lab.out(0, 1).unwrap();
        assert!(!lab.is_let_in(1, 7, outer), "too early");
        let towards_the_early_one = lab.out(1, 7).unwrap();
        assert_eq!(towards_the_early_one != outer, moved, "{unsolicited:?}");
        assert_eq!(lab.out(0, 1), Some(outer), "{unsolicited:?}: others are not concerned");
        assert!(lab.is_let_in(1, 7, towards_the_early_one), "{unsolicited:?}");
        let rejected = lab.world.nat(lab.gate).unwrap().rejected();
        assert_eq!(rejected, u64::from(unsolicited == Reject));
    }
}

#[test]
fn state_of_unsolicited_packets_is_forgotten() {
    let config = NatConfig::PORT_RESTRICTED.with_unsolicited(Unsolicited::AcceptState);
    let mut lab = Lab::new(config);
    let outer = lab.out(0, 1).unwrap();
    assert!(!lab.is_let_in(1, 7, outer));
    lab.wait(Duration::from_secs(31));
    assert_eq!(lab.out(1, 7), Some(outer));
}

#[test]
fn rebinding_forgets_everything() {
    let mut lab = Lab::new(NatConfig::SYMMETRIC);
    let outer = lab.out(0, 1).unwrap();
    lab.world.rebind(lab.gate);
    assert!(!lab.is_let_in(0, 1, outer));
    assert_ne!(lab.out(0, 1), Some(outer));
}

#[test]
fn hairpinning_shows_the_outer_source() {
    for (config, works) in
        [(NatConfig::FULL_CONE, false), (NatConfig::FULL_CONE.with_hairpin(), true)]
    {
        let mut lab = Lab::new(config);
        let probe = Probe::new(Manner::Silent);
        let second = lab.world.add_host("second", lab.home, &["192.168.1.11"], Link::lan(), probe);
        let outer = lab.out(0, 1).unwrap();
        let from = socket("192.168.1.11", 6000);
        lab.world.act(second, |probe, _| probe.send(from, outer, b"hello neighbour"));
        lab.wait(Duration::from_secs(1));
        let source = lab.world.actor(lab.inside).last_source();
        assert_eq!(source, works.then(|| socket(OUTER, 6000)));
    }
}

#[test]
fn neighbours_reach_each_other_without_the_box() {
    let mut lab = Lab::new(NatConfig::SYMMETRIC);
    let probe = Probe::new(Manner::Echo);
    let second = lab.world.add_host("second", lab.home, &["192.168.1.11"], Link::lan(), probe);
    let to = socket("192.168.1.11", 1);
    lab.world.act(lab.inside, |probe, _| probe.send(socket(INNER, 5000), to, b"hello"));
    lab.wait(Duration::from_millis(3));
    assert_eq!(lab.world.actor(lab.inside).last_source(), Some(to));
    assert_eq!(lab.world.traffic().direct(lab.inside, second).datagrams, 1);
}

#[test]
fn a_cascade_translates_twice() {
    let mut world = World::new(3);
    let (carrier, home) = (world.add_zone(), world.add_zone());
    let link = Link::millis(5);
    world.add_nat(carrier, ZoneId::INTERNET, OUTER, NatConfig::SYMMETRIC, link.clone());
    world.add_nat(home, carrier, "100.64.0.7", NatConfig::FULL_CONE, link);
    let echo = Probe::new(Manner::Echo);
    let remote = world.add_host("remote", ZoneId::INTERNET, &["203.0.113.1"], Link::lan(), echo);
    let probe = Probe::new(Manner::Silent);
    let inside = world.add_host("inside", home, &[INNER], Link::lan(), probe);
    let to = socket("203.0.113.1", 1);
    world.act(inside, |probe, _| probe.send(socket(INNER, 5000), to, b"hello"));
    world.run_for(Duration::from_secs(1)).unwrap();
    assert_eq!(world.actor(remote).last_source().unwrap().ip(), socket(OUTER, 0).ip());
    assert_eq!(world.actor(inside).last_source(), Some(to));
}

#[test]
fn an_ipv6_firewall_lets_in_only_answers() {
    let mut world = World::new(4);
    let home = world.add_zone();
    world.add_firewall(home, ZoneId::INTERNET, FirewallConfig::STRICT, Link::millis(5));
    let (inner, outer) = ("2001:db8:1::1", "2001:db8:2::1");
    let probe = || Probe::new(Manner::Silent);
    let inside = world.add_host("inside", home, &[inner], Link::lan(), probe());
    let remote = world.add_host("remote", ZoneId::INTERNET, &[outer], Link::lan(), probe());
    let (a, b) = (socket(inner, 1), socket(outer, 2));
    let mut exchange = |from, to: world::HostId, (src, dst)| {
        world.act(from, |probe: &mut Probe, _| probe.send(src, dst, b"x"));
        world.run_for(Duration::from_millis(50)).unwrap();
        world.actor(to).heard.len()
    };
    assert_eq!(exchange(remote, inside, (b, a)), 0, "unsolicited");
    assert_eq!(exchange(inside, remote, (a, b)), 1);
    assert_eq!(exchange(remote, inside, (b, a)), 1, "the answer, from the true address");
    assert_eq!(exchange(remote, inside, (socket(outer, 3), a)), 1, "another port");
}

#[test]
fn one_seed_is_one_run() {
    let fingerprint = |seed| {
        let mut world = World::new(seed);
        let link = Link { duplication: 0.1, reordering: 0.1, ..Link::millis(10).with_loss(0.2) };
        let [a, b] = ["203.0.113.1", "203.0.113.2"].map(|ip| {
            world.add_host(ip, ZoneId::INTERNET, &[ip], link.clone(), Probe::new(Manner::Silent))
        });
        for i in 0..100 {
            let (from, to) = (socket("203.0.113.1", 1), socket("203.0.113.2", 2));
            world.act(a, |probe, _| probe.send(from, to, &[i]));
        }
        world.run_for(Duration::from_secs(1)).unwrap();
        (world.trace().fingerprint(), world.actor(b).heard.len())
    };
    assert_eq!(fingerprint(7), fingerprint(7));
    assert_ne!(fingerprint(7), fingerprint(8));
    assert!((60..100).contains(&fingerprint(7).1));
}

#[test]
fn an_endless_conversation_at_one_instant_is_reported() {
    let mut world = World::new(5);
    let link = Link::millis(0);
    let [a, _b] = ["203.0.113.1", "203.0.113.2"].map(|ip| {
        world.add_host(ip, ZoneId::INTERNET, &[ip], link.clone(), Probe::new(Manner::Echo))
    });
    let (from, to) = (socket("203.0.113.1", 1), socket("203.0.113.2", 2));
    world.act(a, |probe, _| probe.send(from, to, b"ping"));
    let stuck = world.run_for(Duration::from_secs(1)).unwrap_err();
    assert!(stuck.to_string().contains("spinning"), "{stuck}");
}
