//! What a peer tells people and scripts: one [`Report`] for each thing that happens, and the
//! [`Request`]s that they make. Both are JSON objects, one a line, in `peer --json` and on the
//! Unix socket of the state folder.
//!
//! # Events
//! Every report has the field `event`; fields marked `?` may be missing.
//!
//! | event | fields |
//! |---|---|
//! | `registered` | `name`, `address` (as the server sees it), `network`, `server`, `server_key`, `again`, `first_contact`, `greeting?` |
//! | `observed` | `address`: the server now sees the peer there |
//! | `silent` | `server`: no answer for a while, still trying |
//! | `joined` | `name`, `key`, `address?` (missing where it, or this peer, hides) |
//! | `left` | `name`, `reason` (`bye`, `expired`, `blocked`, `replaced`) |
//! | `renamed` | `from`, `to` |
//! | `message` | `from`, `key`, `to` (`me` or `everybody`), `id` (epoch, channel, sequence), `text` |
//! | `delivered` | `to`, `path`, `handle?` |
//! | `spread` | `delivered`, `failed`: counts of a message to everybody, after its last receipt |
//! | `path` | `name`, `path` |
//! | `notice` | `text`, `everybody` |
//! | `near` | `name`, `key`, `address?`: the server is silent, and this member is on the LAN |
//! | `list` | `members` (each `name`, `key`, `address?`, `since` in unix seconds), `scope`: `network`, or `lan` while the server is silent |
//! | `whoami` | `name?`, `key`, `address?`, `mapped?` (addresses that routers forward), `network?`, `server`, `server_key?`, `registered` |
//! | `why` | `name`, `key`, `path`, `since` (unix seconds), `cause` (a word), `reason` (a sentence), `candidates` (each `local`, `remote`, `kind`, `checks`, `result`, `rtt_ms?`), `mapped?`, `nat`, `their_nat?` |
//! | `netcheck` | `server`, `registered`, `ways` (each `server`, `address`, `rtt_ms?`), `ipv6`, `hidden`, `mapped?`, `nat`, `measured` (`done`, `under_way`, `impossible`), `lan` (`on`, `off`, `open`: the network has no secret), `buffers?` (`asked`, `receive`, `send`: bytes that the system keeps for a socket's datagrams each way), `outlook` (a word), `verdict` (a sentence) |
//! | `trusted` | `who` |
//! | `missed` | `count`: reports this reader was too slow for |
//! | `error` | `code`, `text`, `to?` (whom it concerns; the server, where its key changed), `handle?`, `fatal` |
//! | `bye` | `server`: the session with it is over, `reason` |
//!
//! A `path` is an object: `kind` (`direct`, `relay`, `none`), `address?`, `rtt_ms?`. A candidate's
//! `kind` is `host`, `observed`, `peer_reflexive`, `mapped` or `predicted`, its `result` `now`,
//! `before` or `never`: when the other side answered checks there. The `cause` of a path is one of
//! `no_session`, `direct`, `hidden`, `not_introduced`, `checking`, `no_common_family`, `lost`,
//! `same_router`, `guessing`, `not_guessed` and `silent`.
//!
//! A `nat` is the profile of [`p2sp_proto::traversal::nat`]: `mapping`, `filtering`,
//! `allocation`, `hairpin`, `unsolicited`, `lifetime`, each null or an object of `value` and
//! `samples`. An `outlook` is `offline`, `hidden`, `everybody`, `most`, `some` or `unknown`.
//!
//! # Codes of `error`
//! Those of [`p2sp_proto::control::code`], which the server gives too, and [`LOCAL_FAILURE`]:
//!
//! | code | what is wrong |
//! |---|---|
//! | 400 | usage, configuration or request |
//! | 401 | no, or a false, access token |
//! | 403 | blocked by the operator |
//! | 404 | no such peer, or nothing known of it |
//! | 408 | no answer or no receipt in time; interrupted |
//! | 409 | the name or the key is another's; a changed key |
//! | 413 | too long |
//! | 428 | asked before the registration |
//! | 429 | a limit was reached |
//! | 500 | this machine: disk, socket, terminal, a process that ended |
//! | 503 | the server stops, or the peer here has ended |

mod netcheck;
mod why;
mod work;

use std::net::SocketAddr;
use std::time::Duration;

use p2sp_proto::control::{LeaveReason, Problem, code};
use p2sp_proto::id::{PeerKey, PeerName};
use p2sp_proto::node::{Audience, Event, Finality, Incoming, PathView, Registration};
use serde::{Deserialize, Serialize};

pub use self::netcheck::{Checked, Lan, Measured, Reached};
pub use self::why::{Answered, Explained, Kind, Tried};
pub(crate) use self::work::begin;
pub use self::work::{Outcome, Work};

/// Something that happened, or an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table above says what each field is")]
pub enum Report {
    Registered {
        name: PeerName,
        address: SocketAddr,
        network: String,
        server: String,
        server_key: PeerKey,
        again: bool,
        first_contact: bool,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        greeting: Option<String>,
    },
    Observed {
        address: SocketAddr,
    },
    Silent {
        server: String,
    },
    Joined {
        name: PeerName,
        key: PeerKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
    },
    Left {
        name: PeerName,
        reason: LeaveReason,
    },
    Renamed {
        from: PeerName,
        to: PeerName,
    },
    Message {
        from: PeerName,
        key: PeerKey,
        to: To,
        id: (u64, u8, u64),
        text: String,
    },
    Delivered {
        to: PeerName,
        path: Path,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<u64>,
    },
    Spread {
        delivered: usize,
        failed: usize,
    },
    Path {
        name: PeerName,
        path: Path,
    },
    Notice {
        text: String,
        everybody: bool,
    },
    Near {
        name: PeerName,
        key: PeerKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
    },
    List {
        members: Vec<Listed>,
        #[serde(default)]
        scope: ListScope,
    },
    Whoami {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        name: Option<PeerName>,
        key: PeerKey,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        address: Option<SocketAddr>,
        /// What routers forward to it.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        mapped: Vec<SocketAddr>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        network: Option<String>,
        server: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        server_key: Option<PeerKey>,
        registered: bool,
    },
    Why(Box<Explained>),
    Netcheck(Box<Checked>),
    Trusted {
        who: String,
    },
    Missed {
        count: u64,
    },
    Error {
        code: u16,
        text: String,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        handle: Option<u64>,
        #[serde(default)]
        fatal: bool,
    },
    Bye {
        server: String,
        reason: String,
    },
}

/// Whom a message was meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum To {
    /// Its receiver alone.
    Me,
    /// Everybody in the network.
    Everybody,
}

/// The way to a peer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Path {
    /// What kind.
    pub kind: PathKind,
    /// The other end of a direct path.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Round trip time in milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
}

/// Kinds of [`Path`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PathKind {
    /// From here to there.
    Direct,
    /// Through the server.
    Relay,
    /// No way yet.
    None,
}

/// Whom a list holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListScope {
    /// All present members.
    #[default]
    Network,
    /// Those on this LAN; the server is silent.
    Lan,
}

/// A line of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// Its name.
    pub name: PeerName,
    /// Its key.
    pub key: PeerKey,
    /// Where the server sees it; `None` where it, or this peer, hides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<SocketAddr>,
    /// Unix seconds of its registration.
    pub since: u64,
}

/// What people and scripts ask. As JSON: an object with the field `op`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// Register under a name, or another name.
    Register {
        /// The wanted name.
        name: String,
    },
    /// One message to one peer.
    Send {
        /// A name or `IP:PORT`.
        to: String,
        /// The message.
        text: String,
    },
    /// One message to every present member.
    Broadcast {
        /// The message.
        text: String,
    },
    /// Who is there?
    Userlist,
    /// Who am I?
    Whoami,
    /// Which path leads to a peer, and why?
    Why {
        /// Its name.
        name: String,
    },
    /// What does the network allow?
    Netcheck,
    /// Accept the key that was refused last.
    Trust {
        /// A name, or the server's HOST:PORT.
        who: String,
    },
    /// A line of text for the operator.
    Notice {
        /// The text.
        text: String,
    },
}

/// Code of an `error` whose cause is this machine.
pub const LOCAL_FAILURE: u16 = 500;

/// Exit codes; promises to scripts.
pub mod exit {
    /// Done.
    pub const DONE: u8 = 0;
    /// Failed for a reason of this machine: disk, socket.
    pub const FAILED: u8 = 1;
    /// Wrong usage or configuration.
    pub const USAGE: u8 = 2;
    /// No answer from the server.
    pub const UNREACHABLE: u8 = 3;
    /// Refused: token, name, block, changed key.
    pub const REFUSED: u8 = 4;
    /// The recipient is unknown, or the message was not delivered in time.
    pub const UNDELIVERED: u8 = 5;
    /// Interrupted by a signal.
    pub const INTERRUPTED: u8 = 130;
}

impl Report {
    /// What to tell of an event; `None` for what only concerns whoever waits for a receipt.
    pub fn of_event(event: Event, server: &str) -> Option<Self> {
        Some(match event {
            Event::Registered(registration) => Self::registered(registration, server),
            Event::Observed(address) => Self::Observed { address },
            Event::Refused { problem, finality } => {
                Self::problem(problem, finality == Finality::Final)
            }
            Event::ServerSilent => Self::Silent { server: server.to_owned() },
            Event::ServerClosed { reason, .. } => Self::Bye { server: server.to_owned(), reason },
            Event::Closed => Self::Bye { server: server.to_owned(), reason: String::new() },
            Event::ServerKeyChanged { expected, found } => {
                let remedy =
                    format!("/trust {server} in a chat, or: peer trust {server} --name OWN");
                Self::server_key_changed(server, &expected, &found, &remedy)
            }
            Event::PeerKeyChanged { name, expected, found } => {
                let remedy = format!("/trust {name} in a chat, or: peer trust {name} --name OWN");
                Self::peer_key_changed(&name, &expected, &found, &remedy)
            }
            Event::Joined(member) => {
                Self::Joined { name: member.name, key: member.key, address: member.observed }
            }
            Event::Near(member) => {
                Self::Near { name: member.name, key: member.key, address: member.observed }
            }
            Event::Left { name, reason } => Self::Left { name, reason },
            Event::Renamed { from, to } => Self::Renamed { from, to },
            Event::Path { name, path } => Self::Path { name, path: path.into() },
            Event::Notice { text, everybody } => Self::Notice { text, everybody },
            Event::Readable
            | Event::StreamOpened { .. }
            | Event::Stream { .. }
            | Event::Datagram { .. }
            | Event::Nat(_)
            | Event::Delivered { .. }
            | Event::Spread { .. }
            | Event::Failed { .. }
            | Event::Listing { .. } => return None,
        })
    }

    /// What to tell of a message that arrived. Bytes that are no UTF-8 become U+FFFD.
    pub fn of_message(message: &Incoming) -> Self {
        let (epoch, channel, sequence) = message.id;
        Self::Message {
            from: message.from.clone(),
            key: message.key,
            to: match message.audience {
                Audience::Private => To::Me,
                Audience::Everybody => To::Everybody,
            },
            id: (epoch.0, channel.0, sequence.0),
            text: String::from_utf8_lossy(&message.payload).into_owned(),
        }
    }

    fn registered(registration: Registration, server: &str) -> Self {
        let Registration { name, observed, network, server_key, greeting, again, first_contact } =
            registration;
        let server = server.to_owned();
        Self::Registered {
            name,
            address: observed,
            network,
            server,
            server_key,
            again,
            first_contact,
            greeting,
        }
    }

    fn problem(problem: Problem, fatal: bool) -> Self {
        Self::Error { code: problem.code, text: problem.text, to: None, handle: None, fatal }
    }

    /// What to tell when a server shows another key than the one that is known. `remedy`: how to
    /// accept the new one.
    pub fn server_key_changed(
        server: &str,
        expected: &PeerKey,
        found: &PeerKey,
        remedy: &str,
    ) -> Self {
        let text = server_key_changed(server, expected, found, remedy);
        let (code, to) = (code::CONFLICT, Some(server.to_owned()));
        Self::Error { code, text, to, handle: None, fatal: true }
    }

    /// What to tell when a peer shows another key than the one that is known. `remedy`: how to
    /// accept the new one.
    pub fn peer_key_changed(
        name: &PeerName,
        expected: &PeerKey,
        found: &PeerKey,
        remedy: &str,
    ) -> Self {
        let text = format!(
            "{name} shows another key than before: expected {}, found {}; \
             if {name} confirms the new one: {remedy}",
            expected.fingerprint(),
            found.fingerprint()
        );
        let (code, to) = (code::CONFLICT, Some(name.to_string()));
        Self::Error { code, text, to, handle: None, fatal: false }
    }
}

/// What to say when a server shows another key than the one that is known. `remedy`: how to
/// accept the new one.
pub fn server_key_changed(
    server: &str,
    expected: &PeerKey,
    found: &PeerKey,
    remedy: &str,
) -> String {
    format!(
        "the server {server} shows another key than before: expected {}, found {}; \
         if its operator confirms the new one: {remedy}",
        expected.fingerprint(),
        found.fingerprint()
    )
}

impl From<PathView> for Path {
    fn from(path: PathView) -> Self {
        match path {
            PathView::None => Self { kind: PathKind::None, address: None, rtt_ms: None },
            PathView::Relay { rtt } => {
                Self { kind: PathKind::Relay, address: None, rtt_ms: rtt.map(milliseconds) }
            }
            PathView::Direct { address, rtt } => Self {
                kind: PathKind::Direct,
                address: Some(address),
                rtt_ms: rtt.map(milliseconds),
            },
        }
    }
}

/// To the microsecond.
fn milliseconds(rtt: Duration) -> f64 {
    (rtt.as_secs_f64() * 1e6).round() / 1e3
}
