//! Small actors that send what they are told and remember what they hear.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use world::{Actor, HostId, Link, NatConfig, Packet, World, ZoneId, socket};

/// Whether a [`Probe`] answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Silent,
    /// Sends everything back where it came from.
    Echo,
}

/// Sends what it is told and remembers what it hears.
pub(crate) struct Probe {
    manner: Manner,
    outbox: VecDeque<Packet>,
    /// Source and payload, in order of arrival.
    pub(crate) heard: Vec<(SocketAddr, Vec<u8>)>,
}

impl Probe {
    pub(crate) fn new(manner: Manner) -> Self {
        Self { manner, outbox: VecDeque::new(), heard: Vec::new() }
    }

    pub(crate) fn send(&mut self, from: SocketAddr, to: SocketAddr, payload: &[u8]) {
        self.outbox.push_back(Packet::new(from, to, payload));
    }

    fn send_with_ttl(&mut self, from: SocketAddr, to: SocketAddr, ttl: u8) {
        self.outbox.push_back(Packet::new(from, to, *b"short").with_ttl(Some(ttl)));
    }

    /// Where the last thing it heard came from.
    pub(crate) fn last_source(&self) -> Option<SocketAddr> {
        self.heard.last().map(|(from, _)| *from)
    }
}

impl Actor for Probe {
    fn handle_datagram(&mut self, local: SocketAddr, from: SocketAddr, data: Vec<u8>, _: Instant) {
        self.heard.push((from, data.clone()));
        if self.manner == Manner::Echo {
            self.send(local, from, &data);
        }
    }

    fn handle_timeout(&mut self, _: Instant) {}

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        None
    }
}

/// One host behind a box under test, and remote hosts in the internet.
pub(crate) struct Lab {
    pub(crate) world: World<Probe>,
    pub(crate) inside: HostId,
    pub(crate) gate: world::GateId,
    pub(crate) home: ZoneId,
    remotes: Vec<HostId>,
}

/// The inner endpoint that [`Lab`] speaks from.
pub(crate) const INNER: &str = "192.168.1.10";
/// The box's outer address.
pub(crate) const OUTER: &str = "198.51.100.1";
const REMOTES: [&str; 2] = ["203.0.113.1", "203.0.113.2"];

impl Lab {
    pub(crate) fn new(config: NatConfig) -> Self {
        let mut world = World::new(1);
        let home = world.add_zone();
        let gate = world.add_nat(home, ZoneId::INTERNET, OUTER, config, Link::millis(5));
        let mut host = |name, zone, ip| {
            world.add_host(name, zone, &[ip], Link::lan(), Probe::new(Manner::Silent))
        };
        let remotes = REMOTES.map(|ip| host(ip, ZoneId::INTERNET, ip)).to_vec();
        let inside = host("inside", home, INNER);
        Self { world, inside, gate, home, remotes }
    }

    /// Sends from inner port 5000 to a remote; answers the source the remote sees.
    pub(crate) fn out(&mut self, remote: usize, port: u16) -> Option<SocketAddr> {
        self.out_from(self.inside, socket(INNER, 5000), remote, port)
    }

    /// The same with a time to live.
    pub(crate) fn out_with_ttl(&mut self, remote: usize, port: u16, ttl: u8) -> Option<SocketAddr> {
        let (target, to) = (self.remotes[remote], socket(REMOTES[remote], port));
        let before = self.world.actor(target).heard.len();
        let from = socket(INNER, 5000);
        self.world.act(self.inside, |probe, _| probe.send_with_ttl(from, to, ttl));
        self.wait(Duration::from_millis(100));
        let probe = self.world.actor(target);
        (probe.heard.len() > before).then(|| probe.last_source())?
    }

    pub(crate) fn out_from(
        &mut self,
        host: HostId,
        from: SocketAddr,
        remote: usize,
        port: u16,
    ) -> Option<SocketAddr> {
        let (target, to) = (self.remotes[remote], socket(REMOTES[remote], port));
        let before = self.world.actor(target).heard.len();
        self.world.act(host, |probe, _| probe.send(from, to, b"out"));
        self.wait(Duration::from_millis(100));
        let probe = self.world.actor(target);
        (probe.heard.len() > before).then(|| probe.last_source())?
    }

    /// Sends from a remote to an outer port of the box; whether the inner host hears it.
    pub(crate) fn is_let_in(&mut self, remote: usize, port: u16, to: SocketAddr) -> bool {
        let before = self.world.actor(self.inside).heard.len();
        let from = socket(REMOTES[remote], port);
        self.world.act(self.remotes[remote], |probe, _| probe.send(from, to, b"in"));
        self.wait(Duration::from_millis(100));
        self.world.actor(self.inside).heard.len() > before
    }

    /// The same with a time to live.
    pub(crate) fn is_let_in_with_ttl(
        &mut self,
        remote: usize,
        port: u16,
        to: SocketAddr,
        ttl: u8,
    ) -> bool {
        let before = self.world.actor(self.inside).heard.len();
        let from = socket(REMOTES[remote], port);
        self.world.act(self.remotes[remote], |probe, _| probe.send_with_ttl(from, to, ttl));
        self.wait(Duration::from_millis(100));
        self.world.actor(self.inside).heard.len() > before
    }

    pub(crate) fn wait(&mut self, duration: Duration) {
        self.world.run_for(duration).expect("nothing here spins");
    }
}
