//! From a name to a session: finding the recipient, trusting its key, asking the server for an
//! introduction.

use std::time::Instant;

use super::api::{Effect, Event, Known, Recipient};
use super::commands::too_many;
use super::directory::{Coverage, Pin};
use super::outbox::{Content, Stage};
use super::peer_link::PeerLink;
use super::server_link::Asked;
use super::{LINK_IDLE, LINKS_MAX, Node, refused_send, spare};
use crate::control::{
    self, CandidateKindText, CandidateText, Exposure, Member, Operation, Problem, code,
};
use crate::id::{ConnectId, PeerKey, PeerName};
use crate::transport::{ControlFrame, SendError};
use crate::wire::frame::{CANDIDATES_MAX, Candidate, CandidateKind};
use bytes::Bytes;
use rand::RngCore;

impl Node {
    /// Finds out who the recipient of a message is, by memory or by asking.
    pub(super) fn resolve(&mut self, id: u64, now: Instant) {
        let Some(recipient) = self.outbox.recipient(id.into()).cloned() else { return };
        if self.is_own(&recipient) {
            let text = "that is this peer itself; a message needs somebody else".to_owned();
            return self.fail_entry(id, Problem { code: code::BAD_REQUEST, text }, now);
        }
        // What a silent server told is old: the peer may be another process since.
        if self.server.is_silent() && self.resolve_here(&recipient, now) {
            return;
        }
        let member = match &recipient {
            Recipient::Name(name) => self.directory.member(name),
            Recipient::Address(address) => self.directory.observed_at(*address),
        };
        if let Some(member) = member.cloned() {
            return self.handle_found(&recipient, &member, now);
        }
        if self.resolve_here(&recipient, now) || self.registered.is_none() {
            return;
        }
        // Notices of who came are a moment behind: the server knows better while it answers.
        if self.server.is_silent() && self.knows_of_all(&recipient) {
            let problem = not_found(&recipient);
            return self.fail_entry(id, problem, now);
        }
        if self.asking.insert(recipient.clone()) {
            let who = match &recipient {
                Recipient::Name(name) => name.to_string(),
                Recipient::Address(address) => address.to_string(),
            };
            self.server.ask(Operation::Lookup { who }, Asked::Lookup(recipient), now);
        }
    }

    /// Without the server's word: by a conversation that goes on, or on the LAN.
    fn resolve_here(&mut self, recipient: &Recipient, now: Instant) -> bool {
        let Recipient::Name(name) = recipient else { return false };
        let talking = self.links.values().find(|link| link.name == *name && link.has_session());
        if let Some(key) = talking.map(|link| link.key) {
            self.for_each_unresolved(recipient, |node, id| node.queue(id, key, now));
            return true;
        }
        let near = self.near(recipient, now);
        if let Some(member) = &near {
            self.handle_found_near(recipient, member, now);
        }
        near.is_some()
    }

    /// Whether whom the directory does not name is not there. Who hides is told no addresses.
    fn knows_of_all(&self, recipient: &Recipient) -> bool {
        let told = match recipient {
            Recipient::Name(_) => true,
            Recipient::Address(_) => self.core.exposure == Exposure::Open,
        };
        told && self.directory.coverage == Coverage::Whole
    }

    fn is_own(&self, recipient: &Recipient) -> bool {
        match recipient {
            Recipient::Name(name) => {
                self.registered.as_ref().is_some_and(|registered| registered.name == *name)
            }
            Recipient::Address(address) => self.observed == Some(*address),
        }
    }

    /// All messages for the recipient go, in the order in which they were accepted.
    pub(super) fn handle_found(&mut self, recipient: &Recipient, member: &Member, now: Instant) {
        self.for_each_unresolved(recipient, |node, id| node.assign(id, member, now));
    }

    pub(super) fn handle_not_found(
        &mut self,
        recipient: &Recipient,
        problem: &Problem,
        now: Instant,
    ) {
        self.for_each_unresolved(recipient, |node, id| node.fail_entry(id, problem.clone(), now));
    }

    pub(super) fn for_each_unresolved(
        &mut self,
        recipient: &Recipient,
        mut act: impl FnMut(&mut Self, u64),
    ) {
        for (id, to) in self.outbox.unresolved() {
            if to == *recipient {
                act(self, id);
            }
        }
    }

    /// A peer came: what waits for it goes.
    pub(super) fn handle_joined(&mut self, member: &Member, now: Instant) {
        self.handle_found(&Recipient::Name(member.name.clone()), member, now);
        if self.links.contains_key(&member.key)
            && self.trusted(member).is_ok()
            && let Some(link) = self.links.get_mut(&member.key)
        {
            link.update(member, &mut self.core, now);
            self.touched.insert(member.key);
        }
    }

    /// The whole network is known for the first time: what was meant for peers that are not in
    /// it fails. After a restart of the server they may still be on their way back.
    pub(super) fn fail_absent(&mut self, now: Instant) {
        let absent = |link: &&PeerLink| {
            !link.has_session()
                && self.directory.member(&link.name).is_none()
                && self.lan.neighbour(&link.key, now).is_none()
        };
        let keys: Vec<PeerKey> = self.links.values().filter(absent).map(|link| link.key).collect();
        for key in keys {
            for place in self.outbox.waiting_for(key) {
                if let Some(problem) = self.outbox.recipient(place).map(not_found) {
                    self.fail_entry(place, problem, now);
                }
            }
        }
    }

    /// Gives a message to the conversation with a peer, if its key is trusted.
    fn assign(&mut self, id: u64, member: &Member, now: Instant) {
        match self.trusted(member).and_then(|()| self.link_to(member, now)) {
            Ok(()) => self.queue(id, member.key, now),
            Err(problem) => self.fail_entry(id, problem, now),
        }
    }

    /// Compares a peer's key with the pinned one; pins on first contact.
    pub(super) fn trusted(&mut self, member: &Member) -> Result<(), Problem> {
        let (pin, remember) = self.directory.check(member);
        if let Some(known) = remember {
            self.core.effect(Effect::RememberPeer(known));
        }
        let Pin::Changed { expected } = pin else { return Ok(()) };
        let (name, found) = (member.name.clone(), member.key);
        let own = self.registered.as_ref().map_or("OWN", |registered| registered.name.as_str());
        let text = format!(
            "the key of {name} changed from {} to {}; if {name} confirms the new one: \
             /trust {name} in a chat, or: peer trust {name} --name {own}",
            expected.fingerprint(),
            found.fingerprint()
        );
        self.core.event(Event::PeerKeyChanged { name, expected, found });
        Err(Problem { code: code::CONFLICT, text })
    }

    pub(super) fn trust_peer(&mut self, name: &PeerName, now: Instant) {
        if let Some(known) = self.directory.trust(name) {
            self.core.effect(Effect::RememberPeer(known));
            for (id, _) in self.outbox.unresolved() {
                self.resolve(id, now);
            }
        }
    }

    /// Makes or updates the link to a peer, unless all links are busy.
    pub(super) fn link_to(&mut self, member: &Member, now: Instant) -> Result<(), Problem> {
        if !self.links.contains_key(&member.key) && self.links.len() >= LINKS_MAX {
            self.make_room(now);
            if self.links.len() >= LINKS_MAX {
                return Err(too_many());
            }
        }
        let core = &mut self.core;
        let link = self.links.entry(member.key).or_insert_with(|| PeerLink::new(member, core, now));
        link.update(member, &mut self.core, now);
        self.touched.insert(member.key);
        Ok(())
    }

    fn make_room(&mut self, now: Instant) {
        let idle = |link: &&PeerLink| link.is_forgettable(std::time::Duration::ZERO, now);
        let oldest = self.links.values().filter(idle).min_by_key(|link| link.last_used());
        if let Some(key) = oldest.map(|link| link.key) {
            self.forget(key, now);
        }
    }

    pub(super) fn sweep_links(&mut self, now: Instant) {
        let idle = self.links.values().filter(|link| link.is_forgettable(LINK_IDLE, now));
        for key in idle.map(|link| link.key).collect::<Vec<PeerKey>>() {
            self.forget(key, now);
        }
    }

    fn forget(&mut self, key: PeerKey, now: Instant) {
        self.familiar = None;
        if let Some(mut link) = self.links.remove(&key) {
            link.drop_session(&mut self.core, now);
            self.channels.retain(|_, of| *of != key);
            self.timers.set(key, None);
        }
    }

    /// Puts a message into the conversation, behind those that wait for room already.
    pub(super) fn queue(&mut self, id: u64, key: PeerKey, now: Instant) {
        if let Some(Content::Stream) = self.outbox.get(id).map(|entry| &entry.content) {
            return self.open_stream(id, key, now);
        }
        if self.outbox.backlog(key).next().is_some_and(|first| first != id) {
            return self.outbox.mark_backlog(id, key);
        }
        self.queue_now(id, key, now);
    }

    fn queue_now(&mut self, id: u64, key: PeerKey, now: Instant) {
        let (Some(entry), Some(link)) = (self.outbox.get(id), self.links.get_mut(&key)) else {
            return;
        };
        let Content::Message { audience, payload } = &entry.content else { return };
        match link.send(audience.channel(), payload.clone(), now) {
            Ok(sequence) => {
                let to_name = entry.ticket.to == Recipient::Name(link.name.clone());
                self.familiar = to_name.then(|| (link.name.clone(), key));
                let channel = audience.channel();
                self.outbox.mark_sent(id, key, channel, sequence);
                link.connect(&mut self.core, now);
                self.touched.insert(key);
            }
            Err(SendError::Full) => self.outbox.mark_backlog(id, key),
            Err(error @ (SendError::TooLong | SendError::NoChannel)) => {
                self.fail_entry(id, refused_send(error), now);
            }
        }
    }

    pub(super) fn send_backlog(&mut self, key: PeerKey, now: Instant) {
        loop {
            let Some(id) = self.outbox.backlog(key).next() else { return };
            self.queue_now(id, key, now);
            if self.outbox.get(id).is_some_and(|entry| entry.stage == Stage::Backlog(key)) {
                return;
            }
        }
    }

    // ---- introductions

    /// Hands the first datagram for a peer to the server.
    pub(super) fn open(&mut self, key: PeerKey, datagram: Vec<u8>, now: Instant) {
        let absent = self.directory.coverage == Coverage::Whole
            && self.links.get(&key).is_none_or(|of| self.directory.member(&of.name).is_none());
        if self.registered.is_none() || absent {
            return;
        }
        let connect = self.new_connect_id();
        let frame = ControlFrame::Open(key, connect, Bytes::from(datagram));
        self.server.control(frame, now);
    }

    fn new_connect_id(&mut self) -> ConnectId {
        let mut connect = [0; 16];
        self.core.rng.fill_bytes(&mut connect);
        ConnectId(connect)
    }

    /// OPENs that may ride in the early data of a server handshake: messages that wait for
    /// peers whose key and boot are remembered.
    pub(super) fn early_opens(&mut self, now: Instant) -> Vec<ControlFrame> {
        for (id, recipient) in self.outbox.unresolved() {
            let Recipient::Name(name) = recipient else { continue };
            let Some(Known { name, key, boot }) = self.directory.known(&name).cloned() else {
                continue;
            };
            let member = Member { name, key, boot, observed: None, since: 0 };
            self.assign(id, &member, now);
        }
        let waiting = self.links.values_mut().filter(|link| !link.has_session());
        let inits: Vec<_> =
            waiting.filter_map(|link| Some((link.key, link.take_init(now)?))).collect();
        inits
            .into_iter()
            .map(|(key, init)| {
                let connect = self.new_connect_id();
                ControlFrame::Open(key, connect, Bytes::from(init))
            })
            .collect()
    }

    pub(super) fn reintroduce(&mut self, key: PeerKey, now: Instant) {
        let spare = self.links.get(&key).and_then(PeerLink::spare);
        let connect = self.new_connect_id();
        self.ask_introduction(key, connect, spare, now);
    }

    /// A spare socket was measured: the server tells the peer of it in the moment in which it
    /// tells us to begin, so that both sides send first at the same time.
    pub(super) fn offer_spare(&mut self, ready: &spare::Ready, now: Instant) {
        let connect = self.new_connect_id();
        let candidate = Candidate { kind: CandidateKind::Mapped, address: ready.observed };
        let Some(link) = self.links.get_mut(&ready.key) else { return };
        self.touched.insert(ready.key);
        if link.offer_spare(connect, ready.bound, candidate, now) {
            self.ask_introduction(ready.key, connect, Some(candidate), now);
        }
    }

    fn ask_introduction(
        &mut self,
        key: PeerKey,
        connect: ConnectId,
        spare: Option<Candidate>,
        now: Instant,
    ) {
        if self.registered.is_none() {
            return;
        }
        let spare = spare.map(|candidate| CandidateText {
            kind: CandidateKindText::Mapped,
            address: candidate.address,
        });
        let told = self.core.told_candidates();
        let candidates = spare.into_iter().chain(told).take(CANDIDATES_MAX).collect();
        let operation = Operation::Connect { key, connect, candidates };
        self.server.ask(operation, Asked::Connect(key), now);
    }

    /// After a new registration: pairs that talk get their relayed path back.
    pub(super) fn reconnect_links(&mut self, now: Instant) {
        let talking = self.links.values().filter(|link| link.is_talking(now));
        for key in talking.map(|link| link.key).collect::<Vec<PeerKey>>() {
            if self.links.get(&key).is_some_and(PeerLink::has_session) {
                self.reintroduce(key, now);
            } else {
                self.touched.insert(key);
            }
        }
    }

    /// Both sides are told in the same moment: checks begin at once.
    pub(super) fn handle_connect(&mut self, connect: &control::Connect, now: Instant) {
        let member = &connect.member;
        if self.trusted(member).is_err() {
            return;
        }
        self.directory.insert_if_watched(member);
        if self.link_to(member, now).is_err() {
            return;
        }
        self.channels.retain(|_, of| *of != member.key);
        self.channels.insert(connect.channel, member.key);
        if let Some(link) = self.links.get_mut(&member.key) {
            link.introduced(connect, &mut self.core, now);
        }
        self.replay_strays(connect.channel, member.key, now);
    }
}

fn not_found(recipient: &Recipient) -> Problem {
    let text = match recipient {
        Recipient::Name(name) => format!("no peer named {name} is here; /userlist shows who is"),
        Recipient::Address(address) => {
            format!("no registered peer is seen at {address}; /userlist shows who is here")
        }
    };
    Problem { code: code::NOT_FOUND, text }
}
