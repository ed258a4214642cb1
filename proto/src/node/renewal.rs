//! Mappings that end at a certain age, whatever goes through them, as some carriers' do (SPEC
//! section 9.11).
//!
//! 1. The server tells where it sees us. A mapping that was in use, and gives way to one on
//!    another port of the same address, has ended; two in a row at about the same age teach it.
//! 2. From then on there is a fresh socket before the mapping of the last one ends: the server
//!    tells its address, the peers get it as a candidate, and paths move there.
//!
//! Until an age is learned nothing happens here.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::api::{Deadline, Effect, SocketUse};
use super::binding::Probe;
use super::core::Core;
use crate::io::Route;
use crate::wire::frame::{Candidate, CandidateKind};

/// A mapping that nobody saw for longer may have ended because it was idle: common routers keep
/// those for 30 s at least.
const IN_USE: Duration = Duration::from_secs(25);
/// Ages that are worth it: below, paths would do little but move; above, an end is a rare stall.
const AGE_MIN: Duration = Duration::from_secs(20);
const AGE_MAX: Duration = Duration::from_secs(3600);
/// Two ages are the same if they differ by this share of the longer one.
const SAME_WITHIN: u32 = 10;
/// After a socket that could not be opened, or whose address nobody told.
const RETRY: Duration = Duration::from_secs(5);

/// Learns the age, and opens sockets in time.
pub(super) struct Renewal {
    /// The mapping of the main socket.
    mapping: Option<Sighting>,
    /// When the last one ended.
    ended: Option<Ended>,
    /// What a mapping lives at least, and hardly longer.
    age: Option<Duration>,
    stage: Stage,
    /// Sockets in use, the newest last: two, where the older one is soon closed.
    sockets: Vec<Fresh>,
    not_before: Option<Instant>,
    need: Need,
}

/// Where the server sees a socket.
struct Sighting {
    bound: SocketAddr,
    external: SocketAddr,
    first: Instant,
    last: Instant,
}

/// The age of a mapping that ended while in use.
#[derive(Clone, Copy)]
struct Ended {
    /// It was seen at this age.
    alive: Duration,
    /// It was gone at this one.
    gone: Duration,
}

enum Stage {
    Resting,
    /// The shell was asked for a socket.
    Opening,
    Measuring(Fresh, Probe),
}

#[derive(Clone, Copy)]
struct Fresh {
    bound: SocketAddr,
    born: Instant,
}

/// Whether a direct path depends on a mapping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Paths,
    Nothing,
}

impl Renewal {
    pub(super) const fn new() -> Self {
        Self {
            mapping: None,
            ended: None,
            age: None,
            stage: Stage::Resting,
            sockets: Vec::new(),
            not_before: None,
            need: Need::Nothing,
        }
    }

    /// The network changed: another router has other habits.
    pub(super) fn restart(&mut self, core: &mut Core) {
        let old = std::mem::replace(self, Self::new());
        let measuring = match old.stage {
            Stage::Measuring(fresh, _) => Some(fresh),
            Stage::Resting => None,
            Stage::Opening => {
                self.stage = Stage::Opening;
                None
            }
        };
        close(old.sockets.into_iter().chain(measuring), core);
        core.fresh.clear();
    }

    /// The server sees the main socket there, over IPv4.
    pub(super) fn seen(&mut self, bound: SocketAddr, external: SocketAddr, now: Instant) {
        let Some(mapping) = &mut self.mapping else {
            self.mapping = Some(Sighting { bound, external, first: now, last: now });
            return;
        };
        if (mapping.bound, mapping.external) == (bound, external) {
            mapping.last = now;
            return;
        }
        let ended = mapping.ended(bound, external, now);
        self.mapping = Some(Sighting { bound, external, first: now, last: now });
        if let (Some(before), Some(ended)) = (self.ended, ended)
            && before.is_like(ended)
        {
            // Both have lived that long.
            let alive = before.alive.max(ended.alive);
            self.age = self.age.max(Some(alive).filter(|alive| *alive >= AGE_MIN));
        }
        self.ended = ended;
    }

    /// Does what is due; `server` answers Binding requests over IPv4. True when our candidates
    /// changed.
    pub(super) fn advance(
        &mut self,
        need: impl FnOnce() -> Need,
        server: Option<SocketAddr>,
        core: &mut Core,
        now: Instant,
    ) -> bool {
        let Some(age) = self.age else { return false };
        self.need = need();
        match &mut self.stage {
            Stage::Measuring(fresh, probe) => {
                if !probe.advance(core, now) {
                    close([*fresh], core);
                    self.rest(now);
                }
            }
            Stage::Opening => {}
            Stage::Resting => {
                let due = self.due(age).is_none_or(|due| due <= now);
                if due && self.need == Need::Paths && server.is_some() {
                    core.effect(Effect::OpenSockets { usage: SocketUse::Renewal, count: 1 });
                    self.stage = Stage::Opening;
                }
            }
        }
        self.close_ended(age, core, now)
    }

    /// The shell's answer to [`Effect::OpenSockets`].
    pub(super) fn opened(
        &mut self,
        bound: Option<SocketAddr>,
        server: Option<SocketAddr>,
        core: &mut Core,
        now: Instant,
    ) {
        let wanted = self.age.is_some() && matches!(self.stage, Stage::Opening);
        match (bound, server) {
            (Some(bound), Some(server)) if wanted => {
                let probe = Probe::begin(Route::udp(bound, server), core, now);
                self.stage = Stage::Measuring(Fresh { bound, born: now }, probe);
            }
            (bound, _) => {
                core.effect(Effect::CloseSockets(bound.into_iter().collect()));
                self.rest(now);
            }
        }
    }

    /// Takes the server's answer to a Binding request: from now on there is another candidate.
    /// False for every other datagram.
    pub(super) fn measured(&mut self, route: Route, datagram: &[u8], core: &mut Core) -> bool {
        let Stage::Measuring(fresh, probe) = &self.stage else { return false };
        let Some(address) = probe.answer(route, datagram) else { return false };
        core.fresh.insert(0, (fresh.bound, Candidate { kind: CandidateKind::Mapped, address }));
        self.sockets.push(*fresh);
        self.stage = Stage::Resting;
        true
    }

    pub(super) fn poll_timeout(&self) -> Deadline {
        let age = self.age?;
        let next = match &self.stage {
            Stage::Measuring(_, probe) => Some(probe.deadline()),
            Stage::Opening => None,
            Stage::Resting => self.due(age).filter(|_| self.need == Need::Paths),
        };
        let end = self.sockets.first().map(|fresh| fresh.end(age));
        [next, end].into_iter().flatten().min().map(|at| (at, "renewal of mappings"))
    }

    /// When the next socket is to be opened; `None`: as soon as one is needed.
    fn due(&self, age: Duration) -> Option<Instant> {
        // A fifth of its life is left for the measurement, the checks and the age's uncertainty.
        let due = self.sockets.last().map(|fresh| fresh.born + age * 4 / 5);
        due.max(self.not_before)
    }

    fn rest(&mut self, now: Instant) {
        self.stage = Stage::Resting;
        self.not_before = Some(now + RETRY);
    }

    /// Closes sockets whose mappings have ended. True where there was one.
    fn close_ended(&mut self, age: Duration, core: &mut Core, now: Instant) -> bool {
        let ended: Vec<Fresh> =
            self.sockets.extract_if(.., |fresh| fresh.end(age) <= now).collect();
        let is_ended = |bound: SocketAddr| ended.iter().any(|fresh| fresh.bound == bound);
        core.fresh.retain(|(bound, _)| !is_ended(*bound));
        let any = !ended.is_empty();
        close(ended, core);
        any
    }
}

impl Sighting {
    /// What became of it, seen elsewhere now: another port of the same address shows that it
    /// ended; another address is another network.
    fn ended(&self, bound: SocketAddr, external: SocketAddr, now: Instant) -> Option<Ended> {
        let [alive, gone] = [self.last, now].map(|at| at.saturating_duration_since(self.first));
        let same = self.bound == bound && self.external.ip() == external.ip();
        let counts = same && gone - alive <= IN_USE && (AGE_MIN..=AGE_MAX).contains(&gone);
        counts.then_some(Ended { alive, gone })
    }
}

impl Ended {
    fn is_like(self, other: Self) -> bool {
        self.gone.abs_diff(other.gone) * SAME_WITHIN <= self.gone.max(other.gone)
    }
}

impl Fresh {
    /// Its mapping has ended by then, and there is another socket.
    fn end(self, age: Duration) -> Instant {
        self.born + age * 3 / 2
    }
}

fn close(sockets: impl IntoIterator<Item = Fresh>, core: &mut Core) {
    let bound: Vec<SocketAddr> = sockets.into_iter().map(|fresh| fresh.bound).collect();
    if !bound.is_empty() {
        core.effect(Effect::CloseSockets(bound));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::time::origin;

    const BOUND: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    fn external(ip: u8, port: u16) -> SocketAddr {
        SocketAddr::from(([192, 0, 2, ip], port))
    }

    /// What is learned where the server is asked every `gap` seconds, and sees another port at
    /// these ages of mappings.
    fn learned(ages: &[u64], gap: u64) -> Option<u64> {
        let mut renewal = Renewal::new();
        let mut born = origin();
        let mut now = born;
        renewal.seen(BOUND, external(1, 1000), now);
        for (age, port) in ages.iter().zip(1000..) {
            let end = born + Duration::from_secs(*age);
            while now + Duration::from_secs(gap) < end {
                now += Duration::from_secs(gap);
                renewal.seen(BOUND, external(1, port), now);
            }
            (now, born) = (end, end);
            renewal.seen(BOUND, external(1, port + 1), now);
        }
        renewal.age.map(|age| age.as_secs())
    }

    #[test]
    fn two_ends_in_a_row_at_about_the_same_age_are_evidence() {
        assert_eq!(learned(&[60], 10), None);
        assert_eq!(learned(&[60, 62], 10), Some(60));
        assert_eq!(learned(&[60, 90, 63], 10), None);
        assert_eq!(learned(&[60, 300, 290], 10), Some(290));
        // The surest bound counts.
        assert_eq!(learned(&[66, 65, 69], 8), Some(64));
    }

    #[test]
    fn ends_that_prove_nothing_teach_nothing() {
        assert_eq!(learned(&[60, 60, 60], 30), None, "it may have been idle");
        assert_eq!(learned(&[15, 15, 15], 5), None, "too short");
        assert_eq!(learned(&[4000, 4000, 4000], 20), None, "too long");
        let mut renewal = Renewal::new();
        for n in 0..60 {
            let now = origin() + Duration::from_secs(10 * n);
            renewal.seen(BOUND, external((n / 6) as u8, 1000 + n as u16 / 6), now);
        }
        assert_eq!(renewal.age, None, "another address each time");
    }
}
