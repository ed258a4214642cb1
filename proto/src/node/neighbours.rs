//! Meeting peers of the same LAN: without the server's introduction, or ahead of it (SPEC
//! section 15.4).

use std::net::SocketAddr;
use std::time::Instant;

use super::api::{Event, Handle, Recipient, Scope};
use super::lan::Heard;
use super::peer_link::PeerLink;
use super::{Node, Phase};
use crate::control::{Member, Page};
use crate::id::{PeerKey, PeerName};
use crate::io::Route;

impl Node {
    /// Under which name this peer shows itself: the registered one, else the wanted one.
    pub(super) fn announced_name(&self) -> Option<PeerName> {
        if self.phase != Phase::Running {
            return None;
        }
        let registered = self.registered.as_ref().map(|registered| registered.name.clone());
        registered.or_else(|| self.server.wanted()?.name.parse().ok())
    }

    pub(super) fn handle_beacon(&mut self, from: SocketAddr, data: &[u8], now: Instant) {
        let Some(heard) = self.lan.hear(from, data, &mut self.core, now) else { return };
        self.familiar = None;
        let (Heard::New(key) | Heard::Again(key)) = heard;
        let Some(neighbour) = self.lan.neighbour(&key, now) else { return };
        let member = neighbour.to_member(key);
        if let Some(link) = self.links.get_mut(&key) {
            link.hint(&neighbour.addresses, now);
            self.touched.insert(key);
        }
        if matches!(heard, Heard::New(_)) && self.server.is_silent() {
            self.core.event(Event::Near(member.clone()));
        }
        let recipient = Recipient::Name(member.name);
        let waiting = self.outbox.unresolved().into_iter().find(|(_, to)| *to == recipient);
        if let Some((id, _)) = waiting {
            self.resolve(id, now);
        }
    }

    /// The neighbour of this name whose word counts: the one with the pinned key. While the
    /// server is silent any, to be compared with the pin as one that the server names would be.
    pub(super) fn near(&self, recipient: &Recipient, now: Instant) -> Option<Member> {
        let Recipient::Name(name) = recipient else { return None };
        let named = || self.lan.members(now).filter(|member| member.name == *name);
        let pinned = named().find(|member| self.is_pinned(member));
        pinned.or_else(|| named().next().filter(|_| self.server.is_silent()))
    }

    fn is_pinned(&self, member: &Member) -> bool {
        self.directory.known(&member.name).is_some_and(|known| known.key == member.key)
    }

    /// Queues what waits for a neighbour; its checks begin as the link is flushed.
    pub(super) fn handle_found_near(
        &mut self,
        recipient: &Recipient,
        member: &Member,
        now: Instant,
    ) {
        let found = self.trusted(member).and_then(|()| self.link_near(member, now));
        self.for_each_unresolved(recipient, |node, id| match &found {
            Ok(()) => node.queue(id, member.key, now),
            Err(problem) => node.fail_entry(id, problem.clone(), now),
        });
    }

    /// A link that stands is left as it is: no beacon proves that its peer is another process.
    fn link_near(&mut self, member: &Member, now: Instant) -> Result<(), crate::control::Problem> {
        if self.links.contains_key(&member.key) {
            return Ok(());
        }
        self.link_to(member, now)
    }

    /// Begins checks with a neighbour for whom messages wait.
    pub(super) fn meet_if_near(&mut self, key: PeerKey, now: Instant) {
        let Some(neighbour) = self.lan.neighbour(&key, now) else { return };
        let Some(link) = self.links.get_mut(&key) else { return };
        if link.wants_meeting(neighbour)
            && let Some(agent) = link.make_agent(&neighbour.meeting, &mut self.core, now)
        {
            link.meet(agent, neighbour, &mut self.core, now);
            link.begin_anew(&mut self.core, now);
        }
    }

    /// A check under the tag of a neighbour that began without us. Nothing is kept of it unless
    /// it is authentic.
    pub(super) fn handle_check_on_lan(&mut self, route: Route, data: &[u8], now: Instant) {
        let Some(key) = self.lan.sender_of(data, now) else { return };
        let Some(neighbour) = self.lan.neighbour(&key, now) else { return };
        let member = neighbour.to_member(key);
        if !self.is_welcome(&member) {
            return;
        }
        let mut stranger = None;
        let link = match self.links.get(&key) {
            Some(link) if !link.yields_to(neighbour) => return,
            Some(link) => link,
            None => stranger.insert(PeerLink::new(&member, &mut self.core, now)),
        };
        let Some(mut agent) = link.make_agent(&neighbour.meeting, &mut self.core, now) else {
            return;
        };
        if !agent.handle_datagram(route, data, now) || self.trusted(&member).is_err() {
            return;
        }
        if self.link_near(&member, now).is_err() {
            return;
        }
        if let (Some(link), Some(neighbour)) =
            (self.links.get_mut(&key), self.lan.neighbour(&key, now))
        {
            link.meet(agent, neighbour, &mut self.core, now);
            self.touched.insert(key);
        }
    }

    /// Whether a neighbour may be who it says: by its pinned key, by the server's word, or, while
    /// there is no server to ask, at first contact.
    fn is_welcome(&self, member: &Member) -> bool {
        let vouched = self.directory.member(&member.name).is_some_and(|of| of.key == member.key);
        vouched || self.is_pinned(member) || self.server.is_silent()
    }

    /// The list while the server is silent.
    pub(super) fn list_neighbours(&mut self, handle: Handle, now: Instant) {
        let mut members: Vec<Member> = self.lan.members(now).collect();
        members.sort_by(|a, b| a.name.cmp(&b.name));
        let total = members.len() as u32;
        let page = Page { members, next: None, total };
        self.core.event(Event::Listing { handle, scope: Scope::Lan, page });
    }
}
