//! The link to one peer: its handshake, its conversation, its paths.
//!
//! 1. The server introduces: both sides learn each other's key, a relay channel and check tags,
//!    and both start checking candidates at once.
//! 2. The side that wants to talk sends HANDSHAKE_INIT, inside OPEN or over the relay.
//! 3. Messages travel over the relay from the first moment; when a check succeeds the
//!    controlling side opens a direct path and prefers it.

mod arrival;
mod departure;
mod handshake;
mod introduction;
mod near;
mod paths;
mod punch;
mod streams;
mod train;
mod why;

use std::collections::{BTreeMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngCore;

use self::handshake::{Cause, Handshake};
pub(super) use self::punch::Grant;
use self::punch::Punch;
use super::api::{Deadline, PathView};
use super::core::{Core, Owner};
use super::purse::Purse;
use super::why::Party;
use crate::control::{self, Exposure};
use crate::conversation::Conversation;
use crate::id::{
    Address, Boot, Channel, ConnectId, Epoch, PathId, PeerKey, PeerName, ReceiverId, RelayChannel,
    Sequence, Token,
};
use crate::io::{Ecn, Route};
use crate::time::{Backoff, earliest};
use crate::transport::{self, ControlFrame, StreamEvent, StreamKey, StreamSide};
use crate::traversal::{Agent, Role};
use crate::wire::frame::Candidate;
use crate::wire::{Family, receiver_of};

/// While a pair talks its relayed path is touched this often, or the server frees the channel.
const RELAY_WARM: Duration = Duration::from_secs(20);
/// A pair that said nothing for this long no longer keeps its relayed path warm.
const TALKING: Duration = Duration::from_secs(300);
/// First and largest pause after a session that ended in a quarrel: two that never agree must
/// not shake hands at the speed of the network.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A session that heard nothing for this long while messages wait is made anew.
const DEAF_AFTER: Duration = Duration::from_secs(8);

/// Everything about one peer.
pub(super) struct PeerLink {
    pub(super) key: PeerKey,
    pub(super) name: PeerName,
    boot: Boot,
    epoch: Epoch,
    role: Role,
    conversation: Conversation,
    /// Boxed, as the agent is: the map of links keeps room for more than it holds.
    handshake: Option<Box<Handshake>>,
    /// The last inits answered and the answers, newest last: the same init gets the same reply.
    replied: VecDeque<([u8; 16], Vec<u8>)>,
    /// The session that waits for its first packet, and the boot of the process that began it.
    answered: Option<(Address, Boot)>,
    relay: Option<RelayChannel>,
    connect: Option<ConnectId>,
    /// Which of the two hides, if one does: there is no agent then.
    hides: Option<Party>,
    agent: Option<Box<Agent>>,
    /// Checks to addresses that only this peer vouches for.
    claimed: Purse,
    /// The spare socket this pair uses, and where the server saw it.
    spare: Option<(SocketAddr, Candidate)>,
    /// A spare that takes part from its introduction on, if that comes in time.
    offered: Option<Offer>,
    /// Spares wanted so far.
    spares_wanted: usize,
    /// The same since there was a direct path or the network changed.
    spares_in_row: usize,
    punch: Punch,
    direct: BTreeMap<PathId, Route>,
    unproved: BTreeMap<PathId, ([u8; 8], Route)>,
    /// Direct paths of this session that are out of use, and their routes, newest last: what went
    /// there may still be acknowledged, and the other side may still speak there.
    left: VecDeque<(PathId, Route)>,
    preferred: PathId,
    /// Direct paths that each side began in this session.
    own_paths: u8,
    their_paths: u8,
    candidates_told: u64,
    last_used: Instant,
    /// When a packet of the session last opened, or the session began.
    last_heard: Instant,
    /// Since when something waits for the other end.
    waiting_since: Option<Instant>,
    /// When a packet last opened, or the first stream was opened.
    alive_at: Instant,
    warm_at: Instant,
    reintroduced: Option<Instant>,
    /// When to ask for another introduction, unless the relayed path answers before.
    reintroduce_at: Option<Instant>,
    /// Delays after sessions that ended in a quarrel, and when the present one is over.
    pause: Backoff,
    not_before: Option<Instant>,
    view: PathView,
    /// Unix seconds since when it is in use.
    view_since: u64,
}

/// A spare socket that waits for the introduction in which the peer is told of it.
struct Offer {
    connect: ConnectId,
    bound: SocketAddr,
    known: Candidate,
    /// The server did not grant the introduction if it has not come by then.
    until: Instant,
}

/// The way to the server that relay frames take.
#[derive(Clone, Copy, Debug)]
pub(super) struct Via {
    pub(super) route: Route,
    pub(super) token: Token,
}

/// How a datagram of a peer reached us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    Relay,
    /// With its congestion mark.
    Direct(Route, Ecn),
}

/// What a link tells the node.
pub(super) enum Notice {
    /// Something happened that the rest of the node may follow.
    Unusual,
    /// Messages of the channel below `below` have their receipts.
    Delivered { channel: Channel, below: Sequence, path: PathView },
    /// There is something to read.
    Readable,
    /// There is room to write.
    Writable,
    /// Something happened to a stream.
    Stream(StreamKey, StreamEvent),
    /// A datagram came.
    Datagram(Bytes),
    /// The peer said CLOSE.
    Closed,
    /// Another path is in use.
    Path(PathView),
    /// The handshake needs an OPEN: there is no relay channel yet.
    Open { datagram: Vec<u8> },
    /// The relayed path is dead: ask the server for a new introduction.
    Reintroduce,
    /// All checks failed: another local port may do better.
    Spare { nth: usize },
    /// Ports must be guessed: the node says when.
    Punch,
}

impl Notice {
    /// Whether it belongs to the coming and going of messages: no other part of the node cares.
    pub(super) const fn is_ordinary(&self) -> bool {
        match self {
            Self::Delivered { .. } | Self::Readable | Self::Stream(..) | Self::Datagram(_) => true,
            Self::Unusual
            | Self::Writable
            | Self::Closed
            | Self::Path(_)
            | Self::Open { .. }
            | Self::Reintroduce
            | Self::Spare { .. }
            | Self::Punch => false,
        }
    }
}

/// How much of what was due a flush brought out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    All,
    /// As much as leaves in one go; there may be more.
    Train,
}

impl PeerLink {
    pub(super) fn new(member: &control::Member, core: &mut Core, now: Instant) -> Self {
        Self {
            key: member.key,
            name: member.name.clone(),
            boot: member.boot,
            epoch: Epoch(core.rng.next_u64()),
            role: if core.own < member.key { Role::Controlling } else { Role::Controlled },
            conversation: Conversation::new(config(core.own, member.key), now),
            handshake: None,
            replied: VecDeque::new(),
            answered: None,
            relay: None,
            connect: None,
            hides: (core.exposure == Exposure::Hidden).then_some(Party::Own),
            agent: None,
            claimed: Purse::of_peer(now),
            spare: None,
            offered: None,
            spares_wanted: 0,
            spares_in_row: 0,
            punch: Punch::new(),
            direct: BTreeMap::new(),
            unproved: BTreeMap::new(),
            left: VecDeque::new(),
            preferred: PathId::SERVER,
            own_paths: 0,
            their_paths: 0,
            candidates_told: 0,
            last_used: now,
            last_heard: now,
            waiting_since: None,
            alive_at: now,
            warm_at: now + RELAY_WARM,
            reintroduced: None,
            reintroduce_at: None,
            pause: Backoff::new(PAUSE_FIRST, PAUSE_MAX),
            not_before: None,
            view: PathView::None,
            view_since: core.seconds(now),
        }
    }

    // ---- the application's side

    /// Queues a message.
    pub(super) fn send(
        &mut self,
        channel: Channel,
        payload: Bytes,
        now: Instant,
    ) -> Result<Sequence, transport::SendError> {
        self.note_use(now);
        self.conversation.transport().send(channel, payload, now)
    }

    /// Whether a message of this length would be queued.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.conversation.transport_ref().has_room(len)
    }

    pub(super) fn cancel(&mut self, channel: Channel, sequence: Sequence, now: Instant) {
        self.conversation.transport().cancel(channel, sequence, now);
    }

    pub(super) fn poll_message(&mut self, now: Instant) -> Option<transport::Received> {
        let message = self.conversation.transport().poll_message(now)?;
        self.note_use(now);
        Some(message)
    }

    /// The pair talks: a direct path is worth looking for.
    fn note_use(&mut self, now: Instant) {
        self.last_used = now;
        if let Some(agent) = &mut self.agent {
            agent.wake(now);
        }
    }

    pub(super) fn remote_epoch(&self) -> Epoch {
        self.conversation.transport_ref().remote_epoch()
    }

    pub(super) fn has_message(&self) -> bool {
        self.conversation.transport_ref().has_message()
    }

    /// Whether messages wait and nothing is done about it.
    pub(super) fn wants_session(&self) -> bool {
        !self.is_connected_or_connecting()
            && (self.has_open_streams() || !self.conversation.transport_ref().is_idle())
    }

    /// A session ended in a quarrel: the next one waits a little longer each time.
    fn hold_off(&mut self, now: Instant) {
        self.not_before = Some(now + self.pause.advance());
    }

    /// Whether a session stands or is under way.
    pub(super) fn is_connected_or_connecting(&self) -> bool {
        self.handshake.is_some() || self.conversation.session().is_some()
    }

    pub(super) fn has_session(&self) -> bool {
        self.conversation.session().is_some()
    }

    /// When the pair last talked.
    pub(super) fn last_used(&self) -> Instant {
        self.last_used
    }

    /// Whether it can be forgotten: nothing waits and nobody talked for `idle`.
    pub(super) fn is_forgettable(&self, idle: Duration, now: Instant) -> bool {
        self.conversation.transport_ref().is_idle()
            && !self.has_message()
            && !self.has_open_streams()
            && now.saturating_duration_since(self.last_used) > idle
    }

    /// Whether the pair talked lately.
    pub(super) fn is_talking(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.last_used) < TALKING
            || self.has_open_streams()
            || !self.conversation.transport_ref().is_idle()
    }

    /// The peer is gone: its process holds no keys any more.
    pub(super) fn drop_session(&mut self, core: &mut Core, now: Instant) {
        self.conversation.drop_session();
        self.abandon_handshake(now);
        self.replied.clear();
        self.answered = None;
        self.stop_punch(core, now);
        self.release_socket(core);
        self.agent = None;
        self.spare = None;
        self.offered = None;
        self.connect = None;
        self.forget_paths();
        core.release_receivers(Owner::Peer(self.key), &[]);
    }

    /// The server forgot our relay channels. The relayed path stays, as one that loses
    /// everything, until there is a channel again: path ids do not come back.
    pub(super) fn drop_relay(&mut self) {
        self.relay = None;
    }

    /// Whether the peer is not known to have the receipt of every message taken here, and all of
    /// every stream that was finished.
    pub(super) fn owes(&self) -> bool {
        let transport = self.conversation.transport_ref();
        self.has_session() && (transport.owes_receipts() || transport.owes_stream_ends())
    }

    /// Queues CLOSE.
    pub(super) fn say_close(&mut self, code: u16, reason: &str, now: Instant) {
        if self.has_session() {
            let frame = ControlFrame::Close(code, reason.to_owned());
            self.conversation.transport().control(frame, None, now);
        }
    }

    /// Which session packets are sealed with.
    #[cfg(test)]
    pub(super) fn session_id(&self) -> Option<Address> {
        self.conversation.session().map(crate::session::Session::local)
    }

    /// Says anything to the peer, as one that breaks the rules would.
    #[cfg(test)]
    pub(super) fn say(&mut self, frame: ControlFrame, now: Instant) {
        self.conversation.transport().control(frame, None, now);
    }

    pub(super) fn handle_timeout(&mut self, core: &mut Core, now: Instant) {
        self.conversation.handle_timeout(now);
        self.not_before = self.not_before.filter(|at| *at > now);
        self.offered.take_if(|offer| offer.until <= now);
        if self.deaf_at().is_some_and(|at| at <= now) {
            self.last_heard = now;
            self.begin_handshake(Cause::Silence, core, now);
        }
        if self.lost_at().is_some_and(|at| at <= now) {
            self.lose_streams(now);
        }
        let talks = self.is_talking(now);
        if let Some(agent) = &mut self.agent {
            if !talks {
                agent.rest();
            }
            agent.handle_timeout(now);
        }
        self.punch_timeout(core, now);
        if self.warm_at <= now {
            self.warm_at = now + RELAY_WARM;
            if !talks {
                self.conversation.rest();
            } else if self.relay_stats().is_some() && self.has_session() {
                self.conversation.transport().probe(PathId::SERVER, now);
            }
            self.keep_streams_warm(now);
        }
    }

    /// When a session that hears nothing is to be made anew: the other end may hold no keys, or
    /// those of another handshake.
    fn deaf_at(&self) -> Option<Instant> {
        let waits = self.has_session()
            && self.handshake.is_none()
            && !self.conversation.transport_ref().is_idle();
        // Before, there was nothing to hear: the two may have been silent, or asleep.
        self.waiting_since.filter(|_| waits).map(|since| self.last_heard.max(since) + DEAF_AFTER)
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let mut next = earliest(self.conversation.poll_timeout(), Some((self.warm_at, "warm")));
        next = earliest(next, self.deaf_at().map(|at| (at, "silent peer")));
        next = earliest(next, self.lost_at().map(|at| (at, "lost peer")));
        let pause = self.not_before.filter(|_| self.wants_session());
        next = earliest(next, pause.map(|at| (at, "pause")));
        next = earliest(next, self.reintroduce_at.map(|at| (at, "silent relay")));
        next = earliest(next, self.agent.as_deref().and_then(Agent::poll_timeout));
        next = earliest(next, self.punch.deadline());
        next = earliest(next, self.offered.as_ref().map(|offer| (offer.until, "introduction")));
        let handshake = self.handshake.as_ref().map(|h| (h.next_try, "peer handshake"));
        earliest(next, handshake)
    }
}

/// The smaller key opens the streams of even number.
fn config(own: PeerKey, peer: PeerKey) -> transport::Config {
    let side = if own < peer { StreamSide::Even } else { StreamSide::Odd };
    transport::Config { streams: Some(side), ..transport::Config::peer() }
}

/// The receiver id a datagram of a peer is addressed to.
pub(super) fn addressed_to(data: &[u8]) -> Option<ReceiverId> {
    match Family::of(data) {
        Family::HandshakeReply | Family::Data => receiver_of(data).ok(),
        Family::Stun
        | Family::HandshakeInit
        | Family::HandshakeFinish
        | Family::Retry
        | Family::Relay
        | Family::Reset
        | Family::Stale
        | Family::Versions
        | Family::Beacon
        | Family::Other => None,
    }
}
