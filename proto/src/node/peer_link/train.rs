//! Datagrams that leave together: sealed one behind the other into one buffer.

use crate::io::{Ecn, Route, TRAIN_LEN_MAX, Train, Transmit};
use crate::node::core::Core;

/// Most datagrams of a train: as many as systems take at once.
const DATAGRAMS_MAX: usize = 64;

/// A train that is being made up.
pub(super) struct Assembly {
    /// What is coupled, and behind it what was just made.
    pub(super) buffer: Vec<u8>,
    /// Where they all go, how they are marked, and the length of each but the last.
    way: Option<(Route, Ecn, usize)>,
    count: usize,
    end: End,
}

/// Whether another datagram may follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Open,
    /// A shorter one was the last.
    Closed,
}

/// Whether a train is as long as it may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Coupled {
    /// There is room for more.
    Room,
    /// It left.
    Full,
}

impl Assembly {
    pub(super) fn new(core: &mut Core) -> Self {
        Self { buffer: core.buffer(), way: None, count: 0, end: End::Open }
    }

    /// The datagram from `start` to the end of the buffer goes along, or begins another train.
    pub(super) fn couple(
        &mut self,
        route: Route,
        ecn: Ecn,
        start: usize,
        core: &mut Core,
    ) -> Coupled {
        let len = self.buffer.len() - start;
        if !self.takes(route, ecn, len) {
            let mut next = core.buffer();
            next.extend_from_slice(&self.buffer[start..]);
            self.buffer.truncate(start);
            self.leave(core);
            self.buffer = next;
        }
        let (.., segment) = *self.way.get_or_insert((route, ecn, len));
        self.count += 1;
        if len < segment {
            self.end = End::Closed;
        }
        if self.count == DATAGRAMS_MAX || self.buffer.len() + segment > TRAIN_LEN_MAX {
            self.leave(core);
            self.buffer = core.buffer();
            return Coupled::Full;
        }
        Coupled::Room
    }

    /// What is coupled leaves; the buffer with what is behind goes back.
    pub(super) fn finish(mut self, core: &mut Core) {
        self.leave(core);
        core.recycle(self.buffer);
    }

    fn takes(&self, route: Route, ecn: Ecn, len: usize) -> bool {
        match self.way {
            None => true,
            Some((to, mark, segment)) => {
                // Alone in front, the first one may be a probe that is too long for the system: a
                // shorter one would be lost with it.
                let fits = len == segment || len < segment && self.count > 1;
                (to, mark) == (route, ecn) && self.end == End::Open && fits
            }
        }
    }

    fn leave(&mut self, core: &mut Core) {
        let Some((route, ecn, segment)) = self.way.take() else { return };
        let payload = std::mem::take(&mut self.buffer);
        match std::mem::take(&mut self.count) {
            1 => core.send(Transmit { ecn, ..Transmit::new(route, payload) }),
            _ => core.send_train(Train { route, payload, segment, ecn }),
        }
        self.end = End::Open;
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::control::Exposure;
    use crate::node::api::Output;
    use crate::session::StaticKey;
    use crate::time::{UnixClock, origin};

    /// What leaves when datagrams of these lengths go to hosts of these numbers: the lengths of
    /// each datagram, train by train.
    fn leave(made: &[(u8, usize)]) -> Vec<Vec<usize>> {
        let clock = UnixClock::new(origin(), Duration::ZERO);
        let key = StaticKey::from_bytes([1; 32]);
        let mut core = Core::new(key, true, Exposure::Open, [2; 32], (origin(), clock));
        let mut train = Assembly::new(&mut core);
        for (host, len) in made {
            let start = train.buffer.len();
            train.buffer.resize(start + len, *host);
            let route = Route::udp(([0; 4], 1).into(), ([10, 0, 0, *host], 1).into());
            // The third host's datagrams are the second one's with a mark.
            let (route, ecn) = match host {
                3 => (Route::udp(([0; 4], 1).into(), ([10, 0, 0, 2], 1).into()), Ecn::Ect0),
                _ => (route, Ecn::NotEct),
            };
            train.couple(route, ecn, start, &mut core);
        }
        train.finish(&mut core);
        let lengths = |output: Output| match output {
            Output::Transmit(transmit) => vec![transmit.payload.len()],
            Output::Train(train) => {
                let host = train.payload[0];
                assert!(train.payload.iter().all(|byte| *byte == host), "another host's datagram");
                assert!(train.payload.len() <= TRAIN_LEN_MAX);
                train.datagrams().map(<[u8]>::len).collect()
            }
            other @ (Output::Event(_) | Output::Effect(_)) => panic!("{other:?}"),
        };
        core.outputs.into_iter().map(lengths).collect()
    }

    #[test]
    fn trains_have_one_way_and_one_length_but_for_the_last() {
        for (made, expected) in [
            (vec![], vec![]),
            (vec![(1, 100)], vec![vec![100]]),
            (vec![(1, 100), (1, 100), (1, 100)], vec![vec![100, 100, 100]]),
            (vec![(1, 100), (2, 100), (2, 100)], vec![vec![100], vec![100, 100]]),
            (vec![(2, 100), (3, 100), (3, 100)], vec![vec![100], vec![100, 100]]),
            (vec![(1, 100), (1, 100), (1, 40), (1, 40)], vec![vec![100, 100, 40], vec![40]]),
            (vec![(1, 40), (1, 100), (1, 100)], vec![vec![40], vec![100, 100]]),
            (vec![(1, 140), (1, 100), (1, 100)], vec![vec![140], vec![100, 100]]),
        ] {
            assert_eq!(leave(&made), expected, "{made:?}");
        }
    }

    #[test]
    fn trains_are_no_longer_than_a_system_takes() {
        let many = leave(&[(1, 50); 100]);
        assert_eq!(many.iter().map(Vec::len).collect::<Vec<_>>(), [64, 36]);
        let long = leave(&[(1, 1452); 100]);
        assert_eq!(long.iter().map(Vec::len).collect::<Vec<_>>(), [44, 44, 12]);
    }
}
