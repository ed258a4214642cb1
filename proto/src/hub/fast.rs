//! What a socket worker decides about a datagram on its own, without the hub.

use std::time::Instant;

use super::counters::Count;
use super::routes::Routes;
use super::sources::Class;
use crate::id::Token;
use crate::io::{Route, Transmit};
use crate::session::cookie::{InitRefusal, screen_init, versions_reply};
use crate::wire::stun::{self, StunVerdict};
use crate::wire::{
    self, DATAGRAM_LEN_MAX, Family, HANDSHAKE_INIT_LEN, RELAY_HEADER_LEN, RelayHeader,
};

/// What a socket worker does with a datagram on its own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Dropped and counted.
    Drop,
    /// Send this back on the route it came by.
    Reply(Vec<u8>),
    /// Send this on the route it names: a client asked to be answered elsewhere.
    Elsewhere(Transmit),
    /// The datagram, rewritten in place, goes here.
    Forward(Route),
    /// For the hub: established sessions (never shed first).
    Live,
    /// For the hub: handshakes and the rest (small queue, shed first).
    Rest,
}

/// The per-datagram decisions of a worker; holds nothing of its own.
pub struct Fast {}

impl Fast {
    /// Judges one datagram that came by `route`. `datagram` may be rewritten in place (the header
    /// of a relay frame).
    pub fn handle(routes: &Routes, datagram: &mut [u8], route: Route, now: Instant) -> Verdict {
        let look = Look { routes, route, now_ns: routes.now_ns(now), now };
        match Family::of(datagram) {
            Family::Stun => look.stun(datagram),
            Family::HandshakeInit => look.init(datagram),
            Family::HandshakeFinish => look.finish(datagram),
            Family::Data => look.data(datagram),
            Family::Relay => look.relay(datagram),
            Family::HandshakeReply
            | Family::Retry
            | Family::Reset
            | Family::Stale
            | Family::Versions
            | Family::Beacon
            | Family::Other => look.drop(Count::DroppedOther),
        }
    }
}

/// One datagram's circumstances.
struct Look<'a> {
    routes: &'a Routes,
    route: Route,
    now: Instant,
    now_ns: u64,
}

impl Look<'_> {
    fn drop(&self, count: Count) -> Verdict {
        self.routes.count(count);
        Verdict::Drop
    }

    /// An answer to a stranger: counted against its prefix.
    fn refuse(&self, count: Count, answer: impl FnOnce() -> Option<Vec<u8>>) -> Verdict {
        if !self.routes.sources.admit(Class::Refusal, self.route.remote.ip(), self.now_ns) {
            return self.drop(Count::DroppedLimited);
        }
        match answer() {
            Some(answer) => {
                self.routes.count(count);
                Verdict::Reply(answer)
            }
            None => self.drop(Count::DroppedMalformed),
        }
    }

    fn stun(&self, request: &[u8]) -> Verdict {
        let remote = self.route.remote;
        if !self.routes.sources.admit(Class::Stun, remote.ip(), self.now_ns) {
            return self.drop(Count::DroppedLimited);
        }
        let mut out = [0; stun::ANSWER_LEN_MAX];
        match stun::answer(request, self.route, &self.routes.places, &mut out) {
            StunVerdict::Answer { len, route } => {
                self.routes.count(Count::Stun);
                let answer = out[..len].to_vec();
                if route == self.route {
                    Verdict::Reply(answer)
                } else {
                    Verdict::Elsewhere(Transmit::new(route, answer))
                }
            }
            StunVerdict::Drop(_) => self.drop(Count::DroppedStun),
        }
    }

    fn init(&self, init: &[u8]) -> Verdict {
        if init.len() < HANDSHAKE_INIT_LEN || init.len() > DATAGRAM_LEN_MAX {
            return self.drop(Count::DroppedMalformed);
        }
        match screen_init(init, &self.routes.key) {
            Ok(()) => {}
            Err(InitRefusal::Malformed) => return self.drop(Count::DroppedMalformed),
            Err(InitRefusal::BadMac) => return self.drop(Count::DroppedMac),
            Err(InitRefusal::UnknownVersion) => {
                return self.refuse(Count::Versions, || versions_reply(init));
            }
        }
        let remote = self.route.remote;
        if !self.routes.needs_cookie(remote.ip(), self.now_ns)
            || self.routes.cookies.is_valid(init, remote, self.now)
        {
            return Verdict::Rest;
        }
        match self.routes.cookies.retry(init, remote, self.now) {
            Some(retry) => {
                self.routes.count(Count::Retries);
                Verdict::Reply(retry)
            }
            None => self.drop(Count::DroppedMalformed),
        }
    }

    fn finish(&self, datagram: &[u8]) -> Verdict {
        match wire::token_of(datagram).map(|token| self.routes.slots.find(token)) {
            Ok(Some(_)) => Verdict::Rest,
            Ok(None) => self.drop(Count::DroppedToken),
            Err(_) => self.drop(Count::DroppedMalformed),
        }
    }

    fn data(&self, datagram: &[u8]) -> Verdict {
        let Ok(token) = wire::token_of(datagram) else {
            return self.drop(Count::DroppedMalformed);
        };
        match self.routes.slots.find(token) {
            Some(view) if view.is_from(self.route.remote, self.now_ns) => Verdict::Live,
            Some(_) => Verdict::Rest,
            None => self.reset(token, datagram.len()),
        }
    }

    /// RESET must stay smaller than what asks for it, or it could be made to go round.
    fn reset(&self, token: Token, asked: usize) -> Verdict {
        const RESET_LEN: usize = 25;
        if asked <= RESET_LEN {
            return self.drop(Count::DroppedToken);
        }
        self.refuse(Count::Resets, || Some(self.routes.resets.datagram(token)))
    }

    fn relay(&self, frame: &mut [u8]) -> Verdict {
        let Ok((header, inner)) = RelayHeader::decode(frame) else {
            return self.drop(Count::DroppedMalformed);
        };
        if inner.is_empty() {
            return self.drop(Count::DroppedMalformed);
        }
        let slots = &self.routes.slots;
        let Some(sender) = slots.find(header.token) else {
            return self.reset(header.token, frame.len());
        };
        if !sender.is_from(self.route.remote, self.now_ns) {
            self.routes.count(Count::DroppedAddress);
            return self.refuse(Count::Stales, || Some(wire::encode_stale(header.token)));
        }
        let now_s = self.routes.now_s(self.now);
        let Some((target, channel)) = slots.channel(header.token, header.channel, now_s) else {
            return self.drop(Count::DroppedChannel);
        };
        let Some(route) = slots.find(target).and_then(|view| view.route()) else {
            return self.drop(Count::DroppedTarget);
        };
        let spent = slots.quota(header.token).is_some_and(|quota| {
            self.routes.relay_rate.admit(quota, self.now_ns, frame.len() as u64)
        });
        if !spent {
            return self.drop(Count::DroppedQuota);
        }
        let rewritten = RelayHeader { channel, token: target }.encode();
        frame[..RELAY_HEADER_LEN].copy_from_slice(&rewritten);
        self.routes.count(Count::Relayed);
        self.routes.cells.add(Count::RelayedBytes, frame.len() as u64);
        Verdict::Forward(route)
    }
}
