//! The path in use and the reason for it, for people.

use super::super::api::PathView;
use super::super::core::Core;
use super::super::why::{Reason, Router, Why};
use super::PeerLink;
use crate::id::PathId;
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
        match self.direct.get(&path) {
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
        let report = self.agent.as_ref().map(Agent::report);
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
            their_nat: None,
        }
    }

    fn reason(&self, report: Option<&traversal::Report>, core: &Core) -> Reason {
        match (self.view(), self.hides, report) {
            (PathView::None, ..) => Reason::NoSession,
            (PathView::Direct { address, .. }, ..) => Reason::Direct { address },
            (PathView::Relay { .. }, Some(party), _) => Reason::Hidden(party),
            (PathView::Relay { .. }, None, None) => Reason::NotIntroduced,
            (PathView::Relay { .. }, None, Some(report)) => relay_reason(report, core),
        }
    }
}

fn relay_reason(report: &traversal::Report, core: &Core) -> Reason {
    let pairs = report.pairs.len();
    if pairs == 0 {
        return Reason::NoCommonFamily;
    }
    if report.state == traversal::State::Checking {
        return Reason::Checking { pairs };
    }
    if report.pairs.iter().any(|pair| pair.answered) {
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
            let (own, their) = (Router::of(&core.nat), Router::Unknown);
            Reason::Silent { pairs, own, their }
        }
    }
}
