//! What the two peers sent, and what arrived of it.

use crate::peers::{Report, Said, Side, Way};
use crate::traffic::Route;
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Characters of a message: enough that a batch stands out from keepalives and checks.
pub(crate) const MESSAGE_LENGTH: usize = 400;

#[derive(Default)]
pub(crate) struct Tally {
    started: Option<Instant>,
    sent: BTreeMap<Side, usize>,
    /// How often each message arrived, by sender and number.
    arrived: BTreeMap<(Side, usize), usize>,
    /// The newest number that arrived, by sender.
    newest: BTreeMap<Side, usize>,
    pub(crate) doubled: usize,
    pub(crate) disordered: usize,
    pub(crate) registered: BTreeMap<Side, Instant>,
    pub(crate) joined: BTreeMap<Side, Instant>,
    /// First report of a direct path, by peer.
    pub(crate) direct: BTreeMap<Side, Instant>,
    first: Option<Instant>,
    pub(crate) errors: Vec<String>,
}

impl Tally {
    /// The next message of `side`; the first one starts the clock.
    pub(crate) fn next_text(&mut self, side: Side) -> String {
        self.started.get_or_insert_with(Instant::now);
        let number = self.sent.entry(side).or_default();
        let text = format!("{} {number} ", side.name());
        *number += 1;
        format!("{text:.<MESSAGE_LENGTH$}")
    }

    pub(crate) fn take(&mut self, report: Report) {
        let Report { at, side, said } = report;
        match said {
            Said::Registered => drop(self.registered.entry(side).or_insert(at)),
            Said::Joined => drop(self.joined.entry(side).or_insert(at)),
            Said::Message { text } => self.arrive(side.other(), &text, at),
            Said::Path(Way::Direct) => drop(self.direct.entry(side).or_insert(at)),
            Said::Error { text } => self.errors.push(format!("{}: {text}", side.name())),
            Said::Path(Way::Relay | Way::Unknown) | Said::Delivered | Said::Other => {}
        }
    }

    fn arrive(&mut self, from: Side, text: &str, at: Instant) {
        let mut words = text.split(' ');
        let number = words.next().filter(|&name| name == from.name()).and_then(|_| words.next());
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            self.errors.push(format!("strange message: {text:.40}"));
            return;
        };
        self.first.get_or_insert(at);
        let times = self.arrived.entry((from, number)).or_default();
        *times += 1;
        if *times > 1 {
            self.doubled += 1;
            return;
        }
        match self.newest.insert(from, number) {
            Some(newest) if newest > number => self.disordered += 1,
            Some(_) | None => {}
        }
    }

    /// Messages of both sides.
    pub(crate) fn sent(&self) -> usize {
        self.sent.values().sum()
    }

    /// How many messages of each side have arrived without a gap.
    pub(crate) fn arrived_in_order(&self) -> usize {
        let first_missing = |side: Side| {
            (0..).find(|number| !self.arrived.contains_key(&(side, *number))).unwrap_or_default()
        };
        Side::BOTH.map(first_missing).into_iter().min().unwrap_or_default()
    }

    pub(crate) fn delivered(&self) -> usize {
        self.arrived.len()
    }

    /// KEY=VALUE of the whole conversation; `again` is how long after a disturbance it was direct once more.
    pub(crate) fn line(&self, observed: Route, again: Option<Duration>) -> String {
        let ms = |time: Option<Duration>| match time {
            Some(time) => time.as_millis().to_string(),
            None => "-".to_owned(),
        };
        let since = |at: Option<&Instant>| {
            ms(at.zip(self.started).map(|(at, started)| at.saturating_duration_since(started)))
        };
        let both = if self.direct.len() == 2 { self.direct.values().max() } else { None };
        format!(
            "observed={observed} first_ms={} direct_ms={} both_ms={} again_ms={} sent={} delivered={} doubled={}",
            since(self.first.as_ref()),
            since(self.direct.values().min()),
            since(both),
            ms(again),
            self.sent(),
            self.delivered(),
            self.doubled
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(tally: &mut Tally, text: &str) {
        let said = Said::Message { text: text.to_owned() };
        tally.take(Report { at: Instant::now(), side: Side::B, said });
    }

    #[test]
    fn doubled_and_disordered_messages_are_noticed() {
        let mut tally = Tally::default();
        let texts: Vec<_> = (0..3).map(|_| tally.next_text(Side::A)).collect();
        arrive(&mut tally, &texts[1]);
        arrive(&mut tally, &texts[0]);
        arrive(&mut tally, &texts[1]);
        assert_eq!((tally.sent(), tally.delivered()), (3, 2));
        assert_eq!((tally.doubled, tally.disordered), (1, 1));
    }

    #[test]
    fn direct_is_told_of_the_first_side_and_of_both() {
        let mut tally = Tally::default();
        let _ = tally.next_text(Side::A);
        let started = tally.started.unwrap();
        for (side, after) in [(Side::B, 120), (Side::A, 160), (Side::B, 900)] {
            let at = started + Duration::from_millis(after);
            tally.take(Report { at, side, said: Said::Path(Way::Direct) });
        }
        let line = tally.line(Route::Direct, None);
        assert!(line.contains("direct_ms=120 both_ms=160 again_ms=- "), "{line}");
    }

    #[test]
    fn a_message_nobody_sent_is_an_error() {
        let mut tally = Tally::default();
        arrive(&mut tally, "b 0 ...");
        assert_eq!(tally.delivered(), 0);
        assert_eq!(tally.errors.len(), 1);
    }
}
