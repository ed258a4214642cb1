//! The internet of the lab: access links with a delay, one backbone without, optional loss, and counters that tell from
//! outside who sent how much to whom.
//!
//! One thread reads each TUN device and queues what it reads; one thread delivers what is due. TUN devices carry no
//! Ethernet, so no address resolution disturbs the first packet.

use crate::packet::{self, Prefix};
use crate::{Failure, say, uplink};
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::IpAddr;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Packets under way at once, so that a flood cannot eat the machine: 64 Ki of 1500 bytes are 96 MiB.
const UNDER_WAY_MAX: usize = 65_536;
/// The largest packet a TUN device hands over.
const PACKET_MAX: usize = 65_535;

#[derive(Args)]
pub(crate) struct Options {
    /// A site: NAME=NAMESPACE/INTERFACE,MS,PREFIX[,PREFIX..] with the one-way delay of its access link.
    #[arg(long = "link", required = true)]
    links: Vec<LinkSpec>,
    /// Unix socket for `stats` and `loss`.
    #[arg(long)]
    control: PathBuf,
    /// Per cent of the packets that get lost, once per crossing.
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Chooses which packets get lost.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

#[derive(Args)]
pub(crate) struct StatsOptions {
    #[arg(long)]
    control: PathBuf,
}

#[derive(Args)]
pub(crate) struct LossOptions {
    #[arg(long)]
    control: PathBuf,
    /// Per cent of the packets that get lost from now on.
    percent: f64,
}

/// Runs until killed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let links = options.links.iter().map(Link::open).collect::<Result<Vec<_>, _>>()?;
    let internet = Internet {
        links,
        state: Mutex::new(State::new(options.loss, options.seed)),
        news: Condvar::new(),
    };
    let control = UnixListener::bind(&options.control)?;
    std::thread::scope(|scope| {
        for from in 0..internet.links.len() {
            let internet = &internet;
            scope.spawn(move || internet.read(from));
        }
        scope.spawn(|| internet.deliver());
        internet.serve(&control)
    })
}

/// Prints the counters as JSON.
pub(crate) fn stats(options: &StatsOptions) -> Result<(), Failure> {
    say(&ask(&options.control, "stats")?)
}

/// Changes the loss.
pub(crate) fn set_loss(options: &LossOptions) -> Result<(), Failure> {
    ask(&options.control, &format!("loss {}", options.percent)).map(drop)
}

/// Counters by (from, to), in the names of the links.
pub(crate) fn counters(control: &Path) -> Result<BTreeMap<(String, String), Count>, Failure> {
    let answer: Value = serde_json::from_str(&ask(control, "stats")?)?;
    let rows = answer.as_array().ok_or("the counters are no list")?;
    rows.iter().map(Count::from_json).collect()
}

fn ask(control: &Path, question: &str) -> Result<String, Failure> {
    let mut stream = UnixStream::connect(control)
        .map_err(|error| format!("no internet at {}: {error}", control.display()))?;
    writeln!(stream, "{question}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer.trim_end().to_owned())
}

/// What went from one site to another: UDP datagrams only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Delivered.
    pub(crate) datagrams: u64,
    /// Delivered, IP headers included.
    pub(crate) bytes: u64,
    /// Lost on purpose, or for want of room.
    pub(crate) lost: u64,
}

impl Count {
    fn from_json(row: &Value) -> Result<((String, String), Self), Failure> {
        let text =
            |key: &str| row[key].as_str().map(str::to_owned).ok_or("a counter without a name");
        let number = |key: &str| row[key].as_u64().ok_or("a counter without a number");
        let count = Self {
            datagrams: number("datagrams")?,
            bytes: number("bytes")?,
            lost: number("lost")?,
        };
        Ok(((text("from")?, text("to")?), count))
    }
}

#[derive(Clone)]
struct LinkSpec {
    name: String,
    namespace: String,
    interface: String,
    delay: Duration,
    prefixes: Vec<Prefix>,
}

impl FromStr for LinkSpec {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || format!("{text} is no NAME=NAMESPACE/INTERFACE,MS,PREFIX[,PREFIX..]");
        let (name, rest) = text.split_once('=').ok_or_else(wrong)?;
        let mut parts = rest.split(',');
        let (namespace, interface) =
            parts.next().and_then(|place| place.split_once('/')).ok_or_else(wrong)?;
        let delay: f64 = parts.next().ok_or_else(wrong)?.parse()?;
        let prefixes = parts.map(Prefix::from_str).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            interface: interface.to_owned(),
            delay: Duration::try_from_secs_f64(delay / 1000.0)?,
            prefixes,
        })
    }
}

struct Link {
    spec: LinkSpec,
    device: File,
}

impl Link {
    fn open(spec: &LinkSpec) -> Result<Self, Failure> {
        let device = uplink::open(&spec.namespace, &spec.interface)?;
        Ok(Self { spec: spec.clone(), device })
    }
}

struct Internet {
    links: Vec<Link>,
    state: Mutex<State>,
    /// A packet was queued that may be due before all others.
    news: Condvar,
}

struct State {
    under_way: BinaryHeap<Reverse<Travelling>>,
    counts: BTreeMap<(usize, usize), Count>,
    loss: f64,
    chance: ChaCha8Rng,
    queued: u64,
}

/// Ordered by due time, then by arrival, so that packets of one link never overtake each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Travelling {
    due: Instant,
    number: u64,
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

impl State {
    fn new(loss: f64, seed: u64) -> Self {
        Self {
            under_way: BinaryHeap::new(),
            counts: BTreeMap::new(),
            loss,
            chance: ChaCha8Rng::seed_from_u64(seed),
            queued: 0,
        }
    }

    fn queue(&mut self, due: Instant, from: usize, to: usize, packet: &[u8]) {
        let unlucky = self.chance.random_range(0.0..100.0) < self.loss;
        if unlucky || self.under_way.len() >= UNDER_WAY_MAX {
            self.count(from, to, packet, |count| count.lost += 1);
            return;
        }
        self.queued += 1;
        let packet = packet.to_vec();
        self.under_way.push(Reverse(Travelling { due, number: self.queued, from, to, packet }));
    }

    fn take_due(&mut self, now: Instant) -> Option<Travelling> {
        let Reverse(next) = self.under_way.peek()?;
        if next.due > now {
            return None;
        }
        let Reverse(arrived) = self.under_way.pop()?;
        let bytes = arrived.packet.len() as u64;
        self.count(arrived.from, arrived.to, &arrived.packet, |count| {
            count.datagrams += 1;
            count.bytes += bytes;
        });
        Some(arrived)
    }

    fn count(&mut self, from: usize, to: usize, packet: &[u8], change: impl FnOnce(&mut Count)) {
        if packet::is_udp(packet) {
            change(self.counts.entry((from, to)).or_default());
        }
    }
}

impl Internet {
    /// Queues what the site `from` sends. Ends with its device.
    fn read(&self, from: usize) {
        let link = &self.links[from];
        let mut packet = vec![0; PACKET_MAX];
        while let Ok(length) = (&link.device).read(&mut packet) {
            let now = Instant::now();
            let packet = &packet[..length];
            let Some(to) = packet::destination(packet).and_then(|address| self.route(address))
            else {
                continue;
            };
            let due = now + link.spec.delay + self.links[to].spec.delay;
            self.state().queue(due, from, to, packet);
            self.news.notify_one();
        }
    }

    fn route(&self, address: IpAddr) -> Option<usize> {
        self.links
            .iter()
            .position(|link| link.spec.prefixes.iter().any(|prefix| prefix.contains(address)))
    }

    fn deliver(&self) {
        let mut state = self.state();
        loop {
            let now = Instant::now();
            if let Some(arrived) = state.take_due(now) {
                drop(state);
                // A device that is down or full loses the packet, as a link does.
                let _ = (&self.links[arrived.to].device).write(&arrived.packet);
                state = self.state();
                continue;
            }
            let next = state.under_way.peek().map(|Reverse(next)| next.due);
            state = match next {
                Some(due) => {
                    let waited = self.news.wait_timeout(state, due.saturating_duration_since(now));
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
                None => self.news.wait(state).unwrap_or_else(PoisonError::into_inner),
            };
        }
    }

    fn serve(&self, control: &UnixListener) -> Result<(), Failure> {
        loop {
            let (stream, _) = control.accept()?;
            // A client that went away early harms nobody but itself.
            let _ = self.answer(stream);
        }
    }

    fn answer(&self, mut stream: UnixStream) -> Result<(), Failure> {
        let mut question = String::new();
        BufReader::new(stream.try_clone()?).read_line(&mut question)?;
        match question.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["stats"] => writeln!(stream, "{}", self.counts())?,
            ["loss", percent] => self.state().loss = percent.parse()?,
            _ => writeln!(stream, "unknown question")?,
        }
        Ok(())
    }

    fn counts(&self) -> Value {
        let state = self.state();
        let row = |(&(from, to), count): (&(usize, usize), &Count)| {
            let (from, to) = (&self.links[from].spec.name, &self.links[to].spec.name);
            json!({"from": from, "to": to, "datagrams": count.datagrams, "bytes": count.bytes, "lost": count.lost})
        };
        state.counts.iter().map(row).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: usize = 0;
    const B: usize = 1;

    fn datagram() -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[9] = 17;
        packet
    }

    #[test]
    fn packets_arrive_when_due_and_in_the_order_they_were_sent() {
        let start = Instant::now();
        let mut state = State::new(0.0, 1);
        state.queue(start + Duration::from_millis(40), A, B, &datagram());
        state.queue(start + Duration::from_millis(20), B, A, &datagram());
        state.queue(start + Duration::from_millis(20), A, B, &datagram());

        assert!(state.take_due(start + Duration::from_millis(19)).is_none());
        let now = start + Duration::from_millis(40);
        let order: Vec<_> =
            std::iter::from_fn(|| state.take_due(now)).map(|p| (p.from, p.to)).collect();
        assert_eq!(order, [(B, A), (A, B), (A, B)]);
        assert_eq!(state.counts[&(A, B)], Count { datagrams: 2, bytes: 56, lost: 0 });
    }

    #[test]
    fn loss_takes_its_share_and_is_counted() {
        let start = Instant::now();
        let mut state = State::new(20.0, 7);
        for _ in 0..1000 {
            state.queue(start, A, B, &datagram());
        }
        while state.take_due(start).is_some() {}
        let count = state.counts[&(A, B)];
        assert_eq!(count.datagrams + count.lost, 1000);
        assert!((150..250).contains(&count.lost), "lost {}", count.lost);
    }

    #[test]
    fn a_link_is_read_from_its_text() {
        let link: LinkSpec = "a=lab-ra/wan0,20.5,192.0.2.0/24,2001:db8::/32".parse().unwrap();
        assert_eq!((link.name.as_str(), link.namespace.as_str()), ("a", "lab-ra"));
        assert_eq!(link.interface, "wan0");
        assert_eq!(link.delay, Duration::from_micros(20_500));
        assert_eq!(link.prefixes.len(), 2);
        assert!("a=lab-ra,20".parse::<LinkSpec>().is_err());
        assert!("a=lab-ra/wan0,-1".parse::<LinkSpec>().is_err());
    }
}
