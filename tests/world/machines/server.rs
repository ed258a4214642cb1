//! The rendezvous of the world: the hub, its routes and its shell.

use std::collections::VecDeque;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use p2sp_proto::hub::{self, Fast, Hub, Routes, Verdict};
use p2sp_proto::io::{Route, Transmit};
use p2sp_proto::session::StaticKey;
use p2sp_proto::time::earliest;
use p2sp_proto::wire::stun::{Places, SecondIp};
use rand::SeedableRng as _;
use rand_chacha::ChaCha12Rng;

use super::{Process, seed_from};
use crate::actor::Actor;
use crate::clock::Clock;
use crate::packet::Packet;

/// Where every server of the world listens.
pub const SERVER_PORT: u16 = 3478;
/// Its second port.
const ALT_PORT: u16 = 3479;

/// What a server is like.
#[derive(Clone, Debug, Default)]
pub struct ServerSetup {
    /// How long another thread takes for a handshake; zero: done at once.
    pub handshake_time: Duration,
    /// An address with the same two ports.
    pub second_ip: Option<IpAddr>,
    /// Ids and secrets of tokens, each of a network of that name; none: one open network.
    pub tokens: Vec<(String, String)>,
}

/// A rendezvous server.
pub struct ServerHost {
    process: Process,
    seed: u64,
    incarnation: u64,
    setup: ServerSetup,
    hub: Hub,
    routes: Arc<Routes>,
    outbox: VecDeque<Packet>,
    /// Handshakes under way on other threads, by when they are done.
    jobs: VecDeque<(Instant, hub::HandshakeDone)>,
    /// What the operator's log would say.
    log: Vec<String>,
}

impl ServerHost {
    /// Starts a server.
    pub fn start(seed: u64, setup: ServerSetup, clock: &Clock) -> Self {
        let hub = boot_hub(seed, 0, &setup, clock);
        Self {
            process: Process::Running,
            seed,
            incarnation: 0,
            setup,
            routes: hub.routes(),
            hub,
            outbox: VecDeque::new(),
            jobs: VecDeque::new(),
            log: Vec::new(),
        }
    }

    /// The process ends without a word.
    pub fn halt(&mut self) {
        self.process = Process::Halted;
        self.outbox.clear();
        self.jobs.clear();
    }

    /// A new process begins, with the old one's keys.
    pub fn restart(&mut self, clock: &Clock) {
        self.process = Process::Running;
        self.incarnation += 1;
        self.hub = boot_hub(self.seed, self.incarnation, &self.setup, clock);
        self.routes = self.hub.routes();
        self.outbox.clear();
        self.jobs.clear();
    }

    /// Present members.
    pub fn members(&self) -> Vec<String> {
        self.hub.members().iter().map(|member| member.name.to_string()).collect()
    }

    /// What the operator's log says.
    pub fn log(&self) -> &[String] {
        &self.log
    }

    /// For the hub, and then whatever it wants done.
    fn tell_hub(&mut self, input: hub::Input<'_>, now: Instant) {
        self.hub.handle_input(input, now);
        self.drain(now);
    }

    fn drain(&mut self, now: Instant) {
        while let Some(output) = self.hub.poll_output() {
            match output {
                hub::Output::Transmit(transmit) => self.transmit(transmit),
                hub::Output::Event(event) => self.log.push(format!("{event:?}")),
                hub::Output::Effect(hub::Effect::Handshake(job)) => self.compute(job, now),
            }
        }
    }

    fn compute(&mut self, job: hub::HandshakeJob, now: Instant) {
        let done = job.run();
        if self.setup.handshake_time.is_zero() {
            self.hub.handle_input(hub::Input::HandshakeDone(done), now);
        } else {
            self.jobs.push_back((now + self.setup.handshake_time, done));
        }
    }

    fn transmit(&mut self, Transmit { route, payload, .. }: Transmit) {
        self.outbox.push_back(Packet::new(route.local, route.remote, payload));
    }
}

impl Actor for ServerHost {
    fn handle_datagram(
        &mut self,
        local: SocketAddr,
        from: SocketAddr,
        mut data: Vec<u8>,
        now: Instant,
    ) {
        let is_ours = [SERVER_PORT, ALT_PORT].contains(&local.port());
        if self.process == Process::Halted || !is_ours {
            return;
        }
        let route = Route::udp(local, from);
        match Fast::handle(&self.routes, &mut data, route, now) {
            Verdict::Drop => {}
            Verdict::Reply(payload) => self.transmit(Transmit::new(route, payload)),
            Verdict::Elsewhere(transmit) => self.transmit(transmit),
            Verdict::Forward(route) => self.transmit(Transmit::new(route, data)),
            Verdict::Live | Verdict::Rest => {
                self.tell_hub(hub::Input::Datagram { route, data: &mut data }, now);
            }
        }
    }

    fn handle_timeout(&mut self, now: Instant) {
        while self.jobs.front().is_some_and(|(at, _)| *at <= now)
            && let Some((_, done)) = self.jobs.pop_front()
        {
            self.tell_hub(hub::Input::HandshakeDone(done), now);
        }
        if self.hub.poll_timeout().is_some_and(|(at, _)| at <= now) {
            self.hub.handle_timeout(now);
        }
        self.drain(now);
    }

    fn poll_transmit(&mut self) -> Option<Packet> {
        self.outbox.pop_front()
    }

    fn poll_timeout(&self) -> Option<(Instant, &'static str)> {
        if self.process == Process::Halted {
            return None;
        }
        let job = self.jobs.front().map(|(at, _)| (*at, "handshake"));
        earliest(self.hub.poll_timeout(), job)
    }
}

fn boot_hub(seed: u64, incarnation: u64, setup: &ServerSetup, clock: &Clock) -> Hub {
    let token = |(id, secret): &(String, String)| hub::AccessToken {
        id: id.clone(),
        secret: secret.clone(),
        network: id.clone(),
    };
    let mut rng = ChaCha12Rng::seed_from_u64(seed);
    let config = hub::Config {
        static_key: StaticKey::generate(&mut rng),
        reset_key: seed_from(&mut rng),
        tokens: setup.tokens.iter().map(token).collect(),
        expire_intervals: 3,
        broadcast_max: 256,
        aes: false,
        places: places(setup.second_ip),
        limits: hub::Limits::with_tokens(),
    };
    let mut chance = ChaCha12Rng::seed_from_u64(seed ^ (incarnation + 1) << 48);
    Hub::new(config, seed_from(&mut chance), clock.now(), clock.unix_now())
}

/// Sockets on all addresses and both ports.
fn places(second_ip: Option<IpAddr>) -> Places {
    let at = |port| SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), port);
    Places {
        ports: vec![(at(SERVER_PORT), at(ALT_PORT))],
        second_ip: second_ip.map(|ip| SecondIp { local: ip, public: ip }),
        external_ip: None,
    }
}
