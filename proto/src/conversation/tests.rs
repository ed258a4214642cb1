//! Two ends over a lossy line: keys change in mid-traffic, sessions replace each other, and
//! every message arrives once.

mod steady;

use crate::time::origin as start_of_time;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

use bytes::Bytes;
use rand::{Rng as _, SeedableRng as _};
use rand_chacha::ChaCha12Rng;

use super::*;
use crate::id::{Boot, Channel, NetworkId, PeerKey, ReceiverId};
use crate::session::{
    Accepted, EarlyVerdict, InitConfig, Initiator, Padding, Replied, ReplyInfo, Responder, Side,
    StaticKey, Suites,
};
use crate::transport::{Config, PathKind};

const ONE_WAY: Duration = Duration::from_millis(15);

struct End {
    key: StaticKey,
    conversation: Conversation,
    heard: Vec<Bytes>,
}

struct Line {
    rng: ChaCha12Rng,
    now: Instant,
    ends: [End; 2],
    flying: VecDeque<(Instant, usize, Vec<u8>)>,
    loss: f64,
    confirmations: usize,
}

impl Line {
    fn new(seed: u64, loss: f64) -> Self {
        let mut rng = ChaCha12Rng::seed_from_u64(seed);
        let now = start_of_time();
        let mut end = || End {
            key: StaticKey::generate(&mut rng),
            conversation: Conversation::new(Config::peer(), now),
            heard: Vec::new(),
        };
        let ends = [end(), end()];
        Self { rng, now, ends, flying: VecDeque::new(), loss, confirmations: 0 }
    }

    /// A handshake begun by end 0, outside the line; answers both sessions.
    fn shake(&mut self, ids: [u32; 2]) -> [(Session, Epoch); 2] {
        let [a, b] = ids.map(ReceiverId);
        let config = InitConfig {
            local: &self.ends[0].key,
            remote: Some(self.ends[1].key.public()),
            responder: Responder::Peer,
            network: NetworkId::default(),
            suites: Suites::new(true),
            receiver: a,
            epoch: Epoch(10),
            boot: Boot(1),
            early: None,
            padding: Padding::None,
        };
        let mut initiator = Initiator::new(config, &mut self.rng).unwrap();
        let init = initiator.datagram().to_vec();
        let network = NetworkId::default();
        let accepted = Accepted::read(&self.ends[1].key, Responder::Peer, network, &init).unwrap();
        let info = ReplyInfo {
            address: Address::Peer(b),
            suite: accepted.suites().choose(Suites::new(true)),
            epoch: Epoch(20),
            boot: Boot(2),
            early: EarlyVerdict::None,
            observed: None,
            reset: None,
        };
        let (reply, replied) = accepted.reply(info, &mut self.rng).unwrap();
        let Replied::Established(theirs) = replied else { panic!("IK needs two messages") };
        let ours = initiator.read_reply(&reply).unwrap().established;
        let [own, other]: [PeerKey; 2] = [self.ends[0].key.public(), self.ends[1].key.public()];
        let (at_a, at_b) = (Address::Peer(a), Address::Peer(b));
        let now = self.now;
        [
            (Session::new(ours, Side::Initiator, own, at_a, at_b, 2048, now), Epoch(20)),
            (Session::new(theirs, Side::Responder, other, at_b, at_a, 2048, now), Epoch(10)),
        ]
    }

    /// Both ends begin on a fresh session, the responder unconfirmed.
    fn connect(&mut self) {
        let [(ours, ours_epoch), (theirs, theirs_epoch)] = self.shake([1, 2]);
        let budget = usize::MAX;
        let now = self.now;
        self.ends[0].conversation.install(ours, ours_epoch, Standing::Confirmed, now);
        self.ends[1].conversation.install(theirs, theirs_epoch, Standing::Awaited { budget }, now);
        for end in &mut self.ends {
            let transport = end.conversation.transport();
            transport.open_path(PathId::SERVER, PathKind::Relay, 1100, now);
        }
        self.ends[0].conversation.transport().probe(PathId::SERVER, now);
    }

    fn say(&mut self, end: usize, text: &str) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        let now = self.now;
        self.ends[end].conversation.transport().send(Channel(0), text, now).unwrap();
    }

    fn pump(&mut self) {
        for index in 0..2 {
            let end = &mut self.ends[index];
            while end.conversation.poll_event().is_some() {}
            while let Some(message) = end.conversation.transport().poll_message(self.now) {
                end.heard.push(message.payload);
            }
            while let Some((_, datagram)) = end.conversation.poll_datagram(&mut self.rng, self.now)
            {
                if !self.rng.random_bool(self.loss) {
                    let late = Duration::from_micros(self.rng.random_range(0..4000));
                    self.flying.push_back((self.now + ONE_WAY + late, 1 - index, datagram));
                }
            }
        }
    }

    fn run(&mut self, time: Duration) {
        let end = self.now + time;
        loop {
            self.pump();
            let timers = self.ends.iter().filter_map(|end| end.conversation.poll_timeout());
            let next = timers.map(|(at, _)| at).chain(self.flying.iter().map(|(at, ..)| *at)).min();
            let Some(next) = next.filter(|next| *next <= end) else { break };
            self.now = self.now.max(next);
            self.step();
        }
        self.now = end;
    }

    fn step(&mut self) {
        let now = self.now;
        let flying = std::mem::take(&mut self.flying);
        let (due, rest) = flying.into_iter().partition::<VecDeque<_>, _>(|(at, ..)| *at <= now);
        self.flying = rest;
        for (_, to, mut datagram) in due {
            let conversation = &mut self.ends[to].conversation;
            if let Ok(arrived) = conversation.handle_packet(&mut datagram, &mut self.rng, now) {
                self.confirmations += usize::from(arrived.confirmed);
            }
            let unopened = conversation.transport_ref().path_stats(PathId::SERVER).is_none();
            if unopened && conversation.session().is_some() {
                conversation.transport().open_path(PathId::SERVER, PathKind::Relay, 1100, now);
            }
        }
        for end in &mut self.ends {
            if end.conversation.poll_timeout().is_some_and(|(at, _)| at <= now) {
                end.conversation.handle_timeout(now);
            }
        }
    }
}

fn numbered(count: usize) -> Vec<Bytes> {
    (0..count).map(|n| Bytes::from(n.to_string())).collect()
}

#[test]
fn keys_change_in_mid_traffic_without_a_gap() {
    for seed in 0..8 {
        let mut line = Line::new(seed, 0.2);
        line.connect();
        for n in 0..200 {
            line.say(0, &n.to_string());
            line.say(1, &n.to_string());
            if n % 20 == 5 {
                line.ends[n / 20 % 2].conversation.request_rekey();
            }
            line.run(Duration::from_millis(40));
        }
        line.run(Duration::from_secs(30));
        for end in &line.ends {
            assert_eq!(end.heard, numbered(200), "seed {seed}");
        }
        let generations =
            line.ends.each_ref().map(|end| end.conversation.session().unwrap().generation());
        assert!(generations.iter().all(|generation| *generation >= 5), "{generations:?}");
    }
}

#[test]
fn a_tentative_session_takes_over_with_its_first_packet() {
    let mut line = Line::new(1, 0.0);
    line.connect();
    line.say(1, "0");
    line.run(Duration::from_secs(1));
    assert_eq!(line.confirmations, 1);
    let [(ours, ours_epoch), (theirs, theirs_epoch)] = line.shake([3, 4]);
    line.ends[1].conversation.install_tentative(theirs, theirs_epoch);
    // The living session goes on until the new one has shown itself.
    line.say(0, "0");
    line.run(Duration::from_secs(1));
    assert_eq!(line.ends[1].heard, numbered(1));
    let now = line.now;
    line.ends[0].conversation.install(ours, ours_epoch, Standing::Confirmed, now);
    let transport = line.ends[0].conversation.transport();
    transport.open_path(PathId::SERVER, PathKind::Relay, 1100, now);
    transport.probe(PathId::SERVER, now);
    line.say(0, "1");
    line.say(1, "1");
    line.run(Duration::from_secs(1));
    assert_eq!(line.confirmations, 2);
    for end in &line.ends {
        assert_eq!(end.heard, numbered(2));
        let local: Vec<Address> = end.conversation.local_addresses().collect();
        assert_eq!(local.len(), 1, "the older session is gone");
    }
}

#[test]
fn an_unconfirmed_session_says_no_more_than_its_budget() {
    let mut line = Line::new(2, 0.0);
    let [_, (theirs, epoch)] = line.shake([1, 2]);
    let (now, budget) = (line.now, 3600);
    line.ends[1].conversation.install(theirs, epoch, Standing::Awaited { budget }, now);
    let transport = line.ends[1].conversation.transport();
    transport.open_path(PathId::SERVER, PathKind::Server, 1100, now);
    for _ in 0..100 {
        line.say(1, &"x".repeat(900));
    }
    let mut spent = 0;
    for _ in 0..200 {
        while let Some((_, datagram)) =
            line.ends[1].conversation.poll_datagram(&mut line.rng, line.now)
        {
            spent += datagram.len();
        }
        let Some((at, _)) = line.ends[1].conversation.poll_timeout() else { break };
        line.now = at;
        line.ends[1].conversation.handle_timeout(at);
    }
    assert!((1..=budget).contains(&spent), "{spent}");
}

#[test]
fn foreign_and_mangled_packets_change_nothing() {
    let mut line = Line::new(3, 0.0);
    line.connect();
    line.run(Duration::from_secs(1));
    line.say(0, "0");
    let (_, datagram) = line.ends[0].conversation.poll_datagram(&mut line.rng, line.now).unwrap();
    for index in 0..datagram.len() {
        let mut mangled = datagram.clone();
        mangled[index] ^= 1;
        let now = line.now;
        let answer = line.ends[1].conversation.handle_packet(&mut mangled, &mut line.rng, now);
        assert!(matches!(answer, Err(PacketError::Open(_))), "byte {index}");
    }
    let now = line.now;
    let mut first = datagram.clone();
    assert!(line.ends[1].conversation.handle_packet(&mut first, &mut line.rng, now).is_ok());
    let mut again = datagram;
    let replay = line.ends[1].conversation.handle_packet(&mut again, &mut line.rng, now);
    assert_eq!(replay, Err(PacketError::Open(OpenError::Replayed)));
    line.run(Duration::from_secs(1));
    assert_eq!(line.ends[1].heard, numbered(1));
}
