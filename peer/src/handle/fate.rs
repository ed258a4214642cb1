//! What becomes of what is sent and asked, and why not.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use p2sp_proto::control::{Member, Problem};
use p2sp_proto::id::{InvalidName, PeerKey, PeerName};
use p2sp_proto::node::{Handle, PathView, Scope};
use tokio::sync::oneshot;

use crate::desk::Desk;

/// Why there is no registration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unregistered {
    /// The server refused and will refuse again.
    #[error("{}", .0.text)]
    Refused(Problem),
    /// The server showed another key than the one that is known.
    #[error("the server's key changed: expected {}, found {}", .expected.fingerprint(), .found.fingerprint())]
    KeyChanged {
        /// As known.
        expected: PeerKey,
        /// As shown.
        found: PeerKey,
    },
    /// The peer is closed.
    #[error("the peer is closed")]
    Closed,
}

/// A message arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// Who has it.
    pub to: PeerName,
    /// The path it took.
    pub path: PathView,
}

/// What became of a message to everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spread {
    /// Who has it.
    pub delivered: Vec<PeerName>,
    /// Who has not.
    pub failed: Vec<(Option<PeerName>, Problem)>,
}

/// Who is present.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listing {
    pub(crate) members: Vec<Member>,
    pub(crate) scope: Scope,
}

/// Bytes that might have got lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// The sender's name.
    pub from: PeerName,
    /// The sender's key.
    pub key: PeerKey,
    /// The bytes.
    pub payload: Bytes,
}

/// Why a message was not delivered.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The recipient's name is none.
    #[error(transparent)]
    Name(#[from] InvalidName),
    /// Longer than 16 MiB.
    #[error("a message has at most 16 MiB")]
    TooLong,
    /// Too much is waiting ([`try_send`](crate::Peer::try_send) only).
    #[error("too many messages are waiting")]
    Full,
    /// What the server or the way there says: a number of `p2sp_proto::control::code` and a sentence.
    #[error("{}", .0.text)]
    Failed(Problem),
    /// The peer is closed.
    #[error("the peer is closed")]
    Closed,
}

/// A message on its way: a future of its receipt. Dropping it stops the waiting, not the message.
#[must_use = "the receipt comes when this is awaited; the message goes its way regardless"]
pub struct Sending {
    pub(super) handle: Handle,
    pub(super) desk: Arc<Desk>,
}

impl Sending {
    /// Ties the message to its events.
    pub fn handle(&self) -> Handle {
        self.handle
    }

    /// Gives the message up. It may still arrive if it was already on its way.
    pub fn cancel(self) {
        self.desk.cancel(self.handle);
    }
}

impl Future for Sending {
    type Output = Result<Receipt, SendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.desk.poll_fate(self.handle, cx)
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.desk.forget(self.handle);
    }
}

impl fmt::Debug for Sending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sending").field("handle", &self.handle).finish_non_exhaustive()
    }
}

/// A message to everybody on its way: a future of what became of it.
#[must_use = "the outcome comes when this is awaited; the message goes its way regardless"]
#[derive(Debug)]
pub struct SendingAll {
    pub(super) handle: Handle,
    pub(super) reply: oneshot::Receiver<Result<Spread, SendError>>,
}

impl SendingAll {
    /// Ties the message to its events.
    pub fn handle(&self) -> Handle {
        self.handle
    }
}

impl Future for SendingAll {
    type Output = Result<Spread, SendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.reply).poll(cx).map(|reply| reply.unwrap_or(Err(SendError::Closed)))
    }
}
