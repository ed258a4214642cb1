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
//! - [`Peer::events`] is a window on what happens, of [`EVENTS_MAX`] events: a reader that falls
//!   behind is told how many it missed and goes on with the oldest that is left. Nothing that
//!   must not be missed is only there: receipts have their [`Sending`], messages `recv`.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

mod address;
mod builder;
mod driver;
mod handle;
mod lan;
mod net;
mod portmap;
pub mod report;
pub mod socket;
pub mod state;
mod watcher;

pub use address::{InvalidRendezvous, Rendezvous};
pub use builder::{Builder, StartError};
pub use handle::{
    EVENTS_MAX, IntoRecipient, NETCHECK_PATIENCE, Peer, QUEUE_BYTES_MAX, QUEUE_MESSAGES_MAX,
    RECEIVE_QUEUE_MAX, Receipt, SendError, Sending, SendingAll, Spread, Unregistered,
};
pub use p2sp_proto::control::{LeaveReason, Member, Problem};
pub use p2sp_proto::id::{InvalidName, PeerKey, PeerName};
pub use p2sp_proto::node::{
    Audience, Event, Finality, Handle, Incoming, LanSearch, Mapped, Measuring, Netcheck, Outlook,
    Party, PathView, Reason, Recipient, Registration, Router, Way, Whoami, Why,
};

#[cfg(feature = "cli")]
pub mod cli;
