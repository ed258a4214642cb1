//! One message on its way out: which parts were sent, acknowledged and lost.

use bytes::Bytes;

use crate::id::PathId;
use crate::transport::ranges::Ranges;
use crate::transport::window::cost;

#[derive(Debug)]
pub(super) struct OutMessage {
    pub(super) payload: Bytes,
    pub(super) acked: Ranges,
    pub(super) lost: Ranges,
    /// Positions below this were sent in this session.
    pub(super) sent: u32,
    pub(super) state: State,
    pub(super) copied: bool,
    /// Where the last acknowledged part went.
    pub(super) path: Option<PathId>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be sent, or sent.
    Wanted,
    Cancelled,
    /// In message 1 of a handshake whose answer has not come.
    Early,
    /// Accepted with a handshake whose session has not started.
    EarlyAccepted,
}

impl OutMessage {
    pub(super) fn new(payload: Bytes) -> Self {
        Self {
            payload,
            acked: Ranges::default(),
            lost: Ranges::default(),
            sent: 0,
            state: State::Wanted,
            copied: false,
            path: None,
        }
    }

    /// Positions of the message; an empty one has a single position.
    pub(super) fn extent(&self) -> u32 {
        (self.payload.len() as u32).max(1)
    }

    pub(super) fn cost(&self) -> u64 {
        cost(self.payload.len() as u64)
    }

    pub(super) fn on_acked(&mut self, start: u32, end: u32, path: PathId) {
        self.acked.insert(start, end);
        self.lost.remove(start, end);
        self.path = Some(path);
    }

    pub(super) fn restart(&mut self) {
        let accepted = self.state == State::EarlyAccepted;
        (self.acked, self.lost) = (Ranges::default(), Ranges::default());
        (self.sent, self.copied, self.path) = (0, false, None);
        if accepted {
            self.accept();
        }
    }

    pub(super) fn accept(&mut self) {
        self.state = State::Wanted;
        self.acked.insert(0, self.extent());
    }

    /// Whether nothing of it has to be sent for the first time.
    pub(super) fn is_sent(&self) -> bool {
        self.sent >= self.extent()
            || self.state == State::Cancelled
            || self.acked.is_whole(self.extent())
    }
}
