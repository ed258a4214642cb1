//! The internet of the lab: access links with a delay, a way of several hops between them, optional loss and jitter, and
//! counters that tell from outside who sent how much to whom.
//!
//! One thread reads each TUN device and queues what it reads; one thread delivers what is due. TUN devices carry no
//! Ethernet, so no address resolution disturbs the first packet. A site may have a router in user space: what it
//! sends and gets is then translated by the simulated internet's NAT box, which does what the kernel cannot.

use crate::control::{self, Count, Order};
use crate::kind::Kind;
use crate::packet::{self, Datagram, Prefix};
use crate::{Failure, uplink};
use clap::Args;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};
use std::fs::File;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::str::FromStr;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use world::Packet;
use world::nat::NatBox;

/// Packets under way at once, so that a flood cannot eat the machine: 64 Ki of 1500 bytes are 96 MiB.
const UNDER_WAY_MAX: usize = 65_536;
/// The largest packet a TUN device hands over.
const PACKET_MAX: usize = 65_535;
/// Routers on the way from one site to another: two in each access network and six between them.
const HOPS: u8 = 10;

#[derive(Args)]
pub(crate) struct Options {
    /// A site: NAME=NAMESPACE/INTERFACE,MS,PREFIX[,PREFIX..] with the one-way delay of its access link.
    #[arg(long = "link", required = true)]
    links: Vec<LinkSpec>,
    /// A router in user space between a site and its access link: SITE=KIND@ADDRESS with its public address.
    #[arg(long = "router")]
    routers: Vec<RouterSpec>,
    /// Unix socket for `tell`.
    #[arg(long)]
    control: PathBuf,
    /// Chooses which packets get lost, how late they are and which ports routers in user space draw.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Runs until killed.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let links = options.links.iter().map(Link::open).collect::<Result<Vec<_>, _>>()?;
    let mut state = State::new(options.seed);
    for router in &options.routers {
        let site = site(&links, &router.site)?;
        state.routers.insert(site, router.build()?);
    }
    let internet = Internet { links, state: Mutex::new(state), news: Condvar::new() };
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

#[derive(Clone)]
struct RouterSpec {
    site: String,
    kind: Kind,
    address: Ipv4Addr,
}

impl FromStr for RouterSpec {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        let wrong = || format!("{text} is no SITE=KIND@ADDRESS");
        let (site, rest) = text.split_once('=').ok_or_else(wrong)?;
        let (kind, address) = rest.split_once('@').ok_or_else(wrong)?;
        Ok(Self { site: site.to_owned(), kind: kind.parse()?, address: address.parse()? })
    }
}

impl RouterSpec {
    fn build(&self) -> Result<NatBox, Failure> {
        let config = self.kind.config().ok_or("a router that translates nothing needs no box")?;
        Ok(NatBox::new(config, self.address.into()))
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

fn site(links: &[Link], name: &str) -> Result<usize, Failure> {
    let found = links.iter().position(|link| link.spec.name == name);
    found.ok_or_else(|| format!("the internet has no site {name}").into())
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
    weather: Weather,
    /// Routers in user space, by site.
    routers: BTreeMap<usize, NatBox>,
    chance: ChaCha8Rng,
    queued: u64,
}

/// What goes wrong on the way.
#[derive(Default)]
struct Weather {
    /// Per cent of the packets that get lost, once per crossing.
    loss: f64,
    /// Most that a packet is late.
    jitter: Duration,
    /// Pairs of sites between which nothing passes, in both orders.
    cut: BTreeSet<(usize, usize)>,
}

/// Ordered by due time, then by arrival, so that without jitter packets of one link never overtake each other.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Travelling {
    due: Instant,
    number: u64,
    from: usize,
    to: usize,
    packet: Vec<u8>,
}

impl State {
    fn new(seed: u64) -> Self {
        Self {
            under_way: BinaryHeap::new(),
            counts: BTreeMap::new(),
            weather: Weather::default(),
            routers: BTreeMap::new(),
            chance: ChaCha8Rng::seed_from_u64(seed),
            queued: 0,
        }
    }

    /// Translates what leaves a site with a router in user space; tells whether it passes.
    fn leave(&mut self, site: usize, packet: &mut [u8], now: Instant) -> bool {
        let Some(router) = self.routers.get_mut(&site) else { return true };
        let Some(mut datagram) = Datagram::in_packet(packet) else { return false };
        let Some(mut ends) = ends(&datagram) else { return false };
        let translated = router.outbound(&mut ends, now, &mut self.chance).is_ok();
        if let SocketAddr::V4(source) = ends.src {
            datagram.set_source(source);
        }
        translated
    }

    /// The same for what enters it.
    fn enter(&mut self, site: usize, packet: &mut [u8], now: Instant) -> bool {
        let Some(router) = self.routers.get_mut(&site) else { return true };
        let Some(mut datagram) = Datagram::in_packet(packet) else { return false };
        let Some(mut ends) = ends(&datagram) else { return false };
        let accepted = router.inbound(&mut ends, now).is_ok();
        if let SocketAddr::V4(destination) = ends.dst {
            datagram.set_destination(destination);
        }
        accepted
    }

    fn queue(&mut self, due: Instant, from: usize, to: usize, mut packet: Vec<u8>) {
        if !packet::travel(&mut packet, HOPS) {
            self.count(from, to, &packet, |count| count.expired += 1);
            return;
        }
        let unlucky = self.chance.random_range(0.0..100.0) < self.weather.loss;
        let cut = self.weather.cut.contains(&(from, to));
        if unlucky || cut || self.under_way.len() >= UNDER_WAY_MAX {
            self.count(from, to, &packet, |count| count.lost += 1);
            return;
        }
        self.queued += 1;
        let late = self.weather.jitter.mul_f64(self.chance.random_range(0.0..1.0));
        let (due, number) = (due + late, self.queued);
        self.under_way.push(Reverse(Travelling { due, number, from, to, packet }));
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

/// The part of a datagram that a box looks at.
fn ends(datagram: &Datagram<'_>) -> Option<Packet> {
    Some(Packet::new(datagram.source()?, datagram.destination()?, []))
}

impl Internet {
    /// Queues what the site `from` sends. Ends with its device.
    fn read(&self, from: usize) {
        let link = &self.links[from];
        let mut buffer = vec![0; PACKET_MAX];
        while let Ok(length) = (&link.device).read(&mut buffer) {
            let now = Instant::now();
            let mut packet = buffer[..length].to_vec();
            let mut state = self.state();
            if !state.leave(from, &mut packet, now) {
                continue;
            }
            let to = packet::destination(&packet).and_then(|address| self.route(address));
            // What a site sends to its own addresses never leaves its access network.
            let Some(to) = to.filter(|to| *to != from) else { continue };
            let due = now + link.spec.delay + self.links[to].spec.delay;
            state.queue(due, from, to, packet);
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
            if let Some(mut arrived) = state.take_due(now) {
                if !state.enter(arrived.to, &mut arrived.packet, now) {
                    continue;
                }
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
            let _ = control::answer(stream, |order| self.obey(order));
        }
    }

    fn obey(&self, order: Order) -> Result<Option<Value>, Failure> {
        match order {
            Order::Stats => return Ok(Some(self.counts())),
            Order::Loss(percent) => self.state().weather.loss = percent,
            Order::Jitter(most) => self.state().weather.jitter = most,
            Order::Cut(one, other) => {
                self.state().weather.cut.extend(self.both_ways(&one, &other)?)
            }
            Order::Mend(one, other) => {
                let mended = self.both_ways(&one, &other)?;
                self.state().weather.cut.retain(|pair| !mended.contains(pair));
            }
            Order::Rebind(name) => {
                let site = site(&self.links, &name)?;
                let mut state = self.state();
                let State { routers, chance, .. } = &mut *state;
                let router =
                    routers.get_mut(&site).ok_or("that site has no router in user space")?;
                router.rebind(chance);
            }
        }
        Ok(None)
    }

    fn both_ways(&self, one: &str, other: &str) -> Result<[(usize, usize); 2], Failure> {
        let (one, other) = (site(&self.links, one)?, site(&self.links, other)?);
        Ok([(one, other), (other, one)])
    }

    fn counts(&self) -> Value {
        let name = |site: usize| self.links[site].spec.name.as_str();
        let state = self.state();
        let counts = state.counts.iter();
        counts.map(|(&(from, to), count)| count.to_json(name(from), name(to))).collect()
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

    /// From 10.1.0.130:5000 to 198.51.100.1:3478.
    fn datagram() -> Vec<u8> {
        let mut packet = vec![0; 28];
        packet[0] = 0x45;
        packet[8] = 64;
        packet[9] = 17;
        packet[12..20].copy_from_slice(&[10, 1, 0, 130, 198, 51, 100, 1]);
        packet[20..24].copy_from_slice(&[0x13, 0x88, 0x0D, 0x96]);
        packet
    }

    #[test]
    fn packets_arrive_when_due_and_in_the_order_they_were_sent() {
        let start = Instant::now();
        let mut state = State::new(1);
        state.queue(start + Duration::from_millis(40), A, B, datagram());
        state.queue(start + Duration::from_millis(20), B, A, datagram());
        state.queue(start + Duration::from_millis(20), A, B, datagram());

        assert!(state.take_due(start + Duration::from_millis(19)).is_none());
        let now = start + Duration::from_millis(40);
        let order: Vec<_> =
            std::iter::from_fn(|| state.take_due(now)).map(|p| (p.from, p.to)).collect();
        assert_eq!(order, [(B, A), (A, B), (A, B)]);
        assert_eq!(state.counts[&(A, B)], Count { datagrams: 2, bytes: 56, ..Count::default() });
    }

    #[test]
    fn loss_takes_its_share_and_is_counted() {
        let start = Instant::now();
        let mut state = State::new(7);
        state.weather.loss = 20.0;
        for _ in 0..1000 {
            state.queue(start, A, B, datagram());
        }
        while state.take_due(start).is_some() {}
        let count = state.counts[&(A, B)];
        assert_eq!(count.datagrams + count.lost, 1000);
        assert!((150..250).contains(&count.lost), "lost {}", count.lost);
    }

    #[test]
    fn a_packet_with_too_short_a_life_expires_on_the_way() {
        let start = Instant::now();
        let mut state = State::new(1);
        for ttl in [5, HOPS, HOPS + 1] {
            let mut packet = datagram();
            packet[8] = ttl;
            state.queue(start, A, B, packet);
        }
        let arrived: Vec<_> = std::iter::from_fn(|| state.take_due(start)).collect();
        assert_eq!(arrived.iter().map(|one| one.packet[8]).collect::<Vec<_>>(), [1]);
        assert_eq!((state.counts[&(A, B)].datagrams, state.counts[&(A, B)].expired), (1, 2));
    }

    #[test]
    fn a_cut_takes_everything_between_its_two_sites() {
        let start = Instant::now();
        let mut state = State::new(1);
        state.weather.cut.insert((A, B));
        state.queue(start, A, B, datagram());
        state.queue(start, B, A, datagram());
        let arrived: Vec<_> = std::iter::from_fn(|| state.take_due(start)).collect();
        assert_eq!(arrived.iter().map(|one| one.from).collect::<Vec<_>>(), [B]);
        assert_eq!(state.counts[&(A, B)].lost, 1);
    }

    #[test]
    fn a_router_in_user_space_translates_both_ways() {
        let now = Instant::now();
        let mut state = State::new(1);
        let spec: RouterSpec = "a=apdm-apdf-seq3@192.0.2.1".parse().unwrap();
        state.routers.insert(A, spec.build().unwrap());
        let mut out = datagram();
        assert!(state.leave(A, &mut out, now));
        let mapped = Datagram::in_packet(&mut out).unwrap().source().unwrap();
        assert_eq!(mapped.ip(), IpAddr::from([192, 0, 2, 1]));

        let mut answer = datagram();
        let mut inside = Datagram::in_packet(&mut answer).unwrap();
        let SocketAddr::V4(mapped) = mapped else { panic!("{mapped} is not IPv4") };
        inside.set_source("198.51.100.1:3478".parse().unwrap());
        inside.set_destination(mapped);
        let mut stranger = answer.clone();
        assert!(state.enter(A, &mut answer, now));
        let inner = Datagram::in_packet(&mut answer).unwrap().destination();
        assert_eq!(inner, Some("10.1.0.130:5000".parse().unwrap()));

        let mut inside = Datagram::in_packet(&mut stranger).unwrap();
        inside.set_source("198.51.100.1:3479".parse().unwrap());
        assert!(!state.enter(A, &mut stranger, now));
        assert!(state.enter(B, &mut stranger, now), "the other site has no such router");
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
