//! What is known of a peer's NAT, in the words of RFC 4787.
//!
//! In JSON a field is `null` or an object of `value` and `samples`; a lifetime is in seconds.

pub(crate) mod classify;
mod text;

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// A property: what was measured, or nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
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

impl<T> Field<T> {
    /// This, or where nothing was measured the other.
    fn or(self, other: Self) -> Self {
        match self {
            Self::Unknown => other,
            Self::Known { .. } => self,
        }
    }
}

/// For which destinations a mapping is kept (RFC 4787 section 4.1), or from which sources a
/// mapping accepts (section 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Hairpin {
    /// They do.
    Works,
    /// They do not.
    Fails,
}

/// What a datagram that nothing asked for leaves behind at the router.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Unsolicited {
    /// Nothing.
    Forgotten,
    /// State that moves a later mapping of that port to another one.
    Remembered,
}

/// What is known of the way from one host to the internet over IPv4. Behind several NATs it is
/// what they amount to together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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
    #[serde(with = "text::seconds")]
    pub lifetime: Field<Duration>,
}

impl Profile {
    /// What is known here, completed by an older one of the same network.
    pub(crate) fn or(self, older: Self) -> Self {
        Self {
            mapping: self.mapping.or(older.mapping),
            filtering: self.filtering.or(older.filtering),
            allocation: self.allocation.or(older.allocation),
            hairpin: self.hairpin.or(older.hairpin),
            unsolicited: self.unsolicited.or(older.unsolicited),
            lifetime: self.lifetime.or(older.lifetime),
        }
    }
}
