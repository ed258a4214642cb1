//! A peer that finds other peers by name and talks to them, wherever they are.
//!
//! It registers with a rendezvous server, is told who is there, and reaches them directly where
//! the networks between allow it and through the server otherwise. Only the two ends can read a
//! message, and a message that was accepted arrives once and in order.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use p2sp_peer::Peer;
//!
//! let peer = Peer::builder("rendezvous.example".parse()?).name("alice").ephemeral().start().await?;
//! println!("seen as {}", peer.registered().await?.observed);
//!
//! let receipt = peer.send("bob", "hello").await?;
//! println!("delivered over {:?}", receipt.path);
//!
//! while let Some(message) = peer.recv().await {
//!     println!("{}: {}", message.from, String::from_utf8_lossy(&message.payload));
//! }
//! # Ok(())
//! # }
//! ```
//!
//! # Streams and datagrams
//! Between two peers there are byte streams, too, for files and forwarded ports. They read and
//! write as sockets do, and what others open is refused unless the builder says otherwise:
//!
//! ```no_run
//! # async fn example(rendezvous: p2sp_peer::Rendezvous) -> Result<(), Box<dyn std::error::Error>> {
//! use p2sp_peer::Peer;
//! use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
//!
//! let bob = Peer::builder(rendezvous.clone()).name("bob").ephemeral().accept_streams().start().await?;
//! let alice = Peer::builder(rendezvous).name("alice").ephemeral().start().await?;
//! tokio::spawn(async move {
//!     while let Some(mut stream) = bob.accept_stream().await {
//!         let mut question = String::new();
//!         if stream.read_to_string(&mut question).await.is_ok() {
//!             let answer = format!("you said: {question}");
//!             drop(stream.write_all(answer.as_bytes()).await);
//!             drop(stream.finish().await);
//!         }
//!     }
//! });
//!
//! let mut stream = alice.open_stream("bob").await?;
//! stream.write_all(b"hello").await?;
//! stream.finish().await?;                                 // bob's side has every byte
//! let mut answer = String::new();
//! stream.read_to_string(&mut answer).await?;
//! # Ok(())
//! # }
//! ```
//!
//! [`Peer::send_datagram`] sends what had better get lost than come late.
//!
//! # Back-pressure and cancellation
//! - At most [`QUEUE_MESSAGES_MAX`] messages or [`QUEUE_BYTES_MAX`] bytes, whichever comes first,
//!   wait for their receipts at a time. [`Peer::submit`] and [`Peer::send`] wait for room;
//!   [`Peer::try_send`] refuses with [`SendError::Full`].
//! - Messages are sent in the order in which they were accepted. Dropping the future of
//!   [`Peer::submit`] or [`Peer::send`] before it was accepted sends nothing. Once accepted, a
//!   message goes its way whether or not anybody waits for its receipt: dropping a [`Sending`]
//!   stops the waiting, [`Sending::cancel`] stops the message.
//! - Messages that arrive wait, unreceipted, until [`Peer::recv`] has room for them
//!   ([`RECEIVE_QUEUE_MAX`]); their sender sees the queue fill and waits.
//! - Of a [`Stream`] at most 256 KiB each way wait here, and 4 MiB in the machine: then writing
//!   waits, and what is not read holds back its own stream alone.
//! - [`Peer::events`] is a window on what happens, of [`EVENTS_MAX`] events: a reader that falls
//!   behind is told how many it missed and goes on with the oldest that is left. Nothing that
//!   must not be missed is only there: receipts have their [`Sending`], messages `recv`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
mod builder;
mod desk;
mod driver;
mod handle;
mod lan;
mod net;
mod portmap;
pub mod report;
pub mod socket;
pub mod state;
mod stream;
mod watcher;

pub use address::{InvalidRendezvous, Rendezvous};
pub use builder::{Builder, StartError};
pub use desk::RECEIVE_QUEUE_MAX;
pub use handle::{
    DATAGRAM_QUEUE_MAX, Datagram, EVENTS_MAX, IntoRecipient, NETCHECK_PATIENCE, Peer,
    QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX, Receipt, STREAM_QUEUE_MAX, SendError, Sending, SendingAll,
    Spread, Unregistered,
};
pub use p2sp_proto::control::{LeaveReason, Member, Problem};
pub use p2sp_proto::id::{InvalidName, PeerKey, PeerName};
pub use p2sp_proto::node::{
    Audience, Event, Finality, Handle, Incoming, LanSearch, Mapped, Measuring, Netcheck, Outlook,
    Party, PathView, Reason, Recipient, Registration, Router, StreamError, Way, Whoami, Why,
    stream_code,
};
pub use stream::Stream;

#[cfg(feature = "cli")]
pub mod cli;
