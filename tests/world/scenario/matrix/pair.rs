//! Two sides that shall meet, and in what circumstances.

use super::class::{Class, maps_by_address};
use super::kind::Kind;
use crate::nat::{NatConfig, Unsolicited};
use crate::oracle::{Expectation, Side, direct_possible};

/// Two sides that shall meet.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The kinds, `:` between them, and what is special behind an `@`; unique.
    pub name: String,
    /// Alice's way to the internet.
    pub a: Side,
    /// Bob's.
    pub b: Side,
    /// What the lines are like.
    pub lines: Lines,
    /// What happens once they are direct.
    pub incident: Incident,
    /// What it has in common with others.
    pub class: Class,
}

/// What the access lines are like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// All the same and without fault.
    Clean,
    /// One datagram in twenty between the two is lost.
    Lossy,
    /// Delays vary by up to 10 ms on each line.
    Jittery,
    /// One side near the server, the other far away.
    Uneven,
    /// Drawn from the seed: distance, jitter that breaks the triangle inequality, and loss of up
    /// to a tenth on each line.
    Rough,
}

/// What happens in the middle of a conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Incident {
    /// Nothing.
    None,
    /// A side's router restarts: its mappings are gone.
    Reboot,
    /// A side moves to another network with a box of the same kind.
    Move,
}

impl Pair {
    /// Whether a box maps by address, which a server with one address cannot tell from a box
    /// that has one mapping for all.
    pub fn maps_by_address(&self) -> bool {
        maps_by_address(&self.a) || maps_by_address(&self.b)
    }

    /// Two kinds of access, each behind its own router, over clean lines.
    pub fn of(a: Kind, b: Kind) -> Self {
        Self::changed(a, b, "", |config| config)
    }

    /// The same with routers that take unsolicited packets in this way.
    pub fn with_routers(a: Kind, b: Kind, unsolicited: Unsolicited) -> Self {
        let name = match unsolicited {
            Unsolicited::Drop => "",
            Unsolicited::Reject => "@reject",
            Unsolicited::AcceptState => "@state",
        };
        Self::changed(a, b, name, |config| config.with_unsolicited(unsolicited))
    }

    /// The same with other hosts behind the routers, which make one mapping for every five.
    pub fn with_neighbours(a: Kind, b: Kind) -> Self {
        Self::changed(a, b, "@busy", |config| config.with_cross_traffic(20))
    }

    /// Any two sides over clean lines.
    pub fn special(name: &str, a: Side, b: Side) -> Self {
        let (lines, incident) = (Lines::Clean, Incident::None);
        let class = Class::of(direct_possible(&a, &b), &a, &b);
        Self { name: name.to_owned(), a, b, lines, incident, class }
    }

    fn changed(a: Kind, b: Kind, mark: &str, change: impl Fn(NatConfig) -> NatConfig) -> Self {
        let name = format!("{a}:{b}{mark}");
        Self::special(&name, a.side(1, &change), b.side(2, &change))
    }

    /// The same pair over other lines.
    #[must_use]
    pub fn over(mut self, lines: Lines) -> Self {
        let mark = match lines {
            Lines::Clean => "",
            Lines::Lossy => "@loss",
            Lines::Jittery => "@jitter",
            Lines::Uneven => "@uneven",
            Lines::Rough => "@rough",
        };
        self.name += mark;
        self.lines = lines;
        self
    }

    /// The same pair with something that happens to it.
    #[must_use]
    pub fn with_incident(mut self, incident: Incident) -> Self {
        let mark = match incident {
            Incident::None => "",
            Incident::Reboot => "@reboot",
            Incident::Move => "@move",
        };
        self.name += mark;
        self.incident = incident;
        self
    }

    /// The same pair, counted with another class.
    #[must_use]
    pub const fn in_class(mut self, class: Class) -> Self {
        self.class = class;
        self
    }

    /// What the oracle expects.
    pub fn expected(&self) -> Expectation {
        direct_possible(&self.a, &self.b)
    }
}
