//! The answer to "why this path?".

use std::net::SocketAddr;

use p2sp_proto::id::{PeerKey, PeerName};
use p2sp_proto::node::Why;
use p2sp_proto::traversal::PairReport;
use p2sp_proto::traversal::nat::Profile;
use p2sp_proto::wire::frame::CandidateKind;
use serde::{Deserialize, Serialize};

use super::{Path, milliseconds};

/// The path to a peer and the reason for it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Explained {
    /// Which peer.
    pub name: PeerName,
    /// Its key.
    pub key: PeerKey,
    /// The path in use.
    pub path: Path,
    /// Unix seconds since when.
    pub since: u64,
    /// The reason in a word, for programs.
    pub cause: String,
    /// The same in a sentence.
    pub reason: String,
    /// The address pairs tried.
    pub candidates: Vec<Tried>,
    /// The addresses that routers forward to this peer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mapped: Vec<SocketAddr>,
    /// What this host's NAT does.
    pub nat: Profile,
    /// What the peer's does, where it told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub their_nat: Option<Profile>,
}

/// What came of one pair of addresses.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tried {
    /// The bound address of the socket here.
    pub local: SocketAddr,
    /// The address there.
    pub remote: SocketAddr,
    /// Who says that the address is the peer's.
    pub kind: Kind,
    /// Checks sent so far.
    pub checks: u32,
    /// What came of them.
    pub result: Answered,
    /// Round trip time in milliseconds, while it answers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// Kinds of candidates (RFC 8445 section 4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// An address of one of its interfaces.
    Host,
    /// Where the server sees it.
    Observed,
    /// Where its own checks came from.
    PeerReflexive,
    /// Opened at its router, or measured.
    Mapped,
    /// Guessed.
    Predicted,
}

/// Whether the other side answers checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answered {
    /// It does.
    Now,
    /// It did.
    Before,
    /// It never did.
    Never,
}

impl From<Why> for Explained {
    fn from(why: Why) -> Self {
        let reason = why.reason.about(&why.name).to_string();
        Self {
            cause: why.reason.word().to_owned(),
            reason,
            name: why.name,
            key: why.key,
            path: why.path.into(),
            since: why.since,
            candidates: why.pairs.iter().map(Tried::from).collect(),
            mapped: why.mapped.into_iter().map(|mapped| mapped.external).collect(),
            nat: why.nat,
            their_nat: why.their_nat,
        }
    }
}

impl From<&PairReport> for Tried {
    fn from(pair: &PairReport) -> Self {
        Self {
            local: pair.route.local,
            remote: pair.remote.address,
            kind: pair.remote.kind.into(),
            checks: pair.checks_sent,
            result: match (pair.rtt, pair.answered) {
                (Some(_), _) => Answered::Now,
                (None, true) => Answered::Before,
                (None, false) => Answered::Never,
            },
            rtt_ms: pair.rtt.map(milliseconds),
        }
    }
}

impl From<CandidateKind> for Kind {
    fn from(kind: CandidateKind) -> Self {
        match kind {
            CandidateKind::Host => Self::Host,
            CandidateKind::Observed => Self::Observed,
            CandidateKind::PeerReflexive => Self::PeerReflexive,
            CandidateKind::Mapped => Self::Mapped,
            CandidateKind::Predicted => Self::Predicted,
        }
    }
}
