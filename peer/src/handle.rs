//! What an application holds: a [`Peer`], and a [`Sending`] for each message on its way.

mod fate;
mod link;

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use p2sp_proto::control::Member;
use p2sp_proto::id::{InvalidName, PeerName};
use p2sp_proto::node::{Command, Event, Incoming, Netcheck, Recipient, Registration, Whoami, Why};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot};
use tokio::task::{JoinHandle, JoinSet};

pub(crate) use self::fate::Listing;
pub use self::fate::{Datagram, Receipt, SendError, Sending, SendingAll, Spread, Unregistered};
pub(crate) use self::link::Link;
use crate::Rendezvous;
use crate::builder::Builder;
use crate::driver::Order;
use crate::socket::Service;
use crate::stream::Stream;

/// Messages that may wait for their receipts.
pub const QUEUE_MESSAGES_MAX: usize = 1024;
/// Bytes that may wait for their receipts: four of the longest messages.
pub const QUEUE_BYTES_MAX: usize = 64 << 20;
/// Streams of others that were not accepted yet.
pub const STREAM_QUEUE_MAX: usize = 64;
/// Datagrams that were not received yet.
pub const DATAGRAM_QUEUE_MAX: usize = 256;
/// Events a reader may be behind.
pub const EVENTS_MAX: usize = 1024;
/// Orders waiting for the driver, besides messages.
pub(crate) const ORDERS_MAX: usize = 256;
/// How long a check of the network waits for the measurement of the NAT: two flights of
/// requests, each sent again until it is sure that nobody answers.
pub const NETCHECK_PATIENCE: Duration = Duration::from_secs(5);
/// How long a good bye may take before the peer just ends, longer than the machine waits for lost
/// receipts: others learn of it from silence then.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A running peer. It says good bye by itself when dropped; [`Peer::close`] waits for that.
pub struct Peer {
    link: Link,
    streams: Mutex<mpsc::Receiver<Stream>>,
    datagrams: Mutex<mpsc::Receiver<Datagram>>,
    driver: JoinHandle<()>,
    /// Ends with the peer.
    _service: JoinSet<()>,
}

impl Peer {
    /// Starts to put together a peer that registers with `rendezvous`.
    pub fn builder(rendezvous: Rendezvous) -> Builder {
        Builder::new(rendezvous)
    }

    pub(crate) fn new(
        link: Link,
        (streams, datagrams): Inlets,
        driver: JoinHandle<()>,
        service: Option<Service>,
    ) -> Self {
        let mut tasks = JoinSet::new();
        if let Some(service) = service {
            tasks.spawn(service.run(link.clone()));
        }
        let (streams, datagrams) = (Mutex::new(streams), Mutex::new(datagrams));
        Self { link, streams, datagrams, driver, _service: tasks }
    }

    /// Waits until the server knows this peer; answers at once when it does.
    ///
    /// # Errors
    /// [`Unregistered`] when the server refused for good, or the peer is closed.
    pub async fn registered(&self) -> Result<Registration, Unregistered> {
        self.link.registered().await
    }

    /// Sends a message and waits for its receipt: [`Self::submit`], then the [`Sending`].
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(
        &self,
        to: impl IntoRecipient,
        payload: impl Into<Bytes>,
    ) -> Result<Receipt, SendError> {
        self.submit(to, payload).await?.await
    }

    /// Hands a message over, waiting for room in the queue. Messages leave in the order in which
    /// they were handed over.
    ///
    /// # Errors
    /// [`SendError::Name`], [`SendError::TooLong`] or [`SendError::Closed`].
    pub async fn submit(
        &self,
        to: impl IntoRecipient,
        payload: impl Into<Bytes>,
    ) -> Result<Sending, SendError> {
        let (to, payload) = (to.into_recipient()?, payload.into());
        self.link.submit(to, payload).await
    }

    /// As [`Self::submit`], but refuses where that would wait.
    ///
    /// # Errors
    /// As [`Self::submit`], and [`SendError::Full`].
    pub fn try_send(
        &self,
        to: impl IntoRecipient,
        payload: impl Into<Bytes>,
    ) -> Result<Sending, SendError> {
        self.link.try_submit(to.into_recipient()?, payload.into())
    }

    /// Hands over one message for each present member of the network, waiting for room.
    ///
    /// # Errors
    /// [`SendError::TooLong`] or [`SendError::Closed`].
    pub async fn submit_all(&self, payload: impl Into<Bytes>) -> Result<SendingAll, SendError> {
        self.link.submit_all(payload.into()).await
    }

    /// The next message; `None` when the peer is closed. Safe to cancel: no message is lost.
    /// Taking a message into the queue behind this is what its receipt certifies.
    pub async fn recv(&self) -> Option<Incoming> {
        self.link.desk.recv().await
    }

    /// Opens a byte stream to a peer; answers when it is found, not when it has agreed. What is
    /// written goes along with the introduction.
    ///
    /// # Errors
    /// See [`SendError`]; [`SendError::Failed`] with 429 when too many streams are open to the
    /// peer.
    pub async fn open_stream(&self, to: impl IntoRecipient) -> Result<Stream, SendError> {
        let (done, reply) = oneshot::channel();
        let (handle, to) = (self.link.handle(), to.into_recipient()?);
        self.link.order(Order::OpenStream { handle, to, done }).await?;
        reply.await.unwrap_or(Err(SendError::Closed))
    }

    /// The next stream that another peer opened; `None` when the peer is closed, or was not built
    /// with [`Builder::accept_streams`]. Safe to cancel. Those that [`STREAM_QUEUE_MAX`] others
    /// wait before are refused.
    pub async fn accept_stream(&self) -> Option<Stream> {
        self.streams.lock().await.recv().await
    }

    /// Sends bytes that may get lost or overtaken, but not doubled, to a peer that is present or
    /// talked to: at most what a packet of the path holds, 1000 bytes in any case.
    ///
    /// # Errors
    /// [`SendError::Name`], [`SendError::Closed`], or [`SendError::Failed`]: 404 when the peer is
    /// not known here, 413 when the datagram is too long.
    pub async fn send_datagram(
        &self,
        to: &str,
        payload: impl Into<Bytes>,
    ) -> Result<(), SendError> {
        let (done, reply) = oneshot::channel();
        let (to, payload) = (PeerName::new(to)?, payload.into());
        self.link.order(Order::Datagram { to, payload, done }).await?;
        reply.await.unwrap_or(Err(SendError::Closed))
    }

    /// The next datagram; `None` when the peer is closed. Safe to cancel. A reader who is
    /// [`DATAGRAM_QUEUE_MAX`] behind misses those that come.
    pub async fn recv_datagram(&self) -> Option<Datagram> {
        self.datagrams.lock().await.recv().await
    }

    /// What happens from now on. A reader more than [`EVENTS_MAX`] events behind gets
    /// `RecvError::Lagged` with the number it missed, then the oldest that is left.
    pub fn events(&self) -> broadcast::Receiver<Event> {
        self.link.events.subscribe()
    }

    /// The present members of the network, in order of name; those on this LAN while the server
    /// is silent.
    ///
    /// # Errors
    /// What the server says, or [`SendError::Closed`].
    pub async fn list(&self) -> Result<Vec<Member>, SendError> {
        self.link.list().await.map(|listing| listing.members)
    }

    /// What is known of this peer itself.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub async fn whoami(&self) -> Result<Whoami, SendError> {
        self.link.whoami().await
    }

    /// Which path leads to a peer, and why no better one; `None` when the two have not met.
    ///
    /// # Errors
    /// [`SendError::Name`] or [`SendError::Closed`].
    pub async fn why(&self, name: &str) -> Result<Option<Why>, SendError> {
        self.link.why(PeerName::new(name)?).await
    }

    /// What this host's network allows: reachability of the server, the NAT, and what to expect of
    /// direct paths. Waits up to [`NETCHECK_PATIENCE`] for a measurement of the NAT that is under
    /// way.
    ///
    /// # Errors
    /// [`SendError::Closed`].
    pub async fn netcheck(&self) -> Result<Netcheck, SendError> {
        self.link.netcheck().await
    }

    /// Registers under a name, or another name. The answer is an event: `Registered` or `Refused`.
    ///
    /// # Errors
    /// [`SendError::Name`] or [`SendError::Closed`].
    pub async fn register(&self, name: &str) -> Result<(), SendError> {
        self.link.command(Command::Register { name: PeerName::new(name)? }).await
    }

    /// Says good bye to everybody and ends. Messages without a receipt yet end in
    /// [`SendError::Closed`], though they may still arrive. Answers the messages that had come,
    /// and were receipted, but were not received yet.
    pub async fn close(mut self) -> Vec<Incoming> {
        // A closed queue of orders is a driver that ended already.
        drop(self.link.order(Order::Close).await);
        drop((&mut self.driver).await);
        self.link.desk.take_incoming()
    }

    pub(crate) fn link(&self) -> &Link {
        &self.link
    }
}

/// Where streams and datagrams of others come from.
pub(crate) type Inlets = (mpsc::Receiver<Stream>, mpsc::Receiver<Datagram>);

/// Where a message goes, as applications have it: a name or address as text, or typed.
pub trait IntoRecipient {
    /// Checks it.
    ///
    /// # Errors
    /// [`InvalidName`] for a text that is neither a name nor `IP:PORT`.
    fn into_recipient(self) -> Result<Recipient, InvalidName>;
}

impl IntoRecipient for Recipient {
    fn into_recipient(self) -> Result<Recipient, InvalidName> {
        Ok(self)
    }
}

impl IntoRecipient for PeerName {
    fn into_recipient(self) -> Result<Recipient, InvalidName> {
        Ok(Recipient::Name(self))
    }
}

impl IntoRecipient for SocketAddr {
    fn into_recipient(self) -> Result<Recipient, InvalidName> {
        Ok(Recipient::Address(self))
    }
}

impl IntoRecipient for &str {
    fn into_recipient(self) -> Result<Recipient, InvalidName> {
        match self.parse() {
            Ok(address) => Ok(Recipient::Address(address)),
            Err(_) => PeerName::new(self).map(Recipient::Name),
        }
    }
}
