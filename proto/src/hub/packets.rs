//! Sealed packets of sessions: opening them, following their senders to new addresses, and
//! sending what conversations have to say.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::RngCore as _;

use super::counters::Count;
use super::handshakes::Early;
use super::relay::Moment;
use super::sessions::{
    EarlyOpen, Farewell, Holder, Migration, Peer, Probation, ProofContext, Stage, UNREGISTERED_IDLE,
};
use super::{Event, Hub, Output};
use crate::control::{LeaveReason, code};
use crate::conversation::{Conversation, PacketError, Standing};
use crate::id::{Address, Channel, PathId, ReceiverId, Token};
use crate::io::{Route, Transmit};
use crate::session::{Established, OpenError, Session, Side};
use crate::transport::{self, ControlFrame, PathKind};
use crate::wire::{DATAGRAM_LEN_BASE, HANDSHAKE_INIT_LEN};

/// Replay window of a session with a server, in packet numbers.
const WINDOW: usize = 128;
/// What may be sent to an address for each byte that came from it, until it is validated.
const AMPLIFICATION: usize = 3;
/// How long an address left behind still counts, and one that did not answer is ignored.
const PREVIOUS_KEPT: Duration = Duration::from_secs(10);
/// Datagrams sent for one session before the others have their turn.
const BURST_MAX: usize = 64;
/// How often CLOSE is repeated to a peer that goes on.
const CLOSE_REPEATS: u8 = 3;
/// Shortest time for which CLOSE is repeated.
const CLOSE_KEPT: Duration = Duration::from_secs(1);

/// The circumstances under which a session starts.
pub(super) struct Start {
    pub(super) token: Token,
    pub(super) route: Route,
    pub(super) receiver: ReceiverId,
    /// Bytes already sent to the address.
    pub(super) spent: usize,
}

impl Hub {
    /// Our part of the handshake is done: the session waits for its first packet.
    pub(super) fn start_session(
        &mut self,
        start: Start,
        established: Established,
        early: Option<Early>,
        now: Instant,
    ) {
        let Start { token, route, receiver, spent } = start;
        let (key, boot) = (established.remote(), established.remote_boot());
        let epoch = established.remote_epoch();
        let proof = ProofContext {
            hash: established.handshake_hash(),
            early: early.as_ref().map(|early| (early.boot, early.counter)),
        };
        let session = Session::new(
            established,
            Side::Responder,
            self.key(),
            Address::Server(token),
            Address::Peer(receiver),
            WINDOW,
            now,
        );
        let payload_max = DATAGRAM_LEN_BASE - session.overhead();
        let budget = (AMPLIFICATION * HANDSHAKE_INIT_LEN).saturating_sub(spent);
        let mut conversation = Conversation::new(transport::Config::control(), now);
        let taken = early.and_then(|early| early.frames).is_none_or(|frames| {
            conversation.transport().handle_early(epoch, &frames, now).is_ok()
        });
        if !taken {
            return self.free(token);
        }
        conversation.install(session, epoch, Standing::Awaited { budget }, now);
        conversation.transport().open_path(PathId::SERVER, PathKind::Server, payload_max, now);
        let peer = Peer {
            key,
            boot,
            proof,
            conversation,
            route,
            stage: Stage::Tentative,
            network: None,
            patience: UNREGISTERED_IDLE,
            last_heard: now,
            migration: None,
            farewell: None,
            early_open: EarlyOpen::Unspent,
            spent: [0; 3],
            dirty: false,
        };
        self.sessions.put(token, Holder::Peer(Box::new(peer)));
        if self.may_ask(token) {
            self.take_requests(token, now);
            self.take_events(token, route, now);
        }
        self.mark(token);
    }

    /// A data packet whose token is `token`.
    pub(super) fn handle_data(
        &mut self,
        token: Token,
        route: Route,
        data: &mut [u8],
        now: Instant,
    ) {
        if let Some(finishing) = self.sessions.finishing(token) {
            return finishing.hold(route, data);
        }
        let Some(peer) = self.sessions.peer(token) else {
            return self.routes.count(Count::DroppedToken);
        };
        let arrived = match peer.conversation.handle_packet(data, &mut self.rng, now) {
            Ok(arrived) => arrived,
            Err(PacketError::Open(OpenError::Exhausted)) => {
                return self.leave(token, LeaveReason::Expired, now);
            }
            Err(PacketError::Open(_)) => return self.routes.count(Count::DroppedPacket),
            Err(PacketError::Frame(error)) => return self.close(token, error.0, error.1, now),
        };
        peer.last_heard = now;
        if peer.stage == Stage::Closing {
            peer.repeat_farewell(now);
            return self.mark(token);
        }
        if arrived.confirmed {
            self.confirm(token, now);
        }
        self.follow(token, route, data.len(), arrived.newest, now);
        // Requests first: what came as early data may register before it introduces.
        self.take_requests(token, now);
        self.take_events(token, route, now);
        self.pump(token, Some(route), now);
        self.mark(token);
    }

    /// The first packet under new keys came: the peer received our reply at its address.
    fn confirm(&mut self, token: Token, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        peer.stage = Stage::Live;
        let is_registered = peer.network.is_some();
        let (key, boot, route) = (peer.key, peer.boot, peer.route);
        self.routes.slots.place(token, route, 0);
        if is_registered {
            self.sessions.count_unregistered(token, None);
        }
        let Some(older) = self.sessions.make_current(key, token) else { return };
        let Some(old) = self.sessions.peer(older) else { return };
        if old.boot != boot {
            return;
        }
        // The same process shook hands again: everything it had goes on under the new session.
        let (network, patience) = (old.network.take(), old.patience);
        self.inherit(token, network, patience, now);
        self.routes.slots.close(older);
        self.sessions.remove(older);
    }

    fn inherit(&mut self, token: Token, network: Option<usize>, patience: Duration, now: Instant) {
        let (Some(peer), Some(network)) = (self.sessions.peer(token), network) else { return };
        peer.network = Some(network);
        peer.patience = patience;
        let (key, remote) = (peer.key, peer.route.remote);
        self.sessions.count_unregistered(token, None);
        let now_s = self.routes.now_s(now);
        self.relay.rebind(&self.routes.slots, key, token, now_s);
        if let Some(member) = self.networks[network].member_mut(&key) {
            member.token = token;
        }
        self.observe(network, key, remote);
    }

    /// The registry learns where a member is.
    fn observe(&mut self, network: usize, key: crate::id::PeerKey, to: SocketAddr) {
        let Some(member) = self.networks[network].member(&key) else { return };
        let (name, from) = (member.name.clone(), member.observed);
        if from != to {
            self.networks[network].moved(&key, to);
            self.out.push_back(Output::Event(Event::Moved { name, from, to }));
        }
    }

    /// A packet came by `route`: a new address is put on probation (SPEC section 5.4).
    fn follow(&mut self, token: Token, route: Route, bytes: usize, newest: bool, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        if let Some(migration) = &mut peer.migration {
            if migration.to == route {
                migration.allowance += (AMPLIFICATION * bytes) as u64;
            }
            if now < migration.until && migration.to == route {
                return;
            }
        }
        if route == peer.route || !newest {
            return;
        }
        // Two local addresses of ours are one place of the peer: nothing has to be proved.
        if route.remote == peer.route.remote {
            peer.route = route;
            return self.routes.slots.place(token, route, 0);
        }
        self.probe(token, route, bytes, now);
    }

    fn probe(&mut self, token: Token, to: Route, bytes: usize, now: Instant) {
        let (to_challenge, from_challenge) = (self.draw(), self.draw());
        // What waits already goes where it was meant to go.
        self.pump(token, None, now);
        let Some(peer) = self.sessions.peer(token) else { return };
        peer.migration = Some(Box::new(Migration {
            from: peer.route,
            to,
            to_challenge,
            from_challenge,
            allowance: (AMPLIFICATION * bytes) as u64,
            state: Probation::Asked,
            until: now + PREVIOUS_KEPT,
        }));
        let path = Some(PathId::SERVER);
        let ask = ControlFrame::PathChallenge;
        peer.conversation.transport().control(ask(from_challenge), path, now);
        self.pump(token, None, now);
        if let Some(peer) = self.sessions.peer(token) {
            peer.conversation.transport().control(ask(to_challenge), path, now);
        }
        self.pump(token, Some(to), now);
    }

    /// An answer to a challenge came by `route`.
    fn answered(&mut self, token: Token, route: Route, data: [u8; 8], now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        let Some(migration) = peer.migration.as_mut().filter(|m| now < m.until) else { return };
        let from_new = route == migration.to && data == migration.to_challenge;
        let from_old = route == migration.from && data == migration.from_challenge;
        let place = match migration.state {
            Probation::Asked if from_new => {
                migration.state = Probation::Moved;
                migration.to
            }
            Probation::Asked if from_old => {
                migration.state = Probation::Stayed;
                return;
            }
            // Whoever repeats packets from elsewhere may be faster than the true way.
            Probation::Moved if from_old => {
                migration.state = Probation::Stayed;
                migration.from
            }
            Probation::Asked | Probation::Moved | Probation::Stayed => return,
        };
        peer.route = place;
        peer.conversation.transport().reset_path(PathId::SERVER, now);
        let (key, network) = (peer.key, peer.network);
        let until = self.routes.now_ns(now + PREVIOUS_KEPT);
        self.routes.slots.place(token, place, until);
        if let Some(network) = network {
            self.observe(network, key, place.remote);
        }
    }

    /// What the transport has for its owner.
    fn take_events(&mut self, token: Token, route: Route, now: Instant) {
        loop {
            let Some(peer) = self.sessions.peer(token) else { return };
            let Some(event) = peer.conversation.poll_event() else { return };
            match event {
                transport::Event::Control { path, frame } => {
                    self.take_frame(token, route, path, frame, now);
                }
                transport::Event::Delivered { .. }
                | transport::Event::Readable
                | transport::Event::Writable
                | transport::Event::Stream(..)
                | transport::Event::Datagram(_)
                | transport::Event::PathSuspect(_)
                | transport::Event::PathFailed(_)
                | transport::Event::PathRecovered(_) => {}
            }
        }
    }

    fn take_frame(
        &mut self,
        token: Token,
        route: Route,
        path: PathId,
        frame: ControlFrame,
        now: Instant,
    ) {
        let Some(peer) = self.sessions.peer(token) else { return };
        let transport = peer.conversation.transport();
        match frame {
            ControlFrame::Ping => {
                transport.control(ControlFrame::Observed(route.remote), Some(path), now);
            }
            ControlFrame::PathChallenge(data) => {
                transport.control(ControlFrame::PathResponse(data), Some(path), now);
            }
            ControlFrame::PathResponse(data) => self.answered(token, route, data, now),
            ControlFrame::Close(..) => self.leave(token, LeaveReason::Bye, now),
            ControlFrame::Open(target, connect, datagram) => {
                // Nobody has answered from that address yet: one introduction is all that an
                // init may set off towards it.
                if peer.stage == Stage::Tentative
                    && std::mem::replace(&mut peer.early_open, EarlyOpen::Spent) == EarlyOpen::Spent
                {
                    return;
                }
                self.open(token, target, connect, &datagram, now);
            }
            ControlFrame::Observed(_)
            | ControlFrame::Candidates(_)
            | ControlFrame::Rekey(_)
            | ControlFrame::PathRetire(_)
            | ControlFrame::Nat(..)
            | ControlFrame::Punch(_) => {}
        }
    }

    /// Queues a message for a session; one whose queue is full is too slow to be kept.
    pub(super) fn push(&mut self, token: Token, message: Bytes, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        match peer.conversation.transport().send(Channel(0), message, now) {
            Ok(_) => self.mark(token),
            Err(_) => {
                let text = "the session fell too far behind; register again";
                self.close(token, code::TOO_MANY, text, now);
            }
        }
    }

    /// There may be something to send for this session.
    pub(super) fn mark(&mut self, token: Token) {
        if let Some(peer) = self.sessions.peer(token)
            && !std::mem::replace(&mut peer.dirty, true)
        {
            self.dirty.push_back(token);
        }
    }

    /// Sends what sessions have to say, until nothing is left or the turn is over.
    pub(super) fn settle(&mut self, now: Instant) {
        while let Some(token) = self.dirty.pop_front() {
            if let Some(peer) = self.sessions.peer(token) {
                peer.dirty = false;
            }
            self.pump(token, None, now);
            self.arm(token, now);
        }
    }

    /// Sends what the conversation has: to the validated address, or back to where a packet just
    /// came from as far as that address may be answered.
    fn pump(&mut self, token: Token, via: Option<Route>, now: Instant) {
        for _ in 0..BURST_MAX {
            let Some(peer) = self.sessions.peer(token) else { return };
            let Some((_, payload)) = peer.conversation.poll_datagram(&mut self.rng, now) else {
                return;
            };
            let route = peer.way(via, payload.len() as u64);
            self.out.push_back(Output::Transmit(Transmit::new(route, payload)));
        }
        self.mark(token);
    }

    /// Arranges the next look at a session.
    fn arm(&mut self, token: Token, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        peer.conversation.rest();
        let silent = peer.last_heard + peer.patience();
        let conversation = peer.conversation.poll_timeout().map(|(at, _)| at);
        let at = [Some(silent), conversation, peer.farewell.as_ref().map(|f| f.until)]
            .into_iter()
            .flatten()
            .min();
        self.sessions.wake(token, at.unwrap_or(silent).max(now));
    }

    /// A session asked to be looked at.
    pub(super) fn look(&mut self, token: Token, now: Instant) {
        match self.sessions.holder(token) {
            None => {}
            Some(Holder::Reserved | Holder::Finishing(_)) => self.free(token),
            Some(Holder::Peer(peer)) => {
                let silent = now.saturating_duration_since(peer.last_heard) >= peer.patience();
                if silent || peer.farewell.as_ref().is_some_and(|farewell| farewell.until <= now) {
                    return self.leave(token, LeaveReason::Expired, now);
                }
                if peer.conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
                    peer.conversation.handle_timeout(now);
                }
                self.mark(token);
            }
        }
    }

    /// Says CLOSE, ends the registration, and forgets the session a little later.
    pub(super) fn close(&mut self, token: Token, code: u16, reason: &str, now: Instant) {
        let Some(peer) = self.sessions.peer(token) else { return };
        if peer.stage == Stage::Closing {
            return;
        }
        // What was said before leaves before: nobody reads on after a CLOSE.
        self.catch_up(token, now);
        self.pump(token, None, now);
        let Some(peer) = self.sessions.peer(token) else { return };
        let transport = peer.conversation.transport();
        transport.control(ControlFrame::Close(code, reason.to_owned()), None, now);
        let until = now + (transport.probe_timeout() * 3).max(CLOSE_KEPT);
        peer.stage = Stage::Closing;
        let reason = reason.to_owned();
        let farewell = Farewell { code, reason, repeats: CLOSE_REPEATS, until };
        peer.farewell = Some(Box::new(farewell));
        self.mark(token);
        self.withdraw(token, LeaveReason::Bye, now);
    }

    /// The session is over: registration, channels and slot are given back.
    pub(super) fn leave(&mut self, token: Token, reason: LeaveReason, now: Instant) {
        self.withdraw(token, reason, now);
        self.free(token);
    }

    pub(super) fn free(&mut self, token: Token) {
        self.routes.slots.close(token);
        self.sessions.remove(token);
    }

    pub(super) fn transmit(&mut self, route: Route, payload: Vec<u8>) {
        self.out.push_back(Output::Transmit(Transmit::new(route, payload)));
    }

    pub(super) fn moment(&self, now: Instant) -> Moment {
        Moment { now, now_s: self.routes.now_s(now) }
    }

    fn draw(&mut self) -> [u8; 8] {
        self.rng.next_u64().to_be_bytes()
    }
}

impl Peer {
    /// Silence after which it is gone. Registered by early data alone it has not proved its
    /// address, and gets no longer than who did not register.
    fn patience(&self) -> Duration {
        match self.stage {
            Stage::Tentative => self.patience.min(UNREGISTERED_IDLE),
            Stage::Live | Stage::Closing => self.patience,
        }
    }

    /// Says once more why the session ended, unless that was said often enough.
    fn repeat_farewell(&mut self, now: Instant) {
        let Some(farewell) = self.farewell.as_mut().filter(|farewell| farewell.repeats > 0) else {
            return;
        };
        farewell.repeats -= 1;
        let close = ControlFrame::Close(farewell.code, farewell.reason.clone());
        self.conversation.transport().control(close, None, now);
    }

    /// Where `len` bytes go that answer a packet which came by `via`.
    fn way(&mut self, via: Option<Route>, len: u64) -> Route {
        let on_probation = via.and_then(|via| {
            let migration = self.migration.as_mut().filter(|m| m.to == via)?;
            migration.allowance = migration.allowance.checked_sub(len)?;
            Some(via)
        });
        on_probation.unwrap_or(self.route)
    }
}
