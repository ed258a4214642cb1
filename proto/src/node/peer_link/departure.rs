//! What leaves: everything that is due in the parts becomes datagrams and notices.

use std::time::Instant;

use super::super::core::Core;
use super::train::{self, Coupled};
use super::{Flushed, Notice, Origin, PeerLink, Via};
use crate::id::PathId;
use crate::io::{Ecn, Route};
use crate::wire::RelayHeader;

/// Datagrams made before the shell sends them: more than a train, in case they go different ways.
const DATAGRAMS_AT_ONCE: usize = 128;

impl PeerLink {
    /// Moves everything that is due out of the parts: datagrams to `core`, the rest to `notices`.
    pub(in crate::node) fn flush(
        &mut self,
        via: Option<Via>,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) -> Flushed {
        // Events may call forth checks, which shall leave at once.
        self.collect_events(notices, core, now);
        self.collect_agent(notices, core, now);
        self.reintroduce_when_due(notices, now);
        self.release_idle_socket(core, now);
        self.tell_candidates(now);
        self.tell_nat(core, now);
        self.follow_lifetimes(core);
        self.want_punch(notices, core, now);
        self.try_handshake(via, notices, core, now);
        let flushed = self.flush_datagrams(via, core, now);
        let waits = !self.conversation.transport_ref().is_idle();
        self.waiting_since = waits.then(|| self.waiting_since.unwrap_or(now));
        let view = self.view();
        if !view.is_same(&self.view) {
            self.view = view;
            self.view_since = core.seconds(now);
            notices.push(Notice::Path(view));
        }
        flushed
    }

    fn flush_datagrams(&mut self, via: Option<Via>, core: &mut Core, now: Instant) -> Flushed {
        let mut train = train::Assembly::new(core);
        for _ in 0..DATAGRAMS_AT_ONCE {
            let (start, rng) = (train.buffer.len(), &mut core.rng);
            let made = self.conversation.poll_datagram_into(&mut train.buffer, rng, now);
            let Some(path) = made else {
                train.finish(core);
                return Flushed::All;
            };
            let Some((route, ecn)) = self.address(path, via, start, &mut train.buffer) else {
                train.buffer.truncate(start);
                continue;
            };
            if train.couple(route, ecn, start, core) == Coupled::Full {
                break;
            }
        }
        train.finish(core);
        Flushed::Train
    }

    /// Where the datagram from `start` on goes, and with what mark: behind a relay header that is
    /// put in front of it, if it is for the relayed path. `None`: without a server or a channel
    /// that path loses everything.
    pub(super) fn address(
        &self,
        path: PathId,
        via: Option<Via>,
        start: usize,
        buffer: &mut Vec<u8>,
    ) -> Option<(Route, Ecn)> {
        if let Some(route) = self.direct_route(path) {
            return Some((route, self.conversation.transport_ref().mark(path)));
        }
        let (via, channel) = (via?, self.relay?);
        let header = RelayHeader { channel, token: via.token }.encode();
        buffer.splice(start..start, header);
        Some((via.route, Ecn::NotEct))
    }

    pub(super) fn flush_close(&mut self, core: &mut Core, now: Instant) {
        while let Some((path, datagram)) = self.conversation.poll_datagram(&mut core.rng, now) {
            let to = match self.direct_route(path) {
                Some(route) => Origin::Direct(route, Ecn::NotEct),
                None => Origin::Relay,
            };
            self.transmit(to, &datagram, None, core);
        }
    }

    /// Where a path leads that is not the relayed one.
    fn direct_route(&self, path: PathId) -> Option<Route> {
        let unproved = || self.unproved.get(&path).map(|(_, route)| route);
        self.direct.get(&path).or_else(unproved).copied()
    }

    pub(super) fn transmit(&self, to: Origin, datagram: &[u8], via: Option<Via>, core: &mut Core) {
        match (to, via, self.relay) {
            (Origin::Direct(route, _), ..) => core.transmit(route, datagram.to_vec()),
            (Origin::Relay, Some(via), Some(channel)) => {
                let header = RelayHeader { channel, token: via.token }.encode();
                core.transmit(via.route, [&header[..], datagram].concat());
            }
            // Without a server or a channel the relayed path is a lossy one.
            (Origin::Relay, ..) => {}
        }
    }
}
