//! How an end comes to a session: the rules of SPEC sections 4.7 to 4.9, as a peer keeps them.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use p2sp_proto::conversation::{Conversation, Standing};
use p2sp_proto::id::{Address, Boot, Epoch, NetworkId, PathId, PeerKey, ReceiverId};
use p2sp_proto::io::Ecn;
use p2sp_proto::session::{
    Accepted, EarlyOffer, EarlyVerdict, InitConfig, Initiator, Padding, Replied, ReplyInfo,
    Responder, Session, Side as Part, StaticKey, Suites, init_id,
};
use rand::{Rng as _, RngCore};

use super::Side;
use super::end::{Kind, Parcel};

const NETWORK: NetworkId = NetworkId([5; 16]);
/// Delay between tries.
const RETRY: Duration = Duration::from_millis(500);
/// Answered inits that are remembered.
const REPLIES_KEPT: usize = 4;
/// Numbers in the replay window of each path.
const REPLAY_WINDOW: usize = 2048;
/// Bytes of early frames.
const EARLY_LEN_MAX: usize = 500;

/// The handshakes of one process.
pub(super) struct Handshakes {
    side: Side,
    own: StaticKey,
    remote: PeerKey,
    pub(super) epoch: Epoch,
    pub(super) boot: Boot,
    pub(super) remote_boot: Boot,
    pending: Option<Pending>,
    replied: VecDeque<([u8; 16], Vec<u8>)>,
    /// Of the last early data that it offered, and took.
    counters: (u64, u64),
    outgoing: Vec<Parcel>,
}

struct Pending {
    initiator: Initiator,
    early: bool,
    next_try: Instant,
}

impl Handshakes {
    pub(super) fn new(side: Side, own: StaticKey, remote: PeerKey, rng: &mut impl RngCore) -> Self {
        Self {
            side,
            own,
            remote,
            epoch: Epoch(rng.next_u64()),
            boot: Boot(rng.next_u64().max(1)),
            remote_boot: Boot(0),
            pending: None,
            replied: VecDeque::new(),
            counters: (0, 0),
            outgoing: Vec::new(),
        }
    }

    pub(super) const fn early_counter(&self) -> u64 {
        self.counters.0
    }

    /// A new process offers larger counters than the one before: they come from the clock.
    pub(super) const fn go_on_counting(&mut self, counter: u64) {
        self.counters.0 = counter;
    }

    pub(super) const fn is_pending(&self) -> bool {
        self.pending.is_some()
    }

    pub(super) fn begin(
        &mut self,
        conversation: &mut Conversation,
        now: Instant,
        rng: &mut impl RngCore,
    ) {
        if self.pending.is_some() {
            return;
        }
        let may_offer = self.remote_boot != Boot(0) && conversation.session().is_none();
        let frames =
            if may_offer { conversation.transport().poll_early(EARLY_LEN_MAX, now) } else { None };
        self.counters.0 += 1;
        let (boot, counter) = (self.remote_boot, self.counters.0);
        let early = frames.map(|frames| EarlyOffer { boot, counter, frames });
        let offered = early.is_some();
        let config = InitConfig {
            local: &self.own,
            remote: Some(self.remote),
            responder: Responder::Peer,
            network: NETWORK,
            suites: Suites::new(rng.random()),
            receiver: ReceiverId(rng.next_u32()),
            epoch: self.epoch,
            boot: self.boot,
            early,
            padding: Padding::None,
        };
        match Initiator::new(config, rng) {
            Ok(initiator) => {
                self.pending = Some(Pending { initiator, early: offered, next_try: now });
            }
            Err(_) => conversation.transport().early_verdict(false, now),
        }
    }

    /// Handles an init; true when a session began.
    pub(super) fn handle_init(
        &mut self,
        conversation: &mut Conversation,
        init: &[u8],
        now: Instant,
        rng: &mut impl RngCore,
    ) -> bool {
        let Some(id) = init_id(init) else { return false };
        if let Some((_, reply)) = self.replied.iter().find(|(answered, _)| *answered == id) {
            self.outgoing.push(Parcel {
                path: PathId(0),
                bytes: reply.clone(),
                kind: Kind::Reply,
                mark: Ecn::NotEct,
            });
            return false;
        }
        let accepted = Accepted::read(&self.own, Responder::Peer, NETWORK, init);
        let Some(accepted) = accepted.ok().filter(|a| a.remote() == Some(self.remote)) else {
            return false;
        };
        let verdict = self.judge(accepted.early());
        if self.pending.is_some() && self.side == Side::A {
            self.take_early(conversation, &accepted, verdict, now);
            return false;
        }
        self.abandon(conversation, now);
        self.answer(conversation, id, accepted, verdict, now, rng)
    }

    fn judge(&mut self, offer: Option<&EarlyOffer>) -> EarlyVerdict {
        let Some(offer) = offer else { return EarlyVerdict::None };
        if offer.boot != self.boot || offer.counter <= self.counters.1 {
            return EarlyVerdict::Rejected;
        }
        self.counters.1 = offer.counter;
        EarlyVerdict::Accepted
    }

    fn take_early(
        &self,
        conversation: &mut Conversation,
        accepted: &Accepted,
        verdict: EarlyVerdict,
        now: Instant,
    ) {
        if let (EarlyVerdict::Accepted, Some(epoch), Some(offer)) =
            (verdict, accepted.epoch(), accepted.early())
        {
            // What it does not take comes again: the ledger sees whether it does.
            let _ = conversation.transport().handle_early(epoch, &offer.frames, now);
        }
    }

    fn answer(
        &mut self,
        conversation: &mut Conversation,
        id: [u8; 16],
        accepted: Accepted,
        verdict: EarlyVerdict,
        now: Instant,
        rng: &mut impl RngCore,
    ) -> bool {
        let (Some(epoch), Some(boot)) = (accepted.epoch(), accepted.boot()) else { return false };
        let fresh = boot != self.remote_boot && verdict == EarlyVerdict::Accepted;
        let at_once = conversation.session().is_none() || fresh;
        let refused = verdict == EarlyVerdict::Accepted && !at_once;
        let early = if refused { EarlyVerdict::Rejected } else { verdict };
        let offer = accepted.early().cloned();
        let local = Address::Peer(ReceiverId(rng.next_u32()));
        let remote = Address::Peer(accepted.receiver());
        let info = ReplyInfo {
            address: local,
            suite: accepted.suites().choose(Suites::new(true)),
            epoch: self.epoch,
            boot: self.boot,
            early,
            observed: None,
            reset: None,
        };
        let Ok((reply, Replied::Established(established))) = accepted.reply(info, rng) else {
            return false;
        };
        let own = self.own.public();
        let session =
            Session::new(established, Part::Responder, own, local, remote, REPLAY_WINDOW, now);
        self.remote_boot = boot;
        if at_once {
            conversation.install(session, epoch, Standing::Awaited { budget: usize::MAX }, now);
        } else {
            conversation.install_tentative(session, epoch);
        }
        if let (EarlyVerdict::Accepted, Some(offer)) = (early, offer) {
            // As above.
            let _ = conversation.transport().handle_early(epoch, &offer.frames, now);
        }
        if self.replied.len() == REPLIES_KEPT {
            self.replied.pop_front();
        }
        self.replied.push_back((id, reply.clone()));
        self.outgoing.push(Parcel {
            path: PathId(0),
            bytes: reply,
            kind: Kind::Reply,
            mark: Ecn::NotEct,
        });
        at_once
    }

    /// Handles a reply; true when a session began.
    pub(super) fn handle_reply(
        &mut self,
        conversation: &mut Conversation,
        reply: &[u8],
        now: Instant,
    ) -> bool {
        let Some(pending) = &mut self.pending else { return false };
        let Ok(completed) = pending.initiator.read_reply(reply) else { return false };
        if pending.early {
            let accepted = completed.info.early == EarlyVerdict::Accepted;
            conversation.transport().early_verdict(accepted, now);
        }
        let local = Address::Peer(pending.initiator.receiver());
        self.pending = None;
        self.remote_boot = completed.info.boot;
        let (established, remote) = (completed.established, completed.info.address);
        let epoch = established.remote_epoch();
        let own = self.own.public();
        let session =
            Session::new(established, Part::Initiator, own, local, remote, REPLAY_WINDOW, now);
        conversation.install(session, epoch, Standing::Confirmed, now);
        true
    }

    fn abandon(&mut self, conversation: &mut Conversation, now: Instant) {
        if self.pending.take().is_some_and(|pending| pending.early) {
            conversation.transport().early_verdict(false, now);
        }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Vec<Parcel> {
        if let Some(pending) = self.pending.as_mut().filter(|pending| pending.next_try <= now) {
            pending.next_try = now + RETRY;
            let bytes = pending.initiator.datagram().to_vec();
            self.outgoing.push(Parcel {
                path: PathId(0),
                bytes,
                kind: Kind::Init,
                mark: Ecn::NotEct,
            });
        }
        std::mem::take(&mut self.outgoing)
    }

    pub(super) fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        self.pending.as_ref().map(|pending| (pending.next_try, "handshake"))
    }
}
