//! The answer to "what does my network allow?".

use std::net::SocketAddr;

use p2sp_proto::control::Exposure;
use p2sp_proto::io::SocketBuffers;
use p2sp_proto::node::{LanSearch, Measuring, Netcheck, Way};
use p2sp_proto::traversal::nat::Profile;
use serde::{Deserialize, Serialize};

use super::milliseconds;

/// What is known of the network and what to expect from it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Checked {
    /// The server.
    pub server: String,
    /// Whether the registration stands and the server answers.
    pub registered: bool,
    /// The ways on which the server answers, one for each address family at most.
    pub ways: Vec<Reached>,
    /// Whether one of them is IPv6.
    pub ipv6: bool,
    /// Whether this peer hides.
    pub hidden: bool,
    /// The addresses that routers forward to this peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapped: Vec<SocketAddr>,
    /// What the NAT does, as far as it is known.
    pub nat: Profile,
    /// How far the measurement of the NAT is.
    pub measured: Measured,
    /// Whether members of the network are looked for on the LAN.
    pub lan: Lan,
    /// The kernel's buffers of a socket, where the system tells of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub buffers: Option<SocketBuffers>,
    /// With whom direct paths are to be expected, in a word.
    pub outlook: String,
    /// The same in a sentence.
    pub verdict: String,
}

/// A way to the server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Reached {
    /// The server's address.
    pub server: SocketAddr,
    /// Where the server sees this host.
    pub address: SocketAddr,
    /// Round trip time in milliseconds, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// Whether members of the network are looked for on the LAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Lan {
    /// They are.
    On,
    /// They are not: switched off, or this peer hides.
    Off,
    /// They cannot be: the network has no secret.
    Open,
}

/// How far the measurement of the NAT is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Measured {
    /// It ended.
    Done,
    /// It goes on.
    UnderWay,
    /// There is none: no IPv4, a server with one port, or a peer that hides.
    Impossible,
}

impl Checked {
    pub(super) fn new(check: Netcheck, buffers: Option<SocketBuffers>) -> Self {
        let outlook = check.outlook();
        Self {
            ipv6: check.ways.iter().any(|way| way.server.is_ipv6()),
            hidden: check.exposure == Exposure::Hidden,
            measured: match check.measuring {
                Measuring::Done => Measured::Done,
                Measuring::UnderWay => Measured::UnderWay,
                Measuring::Impossible => Measured::Impossible,
            },
            server: check.server,
            registered: check.registered,
            ways: check.ways.into_iter().map(Reached::from).collect(),
            mapped: check.mapped.into_iter().map(|mapped| mapped.external).collect(),
            nat: check.nat,
            lan: match check.lan {
                LanSearch::On => Lan::On,
                LanSearch::Off => Lan::Off,
                LanSearch::NoSecret => Lan::Open,
            },
            buffers,
            outlook: outlook.word().to_owned(),
            verdict: outlook.to_string(),
        }
    }
}

impl From<Way> for Reached {
    fn from(way: Way) -> Self {
        let Way { server, observed, rtt } = way;
        Self { server, address: observed, rtt_ms: rtt.map(milliseconds) }
    }
}
