//! Who wants to know about whom, and what there is to tell. Changes of 100 ms are told together.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::control::{Event, LeaveReason, Member};
use crate::id::{PeerKey, PeerName};

/// How long changes are gathered before they are told.
pub(super) const COALESCE: Duration = Duration::from_millis(100);
/// Most names one peer may watch.
pub(super) const NAMES_MAX: usize = 1024;
/// Most members of a network that is watched as a whole, and most peers that watch it so. Above
/// this, nothing is told to those who watch the whole.
pub(super) const WHOLE_MAX: usize = 1000;

/// Names watched in one network by all its peers together, some 150 bytes each.
const WATCHED_MAX: usize = 1 << 19;
/// Most names told of in one go, so that a crowd that comes at once is told in portions that
/// the queues of its watchers can take.
const TOLD_MAX: usize = 64;

/// Whether a member that joined was there before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Arrival {
    New,
    /// As another process of the same key.
    Again,
}

/// What there is to tell about one name.
#[derive(Clone, Debug, Default)]
struct Pending {
    left: Option<(PeerKey, Option<u64>, LeaveReason)>,
    /// `New` as long as no watcher can know of it.
    joined: Option<(Member, Arrival)>,
}

/// The watchers of one network.
#[derive(Default)]
pub(super) struct Presence {
    names: BTreeMap<PeerKey, BTreeSet<PeerName>>,
    watchers: BTreeMap<PeerName, BTreeSet<PeerKey>>,
    whole: BTreeSet<PeerKey>,
    /// Sum of the lengths of `names`.
    watched: usize,
    pending: BTreeMap<PeerName, Pending>,
}

impl Presence {
    /// Whether anybody watches anything; without watchers nothing is gathered.
    pub(super) fn is_watched(&self) -> bool {
        !self.whole.is_empty() || !self.watchers.is_empty()
    }

    pub(super) fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Whether one more peer may watch the whole network.
    pub(super) fn has_room_for(&self, key: &PeerKey) -> bool {
        self.whole.len() < WHOLE_MAX || self.whole.contains(key)
    }

    /// Whether so many more names may be watched.
    pub(super) fn has_room(&self, names: usize) -> bool {
        self.watched + names <= WATCHED_MAX
    }

    /// `key` watches the whole network and nothing else.
    pub(super) fn watch_whole(&mut self, key: PeerKey) {
        self.unwatch(&key);
        self.reveal();
        self.whole.insert(key);
    }

    /// `key` watches these names and nothing else.
    pub(super) fn watch_names(&mut self, key: PeerKey, names: BTreeSet<PeerName>) {
        self.unwatch(&key);
        self.reveal();
        for name in &names {
            self.watchers.entry(name.clone()).or_default().insert(key);
        }
        self.watched += names.len();
        if !names.is_empty() {
            self.names.insert(key, names);
        }
    }

    /// `key` watches nothing any more.
    pub(super) fn unwatch(&mut self, key: &PeerKey) {
        self.whole.remove(key);
        let names = self.names.remove(key).unwrap_or_default();
        self.watched -= names.len();
        for name in names {
            if let Some(watchers) = self.watchers.get_mut(&name) {
                watchers.remove(key);
                if watchers.is_empty() {
                    self.watchers.remove(&name);
                }
            }
        }
    }

    /// `member` is here.
    pub(super) fn joined(&mut self, member: Member, arrival: Arrival) {
        if !self.is_watched() {
            return;
        }
        let entry = self.pending.entry(member.name.clone()).or_default();
        let back = entry
            .left
            .is_some_and(|(key, boot, _)| key == member.key && boot == Some(member.boot.0));
        if back {
            self.pending.remove(&member.name);
        } else {
            let first = entry.joined.as_ref().map_or(arrival, |(_, first)| *first);
            entry.joined = Some((member, first));
        }
    }

    /// `member` is gone. One that came and went within the moment was never there.
    pub(super) fn left(&mut self, member: &Member, reason: LeaveReason) {
        if !self.is_watched() {
            return;
        }
        let entry = self.pending.entry(member.name.clone()).or_default();
        let joined = entry.joined.take();
        if entry.left.is_none() && joined.is_some_and(|(_, arrival)| arrival == Arrival::New) {
            self.pending.remove(&member.name);
            return;
        }
        entry.left.get_or_insert((member.key, Some(member.boot.0), reason));
    }

    /// What there is to tell, and to whom, in order of name; more may be pending afterwards.
    /// `members`: how many the network has.
    pub(super) fn take(&mut self, members: usize) -> Vec<(Event, Vec<PeerKey>)> {
        let mut told = Vec::new();
        for _ in 0..TOLD_MAX {
            let Some((name, pending)) = self.pending.pop_first() else { break };
            let joined_key = pending.joined.as_ref().map(|(member, _)| member.key);
            if let Some((key, _, reason)) = pending.left
                && joined_key != Some(key)
            {
                let to = self.interested([&name], &key, members);
                told.push((Event::Left { name: name.clone(), key, reason }, to));
            }
            if let Some((member, _)) = pending.joined {
                let to = self.interested([&name], &member.key, members);
                told.push((Event::Joined(member), to));
            }
        }
        told.retain(|(_, to)| !to.is_empty());
        told
    }

    /// A new watcher may have listed the members: all that joined count as known from now on.
    fn reveal(&mut self) {
        for (_, arrival) in self.pending.values_mut().filter_map(|of| of.joined.as_mut()) {
            *arrival = Arrival::Again;
        }
    }

    /// Who must be told of another name of `member`.
    pub(super) fn renamed(&self, from: &PeerName, member: &Member, members: usize) -> Vec<PeerKey> {
        self.interested([from, &member.name], &member.key, members)
    }

    /// Everybody who watches one of `names`, but for `subject` itself.
    fn interested<const N: usize>(
        &self,
        names: [&PeerName; N],
        subject: &PeerKey,
        members: usize,
    ) -> Vec<PeerKey> {
        let mut keys = BTreeSet::new();
        if members <= WHOLE_MAX {
            keys.extend(self.whole.iter().copied());
        }
        for name in names {
            keys.extend(self.watchers.get(name).into_iter().flatten().copied());
        }
        keys.remove(subject);
        keys.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Boot;

    fn key(n: u8) -> PeerKey {
        PeerKey::from_bytes([n; 32])
    }

    fn member(name: &str, n: u8, boot: u64) -> Member {
        Member {
            name: PeerName::new(name).unwrap(),
            key: key(n),
            boot: Boot(boot),
            observed: Some(([10, 0, 0, 1], 1).into()),
            since: 0,
        }
    }

    fn told(presence: &mut Presence) -> Vec<String> {
        let kind = |event: &Event| match event {
            Event::Joined(member) => format!("+{}", member.name),
            Event::Left { name, .. } => format!("-{name}"),
            Event::Renamed { .. } | Event::Connect(_) | Event::Notice { .. } => "?".into(),
        };
        presence.take(5).iter().map(|(event, to)| format!("{}:{}", kind(event), to.len())).collect()
    }

    #[test]
    fn watchers_of_a_name_and_of_all_are_told_once() {
        let mut presence = Presence::default();
        presence.joined(member("alice", 1, 1), Arrival::New);
        presence.watch_whole(key(8));
        presence.watch_names(key(9), BTreeSet::from([PeerName::new("alice").unwrap()]));
        presence.joined(member("alice", 1, 1), Arrival::New);
        presence.joined(member("bob", 2, 1), Arrival::New);
        assert_eq!(told(&mut presence), ["+alice:2", "+bob:1"]);
        assert!(told(&mut presence).is_empty());
        presence.unwatch(&key(8));
        presence.unwatch(&key(9));
        assert!(!presence.is_watched());
    }

    #[test]
    fn coming_back_within_the_moment_is_no_news_but_a_restart_is() {
        let mut presence = Presence::default();
        presence.watch_whole(key(8));
        presence.left(&member("alice", 1, 1), LeaveReason::Bye);
        presence.joined(member("alice", 1, 1), Arrival::New);
        assert!(told(&mut presence).is_empty());
        presence.left(&member("alice", 1, 1), LeaveReason::Bye);
        presence.joined(member("alice", 1, 2), Arrival::New);
        assert_eq!(told(&mut presence), ["+alice:1"]);
        presence.left(&member("alice", 1, 2), LeaveReason::Bye);
        presence.joined(member("alice", 3, 7), Arrival::New);
        assert_eq!(told(&mut presence), ["-alice:1", "+alice:1"], "another key took the name");
    }

    #[test]
    fn who_came_and_went_within_the_moment_was_never_there() {
        let mut presence = Presence::default();
        presence.watch_whole(key(8));
        presence.joined(member("alice", 1, 1), Arrival::New);
        presence.left(&member("alice", 1, 1), LeaveReason::Bye);
        assert!(told(&mut presence).is_empty());
        presence.joined(member("alice", 1, 2), Arrival::New);
        presence.joined(member("alice", 1, 3), Arrival::Again);
        presence.left(&member("alice", 1, 3), LeaveReason::Bye);
        assert!(told(&mut presence).is_empty(), "nor as another process");
    }

    #[test]
    fn who_was_known_before_is_told_to_have_left() {
        let mut presence = Presence::default();
        presence.watch_whole(key(8));
        presence.joined(member("alice", 1, 2), Arrival::Again);
        presence.left(&member("alice", 1, 2), LeaveReason::Bye);
        assert_eq!(told(&mut presence), ["-alice:1"], "it was there before");
        presence.joined(member("bob", 2, 1), Arrival::New);
        presence.watch_whole(key(9));
        presence.left(&member("bob", 2, 1), LeaveReason::Bye);
        assert_eq!(told(&mut presence), ["-bob:2"], "a new watcher may have listed it");
        presence.left(&member("carol", 3, 1), LeaveReason::Bye);
        presence.joined(member("carol", 3, 2), Arrival::New);
        presence.left(&member("carol", 3, 2), LeaveReason::Bye);
        assert_eq!(told(&mut presence), ["-carol:2"], "its first departure is not told yet");
    }

    #[test]
    fn nobody_is_told_about_itself_nor_about_a_crowd() {
        let mut presence = Presence::default();
        presence.watch_whole(key(1));
        presence.joined(member("alice", 1, 1), Arrival::New);
        assert!(told(&mut presence).is_empty());
        presence.joined(member("bob", 2, 1), Arrival::New);
        assert!(presence.take(WHOLE_MAX + 1).is_empty());
    }
}
