//! What the server says: registration, answers, presence, introductions.

use std::time::{Duration, Instant};

use super::api::{Effect, Event, Finality, Registration, Scope};
use super::directory::Coverage;
use super::server_link::{self, Asked, FirstContact, Proof};
use super::{Node, Purpose, Registered};
use crate::control::{self, Answer, LeaveReason, Operation, Outcome, Problem, code};
use crate::id::{PeerKey, PeerName};

/// What was refused for its rate is asked again after this.
const ASK_AGAIN: Duration = Duration::from_secs(1);

impl Node {
    pub(super) fn handle_server_notices(
        &mut self,
        notices: Vec<server_link::Notice>,
        now: Instant,
    ) {
        if !notices.is_empty() {
            self.familiar = None;
        }
        for notice in notices {
            match notice {
                server_link::Notice::Up(first_contact) => self.server_up(first_contact),
                server_link::Notice::Reply(asked, outcome) => {
                    self.handle_outcome(asked, outcome, now);
                }
                server_link::Notice::Event(event) => self.handle_server_event(event, now),
                server_link::Notice::Observed(address) => self.observed(address, now),
                server_link::Notice::Silent => self.server_silent(now),
                server_link::Notice::Closed(code, reason) => self.server_closed(code, reason),
                server_link::Notice::OtherVersions(spoken) => {
                    let text = format!(
                        "{} speaks protocol version {spoken}, this peer {}; update the older one",
                        self.server.display,
                        crate::wire::VERSION
                    );
                    let problem = Problem { code: code::BAD_REQUEST, text };
                    self.core.event(Event::Refused { problem, finality: Finality::Passing });
                }
                server_link::Notice::KeyChanged { expected, found } => {
                    self.core.event(Event::ServerKeyChanged { expected, found });
                }
                server_link::Notice::Gone => {}
            }
        }
    }

    pub(super) fn server_up(&mut self, first_contact: FirstContact) {
        self.first_contact = first_contact;
        self.registered = None;
        self.asking.clear();
        self.refused.clear();
        self.directory.coverage = Coverage::Partial;
        self.channels.clear();
        for (key, link) in &mut self.links {
            link.drop_relay();
            self.touched.insert(*key);
        }
    }

    /// Until the server is back there are the members on the LAN.
    fn server_silent(&mut self, now: Instant) {
        self.core.event(Event::ServerSilent);
        for member in self.lan.members(now) {
            self.core.event(Event::Near(member));
        }
        if self.lan.is_on() {
            for handle in std::mem::take(&mut self.listings) {
                self.list_neighbours(handle, now);
            }
        }
        for (id, _) in self.outbox.unresolved() {
            self.resolve(id, now);
        }
    }

    pub(super) fn server_closed(&mut self, code: u16, reason: String) {
        self.registered = None;
        let is_final = matches!(code, code::CONFLICT | code::FORBIDDEN | code::UNAUTHORIZED);
        if is_final {
            self.server.stop();
            let problem = Problem { code, text: reason.clone() };
            self.core.event(Event::Refused { problem, finality: Finality::Final });
        }
        self.core.event(Event::ServerClosed { code, reason });
    }

    pub(super) fn handle_outcome(&mut self, asked: Asked, outcome: Outcome, now: Instant) {
        match (asked, outcome) {
            (Asked::Register(_), Outcome::Ok(Answer::Registered(answer))) => {
                self.handle_registered(answer, now);
            }
            (Asked::Register(proof), Outcome::Error(problem)) => {
                self.handle_refused(proof, problem, now);
            }
            (Asked::Lookup(recipient), Outcome::Ok(Answer::Member(member))) => {
                self.asking.remove(&recipient);
                self.handle_found(&recipient, &member, now);
            }
            (
                asked @ (Asked::Lookup(_)
                | Asked::Watch
                | Asked::List(Purpose::Mirror)
                | Asked::Refresh),
                Outcome::Error(Problem { code: code::TOO_MANY, .. }),
            ) => {
                // Asked too fast.
                self.refused.push(asked);
                self.ask_again = Some(now + ASK_AGAIN);
            }
            (Asked::Lookup(recipient), Outcome::Error(problem)) => {
                self.asking.remove(&recipient);
                if let Some(member) = self.near(&recipient, now) {
                    return self.handle_found_near(&recipient, &member, now);
                }
                self.handle_not_found(&recipient, &problem, now);
            }
            (Asked::List(purpose), Outcome::Ok(Answer::Page(page))) => {
                self.handle_page(purpose, page, now);
            }
            (Asked::List(Purpose::Person(handle)), Outcome::Error(problem)) => {
                self.listings.retain(|listing| *listing != handle);
                self.fail(handle, None, problem);
            }
            (Asked::Watch | Asked::List(Purpose::Mirror), Outcome::Error(_)) => {
                self.directory.coverage = Coverage::Refused;
                self.spread_waiting(now);
            }
            // A reply that fits no question, or nothing that waits for one.
            (
                Asked::Register(_)
                | Asked::Lookup(_)
                | Asked::List(_)
                | Asked::Watch
                | Asked::Connect(_)
                | Asked::Refresh
                | Asked::Other,
                Outcome::Ok(_) | Outcome::Error(_),
            ) => {}
        }
    }

    pub(super) fn handle_registered(&mut self, answer: control::Registered, now: Instant) {
        self.core.network = answer.network_id;
        let Some((server_key, boot)) = self.server.identity() else { return };
        let network = Some(answer.network_id);
        let lan_secret = answer.lan_secret.clone();
        self.core.effect(Effect::RememberServer { key: server_key, boot, network, lan_secret });
        self.lan.set_secret(answer.lan_secret);
        let renamed = self.registered.is_some();
        self.registered = Some(Registered {
            name: answer.name.clone(),
            network: answer.network.clone(),
            broadcast_max: answer.broadcast_max,
            stun: answer.stun,
        });
        self.observed(answer.observed, now);
        self.core.event(Event::Registered(Registration {
            name: answer.name,
            observed: answer.observed,
            network: answer.network,
            server_key,
            greeting: answer.greeting,
            again: self.registrations > 0,
            first_contact: self.first_contact == FirstContact::Yes,
        }));
        self.first_contact = FirstContact::No;
        self.registrations += 1;
        // They may have changed while this was under way.
        self.server.tell_candidates(now);
        if renamed {
            return;
        }
        self.mirror(now);
        for handle in self.listings.clone() {
            let asked = Asked::List(Purpose::Person(handle));
            self.server.ask(Operation::List { cursor: None }, asked, now);
        }
        for (id, _) in self.outbox.unresolved() {
            self.resolve(id, now);
        }
        self.reconnect_links(now);
    }

    /// Asks who is here and to be told of all changes.
    fn mirror(&mut self, now: Instant) {
        self.server.ask(Operation::Watch { names: None }, Asked::Watch, now);
        self.directory.clear_members();
        let mirror = Asked::List(Purpose::Mirror);
        self.server.ask(Operation::List { cursor: None }, mirror, now);
    }

    /// What the server would not answer for its rate is asked again.
    pub(super) fn ask_again(&mut self, now: Instant) {
        if self.ask_again.is_none_or(|at| at > now) {
            return;
        }
        self.ask_again = None;
        for asked in std::mem::take(&mut self.refused) {
            match asked {
                Asked::Lookup(recipient) => {
                    self.asking.remove(&recipient);
                }
                Asked::Watch => self.server.ask(Operation::Watch { names: None }, asked, now),
                Asked::List(_) => self.server.ask(Operation::List { cursor: None }, asked, now),
                Asked::Refresh => self.server.refresh(now),
                Asked::Register(_) | Asked::Connect(_) | Asked::Other => {}
            }
        }
        for (id, _) in self.outbox.unresolved() {
            self.resolve(id, now);
        }
    }

    pub(super) fn handle_refused(&mut self, proof: Proof, problem: Problem, now: Instant) {
        if proof == Proof::Early && problem.code == code::UNAUTHORIZED {
            // The proof was made for early data that the server did not take.
            return self.server.ask_register(now);
        }
        let is_final = matches!(
            problem.code,
            code::BAD_REQUEST | code::UNAUTHORIZED | code::FORBIDDEN | code::CONFLICT
        );
        let finality = match &self.registered {
            // A rename was refused: the registration stands.
            Some(registered) if is_final => {
                self.server.keep_name(registered.name.as_str());
                Finality::Passing
            }
            None if is_final => {
                self.server.stop();
                Finality::Final
            }
            Some(_) | None => {
                self.server.register_later(now);
                Finality::Passing
            }
        };
        self.core.event(Event::Refused { problem, finality });
    }

    pub(super) fn handle_page(&mut self, purpose: Purpose, page: control::Page, now: Instant) {
        let next = page.next.clone();
        match purpose {
            Purpose::Mirror => {
                for member in page.members {
                    self.directory.insert(member);
                }
                if next.is_none() && self.directory.coverage == Coverage::Partial {
                    self.directory.coverage = Coverage::Whole;
                    if self.registrations == 1 {
                        self.fail_absent(now);
                    }
                    self.spread_waiting(now);
                }
            }
            Purpose::Person(handle) => {
                if next.is_none() {
                    self.listings.retain(|listing| *listing != handle);
                }
                // Who is on the list can be written to, though the notice of who joined, which
                // the server holds back a moment, is still to come.
                for member in &page.members {
                    self.directory.insert_if_watched(member);
                }
                self.core.event(Event::Listing { handle, scope: Scope::Network, page });
            }
        }
        if next.is_some() {
            self.server.ask(Operation::List { cursor: next }, Asked::List(purpose), now);
        }
    }

    pub(super) fn handle_server_event(&mut self, event: control::Event, now: Instant) {
        match event {
            control::Event::Joined(member) => {
                self.directory.insert(member.clone());
                self.handle_joined(&member, now);
                self.core.event(Event::Joined(member));
            }
            control::Event::Left { name, key, reason } => self.handle_left(name, key, reason, now),
            control::Event::Renamed { from, member } => {
                let to = member.name.clone();
                if self.links.contains_key(&member.key)
                    && self.trusted(&member).is_ok()
                    && let Some(link) = self.links.get_mut(&member.key)
                {
                    link.name = to.clone();
                }
                self.directory.remove(&from, &member.key);
                self.directory.insert(member);
                self.core.event(Event::Renamed { from, to });
            }
            control::Event::Connect(connect) => self.handle_connect(&connect, now),
            control::Event::Notice { text, everybody } => {
                self.core.event(Event::Notice { text, everybody });
            }
        }
    }

    pub(super) fn handle_left(
        &mut self,
        name: PeerName,
        key: PeerKey,
        reason: LeaveReason,
        now: Instant,
    ) {
        let was_known = self.directory.remove(&name, &key) || self.links.contains_key(&key);
        if let Some(link) = self.links.get_mut(&key)
            && matches!(reason, LeaveReason::Bye | LeaveReason::Blocked | LeaveReason::Replaced)
        {
            link.drop_session(&mut self.core, now);
            self.touched.insert(key);
        }
        // The server cannot tell whether we ever heard of who came and went within a moment.
        if was_known {
            self.core.event(Event::Left { name, reason });
        }
    }
}
