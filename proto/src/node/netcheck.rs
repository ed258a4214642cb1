//! What this host's network allows, as far as it is known, for people and programs.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use super::api::Mapped;
use super::why::Router;
use crate::control::Exposure;
use crate::traversal::nat::Profile;

/// Answer to [`Node::netcheck`](super::Node::netcheck).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netcheck {
    /// The server as the person wrote it.
    pub server: String,
    /// Whether the registration stands and the server answers.
    pub registered: bool,
    /// The ways on which the server answers, one for each address family at most; that of the
    /// session first.
    pub ways: Vec<Way>,
    /// What routers forward to this peer.
    pub mapped: Vec<Mapped>,
    /// What is known of the NAT.
    pub nat: Profile,
    /// How far it is with that.
    pub measuring: Measuring,
    /// Whether members of the network are looked for on the LAN.
    pub lan: LanSearch,
    /// Whether peers may learn where this one is.
    pub exposure: Exposure,
}

/// Whether members of the network are looked for on the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LanSearch {
    /// They are.
    On,
    /// Switched off, or this peer hides.
    Off,
    /// The network has no secret: it is open to anybody, or no server told it yet.
    NoSecret,
}

/// A way to the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Way {
    /// The server's address.
    pub server: SocketAddr,
    /// Where the server sees the socket that is used.
    pub observed: SocketAddr,
    /// Round trip, where it was measured.
    pub rtt: Option<Duration>,
}

/// How far a measurement is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measuring {
    /// There is a result.
    Done,
    /// There will be one.
    UnderWay,
    /// There will be none: not registered, no IPv4, a server that has one port only, or a peer
    /// that hides.
    Impossible,
}

/// With whom direct paths are to be expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outlook {
    /// There is no registration to begin with.
    Offline,
    /// Nobody, because this peer hides.
    Hidden,
    /// Almost everybody.
    Everybody,
    /// All whose router shows everybody the same port.
    Most,
    /// Those whose router lets others in.
    Some,
    /// The NAT was not measured.
    Unknown,
}

impl Netcheck {
    /// With whom direct paths are to be expected.
    pub fn outlook(&self) -> Outlook {
        match (self.registered, self.exposure, Router::of(&self.nat)) {
            (false, ..) => Outlook::Offline,
            (true, Exposure::Hidden, _) => Outlook::Hidden,
            (true, Exposure::Open, _) if !self.mapped.is_empty() => Outlook::Everybody,
            (true, Exposure::Open, Router::Open) => Outlook::Everybody,
            (true, Exposure::Open, Router::Strict) => Outlook::Most,
            (true, Exposure::Open, Router::Counting | Router::Random) => Outlook::Some,
            (true, Exposure::Open, Router::Unknown) => Outlook::Unknown,
        }
    }
}

impl Outlook {
    /// In a word, for programs.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Offline => "offline",
            Self::Hidden => "hidden",
            Self::Everybody => "everybody",
            Self::Most => "most",
            Self::Some => "some",
            Self::Unknown => "unknown",
        }
    }
}

/// A sentence.
impl fmt::Display for Outlook {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Offline => "the server does not answer: peers are not found, and not relayed to",
            Self::Hidden => "peers are reached by relay only, because this peer hides",
            Self::Everybody => "direct paths work with almost everybody",
            Self::Most => {
                "direct paths work with peers whose router shows everybody the same port; with \
                 others by relay where nothing better is found"
            }
            Self::Some => {
                "direct paths work with peers whose router lets others in; with others by relay \
                 where nothing better is found. UPnP or NAT-PMP on the router, or IPv6, would help"
            }
            Self::Unknown => "which direct paths work is not known, because the NAT is not",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traversal::nat::{Dependence, Field};

    fn with(mapping: Dependence, filtering: Dependence) -> Netcheck {
        let known = |value| Field::Known { value, samples: 1 };
        let nat =
            Profile { mapping: known(mapping), filtering: known(filtering), ..Profile::default() };
        Netcheck {
            server: "server:1".into(),
            registered: true,
            ways: Vec::new(),
            mapped: Vec::new(),
            nat,
            measuring: Measuring::Done,
            lan: LanSearch::On,
            exposure: Exposure::Open,
        }
    }

    #[test]
    fn the_outlook_follows_from_router_registration_and_hiding() {
        use Dependence::{AddressAndPort, Endpoint, NotPort};
        let open = with(Endpoint, NotPort);
        assert_eq!(open.outlook(), Outlook::Everybody);
        assert_eq!(with(NotPort, AddressAndPort).outlook(), Outlook::Most);
        assert_eq!(with(AddressAndPort, AddressAndPort).outlook(), Outlook::Some);
        let unknown = Netcheck { nat: Profile::default(), ..open.clone() };
        assert_eq!(unknown.outlook(), Outlook::Unknown);
        let address = "192.0.2.1:1".parse().unwrap();
        let mapped = vec![Mapped { bound: address, external: address }];
        let helped = Netcheck { mapped, ..with(AddressAndPort, AddressAndPort) };
        assert_eq!(helped.outlook(), Outlook::Everybody);
        let hidden = Netcheck { exposure: Exposure::Hidden, ..open };
        assert_eq!(hidden.outlook(), Outlook::Hidden);
        let offline = Netcheck { registered: false, ..hidden };
        assert_eq!(offline.outlook(), Outlook::Offline);
    }
}
