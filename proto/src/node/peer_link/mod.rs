//! The link to one peer: its handshake, its conversation, its paths.
//!
//! 1. The server introduces: both sides learn each other's key, a relay channel and check tags,
//!    and both start checking candidates at once.
//! 2. The side that wants to talk sends HANDSHAKE_INIT, inside OPEN or over the relay.
//! 3. Messages travel over the relay from the first moment; when a check succeeds the
//!    controlling side opens a direct path and prefers it.

mod handshake;
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
use self::train::Coupled;
use super::api::{Deadline, PathView};
use super::core::{Core, Owner};
use super::purse::Purse;
use super::why::Party;
use crate::control::{self, CandidateKindText, Connect, Exposure};
use crate::conversation::{Conversation, PacketError};
use crate::id::{
    Address, Boot, Channel, ConnectId, Epoch, PathId, PeerKey, PeerName, ReceiverId, RelayChannel,
    Sequence, Token,
};
use crate::io::{Ecn, Route};
use crate::session::{Meeting, OpenError, check_keys};
use crate::time::{Backoff, earliest};
use crate::transport::{self, ControlFrame, Event, StreamEvent, StreamKey, StreamSide};
use crate::traversal::{self, Agent, Role};
use crate::wire::frame::{Candidate, CandidateKind, Candidates};
use crate::wire::{Family, RelayHeader, receiver_of};

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

/// Datagrams made before the shell sends them: more than a train, in case they go different ways.
const DATAGRAMS_AT_ONCE: usize = 128;

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

    // ---- introduction and handshake

    /// What the server says of the peer. Another process of it holds none of our keys.
    pub(super) fn update(&mut self, member: &control::Member, core: &mut Core, now: Instant) {
        self.name = member.name.clone();
        if self.boot != member.boot {
            self.boot = member.boot;
            self.drop_session(core, now);
            self.relay = None;
        }
    }

    /// The server introduced us: the relay channel is there and checks begin.
    pub(super) fn introduced(&mut self, event: &Connect, core: &mut Core, now: Instant) {
        self.relay = Some(event.channel);
        self.open_relay(now);
        self.hides = match (core.exposure, event.member.observed) {
            (Exposure::Hidden, _) => Some(Party::Own),
            (Exposure::Open, None) => Some(Party::Other),
            (Exposure::Open, Some(_)) => None,
        };
        if self.hides.is_some() {
            self.stop_punch(core, now);
            self.release_socket(core);
            self.agent = None;
            self.spare = None;
            self.lose_all(now);
            return;
        }
        if self.connect == Some(event.connect) && self.agent.is_some() {
            return;
        }
        self.interrupt_punch(core, now);
        self.punch.set_target(event.member.observed);
        if let Some(offer) = self.offered.take_if(|offer| offer.connect == event.connect) {
            self.release_socket(core);
            self.spare = Some((offer.bound, offer.known));
        }
        let Connect { connect, own_tag, their_tag, .. } = *event;
        let meeting = Meeting { connect, own_tag, their_tag };
        let Some(mut agent) = self.make_agent(&meeting, core, now) else { return };
        if let Some(observed) = event.member.observed {
            agent.vouch(observed);
        }
        agent.set_remote(first_candidates(event), now);
        self.adopt(agent, connect);
    }

    /// An agent for an introduction, whoever made it, that has no candidates of the peer yet.
    pub(super) fn make_agent(
        &self,
        meeting: &Meeting,
        core: &mut Core,
        now: Instant,
    ) -> Option<Agent> {
        let keys = check_keys(&core.static_key, &self.key, &meeting.connect)?;
        let mut seed = [0; 32];
        core.rng.fill_bytes(&mut seed);
        let Meeting { own_tag, their_tag, .. } = *meeting;
        let config = traversal::Config { role: self.role, keys, own_tag, their_tag, seed };
        let mut agent = Agent::new(config, now);
        agent.set_entry(self.punch.entry());
        agent.favour(core.favoured());
        agent.set_local(core.local_candidates(self.spare), now);
        Some(agent)
    }

    fn adopt(&mut self, agent: Agent, connect: ConnectId) {
        self.connect = Some(connect);
        self.agent = Some(Box::new(agent));
        self.candidates_told = 0;
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

    // ---- datagrams

    /// A datagram of this peer. `via` is where relayed answers go.
    pub(super) fn handle_datagram(
        &mut self,
        origin: Origin,
        data: &mut [u8],
        via: Option<Via>,
        core: &mut Core,
        now: Instant,
    ) {
        if self.hides.is_some() && matches!(origin, Origin::Direct(..)) {
            // An answer would tell where we are, or that we take part in what the other must not.
            return;
        }
        match Family::of(data) {
            Family::HandshakeInit => self.handle_init(origin, data, via, core, now),
            Family::HandshakeReply => self.handle_reply(data, core, now),
            Family::Data => self.handle_data(origin, data, core, now),
            Family::Stun => {
                if let Origin::Direct(route, _) = origin {
                    self.handle_check(route, data, now);
                }
            }
            Family::HandshakeFinish
            | Family::Retry
            | Family::Relay
            | Family::Reset
            | Family::Stale
            | Family::Versions
            | Family::Beacon
            | Family::Other => {}
        }
    }

    fn handle_data(&mut self, origin: Origin, data: &mut [u8], core: &mut Core, now: Instant) {
        let arrived = match self.conversation.handle_packet(data, &mut core.rng, now) {
            Ok(arrived) => arrived,
            // So many forgeries that one might succeed (SPEC section 5.3).
            Err(PacketError::Open(OpenError::Exhausted)) => return self.drop_session(core, now),
            Err(PacketError::Open(_)) => return,
            Err(PacketError::Frame(error)) => {
                self.say_close(control::code::BAD_REQUEST, &error.to_string(), now);
                self.flush_close(core, now);
                self.hold_off(now);
                return self.drop_session(core, now);
            }
        };
        if arrived.confirmed {
            self.note_confirmed(core, now);
        }
        self.note_heard(now);
        (self.last_heard, self.alive_at) = (now, now);
        if let Origin::Direct(route, mark) = origin {
            self.conversation.transport().note_mark(arrived.number.path(), mark, now);
            if let Some(agent) = &mut self.agent {
                agent.traffic(route, now);
            }
            self.learn_path(arrived.number.path(), route, core, now);
        }
    }

    // ---- what comes out

    /// Moves everything that is due out of the parts: datagrams to `core`, the rest to `notices`.
    pub(super) fn flush(
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
    fn address(
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

    fn flush_close(&mut self, core: &mut Core, now: Instant) {
        while let Some((path, datagram)) = self.conversation.poll_datagram(&mut core.rng, now) {
            let to = match self.direct_route(path) {
                Some(route) => Origin::Direct(route, Ecn::NotEct),
                None => Origin::Relay,
            };
            self.transmit(to, &datagram, None, core);
        }
    }

    fn collect_events(&mut self, notices: &mut Vec<Notice>, core: &mut Core, now: Instant) {
        while let Some(event) = self.conversation.poll_event() {
            match event {
                Event::Delivered { channel, below, path } => {
                    self.last_used = now;
                    self.pause.reset();
                    let path = self.view_of(path);
                    notices.push(Notice::Delivered { channel, below, path });
                }
                Event::Readable => notices.push(Notice::Readable),
                Event::Writable => notices.push(Notice::Writable),
                Event::Stream(key, event) => notices.push(Notice::Stream(key, event)),
                Event::Datagram(datagram) => notices.push(Notice::Datagram(datagram)),
                Event::PathSuspect(path) => {
                    notices.push(Notice::Unusual);
                    self.suspect(path, now);
                }
                Event::PathFailed(path) => {
                    notices.push(Notice::Unusual);
                    self.give_up(path, now);
                }
                Event::PathRecovered(path) => {
                    notices.push(Notice::Unusual);
                    self.recovered(path, now);
                }
                Event::Control { path, frame } => {
                    notices.push(Notice::Unusual);
                    self.handle_control(path, frame, notices, core, now);
                }
            }
        }
    }

    fn handle_control(
        &mut self,
        path: PathId,
        frame: ControlFrame,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        match frame {
            ControlFrame::Candidates(candidates) => {
                if let Some(agent) = &mut self.agent {
                    agent.set_remote(candidates, now);
                }
            }
            ControlFrame::PathChallenge(data) => {
                let answer = ControlFrame::PathResponse(data);
                self.conversation.transport().control(answer, Some(path), now);
            }
            ControlFrame::PathResponse(data) => self.prove(data, now),
            ControlFrame::PathRetire(path) => self.retired(path, now),
            ControlFrame::Nat(generation, profile) => self.hear_nat(generation, &profile),
            ControlFrame::Punch(punch) => self.hear_punch(punch, core, now),
            ControlFrame::Close(code, _) => {
                match code {
                    control::code::BYE => self.lose_streams(now),
                    _ => self.hold_off(now),
                }
                notices.push(Notice::Closed);
            }
            ControlFrame::Ping
            | ControlFrame::Observed(_)
            | ControlFrame::Rekey(_)
            | ControlFrame::Open(..) => {}
        }
    }

    /// Where a path leads that is not the relayed one.
    fn direct_route(&self, path: PathId) -> Option<Route> {
        let unproved = || self.unproved.get(&path).map(|(_, route)| route);
        self.direct.get(&path).or_else(unproved).copied()
    }

    fn transmit(&self, to: Origin, datagram: &[u8], via: Option<Via>, core: &mut Core) {
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

/// The candidates of an introduction: those the peer registered and where the server sees it.
fn first_candidates(event: &Connect) -> Candidates {
    let observed = event.member.observed;
    let told = event.candidates.iter().map(|candidate| Candidate {
        kind: match candidate.kind {
            CandidateKindText::Host => CandidateKind::Host,
            CandidateKindText::Observed => CandidateKind::Observed,
            CandidateKindText::Mapped => CandidateKind::Mapped,
        },
        address: candidate.address,
    });
    let as_candidate = |address| Candidate { kind: CandidateKind::Observed, address };
    let mut list: Vec<Candidate> = observed.map(as_candidate).into_iter().collect();
    list.extend(told.filter(|candidate| Some(candidate.address) != observed));
    list.truncate(crate::wire::frame::CANDIDATES_MAX);
    Candidates { generation: 0, list }
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
