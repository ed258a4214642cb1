//! Whether packets of a path are marked as ECT(0), and what comes back of it (RFC 9000 section
//! 13.4).

use crate::wire::frame::EcnCounts;

/// Whether marks are of use on a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing came back yet: there are ways that drop what is marked.
    Tried,
    /// They arrive, and the other end tells of them.
    Works,
    /// They do not, or are not told rightly.
    Off,
}

/// What became of the marks of packets that were acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nothing to heed.
    Clear,
    /// A router marked some of them for its long queue.
    Congested,
}

/// A sender's view of the marks on one path.
#[derive(Clone, Debug)]
pub(super) struct Marking {
    stage: Stage,
    /// What the other end counted so far.
    told: EcnCounts,
}

impl Marking {
    pub(super) const fn new() -> Self {
        Self { stage: Stage::Tried, told: EcnCounts { ect0: 0, ect1: 0, ce: 0 } }
    }

    /// Whether what leaves is marked.
    pub(super) fn is_on(&self) -> bool {
        self.stage != Stage::Off
    }

    /// Another way may treat marks in another manner; the counts go on.
    pub(super) fn restart(&mut self) {
        self.stage = Stage::Tried;
    }

    /// A probe timeout passed: maybe marked packets are dropped.
    pub(super) fn on_silence(&mut self) {
        if self.stage == Stage::Tried {
            self.stage = Stage::Off;
        }
    }

    /// `acked` marked packets were acknowledged for the first time, one of them the newest that
    /// ever was, and `told` came with that. `sent`: all packets of the path so far.
    pub(super) fn on_ack(&mut self, told: Option<EcnCounts>, acked: u64, sent: u64) -> Verdict {
        if !self.is_on() {
            return Verdict::Clear;
        }
        let Some(told) = told.filter(|told| self.is_credible(*told, acked, sent)) else {
            self.stage = Stage::Off;
            return Verdict::Clear;
        };
        self.stage = Stage::Works;
        let before = std::mem::replace(&mut self.told, told);
        if told.ce > before.ce { Verdict::Congested } else { Verdict::Clear }
    }

    /// Whether the counts grew by no less than what was acknowledged, and to no more than what
    /// was sent (RFC 9000 section 13.4.2.1).
    fn is_credible(&self, told: EcnCounts, acked: u64, sent: u64) -> bool {
        let marked = |counts: EcnCounts| counts.ect0.saturating_add(counts.ce);
        told.ect0 >= self.told.ect0
            && told.ce >= self.told.ce
            && told.ect1 == 0
            && marked(told) <= sent
            && marked(told) - marked(self.told) >= acked
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(ect0: u64, ect1: u64, ce: u64) -> Option<EcnCounts> {
        Some(EcnCounts { ect0, ect1, ce })
    }

    fn working() -> Marking {
        let mut marking = Marking::new();
        assert_eq!(marking.on_ack(counts(5, 0, 2), 5, 10), Verdict::Congested);
        marking
    }

    #[test]
    fn a_mark_counts_once() {
        let mut marking = working();
        assert_eq!(marking.on_ack(counts(6, 0, 2), 1, 10), Verdict::Clear);
        assert_eq!(marking.on_ack(counts(6, 0, 3), 1, 10), Verdict::Congested);
        assert!(marking.is_on());
    }

    #[test]
    fn counts_that_cannot_be_true_end_the_marking() {
        for told in [
            None,
            counts(4, 0, 3), // fewer than before
            counts(6, 0, 1), // marks taken back
            counts(5, 0, 2), // none for what was acknowledged
            counts(6, 1, 2), // a mark that was never sent
            counts(7, 0, 4), // more than was sent
            counts(u64::MAX, 0, u64::MAX),
        ] {
            let mut marking = working();
            assert_eq!(marking.on_ack(told, 1, 10), Verdict::Clear, "{told:?}");
            assert!(!marking.is_on(), "{told:?}");
            assert_eq!(marking.on_ack(counts(9, 0, 9), 1, 20), Verdict::Clear, "nothing is heeded");
        }
    }

    #[test]
    fn silence_ends_what_never_worked_until_the_way_is_another() {
        let mut marking = Marking::new();
        marking.on_silence();
        assert!(!marking.is_on());
        marking.restart();
        assert_eq!(marking.on_ack(counts(1, 0, 0), 1, 1), Verdict::Clear);
        marking.on_silence();
        assert!(marking.is_on(), "marks got through before");
    }
}
