//! What goes into a node and what comes out of it.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bytes::Bytes;

use crate::control::{Exposure, LeaveReason, Member, Page, Problem};
use crate::id::{Boot, Channel, Epoch, LanSecret, NetworkId, PeerKey, PeerName, Sequence};
use crate::io::{Ecn, Route, Train, Transmit};
use crate::session::StaticKey;
use crate::transport::StreamEvent;
use crate::traversal::nat::Profile;

/// Who a node is, whom it registers with and what it remembers.
pub struct Config {
    /// The peer's identity.
    pub static_key: StaticKey,
    /// The server as the person wrote it, for messages: `HOST:PORT`.
    pub server: String,
    /// Pinned by hand or remembered; `None` trusts the first contact.
    pub server_key: Option<PeerKey>,
    /// The server's last known boot value; allows early data.
    pub server_boot: Option<Boot>,
    /// The network of the last registration; lets the first flight speak to peers.
    pub network: Option<NetworkId>,
    /// The network's secret for its LANs, from the last registration; lets members find each
    /// other while the server is away.
    pub lan_secret: Option<LanSecret>,
    /// Whether to look for members on the LAN.
    pub discovery: Discovery,
    /// Access token: its id and its secret.
    pub token: Option<(String, String)>,
    /// The name to register; `None` waits for [`Command::Register`].
    pub name: Option<PeerName>,
    /// Time between keepalives to the server.
    pub keepalive: Keepalive,
    /// Peers met before.
    pub known: Vec<Known>,
    /// Whether the machine has AES hardware.
    pub aes: bool,
    /// What becomes of the name when the node closes.
    pub name_keeping: NameKeeping,
    /// How long a message may wait for its receipt; `None`: as long as the node runs.
    pub delivery_timeout: Option<Duration>,
    /// Whether peers may learn where this one is. A hidden node speaks with its server alone.
    pub exposure: Exposure,
    /// Whether ports may be guessed where a direct path cannot be had otherwise.
    pub guessing: Guessing,
}

/// How often a node shows the server that it is there (SPEC section 5.5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Keepalive {
    /// Every 15 s, less often where mappings are known to live long and more often where they
    /// get lost: 10 to 30 s.
    #[default]
    Adaptive,
    /// At this interval, 1 s to 1 h.
    Fixed(Duration),
}

/// Whether a peer takes part in finding ports by chance (SPEC section 9.8).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Guessing {
    /// It opens sockets by the dozen, and probes ports by the thousand, within the bounds of
    /// SPEC section 11.
    #[default]
    On,
    /// It does neither, and tells peers nothing of its NAT.
    Off,
}

/// Whether a peer shows itself to, and looks for, other members of its network on its LAN. In an
/// open network nobody does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Discovery {
    /// Beacons are sent and heard.
    #[default]
    On,
    /// Neither.
    Off,
}

/// What becomes of a name at good bye.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameKeeping {
    /// It stays bound to this peer's key.
    Keep,
    /// Anybody may take it: the key will not come back.
    GiveUp,
}

/// A peer met before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Its name.
    pub name: PeerName,
    /// The key it had.
    pub key: PeerKey,
    /// Its last boot value; allows early data.
    pub boot: Boot,
}

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

/// A deadline and its name.
pub type Deadline = Option<(Instant, &'static str)>;
