//! Who is present, as the server tells, and whose key is trusted under which name.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::api::Known;
use crate::control::Member;
use crate::id::{PeerKey, PeerName};

/// Most present members kept: the largest network a peer may watch whole.
const MEMBERS_MAX: usize = 1024;
/// Most peers remembered; beyond it new ones are trusted anew on each contact.
const PINNED_MAX: usize = 65_536;

/// Names, keys and addresses of peers.
#[derive(Default)]
pub(super) struct Directory {
    members: BTreeMap<PeerName, Member>,
    names: BTreeMap<PeerKey, PeerName>,
    pinned: BTreeMap<PeerName, Known>,
    /// Keys that were refused because another one is pinned.
    refused: BTreeMap<PeerName, PeerKey>,
    /// Whether `members` mirrors the whole network.
    pub(super) coverage: Coverage,
}

/// How much of the network the directory mirrors.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Coverage {
    /// Not asked, or the pages are still coming.
    #[default]
    Partial,
    /// Everybody present is here.
    Whole,
    /// The network is too large to watch.
    Refused,
}

/// What is known of a key under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pin {
    /// The pinned one, or none was pinned and now this is.
    Trusted,
    /// Another key is pinned.
    Changed {
        /// The pinned one.
        expected: PeerKey,
    },
}

impl Directory {
    pub(super) fn new(known: Vec<Known>) -> Self {
        let pinned = known.into_iter().take(PINNED_MAX);
        Self {
            pinned: pinned.map(|known| (known.name.clone(), known)).collect(),
            ..Self::default()
        }
    }

    /// Takes in what the server says of a present peer.
    pub(super) fn insert(&mut self, member: Member) {
        if self.members.len() >= MEMBERS_MAX && !self.members.contains_key(&member.name) {
            self.coverage = Coverage::Refused;
            return;
        }
        if let Some(old) = self.names.insert(member.key, member.name.clone())
            && old != member.name
        {
            self.remove(&old, &member.key);
            self.names.insert(member.key, member.name.clone());
        }
        if let Some(before) = self.members.insert(member.name.clone(), member.clone())
            && before.key != member.key
        {
            self.names.remove(&before.key);
        }
    }

    /// An introduction says who is present; kept only where the rest of the network is.
    pub(super) fn insert_if_watched(&mut self, member: &Member) {
        if self.coverage != Coverage::Refused && !self.members.contains_key(&member.name) {
            self.insert(member.clone());
        }
    }

    /// The peer of this key no longer has this name here. Whether it had is the answer.
    pub(super) fn remove(&mut self, name: &PeerName, key: &PeerKey) -> bool {
        let had = self.members.get(name).is_some_and(|member| member.key == *key);
        if had {
            self.members.remove(name);
            self.names.remove(key);
        }
        had
    }

    /// Forgets who is present; trust stays.
    pub(super) fn clear_members(&mut self) {
        self.members.clear();
        self.names.clear();
        self.coverage = Coverage::Partial;
    }

    pub(super) fn member(&self, name: &PeerName) -> Option<&Member> {
        self.members.get(name)
    }

    pub(super) fn observed_at(&self, address: SocketAddr) -> Option<&Member> {
        self.members.values().find(|member| member.observed == Some(address))
    }

    pub(super) fn members(&self) -> impl Iterator<Item = &Member> {
        self.members.values()
    }

    pub(super) fn known(&self, name: &PeerName) -> Option<&Known> {
        self.pinned.get(name)
    }

    /// Compares with the pinned key; pins on first contact. `Some(known)` is to be written down.
    pub(super) fn check(&mut self, member: &Member) -> (Pin, Option<Known>) {
        let fresh = Known { name: member.name.clone(), key: member.key, boot: member.boot };
        let is_full = self.pinned.len() >= PINNED_MAX;
        match self.pinned.get_mut(&member.name) {
            Some(known) if known.key != member.key => {
                self.refused.insert(member.name.clone(), member.key);
                (Pin::Changed { expected: known.key }, None)
            }
            Some(known) if *known == fresh => (Pin::Trusted, None),
            Some(known) => {
                *known = fresh.clone();
                (Pin::Trusted, Some(fresh))
            }
            None if is_full => (Pin::Trusted, None),
            None => {
                self.pinned.insert(member.name.clone(), fresh.clone());
                (Pin::Trusted, Some(fresh))
            }
        }
    }

    /// Replaces the pinned key by the one last refused.
    pub(super) fn trust(&mut self, name: &PeerName) -> Option<Known> {
        let key = self.refused.remove(name)?;
        let boot = self.members.get(name).map_or(crate::id::Boot(0), |member| member.boot);
        let known = Known { name: name.clone(), key, boot };
        self.pinned.insert(name.clone(), known.clone());
        Some(known)
    }
}
