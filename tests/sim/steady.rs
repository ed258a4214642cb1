//! Conversations while the network under them changes.

use std::net::IpAddr;
use std::time::Duration;

use world::nat::NatConfig;
use world::oracle::Side;
use world::scenario::{Change, Flow, lossy, survive};

/// Seeds in which alice is the controlled and the controlling side.
const SEEDS: [u64; 2] = [1, 3];

#[test]
fn changes_of_the_network_cost_no_message_and_little_time() {
    for seed in SEEDS {
        for change in Change::ALL {
            survive(seed, change).unwrap_or_else(|failure| panic!("seed {seed}: {failure}"));
        }
    }
}

#[test]
fn losses_do_not_drive_a_conversation_to_the_relay() {
    // Without loss the relay carries what keeps it warm; above, what was in doubt at the moment.
    for (percent, beat, relayed) in
        [(0, 50, 1.0), (5, 50, 2.0), (10, 50, 3.0), (20, 50, 15.0), (10, 500, 20.0)]
    {
        let figures = lossy(1, f64::from(percent) / 100.0, Duration::from_millis(beat))
            .unwrap_or_else(|failure| panic!("{failure}"));
        assert_eq!(figures.switches, 0, "{percent} % loss: {figures}");
        assert!(figures.relayed_percent <= relayed, "{percent} % loss: {figures}");
    }
}

/// IPv6 comes up in mid-conversation: the path moves there once, without a stall, and stays.
#[test]
fn a_better_path_that_appears_later_replaces_a_worse_one() {
    let six = |number| Side::behind(number, NatConfig::PORT_RESTRICTED).with_ipv6();
    for seed in SEEDS {
        let start = Flow::start(seed, [&six(1), &six(2)]);
        let mut flow = start.unwrap_or_else(|failure| panic!("{failure}"));
        let alice = flow.stage.host("alice");
        let all = flow.stage.world.addresses(alice).to_vec();
        let four: Vec<IpAddr> = all.iter().copied().filter(IpAddr::is_ipv4).collect();
        let go = |flow: &mut Flow, addresses: &[IpAddr], seconds| {
            let addresses = addresses.to_vec();
            flow.stage.world.act(alice, |machine, now| {
                machine.peer().expect("a peer").set_addresses(addresses, now);
            });
            let since = flow.now();
            flow.talk(Duration::from_secs(seconds)).unwrap_or_else(|failure| panic!("{failure}"));
            let why = |machine: &mut world::machines::Machine| {
                machine.peer().map_or_else(String::new, |peer| peer.why("bob"))
            };
            (flow.figures(since), flow.stage.world.act(alice, |machine, _| why(machine)))
        };
        let (_, why) = go(&mut flow, &four, 10);
        assert!(why.contains("reason: Direct { address: 198."), "{why}");
        let (figures, why) = go(&mut flow, &all, 60);
        assert!(why.contains("reason: Direct { address: [2001:"), "{why}");
        assert!(figures.slowest < Duration::from_millis(150), "{figures}");
        assert!(figures.switches <= 2 && figures.relayed_percent < 2.0, "{figures}");
        flow.finish().unwrap_or_else(|failure| panic!("{failure}"));
    }
}
