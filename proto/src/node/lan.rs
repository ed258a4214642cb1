//! Peers of the same network on the same LAN: who is there, without a server's word (SPEC
//! section 15).
//!
//! Beacons are sealed under a secret that all members of the network share. They are hints: what
//! they say is believed of nobody before a check, or a handshake, proved the key.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use rand::RngCore as _;

use super::api::{Discovery, Effect};
use super::core::Core;
use super::netcheck::LanSearch;
use super::purse::Purse;
use crate::control::Member;
use crate::id::{Boot, LanSecret, PeerKey, PeerName};
use crate::io::Transmit;
use crate::session::{Meeting, meeting, open_beacon, seal_beacon};
use crate::wire::beacon::{BEACON_ADDRESSES_MAX, Beacon, BeaconKind};
use crate::wire::stun;

/// Neighbours remembered; a LAN segment with more speaks through its server.
const NEIGHBOURS_MAX: usize = 256;
/// Addresses of a neighbour: where its beacons came from, and those in them.
const ADDRESSES_MAX: usize = BEACON_ADDRESSES_MAX + 2;
/// Delays before the first beacons: two of three may get lost.
const HELLOS: [Duration; 3] =
    [Duration::ZERO, Duration::from_millis(250), Duration::from_millis(750)];
/// Between two later ones.
const INTERVAL: Duration = Duration::from_secs(10);
/// A neighbour is gone after three missed beacons.
const EXPIRY: Duration = Duration::from_secs(35);
/// How far clocks may differ; an older beacon is a recorded one.
const SKEW_MAX: Duration = Duration::from_secs(600);
/// Copies of a beacon, from a neighbour's other interfaces, come within this; later ones are
/// recorded.
const COPIES: Duration = Duration::from_secs(1);
/// Beacons and their answers do not leave the link.
const TTL: u8 = 1;

/// What is known of the LAN.
pub(super) struct Lan {
    discovery: Discovery,
    /// `None`: the network is an open one, or no server has told it yet.
    secret: Option<LanSecret>,
    /// What beacons call us; `None`: nothing is sent or heard.
    name: Option<PeerName>,
    nonce: [u8; 16],
    neighbours: BTreeMap<PeerKey, Neighbour>,
    /// Beacons sent since the start or the last change of the network.
    sent: usize,
    next: Option<Instant>,
    opened: Purse,
    answered: Purse,
}

/// A peer whose beacon was heard.
pub(super) struct Neighbour {
    pub(super) name: PeerName,
    pub(super) boot: Boot,
    pub(super) meeting: Meeting,
    /// Where it may be reached, the surest first.
    pub(super) addresses: Vec<SocketAddr>,
    nonce: [u8; 16],
    /// Its clock at its last beacon.
    at: Duration,
    /// Unix seconds of its first beacon.
    since: u64,
    expires: Instant,
}

/// What a beacon brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// A neighbour that was not known, or another process of one.
    New(PeerKey),
    /// A known one.
    Again(PeerKey),
}

impl Lan {
    pub(super) fn new(
        discovery: Discovery,
        secret: Option<LanSecret>,
        core: &mut Core,
        now: Instant,
    ) -> Self {
        let mut nonce = [0; 16];
        core.rng.fill_bytes(&mut nonce);
        Self {
            discovery,
            secret,
            name: None,
            nonce,
            neighbours: BTreeMap::new(),
            sent: 0,
            next: None,
            opened: Purse::of_beacons(now),
            answered: Purse::of_answers(now),
        }
    }

    /// Whether members are looked for.
    pub(super) fn search(&self) -> LanSearch {
        match (self.discovery, &self.secret) {
            (Discovery::Off, _) => LanSearch::Off,
            (Discovery::On, None) => LanSearch::NoSecret,
            (Discovery::On, Some(_)) => LanSearch::On,
        }
    }

    /// What the server says the network shares; another secret is another network.
    pub(super) fn set_secret(&mut self, secret: Option<LanSecret>) {
        if self.secret != secret {
            self.secret = secret;
            self.neighbours.clear();
            self.restart();
        }
    }

    /// The network under us changed: whoever is there now shall hear of us at once.
    pub(super) fn restart(&mut self) {
        self.sent = 0;
        self.next = None;
    }

    /// Sends the beacon that is due. Without a name to be called by there is none.
    pub(super) fn advance(&mut self, name: Option<PeerName>, core: &mut Core, now: Instant) {
        let name = name.filter(|_| self.is_on() && !core.sockets.is_empty());
        if self.name != name {
            self.name = name;
            self.restart();
        }
        if self.name.is_none() {
            self.neighbours.clear();
            self.next = None;
            return;
        }
        let due = *self.next.get_or_insert(now);
        if due > now {
            return;
        }
        self.neighbours.retain(|_, neighbour| neighbour.expires > now);
        let kind = if self.sent < HELLOS.len() { BeaconKind::Hello } else { BeaconKind::Here };
        self.announce(kind, core, now);
        self.sent += 1;
        self.next = Some(now + HELLOS.get(self.sent).copied().unwrap_or(INTERVAL));
    }

    /// Tells the LAN that we leave.
    pub(super) fn leave(&mut self, core: &mut Core, now: Instant) {
        self.announce(BeaconKind::Bye, core, now);
        self.name = None;
    }

    pub(super) fn next_beacon(&self) -> Option<Instant> {
        self.next
    }

    /// Takes a beacon that came from `from`; answers it where it asks to be.
    pub(super) fn hear(
        &mut self,
        from: SocketAddr,
        datagram: &[u8],
        core: &mut Core,
        now: Instant,
    ) -> Option<Heard> {
        let beacon = self.open(datagram, core, now)?;
        if beacon.kind == BeaconKind::Bye {
            self.neighbours.remove(&beacon.key);
            return None;
        }
        let known = self.neighbours.get_mut(&beacon.key);
        if let Some(known) = known.filter(|known| known.is_copy(&beacon)) {
            if now + EXPIRY < known.expires + COPIES {
                known.learn(beacon.socket_at(from.ip()));
            }
            return None;
        }
        let heard = self.remember(&beacon, from, core, now)?;
        let asked = beacon.kind == BeaconKind::Hello || heard == Heard::New(beacon.key);
        if asked && self.answered.take(now) {
            self.answer(&beacon, from, core, now);
        }
        Some(heard)
    }

    /// The neighbour of this key.
    pub(super) fn neighbour(&self, key: &PeerKey, now: Instant) -> Option<&Neighbour> {
        self.neighbours.get(key).filter(|neighbour| neighbour.expires > now)
    }

    /// All neighbours as members of the network.
    pub(super) fn members(&self, now: Instant) -> impl Iterator<Item = Member> {
        let present = self.neighbours.iter().filter(move |(_, of)| of.expires > now);
        present.map(|(key, neighbour)| neighbour.to_member(*key))
    }

    /// Whose check this may be: its USERNAME proves nothing.
    pub(super) fn sender_of(&mut self, check: &[u8], now: Instant) -> Option<PeerKey> {
        if self.neighbours.is_empty() || !self.opened.take(now) {
            return None;
        }
        let ours = |of: &Neighbour| stun::is_binding_for(check, of.meeting.own_tag);
        self.neighbours.iter().find_map(|(key, of)| ours(of).then_some(*key))
    }

    pub(super) fn is_on(&self) -> bool {
        self.discovery == Discovery::On && self.secret.is_some()
    }

    /// Opens a beacon of another peer, unless it is old, or older than what is known of its
    /// sender: a recorded one.
    fn open(&mut self, datagram: &[u8], core: &Core, now: Instant) -> Option<Beacon> {
        let secret = self.secret.as_ref().filter(|_| self.name.is_some())?;
        if !self.opened.take(now) {
            return None;
        }
        let unix = core.unix(now);
        let beacon = Beacon::decode(&open_beacon(secret, datagram, unix)?).ok()?;
        let known = self.neighbours.get(&beacon.key).filter(|known| known.expires > now);
        let recorded =
            known.is_some_and(|known| beacon.at < known.at) || beacon.at.abs_diff(unix) > SKEW_MAX;
        (beacon.key != core.own && !recorded).then_some(beacon)
    }

    fn remember(
        &mut self,
        beacon: &Beacon,
        from: SocketAddr,
        core: &Core,
        now: Instant,
    ) -> Option<Heard> {
        let known = self.neighbours.get(&beacon.key).filter(|known| known.expires > now);
        let since = known.map_or_else(|| core.unix(now).as_secs(), |known| known.since);
        let heard = match known {
            Some(known) if known.nonce == beacon.nonce => Heard::Again(beacon.key),
            Some(_) | None => Heard::New(beacon.key),
        };
        if !self.has_room_for(&beacon.key, now) {
            return None;
        }
        let mut neighbour = Neighbour {
            name: beacon.name.clone(),
            boot: beacon.boot,
            meeting: meeting((&core.own, &self.nonce), (&beacon.key, &beacon.nonce)),
            addresses: Vec::new(),
            nonce: beacon.nonce,
            at: beacon.at,
            since,
            expires: now + EXPIRY,
        };
        neighbour.learn(beacon.socket_at(from.ip()));
        for ip in &beacon.addresses {
            neighbour.learn(beacon.socket_at(*ip));
        }
        self.neighbours.insert(beacon.key, neighbour);
        Some(heard)
    }

    fn has_room_for(&mut self, key: &PeerKey, now: Instant) -> bool {
        if self.neighbours.len() >= NEIGHBOURS_MAX && !self.neighbours.contains_key(key) {
            self.neighbours.retain(|_, neighbour| neighbour.expires > now);
        }
        self.neighbours.len() < NEIGHBOURS_MAX || self.neighbours.contains_key(key)
    }

    fn announce(&self, kind: BeaconKind, core: &mut Core, now: Instant) {
        if let Some(datagram) = self.beacon(kind, core, now) {
            core.effect(Effect::Announce { datagram });
        }
    }

    /// Straight back to the socket of the one that asked.
    fn answer(&self, asked: &Beacon, from: SocketAddr, core: &mut Core, now: Instant) {
        let Some(port) = asked.socket_at(from.ip()).map(|socket| socket.port()) else { return };
        let mut to = from;
        to.set_port(port);
        if let Some(route) = core.route_to(to)
            && let Some(payload) = self.beacon(BeaconKind::Here, core, now)
        {
            core.send(Transmit { ttl: Some(TTL), ..Transmit::new(route, payload) });
        }
    }

    fn beacon(&self, kind: BeaconKind, core: &mut Core, now: Instant) -> Option<Vec<u8>> {
        let (secret, name) = (self.secret.as_ref()?, self.name.clone()?);
        let unix = core.unix(now);
        let port = |ipv4: bool| {
            let mut sockets = core.sockets.iter().map(|socket| socket.bound);
            sockets.find(|bound| bound.is_ipv4() == ipv4).map_or(0, |bound| bound.port())
        };
        let beacon = Beacon {
            kind,
            key: core.own,
            boot: core.boot,
            nonce: self.nonce,
            at: unix,
            port_v4: port(true),
            port_v6: port(false),
            name,
            addresses: addresses(core),
        };
        Some(seal_beacon(secret, &beacon.encode(), unix, &mut core.rng))
    }
}

impl Neighbour {
    pub(super) fn to_member(&self, key: PeerKey) -> Member {
        let observed = self.addresses.first().copied();
        let Self { name, boot, since, .. } = self;
        Member { name: name.clone(), key, boot: *boot, observed, since: *since }
    }

    /// The same beacon again, on another interface or in the other address family.
    fn is_copy(&self, beacon: &Beacon) -> bool {
        self.at == beacon.at && self.nonce == beacon.nonce
    }

    fn learn(&mut self, address: Option<SocketAddr>) {
        if let Some(address) = address.filter(|address| !is_link_local_v6(address.ip()))
            && self.addresses.len() < ADDRESSES_MAX
            && !self.addresses.contains(&address)
        {
            self.addresses.push(address);
        }
    }
}

/// Such an address means nothing without a zone, which candidates do not carry.
fn is_link_local_v6(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V6(ip) if ip.is_unicast_link_local())
}

/// Addresses of our interfaces, as many as a beacon holds.
fn addresses(core: &Core) -> Vec<IpAddr> {
    let hosts = core.sockets.iter().flat_map(|socket| socket.addresses.iter().copied());
    hosts.take(BEACON_ADDRESSES_MAX).collect()
}
