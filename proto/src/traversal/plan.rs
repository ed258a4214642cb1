//! What to do about two NATs, from what both measured: a pure function, the same on both ends
//! (SPEC section 9.9; terms of RFC 4787).
//!
//! # What can be guessed
//! The *opener* sends from fresh sockets to the other's observed address; its NAT makes a mapping
//! for each. The *prober* sends to the ports that these mappings may have. A probe passes when it
//! hits one of them and the opener's NAT accepts its source; then the opener answers, and the
//! prober's NAT must accept that.
//! - A prober with one external port (endpoint-independent mapping, or ports preserved) sends from
//!   the very address that was opened, and is answered from the very port that it probed: this
//!   works whatever either side filters.
//! - Another prober shows a new port. The opener must filter by address at most, and must answer
//!   from the port that was probed, so map by address: then the prober's own behaviour does not
//!   matter.
//! - Where both map by address and port, each answer leaves from yet another port. Only when both
//!   NATs count can both sides know beforehand which port will meet which.
//!
//! # How likely it is
//! Of `S` ports, `N` are open, and `M` different ones are probed:
//! `P = 1 - prod((S-N-i)/(S-i), i < M)`, about `1 - exp(-N M / S)`.
//!
//! | `S` | `N` | `M` for 50 % | 95 % | 99 % | at the limit of 1750 |
//! |---|---|---|---|---|---|
//! | 64512 | 256 | 175 | 750 | 1150 | 99.9 % |
//! | 16384 | 128 | 89 | 380 | 579 | 100 % |
//! | 4096 | 64 | 44 | 186 | 283 | 100 % |
//! | 2048 | 64 | 22 | 92 | 140 | 100 % |
//!
//! Where a NAT counts, two Bindings to the server around the openers enclose their ports: all in
//! between are probed, whoever has them. Where both count, each side aims three groups of eight
//! sockets at the 8th, 16th and 24th next port of the other; a port that another host takes, with
//! chance `q`, spoils its group, so that each group succeeds with about `(1-q)^2`: 96 % a round
//! at 0.2 foreign allocations for each own.
//!
//! With both ports at random over 64512 a probe is one of `S^2` combinations: 100 000 probes from
//! each side for 90 %. With one side counting, knowing it saves one factor only: 45 000 mappings
//! for 50 %. Neither is tried.

use super::nat::{Allocation, Dependence, Field, Profile};

/// What to do beyond the checks of SPEC section 9.3.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Strategy {
    /// Nothing: they suffice, or too little is known.
    Open,
    /// The opener's NAT counts: it encloses its ports, and the other probes them.
    Window {
        /// Who opens.
        opener: Opener,
    },
    /// The opener's NAT takes ports at random.
    Birthday {
        /// Who opens.
        opener: Opener,
        /// From which ports.
        range: PortRange,
    },
    /// Both NATs count: each side aims at the next ports of the other.
    Aligned,
    /// Nothing: a direct path over IPv4 cannot be found with reasonable effort.
    Relay,
}

/// Who opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opener {
    /// This one.
    Mine,
    /// The other one.
    Theirs,
    /// Their NATs are alike: the controlling one.
    Controlling,
}

/// Ports, both bounds included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    /// Lowest.
    pub first: u16,
    /// Highest.
    pub last: u16,
}

impl Opener {
    const fn other(self) -> Self {
        match self {
            Self::Mine => Self::Theirs,
            Self::Theirs => Self::Mine,
            Self::Controlling => Self::Controlling,
        }
    }
}

impl PortRange {
    /// Ports that NATs hand out.
    pub const ALL: Self = Self { first: 1024, last: u16::MAX };

    /// How many.
    pub const fn count(self) -> u32 {
        self.last as u32 - self.first as u32 + 1
    }

    /// Sockets that the opener opens, by the table above.
    pub const fn sockets(self) -> u16 {
        match self.count() {
            0..=4096 => 64,
            4097..=16_384 => 128,
            _ => 256,
        }
    }
}

/// The strategy for a pair; what the other end computes from the same profiles is its mirror
/// image.
pub fn plan(mine: &Profile, theirs: &Profile) -> Strategy {
    let (a, b) = (Nat::of(mine), Nat::of(theirs));
    match (a.ports, b.ports) {
        (Ports::Unknown, _) | (_, Ports::Unknown) | (Ports::One, Ports::One) => Strategy::Open,
        // Filters take seconds to measure. Should they let any port in, a path is found before
        // a punch begins.
        (Ports::One, _) if a.by_address_at_most == Some(true) => Strategy::Open,
        (_, Ports::One) if b.by_address_at_most == Some(true) => Strategy::Open,
        (Ports::One, _) => b.opened_by(Opener::Theirs),
        (_, Ports::One) => a.opened_by(Opener::Mine),
        (Ports::Counting | Ports::Random(_), Ports::Counting | Ports::Random(_)) => {
            without_one_port(&a, &b)
        }
    }
}

/// The plan where [`plan`] was the simple way, and that failed: our own mapping may depend on the
/// address after all, and perhaps theirs too.
pub fn plan_doubting(mine: &Profile, theirs: &Profile) -> Strategy {
    let strategy = plan(&mine.doubted(), theirs);
    if strategy != Strategy::Open {
        return strategy;
    }
    plan(&mine.doubted(), &theirs.doubted())
}

/// Both NATs take new ports.
fn without_one_port(a: &Nat, b: &Nat) -> Strategy {
    match (a.answers_anybody, b.answers_anybody) {
        (true, true) if a.effort() == b.effort() => a.opened_by(Opener::Controlling),
        (true, true) if a.effort() < b.effort() => a.opened_by(Opener::Mine),
        (_, true) => b.opened_by(Opener::Theirs),
        (true, false) => a.opened_by(Opener::Mine),
        (false, false) => match (a.ports, b.ports) {
            (Ports::Counting, Ports::Counting) => Strategy::Aligned,
            _ => Strategy::Relay,
        },
    }
}

/// What matters of a profile here.
struct Nat {
    ports: Ports,
    /// Whether it filters by address at most, where that is known.
    by_address_at_most: Option<bool>,
    /// Whether it accepts any port of an address sent to, and answers from the mapping that was
    /// hit.
    answers_anybody: bool,
}

/// Which external ports sockets get.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Ports {
    Unknown,
    /// A socket has one port for all destinations.
    One,
    /// Each new mapping gets the next one.
    Counting,
    /// Each new mapping gets one of these.
    Random(PortRange),
}

impl Nat {
    fn of(profile: &Profile) -> Self {
        let by_address_at_most = profile.filtering.value().map(|filtering| match filtering {
            Dependence::Endpoint | Dependence::Address | Dependence::NotPort => true,
            Dependence::AddressAndPort => false,
        });
        let by_address = profile.mapping.value() == Some(Dependence::Address);
        let answers_anybody = by_address && by_address_at_most == Some(true);
        Self { ports: Ports::of(profile), by_address_at_most, answers_anybody }
    }

    /// The strategy in which this NAT's side, which takes new ports, opens.
    fn opened_by(&self, opener: Opener) -> Strategy {
        match self.ports {
            Ports::Counting => Strategy::Window { opener },
            Ports::Random(range) => Strategy::Birthday { opener, range },
            Ports::Unknown | Ports::One => Strategy::Open,
        }
    }

    /// Ports that the other side must look through.
    fn effort(&self) -> u32 {
        match self.ports {
            Ports::Random(range) => range.count(),
            Ports::Unknown | Ports::One | Ports::Counting => 0,
        }
    }
}

impl Ports {
    fn of(profile: &Profile) -> Self {
        let Some(mapping) = profile.mapping.value() else { return Self::Unknown };
        match (mapping, profile.allocation.value()) {
            // One address of a server cannot tell the first two apart, and few NATs are of the
            // second kind; `doubted` is for those.
            (Dependence::Endpoint | Dependence::NotPort, _) => Self::One,
            (Dependence::Address | Dependence::AddressAndPort, allocation) => match allocation {
                None => Self::Unknown,
                Some(Allocation::Preserving) => Self::One,
                Some(Allocation::Sequential { .. }) => Self::Counting,
                Some(Allocation::Block { first, last }) => Self::Random(PortRange { first, last }),
                Some(Allocation::Random) => Self::Random(PortRange::ALL),
            },
        }
    }
}

impl Strategy {
    /// As the other end sees it.
    #[must_use]
    pub const fn mirror(self) -> Self {
        match self {
            Self::Open | Self::Aligned | Self::Relay => self,
            Self::Window { opener } => Self::Window { opener: opener.other() },
            Self::Birthday { opener, range } => Self::Birthday { opener: opener.other(), range },
        }
    }
}

impl Profile {
    /// The same where the simple way failed: a mapping that may depend on the address does.
    #[must_use]
    pub fn doubted(mut self) -> Self {
        if let Field::Known { value: value @ Dependence::NotPort, .. } = &mut self.mapping {
            *value = Dependence::Address;
        }
        self
    }
}

#[cfg(test)]
#[path = "tests/plan.rs"]
mod tests;
