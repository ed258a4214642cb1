//! Why the traffic of a pair goes the way it goes, for people and programs.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::api::{Mapped, PathView};
use crate::id::{PeerKey, PeerName};
use crate::traversal::nat::{Allocation, Dependence, Profile};
use crate::traversal::{Guessed, PairReport};

/// Answer to [`Node::why`](super::Node::why).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Why {
    /// Which peer.
    pub name: PeerName,
    /// Its key.
    pub key: PeerKey,
    /// The path in use.
    pub path: PathView,
    /// Unix seconds since when it is.
    pub since: u64,
    /// Why it is this one.
    pub reason: Reason,
    /// The address pairs tried, and what came of it.
    pub pairs: Vec<PairReport>,
    /// What routers forward to this peer.
    pub mapped: Vec<Mapped>,
    /// What this host's routers do, as measured.
    pub nat: Profile,
    /// What the peer's routers do, as it told.
    pub their_nat: Option<Profile>,
}

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Party {
    /// This peer.
    Own,
    /// The other one.
    Other,
}

/// Why a path is the one in use. [`Reason::about`] makes a sentence of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// The two have no session.
    NoSession,
    /// The other side answers checks at this address.
    Direct {
        /// Its address.
        address: SocketAddr,
    },
    /// One of the two hides.
    Hidden(Party),
    /// The server did not introduce the two since it knows them.
    NotIntroduced,
    /// Checks are under way.
    Checking {
        /// How many pairs are checked.
        pairs: usize,
    },
    /// The other side has no address that a socket here can send to.
    NoCommonFamily,
    /// A direct path was proved, and failed.
    Lost,
    /// Both are behind one router that does not carry datagrams from one to the other.
    SameRouter {
        /// Its outer address.
        address: IpAddr,
    },
    /// A port to the other side is being guessed.
    Guessing {
        /// The round under way.
        round: u32,
        /// What was spent on it since the last introduction.
        guessed: Guessed,
    },
    /// No port was found.
    NotGuessed {
        /// Rounds so far.
        rounds: u32,
        /// What was spent on it since the last introduction.
        guessed: Guessed,
    },
    /// No check was answered.
    Silent {
        /// How many pairs were checked.
        pairs: usize,
        /// What this host's routers do.
        own: Router,
        /// What the other side's do.
        their: Router,
    },
}

/// What the routers on one side mean for direct paths, in one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Router {
    /// Not measured or not told.
    Unknown,
    /// None, or one that lets in others at the port that it shows.
    Open,
    /// It shows one port and lets in only answers.
    Strict,
    /// It shows each destination another port, one step after the last.
    Counting,
    /// It shows each destination another port, any.
    Random,
}

impl Router {
    /// What a profile amounts to.
    pub fn of(profile: &Profile) -> Self {
        match (profile.mapping.value(), profile.filtering.value()) {
            (None, _) => Self::Unknown,
            (Some(Dependence::Endpoint | Dependence::NotPort), Some(filter)) => match filter {
                Dependence::AddressAndPort => Self::Strict,
                Dependence::Endpoint | Dependence::Address | Dependence::NotPort => Self::Open,
            },
            (Some(Dependence::Endpoint | Dependence::NotPort), None) => Self::Strict,
            (Some(Dependence::Address | Dependence::AddressAndPort), _) => {
                match profile.allocation.value() {
                    Some(Allocation::Sequential { .. }) => Self::Counting,
                    Some(
                        Allocation::Preserving | Allocation::Block { .. } | Allocation::Random,
                    )
                    | None => Self::Random,
                }
            }
        }
    }

    /// Whether a peer cannot know at which port this side will be seen.
    const fn is_moving(self) -> bool {
        matches!(self, Self::Counting | Self::Random)
    }

    /// What it does, after "your router".
    const fn does(self) -> &'static str {
        match self {
            Self::Unknown => "is not known",
            Self::Open => "lets others in",
            Self::Strict => "lets in only answers",
            Self::Counting => "gives every destination another port",
            Self::Random => "gives every destination another random port",
        }
    }
}

impl Reason {
    /// The reason in a sentence; `name` is the other side's.
    pub fn about<'a>(&'a self, name: &'a PeerName) -> impl fmt::Display + 'a {
        Sentence { reason: self, name }
    }

    /// The reason in a word, for programs.
    pub const fn word(&self) -> &'static str {
        match self {
            Self::NoSession => "no_session",
            Self::Direct { .. } => "direct",
            Self::Hidden(_) => "hidden",
            Self::NotIntroduced => "not_introduced",
            Self::Checking { .. } => "checking",
            Self::NoCommonFamily => "no_common_family",
            Self::Lost => "lost",
            Self::SameRouter { .. } => "same_router",
            Self::Guessing { .. } => "guessing",
            Self::NotGuessed { .. } => "not_guessed",
            Self::Silent { .. } => "silent",
        }
    }
}

const REMEDY: &str = "enable UPnP or NAT-PMP on either router, or use IPv6";

struct Sentence<'a> {
    reason: &'a Reason,
    name: &'a PeerName,
}

impl fmt::Display for Sentence<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name;
        match self.reason {
            Reason::NoSession => write!(f, "no session with {name} stands; send it a message"),
            Reason::Direct { address } => {
                write!(f, "direct: {name} answers authenticated checks at {address}")
            }
            Reason::Hidden(Party::Own) => {
                write!(f, "relayed: this peer hides its addresses; start it without --relay-only")
            }
            Reason::Hidden(Party::Other) => write!(
                f,
                "relayed: {name} hides its addresses; only it can change that (--relay-only)"
            ),
            Reason::NotIntroduced => write!(
                f,
                "relayed: the server did not introduce {name} since this session began; send a \
                 message"
            ),
            Reason::Checking { pairs } => {
                write!(f, "relayed for now: {pairs} address pairs to {name} are being checked")
            }
            Reason::NoCommonFamily => write!(
                f,
                "relayed: {name} has no address that this host can send to; give both IPv4, or \
                 both IPv6"
            ),
            Reason::Lost => write!(
                f,
                "relayed: a direct path to {name} was proved and failed; it is tried again by \
                 itself"
            ),
            Reason::SameRouter { address } => write!(
                f,
                "relayed: {name} is behind the same router as you, {address}, which does not \
                 carry traffic between its own clients; use one LAN, or enable NAT loopback \
                 (hairpin) on it"
            ),
            Reason::Guessing { round, guessed: Guessed { opened, probed } } => write!(
                f,
                "relayed for now: a port to {name} is being guessed, round {round}, {opened} \
                 sockets opened, {probed} probes sent"
            ),
            Reason::NotGuessed { rounds, guessed: Guessed { opened, probed } } => write!(
                f,
                "relayed: no port to {name} was found in {rounds} rounds, {opened} sockets \
                 opened, {probed} probes sent; it is tried again by itself; {REMEDY}"
            ),
            Reason::Silent { pairs, own, their } => silence(f, name, *pairs, *own, *their),
        }
    }
}

fn silence(
    f: &mut fmt::Formatter<'_>,
    name: &PeerName,
    pairs: usize,
    own: Router,
    their: Router,
) -> fmt::Result {
    if own == Router::Unknown && their == Router::Unknown {
        return write!(
            f,
            "relayed: none of {pairs} address pairs to {name} answered; a NAT that chooses a \
             new port for each destination, or a firewall that blocks UDP, stands between; \
             {REMEDY}"
        );
    }
    write!(f, "relayed: your router {} and {name}'s ", own.does())?;
    f.write_str(if own == their { "does the same" } else { their.does() })?;
    if own.is_moving() || their.is_moving() {
        return write!(f, "; {REMEDY}");
    }
    write!(
        f,
        ", yet none of {pairs} address pairs answered; look for a firewall that blocks UDP \
         between the two"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traversal::nat::Field;

    fn known<T>(value: T) -> Field<T> {
        Field::Known { value, samples: 4 }
    }

    #[test]
    fn a_profile_amounts_to_one_word() {
        use Dependence::{Address, AddressAndPort, Endpoint, NotPort};
        let sequential = Allocation::Sequential { step: 2 };
        for (mapping, filtering, allocation, router) in [
            (None, Some(Endpoint), Some(Allocation::Random), Router::Unknown),
            (Some(Endpoint), Some(Endpoint), None, Router::Open),
            (Some(NotPort), Some(NotPort), Some(Allocation::Preserving), Router::Open),
            (Some(Endpoint), Some(AddressAndPort), None, Router::Strict),
            (Some(Endpoint), None, None, Router::Strict),
            (Some(AddressAndPort), Some(AddressAndPort), Some(sequential), Router::Counting),
            (Some(AddressAndPort), None, Some(Allocation::Random), Router::Random),
            (Some(Address), None, None, Router::Random),
        ] {
            let profile = Profile {
                mapping: mapping.map_or(Field::Unknown, known),
                filtering: filtering.map_or(Field::Unknown, known),
                allocation: allocation.map_or(Field::Unknown, known),
                ..Profile::default()
            };
            assert_eq!(Router::of(&profile), router, "{profile:?}");
        }
    }

    #[test]
    fn every_reason_is_a_sentence_that_says_what_to_do() {
        use Router::{Counting, Open, Random, Strict, Unknown};
        let bob = PeerName::new("bob").unwrap();
        let silent = |own, their| Reason::Silent { pairs: 3, own, their };
        let address = "192.0.2.1:9".parse().unwrap();
        for (reason, sentence) in [
            (Reason::NoSession, "no session with bob stands; send it a message"),
            (Reason::Direct { address }, "direct: bob answers authenticated checks at 192.0.2.1:9"),
            (
                Reason::Hidden(Party::Own),
                "relayed: this peer hides its addresses; start it without --relay-only",
            ),
            (
                Reason::Hidden(Party::Other),
                "relayed: bob hides its addresses; only it can change that (--relay-only)",
            ),
            (
                Reason::NotIntroduced,
                "relayed: the server did not introduce bob since this session began; send a \
                 message",
            ),
            (
                Reason::Checking { pairs: 3 },
                "relayed for now: 3 address pairs to bob are being checked",
            ),
            (
                Reason::NoCommonFamily,
                "relayed: bob has no address that this host can send to; give both IPv4, or \
                 both IPv6",
            ),
            (
                Reason::Lost,
                "relayed: a direct path to bob was proved and failed; it is tried again by itself",
            ),
            (
                Reason::SameRouter { address: address.ip() },
                "relayed: bob is behind the same router as you, 192.0.2.1, which does not carry \
                 traffic between its own clients; use one LAN, or enable NAT loopback (hairpin) \
                 on it",
            ),
            (
                Reason::Guessing { round: 2, guessed: Guessed { opened: 64, probed: 0 } },
                "relayed for now: a port to bob is being guessed, round 2, 64 sockets opened, 0 \
                 probes sent",
            ),
            (
                Reason::NotGuessed { rounds: 3, guessed: Guessed { opened: 0, probed: 1750 } },
                "relayed: no port to bob was found in 3 rounds, 0 sockets opened, 1750 probes \
                 sent; it is tried again by itself; enable UPnP or NAT-PMP on either router, or \
                 use IPv6",
            ),
            (
                silent(Unknown, Unknown),
                "relayed: none of 3 address pairs to bob answered; a NAT that chooses a new port \
                 for each destination, or a firewall that blocks UDP, stands between; enable UPnP \
                 or NAT-PMP on either router, or use IPv6",
            ),
            (
                silent(Random, Random),
                "relayed: your router gives every destination another random port and bob's does \
                 the same; enable UPnP or NAT-PMP on either router, or use IPv6",
            ),
            (
                silent(Strict, Counting),
                "relayed: your router lets in only answers and bob's gives every destination \
                 another port; enable UPnP or NAT-PMP on either router, or use IPv6",
            ),
            (
                silent(Random, Unknown),
                "relayed: your router gives every destination another random port and bob's is \
                 not known; enable UPnP or NAT-PMP on either router, or use IPv6",
            ),
            (
                silent(Open, Strict),
                "relayed: your router lets others in and bob's lets in only answers, yet none of \
                 3 address pairs answered; look for a firewall that blocks UDP between the two",
            ),
        ] {
            assert_eq!(reason.about(&bob).to_string(), sentence);
        }
    }
}
