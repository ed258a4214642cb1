//! What an application holds: a [`Peer`], and a [`Sending`] for each message on its way.

use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use p2sp_proto::control::{Member, Problem};
use p2sp_proto::id::{InvalidName, PeerKey, PeerName};
use p2sp_proto::io::SocketBuffers;
use p2sp_proto::node::{
    Command, Event, Handle, Incoming, Measuring, Netcheck, PathView, Recipient, Registration,
    Scope, Whoami, Why,
};
use tokio::sync::{Mutex, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, timeout_at};

use crate::Rendezvous;
use crate::builder::Builder;
use crate::desk::Desk;
use crate::driver::{Order, Status};
use crate::socket::Service;
use crate::stream::Stream;

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
    /// Too much is waiting ([`Peer::try_send`] only).
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
    handle: Handle,
    desk: Arc<Desk>,
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
    handle: Handle,
    reply: oneshot::Receiver<Result<Spread, SendError>>,
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

/// Longest message, bytes.
const MESSAGE_LEN_MAX: usize = 16 << 20;
/// One unit of room: the queue's bytes in 65536 parts.
const UNIT_BYTES: usize = 1 << 10;
/// Even the shortest message takes its share of [`QUEUE_MESSAGES_MAX`].
const UNITS_MIN: usize = QUEUE_BYTES_MAX / UNIT_BYTES / QUEUE_MESSAGES_MAX;

/// What tasks beside the application hold of a peer.
#[derive(Clone)]
pub(crate) struct Link {
    orders: mpsc::Sender<Order>,
    events: broadcast::Sender<Event>,
    taps: broadcast::Sender<Incoming>,
    status: watch::Receiver<Status>,
    desk: Arc<Desk>,
    server: Arc<str>,
    buffers: Option<SocketBuffers>,
}

impl Link {
    pub(crate) fn new(
        orders: mpsc::Sender<Order>,
        events: broadcast::Sender<Event>,
        taps: broadcast::Sender<Incoming>,
        status: watch::Receiver<Status>,
        server: String,
        buffers: Option<SocketBuffers>,
    ) -> Self {
        let desk = Arc::new(Desk::new(QUEUE_BYTES_MAX / UNIT_BYTES));
        Self { orders, events, taps, status, desk, server: server.into(), buffers }
    }

    /// Where messages are handed over.
    pub(crate) fn desk(&self) -> Arc<Desk> {
        Arc::clone(&self.desk)
    }

    /// The kernel's buffers of a socket, where the system tells of them.
    pub(crate) fn buffers(&self) -> Option<SocketBuffers> {
        self.buffers
    }

    /// The server as HOST:PORT.
    pub(crate) fn server(&self) -> &str {
        &self.server
    }

    pub(crate) fn events(&self) -> broadcast::Receiver<Event> {
        self.events.subscribe()
    }

    /// Copies of the messages that the application takes.
    pub(crate) fn taps(&self) -> broadcast::Receiver<Incoming> {
        self.taps.subscribe()
    }

    pub(crate) async fn registered(&self) -> Result<Registration, Unregistered> {
        let mut status = self.status.clone();
        let settled = status.wait_for(|status| !matches!(status, Status::Connecting)).await;
        match settled.map_err(|_| Unregistered::Closed)?.clone() {
            Status::Registered(registration) => Ok(registration),
            Status::Unregistered(why) => Err(why),
            Status::Connecting => Err(Unregistered::Closed),
        }
    }

    pub(crate) async fn submit(&self, to: Recipient, payload: Bytes) -> Result<Sending, SendError> {
        let units = units(&payload)?;
        // Rarely waits: the message itself stays out of the future that does.
        self.desk.wait_for_room(units).await?;
        let handle = self.desk.place(to, payload, units)?;
        Ok(Sending { handle, desk: self.desk() })
    }

    pub(crate) fn try_submit(&self, to: Recipient, payload: Bytes) -> Result<Sending, SendError> {
        let units = units(&payload)?;
        let handle = self.desk.try_submit(to, payload, units)?;
        Ok(Sending { handle, desk: self.desk() })
    }

    pub(crate) async fn submit_all(&self, payload: Bytes) -> Result<SendingAll, SendError> {
        let room = Arc::clone(self.desk.room()).acquire_many_owned(units(&payload)?).await;
        let room = room.map_err(|_| SendError::Closed)?;
        let (done, reply) = oneshot::channel();
        let handle = self.handle();
        self.order(Order::SendAll { handle, payload, room, done }).await?;
        Ok(SendingAll { handle, reply })
    }

    pub(crate) async fn list(&self) -> Result<Listing, SendError> {
        let (done, reply) = oneshot::channel();
        self.order(Order::List { handle: self.handle(), done }).await?;
        reply.await.unwrap_or(Err(SendError::Closed))
    }

    pub(crate) async fn whoami(&self) -> Result<Whoami, SendError> {
        let (done, reply) = oneshot::channel();
        self.order(Order::Whoami { done }).await?;
        reply.await.map_err(|_| SendError::Closed)
    }

    pub(crate) async fn why(&self, name: PeerName) -> Result<Option<Why>, SendError> {
        let (done, reply) = oneshot::channel();
        self.order(Order::Why { name, done }).await?;
        reply.await.map_err(|_| SendError::Closed)
    }

    pub(crate) async fn netcheck(&self) -> Result<Netcheck, SendError> {
        let deadline = Instant::now() + NETCHECK_PATIENCE;
        let mut events = self.events();
        loop {
            let (done, reply) = oneshot::channel();
            self.order(Order::Netcheck { done }).await?;
            let check = reply.await.map_err(|_| SendError::Closed)?;
            let is_settled = check.measuring != Measuring::UnderWay;
            if is_settled || timeout_at(deadline, measured(&mut events)).await.is_err() {
                return Ok(check);
            }
        }
    }

    pub(crate) async fn command(&self, command: Command) -> Result<(), SendError> {
        self.order(Order::Command(command)).await
    }

    pub(crate) async fn order(&self, order: Order) -> Result<(), SendError> {
        self.orders.send(order).await.map_err(|_| SendError::Closed)
    }

    /// Waits until the driver is gone.
    pub(crate) async fn closed(&self) {
        self.orders.closed().await;
    }

    fn handle(&self) -> Handle {
        self.desk.handle()
    }
}

/// Waits until there may be more to know of the NAT.
async fn measured(events: &mut broadcast::Receiver<Event>) {
    // Whoever misses events, or their end, had better look.
    while let Ok(event) = events.recv().await {
        if matches!(event, Event::Nat(_)) {
            return;
        }
    }
}

/// How long a check of the network waits for the measurement of the NAT: two flights of
/// requests, each sent again until it is sure that nobody answers.
pub const NETCHECK_PATIENCE: Duration = Duration::from_secs(5);

/// How long a good bye may take before the peer just ends, longer than the machine waits for lost
/// receipts: others learn of it from silence then.
pub(crate) const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

fn units(payload: &Bytes) -> Result<u32, SendError> {
    if payload.len() > MESSAGE_LEN_MAX {
        return Err(SendError::TooLong);
    }
    u32::try_from(payload.len().div_ceil(UNIT_BYTES).max(UNITS_MIN)).map_err(|_| SendError::TooLong)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::desk::Clerk;

    fn link() -> (Link, mpsc::Receiver<Order>) {
        let (orders, taken) = mpsc::channel(2 * QUEUE_MESSAGES_MAX);
        let status = watch::channel(Status::Connecting).1;
        let link = Link::new(
            orders,
            broadcast::Sender::new(1),
            broadcast::Sender::new(1),
            status,
            "s:1".into(),
            None,
        );
        (link, taken)
    }

    fn bob() -> Recipient {
        "bob".into_recipient().unwrap()
    }

    #[test]
    fn recipients_are_names_or_addresses() {
        assert_eq!(
            "192.0.2.1:5".into_recipient(),
            Ok(Recipient::Address("192.0.2.1:5".parse().unwrap()))
        );
        assert_eq!("[::1]:5".into_recipient(), Ok(Recipient::Address("[::1]:5".parse().unwrap())));
        assert_eq!("Bob".into_recipient(), Ok(Recipient::Name(PeerName::new("bob").unwrap())));
        assert!("192.0.2.1".into_recipient().is_err());
        assert!("".into_recipient().is_err());
    }

    #[tokio::test]
    async fn a_full_queue_refuses_until_receipts_come() {
        let (link, _taken) = link();
        let mut clerk = Clerk::new(link.desk());
        let first = link.try_submit(bob(), Bytes::new()).unwrap();
        for _ in 1..QUEUE_MESSAGES_MAX {
            drop(link.try_submit(bob(), Bytes::new()).unwrap());
        }
        assert_eq!(link.try_submit(bob(), Bytes::new()).unwrap_err(), SendError::Full);
        clerk.settle(first.handle(), || Err(SendError::Closed));
        clerk.tell();
        assert!(link.try_submit(bob(), Bytes::new()).is_ok());
    }

    #[tokio::test]
    async fn long_messages_fill_the_queue_by_their_bytes() {
        let (link, _taken) = link();
        let long = Bytes::from(vec![0; MESSAGE_LEN_MAX]);
        for _ in 0..QUEUE_BYTES_MAX / MESSAGE_LEN_MAX {
            drop(link.try_submit(bob(), long.clone()).unwrap());
        }
        assert_eq!(link.try_submit(bob(), Bytes::new()).unwrap_err(), SendError::Full);
        let longer = Bytes::from(vec![0; MESSAGE_LEN_MAX + 1]);
        assert_eq!(link.try_submit(bob(), longer).unwrap_err(), SendError::TooLong);
    }

    #[tokio::test]
    async fn a_peer_that_ended_is_closed() {
        let (link, taken) = link();
        let clerk = Clerk::new(link.desk());
        let sending = link.submit(bob(), Bytes::new()).await.unwrap();
        drop((taken, clerk));
        assert_eq!(sending.await, Err(SendError::Closed));
        assert_eq!(link.submit(bob(), Bytes::new()).await.unwrap_err(), SendError::Closed);
        assert_eq!(link.list().await, Err(SendError::Closed));
        assert_eq!(link.registered().await, Err(Unregistered::Closed));
    }
}
