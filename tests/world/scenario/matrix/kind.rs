//! What a peer is behind, with a short name.

use std::fmt;

use crate::nat::{Dependence, NatConfig, Ports};
use crate::oracle::Side;

/// A kind of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A public address.
    Public,
    /// A box. Written as mapping, filtering and choice of ports: `eim-adf-pres`, `apdm-apdf-seq2`.
    Behind {
        /// When an inner endpoint gets another outer port.
        mapping: Dependence,
        /// From whom an outer port accepts.
        filtering: Dependence,
        /// Choice of outer ports.
        ports: Ports,
    },
}

/// A block as carriers hand out.
const BLOCK: Ports = Ports::Block { first: 30_000, len: 2048 };

impl Kind {
    /// Endpoint-independent mapping and filtering ("full cone").
    pub const FULL_CONE: Self = Self::cone(Dependence::Endpoint);
    /// Address-dependent filtering ("restricted cone").
    pub const RESTRICTED: Self = Self::cone(Dependence::Address);
    /// Address-and-port-dependent filtering ("port-restricted").
    pub const PORT_RESTRICTED: Self = Self::cone(Dependence::AddressAndPort);
    /// Everything depends on address and port, ports at random ("symmetric").
    pub const SYMMETRIC: Self = Self::symmetric(Ports::Random);
    /// A mapping for each connection, which keeps the inner port where it can.
    pub const LINUX: Self = Self::symmetric(Ports::Preserving);
    /// Symmetric, with ports from a block.
    pub const BLOCK: Self = Self::symmetric(BLOCK);

    /// Everything depends on address and port, and ports are counted.
    pub const fn counting(step: i16) -> Self {
        Self::symmetric(Ports::Sequential { step })
    }

    const fn cone(filtering: Dependence) -> Self {
        let (mapping, ports) = (Dependence::Endpoint, Ports::Preserving);
        Self::Behind { mapping, filtering, ports }
    }

    const fn symmetric(ports: Ports) -> Self {
        let dependence = Dependence::AddressAndPort;
        Self::Behind { mapping: dependence, filtering: dependence, ports }
    }

    /// All kinds of the matrix. Where the choice of ports cannot matter, it is represented by a
    /// few: mapping independently of the destination, a box shows one port whatever the choice.
    pub fn all() -> Vec<Self> {
        let boxes = Dependence::ALL.into_iter().flat_map(|mapping| {
            Dependence::ALL.into_iter().flat_map(move |filtering| {
                let ports = choices(mapping).iter();
                ports.map(move |ports| Self::Behind { mapping, filtering, ports: *ports })
            })
        });
        std::iter::once(Self::Public).chain(boxes).collect()
    }

    /// The box, or `None` for a public address.
    pub const fn config(self) -> Option<NatConfig> {
        match self {
            Self::Public => None,
            Self::Behind { mapping, filtering, ports } => {
                Some(NatConfig::SYMMETRIC.with_behaviour(mapping, filtering).with_ports(ports))
            }
        }
    }

    /// A host behind such a box of this number, after a change of the box.
    pub fn side(self, number: u32, change: impl Fn(NatConfig) -> NatConfig) -> Side {
        let config = self.config().map(change);
        config.map_or_else(Side::public, |config| Side::behind(number, config))
    }
}

const fn choices(mapping: Dependence) -> &'static [Ports] {
    const fn count(step: i16) -> Ports {
        Ports::Sequential { step }
    }
    match mapping {
        Dependence::Endpoint => const { &[Ports::Preserving, Ports::Random] },
        Dependence::Address => const { &[Ports::Preserving, count(1), BLOCK, Ports::Random] },
        Dependence::AddressAndPort => {
            const { &[Ports::Preserving, count(1), count(2), count(5), count(-1), BLOCK, Ports::Random] }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self::Behind { mapping, filtering, ports } = self else { return f.write_str("public") };
        let short = |dependence: &Dependence| match dependence {
            Dependence::Endpoint => "ei",
            Dependence::Address => "ad",
            Dependence::AddressAndPort => "apd",
        };
        write!(f, "{}m-{}f-", short(mapping), short(filtering))?;
        match ports {
            Ports::Preserving => f.write_str("pres"),
            Ports::Sequential { step } => write!(f, "seq{step}"),
            Ports::Random => f.write_str("rand"),
            Ports::Block { .. } => f.write_str("block"),
        }
    }
}
