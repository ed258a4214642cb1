//! The paths of a session, as their owner opens, prefers and closes them (SPEC section 9).

use std::time::{Duration, Instant};

use super::path::Memory;
use super::{PathKind, PathStats, Transport, rtt};
use crate::id::PathId;
use crate::io::Ecn;

/// How long a closed path's round-trip time and window mean something for its route: networks that
/// change do so for longer.
const MEMORY_TTL: Duration = Duration::from_secs(10);

/// What a closed path leaves behind.
#[derive(Debug)]
pub(super) struct Closed {
    pub(super) path: PathId,
    pub(super) at: Instant,
    pub(super) memory: Memory,
}

impl Transport {
    /// A path becomes usable for data. `payload_max`: bytes of frames in a datagram of the base
    /// size on it (where it carries larger ones, that is found out), at
    /// least 256. The first open path is preferred until `prefer_path` says otherwise.
    pub fn open_path(&mut self, path: PathId, kind: PathKind, payload_max: usize, now: Instant) {
        let Some(index) = self.ensure_path(path, now) else { return };
        self.paths[index].open(kind, payload_max);
        // Until something sent there was acknowledged, messages go twice: an idle pair settles that before it talks.
        self.paths[index].confirm_due |= kind == PathKind::Direct;
        self.preferred = self.preferred.or(Some(path));
        self.rescue(now);
    }

    /// What a round trip on a path is likely to take, measured by other means: shortens the
    /// first probe timeouts.
    pub fn set_rtt_hint(&mut self, path: PathId, rtt: Duration) {
        if let Some(index) = self.index(path)
            && self.paths[index].rtt.measured().is_none()
        {
            self.paths[index].rtt = rtt::Rtt::guess(rtt);
        }
    }

    /// A path that was opened just now has the route of a former one: it begins with the round-trip
    /// time of that and, as after a loss, its window, if it was the last one to be closed and that
    /// is not long ago.
    pub fn resume_path(&mut self, path: PathId, former: PathId, now: Instant) {
        let fresh = |closed: &mut Box<Closed>| {
            closed.path == former && now.saturating_duration_since(closed.at) <= MEMORY_TTL
        };
        if let Some(closed) = self.closed.take_if(fresh)
            && let Some(index) = self.index(path)
        {
            self.paths[index].resume(closed.memory);
        }
    }

    /// The path is not to be used any more in this session; what was in flight there is resent
    /// elsewhere.
    pub fn close_path(&mut self, path: PathId, now: Instant) {
        self.ended.get_or_insert_default()[usize::from(path.0 / 64)] |= 1 << (path.0 % 64);
        if self.preferred == Some(path) {
            self.preferred = None;
        }
        if let Some(index) = self.index(path) {
            let carried = self.paths[index].take_all();
            let memory = self.paths.remove(index).memory();
            let closed = memory.map(|memory| Box::new(Closed { path, at: now, memory }));
            self.closed = closed.or(self.closed.take());
            self.requeue(&carried, now);
        }
        if self.preferred.is_none() {
            self.preferred = self.best_path(None).map(|index| self.paths[index].id);
        }
    }

    /// The route below a path changed (migration): RTT and congestion start anew.
    pub fn reset_path(&mut self, path: PathId, now: Instant) {
        if let Some(index) = self.index(path) {
            let carried = self.paths[index].reset(now);
            self.requeue(&carried, now);
        }
    }

    /// Whether the path is suspect.
    pub fn is_suspect(&self, path: PathId) -> bool {
        self.index(path).is_some_and(|index| self.paths[index].suspect)
    }

    /// A suspect path was proved by other means: it carries data again at once.
    pub fn restore_path(&mut self, path: PathId, now: Instant) {
        if let Some(index) = self.index(path).filter(|index| self.paths[*index].suspect) {
            self.paths[index].restore(now);
            self.rescue(now);
        }
    }

    /// Which path data prefers now; must be open. Others stay warm.
    pub fn prefer_path(&mut self, path: PathId, _now: Instant) {
        if self.index(path).is_some_and(|index| self.paths[index].is_open()) {
            self.preferred = Some(path);
        }
    }

    /// Figures of an open path.
    pub fn path_stats(&self, path: PathId) -> Option<PathStats> {
        self.paths[self.index(path)?].stats()
    }

    /// The packet that was handled last on `path` came with a congestion mark.
    pub fn note_mark(&mut self, path: PathId, mark: Ecn, now: Instant) {
        if let Some(index) = self.index(path).filter(|_| mark != Ecn::NotEct) {
            self.paths[index].received.note_mark(mark, now);
        }
    }

    /// The mark of packets that leave on `path`.
    pub fn mark(&self, path: PathId) -> Ecn {
        let marked = self.index(path).is_some_and(|index| self.paths[index].is_marked());
        if marked { Ecn::Ect0 } else { Ecn::NotEct }
    }
}
