//! Openers and probes of one agent.

use std::collections::BTreeSet;

use super::*;
use crate::wire::frame::OpenPorts;

const MAIN: &str = "0.0.0.0:5000";
const TARGET: &str = "203.0.113.9";
const ALL: OpenPorts = OpenPorts { first: 1024, step: 1, count: 64_512, open: 256 };

/// An agent whose peer is behind [`TARGET`], after its simple round.
fn ready(role: Role) -> (Agent, Signer, Instant) {
    let now = origin();
    let mut agent = agent(role, 7, now);
    let own = cand(CandidateKind::Observed, "198.51.100.1:5000");
    agent.set_local(vec![(addr(MAIN), own)], now);
    let list = vec![cand(CandidateKind::Observed, "203.0.113.9:4000")];
    agent.set_remote(Candidates { generation: 0, list }, now);
    let mut now = now;
    while agent.report().state == State::Checking {
        now = agent.poll_timeout().unwrap().0;
        agent.handle_timeout(now);
    }
    sent(&mut agent);
    (agent, Signer::new(&config(other_role(role), 0)), now)
}

fn sent(agent: &mut Agent) -> Vec<Transmit> {
    let mut sent = Vec::new();
    while let Some(output) = agent.poll_output() {
        if let Output::Transmit(transmit) = output {
            sent.push(transmit);
        }
    }
    sent
}

/// Everything but the checks of the simple way.
fn probes(agent: &mut Agent) -> Vec<Transmit> {
    let simple = |transmit: &Transmit| transmit.route.remote == addr("203.0.113.9:4000");
    sent(agent).into_iter().filter(|transmit| !simple(transmit)).collect()
}

/// Runs for `time`; answers the probes and when each left.
fn run(agent: &mut Agent, now: &mut Instant, time: Duration) -> Vec<(Instant, Transmit)> {
    let end = *now + time;
    let mut all: Vec<_> = probes(agent).into_iter().map(|probe| (*now, probe)).collect();
    while let Some((next, _)) = agent.poll_timeout().filter(|(next, _)| *next <= end) {
        *now = next.max(*now);
        agent.handle_timeout(*now);
        all.extend(probes(agent).into_iter().map(|probe| (*now, probe)));
    }
    *now = end;
    all
}

fn target() -> std::net::IpAddr {
    TARGET.parse().unwrap()
}

#[test]
fn probes_are_bounded_paced_and_never_repeated() {
    let (mut agent, _, mut now) = ready(Role::Controlling);
    let start = now;
    assert_eq!(agent.probe(target(), ALL, usize::MAX, now), PROBES_MAX);
    let all = run(&mut agent, &mut now, 10 * SECOND);
    let ports: BTreeSet<u16> = all.iter().map(|(_, probe)| probe.route.remote.port()).collect();
    assert_eq!((all.len(), ports.len()), (PROBES_MAX, PROBES_MAX));
    assert!(all.iter().all(|(_, probe)| probe.route.remote.ip() == target()));
    assert!(all.iter().all(|(_, probe)| probe.route.local == addr(MAIN)));
    assert!(*ports.first().unwrap() < 1500 && *ports.last().unwrap() > 65_000, "all over");
    let within = |from: Duration, to: Duration| {
        all.iter().filter(|(at, _)| (from..to).contains(&(*at - start))).count()
    };
    assert_eq!(within(Duration::ZERO, 100 * MS), 25, "250 a second at first");
    for second in 0..3 {
        assert!(within(second * SECOND, (second + 1) * SECOND) <= 1000);
    }
    assert_eq!(agent.report().guessed, Guessed { opened: 0, probed: PROBES_MAX as u32 });
    // What the owner has left is all that leaves.
    assert_eq!(agent.probe(target(), ALL, 30, now), 30);
    assert_eq!(run(&mut agent, &mut now, 10 * SECOND).len(), 30);
}

#[test]
fn a_window_is_gone_through_in_order_and_again() {
    let (mut agent, _, mut now) = ready(Role::Controlling);
    let ports = OpenPorts { first: 20_000, step: -3, count: 5, open: 3 };
    assert_eq!(agent.probe(target(), ports, usize::MAX, now), 15);
    let all = run(&mut agent, &mut now, SECOND);
    let ports: Vec<u16> = all.iter().map(|(_, probe)| probe.route.remote.port()).collect();
    assert_eq!(ports, [20_000, 19_997, 19_994, 19_991, 19_988].repeat(3));
}

#[test]
fn ports_that_make_no_sense_are_not_probed() {
    let (mut agent, _, now) = ready(Role::Controlling);
    let good = OpenPorts { first: 20_000, step: 2, count: 10, open: 3 };
    for bad in [
        OpenPorts { step: 0, ..good },
        OpenPorts { count: 0, ..good },
        OpenPorts { open: 0, ..good },
        OpenPorts { open: 11, ..good },
        OpenPorts { first: 1023, ..good },
        OpenPorts { first: 65_530, ..good },
        OpenPorts { first: 1030, step: -1, ..good },
        OpenPorts { step: i16::MIN, count: u16::MAX, ..good },
        OpenPorts { step: i16::MAX, count: u16::MAX, ..good },
    ] {
        assert_eq!(agent.probe(target(), bad, usize::MAX, now), 0, "{bad:?}");
    }
    assert_eq!(agent.probe("2001:db8::9".parse().unwrap(), good, usize::MAX, now), 0);
    assert_eq!(agent.probe("255.255.255.255".parse().unwrap(), good, usize::MAX, now), 0);
    assert!(sent(&mut agent).is_empty());
}

#[test]
fn an_answer_from_a_probed_port_is_a_path_and_ends_the_probing() {
    let (mut agent, other, mut now) = ready(Role::Controlling);
    agent.probe(target(), ALL, usize::MAX, now);
    let all = run(&mut agent, &mut now, 200 * MS);
    let (left, probe) = all.last().unwrap();
    let Some(Incoming::Request { transaction, .. }) = other.read(&probe.payload) else {
        panic!("a probe is an authentic check");
    };
    let response = other.response(transaction, addr("198.51.100.1:5000"));
    // From another port it says nothing.
    let elsewhere = Route { remote: addr("203.0.113.9:999"), ..probe.route };
    assert!(!agent.handle_datagram(elsewhere, &response, now));
    assert!(agent.handle_datagram(probe.route, &response, now));
    assert_eq!(agent.selected(), Some(probe.route));
    assert_eq!(agent.rtt(probe.route), Some(now - *left));
    assert_eq!(agent.mapped(probe.route), Some(addr("198.51.100.1:5000")));
    assert!(!agent.handle_datagram(probe.route, &response, now), "once");
    let to_others = run(&mut agent, &mut now, SECOND);
    assert!(to_others.iter().all(|(_, transmit)| transmit.route == probe.route));
}

#[test]
fn a_request_at_a_fresh_socket_is_a_path_while_the_punch_lasts() {
    let (mut agent, other, mut now) = ready(Role::Controlled);
    let fresh: Vec<Route> = (6000..6010)
        .map(|port| Route::udp(SocketAddr::from(([0, 0, 0, 0], port)), addr("203.0.113.9:4000")))
        .collect();
    let openers = agent.open(&fresh, Some(5), Openers::Once, now);
    assert_eq!(openers.len(), fresh.len());
    assert!(openers.iter().zip(&fresh).all(|(opener, route)| opener.route == *route));
    assert!(openers.iter().all(|opener| opener.ttl == Some(5)));
    let request = other.request([1; 12], Purpose::Probe, 1);
    assert!(agent.handle_datagram(fresh[3], &request, now));
    let answers = sent(&mut agent);
    assert_eq!(answers.len(), 2, "the response and a check of our own");
    assert!(answers.iter().all(|answer| answer.route == fresh[3] && answer.ttl.is_none()));
    let Some(Incoming::Request { transaction, .. }) = other.read(&answers[1].payload) else {
        panic!("a check");
    };
    let response = other.response(transaction, addr("198.51.100.1:777"));
    assert!(agent.handle_datagram(fresh[3], &response, now));
    let nomination = other.request([2; 12], Purpose::Nominate, 1);
    assert!(agent.handle_datagram(fresh[3], &nomination, now));
    assert_eq!(agent.selected(), Some(fresh[3]));
    // The socket that serves the path belongs to the local set by now; the others are gone.
    let own = cand(CandidateKind::Observed, "198.51.100.1:5000");
    let kept = cand(CandidateKind::Mapped, "198.51.100.1:777");
    agent.set_local(vec![(addr(MAIN), own), (fresh[3].local, kept)], now);
    agent.end_guess(now);
    assert_eq!(agent.selected(), Some(fresh[3]));
    assert!(!agent.handle_datagram(fresh[4], &request, now));
    run(&mut agent, &mut now, SECOND);
    assert_eq!(agent.report().guessed, Guessed { opened: 10, probed: 0 });
}

#[test]
fn openers_that_are_to_arrive_leave_again_in_full() {
    let (mut agent, _, mut now) = ready(Role::Controlling);
    let route = Route::udp(addr("0.0.0.0:6000"), addr("203.0.113.9:20008"));
    let first = agent.open(&[route], Some(8), Openers::Repeated, now);
    assert_eq!(first[0].ttl, Some(8));
    let start = now;
    let again = run(&mut agent, &mut now, 10 * SECOND);
    let times: Vec<_> = again.iter().map(|(at, _)| (*at - start).as_millis()).collect();
    assert_eq!(times, [100, 300, 700]);
    assert!(again.iter().all(|(_, opener)| opener.ttl.is_none() && opener.route == route));
}

#[test]
fn where_the_other_router_remembers_a_round_begins_with_care() {
    let now = origin();
    let mut agent = agent(Role::Controlling, 1, now);
    agent.set_entry(Entry::Cautious);
    agent.set_local(vec![(addr(MAIN), cand(CandidateKind::Host, "192.168.0.2:5000"))], now);
    let seen = cand(CandidateKind::Observed, "203.0.113.9:4000");
    let host = cand(CandidateKind::Host, "192.168.9.9:4000");
    agent.set_remote(Candidates { generation: 0, list: vec![seen, host] }, now);
    agent.handle_timeout(now + 20 * MS);
    let ttls = |remote: SocketAddr, sent: &[Transmit]| -> Vec<Option<u8>> {
        sent.iter().filter(|sent| sent.route.remote == remote).map(|sent| sent.ttl).collect()
    };
    let sent = sent(&mut agent);
    assert_eq!(ttls(seen.address, &sent), [Some(TTL_NEAR), None]);
    assert_eq!(ttls(host.address, &sent), [None, None]);
}
