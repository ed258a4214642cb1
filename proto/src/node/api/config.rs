//! Who a node is.

use std::time::Duration;

#[cfg(doc)]
use super::Command;
use crate::control::Exposure;
use crate::id::{Boot, LanSecret, NetworkId, PeerKey, PeerName};
use crate::session::StaticKey;

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
