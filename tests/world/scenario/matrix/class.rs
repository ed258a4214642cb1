//! What pairs have in common, and what is required of them.

use std::time::Duration;

use crate::nat::{Dependence, Ports};
use crate::oracle::{Expectation, Side, Technique};

/// Pairs that are counted together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Simple simultaneous open does it.
    Simple,
    /// The same with routers that reject unsolicited packets, or keep state for them.
    Routers,
    /// The same with one side near and the other far.
    Uneven,
    /// The same with delays that vary.
    Jittery,
    /// The same with loss.
    Lossy,
    /// The same with distance, jitter and loss by chance, and routers that keep state for what
    /// comes too early.
    Rough,
    /// Hosts in one network, below one carrier, behind two routers, with IPv6.
    Special,
    /// One side stable, the other's ports counted.
    Window,
    /// The same, and others behind the routers.
    WindowBusy,
    /// Both sides' ports counted.
    Aligned,
    /// The same, and others behind the routers.
    AlignedBusy,
    /// One side stable, the other's ports from a block.
    Block,
    /// One side stable, the other's ports anywhere.
    Birthday,
    /// Ports must be guessed, and a box maps by address. Only who asks a server with two
    /// addresses can tell that from a stable one: these pairs have such a server.
    ByAddress,
    /// No direct path.
    Hopeless,
    /// A router restarts in mid-conversation.
    Reboot,
    /// A host changes its network in mid-conversation.
    Move,
}

/// What a run of a class is meant to end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Goal {
    /// A direct path.
    Direct,
    /// The relay, and no storm of packets.
    Relay,
    /// A direct path soon after the incident.
    Recovery,
}

/// What is required of a class. The share is that of all runs of the class; of one pair's runs
/// the number is asked that a true share of this size reaches in 999 of 1000 cases.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Required {
    /// Share of good runs, 0 to 1.
    pub share: f64,
    /// How soon, for half of the runs.
    pub within: Within,
}

/// How soon half of the runs must have a direct path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Within {
    /// Whenever.
    Anytime,
    /// So many times the physical limit.
    TimesFloor(f64),
    /// So long after half of the simple pairs.
    AfterSimple(Duration),
}

/// A host may send so many datagrams in the ten seconds in which it learns that there is no
/// direct path, everything counted: two to four rounds of checks, and what is relayed.
pub(super) const STORM: u64 = 400;
/// So soon a path is direct again once the network is back.
pub(super) const BACK: Duration = Duration::from_secs(2);

impl Class {
    /// All, in the order of the table.
    pub const ALL: [Self; 17] = [
        Self::Simple,
        Self::Routers,
        Self::Uneven,
        Self::Jittery,
        Self::Lossy,
        Self::Rough,
        Self::Special,
        Self::Window,
        Self::WindowBusy,
        Self::Aligned,
        Self::AlignedBusy,
        Self::Block,
        Self::Birthday,
        Self::ByAddress,
        Self::Hopeless,
        Self::Reboot,
        Self::Move,
    ];

    /// The class of two sides over clean lines.
    pub(super) fn of(expected: Expectation, a: &Side, b: &Side) -> Self {
        let technique = match expected {
            Expectation::Direct => return Self::Simple,
            Expectation::Relay => return Self::Hopeless,
            Expectation::Guessing(technique) => technique,
        };
        if maps_by_address(a) || maps_by_address(b) {
            return Self::ByAddress;
        }
        match technique {
            Technique::Window => Self::Window,
            Technique::Aligned => Self::Aligned,
            Technique::Block => Self::Block,
            Technique::Birthday => Self::Birthday,
            Technique::ByAddress => Self::ByAddress,
        }
    }

    /// The name in the table.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Simple => "simple",
            Self::Routers => "simple, reject or keep state",
            Self::Uneven => "simple, near and far",
            Self::Jittery => "simple, jitter",
            Self::Lossy => "simple, 5 % loss",
            Self::Rough => "simple, rough lines, state",
            Self::Special => "neighbours, cascades, IPv6",
            Self::Window => "stable x sequential",
            Self::WindowBusy => "stable x sequential, busy",
            Self::Aligned => "sequential x sequential",
            Self::AlignedBusy => "sequential x sequential, busy",
            Self::Block => "stable x block of 2048",
            Self::Birthday => "stable x random",
            Self::ByAddress => "mapped by address",
            Self::Hopeless => "relay",
            Self::Reboot => "router restarts",
            Self::Move => "host moves",
        }
    }

    /// What a good run ends with.
    pub const fn goal(self) -> Goal {
        match self {
            Self::Hopeless => Goal::Relay,
            Self::Reboot | Self::Move => Goal::Recovery,
            Self::Simple
            | Self::Routers
            | Self::Uneven
            | Self::Jittery
            | Self::Lossy
            | Self::Rough
            | Self::Special
            | Self::Window
            | Self::WindowBusy
            | Self::Aligned
            | Self::AlignedBusy
            | Self::Block
            | Self::Birthday
            | Self::ByAddress => Goal::Direct,
        }
    }

    /// What is required; `None`: the figures are for information.
    pub const fn required(self) -> Option<Required> {
        let (share, within) = match self {
            Self::Simple | Self::Routers | Self::Uneven | Self::Special => {
                (1.0, Within::TimesFloor(1.2))
            }
            Self::Jittery | Self::Hopeless | Self::Reboot | Self::Move => (1.0, Within::Anytime),
            Self::Lossy => (0.99, Within::Anytime),
            Self::Window | Self::WindowBusy | Self::Aligned | Self::AlignedBusy => {
                (0.95, Within::Anytime)
            }
            Self::Block => (0.99, Within::AfterSimple(Duration::from_millis(500))),
            Self::Birthday => (0.95, Within::AfterSimple(Duration::from_secs(1))),
            Self::ByAddress | Self::Rough => return None,
        };
        Some(Required { share, within })
    }
}

/// Whether a box of the side maps by address and shows it.
pub(super) fn maps_by_address(side: &Side) -> bool {
    let by_address = |config: &crate::nat::NatConfig| {
        config.mapping == Dependence::Address && config.ports != Ports::Preserving
    };
    side.layers.iter().any(|layer| by_address(&layer.config))
}
