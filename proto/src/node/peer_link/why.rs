//! The path in use and the reason for it, for people.

use super::super::api::{PathView, Why};
use super::{Hides, PeerLink};
use crate::id::{PathId, PeerName};
use crate::traversal::{self, Agent};

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

    /// The path in use, what was tried, and the reason in a sentence.
    pub(in crate::node) fn why(&self) -> Why {
        let report = self.agent.as_ref().map(Agent::report);
        let pairs = report.as_ref().map_or(&[][..], |report| &report.pairs);
        Why {
            name: self.name.clone(),
            key: self.key,
            path: self.view(),
            reason: self.reason(report.as_ref()),
            candidates: pairs.iter().map(ToString::to_string).collect(),
        }
    }

    pub(super) fn reason(&self, report: Option<&traversal::Report>) -> String {
        let name = &self.name;
        match (self.view(), report) {
            (PathView::None, _) => format!("no session with {name} stands; send it a message"),
            (PathView::Direct { address, .. }, _) => {
                format!("direct: {name} answers authenticated checks at {address}")
            }
            (PathView::Relay { .. }, _) if self.hides == Some(Hides::We) => {
                "relayed: this peer hides its address (--relay-only)".to_owned()
            }
            (PathView::Relay { .. }, _) if self.hides == Some(Hides::They) => {
                format!("relayed: {name} hides its address")
            }
            (PathView::Relay { .. }, None) => format!("relayed: {name} was not introduced yet"),
            (PathView::Relay { .. }, Some(report)) => relay_reason(name, report),
        }
    }
}

fn relay_reason(name: &PeerName, report: &traversal::Report) -> String {
    let tried = report.pairs.len();
    let answered = report.pairs.iter().filter(|pair| pair.answered).count();
    match (report.state, tried, answered) {
        (traversal::State::Checking, ..) => {
            format!("relayed for now: {tried} address pairs to {name} are being checked")
        }
        (_, 0, _) => format!("relayed: {name} offered no address that this host can send to"),
        (_, _, 0) => format!(
            "relayed: none of {tried} address pairs to {name} answered; a NAT that chooses a new \
             port for each destination, or a firewall that blocks UDP, stands between"
        ),
        _ => format!("relayed: a direct path to {name} was proved and failed; it is tried again"),
    }
}
