//! The network under this node: its sockets, where they are seen, what its NAT is like.

use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use super::api::{Event, LocalSocket, Mapped, SocketUse};
use super::peer_link::Via;
use super::profile::Target;
use super::server_link::Sight;
use super::{Node, Phase};
use crate::control::Exposure;
use crate::io::Route;
use crate::traversal::nat::{Field, Profile};

impl Node {
    pub(super) fn handle_opened(&mut self, usage: SocketUse, bound: &[SocketAddr], now: Instant) {
        match usage {
            SocketUse::Spare => {
                let server = self.server_v4();
                self.spares.opened(bound.first().copied(), server, &mut self.core, now);
            }
            SocketUse::Measure => self.profiler.opened(bound, &mut self.core, now),
            SocketUse::Lifetime => self.lifetime.opened(bound, &mut self.core, now),
            SocketUse::Guess => self.opened_for_punch(bound, now),
            SocketUse::Renewal => {
                let server = self.server_v4();
                self.renewal.opened(bound.first().copied(), server, &mut self.core, now);
            }
        }
    }

    /// The server's IPv4 address, whichever family the session uses.
    pub(super) fn server_v4(&self) -> Option<SocketAddr> {
        self.route_v4().map(|route| route.remote)
    }

    fn route_v4(&self) -> Option<Route> {
        let session = self.via().map(|via| via.route);
        let mut routes = session.into_iter().chain(self.server.other_family(&self.core));
        routes.find(|route| route.remote.is_ipv4())
    }

    /// Where to ask about our NAT: known while registered with a server that has two ports. Who
    /// hides has no use for it.
    pub(super) fn profile_target(&self) -> Option<Target> {
        if self.core.exposure == Exposure::Hidden {
            return None;
        }
        let stun = self.registered.as_ref()?.stun?;
        let main = self.route_v4().filter(|_| self.phase == Phase::Running)?;
        let other = |ip: &IpAddr| ip.is_ipv4() && *ip != main.remote.ip();
        Some(Target { main, alt_port: stun.alt_port, alt_ip: stun.alt_ip.filter(other) })
    }

    /// Goes on finding out about our NAT.
    pub(super) fn profile(&mut self, now: Instant) {
        let target = self.profile_target();
        if let Some(nat) = self.profiler.advance(target, &mut self.core, now) {
            self.learn(nat);
        }
        let main = target.map(|target| target.main);
        let main = main.filter(|_| self.core.nat.mapping != Field::Unknown);
        if let Some(lifetime) = self.lifetime.advance(main, &mut self.core, now) {
            self.learn(Profile { lifetime, ..self.core.nat });
        }
        if self.server.follow(self.core.nat.lifetime) && self.registered.is_some() {
            self.server.refresh(now);
        }
    }

    pub(super) fn learn(&mut self, nat: Profile) {
        if self.core.nat != nat {
            self.core.nat = nat;
            self.core.event(Event::Nat(nat));
            self.touched.extend(self.links.keys());
        }
    }

    /// What is known of our NAT.
    pub fn nat(&self) -> Profile {
        self.core.nat
    }

    pub(super) fn via(&self) -> Option<Via> {
        self.server.up().map(|up| Via { route: up.route, token: up.token })
    }

    pub(super) fn handle_sockets(&mut self, sockets: Vec<LocalSocket>, now: Instant) {
        let first = self.core.sockets.is_empty();
        if self.core.sockets == sockets {
            return;
        }
        self.core.sockets = sockets;
        self.candidates_changed(now);
        if first {
            return self.server.begin(&mut self.core, now);
        }
        self.network_changed(now);
    }

    /// The network changed under us: shows the server and the peers where we are now.
    pub(super) fn network_changed(&mut self, now: Instant) {
        self.server.network_changed(&mut self.core, now);
        self.other_family.restart(now);
        self.lan.restart();
        self.profiler.restart(&mut self.core, now);
        self.lifetime.restart(&mut self.core, now);
        self.renewal.restart(&mut self.core);
        for (key, link) in &mut self.links {
            link.restart(now);
            self.touched.insert(*key);
        }
    }

    pub(super) fn handle_mapped(&mut self, mapped: Vec<Mapped>, now: Instant) {
        if self.core.set_mapped(mapped) {
            self.candidates_changed(now);
        }
    }

    pub(super) fn candidates_changed(&mut self, now: Instant) {
        self.server.set_candidates(self.core.told_candidates());
        if self.registered.is_some() {
            self.server.tell_candidates(now);
        }
        for (key, link) in &mut self.links {
            link.set_local(&self.core, now);
            self.touched.insert(*key);
        }
    }

    pub(super) fn observed(&mut self, address: SocketAddr, now: Instant) {
        let Some(up) = self.server.up() else { return };
        self.core.note_observed(up.route.local, address);
        self.renewal.seen(up.route.local, address, now);
        let old = self.observed.replace(address);
        if old == Some(address) {
            return self.server.seen(Sight::Same);
        }
        if old.is_some() && self.registered.is_some() {
            self.server.seen(Sight::Moved);
            self.core.event(Event::Observed(address));
            self.profiler.restart(&mut self.core, now);
            self.lifetime.restart(&mut self.core, now);
        }
        self.candidates_changed(now);
    }

    pub(super) fn handle_resolved(&mut self, addresses: Vec<SocketAddr>, now: Instant) {
        let opens = if self.server.can_offer_early() { self.early_opens(now) } else { Vec::new() };
        self.server.handle_resolved(addresses, opens, &mut self.core, now);
    }
}
