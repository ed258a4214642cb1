//! What two sides can do, from RFC 4787 alone.
//!
//! # What is asked
//! Both sides know each other's local addresses and the address a server sees for each, and send
//! to them at the same time, repeatedly; each answers whatever source it hears from. A path is a
//! pair of addresses over which a question goes and its answer comes back (RFC 8445 section
//! 7.2.5.2.1): from where it was asked, to where it was asked from. Is there one without the
//! server, and if not, is there one when ports are guessed?
//!
//! # Words
//! Write `S` for the server, `X_s` for the address the server sees for `X` and `m_X` for the
//! source that `X`'s packets to `Y_s` carry when they have left `X`'s last box. `X` is *stable*
//! when `m_X = X_s`: all its boxes map independently of the destination (or preserve the port,
//! which comes to the same). It is *fixed* when all its boxes map by address at most: one socket
//! has one source towards all ports of `Y`. It is *tolerant* when it is fixed and all its boxes
//! filter by address at most: once it has sent to any port of `X`, `X` reaches it from every
//! port, and its answers come from where it was asked. A stable side is fixed.
//!
//! # The simple way
//! 1. Two hosts in one zone use local addresses. If one host's zone lies on the other's way to
//!    the internet, its local address is to the other what a public address is.
//! 2. IPv6 on both sides: nothing is translated, so both are stable, and after both have sent,
//!    even the strictest firewall accepts. Possible.
//! 3. Otherwise the packets go from `m_X` to `Y_s`, and pass box `L` of `Y` (any box of the
//!    chain) when `L` filters endpoint-independently; or when the mapping they arrive at is the
//!    one `Y` sent through towards `X_s` (`L` and every box between `Y` and `L` are stable) and
//!    what was sent there permits them: the address suffices for address-dependent filtering,
//!    else `m_X = X_s` is needed (`X` stable). Then `Y` *hears* `X`.
//! 4. `Y` answers to `m_X`. If `Y` is stable the answer comes from `Y_s`, which `X` has just sent
//!    to: a path, after two trips. If not, it comes from another port, `m_Y`, and `X` hears it
//!    when its boxes filter by address at most. `Y` asks from `m_Y`, too. If `X` is fixed it
//!    answers from `m_X`, where `Y` has asked: a path, after three trips. If `X` is not, it can
//!    only ask `m_Y` from a new port; a tolerant `Y` accepts that and answers from `m_Y`: a path,
//!    after four. Else `Y` does not hear it or
//!    answers from one more new port, and so on without end.
//! 5. Possible when 3 and 4 hold for (X, Y) or for (Y, X).
//! 6. Sides below a common box meet at its outer address: the outermost common box must hairpin.
//!
//! # Guessing
//! The server still carries words between the two. The *target* `T`, which is not stable, opens
//! mappings by sending towards the *prober* `P`, and `P` sends to ports of `T` until it hits one
//! of them. There is a path when the hit comes from exactly where the mapping was opened to: the
//! mapping accepts it whatever the filtering, and the answer leaves through it, from the port that
//! was hit. So `T` must know the source of `P`'s probes:
//!
//! 7. it is `P_s` if `P` is stable;
//! 8. it is the same for all probes if `P` is fixed, and known if `T` hears it (3) or if `P`'s
//!    boxes count, so that the next port can be told from the last;
//! 9. it does not matter if `T` is tolerant;
//! 10. otherwise every probe has another source, and only one of some 60 000 mappings of `T` is
//!     open to the source of a probe that has still to find it: not with reasonable effort. Only
//!     if `T`'s boxes count as well is there nothing to find: both aim their next packet at the
//!     other's next port.
//!
//! How long the search takes is up to the box whose choice of ports shows outside: the outermost
//! one that does not preserve them. If it counts, some ports in a row suffice; of a block a good
//! part of it; of all ports about 2000, if `T` opens a few hundred mappings. What 7 to 9 do not
//! allow for either order is [`Expectation::Relay`].
//!
//! Not counted as reasonable: to search for `P`'s source as well as for `T`'s port, each among
//! 64 000 (both by address, filtering by port): the two searches multiply.

use crate::nat::{Dependence, Hairpin, NatConfig, Ports};

/// What a pair is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Expectation {
    /// Simple simultaneous open finds a direct path.
    Direct,
    /// Ports must be predicted or found by chance.
    Guessing(Technique),
    /// Only through the server.
    Relay,
}

/// How the missing port is found, the cheapest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Technique {
    /// One side is stable and tries the ports that the other's box has just counted past.
    Window,
    /// Both boxes count: each side aims at the port that the other will have next.
    Aligned,
    /// One side is stable and tries ports of the block that the other's box draws from.
    Block,
    /// One side is stable and tries ports anywhere while the other holds many.
    Birthday,
    /// Neither side is stable, but one keeps its port towards the other's address.
    ByAddress,
}

/// A NAT box on a side's way out. Boxes with the same number are the same box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Names the box.
    pub number: u32,
    /// What it does.
    pub config: NatConfig,
}

/// One host's way to the internet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Side {
    /// NAT boxes on IPv4, the host's own first. Empty: a public address.
    pub layers: Vec<Layer>,
    /// Whether the host has a global IPv6 address, firewalled or not.
    pub ipv6: bool,
}

impl Side {
    /// A host with a public address.
    pub fn public() -> Self {
        Self::default()
    }

    /// A host behind one box.
    pub fn behind(number: u32, config: NatConfig) -> Self {
        Self { layers: vec![Layer { number, config }], ipv6: false }
    }

    /// The same behind one more box.
    #[must_use]
    pub fn then(mut self, number: u32, config: NatConfig) -> Self {
        self.layers.push(Layer { number, config });
        self
    }

    /// The same host with IPv6.
    #[must_use]
    pub fn with_ipv6(mut self) -> Self {
        self.ipv6 = true;
        self
    }

    /// The same kind of place elsewhere: boxes with numbers of their own.
    #[must_use]
    pub fn renumbered(&self, elsewhere: u32) -> Self {
        let far = |layer: &Layer| Layer { number: layer.number + 1000 * elsewhere, ..*layer };
        Self { layers: self.layers.iter().map(far).collect(), ..*self }
    }

    /// Whether its outer address is the same for every destination, up to and including box
    /// `upto` of its way.
    fn is_stable_up_to(&self, upto: usize) -> bool {
        self.layers[..=upto].iter().all(|layer| is_stable(&layer.config))
    }

    fn is_stable(&self) -> bool {
        self.layers.iter().all(|layer| is_stable(&layer.config))
    }

    /// Whether one socket has one source towards all ports of an address.
    fn is_fixed(&self) -> bool {
        let is_fixed =
            |config: &NatConfig| is_stable(config) || config.mapping != Dependence::AddressAndPort;
        self.layers.iter().all(|layer| is_fixed(&layer.config))
    }

    /// Whether no box of this side asks for the port that a packet comes from.
    fn ignores_ports(&self) -> bool {
        self.layers.iter().all(|layer| layer.config.filtering != Dependence::AddressAndPort)
    }

    fn is_tolerant(&self) -> bool {
        self.is_fixed() && self.ignores_ports()
    }

    /// The choice of ports that shows outside.
    fn ports(&self) -> Ports {
        let mut outermost_first = self.layers.iter().rev().map(|layer| layer.config.ports);
        outermost_first.find(|ports| *ports != Ports::Preserving).unwrap_or(Ports::Preserving)
    }

    fn counts(&self) -> bool {
        matches!(self.ports(), Ports::Sequential { .. })
    }

    /// Whether the zone of this host is the other's zone or lies on its way.
    fn is_local_to(&self, other: &Self) -> bool {
        let mine = self.numbers();
        !mine.is_empty() && other.numbers().ends_with(&mine)
    }

    fn numbers(&self) -> Vec<u32> {
        self.layers.iter().map(|layer| layer.number).collect()
    }
}

/// What two sides can do.
pub fn direct_possible(a: &Side, b: &Side) -> Expectation {
    if a.is_local_to(b) || b.is_local_to(a) || (a.ipv6 && b.ipv6) {
        return Expectation::Direct;
    }
    if !can_meet(a, b) {
        return Expectation::Relay;
    }
    if opens(a, b).or(opens(b, a)).is_some() {
        return Expectation::Direct;
    }
    let searches = [search(a, b), search(b, a)];
    let cheapest = searches.into_iter().flatten().min();
    cheapest.map_or(Expectation::Relay, Expectation::Guessing)
}

/// Rule 6. All boxes above the first common one are common, so the last one decides.
fn can_meet(a: &Side, b: &Side) -> bool {
    match (a.layers.last(), b.layers.last()) {
        (Some(x), Some(y)) if x.number == y.number => x.config.hairpin == Hairpin::On,
        (Some(_) | None, Some(_) | None) => true,
    }
}

/// Rule 5 for one order, in which `y` hears `x` first: over how many one-way trips from `x`'s
/// first question one of the two holds an answer.
pub fn opens(x: &Side, y: &Side) -> Option<u32> {
    if !is_heard(x, y) {
        None
    } else if y.is_stable() {
        Some(2)
    } else if !x.ignores_ports() {
        None
    } else if x.is_fixed() {
        Some(3)
    } else {
        y.is_tolerant().then_some(4)
    }
}

/// Rule 3.
fn is_heard(x: &Side, y: &Side) -> bool {
    y.layers.iter().enumerate().all(|(index, layer)| match layer.config.filtering {
        Dependence::Endpoint => true,
        Dependence::Address => y.is_stable_up_to(index),
        Dependence::AddressAndPort => y.is_stable_up_to(index) && x.is_stable(),
    })
}

/// Rules 7 to 10 for one order.
fn search(prober: &Side, target: &Side) -> Option<Technique> {
    if target.is_stable() {
        return None;
    }
    if prober.is_stable() {
        return Some(match target.ports() {
            Ports::Sequential { .. } => Technique::Window,
            Ports::Block { .. } => Technique::Block,
            Ports::Preserving | Ports::Random => Technique::Birthday,
        });
    }
    if prober.counts() && target.counts() {
        return Some(Technique::Aligned);
    }
    let is_known = prober.is_fixed() && (is_heard(prober, target) || prober.counts());
    (is_known || target.is_tolerant()).then_some(Technique::ByAddress)
}

fn is_stable(config: &NatConfig) -> bool {
    config.mapping == Dependence::Endpoint || config.ports == Ports::Preserving
}
