//! What happened becomes datagrams and events: the parts are drained until nothing moves.

use std::collections::BTreeSet;
use std::time::Instant;

use super::api::Event;
use super::peer_link::{Flushed, Notice, PeerLink};
use super::renewal::Need;
use super::{Affected, Node};
use crate::id::PeerKey;

impl Node {
    /// Drains the parts until nothing moves.
    pub(super) fn flush(&mut self, now: Instant) {
        self.settle(now);
        self.profile(now);
        self.flush_links(now);
        while self.grant_punch(now) {
            self.flush_links(now);
        }
        let server = self.server_v4();
        self.spares.advance(server, &mut self.core, now);
        self.renew(now);
        let other = self.server.other_family(&self.core);
        self.other_family.advance(other, &mut self.core, now);
        let name = self.announced_name();
        self.lan.advance(name, &mut self.core, now);
        self.server.flush(&mut self.core, now);
        self.rest_deadline = self.find_rest_deadline();
    }

    /// Where mappings end at a certain age, paths move to a fresh socket before.
    pub(super) fn renew(&mut self, now: Instant) {
        let server = self.server_v4();
        let need = || match self.links.values().any(PeerLink::depends_on_mapping) {
            true => Need::Paths,
            false => Need::Nothing,
        };
        if self.renewal.advance(need, server, &mut self.core, now) {
            self.candidates_changed(now);
            self.flush_links(now);
        }
    }

    /// Looks only at links that were touched. What does not leave in one go stays for the next flush.
    pub(super) fn flush_links(&mut self, now: Instant) {
        let mut unfinished = BTreeSet::new();
        while let Some(key) = self.touched.pop_first() {
            let via = self.via();
            let mut notices = Vec::new();
            self.meet_if_near(key, now);
            if let Some(link) = self.links.get_mut(&key) {
                let is_present = || {
                    self.directory.member(&link.name).is_some()
                        || self.lan.neighbour(&key, now).is_some()
                };
                if link.wants_session() && is_present() {
                    link.connect(&mut self.core, now);
                }
                if link.flush(via, &mut notices, &mut self.core, now) == Flushed::Train {
                    unfinished.insert(key);
                }
            }
            self.timers.set(key, self.links.get(&key).and_then(PeerLink::poll_timeout));
            for notice in notices {
                self.handle_link_notice(key, notice, now);
            }
        }
        if !unfinished.is_empty() {
            self.unflushed = self.unflushed.max(Affected::Links);
        }
        // What the set has for its keys stays.
        self.touched.extend(unfinished);
    }

    fn handle_link_notice(&mut self, key: PeerKey, notice: Notice, now: Instant) {
        if !notice.is_ordinary() {
            self.unflushed = Affected::Whole;
        }
        match notice {
            Notice::Unusual => {}
            Notice::Delivered { channel, below, path } => {
                let Some(link) = self.links.get(&key) else { return };
                self.outbox.settle(key, channel, below, |ticket| {
                    let (handle, to) = (ticket.handle, link.name.clone());
                    self.core.event(Event::Delivered { handle, to, path });
                });
            }
            Notice::Readable => {
                // Whoever takes what comes with a datagram at once has it by now.
                if self.links.get(&key).is_some_and(PeerLink::has_message) {
                    self.core.event(Event::Readable);
                }
            }
            Notice::Writable => self.send_backlog(key, now),
            Notice::Stream(stream, event) => {
                self.handle_stream_event(key, stream, event);
            }
            Notice::Datagram(payload) => self.handle_datagram_of(key, payload),
            Notice::Closed => {
                if let Some(link) = self.links.get_mut(&key) {
                    link.drop_session(&mut self.core, now);
                    self.touched.insert(key);
                }
            }
            Notice::Path(path) => {
                if let Some(name) = self.links.get(&key).map(|link| link.name.clone()) {
                    self.core.event(Event::Path { name, path });
                }
            }
            Notice::Open { datagram } => self.open(key, datagram, now),
            Notice::Reintroduce => self.reintroduce(key, now),
            Notice::Spare { nth } => self.spares.want(key, nth),
            Notice::Punch => self.punches.want(key),
        }
    }
}
