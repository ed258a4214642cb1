//! Loss recovery, packet by packet.

use std::time::Duration;

use super::link::{Link, Pair, Side};
use crate::id::PathId;
use crate::transport::tests::faults::pattern;

const MINUTES: Duration = Duration::from_secs(600);
const MS: Duration = Duration::from_millis(1);

/// A path whose round-trip time of 40 ms is known.
fn measured() -> Pair {
    let mut pair = Pair::new(Link::clean(20), 1);
    for n in 0..10 {
        pair.send(Side::A, 0, pattern(n, 3000));
        pair.run_until_idle(MINUTES);
    }
    pair
}

#[test]
fn a_probe_timeout_lets_two_packets_go_where_two_wait() {
    for (len, probes) in [(3000, 2), (100, 1)] {
        let mut pair = measured();
        pair.set(0, |link| link.up = false);
        pair.send(Side::A, 0, pattern(1, len));
        pair.run_for(MS);
        let (timeout, before) = (pair.a.transport.probe_timeout(), pair.a.packets);
        pair.run_for(timeout - 2 * MS);
        assert_eq!(pair.a.packets, before, "not before");
        pair.run_for(3 * MS);
        assert_eq!(pair.a.packets - before, probes, "{len} bytes");
    }
}

#[test]
fn a_suspect_path_is_probed_with_one_packet_each_time() {
    let mut pair = measured();
    pair.set(0, |link| link.up = false);
    pair.send(Side::A, 0, pattern(1, 3000));
    pair.run(pair.now + MINUTES, |pair| pair.a.transport.is_suspect(PathId(0)));
    pair.run_for(MS);
    let before = pair.a.packets;
    pair.run_for(Duration::from_secs(600));
    let probes = pair.a.packets - before;
    assert!((60..80).contains(&probes), "{probes} in ten minutes");
}

#[test]
fn a_lost_tail_costs_one_probe_timeout() {
    let mut pair = measured();
    let start = pair.now;
    pair.send(Side::A, 0, pattern(1, 3000));
    // All three packets are lost.
    pair.set(0, |link| link.up = false);
    pair.run_for(MS);
    pair.set(0, |link| link.up = true);
    let timeout = pair.a.transport.probe_timeout();
    pair.run(start + MINUTES, |pair| pair.b.got.len() == 11);
    // The probes show that the third is lost; its copy takes one more round trip.
    assert!(pair.now - start <= timeout + 65 * MS, "{:?}", pair.now - start);
}

/// CONFIRMs of A, each so long after the one before.
fn confirms(pair: &mut Pair, count: u64, gap: Duration) {
    for _ in 0..count {
        pair.a.transport.probe(PathId(0), pair.now);
        pair.run_for(gap);
    }
}

#[test]
fn every_second_packet_is_acknowledged_and_a_lone_one_after_25_ms() {
    let mut pair = measured();
    let before = (pair.a.packets, pair.b.packets);
    confirms(&mut pair, 100, MS);
    pair.run_for(Duration::from_secs(1));
    assert_eq!((pair.a.packets - before.0, pair.b.packets - before.1), (100, 50));
    for (after, acks) in [(20 * MS + 24 * MS, 50), (2 * MS, 51)] {
        if acks == 50 {
            pair.a.transport.probe(PathId(0), pair.now);
        }
        pair.run_for(after);
        assert_eq!(pair.b.packets - before.1, acks);
    }
}

#[test]
fn a_gap_is_reported_at_once() {
    let mut pair = measured();
    pair.set(0, |link| link.up = false);
    confirms(&mut pair, 1, MS);
    pair.set(0, |link| link.up = true);
    let before = pair.b.packets;
    confirms(&mut pair, 1, 21 * MS);
    assert_eq!(pair.b.packets - before, 1);
}
