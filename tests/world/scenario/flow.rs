//! Two peers in mid-conversation: numbered messages both ways all the time, while the network
//! under them changes. The network's counters tell which way the messages went, and when.
//!
//! [`steady`] plays everything that may happen to a network in the middle of a conversation.

use std::fmt;
use std::time::{Duration, Instant};

use super::stage::{Failure, Stage};
use crate::link::Link;
use crate::machines::{Pickup, Seen};
use crate::nat::{NatConfig, Ports};
use crate::oracle::Side;

/// Between two messages of one peer, unless a scenario says otherwise.
const BEAT: Duration = Duration::from_millis(50);
/// Direct is who got messages directly, and next to none relayed, for so many beats.
const STEADY: usize = 20;
/// What the relay carries beside a direct path in as many beats: what keeps it warm.
const WARM: u64 = 3;
/// Longest time to the first direct path.
const MEET: Duration = Duration::from_secs(5);

/// The conversation.
pub struct Flow {
    /// What it plays on, for scenarios that interfere with it.
    pub stage: Stage,
    /// Between two messages of one peer.
    pub beat: Duration,
    beats: Vec<Beat>,
    texts: Vec<(&'static str, String, Instant)>,
}

/// What the network had carried, each way, when a beat ended.
#[derive(Clone, Copy, Debug, Default)]
struct Beat {
    at: Option<Instant>,
    direct: [u64; 2],
    relayed: [u64; 2],
}

/// How a stretch of the conversation went.
#[derive(Clone, Debug)]
pub struct Figures {
    /// Changes of path that the peers told of, both together.
    pub switches: usize,
    /// Payload datagrams that the relay carried, in percent of all.
    pub relayed_percent: f64,
    /// Longest way of a message from its command to its arrival.
    pub slowest: Duration,
    /// Messages that took longer than half a second.
    pub late: usize,
}

/// What happens in mid-conversation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Alice's router forgets its mappings and gives new ports.
    Reboot,
    /// Alice's host is somewhere else, where it has the same private address.
    Roam,
    /// Alice's host is somewhere else, with a public address.
    RoamPublic,
    /// Alice's line is cut for so many seconds.
    Cut(u32),
    /// Alice's router is off for so many seconds, and gives new ports afterwards.
    Restart(u32),
    /// Alice's router gives a new port every minute, whatever the traffic, three times.
    EveryMinute,
    /// The same as [`Change::Reboot`] while nobody speaks.
    InSilence,
}

impl Change {
    /// All, with outages that end before, while and after the direct path is given up.
    pub const ALL: [Self; 10] = [
        Self::Reboot,
        Self::Roam,
        Self::RoamPublic,
        Self::Cut(3),
        Self::Cut(8),
        Self::Cut(30),
        Self::Restart(1),
        Self::Restart(3),
        Self::EveryMinute,
        Self::InSilence,
    ];
}

/// Longest time until the conversation is direct again once the network is back.
const BACK: Duration = Duration::from_secs(2);
/// How long the conversation goes on after a change.
const AFTER: Duration = Duration::from_secs(10);

/// Two minutes of talk, a message each `beat`, over lines that lose a share of everything.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn lossy(seed: u64, loss: f64, beat: Duration) -> Result<Figures, Failure> {
    let cone = NatConfig::PORT_RESTRICTED;
    let mut flow = Flow::start(seed, [&Side::behind(1, cone), &Side::behind(2, cone)])?;
    flow.set_loss(loss);
    flow.beat = beat;
    let since = flow.now();
    flow.talk(Duration::from_secs(120))?;
    let figures = flow.figures(since);
    flow.finish().map(|()| figures)
}

/// Every change: no message is lost, and both are direct again soon. Then losses, for their
/// figures.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn steady(seed: u64) -> Result<String, Failure> {
    let lines: Result<Vec<_>, _> =
        Change::ALL.map(|change| survive(seed, change)).into_iter().collect();
    let mut text = format!("\n  {}", lines?.join("\n  "));
    for percent in [0, 5, 10, 20] {
        for beat in [50, 500] {
            let loss = f64::from(percent) / 100.0;
            let figures = lossy(seed, loss, Duration::from_millis(beat))?;
            text += &format!("\n  {percent} % loss, a message each {beat} ms: {figures}");
        }
    }
    Ok(text)
}

/// One change.
///
/// # Errors
/// [`Failure`] with what went wrong.
pub fn survive(seed: u64, change: Change) -> Result<String, Failure> {
    let cone = NatConfig::PORT_RESTRICTED;
    let home = Side::behind(1, cone.with_ports(Ports::Random));
    let mut flow = Flow::start(seed, [&home, &Side::behind(2, cone)])?;
    flow.suffer(change)?;
    let since = flow.now();
    flow.talk(AFTER)?;
    let (after, figures) = (flow.direct_after(since), flow.figures(since));
    let line = format!("{change:?}: direct after {after:?}, {figures}");
    match after {
        Some(after) if after <= BACK => flow.finish().map(|()| line),
        Some(_) | None => Err(flow.stage.failure(&line)),
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { switches, relayed_percent, slowest, late } = self;
        let slowest = slowest.as_millis();
        write!(f, "{switches} switches, {relayed_percent:.1} % relayed, ")?;
        write!(f, "slowest {slowest} ms, {late} late")
    }
}

impl Flow {
    /// Alice and bob meet and talk until they are direct.
    ///
    /// # Errors
    /// [`Failure`] when they do not meet.
    pub fn start(seed: u64, sides: [&Side; 2]) -> Result<Self, Failure> {
        let mut stage = Stage::new(seed);
        for (name, side) in ["alice", "bob"].into_iter().zip(sides) {
            let site = stage.place(side);
            stage.add_peer(name, &site, Pickup::AtOnce);
        }
        stage.wait_registered(Duration::from_secs(5))?;
        let mut flow = Self { stage, beat: BEAT, beats: vec![], texts: vec![] };
        let since = flow.now();
        flow.talk(MEET)?;
        match flow.direct_after(since) {
            Some(_) => Ok(flow),
            None => Err(flow.stage.failure("no direct path to begin with")),
        }
    }

    /// The present.
    pub fn now(&self) -> Instant {
        self.stage.world.clock().now()
    }

    /// The change happens, and is over when this returns.
    fn suffer(&mut self, change: Change) -> Result<(), Failure> {
        match change {
            Change::Reboot => self.stage.rebind("alice"),
            Change::Roam => {
                let site = self.stage.behind(NatConfig::PORT_RESTRICTED);
                self.stage.roam("alice", &site);
            }
            Change::RoamPublic => {
                let site = self.stage.public();
                self.stage.roam("alice", &site);
            }
            Change::EveryMinute => {
                for _ in 0..3 {
                    self.stage.rebind("alice");
                    self.talk(Duration::from_secs(60))?;
                }
                self.stage.rebind("alice");
            }
            Change::InSilence => {
                self.stage.rebind("alice");
                self.stage.pass(Duration::from_secs(30))?;
            }
            Change::Cut(seconds) => self.cut(seconds, |_| {})?,
            Change::Restart(seconds) => self.cut(seconds, |stage| stage.rebind("alice"))?,
        }
        Ok(())
    }

    /// Alice's line is cut for a while, and something happens before it works again.
    fn cut(&mut self, seconds: u32, meanwhile: impl FnOnce(&mut Stage)) -> Result<(), Failure> {
        let alice = self.stage.host("alice");
        self.stage.world.cut(alice);
        self.talk(Duration::from_secs(seconds.into()))?;
        meanwhile(&mut self.stage);
        self.stage.world.heal(alice);
        Ok(())
    }

    /// Both talk for a while.
    ///
    /// # Errors
    /// [`Failure`] with what the model says.
    pub fn talk(&mut self, duration: Duration) -> Result<(), Failure> {
        let end = self.now() + duration;
        while self.now() < end {
            for (from, to) in [("alice", "bob"), ("bob", "alice")] {
                let text = format!("{from} {}", self.texts.len());
                self.stage.send(from, to, &text);
                self.texts.push((to, text, self.now()));
            }
            self.stage.pass(self.beat)?;
            self.note();
        }
        Ok(())
    }

    /// The lines of both lose this share of their packets each way.
    pub fn set_loss(&mut self, loss: f64) {
        for name in ["alice", "bob"] {
            self.stage.set_line(name, Link::new(super::stage::ACCESS).with_loss(loss));
        }
    }

    /// How long after `since` the network saw them direct both ways, and staying so.
    pub fn direct_after(&self, since: Instant) -> Option<Duration> {
        let first = self.beats.iter().position(|beat| beat.at >= Some(since))?;
        let steady = |window: &&[Beat]| {
            let (begin, end) = (window[0], window[STEADY]);
            (0..2).all(|way| {
                end.direct[way] - begin.direct[way] >= STEADY as u64 * 9 / 10
                    && end.relayed[way] - begin.relayed[way] <= WARM
            })
        };
        let window = self.beats[first..].windows(STEADY + 1).find(steady)?;
        window[0].at.map(|at| at.saturating_duration_since(since))
    }

    /// How it went since then.
    pub fn figures(&self, since: Instant) -> Figures {
        let switches = ["alice", "bob"].iter().flat_map(|name| self.stage.told(name));
        let is_switch =
            |(at, seen): &&(Instant, Seen)| *at >= since && matches!(seen, Seen::Path { .. });
        let begin = self.beats.iter().rfind(|beat| beat.at <= Some(since));
        let (begin, end) =
            (begin.copied().unwrap_or_default(), *self.beats.last().unwrap_or(&Beat::default()));
        let grown = |of: fn(&Beat) -> [u64; 2]| {
            of(&end).iter().sum::<u64>() - of(&begin).iter().sum::<u64>()
        };
        let (direct, relayed) = (grown(|beat| beat.direct), grown(|beat| beat.relayed));
        let ways = self.texts.iter().filter(|(_, _, sent)| *sent >= since);
        let times: Vec<Duration> = ways
            .filter_map(|(to, text, sent)| Some(self.stage.arrival(to, text)? - *sent))
            .collect();
        Figures {
            switches: switches.filter(is_switch).count(),
            relayed_percent: 100.0 * relayed as f64 / (direct + relayed).max(1) as f64,
            slowest: times.iter().max().copied().unwrap_or_default(),
            late: times.iter().filter(|time| **time > Duration::from_millis(500)).count(),
        }
    }

    /// Everything said has arrived, once and in order.
    ///
    /// # Errors
    /// [`Failure`] with what the model says, or with a message that was given up.
    pub fn finish(mut self) -> Result<(), Failure> {
        self.stage.finish(Duration::from_secs(60))?;
        match self.stage.failures().first() {
            Some(failed) => Err(self.stage.failure(&format!("a message failed: {failed:?}"))),
            None => Ok(()),
        }
    }

    fn note(&mut self) {
        let (alice, bob) = (self.stage.host("alice"), self.stage.host("bob"));
        let traffic = self.stage.world.traffic();
        let ways = [(alice, bob), (bob, alice)];
        self.beats.push(Beat {
            at: Some(self.now()),
            direct: ways.map(|(from, to)| traffic.direct(from, to).payload()),
            relayed: ways.map(|(from, to)| traffic.through(from, to).datagrams),
        });
    }
}
