//! The arithmetic of NATs that count.

use std::net::SocketAddr;

use crate::io::Route;
use crate::traversal::{PORT_MIN, WINDOW_MAX};
use crate::wire::frame::OpenPorts;

/// Groups of a burst at a counting NAT, by the table in `traversal::plan`...
const GROUPS: u16 = 3;
/// ...of so many sockets each.
const GROUP: u16 = 8;
/// Sockets of a burst.
pub(super) const BURST: u16 = GROUPS * GROUP;

/// The ports between two that a NAT gave before and after ours, if it counted in between, and
/// not too many others got one meanwhile. `open` of them are ours.
pub(super) fn enclosed(before: u16, after: u16, step: i16, open: u16) -> Option<OpenPorts> {
    let (span, step) = (i32::from(after) - i32::from(before), i32::from(step));
    if step == 0 || span.signum() != step.signum() {
        return None;
    }
    // A span that is no multiple: somebody got a port of another kind in between.
    let step = if span % step == 0 { step } else { step.signum() };
    let count = span / step - 1;
    if count < i32::from(open) || count > i32::from(WINDOW_MAX) {
        return None;
    }
    let first = (i32::from(before) + step) as u16;
    Some(OpenPorts { first, step: step as i16, count: count as u16, open })
}

/// Where each socket of a burst is aimed at: each group at the port that the last socket of the
/// same group gets on the other side when nobody disturbs the count there; up to seven others may.
pub(super) fn aims(sockets: &[SocketAddr], target: SocketAddr, base: u16, step: i16) -> Vec<Route> {
    let port = |group: u16| {
        let port = i32::from(base) + i32::from(step) * i32::from(GROUP) * i32::from(group + 1);
        u16::try_from(port).ok().filter(|port| *port >= PORT_MIN)
    };
    let groups = sockets.chunks(usize::from(GROUP)).zip(0..GROUPS);
    let route = |group, bound: &SocketAddr| {
        Some(Route::udp(*bound, SocketAddr::new(target.ip(), port(group)?)))
    };
    groups
        .flat_map(|(chunk, group)| chunk.iter().filter_map(move |bound| route(group, bound)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_what_lies_between() {
        let ports = |first, step, count| Some(OpenPorts { first, step, count, open: 3 });
        assert_eq!(enclosed(20_000, 20_004, 1, 3), ports(20_001, 1, 3));
        assert_eq!(enclosed(20_000, 20_010, 2, 3), ports(20_002, 2, 4));
        assert_eq!(enclosed(20_010, 20_000, -2, 3), ports(20_008, -2, 4));
        assert_eq!(enclosed(20_000, 20_011, 2, 3), ports(20_001, 1, 10));
        for (before, after, step) in [
            (20_000, 20_003, 1), // not even ours
            (20_000, 20_000, 1),
            (20_004, 20_000, 1), // the wrong way
            (20_000, 20_066, 1), // too many
            (65_535, 1024, 1),   // round the end
            (20_000, 20_004, 0),
        ] {
            assert_eq!(enclosed(before, after, step, 3), None, "{before} {after} {step}");
        }
        assert_eq!(enclosed(20_000, 20_065, 1, 3).unwrap().count, WINDOW_MAX);
        assert_eq!(enclosed(1, u16::MAX, i16::MAX, 1).unwrap().count, 1);
        assert_eq!(enclosed(u16::MAX, 0, i16::MIN, 1), None);
    }

    #[test]
    fn a_burst_aims_at_three_ports() {
        let target = "203.0.113.9:4000".parse().unwrap();
        let sockets: Vec<SocketAddr> =
            (1..=BURST).map(|port| SocketAddr::from(([0, 0, 0, 0], port))).collect();
        let ports = |base, step| -> Vec<u16> {
            aims(&sockets, target, base, step).iter().map(|route| route.remote.port()).collect()
        };
        let (up, down) = (ports(20_000, 2), ports(20_000, -5));
        assert_eq!((up[0], up[7], up[8], up[23]), (20_016, 20_016, 20_032, 20_048));
        assert_eq!((down[0], down[15], down[16]), (19_960, 19_920, 19_880));
        // What lies beyond the last port is left out.
        assert_eq!(ports(65_525, 1).len(), 8);
        assert!(ports(65_535, i16::MAX).is_empty());
        assert!(ports(1, i16::MIN).is_empty());
        // Lower ports are not handed out by NATs.
        assert!(ports(1000, 1).iter().all(|port| *port == 1024) && ports(500, 1).is_empty());
    }
}
