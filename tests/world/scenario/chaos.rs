//! A seed's worth of misfortune: bad lines, rebinding boxes, restarting servers, cut lines and
//! crashing peers, while everybody talks. In the end all is mended and the model is asked.

use std::time::Duration;

use rand::seq::IndexedRandom as _;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::stage::{Failure, Site, Stage, token_of};
use crate::link::Link;
use crate::machines::{Pickup, ServerSetup};
use crate::nat::{Dependence, NatConfig, Ports, Refresh, Unsolicited};
use crate::oracle::Side;

/// The number of the carrier's box.
const CARRIER: u32 = 0;
/// The number of the box of the house.
const HOUSE: u32 = 1000;
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "eve"];
/// How long the storm lasts.
const STORM: Duration = Duration::from_secs(90);
/// Time between two decisions of the storm.
const BEAT: Duration = Duration::from_millis(100);
/// How long the machines have to deliver everything once all is mended: several times the
/// longest backoff, expiry and reconnection together.
const CALM: Duration = Duration::from_secs(180);
/// Worst loss on a line.
const LOSS_MAX: f64 = 0.3;
/// Codes with which a message may fail: its recipient was not there, or not in time.
const EXCUSED: [u16; 2] = [404, 408];

/// One run of chaos.
///
/// # Errors
/// [`Failure`] with every violation of the model.
pub fn chaos(seed: u64) -> Result<String, Failure> {
    let mut storm = Storm::new(seed)?;
    storm.rage()?;
    storm.mend()?;
    storm.stage.finish(CALM)?;
    let unexcused = storm.stage.failures().iter().find(|(_, code, _)| !EXCUSED.contains(code));
    if let Some(failed) = unexcused {
        return Err(storm.stage.failure(&format!("a message failed without excuse: {failed:?}")));
    }
    Ok(format!("{:?}, {} faults", storm.stage.model().tally(), storm.faults))
}

struct Storm {
    stage: Stage,
    rng: ChaCha12Rng,
    peers: Vec<Weather>,
    server_back: Option<u32>,
    sent: u32,
    faults: u32,
    beat: u32,
}

/// One peer's troubles.
struct Weather {
    name: &'static str,
    /// What its line is like when nothing is wrong.
    fair: Link,
    /// At which beat its cut line is mended.
    line_back: Option<u32>,
    /// At which beat its crashed process starts again.
    process_back: Option<u32>,
}

impl Storm {
    fn new(seed: u64) -> Result<Self, Failure> {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let handshake_time = Duration::from_micros(*[0, 300].choose(&mut rng).unwrap_or(&0));
        // Every other world has members that look for each other on their LAN.
        let tokens = if seed % 2 == 1 { vec![token_of("family")] } else { Vec::new() };
        let setup = ServerSetup { handshake_time, tokens, ..ServerSetup::default() };
        let mut stage = Stage::with_server(seed, setup);
        let count = rng.random_range(2..=NAMES.len());
        let mut peers = Vec::new();
        for name in &NAMES[..count] {
            let site = any_site(&mut stage, &mut rng);
            stage.add_peer(name, &site, any_pickup(&mut rng));
            let fair = Link::millis(rng.random_range(1..50));
            peers.push(Weather { name, fair, line_back: None, process_back: None });
        }
        stage.wait_registered(Duration::from_secs(5))?;
        Ok(Self { stage, rng, peers, server_back: None, sent: 0, faults: 0, beat: 0 })
    }

    fn rage(&mut self) -> Result<(), Failure> {
        let beats = (STORM.as_millis() / BEAT.as_millis()) as u32;
        while self.beat < beats {
            self.beat += 1;
            self.recover();
            if self.rng.random_bool(0.4) {
                self.speak();
            }
            if self.rng.random_bool(0.05) {
                self.strike();
            }
            self.stage.pass(BEAT)?;
        }
        Ok(())
    }

    /// Somebody who lives says something to somebody else.
    fn speak(&mut self) {
        let lives = |weather: &&Weather| weather.process_back.is_none();
        let speakers: Vec<_> = self.peers.iter().filter(lives).map(|w| w.name).collect();
        let Some(from) = speakers.choose(&mut self.rng).copied() else { return };
        let others: Vec<_> = self.peers.iter().map(|w| w.name).filter(|n| *n != from).collect();
        let Some(to) = others.choose(&mut self.rng).copied() else { return };
        self.sent += 1;
        // Mostly lines of a chat, now and then something of many packets.
        let len = if self.rng.random_bool(0.05) { self.rng.random_range(2_000..20_000) } else { 0 };
        let text = format!("{from} to {to}, {}{}", self.sent, ".".repeat(len));
        self.stage.send(from, to, &text);
    }

    fn strike(&mut self) {
        self.faults += 1;
        let victim = self.rng.random_range(0..self.peers.len());
        match self.rng.random_range(0..11) {
            0..5 => self.change_weather(victim),
            5..7 => self.stage.rebind(self.peers[victim].name),
            7 => self.cut(victim),
            8 => self.crash(victim),
            9 => self.roam(victim),
            _ => self.stop_server(),
        }
    }

    fn change_weather(&mut self, victim: usize) {
        let bad = Link {
            jitter: Duration::from_millis(self.rng.random_range(0..40)),
            loss: self.rng.random_range(0.0..LOSS_MAX),
            duplication: self.rng.random_range(0.0..0.1),
            reordering: self.rng.random_range(0.0..0.1),
            ..self.peers[victim].fair.clone()
        };
        self.stage.set_line(self.peers[victim].name, bad);
    }

    fn cut(&mut self, victim: usize) {
        let back = self.later(100);
        let weather = &mut self.peers[victim];
        if weather.line_back.is_none() {
            weather.line_back = Some(back);
            self.stage.world.cut(self.stage.host(weather.name));
        }
    }

    fn crash(&mut self, victim: usize) {
        let back = self.later(50);
        let weather = &mut self.peers[victim];
        if weather.process_back.is_none() {
            weather.process_back = Some(back);
            self.stage.halt_peer(weather.name);
        }
    }

    /// From home to the café.
    fn roam(&mut self, victim: usize) {
        let site = any_site(&mut self.stage, &mut self.rng);
        let weather = &self.peers[victim];
        if weather.process_back.is_none() {
            self.stage.roam(weather.name, &site);
        }
    }

    fn stop_server(&mut self) {
        if self.server_back.is_none() {
            self.server_back = Some(self.later(50));
            self.stage.halt_server();
        }
    }

    /// A beat at most `beats` from now.
    fn later(&mut self, beats: u32) -> u32 {
        self.beat + self.rng.random_range(1..=beats)
    }

    /// Whatever is due to come back comes back.
    fn recover(&mut self) {
        let beat = self.beat;
        let is_due = |back: &mut u32| *back <= beat;
        if self.server_back.take_if(is_due).is_some() {
            self.stage.restart_server();
        }
        for weather in &mut self.peers {
            if weather.line_back.take_if(is_due).is_some() {
                self.stage.world.heal(self.stage.host(weather.name));
            }
            if weather.process_back.take_if(is_due).is_some() {
                self.stage.restart_peer(weather.name);
            }
        }
    }

    /// All is well again.
    fn mend(&mut self) -> Result<(), Failure> {
        self.beat = u32::MAX;
        self.recover();
        for weather in &self.peers {
            self.stage.set_line(weather.name, weather.fair.clone());
        }
        self.stage.pass(BEAT)
    }
}

fn any_pickup(rng: &mut ChaCha12Rng) -> Pickup {
    if rng.random_bool(0.8) {
        Pickup::AtOnce
    } else {
        Pickup::Every(Duration::from_millis(rng.random_range(10..200)))
    }
}

/// The internet, a home, the one house of several flats, or a home below the one carrier of the
/// world.
fn any_site(stage: &mut Stage, rng: &mut ChaCha12Rng) -> Site {
    match rng.random_range(0..10) {
        0..2 => stage.public(),
        2..6 => stage.behind(any_box(rng)),
        6..8 => stage.place(&Side::behind(HOUSE, NatConfig::PORT_RESTRICTED)),
        _ => {
            let home = rng.random_range(1..1000);
            let side = Side::behind(home, any_box(rng)).then(CARRIER, NatConfig::PORT_RESTRICTED);
            stage.place(&side)
        }
    }
}

fn any_box(rng: &mut ChaCha12Rng) -> NatConfig {
    let ports = [Ports::Preserving, Ports::Sequential { step: 1 }, Ports::Random];
    let routers = [Unsolicited::Drop, Unsolicited::Reject, Unsolicited::AcceptState];
    let dependence =
        |rng: &mut ChaCha12Rng| *Dependence::ALL.choose(rng).unwrap_or(&Dependence::Endpoint);
    let config = NatConfig {
        lifetime: Duration::from_secs(rng.random_range(30..180)),
        refresh: if rng.random_bool(0.5) { Refresh::Both } else { Refresh::Outbound },
        ..NatConfig::SYMMETRIC
    };
    config
        .with_behaviour(dependence(rng), dependence(rng))
        .with_ports(*ports.choose(rng).unwrap_or(&Ports::Random))
        .with_unsolicited(*routers.choose(rng).unwrap_or(&Unsolicited::Drop))
}
