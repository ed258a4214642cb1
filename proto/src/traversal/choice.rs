//! Which proved pair becomes the chosen path, and when that is given up.

use std::time::{Duration, Instant};

use super::candidate::Class;
use super::pair::Pair;
use super::watch::{Due, Nomination, Watch};
use super::{Agent, Output, Role};
use crate::io::Route;

/// A path of the same class must be faster by this, and by a fifth, to be worth a move.
const RTT_GAIN: Duration = Duration::from_millis(5);

impl Agent {
    /// Whether a pair should become the chosen path.
    pub(super) fn consider(&mut self, index: usize, now: Instant) {
        let pair = &self.pairs[index];
        let Some(rtt) = pair.validated() else { return };
        let wanted = match self.role {
            Role::Controlling => self.is_better(pair, rtt),
            Role::Controlled => pair.nominated || self.watch.is_none(),
        };
        if wanted && !self.is_chosen(pair.route) && !self.pairs[index].postpone(now) {
            self.select(index, rtt, now);
        }
    }

    fn select(&mut self, index: usize, rtt: Duration, now: Instant) {
        let route = self.pairs[index].route;
        let nomination = match self.role {
            Role::Controlling => {
                // What the other side asked for is done.
                self.pairs[index].nominated = false;
                Nomination::Pending
            }
            Role::Controlled => {
                self.ask_anew(route, now);
                Nomination::Known
            }
        };
        if let Some(old) = self.watch.take().filter(Watch::is_doubted)
            && let Some(old) = self.index_of(old.route)
        {
            self.pairs[old].forget();
        }
        self.watch = Some(Watch::new(route, nomination, self.keepalive, now));
        self.outputs.push_back(Output::Selected { route, rtt: Some(rtt) });
        self.watch_path(now);
    }

    /// Better than the chosen path by class, by the age of its mapping on this side or, as the
    /// other side says, on that one, or clearly by round-trip time; always, when there is none or
    /// it is in doubt.
    fn is_better(&self, pair: &Pair, rtt: Duration) -> bool {
        let Some(watch) = self.watch.as_ref().filter(|watch| !watch.is_doubted()) else {
            return true;
        };
        let Some(chosen) = self.index_of(watch.route).map(|index| &self.pairs[index]) else {
            return true;
        };
        let rank = |pair: &Pair| (pair.class, self.is_favoured(pair), pair.nominated);
        match rank(pair).cmp(&rank(chosen)) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Less => false,
            std::cmp::Ordering::Equal => {
                chosen.validated().is_none_or(|old| rtt + RTT_GAIN < old && rtt * 5 < old * 4)
            }
        }
    }

    /// Sends the check of the chosen path if it is due.
    pub(super) fn watch_path(&mut self, now: Instant) {
        let Some(watch) = self.watch.as_mut().filter(|watch| watch.due <= now) else { return };
        let route = watch.route;
        match (watch.fire(now), self.index_of(route)) {
            (Due::Check, Some(index)) => self.send_check(index, now),
            (Due::LookAround, Some(index)) => {
                self.send_check(index, now);
                self.begin_round(now);
            }
            (Due::Lost, _) | (Due::Check | Due::LookAround, None) => self.lose(now),
        }
    }

    pub(super) fn lose(&mut self, now: Instant) {
        if let Some(watch) = self.watch.take() {
            self.outputs.push_back(Output::Lost { route: watch.route });
            self.begin_round(now);
        }
    }

    fn is_favoured(&self, pair: &Pair) -> bool {
        self.favoured == Some(pair.route.local) && pair.class == Class::Internet
    }

    /// The other side chooses an older mapping of ours: pairs that it should choose instead are
    /// checked once more, to say so.
    fn ask_anew(&mut self, chosen: Route, now: Instant) {
        if self.favoured == Some(chosen.local) {
            return;
        }
        for index in 0..self.pairs.len() {
            if self.is_favoured(&self.pairs[index]) && self.pairs[index].validated().is_some() {
                self.pairs[index].begin_round(now);
            }
        }
    }

    /// Whether the controlling side should choose this pair for the age of our mapping.
    pub(super) fn asks_for(&self, index: usize) -> bool {
        let chosen = self.selected().and_then(|route| self.index_of(route));
        let older = chosen
            .map(|index| &self.pairs[index])
            .is_some_and(|chosen| chosen.class == Class::Internet && !self.is_favoured(chosen));
        older && self.is_favoured(&self.pairs[index])
    }
}
