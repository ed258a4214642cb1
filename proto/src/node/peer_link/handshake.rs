//! The handshake with a peer: ours, theirs, and when both cross (SPEC sections 4.7 to 4.9).

use std::time::{Duration, Instant};

use super::super::core::{Core, Owner};
use super::{Notice, Origin, PeerLink, Via};
use crate::conversation::Standing;
use crate::id::{Address, Boot, Epoch, ReceiverId};
use crate::session::{
    Accepted, Completed, EarlyOffer, EarlyVerdict, InitConfig, Initiator, Padding, Replied,
    ReplyInfo, Responder, Session, Side, init_id,
};
use crate::time::Backoff;
use crate::traversal::{Agent, Role};
use crate::wire::frame::OPEN_DATAGRAM_LEN_MAX;

/// First and largest delay between tries of a handshake (SPEC section 4.2).
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_MAX: Duration = Duration::from_secs(2);
/// After this many unanswered tries the server is asked for an introduction again.
const TRIES_PER_OPEN: u32 = 4;
/// Window of packet numbers between peers (SPEC section 5).
const REPLAY_WINDOW: usize = 2048;
/// Room for frames in an init inside OPEN: header, Noise fields and fixed payload taken off.
const EARLY_LEN_MAX: usize = OPEN_DATAGRAM_LEN_MAX - 44 - 32 - 48 - 16 - 32;
/// Answered inits that are remembered: late copies of them must not make sessions.
const REPLIES_KEPT: usize = 4;

/// A handshake of ours that waits for its reply.
pub(super) struct Handshake {
    cause: Cause,
    pub(super) initiator: Initiator,
    pub(super) backoff: Backoff,
    pub(super) next_try: Instant,
    pub(super) tries: u32,
    pub(super) early: bool,
}

/// Why we shake hands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    /// There is no session, or none that can be used for long.
    Need,
    /// Nothing is heard in the session. If something is, it goes on.
    Silence,
}

impl PeerLink {
    /// Begins a handshake; the init goes out in OPEN or over the relay.
    pub(in crate::node) fn connect(&mut self, core: &mut Core, now: Instant) {
        let held_off = self.not_before.is_some_and(|at| at > now);
        if !self.is_connected_or_connecting() && !held_off {
            self.begin_handshake(Cause::Need, core, now);
        }
    }

    pub(super) fn begin_handshake(&mut self, cause: Cause, core: &mut Core, now: Instant) {
        let early = match self.boot {
            Boot(0) => None,
            // What a living session has on its way must not wait for another's reply.
            _ if self.has_session() => None,
            boot => self
                .conversation
                .transport()
                .poll_early(EARLY_LEN_MAX, now)
                .map(|frames| EarlyOffer { boot, counter: core.early_counter(now), frames }),
        };
        let offered = early.is_some();
        let receiver = core.claim_receiver(Owner::Peer(self.key));
        let config = InitConfig {
            local: &core.static_key,
            remote: Some(self.key),
            responder: Responder::Peer,
            network: core.network,
            suites: core.suites,
            receiver,
            epoch: self.epoch,
            boot: core.boot,
            early,
            padding: Padding::None,
        };
        let Ok(initiator) = Initiator::new(config, &mut core.rng) else {
            return self.conversation.transport().early_verdict(false, now);
        };
        let backoff = Backoff::new(RETRY_FIRST, RETRY_MAX);
        let (next_try, tries, early) = (now, 0, offered);
        let handshake = Handshake { cause, initiator, backoff, next_try, tries, early };
        self.handshake = Some(Box::new(handshake));
    }

    /// Takes the pending init for an OPEN inside the server handshake's early data.
    pub(in crate::node) fn take_init(&mut self, now: Instant) -> Option<Vec<u8>> {
        let handshake = self.handshake.as_mut()?;
        handshake.next_try = now + handshake.backoff.advance() * 2;
        Some(handshake.initiator.datagram().to_vec())
    }

    pub(super) fn handle_init(
        &mut self,
        origin: Origin,
        data: &[u8],
        via: Option<Via>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(id) = init_id(data) else { return };
        let answered = self.replied.iter().find(|(answered, _)| *answered == id);
        if let Some(reply) = answered.map(|(_, reply)| reply.clone()) {
            return self.transmit(origin, &reply, via, core);
        }
        let Some(init) = self.read_init(data, core) else { return };
        if self.handshake.is_some() && self.role == Role::Controlling {
            // Crossing handshakes: ours survives, what theirs carried counts.
            return self.take_early(&init, now);
        }
        if let Some(reply) = self.answer_init(init, core, now) {
            if self.replied.len() == REPLIES_KEPT {
                self.replied.pop_front();
            }
            self.replied.push_back((id, reply.clone()));
            self.transmit(origin, &reply, via, core);
        }
    }

    /// Authenticates an init and judges its early data.
    fn read_init(&self, data: &[u8], core: &mut Core) -> Option<Init> {
        let accepted =
            Accepted::read(&core.static_key, Responder::Peer, core.network, data).ok()?;
        if accepted.remote() != Some(self.key) {
            return None;
        }
        let (epoch, boot) = (accepted.epoch()?, accepted.boot()?);
        let frames = accepted.early().map(|offer| offer.frames.clone()).unwrap_or_default();
        let verdict = core.judge_early(self.key, accepted.early());
        Some(Init { accepted, epoch, boot, frames, verdict })
    }

    /// Makes the session that an init asks for; answers the reply.
    fn answer_init(&mut self, mut init: Init, core: &mut Core, now: Instant) -> Option<Vec<u8>> {
        let replaces = self.may_replace(init.boot, init.verdict);
        if replaces == Replaces::WhenConfirmed && init.verdict == EarlyVerdict::Accepted {
            init.verdict = EarlyVerdict::Rejected;
        }
        let receiver = core.claim_receiver(Owner::Peer(self.key));
        let (local, remote) = (Address::Peer(receiver), Address::Peer(init.accepted.receiver()));
        let info = ReplyInfo {
            address: local,
            suite: init.accepted.suites().choose(core.suites),
            epoch: self.epoch,
            boot: core.boot,
            early: init.verdict,
            observed: None,
            reset: None,
        };
        let Init { accepted, epoch, boot, frames, verdict } = init;
        let (reply, replied) = accepted.reply(info, &mut core.rng).ok()?;
        // IK needs two messages; a peer answers no other pattern.
        let Replied::Established(established) = replied else { return None };
        let side = Side::Responder;
        let session = Session::new(established, side, core.own, local, remote, REPLAY_WINDOW, now);
        match replaces {
            Replaces::WhenConfirmed => {
                self.conversation.install_tentative(session, epoch);
                self.answered = Some((local, boot));
                self.release_receivers(core);
            }
            Replaces::Now => {
                self.abandon_handshake(now);
                (self.boot, self.answered) = (boot, None);
                // The relay and validated routes cannot be turned on a stranger: no budget.
                let standing = Standing::Awaited { budget: usize::MAX };
                self.conversation.install(session, epoch, standing, now);
                self.began_session(core, now);
                self.feed_early(verdict, epoch, &frames, now);
            }
        }
        Some(reply)
    }

    /// Only accepted early data shows that the process that made an init lives. Any other may be
    /// a late copy: nothing is said in its session, and all goes on as it was, until its first
    /// packet opens.
    fn may_replace(&self, boot: Boot, verdict: EarlyVerdict) -> Replaces {
        let is_welcome = !self.has_session() || boot != self.boot;
        match verdict {
            EarlyVerdict::Accepted if is_welcome => Replaces::Now,
            EarlyVerdict::Accepted | EarlyVerdict::Rejected | EarlyVerdict::None => {
                Replaces::WhenConfirmed
            }
        }
    }

    /// The first packet of a session that answered an init opened.
    pub(super) fn note_confirmed(&mut self, core: &mut Core, now: Instant) {
        let current = self.conversation.session().map(Session::local);
        if let Some((_, boot)) = self.answered.take_if(|(local, _)| Some(*local) == current) {
            self.boot = boot;
        }
        self.abandon_handshake(now);
        if !self.has_open_path() {
            self.began_session(core, now);
        }
    }

    fn take_early(&mut self, init: &Init, now: Instant) {
        self.feed_early(init.verdict, init.epoch, &init.frames, now);
    }

    fn feed_early(&mut self, verdict: EarlyVerdict, epoch: Epoch, frames: &[u8], now: Instant) {
        if verdict == EarlyVerdict::Accepted {
            // A peer that puts nonsense into its early data only hurts itself.
            let _ = self.conversation.transport().handle_early(epoch, frames, now);
        }
    }

    pub(super) fn abandon_handshake(&mut self, now: Instant) {
        if self.handshake.take().is_some_and(|handshake| handshake.early) {
            self.conversation.transport().early_verdict(false, now);
        }
    }

    /// A packet of the session opened: the other end has its keys as before.
    pub(super) fn note_heard(&mut self, now: Instant) {
        if self.handshake.as_ref().is_some_and(|handshake| handshake.cause == Cause::Silence) {
            self.abandon_handshake(now);
        }
    }

    pub(super) fn handle_reply(&mut self, data: &[u8], core: &mut Core, now: Instant) {
        let Some(handshake) = &mut self.handshake else { return };
        let Ok(completed) = handshake.initiator.read_reply(data) else { return };
        let Completed { established, info, finish: _ } = completed;
        let receiver = handshake.initiator.receiver();
        if handshake.early {
            let accepted = info.early == EarlyVerdict::Accepted;
            self.conversation.transport().early_verdict(accepted, now);
        }
        self.handshake = None;
        (self.boot, self.answered) = (info.boot, None);
        let epoch = established.remote_epoch();
        let session = Session::new(
            established,
            Side::Initiator,
            core.own,
            Address::Peer(receiver),
            info.address,
            REPLAY_WINDOW,
            now,
        );
        self.conversation.install(session, epoch, Standing::Confirmed, now);
        self.began_session(core, now);
        self.conversation.transport().probe(self.preferred, now);
    }

    /// Opens the paths of a session that just began.
    pub(super) fn began_session(&mut self, core: &mut Core, now: Instant) {
        self.release_receivers(core);
        self.last_heard = now;
        self.forget_paths();
        self.open_relay(now);
        self.candidates_told = 0;
        self.punch.began_session();
        let selected = self.agent.as_deref().and_then(Agent::selected);
        if let Some(route) = selected {
            self.use_route(route, core, now);
        }
    }

    /// Gives back the ids of sessions that are no more.
    fn release_receivers(&self, core: &mut Core) {
        let kept: Vec<ReceiverId> = self.own_receivers().collect();
        core.release_receivers(Owner::Peer(self.key), &kept);
    }

    fn own_receivers(&self) -> impl Iterator<Item = ReceiverId> + '_ {
        let pending = self.handshake.as_ref().map(|handshake| handshake.initiator.receiver());
        let sessions = self.conversation.local_addresses().filter_map(|address| match address {
            Address::Peer(id) => Some(id),
            Address::Server(_) => None,
        });
        sessions.chain(pending)
    }

    pub(super) fn try_handshake(
        &mut self,
        via: Option<Via>,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(handshake) = self.handshake.as_mut().filter(|h| h.next_try <= now) else {
            return;
        };
        handshake.next_try = now + handshake.backoff.advance();
        if let Some(route) = self.agent.as_deref().and_then(Agent::selected) {
            core.transmit(route, handshake.initiator.datagram().to_vec());
        }
        if via.is_none() {
            return;
        }
        handshake.tries += 1;
        if handshake.tries.is_multiple_of(TRIES_PER_OPEN) {
            // The other side may not know the channel: be introduced anew.
            self.relay = None;
        }
        let datagram = handshake.initiator.datagram().to_vec();
        if self.relay.is_some() {
            self.transmit(Origin::Relay, &datagram, via, core);
        } else {
            notices.push(Notice::Open { datagram });
        }
    }
}

/// A peer's init, authenticated.
struct Init {
    accepted: Accepted,
    epoch: Epoch,
    boot: Boot,
    frames: Vec<u8>,
    verdict: EarlyVerdict,
}

/// Whether a new session takes over at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaces {
    Now,
    WhenConfirmed,
}
