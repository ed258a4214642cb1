//! Networks, the names in them and who bears them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::ops::Bound;
use std::time::{Duration, Instant};

use super::presence::Presence;
use crate::control::{self, CandidateText, Exposure, Page, Problem, code};
use crate::id::{Boot, NetworkId, PeerKey, PeerName, Token};
use crate::session::network_id;

/// Members on one page of the list: 200 of at most 300 bytes stay below the 64 KiB of a message.
pub(super) const PAGE_MEMBERS: usize = 200;
/// Absent names kept for each peer that may be present: an attacker who registers names and
/// leaves pushes out the names that were absent longest, not those present.
const ABSENT_PER_PEER: usize = 4;

/// A registered, present peer.
#[derive(Clone, Debug)]
pub(super) struct Member {
    pub(super) name: PeerName,
    pub(super) token: Token,
    pub(super) boot: Boot,
    pub(super) observed: SocketAddr,
    pub(super) exposure: Exposure,
    pub(super) since: u64,
    pub(super) candidates: Vec<CandidateText>,
}

impl Member {
    /// As others may see it.
    pub(super) fn to_wire(&self, key: PeerKey) -> control::Member {
        control::Member {
            name: self.name.clone(),
            key,
            boot: self.boot,
            observed: self.shown(),
            since: self.since,
        }
    }

    /// As `viewer` may see it: who hides sees nobody's address either.
    pub(super) fn seen_by(&self, viewer: Exposure, key: PeerKey) -> control::Member {
        match viewer {
            Exposure::Open => self.to_wire(key),
            Exposure::Hidden => self.to_wire(key).without_address(),
        }
    }

    /// Where it is found by its address; nowhere when it hides.
    fn shown(&self) -> Option<SocketAddr> {
        (self.exposure == Exposure::Open).then_some(self.observed)
    }
}

/// A world of its own: its peers see and reach only each other.
pub(super) struct Network {
    pub(super) name: String,
    pub(super) id: NetworkId,
    pub(super) presence: Presence,
    present: BTreeMap<PeerName, PeerKey>,
    members: BTreeMap<PeerKey, Member>,
    /// Of members that do not hide.
    addresses: BTreeMap<SocketAddr, PeerKey>,
    /// Names of those away, still bound to their keys, and since when.
    absent: BTreeMap<PeerName, (PeerKey, Instant)>,
    absent_order: BTreeSet<(Instant, PeerName)>,
    blocked: BTreeMap<PeerName, PeerKey>,
    blocked_keys: BTreeSet<PeerKey>,
}

impl Network {
    pub(super) fn new(name: String) -> Self {
        Self {
            id: network_id(&name),
            name,
            presence: Presence::default(),
            present: BTreeMap::new(),
            members: BTreeMap::new(),
            addresses: BTreeMap::new(),
            absent: BTreeMap::new(),
            absent_order: BTreeSet::new(),
            blocked: BTreeMap::new(),
            blocked_keys: BTreeSet::new(),
        }
    }

    pub(super) fn len(&self) -> u32 {
        self.members.len() as u32
    }

    pub(super) fn blocked_len(&self) -> u32 {
        self.blocked.len() as u32
    }

    pub(super) fn member(&self, key: &PeerKey) -> Option<&Member> {
        self.members.get(key)
    }

    pub(super) fn member_mut(&mut self, key: &PeerKey) -> Option<&mut Member> {
        self.members.get_mut(key)
    }

    /// What a member may see of others, and they of it.
    pub(super) fn exposure(&self, key: &PeerKey) -> Exposure {
        self.member(key).map_or(Exposure::Hidden, |member| member.exposure)
    }

    pub(super) fn by_name(&self, name: &PeerName) -> Option<PeerKey> {
        self.present.get(name).copied()
    }

    pub(super) fn by_address(&self, address: SocketAddr) -> Option<PeerKey> {
        self.addresses.get(&address).copied()
    }

    /// The key a name is bound to, present or not.
    pub(super) fn owner(&self, name: &PeerName) -> Option<PeerKey> {
        self.by_name(name).or_else(|| self.absent.get(name).map(|(key, _)| *key))
    }

    /// The members in order of name, from after `cursor`.
    pub(super) fn after<'a>(
        &'a self,
        cursor: Option<&PeerName>,
    ) -> impl Iterator<Item = (PeerKey, &'a Member)> + use<'a> {
        let from = cursor.map_or(Bound::Unbounded, |name| Bound::Excluded(name.clone()));
        self.present
            .range((from, Bound::Unbounded))
            .filter_map(|(_, key)| Some((*key, self.members.get(key)?)))
    }

    /// One page of the list, for `viewer`.
    pub(super) fn page(&self, cursor: Option<&PeerName>, viewer: Exposure) -> Page {
        let mut rest = self.after(cursor).map(|(key, member)| member.seen_by(viewer, key));
        let members: Vec<_> = rest.by_ref().take(PAGE_MEMBERS).collect();
        let next = rest.next().and(members.last()).map(|last| last.name.to_string());
        Page { members, next, total: self.len() }
    }

    /// Whether `key` may bear `name` here.
    pub(super) fn check(
        &self,
        key: &PeerKey,
        name: &PeerName,
        peers_max: u32,
    ) -> Result<(), Problem> {
        let network = &self.name;
        if self.blocked_keys.contains(key) || self.blocked.contains_key(name) {
            let text = format!("{name:?} is blocked in network {network:?}; ask its operator");
            return Err(Problem { code: code::FORBIDDEN, text });
        }
        if self.owner(name).is_some_and(|owner| owner != *key) {
            let text = format!(
                "the name {name:?} belongs to another key in this network; choose another name"
            );
            return Err(Problem { code: code::CONFLICT, text });
        }
        if !self.members.contains_key(key) && self.len() >= peers_max {
            let text = format!("network {network:?} is full ({peers_max} peers); try again later");
            return Err(Problem { code: code::TOO_MANY, text });
        }
        Ok(())
    }

    /// Takes in a member whose name was checked; what the key was before is returned. The same
    /// process keeps the time of its first registration.
    pub(super) fn insert(&mut self, key: PeerKey, mut member: Member) -> Option<Member> {
        self.forget_absent(&member.name);
        let before = self.take(&key);
        if let Some(old) = before.as_ref().filter(|old| old.boot == member.boot) {
            member.since = old.since;
        }
        self.present.insert(member.name.clone(), key);
        self.addresses.extend(member.shown().map(|at| (at, key)));
        self.members.insert(key, member);
        before
    }

    /// The member is gone; its name stays bound for `kept`.
    pub(super) fn leave(
        &mut self,
        key: &PeerKey,
        kept: Duration,
        peers_max: u32,
        now: Instant,
    ) -> Option<Member> {
        let member = self.take(key)?;
        self.absent.insert(member.name.clone(), (*key, now));
        self.absent_order.insert((now, member.name.clone()));
        let room = (peers_max as usize).saturating_mul(ABSENT_PER_PEER);
        while let Some((since, name)) = self.absent_order.first().cloned() {
            if self.absent.len() <= room && now.saturating_duration_since(since) < kept {
                break;
            }
            self.forget_absent(&name);
        }
        Some(member)
    }

    /// The member is gone and gives its name up.
    pub(super) fn give_up(&mut self, key: &PeerKey) -> Option<Member> {
        self.take(key)
    }

    /// The member is seen at another address.
    pub(super) fn moved(&mut self, key: &PeerKey, to: SocketAddr) {
        let Some(member) = self.members.get_mut(key) else { return };
        let from = std::mem::replace(&mut member.observed, to);
        let shown = member.shown();
        if self.addresses.get(&from) == Some(key) {
            self.addresses.remove(&from);
        }
        self.addresses.extend(shown.map(|at| (at, *key)));
    }

    pub(super) fn block(&mut self, name: PeerName, key: PeerKey) {
        self.blocked_keys.insert(key);
        self.blocked.insert(name, key);
    }

    pub(super) fn unblock(&mut self, name: &PeerName) -> bool {
        let Some(key) = self.blocked.remove(name) else { return false };
        if !self.blocked.values().any(|other| *other == key) {
            self.blocked_keys.remove(&key);
        }
        true
    }

    fn take(&mut self, key: &PeerKey) -> Option<Member> {
        let member = self.members.remove(key)?;
        self.present.remove(&member.name);
        if self.addresses.get(&member.observed) == Some(key) {
            self.addresses.remove(&member.observed);
        }
        Some(member)
    }

    fn forget_absent(&mut self, name: &PeerName) {
        if let Some((_, since)) = self.absent.remove(name) {
            self.absent_order.remove(&(since, name.clone()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::beginning;
    use super::*;

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    fn name(text: &str) -> PeerName {
        PeerName::new(text).unwrap()
    }

    fn member(of: &str, n: u8) -> Member {
        Member {
            name: name(of),
            token: Token(u64::from(n)),
            boot: Boot(1),
            observed: SocketAddr::from(([10, 0, 0, n], 9)),
            exposure: Exposure::Open,
            since: 5,
            candidates: Vec::new(),
        }
    }

    const KEPT: Duration = Duration::from_secs(100);

    #[test]
    fn a_name_belongs_to_its_first_key_also_while_it_is_away() {
        let mut network = Network::new("open".into());
        let now = beginning();
        assert!(network.insert(key(1), member("alice", 1)).is_none());
        let refused = network.check(&key(2), &name("alice"), 10).unwrap_err();
        assert_eq!(refused.code, code::CONFLICT);
        assert_eq!(
            refused.text,
            "the name \"alice\" belongs to another key in this network; choose another name"
        );
        network.leave(&key(1), KEPT, 10, now);
        assert_eq!(network.len(), 0);
        assert!(network.check(&key(2), &name("alice"), 10).is_err());
        assert!(network.check(&key(1), &name("alice"), 10).is_ok());
        network.insert(key(3), member("carol", 3));
        network.leave(&key(3), KEPT, 10, now + KEPT);
        assert!(network.check(&key(2), &name("alice"), 10).is_ok(), "kept for 100 s only");
    }

    #[test]
    fn a_name_given_up_is_free() {
        let mut network = Network::new("open".into());
        network.insert(key(1), member("alice", 1));
        assert!(network.give_up(&key(1)).is_some());
        assert!(network.check(&key(2), &name("alice"), 10).is_ok());
    }

    #[test]
    fn absent_names_are_bounded() {
        let mut network = Network::new("open".into());
        let now = beginning();
        for n in 0..100u8 {
            network.insert(key(n), member(&format!("n{n}"), n));
            network.leave(&key(n), KEPT, 2, now + Duration::from_millis(n.into()));
        }
        assert_eq!(network.absent.len(), 8);
        assert_eq!(network.absent_order.len(), 8);
        assert_eq!(network.owner(&name("n99")), Some(key(99)));
        assert_eq!(network.owner(&name("n0")), None);
    }

    #[test]
    fn the_list_comes_in_pages_in_order_of_name() {
        let mut network = Network::new("open".into());
        for n in 0..=250u8 {
            network.insert(key(n), member(&format!("n{n:03}"), n));
        }
        let first = network.page(None, Exposure::Open);
        assert_eq!((first.members.len(), first.total), (PAGE_MEMBERS, 251));
        let cursor = first.next.unwrap();
        let second = network.page(Some(&name(&cursor)), Exposure::Open);
        assert_eq!(second.members.len(), 51);
        assert_eq!(second.members[0].name, name("n200"));
        assert_eq!(second.next, None);
    }

    #[test]
    fn the_longest_page_fits_a_message() {
        let mut network = Network::new("open".into());
        for n in 0..=255u8 {
            let long = format!("{n:03}{}", "明".repeat(20));
            let mut member = member(&long, n);
            member.boot = Boot(u64::MAX);
            member.since = u64::MAX;
            member.observed = "[1111:2222:3333:4444:5555:6666:7777:8888]:65535".parse().unwrap();
            network.insert(key(n), member);
        }
        let json = serde_json::to_vec(&network.page(None, Exposure::Open)).unwrap();
        assert!(json.len() + 100 < control::CONTROL_LEN_MAX, "{}", json.len());
    }

    #[test]
    fn addresses_lead_to_members_and_follow_them() {
        let mut network = Network::new("open".into());
        network.insert(key(1), member("alice", 1));
        let (old, new) = (member("alice", 1).observed, SocketAddr::from(([10, 9, 9, 9], 1)));
        network.moved(&key(1), new);
        assert_eq!(network.by_address(old), None);
        assert_eq!(network.by_address(new), Some(key(1)));
    }

    #[test]
    fn a_block_holds_name_and_key_until_it_is_lifted() {
        let mut network = Network::new("open".into());
        network.block(name("alice"), key(1));
        for (n, text) in [(1, "other"), (2, "alice")] {
            let refused = network.check(&key(n), &name(text), 10).unwrap_err();
            assert_eq!(refused.code, code::FORBIDDEN);
        }
        assert!(network.unblock(&name("alice")));
        assert!(!network.unblock(&name("alice")));
        assert!(network.check(&key(1), &name("alice"), 10).is_ok());
    }
}
