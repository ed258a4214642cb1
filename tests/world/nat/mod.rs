//! A NAT box with the knobs of RFC 4787, and the ones that real routers add.
//!
//! *Mapping* (RFC 4787 section 4.1) says for which destinations an inner endpoint keeps its outer
//! port; *filtering* (section 5) says from whom such a port accepts. As in deployed boxes, a
//! permission belongs to the mapping that the inner endpoint sent through: a packet that arrives
//! at a mapping made for one destination is judged by what was sent through that mapping.
//!
//! [`Ports::Preserving`] together with a dependent mapping is how Linux masquerades: every
//! connection has a mapping of its own, but all of one inner endpoint keep its port as long as
//! nobody else holds it, so that from outside the box looks endpoint-independent.

mod ports;
mod table;

use std::time::Duration;

pub use table::NatBox;

/// How far a mapping, or a permission, reaches (RFC 4787 sections 4.1 and 5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Dependence {
    /// The same for every remote endpoint (EIM, EIF).
    Endpoint,
    /// One for each remote address (ADM, ADF).
    Address,
    /// One for each remote address and port (APDM, APDF).
    AddressAndPort,
}

impl Dependence {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Endpoint, Self::Address, Self::AddressAndPort];
}

/// How a box picks the outer port of a new mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ports {
    /// The inner port where it is free, else one at random.
    Preserving,
    /// The last one plus `step`; behind the last port the box begins at the other end.
    Sequential {
        /// Distance from one allocation to the next, not 0; some boxes count down.
        step: i16,
    },
    /// Any from 1024 up.
    Random,
    /// At random from a block, as carrier-grade boxes hand one to a subscriber.
    Block {
        /// First port.
        first: u16,
        /// Ports in the block.
        len: u16,
    },
}

/// What keeps a mapping alive (RFC 4787 REQ-6).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refresh {
    /// Only what goes out.
    Outbound,
    /// What comes in as well.
    Both,
}

/// Whether two inner hosts reach each other under their outer addresses (RFC 4787 REQ-9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hairpin {
    /// Yes, and the outer source address is shown.
    On,
    /// No: such packets are dropped.
    Off,
}

/// What happens to a packet that no mapping accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unsolicited {
    /// Dropped without a trace.
    Drop,
    /// Answered with an ICMP error (counted; nothing is forwarded), no state kept.
    Reject,
    /// Accepted on the router's own input, which leaves state for (outer port, remote): a later
    /// mapping of that port towards that remote clashes with it and is moved to another port.
    AcceptState,
}

/// The knobs of a box.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NatConfig {
    /// When an inner endpoint gets another outer port.
    pub mapping: Dependence,
    /// From whom an outer port accepts.
    pub filtering: Dependence,
    /// Choice of outer ports.
    pub ports: Ports,
    /// A mapping or permission unused for this long is gone.
    pub lifetime: Duration,
    /// What counts as use.
    pub refresh: Refresh,
    /// A mapping ends at this age, whatever goes through it, as with some mobile carriers.
    pub absolute: Option<Duration>,
    /// Mappings that other inner hosts make for every hundred of the hosts of the world.
    pub cross_traffic: u16,
    /// Inner hosts meeting at the outer address.
    pub hairpin: Hairpin,
    /// Packets that nothing accepts.
    pub unsolicited: Unsolicited,
}

impl NatConfig {
    /// Endpoint-independent mapping and filtering ("full cone").
    pub const FULL_CONE: Self = Self::cone(Dependence::Endpoint);
    /// Endpoint-independent mapping, address-dependent filtering ("restricted cone").
    pub const RESTRICTED: Self = Self::cone(Dependence::Address);
    /// Endpoint-independent mapping, address-and-port-dependent filtering ("port-restricted").
    pub const PORT_RESTRICTED: Self = Self::cone(Dependence::AddressAndPort);
    /// Everything depends on address and port, ports at random ("symmetric").
    pub const SYMMETRIC: Self =
        Self { mapping: Dependence::AddressAndPort, ports: Ports::Random, ..Self::PORT_RESTRICTED };

    const fn cone(filtering: Dependence) -> Self {
        Self {
            mapping: Dependence::Endpoint,
            filtering,
            ports: Ports::Preserving,
            lifetime: Duration::from_secs(120),
            refresh: Refresh::Outbound,
            absolute: None,
            cross_traffic: 0,
            hairpin: Hairpin::Off,
            unsolicited: Unsolicited::Drop,
        }
    }

    /// The same box with another answer to unsolicited packets.
    #[must_use]
    pub const fn with_unsolicited(mut self, unsolicited: Unsolicited) -> Self {
        self.unsolicited = unsolicited;
        self
    }

    /// The same box with mappings that end at this age.
    #[must_use]
    pub const fn with_absolute_lifetime(mut self, absolute: Duration) -> Self {
        self.absolute = Some(absolute);
        self
    }

    /// The same box with other hosts behind it, which make `percent` mappings for every hundred
    /// of the hosts of the world.
    #[must_use]
    pub const fn with_cross_traffic(mut self, percent: u16) -> Self {
        self.cross_traffic = percent;
        self
    }

    /// The same box with hairpinning.
    #[must_use]
    pub const fn with_hairpin(mut self) -> Self {
        self.hairpin = Hairpin::On;
        self
    }

    /// The same box with another choice of ports.
    #[must_use]
    pub const fn with_ports(mut self, ports: Ports) -> Self {
        self.ports = ports;
        self
    }

    /// The same box with other mapping and filtering.
    #[must_use]
    pub const fn with_behaviour(mut self, mapping: Dependence, filtering: Dependence) -> Self {
        self.mapping = mapping;
        self.filtering = filtering;
        self
    }
}
