//! What goes into a node and what comes out of it.

mod config;
mod event;

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use bytes::Bytes;

pub use self::config::{Config, Discovery, Guessing, Keepalive, Known, NameKeeping};
pub use self::event::{Event, Finality, Incoming, PathView, Registration, Scope, Whoami};
use crate::id::{Boot, Channel, LanSecret, NetworkId, PeerKey, PeerName};
use crate::io::{Ecn, Route, Train, Transmit};

/// A socket the shell holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocalSocket {
    /// Its bound address: its identity in routes.
    pub bound: SocketAddr,
    /// The addresses of the host's interfaces that it serves.
    pub addresses: Vec<IpAddr>,
}

/// A port that a router forwards to a socket, because it was asked to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// The socket's bound address.
    pub bound: SocketAddr,
    /// Where the router takes datagrams for it.
    pub external: SocketAddr,
}

/// Mapped addresses offered at most: one for each address family, twice where two routers stand
/// in a row. It leaves room for others among the eight candidates of a peer.
pub const MAPPED_MAX: usize = 4;

/// What happens to a node.
pub enum Input<'a> {
    /// A datagram arrived; it is opened in place.
    Datagram {
        /// Where from, and on which socket.
        route: Route,
        /// Its congestion mark.
        ecn: Ecn,
        /// The UDP payload.
        data: &'a mut [u8],
    },
    /// A datagram that was sent to everybody on the LAN, as [`Effect::Announce`] asks the shells
    /// of other peers to do.
    Announced {
        /// Where from.
        from: SocketAddr,
        /// The UDP payload.
        data: &'a [u8],
    },
    /// The sockets: at start, and after every change of interfaces.
    Sockets(Vec<LocalSocket>),
    /// The network changed although [`Input::Sockets`] says the same as before: another way
    /// out, another network with the same addresses, or a machine that slept.
    NetworkChanged,
    /// Ports that routers forward to our sockets; replaces what was said before. At most
    /// [`MAPPED_MAX`] count, those of sockets that are not in [`Input::Sockets`] do not.
    Mapped(Vec<Mapped>),
    /// Answer to [`Effect::Resolve`]: all addresses of the server; empty when there are none.
    Resolved(Vec<SocketAddr>),
    /// Answer to [`Effect::OpenSockets`].
    Opened {
        /// What they were asked for.
        usage: SocketUse,
        /// The bound addresses of the new sockets, their identity in routes; fewer than asked
        /// for, or none, when there are no more to be had.
        bound: Vec<SocketAddr>,
    },
    /// The application wants something.
    Command(Command),
}

/// Ties a command to its events; chosen by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Handle(pub u64);

/// A byte stream; given by the node, and never again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamHandle(pub u64);

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Recipient {
    /// The peer of this name.
    Name(PeerName),
    /// The registered peer observed at this address.
    Address(SocketAddr),
}

/// Private messages travel on channel 0, those to everybody on channel 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Audience {
    /// To one peer.
    Private,
    /// One copy of a message to all.
    Everybody,
}

impl Audience {
    /// The channel of this kind of message.
    pub const fn channel(self) -> Channel {
        match self {
            Self::Private => Channel(0),
            Self::Everybody => Channel(1),
        }
    }
}

/// What the application wants.
pub enum Command {
    /// Register, or rename.
    Register {
        /// The wanted name.
        name: PeerName,
    },
    /// Ends in [`Event::Delivered`] or [`Event::Failed`].
    Send {
        /// Comes back in the event.
        handle: Handle,
        /// To whom.
        to: Recipient,
        /// At most 16 MiB.
        payload: Bytes,
    },
    /// One message to each present member: [`Event::Spread`] tells how many, then each ends in
    /// [`Event::Delivered`] or [`Event::Failed`].
    SendAll {
        /// Comes back in the events.
        handle: Handle,
        /// At most 16 MiB.
        payload: Bytes,
    },
    /// Opens a byte stream: ends in [`Event::StreamOpened`] or [`Event::Failed`].
    OpenStream {
        /// Comes back in the event.
        handle: Handle,
        /// To whom.
        to: Recipient,
    },
    /// Ends in [`Event::Listing`] or [`Event::Failed`].
    List {
        /// Comes back in the event.
        handle: Handle,
    },
    /// Gives up waiting for a message; what has arrived has arrived.
    Cancel {
        /// The handle it was sent under.
        handle: Handle,
    },
    /// Accept the key that was refused last for this peer.
    TrustPeer {
        /// The peer.
        name: PeerName,
    },
    /// Accept the key that was refused last for the server.
    TrustServer,
    /// A line for the operator.
    Notice {
        /// The text.
        text: String,
    },
    /// Say good bye to everybody; ends in [`Event::Closed`].
    Close,
}

/// What a node wants from its shell.
#[derive(Debug)]
pub enum Output {
    /// Send a datagram.
    Transmit(Transmit),
    /// Send several datagrams.
    Train(Train),
    /// Tell the application.
    Event(Event),
    /// Do something that takes the outside world.
    Effect(Effect),
}

/// What sockets beside those of [`Input::Sockets`] are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum SocketUse {
    /// Another local port for pairs whose checks failed.
    Spare,
    /// To find out what the NAT does.
    Measure,
    /// To find out how long an idle mapping lives.
    Lifetime,
    /// Many mappings at once, one of which the other side shall hit.
    Guess,
    /// In place of sockets whose mappings are about to end.
    Renewal,
}

impl SocketUse {
    /// Sockets of this kind that are open at a time at most: each costs a descriptor and
    /// buffers in the kernel.
    pub const fn limit(self) -> u16 {
        match self {
            Self::Spare => 4,
            Self::Measure => 16,
            Self::Lifetime => 1,
            Self::Guess => 320,
            // One that ends, one that serves, and one that is measured.
            Self::Renewal => 3,
        }
    }
}

/// What takes the outside world.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Look up the server's addresses; answer with [`Input::Resolved`].
    Resolve,
    /// Open more UDP sockets for IPv4, each on a port of the system's choice; answer with one
    /// [`Input::Opened`]. They stay open until [`Effect::CloseSockets`], and they are not part
    /// of [`Input::Sockets`].
    OpenSockets {
        /// What for; at most [`SocketUse::limit`] of a kind are open at a time.
        usage: SocketUse,
        /// How many.
        count: u16,
    },
    /// Close sockets that [`Effect::OpenSockets`] opened, by their bound addresses. What waits
    /// to leave through them may be dropped.
    CloseSockets(Vec<SocketAddr>),
    /// Send this datagram to everybody on every link of the host (SPEC section 15.1), and from
    /// now on hear what others send there: [`Input::Announced`].
    Announce {
        /// The UDP payload.
        datagram: Vec<u8>,
    },
    /// Keep what is known of the server.
    RememberServer {
        /// Its key.
        key: PeerKey,
        /// Its process.
        boot: Boot,
        /// The network it put this peer into, once registered.
        network: Option<NetworkId>,
        /// With it, the network's secret for its LANs, if it has one.
        lan_secret: Option<LanSecret>,
    },
    /// Keep a peer's key and boot, replacing an older entry of the name.
    RememberPeer(Known),
}

/// A deadline and its name.
pub type Deadline = Option<(Instant, &'static str)>;
