//! What two sides can do, from RFC 4787 alone.
//!
//! # What is asked
//! Both sides know each other's local addresses and the address a server sees for each, and send
//! to them at the same time, repeatedly; each answers whatever source it hears from. Nothing is
//! guessed. Can a datagram go both ways between them without the server?
//!
//! # Derivation
//! Write `S` for the server, `X_s` for the address the server sees for `X` and `m_X` for the
//! source that `X`'s packets to `Y_s` carry when they have left `X`'s last box. `X` is *stable*
//! when `m_X = X_s`: all its boxes map independently of the destination (or preserve the port,
//! which comes to the same).
//!
//! 1. Two hosts in one zone use local addresses. If one host's zone lies on the other's way to
//!    the internet, its local address is to the other what a public address is.
//! 2. IPv6 on both sides: nothing is translated, so both are stable, and after both have sent,
//!    even the strictest firewall accepts. Possible.
//! 3. Otherwise the packets go from `m_X` to `Y_s`, and pass box `L` of `Y` (any box of the
//!    chain) when `L` filters endpoint-independently; or when the mapping they arrive at is the
//!    one `Y` sent through towards `X_s` (`L` and every box between `Y` and `L` are stable) and
//!    what was sent there permits them: the address suffices for address-dependent filtering,
//!    else `m_X = X_s` is needed (`X` stable).
//! 4. `Y` answers to `m_X`. `X`'s boxes have just sent from this very mapping to `Y_s`, so box
//!    `L` of `X` accepts the answer when it filters by address at most, or when it comes from
//!    exactly `Y_s` (`Y` stable).
//! 5. Possible when 3 and 4 hold for (X, Y) or for (Y, X).
//! 6. Sides below a common box meet at its outer address: the outermost common box must hairpin.
//!
//! What fails is [`Expectation::Guessing`] when the missing port can be found with reasonable
//! effort (one side stable, or both count up, or mappings by address with filtering by address at
//! most), else [`Expectation::Relay`].

use crate::nat::{Dependence, Hairpin, NatConfig, Ports};

/// What a pair is able to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// Simple simultaneous open finds a direct path.
    Direct,
    /// Ports must be predicted or found by chance.
    Guessing,
    /// Only through the server.
    Relay,
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

    /// Whether its outer address is the same for every destination, up to and including box
    /// `upto` of its way.
    fn is_stable_up_to(&self, upto: usize) -> bool {
        self.layers[..=upto].iter().all(|layer| is_stable(&layer.config))
    }

    fn is_stable(&self) -> bool {
        self.layers.iter().all(|layer| is_stable(&layer.config))
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
    if opens(a, b) || opens(b, a) {
        Expectation::Direct
    } else if is_guessable(a, b) {
        Expectation::Guessing
    } else {
        Expectation::Relay
    }
}

/// Rule 6. All boxes above the first common one are common, so the last one decides.
fn can_meet(a: &Side, b: &Side) -> bool {
    match (a.layers.last(), b.layers.last()) {
        (Some(x), Some(y)) if x.number == y.number => x.config.hairpin == Hairpin::On,
        (Some(_) | None, Some(_) | None) => true,
    }
}

/// Rule 5 for one order: `x` is heard by `y`, and `y`'s answer by `x`.
fn opens(x: &Side, y: &Side) -> bool {
    is_heard(x, y) && is_answer_heard(x, y)
}

/// Rule 3.
fn is_heard(x: &Side, y: &Side) -> bool {
    y.layers.iter().enumerate().all(|(index, layer)| match layer.config.filtering {
        Dependence::Endpoint => true,
        Dependence::Address => y.is_stable_up_to(index),
        Dependence::AddressAndPort => y.is_stable_up_to(index) && x.is_stable(),
    })
}

/// Rule 4.
fn is_answer_heard(x: &Side, y: &Side) -> bool {
    let by_address_at_most = |layer: &Layer| layer.config.filtering != Dependence::AddressAndPort;
    y.is_stable() || x.layers.iter().all(by_address_at_most)
}

fn is_stable(config: &NatConfig) -> bool {
    config.mapping == Dependence::Endpoint || config.ports == Ports::Preserving
}

fn is_guessable(a: &Side, b: &Side) -> bool {
    let counts = |side: &Side| side.unstable().all(|c| matches!(c.ports, Ports::Sequential { .. }));
    let by_address = |side: &Side| side.unstable().all(|c| c.mapping == Dependence::Address);
    let loose = |side: &Side| {
        side.layers.iter().all(|layer| layer.config.filtering != Dependence::AddressAndPort)
    };
    a.is_stable()
        || b.is_stable()
        || (counts(a) && counts(b))
        || ((by_address(a) || by_address(b)) && loose(a) && loose(b))
}

impl Side {
    fn unstable(&self) -> impl Iterator<Item = &NatConfig> {
        self.layers.iter().map(|layer| &layer.config).filter(|config| !is_stable(config))
    }
}
