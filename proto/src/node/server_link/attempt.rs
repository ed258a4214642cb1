//! The way to a session: addresses, one init raced to all of them, the first true reply.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::Instant;

use super::super::api::Effect;
use super::super::core::{Core, Owner};
use super::{
    ADDRESSES_MAX, Attempt, FirstContact, Notice, Proof, REPLAY_WINDOW, RETRY_FIRST, RETRY_MAX,
    Reported, SILENT_AFTER, ServerLink, Stage, TRIES_BEFORE_KEY_PROBE, TRIES_PER_RESOLVE, Up,
    Waiting,
};
use crate::control::TokenProof;
use crate::conversation::{Conversation, Standing};
use crate::id::{Address, Epoch, NetworkId, PathId, PeerKey, ReceiverId};
use crate::io::Route;
use crate::session::{
    Completed, EARLY_LEN_MAX, EarlyOffer, EarlyVerdict, InitConfig, Initiator, Padding, Responder,
    Session, Side, token_proof_early,
};
use crate::time::Backoff;
use crate::transport::{self, ControlFrame, PathKind};
use crate::wire::{DATAGRAM_LEN_BASE, receiver_of};

impl Attempt {
    /// The next try is due now, and the delays between tries are short again.
    pub(super) fn hurry(&mut self, now: Instant) {
        self.backoff.reset();
        self.next_try = now;
    }
}

impl ServerLink {
    /// Begins an attempt unless one runs, nothing is wanted or no socket is there to send from.
    pub(in crate::node) fn begin(&mut self, core: &mut Core, now: Instant) {
        if self.attempt.is_some() || self.wanted.is_none() || core.sockets.is_empty() {
            return;
        }
        self.retry_at = None;
        self.attempt = Some(Attempt {
            began: now,
            addresses: Vec::new(),
            stage: Stage::Resolving,
            backoff: Backoff::new(RETRY_FIRST, RETRY_MAX),
            next_try: now + RETRY_MAX,
            tries: 0,
            versions_told: false,
        });
        core.effect(Effect::Resolve);
    }

    /// Whether the next handshake will carry early data.
    pub(in crate::node) fn can_offer_early(&self) -> bool {
        let resolving = matches!(self.attempt, Some(Attempt { stage: Stage::Resolving, .. }));
        resolving && self.key.is_some() && self.boot.is_some() && self.wanted.is_some()
    }

    /// The shell's answer to [`Effect::Resolve`]. `opens` ride in the early data.
    pub(in crate::node) fn handle_resolved(
        &mut self,
        addresses: Vec<SocketAddr>,
        opens: Vec<ControlFrame>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(attempt) = &mut self.attempt else { return };
        if !addresses.is_empty() {
            attempt.addresses = addresses;
            attempt.addresses.truncate(ADDRESSES_MAX);
        }
        if attempt.addresses.is_empty() || !matches!(attempt.stage, Stage::Resolving) {
            return;
        }
        let Some(waiting) = self.make_waiting(opens, core, now) else { return };
        if let Some(attempt) = &mut self.attempt {
            attempt.stage = Stage::Waiting(Box::new(waiting));
            attempt.next_try = now;
        }
        self.try_again(core, now);
    }

    pub(super) fn make_waiting(
        &mut self,
        opens: Vec<ControlFrame>,
        core: &mut Core,
        now: Instant,
    ) -> Option<Waiting> {
        let mut conversation = Conversation::new(transport::Config::control(), now);
        let mut requests = BTreeMap::new();
        let offer = match (self.key, self.boot) {
            (Some(key), Some(boot)) => {
                let counter = core.early_counter(now);
                let proof = self.token.as_ref().map(|(id, secret)| TokenProof {
                    id: id.clone(),
                    proof: token_proof_early(secret, &key, &core.own, boot, counter),
                });
                self.queue_register(proof, Proof::Early, &mut conversation, &mut requests, now);
                for open in opens {
                    conversation.transport().control(open, None, now);
                }
                let frames = conversation.transport().poll_early(EARLY_LEN_MAX, now);
                frames.map(|frames| EarlyOffer { boot, counter, frames })
            }
            _ => None,
        };
        // The conversation is this handshake's alone, and so is the epoch of its sequences.
        let epoch = Epoch(rand::RngCore::next_u64(&mut core.rng));
        let initiator = self.make_initiator(self.key, offer, epoch, core)?;
        Some(Waiting { initiator, conversation, requests, probe: None })
    }

    pub(super) fn make_initiator(
        &self,
        remote: Option<PeerKey>,
        early: Option<EarlyOffer>,
        epoch: Epoch,
        core: &mut Core,
    ) -> Option<Initiator> {
        let receiver = core.claim_receiver(Owner::Server);
        let config = InitConfig {
            local: &core.static_key,
            remote,
            responder: Responder::Server,
            network: NetworkId::default(),
            suites: core.suites,
            receiver,
            epoch,
            boot: core.boot,
            early,
            padding: Padding::Full,
        };
        Initiator::new(config, &mut core.rng).ok()
    }

    pub(super) fn try_again(&mut self, core: &mut Core, now: Instant) {
        let Some(attempt) = &mut self.attempt else { return };
        attempt.tries += 1;
        attempt.next_try = now + attempt.backoff.advance();
        if attempt.tries.is_multiple_of(TRIES_PER_RESOLVE) {
            core.effect(Effect::Resolve);
        }
        let wants_probe = attempt.tries >= TRIES_BEFORE_KEY_PROBE && self.key.is_some();
        let probe_missing =
            matches!(&attempt.stage, Stage::Waiting(waiting) if waiting.probe.is_none());
        if wants_probe && probe_missing {
            let epoch = Epoch(rand::RngCore::next_u64(&mut core.rng));
            let probe = self.make_initiator(None, None, epoch, core);
            if let Some(Attempt { stage: Stage::Waiting(waiting), .. }) = &mut self.attempt {
                waiting.probe = probe;
            }
        }
        let Some(attempt) = &self.attempt else { return };
        let Stage::Waiting(waiting) = &attempt.stage else { return };
        let inits = [Some(&waiting.initiator), waiting.probe.as_ref()];
        for init in inits.into_iter().flatten() {
            for address in &attempt.addresses {
                if let Some(route) = core.route_to(*address) {
                    core.transmit(route, init.datagram().to_vec());
                }
            }
        }
    }

    /// The server speaks other versions. Nothing proves the datagram, so it is told, once an
    /// attempt, and the attempt goes on.
    pub(super) fn handle_versions(&mut self, data: &[u8], notices: &mut Vec<Notice>) {
        let Some(attempt) = &mut self.attempt else { return };
        let Stage::Waiting(waiting) = &attempt.stage else { return };
        if receiver_of(data) != Ok(waiting.initiator.receiver()) || attempt.versions_told {
            return;
        }
        attempt.versions_told = true;
        let spoken: Vec<String> = data.iter().skip(6).take(8).map(u8::to_string).collect();
        notices.push(Notice::OtherVersions(spoken.join(", ")));
    }

    pub(super) fn handle_retry(&mut self, route: Route, data: &[u8], core: &mut Core) {
        let Some(Attempt { stage: Stage::Waiting(waiting), addresses, .. }) = &mut self.attempt
        else {
            return;
        };
        if !addresses.contains(&route.remote) {
            // From elsewhere it would turn our init on somebody.
            return;
        }
        for init in [Some(&mut waiting.initiator), waiting.probe.as_mut()].into_iter().flatten() {
            if init.handle_retry(data) {
                let datagram = init.datagram().to_vec();
                core.transmit(route, datagram);
            }
        }
    }

    pub(super) fn handle_reply(
        &mut self,
        route: Route,
        data: &[u8],
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(Attempt { stage: Stage::Waiting(waiting), addresses, .. }) = &mut self.attempt
        else {
            return;
        };
        if !addresses.contains(&route.remote) {
            // A true reply sent on by somebody would put our session on his address.
            return;
        }
        let Ok(receiver) = receiver_of(data) else { return };
        if let Some(probe) = waiting.probe.as_mut().filter(|probe| probe.receiver() == receiver) {
            let Ok(completed) = probe.read_reply(data) else { return };
            let found = completed.established.remote();
            return self.handle_probed(found, notices);
        }
        if waiting.initiator.receiver() != receiver {
            return;
        }
        let Ok(completed) = waiting.initiator.read_reply(data) else { return };
        self.establish(route, receiver, completed, notices, core, now);
    }

    /// A server answered that was not asked to prove the pinned key.
    pub(super) fn handle_probed(&mut self, found: PeerKey, notices: &mut Vec<Notice>) {
        let Some(expected) = self.key.filter(|expected| *expected != found) else { return };
        self.refused_key = Some(found);
        self.attempt = None;
        self.retry_at = None;
        notices.push(Notice::KeyChanged { expected, found });
    }

    pub(super) fn establish(
        &mut self,
        route: Route,
        receiver: ReceiverId,
        completed: Completed,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        let Completed { established, info, finish } = completed;
        let (Address::Server(token), Some(reset)) = (info.address, info.reset) else { return };
        let Some(Attempt { stage: Stage::Waiting(waiting), addresses, .. }) = self.attempt.take()
        else {
            return;
        };
        let Waiting { mut conversation, requests, .. } = *waiting;
        let server_key = established.remote();
        let handshake_hash = established.handshake_hash();
        let epoch = established.remote_epoch();
        let local = Address::Peer(receiver);
        let session = Session::new(
            established,
            Side::Initiator,
            core.own,
            local,
            info.address,
            REPLAY_WINDOW,
            now,
        );
        let payload_max = DATAGRAM_LEN_BASE - session.overhead();
        if info.early != EarlyVerdict::None {
            conversation.transport().early_verdict(info.early == EarlyVerdict::Accepted, now);
        }
        conversation.install(session, epoch, Standing::Confirmed, now);
        conversation.transport().open_path(PathId::SERVER, PathKind::Server, payload_max, now);
        conversation.transport().probe(PathId::SERVER, now);
        core.release_receivers(Owner::Server, &[receiver]);
        if let Some(finish) = &finish {
            core.transmit(route, finish.clone());
        }
        let first_contact = if self.key.is_none() { FirstContact::Yes } else { FirstContact::No };
        self.key = Some(server_key);
        self.boot = Some(info.boot);
        core.effect(Effect::RememberServer {
            key: server_key,
            boot: info.boot,
            network: None,
            lan_secret: None,
        });
        let asked = !requests.is_empty();
        self.up = Some(Up {
            conversation,
            route,
            token,
            addresses,
            reset,
            finish: finish.map(|finish| (finish, now + RETRY_FIRST * 2)),
            requests,
            handshake_hash,
            last_heard: now,
            last_ping: None,
            unanswered: 0,
            closing: None,
        });
        self.reported_silent = Reported::No;
        self.retry.reset();
        if !asked {
            self.ask_register(now);
        }
        notices.push(Notice::Up(first_contact));
        if let Some(observed) = info.observed {
            notices.push(Notice::Observed(observed));
        }
    }

    pub(super) fn attempt_timeout(
        &mut self,
        notices: &mut Vec<Notice>,
        core: &mut Core,
        now: Instant,
    ) {
        let Some(attempt) = &mut self.attempt else { return };
        if now >= attempt.began + SILENT_AFTER && self.reported_silent == Reported::No {
            self.reported_silent = Reported::Yes;
            notices.push(Notice::Silent);
        }
        let Some(attempt) = &mut self.attempt else { return };
        if attempt.next_try > now {
            return;
        }
        match attempt.stage {
            Stage::Resolving => {
                attempt.next_try = now + RETRY_MAX;
                core.effect(Effect::Resolve);
            }
            Stage::Waiting(_) => self.try_again(core, now),
        }
    }
}
