//! What the application wants: messages until they are in a conversation, lists, good bye.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::api::{Audience, Command, Event, Handle, NameKeeping, Recipient};
use super::directory::Coverage;
use super::outbox::{self, Content, Place, Ticket};
use super::peer_link::PeerLink;
use super::server_link::{Asked, Wanted};
use super::{Affected, Node, Phase, Purpose, SETTLE_MAX, WAITING_MAX, refused_send};
use crate::control::{Operation, Problem, code};
use crate::id::{PeerKey, PeerName};

impl Node {
    pub(super) fn handle_command(&mut self, command: Command, now: Instant) {
        if self.phase != Phase::Running {
            return;
        }
        if !matches!(command, Command::Send { .. }) {
            self.familiar = None;
        }
        match command {
            Command::Register { name } => self.register(name.as_str().to_owned(), now),
            Command::Send { handle, to, payload } => self.send(handle, to, payload, now),
            Command::SendAll { handle, payload } => self.send_all(handle, payload, now),
            Command::OpenStream { handle, to } => {
                let ticket = Ticket::new(handle, to, self.delivery_timeout, now);
                self.want(ticket, Content::Stream, now);
            }
            Command::List { handle } => self.list(handle, now),
            Command::Cancel { handle } => self.cancel(handle, now),
            Command::TrustPeer { name } => self.trust_peer(&name, now),
            Command::TrustServer => {
                if self.server.trust() {
                    self.server.begin(&mut self.core, now);
                }
            }
            Command::Notice { text } => {
                self.server.ask(Operation::Notice { text }, Asked::Other, now);
            }
            Command::Close => self.close(now),
        }
    }

    pub(super) fn register(&mut self, name: String, now: Instant) {
        let candidates = self.core.told_candidates();
        self.server.want(Wanted { name, candidates }, &mut self.core, now);
    }

    pub(super) fn send(&mut self, handle: Handle, to: Recipient, payload: Bytes, now: Instant) {
        let ticket = Ticket::new(handle, to, self.delivery_timeout, now);
        let Some((key, link)) = self.familiar_link(&ticket.to, payload.len()) else {
            return self.want(
                ticket,
                Content::Message { audience: Audience::Private, payload },
                now,
            );
        };
        let channel = Audience::Private.channel();
        match link.send(channel, payload, now) {
            Ok(sequence) => {
                self.outbox.note_sent(ticket, key, channel, sequence);
                self.touched.insert(key);
            }
            Err(error) => self.fail(handle, None, refused_send(error)),
        }
    }

    /// The recipient of the last message, when nothing has changed since and there is room for
    /// another message: it need not be found again.
    fn familiar_link(&mut self, to: &Recipient, len: usize) -> Option<(PeerKey, &mut PeerLink)> {
        let (name, key) = self.familiar.as_ref()?;
        let same = matches!(to, Recipient::Name(to) if to == name);
        if !same || !self.outbox.has_room() || self.outbox.backlog(*key).next().is_some() {
            return None;
        }
        let link = self.links.get_mut(key)?;
        (link.has_session() && link.has_room(len)).then_some((*key, link))
    }

    /// Takes on what needs a recipient to be found.
    fn want(&mut self, ticket: Ticket, content: Content, now: Instant) {
        self.unflushed = Affected::Whole;
        let handle = ticket.handle;
        match self.outbox.push(ticket, content) {
            Ok(id) => self.resolve(id, now),
            Err(outbox::Full) => self.fail(handle, None, too_many()),
        }
    }

    pub(super) fn send_all(&mut self, handle: Handle, payload: Bytes, now: Instant) {
        if self.registered.is_some() && self.directory.coverage != Coverage::Partial {
            self.spread(handle, payload, now);
        } else if self.waiting_for_list.len() < WAITING_MAX {
            self.waiting_for_list.push_back((handle, payload));
        } else {
            self.fail(handle, None, too_many());
        }
    }

    /// One message for each present member.
    pub(super) fn spread(&mut self, handle: Handle, payload: Bytes, now: Instant) {
        let own = self.registered.as_ref().map(|registered| registered.name.clone());
        let members = self.directory.members().filter(|member| Some(&member.name) != own.as_ref());
        let names: Vec<PeerName> = members.map(|member| member.name.clone()).collect();
        let max = self.registered.as_ref().map_or(0, |registered| registered.broadcast_max);
        if self.directory.coverage == Coverage::Refused || names.len() > max as usize {
            let text = format!("a message to everybody may go to at most {max} members; name one");
            return self.fail(handle, None, Problem { code: code::TOO_LARGE, text });
        }
        self.core.event(Event::Spread { handle, members: names.len() as u32 });
        for name in names {
            let to = Recipient::Name(name.clone());
            let content =
                Content::Message { audience: Audience::Everybody, payload: payload.clone() };
            match self.outbox.push(Ticket::new(handle, to, self.delivery_timeout, now), content) {
                Ok(id) => self.resolve(id, now),
                Err(outbox::Full) => self.fail(handle, Some(name), too_many()),
            }
        }
    }

    pub(super) fn list(&mut self, handle: Handle, now: Instant) {
        if self.listings.len() >= WAITING_MAX {
            return self.fail(handle, None, too_many());
        }
        if self.server.is_silent() && self.lan.is_on() {
            return self.list_neighbours(handle, now);
        }
        self.listings.push_back(handle);
        if self.registered.is_some() {
            let asked = Asked::List(Purpose::Person(handle));
            self.server.ask(Operation::List { cursor: None }, asked, now);
        }
    }

    pub(super) fn cancel(&mut self, handle: Handle, now: Instant) {
        self.listings.retain(|listing| *listing != handle);
        self.waiting_for_list.retain(|(waiting, _)| *waiting != handle);
        for place in self.outbox.of_handle(handle) {
            self.withdraw(place, now);
        }
    }

    /// Takes a message back; its place in the channel is closed by SKIP.
    fn withdraw(&mut self, place: Place, now: Instant) -> Option<Ticket> {
        let ticket = self.outbox.remove(place)?;
        if let Place::Sent(key, channel, sequence) = place
            && let Some(link) = self.links.get_mut(&key)
        {
            link.cancel(channel, sequence, now);
            self.touched.insert(key);
        }
        Some(ticket)
    }

    pub(super) fn fail(&mut self, handle: Handle, to: Option<PeerName>, problem: Problem) {
        self.core.event(Event::Failed { handle, to, problem });
    }

    pub(super) fn fail_entry(&mut self, at: impl Into<Place>, problem: Problem, now: Instant) {
        if let Some(ticket) = self.withdraw(at.into(), now) {
            let to = match ticket.to {
                Recipient::Name(name) => Some(name),
                Recipient::Address(_) => None,
            };
            self.fail(ticket.handle, to, problem);
        }
    }

    pub(super) fn expire_messages(&mut self, now: Instant) {
        if self.outbox.next_deadline().is_none_or(|at| at > now) {
            return;
        }
        for place in self.outbox.expired(now) {
            let who = match self.outbox.recipient(place) {
                Some(Recipient::Name(name)) => name.to_string(),
                Some(Recipient::Address(address)) => address.to_string(),
                None => continue,
            };
            let text = format!("no receipt from {who} in time; it may be away, try again later");
            self.fail_entry(place, Problem { code: code::TIMEOUT, text }, now);
        }
    }

    /// What was asked for before leaves before the good bye.
    pub(super) fn close(&mut self, now: Instant) {
        while std::mem::take(&mut self.unflushed) != Affected::Nothing {
            self.flush(now);
        }
        self.phase = Phase::Settling { until: now + SETTLE_MAX };
        self.unflushed = Affected::Whole;
    }

    /// Good bye is said when nobody waits for a receipt any more: it would wait in vain.
    pub(super) fn settle(&mut self, now: Instant) {
        let Phase::Settling { until } = self.phase else { return };
        if now < until && self.links.values().any(PeerLink::owes) {
            return;
        }
        for link in self.links.values_mut() {
            link.say_close(code::BYE, "bye", now);
        }
        self.touched.extend(self.links.keys().copied());
        if self.name_keeping == NameKeeping::GiveUp {
            self.server.ask(Operation::Unregister, Asked::Other, now);
        }
        self.lan.leave(&mut self.core, now);
        self.server.close(now);
        self.phase = Phase::Closing { copies: 2, next: now + Duration::from_millis(50) };
    }

    /// CLOSE is not acknowledged: a few copies make its loss unlikely.
    pub(super) fn closing_timeout(&mut self, now: Instant) {
        let Phase::Closing { copies, next } = self.phase else { return };
        if next > now {
            return;
        }
        if copies == 0 {
            self.phase = Phase::Closed;
            self.core.event(Event::Closed);
            return;
        }
        for link in self.links.values_mut() {
            link.say_close(code::BYE, "bye", now);
        }
        self.touched.extend(self.links.keys().copied());
        self.phase = Phase::Closing { copies: copies - 1, next: now + Duration::from_millis(50) };
    }

    pub(super) fn spread_waiting(&mut self, now: Instant) {
        for (handle, payload) in std::mem::take(&mut self.waiting_for_list) {
            self.spread(handle, payload, now);
        }
    }
}

pub(super) fn too_many() -> Problem {
    let text = "too many messages wait for their receipts; wait for some of them".to_owned();
    Problem { code: code::TOO_MANY, text }
}
