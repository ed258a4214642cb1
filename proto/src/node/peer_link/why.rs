//! The path in use and the reason for it, for people.

use super::super::api::PathView;
use super::super::core::Core;
use super::super::why::{Reason, Router, Why};
use super::PeerLink;
use crate::id::PathId;
use crate::traversal::nat::Profile;
use crate::traversal::{self, Agent};
use crate::wire::frame::CandidateKind;

impl PeerLink {
    /// The path in use.
    pub(in crate::node) fn view(&self) -> PathView {
        if !self.has_session() {
            return PathView::None;
        }
        self.view_of(self.preferred)
    }

    pub(super) fn view_of(&self, path: PathId) -> PathView {
        let rtt = self.conversation.transport_ref().path_stats(path).and_then(|stats| stats.rtt);
        match self.route_of(path) {
            Some(route) => PathView::Direct { address: route.remote, rtt },
            None => PathView::Relay { rtt },
        }
    }

    /// Where the link stands, in a line.
    pub(in crate::node) fn diagnose(&self) -> String {
        let standing = match (self.has_session(), self.conversation.is_confirmed()) {
            (false, _) => "no session",
            (true, false) => "unconfirmed",
            (true, true) => "confirmed",
        };
        let tries = self.handshake.as_ref().map(|handshake| handshake.tries);
        let transport = self.conversation.transport_ref();
        let paths: Vec<_> = [PathId::SERVER]
            .into_iter()
            .chain(self.direct.keys().copied())
            .map(|path| (path.0, transport.path_stats(path)))
            .collect();
        format!(
            "{} {standing}, boot {:?}, handshake tries {tries:?}, relay {:?}, prefers {:?}, {paths:?}, idle {}, next {:?}",
            self.name,
            self.boot,
            self.relay,
            self.preferred,
            transport.is_idle(),
            transport.poll_timeout().map(|(_, what)| what)
        )
    }

    /// The path in use, what was tried, and the reason.
    pub(in crate::node) fn why(&self, core: &Core) -> Why {
        let report = self.agent.as_deref().map(Agent::report);
        let reason = self.reason(report.as_ref(), core);
        Why {
            name: self.name.clone(),
            key: self.key,
            path: self.view(),
            since: self.view_since,
            reason,
            pairs: report.map_or_else(Vec::new, |report| report.pairs),
            mapped: core.mapped().collect(),
            nat: core.nat,
            their_nat: self.punch.their_nat(),
        }
    }

    fn reason(&self, report: Option<&traversal::Report>, core: &Core) -> Reason {
        match (self.view(), self.hides, report) {
            (PathView::None, ..) => Reason::NoSession,
            (PathView::Direct { address, .. }, ..) => Reason::Direct { address },
            (PathView::Relay { .. }, Some(party), _) => Reason::Hidden(party),
            (PathView::Relay { .. }, None, None) => Reason::NotIntroduced,
            (PathView::Relay { .. }, None, Some(report)) => {
                let their = self.punch.their_nat();
                let had_direct = self.own_paths > 0 || self.their_paths > 0;
                self.punch_reason(report)
                    .unwrap_or_else(|| relay_reason(report, core, their, had_direct))
            }
        }
    }

    /// Where ports are guessed, what came of it so far.
    fn punch_reason(&self, report: &traversal::Report) -> Option<Reason> {
        let guessed = report.guessed;
        match (self.punch.rounds(), self.punch.is_active()) {
            (0, _) => None,
            (round, true) => Some(Reason::Guessing { round, guessed }),
            (rounds, false) => Some(Reason::NotGuessed { rounds, guessed }),
        }
    }
}

fn relay_reason(
    report: &traversal::Report,
    core: &Core,
    their: Option<Profile>,
    had_direct: bool,
) -> Reason {
    let pairs = report.pairs.len();
    if pairs == 0 {
        return Reason::NoCommonFamily;
    }
    if report.state == traversal::State::Checking {
        return Reason::Checking { pairs };
    }
    if had_direct || report.pairs.iter().any(|pair| pair.answered) {
        return Reason::Lost;
    }
    let seen = |pair: &&traversal::PairReport| {
        let address = pair.remote.address.ip();
        let ours = core.observed().any(|own| own.ip() == address);
        pair.remote.kind == CandidateKind::Observed && address.is_ipv4() && ours
    };
    match report.pairs.iter().find(seen) {
        Some(pair) => Reason::SameRouter { address: pair.remote.address.ip() },
        None => {
            let (own, their) = (Router::of(&core.nat), Router::of(&their.unwrap_or_default()));
            Reason::Silent { pairs, own, their }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;
    use std::time::Duration;

    use super::*;
    use crate::control::Exposure;
    use crate::io::Route;
    use crate::session::StaticKey;
    use crate::time::UnixClock;
    use crate::traversal::nat::{Allocation, Dependence, Field, Profile};
    use crate::traversal::{PairReport, State};
    use crate::wire::frame::Candidate;

    const OURS: &str = "198.51.100.1:4000";

    /// A peer that the server sees at `OURS`, behind a router that changes ports.
    fn core() -> Core {
        let now = crate::time::origin();
        let clock = UnixClock::new(now, Duration::ZERO);
        let key = StaticKey::from_bytes([1; 32]);
        let mut core = Core::new(key, true, Exposure::Open, [1; 32], (now, clock));
        core.note_observed("0.0.0.0:9".parse().unwrap(), OURS.parse().unwrap());
        let mapping = Field::Known { value: Dependence::AddressAndPort, samples: 2 };
        let allocation = Field::Known { value: Allocation::Random, samples: 16 };
        core.nat = Profile { mapping, allocation, ..core.nat };
        core
    }

    fn pair(kind: CandidateKind, remote: &str, answered: bool) -> PairReport {
        let address: SocketAddr = remote.parse().unwrap();
        let route = Route::udp("0.0.0.0:9".parse().unwrap(), address);
        let remote = Candidate { kind, address };
        PairReport { route, remote, checks_sent: 5, answered, rtt: None }
    }

    #[test]
    fn the_reason_for_the_relay_follows_from_what_was_tried() {
        use CandidateKind::{Host, Observed};
        let host = pair(Host, "10.0.0.2:5", false);
        let own_router = pair(Observed, "198.51.100.1:4001", false);
        let elsewhere = pair(Observed, "203.0.113.1:5", false);
        let silent = Reason::Silent { pairs: 2, own: Router::Random, their: Router::Unknown };
        let address = "198.51.100.1".parse().unwrap();
        for (state, pairs, reason) in [
            (State::Checking, vec![], Reason::NoCommonFamily),
            (State::Checking, vec![host.clone()], Reason::Checking { pairs: 1 }),
            (State::Waiting, vec![elsewhere.clone(), host.clone()], silent),
            (State::Waiting, vec![own_router, host], Reason::SameRouter { address }),
            (State::Waiting, vec![elsewhere, pair(Host, "10.0.0.2:6", true)], Reason::Lost),
        ] {
            let report = traversal::Report { state, pairs, guessed: traversal::Guessed::default() };
            assert_eq!(relay_reason(&report, &core(), None, false), reason);
        }
    }
}
