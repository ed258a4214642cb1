//! What the application wants.

use std::time::Instant;

use bytes::Bytes;
use p2sp_proto::id::PeerName;
use p2sp_proto::node::{Command, Handle, Input, Netcheck, Recipient, Whoami, Why};
use tokio::sync::{OwnedSemaphorePermit, oneshot};

use super::waiting::Waiting;
use super::{Driver, Phase, Status};
use crate::desk::Submission;
use crate::handle::{CLOSE_TIMEOUT, Listing, SendError, Spread};
use crate::stream::Stream;

/// Orders taken before the machine is drained: enough for a full train of datagrams.
const ORDERS_AT_ONCE: usize = 64;

/// What applications ask of the driver, besides what lies at the desk.
pub(crate) enum Order {
    SendAll {
        handle: Handle,
        payload: Bytes,
        room: OwnedSemaphorePermit,
        done: oneshot::Sender<Result<Spread, SendError>>,
    },
    List {
        handle: Handle,
        done: oneshot::Sender<Result<Listing, SendError>>,
    },
    Whoami {
        done: oneshot::Sender<Whoami>,
    },
    Why {
        name: PeerName,
        done: oneshot::Sender<Option<Why>>,
    },
    Netcheck {
        done: oneshot::Sender<Netcheck>,
    },
    OpenStream {
        handle: Handle,
        to: Recipient,
        done: oneshot::Sender<Result<Stream, SendError>>,
    },
    Datagram {
        to: PeerName,
        payload: Bytes,
        done: oneshot::Sender<Result<(), SendError>>,
    },
    Command(Command),
    Close,
}

impl Driver {
    /// Without anybody who could give orders the peer says good bye.
    pub(super) fn on_first_order(&mut self, order: Option<Order>) {
        let now = Instant::now();
        match order {
            Some(order) => self.on_order(order, now),
            None => self.start_closing(now),
        }
    }

    /// Takes what orders there are, so that they share datagrams.
    pub(super) fn take_orders(&mut self, now: Instant) {
        self.take_submissions(now);
        for _ in 0..ORDERS_AT_ONCE {
            if self.phase != Phase::Running {
                return;
            }
            let Ok(order) = self.orders.try_recv() else { return };
            self.on_order(order, now);
        }
    }

    /// Takes the messages that lie at the desk.
    fn take_submissions(&mut self, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        let Self { clerk, node, .. } = self;
        let mut given_up = Vec::new();
        clerk.take(
            |Submission { handle, to, payload }| {
                node.handle_input(Input::Command(Command::Send { handle, to, payload }), now);
            },
            |handle| given_up.push(handle),
        );
        for handle in given_up {
            self.node.handle_input(Input::Command(Command::Cancel { handle }), now);
            self.clerk.settle(handle, || Err(SendError::Closed));
        }
    }

    fn on_order(&mut self, order: Order, now: Instant) {
        match order {
            Order::SendAll { handle, payload, room, done } => {
                let spread = Spread::default();
                self.waiting.add(handle, Waiting::All { done, members: None, spread, _room: room });
                self.command(Command::SendAll { handle, payload }, now);
            }
            Order::List { handle, done } => {
                self.waiting.add(handle, Waiting::List { done, members: Vec::new() });
                self.command(Command::List { handle }, now);
            }
            // Whoever asked and went away needs no answer.
            Order::Whoami { done } => drop(done.send(self.node.whoami())),
            Order::Netcheck { done } => drop(done.send(self.node.netcheck())),
            Order::Why { name, done } => drop(done.send(self.node.why(&name))),
            Order::OpenStream { handle, to, done } => {
                self.waiting.add(handle, Waiting::Stream { done });
                self.command(Command::OpenStream { handle, to }, now);
            }
            Order::Datagram { to, payload, done } => {
                let queued = self.node.send_datagram(&to, payload, now);
                drop(done.send(queued.map_err(SendError::Failed)));
            }
            Order::Command(command) => self.command(command, now),
            Order::Close => self.start_closing(now),
        }
    }

    pub(super) fn command(&mut self, command: Command, now: Instant) {
        match &command {
            Command::Register { .. } | Command::TrustServer => self.registration_restarts(),
            Command::Send { .. }
            | Command::Cancel { .. }
            | Command::SendAll { .. }
            | Command::OpenStream { .. }
            | Command::List { .. }
            | Command::TrustPeer { .. }
            | Command::Notice { .. }
            | Command::Close => {}
        }
        self.node.handle_input(Input::Command(command), now);
    }

    fn registration_restarts(&self) {
        self.publish.status.send_if_modified(|status| {
            let refused = matches!(status, Status::Unregistered(_));
            if refused {
                *status = Status::Connecting;
            }
            refused
        });
    }

    fn start_closing(&mut self, now: Instant) {
        // What was handed over before goes before the good bye.
        self.take_submissions(now);
        if self.phase == Phase::Running {
            self.phase = Phase::Closing(now + CLOSE_TIMEOUT);
            self.streams.serve(&mut self.node, now);
            self.streams.close();
            self.command(Command::Close, now);
        }
    }
}
