//! One agent and a hand that answers its checks.

use proptest::prelude::*;

use super::*;

/// One agent and a hand that answers its checks.
struct Bench {
    now: Instant,
    agent: Agent,
    other: Signer,
    /// Checks on their way and when they are answered.
    waiting: Vec<(Instant, Transmit)>,
}

impl Bench {
    fn new(role: Role, remote: &[Candidate]) -> Self {
        let now = origin();
        let mut agent = agent(role, 1, now);
        agent.set_local(
            vec![
                (addr("0.0.0.0:5000"), cand(CandidateKind::Host, "192.168.0.2:5000")),
                (addr("[::]:5000"), cand(CandidateKind::Host, "[2001:db8::2]:5000")),
            ],
            now,
        );
        agent.set_remote(Candidates { generation: 1, list: remote.to_vec() }, now);
        Self { now, agent, other: Signer::new(&config(other_role(role), 0)), waiting: Vec::new() }
    }

    fn events(&mut self) -> (Vec<Transmit>, Vec<Output>) {
        let (mut sent, mut events) = (Vec::new(), Vec::new());
        while let Some(output) = self.agent.poll_output() {
            match output {
                Output::Transmit(transmit) => sent.push(transmit),
                event @ (Output::Selected { .. }
                | Output::Restored { .. }
                | Output::Lost { .. }
                | Output::CandidatesChanged
                | Output::Failed) => events.push(event),
            }
        }
        (sent, events)
    }

    fn answer(&mut self, check: &Transmit) -> bool {
        let Some(Incoming::Request { transaction, .. }) = self.other.read(&check.payload) else {
            return false;
        };
        let response = self.other.response(transaction, addr("203.0.113.1:9"));
        self.agent.handle_datagram(check.route, &response, self.now)
    }

    /// Runs for `time`, answering the newest check of each route that `rtt` knows after its time.
    fn run(&mut self, time: Duration, rtt: impl Fn(SocketAddr) -> Option<Duration>) -> Vec<Output> {
        let end = self.now + time;
        let mut all = Vec::new();
        loop {
            let (sent, mut events) = self.events();
            all.append(&mut events);
            for check in sent {
                if let Some(rtt) = rtt(check.route.remote) {
                    self.waiting.push((self.now + rtt, check));
                }
            }
            self.waiting.sort_by_key(|(at, _)| *at);
            let answer = self.waiting.first().map(|(at, _)| *at);
            let timer = self.agent.poll_timeout().map(|(at, _)| at);
            let Some(next) = [answer, timer].into_iter().flatten().min().filter(|at| *at <= end)
            else {
                break;
            };
            self.now = next;
            while self.waiting.first().is_some_and(|(at, _)| *at <= next) {
                let (_, check) = self.waiting.remove(0);
                self.answer(&check);
            }
            self.agent.handle_timeout(next);
        }
        self.now = end;
        all
    }
}

fn routes(events: &[Output]) -> Vec<SocketAddr> {
    events
        .iter()
        .filter_map(|event| match event {
            Output::Selected { route, .. } => Some(route.remote),
            Output::Transmit(_)
            | Output::Restored { .. }
            | Output::Lost { .. }
            | Output::CandidatesChanged
            | Output::Failed => None,
        })
        .collect()
}

#[test]
fn a_route_that_only_checks_survive_is_chosen_ever_more_rarely() {
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[seen]);
    let route = Route::udp(addr("0.0.0.0:5000"), seen.address);
    let mut choices = 0;
    for _ in 0..1200 {
        let events = bench.run(100 * MS, |_| Some(MS));
        if !routes(&events).is_empty() {
            choices += 1;
            bench.agent.path_failed(route, bench.now);
        }
    }
    // At once, at once, then after 1, 2, 4, 8, 16, 32 seconds: two minutes hold no more.
    assert!((6..=9).contains(&choices), "{choices}");
    bench.run(300 * SECOND, |_| Some(MS));
    assert_eq!(bench.agent.report().state, State::Selected);
}

#[test]
fn pairs_are_bounded() {
    let now = origin();
    let mut agent = agent(Role::Controlling, 1, now);
    let sockets = |n: u16| {
        (SocketAddr::from(([0, 0, 0, 0], n)), cand(CandidateKind::Host, &format!("10.9.0.1:{n}")))
    };
    agent.set_local((1..=40).map(sockets).collect(), now);
    assert_eq!(agent.local_candidates().list.len(), CANDIDATES_MAX);
    let list = (1..=8).map(|n| cand(CandidateKind::Host, &format!("10.0.0.{n}:1"))).collect();
    agent.set_remote(Candidates { generation: 0, list }, now);
    assert_eq!(agent.report().pairs.len(), SOCKETS_MAX * CANDIDATES_MAX);
    let mut checks = 0;
    while agent.report().state == State::Checking {
        let (next, _) = agent.poll_timeout().unwrap();
        agent.handle_timeout(next);
        while let Some(output) = agent.poll_output() {
            checks += u32::from(matches!(output, Output::Transmit(_)));
        }
    }
    assert_eq!(checks, 256, "the purse of a round");
}

#[test]
fn a_better_class_takes_over_and_a_worse_one_does_not() {
    let lan = cand(CandidateKind::Host, "192.168.0.3:6000");
    let six = cand(CandidateKind::Host, "[2001:db8::3]:6000");
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[seen, six, lan]);
    let events = bench.run(5 * SECOND, |remote| {
        Some(
            MS * if remote == lan.address {
                90
            } else if remote == six.address {
                60
            } else {
                10
            },
        )
    });
    assert_eq!(routes(&events), [seen.address, six.address, lan.address]);
    let mut bench = Bench::new(Role::Controlling, &[seen, six, lan]);
    let events =
        bench.run(5 * SECOND, |remote| Some(MS * if remote == lan.address { 5 } else { 20 }));
    assert_eq!(routes(&events), [lan.address]);
}

#[test]
fn a_path_of_the_same_class_must_be_clearly_faster() {
    let one = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let two = cand(CandidateKind::Observed, "203.0.113.4:6000");
    for (first, second, moves) in [(100, 50, true), (100, 90, false), (8, 4, false)] {
        let mut bench = Bench::new(Role::Controlling, &[one, two]);
        // The faster route answers only later checks.
        let (checks, _) = bench.events();
        bench.now += MS * first;
        let check = checks.iter().find(|check| check.route.remote == one.address).unwrap();
        assert!(bench.answer(check));
        let events = bench.run(4 * SECOND, |remote| {
            Some(MS * if remote == two.address { second } else { first })
        });
        assert_eq!(routes(&events).contains(&two.address), moves, "{first} and {second} ms");
    }
}

#[test]
fn forgeries_and_strangers_are_refused() {
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlled, &[seen]);
    let route = Route::udp(addr("0.0.0.0:5000"), seen.address);
    let (checks, _) = bench.events();
    let id = [7; 12];
    let good = bench.other.request(id, Purpose::Nominate, 1);
    let refused = |bench: &mut Bench, bytes: &[u8], why: &str| {
        assert!(!bench.agent.handle_datagram(route, bytes, bench.now), "{why}");
        assert_eq!(bench.events(), (vec![], vec![]), "{why}");
    };
    let stranger = Signer::new(&Config {
        role: Role::Controlling,
        keys: ([3; 32], [4; 32]),
        own_tag: CheckTag([0xA; 8]),
        their_tag: CheckTag([0xB; 8]),
        seed: [0; 32],
    });
    refused(&mut bench, &stranger.request(id, Purpose::Probe, 1), "another key");
    let misled = Signer::new(&Config {
        role: Role::Controlling,
        keys: ([1; 32], [2; 32]),
        own_tag: CheckTag([0xA; 8]),
        their_tag: CheckTag([0xC; 8]),
        seed: [0; 32],
    });
    refused(&mut bench, &misled.request(id, Purpose::Probe, 1), "another tag");
    let twin = Signer::new(&Config {
        role: Role::Controlled,
        keys: ([1; 32], [2; 32]),
        own_tag: CheckTag([0xA; 8]),
        their_tag: CheckTag([0xB; 8]),
        seed: [0; 32],
    });
    refused(&mut bench, &twin.request(id, Purpose::Probe, 1), "our own role");
    refused(&mut bench, &checks[0].payload, "our own check reflected");
    refused(&mut bench, &crate::wire::stun::binding_request(id), "no integrity");
    let unasked = bench.other.response(id, route.local);
    refused(&mut bench, &unasked, "no such transaction");
    refused(&mut bench, &[good.clone(), vec![0; 4]].concat(), "trailing bytes");
    let mut bare = good[..good.len() - 8].to_vec();
    bare[3] -= 8;
    refused(&mut bench, &bare, "no fingerprint");
    for index in 0..good.len() {
        let mut bad = good.clone();
        bad[index] ^= 0x10;
        refused(&mut bench, &bad, "one bit");
        // The same with a fingerprint made right again.
        if index < good.len() - 8 {
            let end = good.len() - 8;
            let sum = crate::wire::stun::fingerprint(&bad[..end]);
            bad[end + 4..].copy_from_slice(&sum);
            refused(&mut bench, &bad, "one bit under a right fingerprint");
        }
    }
    assert!(bench.agent.handle_datagram(route, &good, bench.now), "the good one is taken");
}

#[test]
fn an_answer_from_elsewhere_proves_nothing() {
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[seen]);
    let (checks, _) = bench.events();
    let elsewhere = Transmit {
        route: Route::udp(checks[0].route.local, addr("203.0.113.66:6000")),
        ..checks[0].clone()
    };
    assert!(!bench.answer(&elsewhere));
    assert!(bench.answer(&checks[0]));
    assert!(!bench.answer(&checks[0]), "an answer counts once");
}

#[test]
fn the_controlled_side_follows_only_onto_a_path_it_proved() {
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlled, &[seen]);
    let route = Route::udp(addr("0.0.0.0:5000"), seen.address);
    let (checks, _) = bench.events();
    let request = bench.other.request([7; 12], Purpose::Nominate, 1);
    bench.now += 30 * MS;
    assert!(bench.agent.handle_datagram(route, &request, bench.now));
    let (sent, events) = bench.events();
    assert_eq!((sent.len(), events), (2, vec![]), "an answer and a check back");
    assert!(bench.answer(&checks[0]));
    assert_eq!(routes(&bench.events().1), [seen.address]);
}

#[test]
fn the_controlled_side_begins_with_what_it_proved_first_and_then_follows() {
    let one = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let two = cand(CandidateKind::Host, "203.0.113.4:6000");
    let lan = cand(CandidateKind::Host, "192.168.0.3:6000");
    let mut bench = Bench::new(Role::Controlled, &[one, two, lan]);
    let ways = |remote| Some(MS * if remote == one.address { 1 } else { 5 });
    assert_eq!(routes(&bench.run(4 * SECOND, ways)), [one.address], "no choice but the first");
    let route = Route::udp(addr("0.0.0.0:5000"), two.address);
    let request = bench.other.request([7; 12], Purpose::Nominate, 1);
    assert!(bench.agent.handle_datagram(route, &request, bench.now));
    assert_eq!(routes(&bench.events().1), [two.address]);
}

#[test]
fn pairs_that_could_not_better_the_chosen_path_rest() {
    let lan = cand(CandidateKind::Host, "192.168.0.3:6000");
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[seen, lan]);
    bench.run(100 * SECOND, |remote| (remote == lan.address).then_some(MS));
    let report = bench.agent.report();
    let pair = report.pairs.iter().find(|pair| pair.remote == seen).unwrap();
    assert_eq!(pair.checks_sent, 1);
}

/// The bytes that the specification prints.
#[test]
fn checks_are_these_bytes() {
    let controlling = Signer::new(&config(Role::Controlling, 0));
    let controlled = Signer::new(&config(Role::Controlled, 0));
    let request = controlling.request(*b"transaction!", Purpose::Nominate, 0x6EFF_FEFF);
    let response = controlled.response(*b"transaction!", addr("203.0.113.1:40000"));
    let hex = |bytes: &[u8]| data_encoding::HEXLOWER.encode(bytes);
    assert_eq!(
        hex(&request),
        concat!(
            "000100582112a4427472616e73616374696f6e210006001030623062306230623062306230623062",
            "002400046efffeff802a0008000000000000000000250000001c0020f2abb0e0af72f77aa1642b4d",
            "73049fdc7dd64a0b8d2acb4d83752d23a49d82e8802800045973983d",
        )
    );
    assert_eq!(
        hex(&response),
        concat!(
            "010100382112a4427472616e73616374696f6e21002000080001bd52ea12d543001c002055c39240",
            "75bdcb40589a92e28b23bef0e62916ecd948b22e40dca521560ed45e80280004d1259f01",
        )
    );
}

#[test]
fn requests_from_anywhere_are_answered_but_few_are_remembered() {
    let mut bench = Bench::new(Role::Controlled, &[]);
    let request = bench.other.request([7; 12], Purpose::Probe, 1);
    for number in 1..=100 {
        let remote = SocketAddr::from(([198, 51, 100, number], 7000));
        let route = Route::udp(addr("0.0.0.0:5000"), remote);
        assert!(bench.agent.handle_datagram(route, &request, bench.now));
        assert!(bench.agent.report().pairs.len() <= REFLEXIVE_MAX);
    }
    let newest = bench.agent.report().pairs.pop().unwrap();
    assert_eq!(newest.route.remote, addr("198.51.100.100:7000"));
    let route = Route::udp(addr("0.0.0.0:9"), addr("198.51.100.1:7000"));
    assert!(!bench.agent.handle_datagram(route, &request, bench.now), "no such socket");
}

#[test]
fn replayed_requests_call_forth_few_checks() {
    let mut bench = Bench::new(Role::Controlled, &[]);
    let request = bench.other.request([7; 12], Purpose::Probe, 1);
    let route = Route::udp(addr("0.0.0.0:5000"), addr("198.51.100.1:7000"));
    for _ in 0..300 {
        bench.now += 11 * MS;
        bench.agent.handle_datagram(route, &request, bench.now);
        bench.agent.handle_timeout(bench.now);
    }
    let checks = bench.agent.report().pairs[0].checks_sent;
    assert!(checks <= 25, "{checks} checks for 300 replays");
}

#[test]
fn only_addresses_that_can_be_the_peers_are_checked() {
    let host = |text: &str| cand(CandidateKind::Host, text);
    let bad = [
        "127.0.0.1:6000",
        "[::1]:6000",
        "0.0.0.0:6000",
        "0.1.2.3:6000",
        "[::]:6000",
        "224.0.0.1:6000",
        "[ff02::1]:6000",
        "255.255.255.255:6000",
        "203.0.113.3:0",
        "192.168.0.2:5000",
        "[::ffff:192.168.0.2]:5000",
        "[fe80::1]:6000",
        "[::ffff:127.0.0.1]:1",
    ];
    for text in bad {
        let bench = Bench::new(Role::Controlling, &[host(text)]);
        assert_eq!(bench.agent.report().pairs, [], "{text}");
    }
    let mapped = Bench::new(Role::Controlling, &[host("[::ffff:203.0.113.3]:6000")]);
    let pairs = mapped.agent.report().pairs;
    assert_eq!(pairs[0].route, Route::udp(addr("0.0.0.0:5000"), addr("203.0.113.3:6000")));
    assert_eq!(pairs.len(), 1, "one socket of the family");
}

#[test]
fn loopback_is_for_those_who_are_on_it() {
    let now = origin();
    let mut agent = agent(Role::Controlling, 1, now);
    let own = cand(CandidateKind::Observed, "127.0.0.1:5000");
    agent.set_local(vec![(addr("0.0.0.0:5000"), own)], now);
    let list = vec![cand(CandidateKind::Observed, "127.0.0.1:6000")];
    agent.set_remote(Candidates { generation: 0, list }, now);
    assert_eq!(agent.report().pairs.len(), 1);
}

#[test]
fn claimed_addresses_get_five_checks_and_vouched_ones_ten() {
    let host = cand(CandidateKind::Host, "192.168.0.3:6000");
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[host, seen]);
    let events = bench.run(5 * SECOND / 2, |_| None);
    assert_eq!(events, [Output::Failed]);
    let sent = |bench: &Bench, remote: Candidate| {
        let report = bench.agent.report();
        report.pairs.iter().find(|pair| pair.remote == remote).unwrap().checks_sent
    };
    assert_eq!((sent(&bench, host), sent(&bench, seen)), (5, 10));
    bench.run(300 * SECOND, |_| None);
    assert_eq!(sent(&bench, host), 5, "strangers are left alone");
    assert!(sent(&bench, seen) > 15, "the background goes on");
}

#[test]
fn candidates_are_bounded_and_paced() {
    let list = |net: u8| -> Vec<Candidate> {
        (1..=20).map(|n| cand(CandidateKind::Host, &format!("10.0.{net}.{n}:1"))).collect()
    };
    let mut bench = Bench::new(Role::Controlling, &list(0));
    assert_eq!(bench.agent.report().pairs.len(), 8);
    let mut checks = bench.events().0.len();
    for net in 1..=100 {
        bench.now += MS;
        let set = Candidates { generation: u64::from(net) + 1, list: list(net) };
        bench.agent.set_remote(set, bench.now);
        bench.agent.handle_timeout(bench.now);
        checks += bench.events().0.len();
    }
    assert!(checks <= 8 * 5, "{checks}");
    bench.run(2 * SECOND, |_| None);
    let pairs = bench.agent.report().pairs;
    assert_eq!(pairs.len(), 8);
    assert!(pairs.iter().all(|pair| pair.route.remote.to_string().starts_with("10.0.100.")));
}

#[test]
fn a_newer_set_keeps_the_chosen_path_and_an_older_one_is_ignored() {
    let one = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let two = cand(CandidateKind::Observed, "203.0.113.4:6000");
    let mut bench = Bench::new(Role::Controlling, &[one]);
    assert_eq!(routes(&bench.run(2 * SECOND, |_| Some(MS))), [one.address]);
    bench.agent.set_remote(Candidates { generation: 2, list: vec![two] }, bench.now);
    assert_eq!(bench.agent.report().pairs.len(), 2);
    bench.now += 2 * SECOND;
    bench.agent.set_remote(Candidates { generation: 1, list: vec![] }, bench.now);
    bench.agent.handle_timeout(bench.now);
    assert_eq!(bench.agent.report().pairs.len(), 2);
    assert_eq!(bench.agent.report().state, State::Selected);
}

#[test]
fn a_socket_that_goes_takes_its_paths_along() {
    let seen = cand(CandidateKind::Observed, "203.0.113.3:6000");
    let mut bench = Bench::new(Role::Controlling, &[seen]);
    bench.run(SECOND, |_| Some(MS));
    let generation = bench.agent.local_candidates().generation;
    let fresh = (addr("0.0.0.0:7000"), cand(CandidateKind::Host, "192.168.9.2:7000"));
    bench.agent.set_local(vec![fresh], bench.now);
    let (sent, events) = bench.events();
    let old = Route::udp(addr("0.0.0.0:5000"), seen.address);
    assert!(events.contains(&Output::Lost { route: old }));
    assert!(events.contains(&Output::CandidatesChanged));
    assert_eq!(bench.agent.local_candidates().generation, generation + 1);
    assert_eq!(sent[0].route, Route::udp(fresh.0, seen.address), "checks go on at once");
}

#[test]
fn nothing_is_sent_before_both_ends_are_known() {
    let now = origin();
    let mut quiet = agent(Role::Controlling, 1, now);
    let list = vec![cand(CandidateKind::Observed, "203.0.113.3:6000")];
    quiet.set_remote(Candidates { generation: 0, list }, now);
    assert_eq!(quiet.poll_output(), None);
    quiet.set_local(vec![(addr("0.0.0.0:1"), cand(CandidateKind::Host, "10.0.0.1:1"))], now);
    assert!(matches!(quiet.poll_output(), Some(Output::Transmit(_))));
}

proptest! {
    #[test]
    fn garbage_is_never_ours(
        datagram in prop::collection::vec(any::<u8>(), 0..200),
        cut in 0_usize..200,
    ) {
        let mut bench = Bench::new(Role::Controlled, &[]);
        let route = Route::udp(addr("0.0.0.0:5000"), addr("203.0.113.3:6000"));
        prop_assert!(!bench.agent.handle_datagram(route, &datagram, bench.now));
        let good = bench.other.request([7; 12], Purpose::Probe, 1);
        let mixed = [&good[..cut.min(good.len() - 1)], &datagram].concat();
        if mixed != good {
            prop_assert!(!bench.agent.handle_datagram(route, &mixed, bench.now));
        }
        prop_assert_eq!(bench.agent.report().pairs.len(), 0);
    }

    #[test]
    fn whatever_happens_it_neither_spins_nor_floods(
        steps in prop::collection::vec((0..9_u8, any::<u8>(), 0..2000_u64), 1..60),
        controlling in any::<bool>(),
    ) {
        let role = if controlling { Role::Controlling } else { Role::Controlled };
        let mut bench = Bench::new(role, &[]);
        let mut last: Vec<Transmit> = Vec::new();
        for (step, number, wait) in steps {
            let remote = SocketAddr::from(([203, 0, 113, number % 16], 6000));
            let route = Route::udp(addr("0.0.0.0:5000"), remote);
            let generation = u64::from(number);
            match step {
                0 => {
                    let list = (0..number % 12)
                        .map(|n| cand(CandidateKind::Observed, &format!("203.0.113.{n}:6000")))
                        .collect();
                    bench.agent.set_remote(Candidates { generation, list }, bench.now);
                }
                1 => bench.agent.path_failed(route, bench.now),
                2 => bench.agent.restart(bench.now),
                3 => bench.agent.traffic(route, bench.now),
                4 | 5 => {
                    let purpose =
                        if number % 3 == 0 { Purpose::Nominate } else { Purpose::Probe };
                    let request = bench.other.request([number; 12], purpose, 1);
                    bench.agent.handle_datagram(route, &request, bench.now);
                }
                6 | 7 => last.iter().for_each(|check| {
                    bench.answer(check);
                }),
                _ => {
                    let port = 5000 + u16::from(number % 2);
                    let bound = SocketAddr::from(([0, 0, 0, 0], port));
                    let own = cand(CandidateKind::Host, "192.168.0.2:5000");
                    bench.agent.set_local(vec![(bound, own)], bench.now);
                }
            }
            let (mut sent, _) = bench.events();
            let end = bench.now + MS * wait as u32;
            while let Some((next, _)) = bench.agent.poll_timeout().filter(|(at, _)| *at <= end) {
                bench.now = bench.now.max(next);
                bench.agent.handle_timeout(bench.now);
                let after = bench.agent.poll_timeout();
                prop_assert!(after.is_none_or(|(at, _)| at > bench.now), "spins: {after:?}");
                sent.append(&mut bench.events().0);
            }
            bench.now = end;
            prop_assert!(sent.len() <= 300, "{} datagrams in {wait} ms", sent.len());
            prop_assert!(bench.agent.report().pairs.len() <= PAIRS_MAX);
            last = sent;
        }
    }
}

/// Two NATs that take a port for each destination and filter loosely: every answer comes from
/// yet another port, and so does the check that it calls forth.
#[test]
fn sources_that_change_with_every_answer_are_not_followed_for_ever() {
    let mut bench = Bench::new(Role::Controlled, &[]);
    let mut checks = 0;
    for port in 0..100 {
        let request = bench.other.request([port; 12], Purpose::Probe, 1);
        let from = SocketAddr::new(addr("203.0.113.3:0").ip(), 6000 + u16::from(port));
        let route = Route::udp(addr("0.0.0.0:5000"), from);
        assert!(bench.agent.handle_datagram(route, &request, bench.now));
        let (sent, _) = bench.events();
        assert!(sent.iter().any(|sent| sent.route == route), "all are answered");
        checks += sent.len() - 1;
        bench.now += MS;
    }
    assert!((8..=24).contains(&checks), "{checks}");
}
