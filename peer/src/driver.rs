//! The one task that owns the machine: it brings in what happens, carries out what the machine
//! decides, and lets it sleep until its next deadline.

mod store;
mod waiting;

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use p2sp_proto::control::Problem;
use p2sp_proto::id::PeerName;
use p2sp_proto::node::{
    Command, Effect, Event, Finality, Handle, Incoming, Input, LocalSocket, Mapped, Netcheck, Node,
    Output, Recipient, Registration, SocketUse, StreamHandle, Whoami, Why, stream_code,
};
use tokio::sync::{OwnedSemaphorePermit, broadcast, mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinSet};
use tracing::{debug, trace, warn};

pub(crate) use self::store::Store;
use self::waiting::{Waiting, WaitingRoom};
use crate::Rendezvous;
use crate::desk::{Clerk, Submission};
use crate::handle::{CLOSE_TIMEOUT, Datagram, Listing, Receipt, SendError, Spread, Unregistered};
use crate::lan::Lan;
use crate::net::Net;
use crate::portmap::PortMapper;
use crate::state::FolderError;
use crate::stream::{Stream, StreamTable};
use crate::watcher::{self, Look, Watcher};

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

/// How it stands with the server.
#[derive(Clone, Debug)]
pub(crate) enum Status {
    Connecting,
    Registered(Registration),
    Unregistered(Unregistered),
}

/// Where messages, events and the state of the registration go.
pub(crate) struct Publish {
    pub(crate) messages: Messages,
    pub(crate) events: broadcast::Sender<Event>,
    /// Copies of the messages that are taken.
    pub(crate) taps: broadcast::Sender<Incoming>,
    pub(crate) status: watch::Sender<Status>,
    /// Without it, streams of others are refused.
    pub(crate) streams: Option<mpsc::Sender<Stream>>,
    pub(crate) datagrams: mpsc::Sender<Datagram>,
}

/// Whether messages are taken for the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Messages {
    Taken,
    Left,
}

/// Owner of the machine, the sockets and the memory on disk.
pub(crate) struct Driver {
    node: Node,
    net: Net,
    lan: Lan,
    store: Store,
    rendezvous: Rendezvous,
    orders: mpsc::Receiver<Order>,
    clerk: Clerk,
    /// Messages on their way to the application; empty between turns.
    arrived: VecDeque<Incoming>,
    publish: Publish,
    waiting: WaitingRoom,
    streams: StreamTable,
    /// At most one look-up at a time.
    resolver: JoinSet<Vec<SocketAddr>>,
    watcher: Watcher,
    mapper: PortMapper,
    /// What the machine was last told of its sockets.
    sockets: Vec<LocalSocket>,
    server: Whereabouts,
    /// The machine has messages that the application had no room for yet.
    readable: bool,
    /// The application was handed a message in this turn.
    delivered: bool,
    phase: Phase,
}

/// Where the server is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Whereabouts {
    Unknown,
    /// On this host: peers on it are reached by loopback, others not at all.
    Here,
    Abroad,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Running,
    /// Good bye is being said, until this moment at the latest.
    Closing(Instant),
    Closed,
}

impl Driver {
    pub(crate) fn new(
        node: Node,
        (net, lan): (Net, Lan),
        store: Store,
        rendezvous: Rendezvous,
        (orders, clerk): (mpsc::Receiver<Order>, Clerk),
        publish: Publish,
        mapper: PortMapper,
    ) -> Self {
        Self {
            node,
            net,
            lan,
            store,
            rendezvous,
            orders,
            clerk,
            arrived: VecDeque::new(),
            publish,
            waiting: WaitingRoom::default(),
            streams: StreamTable::default(),
            resolver: JoinSet::new(),
            watcher: Watcher::new(watcher::POLL),
            mapper,
            sockets: Vec::new(),
            server: Whereabouts::Unknown,
            readable: false,
            delivered: false,
            phase: Phase::Running,
        }
    }

    /// Runs until good bye is said: asked for by [`Order::Close`], or because nobody can give
    /// orders any more.
    pub(crate) async fn run(mut self) {
        let mut sleep = pin!(tokio::time::sleep(Duration::ZERO));
        self.resolve();
        loop {
            if std::mem::take(&mut self.delivered) {
                let_others_run().await;
                self.take_orders(Instant::now());
            }
            self.drain();
            if self.readable {
                self.deliver(Instant::now());
                self.drain();
            }
            if self.phase == Phase::Closed {
                break;
            }
            let deadline = self.deadline();
            // Most deadlines move on before they come: an alarm too early costs less than a new
            // one each time.
            if deadline < sleep.deadline() || sleep.is_elapsed() {
                sleep.as_mut().reset(deadline);
            }
            let running = self.phase == Phase::Running;
            tokio::select! {
                () = self.clerk.wanted(self.readable), if running => {}
                order = self.orders.recv(), if running => self.on_first_order(order),
                () = self.streams.nudged(), if self.streams.any() => self.streams.serve(&mut self.node, Instant::now()),
                () = self.net.ready() => {}
                () = self.lan.ready() => self.hear(),
                Some(found) = self.resolver.join_next() => self.on_resolved(found.unwrap_or_default()),
                Some(written) = self.store.writer.join_next() => self.on_written(written),
                look = self.watcher.next() => self.on_look(look),
                mapped = self.mapper.changed() => self.announce_mapped(mapped),
                () = sleep.as_mut() => {}
            }
            // Whatever it was: a flood of one thing keeps none of these waiting.
            let now = Instant::now();
            self.take_orders(now);
            self.receive(now);
            self.on_deadline(deadline, now);
        }
        tokio::join!(self.store.finish(), self.mapper.finish());
    }

    fn deadline(&self) -> tokio::time::Instant {
        let machine = self.node.poll_timeout().map(|(at, cause)| {
            trace!(cause, "next deadline");
            at
        });
        let closing = match self.phase {
            Phase::Closing(at) => Some(at),
            Phase::Running | Phase::Closed => None,
        };
        let first = machine.into_iter().chain(closing).min();
        first.unwrap_or_else(|| Instant::now() + IDLE).into()
    }

    fn on_deadline(&mut self, deadline: tokio::time::Instant, now: Instant) {
        if deadline.into_std() > now {
            return;
        }
        if matches!(self.phase, Phase::Closing(at) if at <= now) {
            self.phase = Phase::Closed;
            return;
        }
        self.node.handle_timeout(now);
    }

    fn receive(&mut self, now: Instant) {
        let Self { net, node, .. } = self;
        let any = net.receive(|route, ecn, data| {
            node.handle_input(Input::Datagram { route, ecn, data }, now);
        });
        if any {
            // What came for the application goes to it before the machine answers: so receipts
            // share its packets.
            self.deliver(now);
        }
    }

    fn hear(&mut self) {
        let Self { lan, node, .. } = self;
        let now = Instant::now();
        lan.receive(|from, data| node.handle_input(Input::Announced { from, data }, now));
    }

    /// Hands messages to the application for as long as it has room.
    fn deliver(&mut self, now: Instant) {
        self.readable = false;
        if self.publish.messages == Messages::Left {
            return;
        }
        let room = self.clerk.room();
        while self.arrived.len() < room {
            let Some(message) = self.node.poll_message(now) else { break };
            self.arrived.push_back(message);
        }
        self.readable = self.arrived.len() == room;
        if self.arrived.is_empty() {
            return;
        }
        if self.publish.taps.receiver_count() > 0 {
            for message in &self.arrived {
                // Somebody unsubscribed in between: nobody misses it.
                drop(self.publish.taps.send(message.clone()));
            }
        }
        self.clerk.deliver(&mut self.arrived);
        self.delivered = true;
    }

    /// Carries out everything the machine decided.
    fn drain(&mut self) {
        while let Some(output) = self.node.poll_output() {
            match output {
                Output::Transmit(transmit) => self.net.push(transmit),
                Output::Train(train) => {
                    self.net.push_train(train);
                    self.reuse();
                }
                Output::Event(event) => self.on_event(event),
                Output::Effect(effect) => self.on_effect(effect),
            }
        }
        self.net.flush();
        self.reuse();
        self.clerk.tell();
        self.store.write_if_changed();
    }

    /// Buffers of what left serve again.
    fn reuse(&mut self) {
        for payload in self.net.spent() {
            self.node.recycle(payload);
        }
    }

    fn on_effect(&mut self, effect: Effect) {
        match effect {
            Effect::Resolve => self.resolve(),
            Effect::OpenSockets { usage, count } => self.open_sockets(usage, count),
            Effect::CloseSockets(bound) => self.net.close(&bound),
            Effect::Announce { datagram } => self.lan.announce(&datagram),
            Effect::RememberServer { key, boot, network, lan_secret } => {
                self.store.remember_server(key, boot, network.map(|id| (id, lan_secret)));
            }
            Effect::RememberPeer(known) => self.store.remember_peer(known),
        }
    }

    fn open_sockets(&mut self, usage: SocketUse, count: u16) {
        let mut bound = Vec::new();
        for _ in 0..count {
            match self.net.open_extra(usage) {
                Ok(address) => bound.push(address),
                Err(error) => {
                    debug!(%error, ?usage, "no more sockets");
                    break;
                }
            }
        }
        self.node.handle_input(Input::Opened { usage, bound }, Instant::now());
    }

    fn resolve(&mut self) {
        if self.resolver.is_empty() {
            self.resolver.spawn(look_up(self.rendezvous.clone()));
        }
    }

    fn on_resolved(&mut self, mut found: Vec<SocketAddr>) {
        found.retain(|address| self.net.speaks(address));
        debug!(?found, "server resolved");
        let server = match found.iter().any(|address| address.ip().is_loopback()) {
            true => Whereabouts::Here,
            false if found.is_empty() => self.server,
            false => Whereabouts::Abroad,
        };
        if self.server != server {
            self.server = server;
            self.announce_network(Look::Same);
            self.map_ports();
        }
        self.node.handle_input(Input::Resolved(found), Instant::now());
    }

    /// A machine that slept has another wall clock as well.
    fn on_look(&mut self, look: Look) {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        self.node.set_clock(unix, Instant::now());
        self.announce_network(look);
    }

    /// Tells the machine of its sockets where that is news, or of another network.
    fn announce_network(&mut self, look: Look) {
        let sockets = self.net.local_sockets(self.server == Whereabouts::Here);
        let input = if sockets != self.sockets {
            debug!(?sockets, "sockets");
            self.sockets.clone_from(&sockets);
            Input::Sockets(sockets)
        } else if look == Look::Changed {
            Input::NetworkChanged
        } else {
            return;
        };
        self.node.handle_input(input, Instant::now());
        self.map_ports();
    }

    /// Routers are asked for ports only for a server that is reached through them.
    fn map_ports(&self) {
        match self.server {
            Whereabouts::Abroad => self.mapper.map(self.watcher.routes()),
            Whereabouts::Unknown => {}
            Whereabouts::Here => self.mapper.rest(),
        }
    }

    fn announce_mapped(&mut self, mapped: Vec<Mapped>) {
        debug!(?mapped, "mapped ports");
        self.node.handle_input(Input::Mapped(mapped), Instant::now());
    }

    fn on_written(&self, written: Result<Result<(), FolderError>, JoinError>) {
        let trouble = match written {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error.to_string(),
            Err(error) => format!("writing the state folder: {error}"),
        };
        warn!(trouble, "state not written");
        let problem = Problem { code: STORAGE, text: trouble };
        self.publish(Event::Refused { problem, finality: Finality::Passing });
    }

    fn publish(&self, event: Event) {
        // No reader, nobody to tell.
        drop(self.publish.events.send(event));
    }
}

// ---- orders

impl Driver {
    /// Without anybody who could give orders the peer says good bye.
    fn on_first_order(&mut self, order: Option<Order>) {
        let now = Instant::now();
        match order {
            Some(order) => self.on_order(order, now),
            None => self.start_closing(now),
        }
    }

    /// Takes what orders there are, so that they share datagrams.
    fn take_orders(&mut self, now: Instant) {
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

    fn command(&mut self, command: Command, now: Instant) {
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

// ---- events

impl Driver {
    fn on_event(&mut self, event: Event) {
        match &event {
            Event::Readable => {
                self.readable = true;
                return;
            }
            Event::StreamOpened { stream, peer, key, handle } => {
                let opened = self.streams.add(*stream, peer.clone(), *key);
                return self.on_stream(*stream, opened, *handle);
            }
            Event::Stream { stream, event } => {
                let now = Instant::now();
                return self.streams.on_event(*stream, *event, &mut self.node, now);
            }
            Event::Datagram { from, key, payload } => {
                let (from, key, payload) = (from.clone(), *key, payload.clone());
                // A reader that is behind misses some, as it might on the way.
                drop(self.publish.datagrams.try_send(Datagram { from, key, payload }));
                return;
            }
            Event::Listing { handle, scope, page } => {
                return self.waiting.listed(*handle, *scope, page.clone());
            }
            Event::Closed => self.phase = Phase::Closed,
            Event::Registered(registration) => {
                self.set_status(Status::Registered(registration.clone()));
            }
            Event::Refused { problem, finality: Finality::Final } => {
                self.set_status(Status::Unregistered(Unregistered::Refused(problem.clone())));
            }
            Event::ServerKeyChanged { expected, found } => {
                let (expected, found) = (*expected, *found);
                self.set_status(Status::Unregistered(Unregistered::KeyChanged { expected, found }));
            }
            Event::Delivered { handle, to, path } => {
                let receipt = || Ok(Receipt { to: to.clone(), path: *path });
                if !self.clerk.settle(*handle, receipt) {
                    self.waiting.delivered(*handle, to.clone());
                }
            }
            Event::Spread { handle, members } => self.waiting.spread(*handle, *members),
            Event::Failed { handle, to, problem } => {
                let failure = || Err(SendError::Failed(problem.clone()));
                if !self.clerk.settle(*handle, failure) {
                    self.waiting.failed(*handle, to.clone(), problem.clone());
                }
            }
            // Routers that begin anew forget what they forwarded.
            Event::Observed(_) => self.mapper.renew(),
            Event::Refused { finality: Finality::Passing, .. }
            | Event::Nat(_)
            | Event::ServerSilent
            | Event::ServerClosed { .. }
            | Event::PeerKeyChanged { .. }
            | Event::Joined(_)
            | Event::Left { .. }
            | Event::Renamed { .. }
            | Event::Near(_)
            | Event::Path { .. }
            | Event::Notice { .. } => {}
        }
        self.publish(event);
    }

    /// Whom a stream goes to: who asked for it, or who takes those of others.
    fn on_stream(&mut self, stream: StreamHandle, opened: Stream, handle: Option<Handle>) {
        let Some(handle) = handle else {
            return self.offer_stream(stream, opened);
        };
        self.waiting.opened(handle, opened);
    }

    fn offer_stream(&self, stream: StreamHandle, mut opened: Stream) {
        let code = match &self.publish.streams {
            None => stream_code::REFUSED,
            Some(taker) => match taker.try_send(opened) {
                Ok(()) => return,
                Err(error) => {
                    opened = error.into_inner();
                    stream_code::BUSY
                }
            },
        };
        debug!(?stream, peer = %opened.peer(), code, "stream refused");
        opened.reset(code);
        opened.stop(code);
    }

    fn set_status(&self, status: Status) {
        self.publish.status.send_replace(status);
    }
}

/// Sleep where no machine asks for less.
const IDLE: Duration = Duration::from_secs(3600);
/// Orders taken before the machine is drained: enough for a full train of datagrams.
const ORDERS_AT_ONCE: usize = 64;
/// "Insufficient storage", RFC 4918 section 11.5.
const STORAGE: u16 = 507;

/// Goes to the end of the queue of tasks. Whoever got a message may answer at once: the answer then
/// shares a packet with the receipt.
async fn let_others_run() {
    let mut waited = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut waited, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

async fn look_up(rendezvous: Rendezvous) -> Vec<SocketAddr> {
    match tokio::net::lookup_host((rendezvous.host(), rendezvous.port())).await {
        Ok(found) => found.collect(),
        Err(error) => {
            debug!(%error, host = rendezvous.host(), "server not resolved");
            Vec::new()
        }
    }
}
