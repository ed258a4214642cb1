//! Handshakes under way. Curve operations run elsewhere, in two steps: reading the first message,
//! then, after a slot is found and the early data judged, writing the second.

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use rand::{RngCore as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::counters::Count;
use super::sessions::{Finishing, Holder};
use super::{Effect, Hub, Output};
use crate::id::{Address, Boot, Epoch, NetworkId, PeerKey, ReceiverId, Token};
use crate::io::Route;
use crate::session::{
    Accepted, EarlyVerdict, Established, HandshakeError, PendingFinish, Replied, ReplyInfo,
    Responder, StaticKey, Suites, init_id,
};

/// Handshakes under way at once; beyond, inits are dropped and come again.
const PENDING_MAX: usize = 512;
/// How long the reply to an init is kept, for copies of the init.
const REPLY_KEPT: Duration = Duration::from_secs(10);
/// Replies kept, about 250 bytes each.
const REPLIES_MAX: usize = 4096;
/// Keys whose early counter is remembered. Once full, further keys send no early data until the
/// next start: forgetting a counter would accept a replay.
const EARLY_MAX: usize = 1 << 17;
/// How long the third message may take.
const FINISH_WITHIN: Duration = Duration::from_secs(10);

/// Work for another thread: call `run` and give the result back.
pub struct HandshakeJob {
    id: u64,
    work: Work,
}

enum Work {
    Read { key: StaticKey, init: Vec<u8> },
    Write { accepted: Box<Accepted>, info: ReplyInfo, seed: [u8; 32] },
    Finish { pending: Box<PendingFinish>, datagram: Vec<u8> },
}

/// What came of a [`HandshakeJob`].
pub struct HandshakeDone {
    id: u64,
    result: Done,
}

enum Done {
    Read(Result<Box<Accepted>, HandshakeError>),
    Write(Result<Box<(Vec<u8>, Replied)>, HandshakeError>),
    Finish(Result<Box<Established>, Box<PendingFinish>>),
}

impl HandshakeJob {
    /// Does the curve operations: up to four, some 200 microseconds.
    pub fn run(self) -> HandshakeDone {
        let result = match self.work {
            Work::Read { key, init } => Done::Read(
                Accepted::read(&key, Responder::Server, NetworkId::default(), &init).map(Box::new),
            ),
            Work::Write { accepted, info, seed } => {
                let mut rng = ChaCha12Rng::from_seed(seed);
                Done::Write(accepted.reply(info, &mut rng).map(Box::new))
            }
            Work::Finish { mut pending, datagram } => {
                Done::Finish(match pending.read_finish(&datagram) {
                    Ok(established) => Ok(Box::new(established)),
                    Err(_) => Err(pending),
                })
            }
        };
        HandshakeDone { id: self.id, result }
    }
}

struct Pending {
    route: Route,
    init: [u8; 16],
    step: Step,
}

enum Step {
    Read,
    Write { token: Token, receiver: ReceiverId, early: Option<Early> },
    Finish { token: Token },
}

/// Early data as it was offered.
pub(super) struct Early {
    pub(super) boot: Boot,
    pub(super) counter: u64,
    /// Only when accepted.
    pub(super) frames: Option<Vec<u8>>,
}

/// Everything about handshakes that is not a session yet.
#[derive(Default)]
pub(super) struct Handshakes {
    next: u64,
    pending: BTreeMap<u64, Pending>,
    under_way: BTreeMap<[u8; 16], u64>,
    replies: BTreeMap<[u8; 16], Vec<u8>>,
    reply_order: VecDeque<(Instant, [u8; 16])>,
    early: BTreeMap<PeerKey, u64>,
}

impl Handshakes {
    fn begin(&mut self, pending: Pending) -> u64 {
        self.next += 1;
        self.pending.insert(self.next, pending);
        self.next
    }

    fn remember(&mut self, init: [u8; 16], reply: Vec<u8>, now: Instant) {
        if self.replies.insert(init, reply).is_none() {
            self.reply_order.push_back((now, init));
        }
        self.forget(now);
    }

    /// Drops replies that are too old or too many.
    pub(super) fn forget(&mut self, now: Instant) {
        while let Some((made, init)) = self.reply_order.front()
            && (self.replies.len() > REPLIES_MAX
                || now.saturating_duration_since(*made) >= REPLY_KEPT)
        {
            self.replies.remove(init);
            self.reply_order.pop_front();
        }
    }

    /// Whether early data of `key` may count; if so its counter is used up.
    fn admit_early(&mut self, key: PeerKey, counter: u64) -> bool {
        let full = self.early.len() >= EARLY_MAX;
        match self.early.get_mut(&key) {
            Some(last) if counter > *last => {
                *last = counter;
                true
            }
            None if !full => {
                self.early.insert(key, counter);
                true
            }
            Some(_) | None => false,
        }
    }
}

impl Hub {
    pub(super) fn handle_init(&mut self, route: Route, init: &[u8]) {
        let Some(id) = init_id(init) else { return self.routes.count(Count::DroppedMalformed) };
        if let Some(reply) = self.handshakes.replies.get(&id).cloned() {
            return self.transmit(route, reply);
        }
        if self.handshakes.under_way.contains_key(&id) {
            return;
        }
        if self.handshakes.pending.len() >= PENDING_MAX {
            return self.routes.count(Count::DroppedHandshake);
        }
        let job = self.handshakes.begin(Pending { route, init: id, step: Step::Read });
        self.handshakes.under_way.insert(id, job);
        let work = Work::Read { key: self.config.static_key.clone(), init: init.to_vec() };
        self.ask(job, work);
    }

    pub(super) fn handle_finish(&mut self, token: Token, route: Route, datagram: &[u8]) {
        if self.handshakes.pending.len() >= PENDING_MAX {
            return self.routes.count(Count::DroppedHandshake);
        }
        let Some(finishing) = self.sessions.finishing(token) else { return };
        let Some(pending) = finishing.pending.take() else { return };
        let step = Step::Finish { token };
        let job = self.handshakes.begin(Pending { route, init: [0; 16], step });
        self.ask(job, Work::Finish { pending, datagram: datagram.to_vec() });
    }

    pub(super) fn handle_done(&mut self, done: HandshakeDone, now: Instant) {
        let Some(pending) = self.handshakes.pending.remove(&done.id) else { return };
        self.handshakes.under_way.remove(&pending.init);
        let Pending { route, init, step } = pending;
        match (step, done.result) {
            (Step::Read, Done::Read(Ok(accepted))) => self.decide(route, init, accepted, now),
            (Step::Write { token, receiver, early }, Done::Write(Ok(written))) => {
                let (reply, replied) = *written;
                self.handshakes.remember(init, reply.clone(), now);
                self.routes.count(Count::Handshakes);
                let spent = reply.len();
                self.transmit(route, reply);
                match replied {
                    Replied::Established(established) => {
                        let start = super::packets::Start { token, route, receiver, spent };
                        self.start_session(start, established, early, now);
                    }
                    Replied::AwaitFinish(pending) => {
                        self.await_finish(token, route, receiver, pending, now);
                    }
                }
            }
            (Step::Finish { token }, Done::Finish(Ok(established))) => {
                self.finish(token, *established, now);
            }
            (Step::Finish { token }, Done::Finish(Err(pending))) => {
                self.routes.count(Count::DroppedHandshake);
                if let Some(finishing) = self.sessions.finishing(token) {
                    finishing.pending = Some(pending);
                }
            }
            (Step::Write { token, .. }, _) => {
                self.routes.count(Count::DroppedHandshake);
                self.free(token);
            }
            (Step::Read | Step::Finish { .. }, _) => self.routes.count(Count::DroppedHandshake),
        }
        self.routes.set_pressure(self.handshakes.pending.len());
    }

    /// The first message is authentic: finds a slot, judges early data, has the reply written.
    fn decide(&mut self, route: Route, init: [u8; 16], accepted: Box<Accepted>, now: Instant) {
        let random = self.rng.next_u64();
        let own = accepted.remote() == Some(self.key());
        let token = match self.sessions.reserve(route, random, &self.config.limits) {
            Some(token) if !own => token,
            Some(token) => {
                self.routes.count(Count::DroppedHandshake);
                return self.free(token);
            }
            None => return self.routes.count(Count::DroppedHandshake),
        };
        self.routes.slots.open(token);
        self.sessions.wake(token, now + FINISH_WITHIN);
        let (verdict, early) = self.judge_early(&accepted);
        let info = ReplyInfo {
            address: Address::Server(token),
            suite: Suites::new(self.config.aes).choose(accepted.suites()),
            // Each session has a conversation of its own, so its messages count from 0 again.
            epoch: Epoch(self.rng.next_u64()),
            boot: self.boot,
            early: verdict,
            observed: Some(route.remote),
            reset: Some(self.routes.resets.tag(token)),
        };
        let receiver = accepted.receiver();
        let step = Step::Write { token, receiver, early };
        let job = self.handshakes.begin(Pending { route, init, step });
        self.handshakes.under_way.insert(init, job);
        let seed = self.draw_seed();
        self.ask(job, Work::Write { accepted, info, seed });
    }

    fn judge_early(&mut self, accepted: &Accepted) -> (EarlyVerdict, Option<Early>) {
        let (Some(offer), Some(key)) = (accepted.early(), accepted.remote()) else {
            return (EarlyVerdict::None, None);
        };
        let admitted = offer.boot == self.boot && self.handshakes.admit_early(key, offer.counter);
        let early = Early {
            boot: offer.boot,
            counter: offer.counter,
            frames: admitted.then(|| offer.frames.clone()),
        };
        let verdict = if admitted { EarlyVerdict::Accepted } else { EarlyVerdict::Rejected };
        (verdict, Some(early))
    }

    fn await_finish(
        &mut self,
        token: Token,
        route: Route,
        receiver: ReceiverId,
        pending: PendingFinish,
        now: Instant,
    ) {
        let finishing =
            Finishing { route, receiver, pending: Some(Box::new(pending)), held: VecDeque::new() };
        self.sessions.put(token, Holder::Finishing(finishing));
        self.sessions.wake(token, now + FINISH_WITHIN);
    }

    fn finish(&mut self, token: Token, established: Established, now: Instant) {
        let Some(finishing) = self.sessions.finishing(token) else { return };
        let (route, receiver) = (finishing.route, finishing.receiver);
        let held = std::mem::take(&mut finishing.held);
        if established.remote() == self.key() {
            return self.free(token);
        }
        let start = super::packets::Start { token, route, receiver, spent: 0 };
        self.start_session(start, established, None, now);
        for (route, mut data) in held {
            self.handle_data(token, route, &mut data, now);
        }
    }

    fn ask(&mut self, id: u64, work: Work) {
        self.routes.set_pressure(self.handshakes.pending.len());
        self.out.push_back(Output::Effect(Effect::Handshake(HandshakeJob { id, work })));
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::beginning;
    use super::*;

    #[test]
    fn early_counters_only_grow() {
        let mut handshakes = Handshakes::default();
        let key = PeerKey::from_bytes([1; 32]);
        assert!(handshakes.admit_early(key, 5));
        assert!(!handshakes.admit_early(key, 5), "a replay");
        assert!(!handshakes.admit_early(key, 4));
        assert!(handshakes.admit_early(key, 6));
    }

    #[test]
    fn replies_are_kept_for_a_while_and_bounded() {
        let mut handshakes = Handshakes::default();
        let start = beginning();
        for n in 0..REPLIES_MAX as u128 + 10 {
            handshakes.remember(n.to_be_bytes(), vec![1], start);
        }
        assert_eq!(handshakes.replies.len(), REPLIES_MAX);
        handshakes.forget(start + REPLY_KEPT);
        assert!(handshakes.replies.is_empty() && handshakes.reply_order.is_empty());
    }
}
