//! What a node tells the application.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;

#[cfg(doc)]
use super::Command;
use super::{Audience, Handle, Mapped, StreamHandle};
use crate::control::{LeaveReason, Member, Page, Problem};
use crate::id::{Channel, Epoch, PeerKey, PeerName, Sequence};
use crate::transport::StreamEvent;
use crate::traversal::nat::Profile;

/// What happened, for the application.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// Registered, for the first time or again.
    Registered(Registration),
    /// The observed address changed: the NAT rebound or the peer roamed.
    Observed(SocketAddr),
    /// The server refused.
    Refused {
        /// What and why.
        problem: Problem,
        /// Whether registration goes on by itself.
        finality: Finality,
    },
    /// What is known of the NAT changed.
    Nat(Profile),
    /// Nothing was heard from the server for a while; the node tries on.
    ServerSilent,
    /// The server ended the session; the node tries on unless a final refusal came before.
    ServerClosed {
        /// One of [`crate::control::code`].
        code: u16,
        /// A sentence.
        reason: String,
    },
    /// The server's key is not the pinned one: refused until [`Command::TrustServer`].
    ServerKeyChanged {
        /// The pinned one.
        expected: PeerKey,
        /// The one that answers now.
        found: PeerKey,
    },
    /// A peer's key is not the pinned one: refused until [`Command::TrustPeer`].
    PeerKeyChanged {
        /// Whose.
        name: PeerName,
        /// The pinned one.
        expected: PeerKey,
        /// The one the server gives now.
        found: PeerKey,
    },
    /// A peer came.
    Joined(Member),
    /// A peer went.
    Left {
        /// Who.
        name: PeerName,
        /// Why.
        reason: LeaveReason,
    },
    /// A peer took another name.
    Renamed {
        /// The old one.
        from: PeerName,
        /// The new one.
        to: PeerName,
    },
    /// The server is silent, and this member is on the LAN: it can be written to.
    Near(Member),
    /// There is something for `poll_message`.
    Readable,
    /// A message arrived at its recipient.
    Delivered {
        /// The handle it was sent under.
        handle: Handle,
        /// Who got it.
        to: PeerName,
        /// The path it took.
        path: PathView,
    },
    /// A message to everybody went to this many members.
    Spread {
        /// The handle it was sent under.
        handle: Handle,
        /// How many.
        members: u32,
    },
    /// A command, or one copy of a message to everybody, came to nothing.
    Failed {
        /// The handle it was given.
        handle: Handle,
        /// Whose copy, where there is one.
        to: Option<PeerName>,
        /// Why.
        problem: Problem,
    },
    /// A stream stands: it can be written and read.
    StreamOpened {
        /// The stream.
        stream: StreamHandle,
        /// The other side.
        peer: PeerName,
        /// Its key.
        key: PeerKey,
        /// The handle of our [`Command::OpenStream`]; `None`: the other side opened it.
        handle: Option<Handle>,
    },
    /// Something happened to a stream.
    Stream {
        /// The stream.
        stream: StreamHandle,
        /// What.
        event: StreamEvent,
    },
    /// A datagram came.
    Datagram {
        /// The sender's name.
        from: PeerName,
        /// The sender's key.
        key: PeerKey,
        /// The bytes.
        payload: Bytes,
    },
    /// The path in use to a peer changed.
    Path {
        /// To whom.
        name: PeerName,
        /// The path now.
        path: PathView,
    },
    /// Answer to [`Command::List`], a page each; the last has no `next`.
    Listing {
        /// The command's.
        handle: Handle,
        /// Who is in it.
        scope: Scope,
        /// The page.
        page: Page,
    },
    /// A word from the operator.
    Notice {
        /// The text.
        text: String,
        /// Whether everybody got it.
        everybody: bool,
    },
    /// Good bye was said; nothing follows.
    Closed,
}

/// Whom a list holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All present members, as the server knows them.
    Network,
    /// The server is silent: the members on the LAN.
    Lan,
}

/// What a registration brought.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registration {
    /// The name as the server maps it.
    pub name: PeerName,
    /// Where the server sees this peer.
    pub observed: SocketAddr,
    /// The network the token selected.
    pub network: String,
    /// Whom we registered with.
    pub server_key: PeerKey,
    /// A word from the operator.
    pub greeting: Option<String>,
    /// Whether this node had been registered before.
    pub again: bool,
    /// Whether the server's key was unknown and is pinned from now on.
    pub first_contact: bool,
}

/// Whether a refusal ends the registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finality {
    /// Nothing goes on without a change: of name, token, key, or by the operator.
    Final,
    /// The node tries on.
    Passing,
}

/// The path to a peer, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PathView {
    /// No session.
    None,
    /// Through the server.
    Relay {
        /// Smoothed round trip.
        rtt: Option<Duration>,
    },
    /// Straight to this address.
    Direct {
        /// The other side's address.
        address: SocketAddr,
        /// Smoothed round trip.
        rtt: Option<Duration>,
    },
}

impl PathView {
    /// Whether two views name the same path; round trips do not matter.
    pub fn is_same(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::None, Self::None) | (Self::Relay { .. }, Self::Relay { .. }) => true,
            (Self::Direct { address: a, .. }, Self::Direct { address: b, .. }) => a == b,
            (Self::None | Self::Relay { .. } | Self::Direct { .. }, _) => false,
        }
    }
}

/// A message that arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Incoming {
    /// The sender's name.
    pub from: PeerName,
    /// The sender's key.
    pub key: PeerKey,
    /// To one or to all.
    pub audience: Audience,
    /// With the sender's and the receiver's key: the message id.
    pub id: (Epoch, Channel, Sequence),
    /// The bytes.
    pub payload: Bytes,
}

/// Answer to `whoami`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whoami {
    /// The registered name, else the wanted one.
    pub name: Option<PeerName>,
    /// This peer's key.
    pub key: PeerKey,
    /// Where the server sees it.
    pub observed: Option<SocketAddr>,
    /// What routers forward to it.
    pub mapped: Vec<Mapped>,
    /// The network the token selected.
    pub network: Option<String>,
    /// The server as the person wrote it.
    pub server: String,
    /// Its key.
    pub server_key: Option<PeerKey>,
    /// Whether the registration stands.
    pub registered: bool,
}
