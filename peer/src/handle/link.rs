//! What tasks beside the application hold of a peer, too: the way to its driver.

use std::sync::Arc;

use bytes::Bytes;
use p2sp_proto::id::PeerName;
use p2sp_proto::io::SocketBuffers;
use p2sp_proto::node::{
    Command, Event, Handle, Incoming, Measuring, Netcheck, Recipient, Registration, Whoami, Why,
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};
use tokio::time::{Instant, timeout_at};

use super::{
    Listing, NETCHECK_PATIENCE, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, SendError, Sending,
    SendingAll, Unregistered,
};
use crate::desk::Desk;
use crate::driver::{Order, Status};

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
    pub(super) events: broadcast::Sender<Event>,
    taps: broadcast::Sender<Incoming>,
    status: watch::Receiver<Status>,
    pub(super) desk: Arc<Desk>,
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

    pub(super) fn handle(&self) -> Handle {
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
    use crate::handle::IntoRecipient as _;

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
