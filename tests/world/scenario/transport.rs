//! Two conversations under random operations and faults, judged by plain lists of messages, streams
//! and datagrams.
//!
//! The sessions are real ones, from true handshakes; only the search for paths and the server
//! are left out. While it storms, nothing may come twice, changed, or out of its order, nothing
//! may be receipted that did not come out, and every queue keeps its bound. Then all is mended:
//! what was not given up, and whose sender still lives, must be delivered and receipted, every
//! stream must come to its end at both ends, and silence must follow.

use std::time::Duration;

use p2sp_proto::id::{Channel, PathId};
use p2sp_proto::transport::Config;
use rand::seq::IndexedRandom as _;
use rand::{Rng as _, RngCore, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::Failure;
use crate::pair::end::{Reading, Remote};
use crate::pair::ledger::Violation;
use crate::pair::line::{Bottleneck, Line};
use crate::pair::{DATAGRAM_ALWAYS, Pair, STREAMS_ALWAYS, Side, StreamAct};

/// Operations of one run.
const OPERATIONS: std::ops::RangeInclusive<u32> = 10..=90;
/// Channels in use; the one above does not exist for some configurations.
const CHANNELS: u8 = 6;
/// Paths that are opened at most in one run: a session has 255 ids.
const PATHS_MAX: u8 = 100;
/// How long the ends have to settle everything once all is mended: several times the longest
/// probe interval, patience and retry together.
const CALM: Duration = Duration::from_secs(300);
/// How long a word takes when nothing is wrong any more: handshake and patience included.
const WORD: Duration = Duration::from_secs(30);
/// From so many streams of one end on it may be that no more would be allowed.
const STREAMS_OFTEN: usize = 32;
/// Last acknowledgements leave within this.
const ECHO: Duration = Duration::from_secs(1);
/// Then nothing may be sent for this long.
const SILENCE: Duration = Duration::from_secs(300);

/// One run, all of it drawn from a seed.
///
/// # Errors
/// [`Failure`] says what must not have been, and what the ends looked like.
pub fn transport(seed: u64) -> Result<String, Failure> {
    play(&mut ChaCha12Rng::seed_from_u64(seed), seed)
}

/// One run with the operations that `chance` brings; `seed` decides what the lines do.
///
/// # Errors
/// [`Failure`] as above.
pub fn play(chance: &mut impl RngCore, seed: u64) -> Result<String, Failure> {
    let config = draw_config(chance);
    let streams = [0, 10, 60].choose(chance).copied().unwrap_or(0);
    let pair = Pair::new(&config, seed);
    let mut game = Game { pair, config, streams, paths: 0, done: Vec::new() };
    let outcome = game.storm(chance).and_then(|()| game.calm());
    match outcome {
        Ok(settled) => {
            let Game { pair, done, paths, .. } = &game;
            Ok(format!(
                "{}, {} operations, {paths} direct paths, {} packets, settled in {settled:?}",
                pair.tally(),
                done.len(),
                pair.datagrams(),
            ))
        }
        Err(Violation(what)) => {
            let mut account = format!("{what}\n{}\noperations:", game.pair.describe());
            for (at, operation) in &game.done {
                account.push_str(&format!("\n{at:>12.3?} {operation:?}"));
            }
            Err(Failure(account))
        }
    }
}

fn draw_config(chance: &mut impl RngCore) -> Config {
    let window = *[4096, 16 << 10, 64 << 10].choose(chance).unwrap_or(&4096);
    let small = Config {
        channels: u16::from(CHANNELS),
        message_len_max: 100_000,
        receive_memory_max: window as usize * usize::from(CHANNELS) + 150_000,
        channel_window: window,
        send_queue_messages_max: 50,
        send_queue_bytes_max: 400_000,
        streams: None,
    };
    if chance.random_bool(0.5) { small } else { Config::peer() }
}

struct Game {
    pair: Pair,
    config: Config,
    /// How many of a hundred operations have to do with streams and datagrams.
    streams: u32,
    /// How many direct paths were opened; their ids count from 1.
    paths: u8,
    done: Vec<(Duration, Operation)>,
}

/// Something that an application, an owner of a conversation, or the world does.
#[derive(Clone, Debug)]
enum Operation {
    Send {
        side: Side,
        channel: Channel,
        len: usize,
        times: u32,
    },
    Cancel {
        side: Side,
        nth: u64,
    },
    /// Gives the oldest messages of a channel up for others.
    Revise {
        side: Side,
        channel: Channel,
        len: usize,
        times: u32,
    },
    Stream {
        side: Side,
        act: StreamAct,
        times: u32,
    },
    Datagram {
        side: Side,
        len: usize,
        times: u32,
    },
    Read(Side, Reading),
    /// The line of a path becomes another, one way or both.
    Line {
        from: Option<Side>,
        path: PathId,
        line: Line,
    },
    /// The ends open a new path, the second one later, and perhaps prefer it.
    Open {
        first: Side,
        later: Duration,
        preferred: bool,
    },
    /// The ends close a path, the second one when it is told, or later.
    Close {
        first: Side,
        path: PathId,
        later: Option<Duration>,
    },
    /// A process ends and another begins.
    Restart(Side, Remote),
    Dial(Side),
    /// A clock jumps ahead.
    Jump(Side, Duration),
    /// What the owner of a conversation does to it.
    Touch(Side, Touch),
}

#[derive(Clone, Copy, Debug)]
enum Touch {
    Candidates,
    /// It forgets its session, as after CLOSE.
    Drop,
    Rekey,
    Rest,
    Prefer(PathId),
    Reset(PathId),
    Restore(PathId),
    Probe(PathId),
    Hint(PathId, Duration),
}

impl Game {
    fn storm(&mut self, chance: &mut impl RngCore) -> Result<(), Violation> {
        self.perform(Operation::Dial(draw_side(chance)))?;
        for _ in 0..chance.random_range(OPERATIONS) {
            let operation = self.draw(chance);
            self.perform(operation)?;
            let pause = match chance.random_range(0..10) {
                0 => chance.random_range(0..8000),
                1..=3 => 0,
                _ => chance.random_range(0..200),
            };
            self.pair.run(Duration::from_millis(pause))?;
        }
        Ok(())
    }

    /// Mends all, waits until everything is settled, and listens for a while. Answers how long
    /// it took.
    fn calm(&mut self) -> Result<Duration, Violation> {
        for line in self.pair.lines() {
            *line = Line::good();
        }
        for side in Side::BOTH {
            self.pair.end(side).reading = Reading::Eager;
        }
        let mended = self.pair.elapsed();
        for _ in 0..2 {
            self.pair.run_until(CALM, Pair::is_quiet)?;
            self.pair.run(ECHO)?;
        }
        self.pair.check_streams()?;
        for side in Side::BOTH {
            self.pair.stream(side, StreamAct::FinishAll)?;
        }
        self.pair.run_until(CALM, Pair::is_idle)?;
        let settled = self.pair.elapsed() - mended;
        for side in Side::BOTH {
            self.pair.check_settled(side)?;
        }
        if !self.pair.is_idle() {
            return Err(Violation("something is left to do".into()));
        }
        if self.streams > 0 {
            self.last_words()?;
        }
        self.pair.run(ECHO)?;
        self.listen()?;
        Ok(settled)
    }

    /// Where all is well, streams can be opened on each side, as many as ever where many were,
    /// and a datagram arrives.
    fn last_words(&mut self) -> Result<(), Violation> {
        for side in Side::BOTH {
            let many = self.pair.opened(side) >= STREAMS_OFTEN;
            for _ in 0..if many { STREAMS_ALWAYS } else { 1 } {
                self.pair.stream(side, StreamAct::Open { len: 1, ends: true })?;
            }
            self.pair.run_until(WORD, Pair::is_idle)?;
            self.pair.check_settled(side)?;
            self.pair.send_datagram(side, DATAGRAM_ALWAYS)?;
            self.pair.run_until(WORD, Pair::is_idle)?;
            if !self.pair.datagram_arrived() {
                return Err(Violation(format!("a datagram of {side:?} got lost on a good line")));
            }
        }
        Ok(())
    }

    /// Hears whether the ends are silent. Only a key that has served its hour may be replaced.
    fn listen(&mut self) -> Result<(), Violation> {
        let (sent, keys) = (self.pair.datagrams(), self.pair.generations());
        self.pair.run(SILENCE)?;
        let more = self.pair.datagrams() - sent;
        if more > 0 && self.pair.generations() == keys {
            return Err(Violation(format!("{more} datagrams about nothing")));
        }
        Ok(())
    }

    fn perform(&mut self, operation: Operation) -> Result<(), Violation> {
        self.done.push((self.pair.elapsed(), operation.clone()));
        match operation {
            Operation::Send { side, channel, len, times } => {
                for _ in 0..times {
                    self.pair.send(side, channel, len)?;
                }
            }
            Operation::Cancel { side, nth } => self.pair.cancel(side, nth)?,
            Operation::Revise { side, channel, len, times } => {
                for _ in 0..times {
                    self.pair.cancel_oldest(side, channel)?;
                    self.pair.send(side, channel, len)?;
                }
            }
            Operation::Stream { side, act, times } => {
                for _ in 0..times {
                    self.pair.stream(side, act)?;
                }
            }
            Operation::Datagram { side, len, times } => {
                for _ in 0..times {
                    self.pair.send_datagram(side, len)?;
                }
            }
            Operation::Read(side, reading) => self.pair.end(side).reading = reading,
            Operation::Line { from, path, line } => {
                for side in from.map_or(Side::BOTH.to_vec(), |side| vec![side]) {
                    *self.pair.line(side, path) = line.clone();
                }
            }
            Operation::Open { first, later, preferred } => self.open(first, later, preferred)?,
            Operation::Close { first, path, later } => self.close(first, path, later)?,
            Operation::Restart(side, remote) => self.pair.restart(side, remote),
            Operation::Jump(side, time) => self.pair.end(side).ahead += time,
            Operation::Dial(side) => self.pair.dial(side),
            Operation::Touch(side, touch) => self.touch(side, touch),
        }
        Ok(())
    }

    fn touch(&mut self, side: Side, touch: Touch) {
        let now = self.pair.local(side);
        let end = self.pair.end(side);
        let conversation = end.conversation();
        let transport = conversation.transport();
        match touch {
            Touch::Candidates => end.tell_candidates(now),
            Touch::Drop => conversation.drop_session(),
            Touch::Rekey => conversation.request_rekey(),
            Touch::Rest => conversation.rest(),
            Touch::Prefer(path) => transport.prefer_path(path, now),
            Touch::Reset(path) => transport.reset_path(path, now),
            Touch::Restore(path) => transport.restore_path(path, now),
            Touch::Probe(path) => {
                // Owners probe paths that they opened.
                if transport.path_stats(path).is_some() {
                    transport.probe(path, now);
                }
            }
            Touch::Hint(path, rtt) => transport.set_rtt_hint(path, rtt),
        }
    }

    fn open(&mut self, first: Side, later: Duration, preferred: bool) -> Result<(), Violation> {
        if self.paths == PATHS_MAX {
            return Ok(());
        }
        self.paths += 1;
        let path = PathId(self.paths);
        for side in Side::BOTH {
            *self.pair.line(side, path) = Line::good();
        }
        for (side, wait) in [(first, Duration::ZERO), (first.other(), later)] {
            self.pair.run(wait)?;
            let now = self.pair.local(side);
            self.pair.end(side).open(path, now);
            if preferred {
                self.touch(side, Touch::Prefer(path));
            }
        }
        Ok(())
    }

    fn close(
        &mut self,
        first: Side,
        path: PathId,
        later: Option<Duration>,
    ) -> Result<(), Violation> {
        let now = self.pair.local(first);
        self.pair.end(first).close(path, later.is_none(), now);
        if let Some(later) = later {
            self.pair.run(later)?;
            let now = self.pair.local(first.other());
            self.pair.end(first.other()).close(path, false, now);
        }
        Ok(())
    }

    fn draw(&self, chance: &mut impl RngCore) -> Operation {
        if chance.random_range(0..100) < self.streams {
            return draw_stream(chance);
        }
        let side = draw_side(chance);
        let path = PathId(chance.random_range(0..=self.paths));
        let channel = Channel(chance.random_range(0..CHANNELS));
        match chance.random_range(0..100) {
            0..=34 => {
                let (len, times) = self.draw_len(chance);
                Operation::Send { side, channel, len, times }
            }
            35..=38 => {
                let (len, times) = self.draw_len(chance);
                Operation::Revise { side, channel, len, times }
            }
            39..=42 => Operation::Cancel { side, nth: chance.random_range(0..50) },
            43..=47 => Operation::Read(side, draw_reading(chance)),
            48..=49 => Operation::Touch(side, Touch::Candidates),
            50..=64 => {
                let from = chance.random_bool(0.3).then_some(side);
                Operation::Line { from, path, line: draw_line(chance) }
            }
            65..=71 => {
                let preferred = chance.random_bool(0.6);
                Operation::Open { first: side, later: millis(chance, 400), preferred }
            }
            72..=75 => {
                // The newest is the one in use.
                let newest = chance.random_bool(0.5);
                let path = PathId(if newest { self.paths } else { path.0 }.max(1));
                let later = chance.random_bool(0.5).then(|| millis(chance, 3000));
                Operation::Close { first: side, path, later }
            }
            76..=80 => Operation::Touch(side, Touch::Prefer(path)),
            81..=82 => Operation::Touch(side, Touch::Reset(path)),
            83 => Operation::Touch(side, Touch::Restore(path)),
            84 => Operation::Touch(side, Touch::Probe(path)),
            85 => Operation::Touch(side, Touch::Hint(path, millis(chance, 300))),
            86..=88 => {
                let remotes = [Remote::Key, Remote::Introduced];
                Operation::Restart(side, remotes[usize::from(chance.random_bool(0.5))])
            }
            89 => Operation::Touch(side, Touch::Drop),
            90..=92 => Operation::Dial(side),
            93..=94 => Operation::Touch(side, Touch::Rekey),
            95..=97 => {
                let longest = [500, 20_000, 4 * 3_600_000][chance.random_range(0..3)];
                Operation::Jump(side, millis(chance, longest))
            }
            _ => Operation::Touch(side, Touch::Rest),
        }
    }

    fn draw_len(&self, chance: &mut impl RngCore) -> (usize, u32) {
        match chance.random_range(0..10) {
            0 => (0, chance.random_range(1..4)),
            1..=3 => (chance.random_range(1..200), chance.random_range(1..40)),
            4..=6 => (chance.random_range(900..1300), chance.random_range(1..12)),
            7..=8 => (chance.random_range(1300..20_000), chance.random_range(1..6)),
            _ => (chance.random_range(20_000..=self.config.message_len_max.min(250_000) + 1), 1),
        }
    }
}

fn draw_stream(chance: &mut impl RngCore) -> Operation {
    let (side, nth) = (draw_side(chance), chance.random_range(0..50));
    let mut times = 1;
    let act = match chance.random_range(0..100) {
        0..=24 => {
            times = chance.random_range(1..8);
            StreamAct::Open { len: draw_flow_len(chance), ends: chance.random_bool(0.5) }
        }
        25 => {
            times = chance.random_range(100..300);
            StreamAct::Open { len: chance.random_range(0..100), ends: chance.random_bool(0.7) }
        }
        26..=59 => StreamAct::Write { nth, len: draw_flow_len(chance) },
        60..=69 => StreamAct::Finish { nth },
        70..=75 => StreamAct::Reset { nth },
        76..=81 => StreamAct::Stop { nth },
        82 => StreamAct::GiveUp,
        _ => {
            let len = chance.random_range(0..1200);
            return Operation::Datagram { side, len, times: chance.random_range(1..30) };
        }
    };
    Operation::Stream { side, act, times }
}

fn draw_flow_len(chance: &mut impl RngCore) -> u64 {
    match chance.random_range(0..10) {
        0 => 0,
        1..=5 => chance.random_range(1..3000),
        6..=8 => chance.random_range(3000..100_000),
        _ if chance.random_bool(0.05) => chance.random_range(4_000_000..6_000_000),
        _ => chance.random_range(100_000..400_000),
    }
}

fn draw_side(chance: &mut impl RngCore) -> Side {
    Side::BOTH[usize::from(chance.random_bool(0.5))]
}

fn draw_reading(chance: &mut impl RngCore) -> Reading {
    [Reading::Eager, Reading::Slow, Reading::Never][chance.random_range(0..3)]
}

fn draw_line(chance: &mut impl RngCore) -> Line {
    let share = |chance: &mut _, often: f64, most: f64| -> f64 {
        let drawn: f64 = rand::Rng::random_range(chance, 0.0..most);
        if rand::Rng::random_bool(chance, often) { drawn } else { 0.0 }
    };
    let bottleneck = chance.random_bool(0.3).then(|| {
        let queue = Bottleneck::new(chance.random_range(5e3..5e6), millis(chance, 1000));
        if chance.random_bool(0.5) { queue.marking(millis(chance, 200)) } else { queue }
    });
    Line {
        loss: share(chance, 0.7, 0.4),
        doubling: share(chance, 0.4, 0.3),
        spoiling: share(chance, 0.3, 0.2),
        delay: millis(chance, 150),
        jitter: if chance.random_bool(0.5) { millis(chance, 100) } else { Duration::ZERO },
        len_max: if chance.random_bool(0.15) { chance.random_range(100..1452) } else { usize::MAX },
        up: chance.random_bool(0.8),
        bottleneck,
    }
}

fn millis(chance: &mut impl RngCore, most: u64) -> Duration {
    Duration::from_millis(chance.random_range(0..=most))
}
