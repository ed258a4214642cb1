//! How long a conversation stands still when its direct path dies.

use std::time::{Duration, Instant};

use p2sp_proto::id::{Channel, PathId};
use p2sp_proto::transport::{Config, PathKind};
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::Failure;
use crate::pair::ledger::Violation;
use crate::pair::line::Line;
use crate::pair::{Pair, Side};

/// Between two messages of one side.
const BEAT: Duration = Duration::from_millis(5);
/// Bytes of a message.
const LEN: usize = 50;
/// How long the two talk before: round trips are known then.
const BEFORE: Duration = Duration::from_secs(5);
/// How long they talk after, at least twenty probe timeouts of the slowest path.
const AFTER: Duration = Duration::from_secs(6);
/// The direct path.
const DIRECT: PathId = PathId(1);
/// Milliseconds that the relay adds at most, beside its longer way.
const DETOUR_MAX: u64 = 25;
/// A probe timeout that began half a round trip ago, less [`BEAT`]: who notices the death of a path
/// sooner did not use it.
const WAIT_MIN: f64 = 0.4;
/// Acknowledgements may be late by this, and round-trip times vary by at least that (RFC 9002).
const ACK_DELAY: Duration = Duration::from_millis(25);
const GRANULARITY: Duration = Duration::from_millis(1);

/// Which packets of the direct path vanish.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// All.
    BothWays,
    /// Those of one side.
    OneWay,
}

/// How long it was.
#[derive(Clone, Copy, Debug)]
pub struct Gap {
    /// The longest time between two messages that came out, less the usual one.
    pub time: Duration,
    /// That of the path before it died, from its true delays.
    pub probe_timeout: Duration,
}

impl Gap {
    /// In probe timeouts.
    #[must_use]
    pub fn timeouts(&self) -> f64 {
        self.time.as_secs_f64() / self.probe_timeout.as_secs_f64()
    }
}

/// What the path was like.
struct Route {
    delay: Duration,
    jitter: Duration,
    relayed: Duration,
}

impl Route {
    /// A round trip of 1 to 200 ms, sometimes with jitter, and a relay that is slower.
    fn draw(rng: &mut ChaCha12Rng) -> Self {
        let delay = Duration::from_secs_f64(0.000_5 * 200_f64.powf(rng.random_range(0.0..1.0)));
        let jitter = delay.mul_f64([0.0, 0.1, 0.3][rng.random_range(0..3)]);
        let detour = Duration::from_millis(rng.random_range(1..=DETOUR_MAX));
        Self { delay, jitter, relayed: delay.mul_f64(rng.random_range(1.1..1.8)) + detour }
    }

    /// RFC 9002 section 6.2.1. Two uniform jitters add up to a mean of one of them, from which they
    /// deviate by a third of it.
    fn probe_timeout(&self) -> Duration {
        let smoothed = 2 * self.delay + self.jitter;
        smoothed + (4 * self.jitter / 3).max(GRANULARITY) + ACK_DELAY
    }
}

/// Two talk both ways over a direct path, which then carries nothing any more.
///
/// # Errors
/// [`Failure`] when a message is lost, doubled or out of order, or when the direct path was not in
/// use.
pub fn gap(seed: u64, death: Death) -> Result<Gap, Failure> {
    play(seed, death).map_err(|Violation(what)| Failure(what))
}

fn play(seed: u64, death: Death) -> Result<Gap, Violation> {
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let route = Route::draw(&mut rng);
    let mut pair = connect(&route, seed)?;
    talk(&mut pair, BEFORE + Duration::from_millis(rng.random_range(0..100)))?;
    let died = Side::BOTH.map(|side| pair.local(side));
    for side in Side::BOTH {
        pair.line(side, DIRECT).up &= death == Death::OneWay && side == Side::B;
    }
    talk(&mut pair, AFTER)?;
    let longest = Side::BOTH.map(|side| longest(&pair.end(side).arrivals, died[side as usize]));
    let time = longest.into_iter().max().unwrap_or_default().saturating_sub(BEAT);
    let gap = Gap { time, probe_timeout: route.probe_timeout() };
    if gap.timeouts() < WAIT_MIN {
        return Err(Violation(format!("the direct path was not in use: {gap:?}")));
    }
    pair.run_until(AFTER, Pair::is_idle)?;
    Side::BOTH.iter().try_for_each(|side| pair.check_settled(*side))?;
    Ok(gap)
}

/// A session, with the relayed path, and a direct one in use.
fn connect(route: &Route, seed: u64) -> Result<Pair, Violation> {
    let mut pair = Pair::new(&Config::peer(), seed);
    for side in Side::BOTH {
        *pair.line(side, PathId::SERVER) = Line { delay: route.relayed, ..Line::good() };
        let direct = Line { delay: route.delay, jitter: route.jitter, ..Line::good() };
        *pair.line(side, DIRECT) = direct;
    }
    pair.dial(Side::A);
    pair.run(Duration::from_secs(2))?;
    for side in Side::BOTH {
        let now = pair.local(side);
        pair.end(side).open(DIRECT, now);
        let transport = pair.end(side).conversation().transport();
        transport.prefer_path(DIRECT, now);
        if transport.path_stats(DIRECT).map(|stats| stats.kind) != Some(PathKind::Direct) {
            return Err(Violation("there is no session".into()));
        }
    }
    Ok(pair)
}

fn talk(pair: &mut Pair, time: Duration) -> Result<(), Violation> {
    let end = pair.elapsed() + time;
    while pair.elapsed() < end {
        for side in Side::BOTH {
            pair.send(side, Channel(0), LEN)?;
        }
        pair.run(BEAT)?;
    }
    Ok(())
}

/// The longest time between two of them, the second being after `since`.
fn longest(arrivals: &[Instant], since: Instant) -> Duration {
    let spaces = arrivals.windows(2).filter(|two| two[1] >= since);
    spaces.map(|two| two[1] - two[0]).max().unwrap_or(Duration::MAX)
}
