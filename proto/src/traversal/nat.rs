//! What is known of a peer's NAT, in the words of RFC 4787.

use std::time::Duration;

/// A property: what was measured, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Field<T> {
    /// Not measured, or the measurement could not tell.
    #[default]
    Unknown,
    /// Measured.
    Known {
        /// What it is.
        value: T,
        /// Observations that it rests on.
        samples: u16,
    },
}

impl<T: Copy> Field<T> {
    /// The value if there is one.
    pub const fn value(&self) -> Option<T> {
        match self {
            Self::Unknown => None,
            Self::Known { value, .. } => Some(*value),
        }
    }
}

/// For which destinations a mapping is kept (RFC 4787 section 4.1), or from which sources a
/// mapping accepts (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dependence {
    /// All of them: endpoint-independent.
    Endpoint,
    /// Those of one address.
    Address,
    /// Those of one address and port.
    AddressAndPort,
    /// Endpoint or address: a server with one address cannot tell them apart.
    NotPort,
}

/// How external ports are chosen (RFC 4787 section 4.2, RFC 7857 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// The internal port.
    Preserving,
    /// The one before plus this step, which is not 0 and may be negative.
    Sequential {
        /// Distance from one allocation to the next.
        step: i16,
    },
    /// At random from a block, as carrier-grade boxes hand one to a subscriber: bounds that the
    /// samples suggest, both included.
    Block {
        /// First port.
        first: u16,
        /// Last port.
        last: u16,
    },
    /// Any.
    Random,
}

/// Whether two inner hosts reach each other under their external addresses (RFC 4787 REQ-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// They do.
    Works,
    /// They do not.
    Fails,
}

/// What a datagram that nothing asked for leaves behind at the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsolicited {
    /// Nothing.
    Forgotten,
    /// State that moves a later mapping of that port to another one.
    Remembered,
}

/// What is known of the way from one host to the internet over IPv4. Behind several NATs it is
/// what they amount to together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Profile {
    /// Mapping behaviour. `Endpoint` also where there is no NAT.
    pub mapping: Field<Dependence>,
    /// Filtering behaviour.
    pub filtering: Field<Dependence>,
    /// Choice of external ports.
    pub allocation: Field<Allocation>,
    /// Hairpinning.
    pub hairpin: Field<Hairpin>,
    /// State for unsolicited datagrams.
    pub unsolicited: Field<Unsolicited>,
    /// How long a mapping lives without traffic, at least.
    pub lifetime: Field<Duration>,
}
