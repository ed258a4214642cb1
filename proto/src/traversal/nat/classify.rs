//! From what was seen to what a NAT does: pure functions, each from samples to a [`Field`].

use std::net::SocketAddr;

use super::{Allocation, Dependence, Field, Unsolicited};

/// Where the places of a server see one socket.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// At the main address.
    pub(crate) main: Option<SocketAddr>,
    /// At the other port of the same IP.
    pub(crate) alt_port: Option<SocketAddr>,
    /// At the other port of the other IP.
    pub(crate) alt_ip: Option<SocketAddr>,
}

/// What came of asking for an answer from elsewhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// It came.
    Heard,
    /// It did not, although this many requests were sent that others answer.
    Silent(u16),
    /// Too little was sent, or the server does not do it.
    Unsure,
}

/// Ports of a NAT that were handed to sockets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ports {
    /// Of fresh sockets: local and external port.
    pub(crate) kept: Vec<(u16, u16)>,
    /// In the order in which they were allocated.
    pub(crate) ordered: Vec<u16>,
    /// Each external port seen, in any order.
    pub(crate) all: Vec<u16>,
}

/// Fewer allocations in order say nothing about counting.
const ORDERED_MIN: usize = 7;
/// With fewer ports the span of random ones can be small by chance (1 in 2000).
const PORTS_MIN: usize = 8;
/// Steps from one sample to the next at most: others open connections in between.
const STEPS_MAX: u32 = 16;
/// A box that counts does it by a small number.
const STEP_MAX: u32 = 1024;
/// Ports from a block lie no farther apart; blocks of carriers hold 64 to 16384 ports.
const BLOCK_SPAN_MAX: u16 = 16_384;
/// A few samples hardly meet the bounds of their block: this many hundredths of their span are
/// added on either side.
const BLOCK_MARGIN_PERCENT: u32 = 12;
/// Lower ports are not handed out.
const PORT_MIN: u16 = 1024;

/// Mapping (RFC 5780 section 4.3): with one IP only ports can be told apart.
pub(crate) fn mapping(sockets: &[Seen]) -> Field<Dependence> {
    let by_port = || sockets.iter().filter_map(|seen| seen.main.zip(seen.alt_port));
    let by_ip = || sockets.iter().filter_map(|seen| seen.alt_port.zip(seen.alt_ip));
    let places = |seen: &Seen| [seen.main, seen.alt_port, seen.alt_ip].into_iter().flatten();
    let samples = sockets.iter().flat_map(places).count() as u16;
    let value = if by_port().any(|(main, alt)| main != alt) {
        Dependence::AddressAndPort
    } else if by_port().next().is_none() {
        return Field::Unknown;
    } else if by_ip().any(|(alt, other)| alt != other) {
        Dependence::Address
    } else if by_ip().next().is_some() {
        Dependence::Endpoint
    } else {
        Dependence::NotPort
    };
    Field::Known { value, samples }
}

/// Filtering (RFC 5780 section 4.4) from an answer from the other port and, where the server has
/// another IP, one from there.
pub(crate) fn filtering(port: Reply, ip: Option<Reply>) -> Field<Dependence> {
    match (port, ip) {
        (_, Some(Reply::Heard)) => known(Dependence::Endpoint, 1),
        (Reply::Heard, Some(Reply::Silent(sent))) => known(Dependence::Address, 1 + sent),
        (Reply::Heard, Some(Reply::Unsure) | None) => known(Dependence::NotPort, 1),
        (Reply::Silent(sent), _) => known(Dependence::AddressAndPort, sent),
        (Reply::Unsure, _) => Field::Unknown,
    }
}

/// What an answer that was filtered left behind: `before` and `after` are where the socket was
/// seen by the main port, and then by the port from which the answer had come.
pub(crate) fn unsolicited(before: SocketAddr, after: SocketAddr) -> Field<Unsolicited> {
    known(if before == after { Unsolicited::Forgotten } else { Unsolicited::Remembered }, 2)
}

/// Whether most fresh sockets keep their port.
pub(crate) fn preserves(kept: &[(u16, u16)]) -> bool {
    let same = kept.iter().filter(|(local, external)| local == external).count();
    same >= 2 && 3 * same >= 2 * kept.len()
}

/// Choice of ports. A mapping that depends on the destination cannot keep the port for all.
pub(crate) fn allocation(mapping: Field<Dependence>, ports: &Ports) -> Field<Allocation> {
    let dependent =
        matches!(mapping.value(), Some(Dependence::Address | Dependence::AddressAndPort));
    if !dependent && preserves(&ports.kept) {
        return known(Allocation::Preserving, ports.kept.len() as u16);
    }
    let samples = ports.all.len() as u16;
    if let Some(step) = step(&ports.ordered) {
        return known(Allocation::Sequential { step }, ports.ordered.len() as u16);
    }
    let (Some(first), Some(last)) = (ports.all.iter().min(), ports.all.iter().max()) else {
        return Field::Unknown;
    };
    if ports.all.len() < PORTS_MIN {
        return Field::Unknown;
    }
    let span = last - first;
    if span > BLOCK_SPAN_MAX {
        return known(Allocation::Random, samples);
    }
    if ports.ordered.len() < ORDERED_MIN {
        // They may be counted as well.
        return Field::Unknown;
    }
    let margin = (u32::from(span) * BLOCK_MARGIN_PERCENT / 100) as u16;
    let first = first.saturating_sub(margin).max(PORT_MIN);
    known(Allocation::Block { first, last: last.saturating_add(margin) }, samples)
}

/// The common step of ports that a box counts, allowing for allocations of others in between and
/// one sample in eight out of order, as where the counter wraps.
fn step(ordered: &[u16]) -> Option<i16> {
    if ordered.len() < ORDERED_MIN {
        return None;
    }
    let differences = || ordered.windows(2).map(|two| i32::from(two[1]) - i32::from(two[0]));
    let total = ordered.len() - 1;
    let enough = total - total / 8;
    let upwards = differences().filter(|difference| *difference > 0).count();
    let sign = if 2 * upwards > total { 1 } else { -1 };
    let mut forward: Vec<u32> =
        differences().filter_map(|d| u32::try_from(d * sign).ok()).filter(|d| *d > 0).collect();
    if forward.len() < enough {
        return None;
    }
    forward.sort_unstable();
    forward.truncate(enough);
    let common = forward.iter().fold(0, |common, difference| gcd(common, *difference));
    let small = forward.iter().all(|difference| difference / common <= STEPS_MAX);
    let step = i16::try_from(common).ok().filter(|_| common <= STEP_MAX && small)?;
    Some(step * sign as i16)
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

pub(super) const fn known<T>(value: T, samples: u16) -> Field<T> {
    Field::Known { value, samples }
}

#[cfg(test)]
mod tests;
