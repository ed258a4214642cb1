//! A stateful firewall without translation, as IPv6 routers are (RFC 6092).

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::nat::{Dependence, Refresh};
use crate::packet::Packet;

/// The knobs of a firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FirewallConfig {
    /// From whom an inner endpoint that has sent accepts. Unlike in a NAT box with
    /// endpoint-independent filtering, one that has never sent accepts from nobody.
    pub filtering: Dependence,
    /// A permission unused for this long is gone.
    pub lifetime: Duration,
    /// What counts as use.
    pub refresh: Refresh,
}

impl FirewallConfig {
    /// Answers only, from exactly where the question went.
    pub const STRICT: Self = Self {
        filtering: Dependence::AddressAndPort,
        lifetime: Duration::from_secs(120),
        refresh: Refresh::Both,
    };
}

/// A firewall at work.
#[derive(Debug)]
pub struct Firewall {
    config: FirewallConfig,
    /// Inner endpoint and remote, and when the permission was last used.
    permits: BTreeMap<(SocketAddr, SocketAddr), Instant>,
}

impl Firewall {
    /// A firewall that has seen nothing.
    pub const fn new(config: FirewallConfig) -> Self {
        Self { config, permits: BTreeMap::new() }
    }

    /// Notes a packet on its way out.
    ///
    /// # Errors
    /// A word for the trace when it is not forwarded; nothing is noted then.
    pub fn outbound(&mut self, packet: &mut Packet, now: Instant) -> Result<(), &'static str> {
        packet.pass(1)?;
        self.permits.insert((packet.src, packet.dst), now);
        Ok(())
    }

    /// Judges a packet on its way in.
    ///
    /// # Errors
    /// A word for the trace when it is filtered or its time is up.
    pub fn inbound(&mut self, packet: &mut Packet, now: Instant) -> Result<(), &'static str> {
        packet.pass(1)?;
        let (inner, remote) = (packet.dst, packet.src);
        let accepts = |to: &SocketAddr| match self.config.filtering {
            Dependence::Endpoint => true,
            Dependence::Address => to.ip() == remote.ip(),
            Dependence::AddressAndPort => *to == remote,
        };
        let lifetime = self.config.lifetime;
        let mut permits = self.permits.iter_mut();
        let permit =
            permits.find(|((from, to), at)| *from == inner && accepts(to) && **at + lifetime > now);
        let (_, at) = permit.ok_or("filtered")?;
        if self.config.refresh == Refresh::Both {
            *at = now;
        }
        Ok(())
    }

    /// The firewall restarts: all permissions are forgotten.
    pub fn flush(&mut self) {
        self.permits.clear();
    }
}
