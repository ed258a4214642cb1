//! Who is connected to what: zones joined by NAT boxes and firewalls, hosts with addresses.
//!
//! A *zone* is an address realm: the internet, the inside of a carrier's NAT, a home. A *gate*
//! joins an inner zone to an outer one: a NAT box (IPv4) or a firewall (IPv6); a zone has at
//! most one way out for each. The tree may be as deep as a test likes.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use crate::firewall::Firewall;
use crate::link::Line;
use crate::nat::NatBox;

/// An address realm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ZoneId(pub(crate) usize);

impl ZoneId {
    /// The public internet.
    pub const INTERNET: Self = Self(0);
}

/// A NAT box or firewall.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GateId(pub(crate) usize);

/// A host.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HostId(pub(crate) usize);

/// Who takes packets for an address in a zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Owner {
    Host(HostId),
    /// The outer side of a gate.
    Gate(GateId),
}

#[derive(Debug)]
pub(crate) struct Gate {
    pub(crate) kind: GateKind,
    pub(crate) inner: ZoneId,
    pub(crate) outer: ZoneId,
    pub(crate) uplink: Line,
}

#[derive(Debug)]
pub(crate) enum GateKind {
    Nat(NatBox),
    Firewall(Firewall),
}

#[derive(Debug, Default)]
struct Zone {
    owners: BTreeMap<IpAddr, Owner>,
    uplink_v4: Option<GateId>,
    uplink_v6: Option<GateId>,
}

/// Zones and gates.
#[derive(Debug)]
pub(crate) struct Topology {
    zones: Vec<Zone>,
    gates: Vec<Gate>,
}

impl Topology {
    pub(crate) fn new() -> Self {
        Self { zones: vec![Zone::default()], gates: Vec::new() }
    }

    pub(crate) fn add_zone(&mut self) -> ZoneId {
        self.zones.push(Zone::default());
        ZoneId(self.zones.len() - 1)
    }

    /// Joins two zones. One way out for each family; a second one replaces the first.
    pub(crate) fn add_gate(&mut self, gate: Gate) -> GateId {
        let id = GateId(self.gates.len());
        match &gate.kind {
            GateKind::Nat(nat) => {
                self.zones[gate.outer.0].owners.insert(nat.external(), Owner::Gate(id));
                self.zones[gate.inner.0].uplink_v4 = Some(id);
            }
            GateKind::Firewall(_) => self.zones[gate.inner.0].uplink_v6 = Some(id),
        }
        self.gates.push(gate);
        id
    }

    /// Gives an address to a host; a global IPv6 address is routed to it from every zone above.
    pub(crate) fn own(&mut self, zone: ZoneId, address: IpAddr, host: HostId) {
        self.zones[zone.0].owners.insert(address, Owner::Host(host));
        let mut zone = zone;
        while address.is_ipv6()
            && let Some(gate) = self.zones[zone.0].uplink_v6
        {
            zone = self.gates[gate.0].outer;
            self.zones[zone.0].owners.insert(address, Owner::Gate(gate));
        }
    }

    /// Takes all addresses of a host away.
    pub(crate) fn disown(&mut self, zone: ZoneId, addresses: &[IpAddr]) {
        let mut at = Some(zone);
        while let Some(zone) = at {
            self.zones[zone.0].owners.retain(|address, _| !addresses.contains(address));
            at = self.zones[zone.0].uplink_v6.map(|gate| self.gates[gate.0].outer);
        }
    }

    pub(crate) fn owner(&self, zone: ZoneId, address: IpAddr) -> Option<Owner> {
        self.zones[zone.0].owners.get(&address).copied()
    }

    /// The way out of a zone towards `to`.
    pub(crate) fn uplink(&self, zone: ZoneId, to: SocketAddr) -> Option<GateId> {
        let zone = &self.zones[zone.0];
        if to.is_ipv4() { zone.uplink_v4 } else { zone.uplink_v6 }
    }

    /// A zone and all above it, each with the delay to there; `delay` is that to the first.
    pub(crate) fn ways_up(&self, zone: ZoneId, delay: Duration) -> Vec<(ZoneId, Duration)> {
        let next = |(zone, delay): &(ZoneId, Duration)| {
            let Zone { uplink_v4, uplink_v6, .. } = &self.zones[zone.0];
            let gate = &self.gates[uplink_v4.or(*uplink_v6)?.0];
            Some((gate.outer, *delay + gate.uplink.link.latency))
        };
        std::iter::successors(Some((zone, delay)), next).collect()
    }

    pub(crate) fn gate(&mut self, gate: GateId) -> &mut Gate {
        &mut self.gates[gate.0]
    }
}
