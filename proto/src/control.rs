//! Requests, replies and events between a peer and its rendezvous: JSON in reliable messages of
//! channel 0 of their session (SPEC section 8).
//!
//! Three types: a [`Request`] with an id, a [`Reply`] to it, and an [`Event`] that the server
//! pushes. What the server sends is a [`FromServer`].

use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};

use crate::id::{Boot, CheckTag, ConnectId, LanSecret, NetworkId, PeerKey, PeerName, RelayChannel};

/// Longest control message in bytes, either way.
pub const CONTROL_LEN_MAX: usize = 64 << 10;

/// A numeric code and a sentence. Codes borrow the numbers of HTTP and STUN.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// One of [`code`].
    pub code: u16,
    /// One sentence: what happened, to what, and what to do.
    pub text: String,
}

/// Numbers of [`Problem`] and of CLOSE frames.
pub mod code {
    /// CLOSE only: the sender leaves in good order.
    pub const BYE: u16 = 0;
    /// The other end broke the rules.
    pub const BAD_REQUEST: u16 = 400;
    /// No, or a false, access token.
    pub const UNAUTHORIZED: u16 = 401;
    /// Blocked by the operator.
    pub const FORBIDDEN: u16 = 403;
    /// No peer of that name or address.
    pub const NOT_FOUND: u16 = 404;
    /// Not delivered in time, or silent for too long.
    pub const TIMEOUT: u16 = 408;
    /// The name belongs to another key; in a CLOSE: the same key registered from elsewhere.
    pub const CONFLICT: u16 = 409;
    /// Too long.
    pub const TOO_LARGE: u16 = 413;
    /// The request must come after registration.
    pub const NOT_REGISTERED: u16 = 428;
    /// A limit was reached; try later.
    pub const TOO_MANY: u16 = 429;
    /// The server stops.
    pub const GOING_AWAY: u16 = 503;
}

/// What a peer asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Chosen by the peer; repeated in the reply.
    pub id: u32,
    /// What is asked.
    #[serde(flatten)]
    pub operation: Operation,
}

/// The operations of a [`Request`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Operation {
    /// Binds the session to a name; again with another name: renames.
    Register(Register),
    /// Gives the name up and ends the registration; the session stays.
    Unregister,
    /// Who has this name, or this observed address?
    Lookup {
        /// A name or `IP:PORT`.
        who: String,
    },
    /// Present members, in order of name, one page.
    List {
        /// `next` of the page before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        cursor: Option<String>,
    },
    /// From now on push [`Event::Joined`] and [`Event::Left`].
    Watch {
        /// Only these names; the whole network when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        names: Option<Vec<PeerName>>,
    },
    /// Introduce me to a peer. Both sides get [`Event::Connect`] in the same moment.
    Connect {
        /// Whom, by key.
        key: PeerKey,
        /// Chosen by the asking side.
        connect: ConnectId,
        /// First candidates of the asking side.
        #[serde(default)]
        candidates: Vec<CandidateText>,
    },
    /// A line of text for the operator.
    Notice {
        /// The text.
        text: String,
    },
}

/// What a registration says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Register {
    /// The wanted name, as typed.
    pub name: String,
    /// Proof of an access token; absent where the peer has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenProof>,
    /// Seconds between this peer's keepalives, 1 to 3600.
    pub keepalive: u16,
    /// Current host candidates, handed to whoever connects.
    #[serde(default)]
    pub candidates: Vec<CandidateText>,
    /// Whether others may learn where the peer is.
    #[serde(default, rename = "hidden", skip_serializing_if = "Exposure::is_open")]
    pub exposure: Exposure,
}

/// Whether others may learn the addresses of a peer. On the wire: `hidden`, true or absent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum Exposure {
    /// They may: a direct path needs that.
    #[default]
    Open,
    /// They may not, and the peer learns none of theirs: all its traffic is relayed.
    Hidden,
}

impl Exposure {
    const fn is_open(&self) -> bool {
        matches!(self, Self::Open)
    }
}

impl From<bool> for Exposure {
    fn from(hidden: bool) -> Self {
        if hidden { Self::Hidden } else { Self::Open }
    }
}

impl From<Exposure> for bool {
    fn from(exposure: Exposure) -> Self {
        exposure == Exposure::Hidden
    }
}

/// Proof that the peer knows the secret of an access token, without saying it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TokenProof {
    /// The public part of the token.
    pub id: String,
    /// Lower-case hex of HMAC-SHA256 (SPEC section 8.2).
    pub proof: String,
}

/// A candidate as control messages write it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CandidateText {
    /// `host`, `observed` or `mapped`.
    pub kind: CandidateKindText,
    /// `IP:PORT`.
    pub address: SocketAddr,
}

/// Kinds of [`CandidateText`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CandidateKindText {
    /// An interface address.
    Host,
    /// Seen by the server.
    Observed,
    /// Opened at the router, or seen by the server in an answer to a Binding request; by the
    /// peer's own word.
    Mapped,
}

/// Everything a server says on the control channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum FromServer {
    /// The answer to a request.
    Reply(Reply),
    /// Something happened.
    Event(Event),
}

/// The answer to the [`Request`] of the same id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reply {
    /// That of the request.
    pub id: u32,
    /// What came of it.
    #[serde(flatten)]
    pub outcome: Outcome,
}

/// `ok` or `error`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// Done.
    Ok(Answer),
    /// Refused.
    Error(Problem),
}

/// What a successful request brings.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// To register.
    Registered(Registered),
    /// To list.
    Page(Page),
    /// To lookup.
    Member(Member),
    /// To everything else.
    Done,
}

/// The server's greeting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registered {
    /// The name as case-mapped.
    pub name: PeerName,
    /// Where the server sees the peer.
    pub observed: SocketAddr,
    /// The network the token selected, for people.
    pub network: String,
    /// The same as it enters peer-to-peer handshakes.
    pub network_id: NetworkId,
    /// Silent this many seconds means gone.
    pub expires: u32,
    /// Most members a message to everybody may have.
    pub broadcast_max: u32,
    /// Limits of the open network or a word from the operator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub greeting: Option<String>,
    /// Seals the beacons of this network on a LAN; absent in an open one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lan_secret: Option<LanSecret>,
    /// Where else the server answers Binding requests; absent where it has one port only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stun: Option<StunPorts>,
}

/// Other places of a server, by which a peer finds out about its NAT.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StunPorts {
    /// The second port, on every address of the server.
    pub alt_port: u16,
    /// A second IP with the same two ports.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alt_ip: Option<IpAddr>,
}

/// One page of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// In order of name.
    pub members: Vec<Member>,
    /// Give it back for the next page; absent on the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Present members in all.
    pub total: u32,
}

/// A present peer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Member {
    /// Its name.
    pub name: PeerName,
    /// Its key.
    pub key: PeerKey,
    /// Its process: early data names it.
    pub boot: Boot,
    /// Where the server sees it; absent where the peer, or who is told of it, hides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed: Option<SocketAddr>,
    /// Unix seconds of its registration.
    pub since: u64,
}

impl Member {
    /// The same without what tells where the peer is.
    #[must_use]
    pub fn without_address(self) -> Self {
        Self { observed: None, ..self }
    }
}

/// What the server pushes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Event {
    /// A watched peer registered (or registered anew: another boot).
    Joined(Member),
    /// A watched peer is gone.
    Left {
        /// Who.
        name: PeerName,
        /// Its key.
        key: PeerKey,
        /// Why.
        reason: LeaveReason,
    },
    /// A watched peer has another name.
    Renamed {
        /// The old name.
        from: PeerName,
        /// The peer under its new name.
        member: Member,
    },
    /// An introduction: both sides start at once.
    Connect(Connect),
    /// A word from the operator. `everybody` tells whether all got it.
    Notice {
        /// The text.
        text: String,
        /// To all, or to this peer alone.
        everybody: bool,
    },
}

impl Event {
    /// The same without what tells where peers are.
    #[must_use]
    pub fn without_addresses(self) -> Self {
        match self {
            Self::Joined(member) => Self::Joined(member.without_address()),
            Self::Renamed { from, member } => {
                Self::Renamed { from, member: member.without_address() }
            }
            Self::Connect(connect) => Self::Connect(Connect {
                member: connect.member.without_address(),
                candidates: Vec::new(),
                ..connect
            }),
            Self::Left { .. } | Self::Notice { .. } => self,
        }
    }
}

/// Why a peer is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LeaveReason {
    /// It said good bye.
    Bye,
    /// It fell silent.
    Expired,
    /// The operator blocked it.
    Blocked,
    /// Its key registered from elsewhere.
    Replaced,
}

/// What each side of an introduction is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connect {
    /// The other side.
    pub member: Member,
    /// Names this introduction.
    pub connect: ConnectId,
    /// The other side in relay frames, as the receiver of this numbers it.
    pub channel: RelayChannel,
    /// USERNAME of checks sent to the receiver of this.
    pub own_tag: CheckTag,
    /// USERNAME of checks sent to the other side.
    pub their_tag: CheckTag,
    /// First candidates of the other side; its validated observed address is `member.observed`.
    /// Neither is there when one of the two hides.
    pub candidates: Vec<CandidateText>,
}
