//! Datagrams that arrive: whose each one is.

use std::collections::VecDeque;
use std::time::Instant;

use super::core::Owner;
use super::peer_link::{self, Origin};
use super::{Affected, Node, STRAY_TTL, STRAYS_MAX, server_link};
use crate::id::{PeerKey, RelayChannel};
use crate::io::{Ecn, Route};
use crate::wire::{Family, RELAY_HEADER_LEN, RelayHeader};

impl Node {
    pub(super) fn handle_datagram(
        &mut self,
        route: Route,
        ecn: Ecn,
        data: &mut [u8],
        now: Instant,
    ) {
        match Family::of(data) {
            Family::Relay => self.handle_relayed(route, data, now),
            Family::Stun => self.handle_stun(route, data, now),
            Family::HandshakeInit => {
                // Direct inits come from peers that were introduced; the key inside tells whose.
                self.handle_direct_init(route, data, now);
            }
            Family::HandshakeReply | Family::Data => {
                let owner = peer_link::addressed_to(data).and_then(|id| self.core.owner_of(id));
                match owner {
                    Some(Owner::Server) => self.handle_from_server(route, data, now),
                    Some(Owner::Peer(key)) => {
                        self.handle_from_peer(key, Origin::Direct(route, ecn), data, now);
                    }
                    None => {}
                }
            }
            Family::Retry | Family::Reset | Family::Stale | Family::Versions => {
                self.handle_from_server(route, data, now);
            }
            Family::Beacon => self.handle_beacon(route.remote, data, now),
            Family::HandshakeFinish | Family::Other => {}
        }
    }

    fn handle_from_server(&mut self, route: Route, data: &mut [u8], now: Instant) {
        self.unflushed = Affected::Whole;
        let mut notices = Vec::new();
        self.server.handle_datagram(route, data, &mut notices, &mut self.core, now);
        self.handle_server_notices(notices, now);
    }

    fn handle_from_peer(&mut self, key: PeerKey, origin: Origin, data: &mut [u8], now: Instant) {
        let via = self.via();
        if let Some(link) = self.links.get_mut(&key) {
            link.handle_datagram(origin, data, via, &mut self.core, now);
            self.touched.insert(key);
        }
    }

    fn handle_relayed(&mut self, route: Route, data: &mut [u8], now: Instant) {
        let Ok((header, _)) = RelayHeader::decode(data) else { return };
        let ours = |up: &server_link::Up| up.token == header.token && up.route == route;
        if !self.server.up().is_some_and(ours) {
            return;
        }
        let inner = &mut data[RELAY_HEADER_LEN..];
        match self.channels.get(&header.channel) {
            Some(key) => self.handle_from_peer(*key, Origin::Relay, inner, now),
            None => self.keep_stray(header.channel, inner, now),
        }
    }

    /// The introduction may be a moment behind the first relayed datagram.
    fn keep_stray(&mut self, channel: RelayChannel, datagram: &[u8], now: Instant) {
        self.strays.retain(|(at, ..)| now.saturating_duration_since(*at) < STRAY_TTL);
        if self.strays.len() < STRAYS_MAX {
            self.strays.push_back((now, channel, datagram.to_vec()));
        }
    }

    pub(super) fn replay_strays(&mut self, channel: RelayChannel, key: PeerKey, now: Instant) {
        let (ours, rest): (VecDeque<_>, VecDeque<_>) =
            std::mem::take(&mut self.strays).into_iter().partition(|(_, of, _)| *of == channel);
        self.strays = rest;
        for (_, _, mut datagram) in ours {
            self.handle_from_peer(key, Origin::Relay, &mut datagram, now);
        }
    }

    fn handle_direct_init(&mut self, route: Route, data: &mut [u8], now: Instant) {
        let met = self.links.iter().find(|(_, link)| link.has_met_on(route));
        if let Some(key) = met.map(|(key, _)| *key) {
            self.handle_from_peer(key, Origin::Direct(route, Ecn::NotEct), data, now);
        }
    }

    /// A check carries the tag of its pair; each agent knows its own.
    fn handle_stun(&mut self, route: Route, data: &[u8], now: Instant) {
        if self.profiler.handle(route, data) || self.lifetime.handle(route, data) {
            return;
        }
        if let Some(ready) = self.spares.measured(route, data) {
            return self.offer_spare(&ready, now);
        }
        if self.renewal.measured(route, data, &mut self.core) {
            return self.candidates_changed(now);
        }
        if let Some((bound, observed)) = self.other_family.answer(route, data, now) {
            self.renewal.seen(bound, observed, now);
            if self.core.note_observed(bound, observed) {
                self.candidates_changed(now);
            }
            return;
        }
        if self.measured_for_punch(route, data, now) {
            return;
        }
        for (key, link) in &mut self.links {
            if link.handle_check(route, data, now) {
                self.touched.insert(*key);
                return;
            }
        }
        self.handle_check_on_lan(route, data, now);
    }
}
