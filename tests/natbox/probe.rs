//! Measures the NAT in front of a host in the terms of RFC 4787, sharing nothing with the product.
//!
//! - Mapping: one socket asks three reflector sockets; do they see the same port?
//! - Filtering: a fresh socket asks one reflector socket and is answered by three; which answers arrive?
//! - Ports: fresh sockets ask one after another; how do their outer ports follow from the inner ones, or each other?
//! - Hairpin: two sockets send to each other's outer address; does anything arrive?
//! - Unsolicited input: the reflector knocks at a port that nobody has used, then a socket with that port sends to the
//!   knocker; a router that kept state for the knock moves the mapping to another port.

use crate::kind::{Kind, Mapping};
use crate::reflector::{self, KNOCKER};
use crate::{Failure, namespace, say};
use clap::{Args, ValueEnum};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};
use world::nat::{Dependence, Ports};

/// Samples of the round trip at most: on a busy machine it takes some to meet a quiet moment.
const ROUND_TRIPS: u32 = 40;
/// Milliseconds that a round trip may be longer than it should be.
const RTT_TOLERANCE: f64 = 5.0;
/// Fresh sockets that show how ports are chosen.
const PORT_SAMPLES: usize = 16;
/// Between two of them, so that their packets stay in order.
const SAMPLE_GAP: Duration = Duration::from_millis(1);
/// Samples of one block of ports lie within this many; 16 of all 64 k do so once in 10^18 times.
const BLOCK_SPAN_MAX: u16 = 4096;
/// Datagrams each way of a hairpin: the first opens the filter, the others pass it.
const HAIRPIN_TRIES: usize = 3;

#[derive(Args)]
pub(crate) struct Options {
    /// Of the host to probe from.
    #[arg(long)]
    namespace: String,
    #[command(flatten)]
    reflector: reflector::Options,
    /// Milliseconds to wait for an answer before it counts as filtered; more than the round trip.
    #[arg(long, default_value_t = 200)]
    wait: u64,
    /// Fail unless the router is of this kind, by name as `delay --router` and lab.sh have them.
    #[arg(long)]
    expect: Option<Kind>,
    /// Fail unless two inner sockets do, or do not, reach each other under their outer addresses.
    #[arg(long)]
    expect_hairpin: Option<Hairpin>,
    /// Fail unless unsolicited input does this to a later mapping.
    #[arg(long)]
    expect_input: Option<Input>,
    /// Fail unless the shortest round trip to the reflector is this many milliseconds, at most 5 more.
    #[arg(long)]
    expect_rtt: Option<f64>,
}

/// What an unsolicited datagram does to a later mapping of the port it came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Input {
    /// The mapping keeps its port: the router drops or rejects the datagram and forgets it.
    Forgotten,
    /// The mapping moves to another port: the router kept state for the datagram.
    Remembered,
    /// Cannot be told: there is no translation, or every mapping has a port of its own anyway.
    Unknown,
}

/// Whether two inner sockets reach each other under their outer addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Hairpin {
    On,
    Off,
    /// Was not measured.
    Unknown,
}

struct Found {
    mapping: Mapping,
    filtering: Dependence,
    input: Input,
    hairpin: Hairpin,
    rtt: Duration,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rtt = self.rtt.as_secs_f64() * 1000.0;
        write!(
            f,
            "mapping={:?} filtering={:?} input={:?} hairpin={:?} rtt_ms={rtt:.1}",
            self.mapping, self.filtering, self.input, self.hairpin
        )
    }
}

/// Measures, prints what was found, and compares.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let prober = Prober {
        namespace: &options.namespace,
        hairpin: options.expect_hairpin.is_some(),
        reflector: options.reflector.sockets(),
        wait: Duration::from_millis(options.wait),
        expected_rtt: match options.expect_rtt {
            Some(expected) => {
                Duration::try_from_secs_f64((expected + RTT_TOLERANCE - 0.1) / 1000.0)?
            }
            None => Duration::ZERO,
        },
    };
    let found = prober.measure()?;
    say(&found.to_string())?;
    compare(options, &found)
}

fn compare(options: &Options, found: &Found) -> Result<(), Failure> {
    if let Some(kind) = options.expect
        && (!same_mapping(kind.mapping, found.mapping) || kind.filtering != found.filtering)
    {
        return Err(format!("the router is not {kind:?}: {found}").into());
    }
    if let Some(hairpin) = options.expect_hairpin
        && hairpin != found.hairpin
    {
        return Err(format!("hairpin is not {hairpin:?}: {found}").into());
    }
    if let Some(input) = options.expect_input
        && input != found.input
    {
        return Err(format!("unsolicited input is not {input:?}: {found}").into());
    }
    if let Some(expected) = options.expect_rtt {
        let measured = found.rtt.as_secs_f64() * 1000.0;
        if !(expected..expected + RTT_TOLERANCE).contains(&measured) {
            return Err(format!("round trip of {measured:.1} ms instead of {expected} ms").into());
        }
    }
    Ok(())
}

/// The same, where one block of ports is as good as another.
fn same_mapping(expected: Mapping, found: Mapping) -> bool {
    use Mapping::Translated;
    match (expected, found) {
        (
            Translated(expected, Ports::Block { first, len }),
            Translated(found, Ports::Block { first: lowest, len: span }),
        ) => expected == found && lowest >= first && lowest - first + span <= len,
        (expected, found) => expected == found,
    }
}

struct Prober<'a> {
    namespace: &'a str,
    /// Whether to look for hairpin.
    hairpin: bool,
    reflector: Vec<SocketAddr>,
    wait: Duration,
    /// A round trip that needs no second look.
    expected_rtt: Duration,
}

/// An answer: which socket sent it, which address that reflector saw, and when it came.
struct Answer {
    index: usize,
    observed: SocketAddr,
    at: Instant,
}

impl Prober<'_> {
    fn measure(&self) -> Result<Found, Failure> {
        let seen = self.ask_each()?.map(|answer| answer.observed);
        let mapping = self.mapping(seen)?;
        let filtering = self.filtering()?;
        let rtt = self.round_trip()?;
        let input = match mapping {
            Mapping::Translated(Dependence::Endpoint, Ports::Preserving) => {
                self.input(seen[0].ip())?
            }
            Mapping::Untranslated | Mapping::Translated(..) => Input::Unknown,
        };
        let hairpin = if self.hairpin { self.find_hairpin()? } else { Hairpin::Unknown };
        Ok(Found { mapping, filtering, input, hairpin, rtt })
    }

    /// One socket, three destinations: (address 0, port 0), (address 0, port 1), (address 1, port 0).
    fn ask_each(&self) -> Result<[Answer; 3], Failure> {
        let socket = self.socket(0)?;
        for index in 0..3 {
            self.send(&socket, index, &format!("each {index}"))?;
        }
        let mut answers = self.collect(&socket, "each", 3)?;
        answers.sort_by_key(|answer| answer.index);
        answers.try_into().map_err(|some: Vec<_>| {
            format!("{} of 3 answers from the reflector to {}", some.len(), self.namespace).into()
        })
    }

    fn mapping(&self, seen: [SocketAddr; 3]) -> Result<Mapping, Failure> {
        let [first, second, third] = seen;
        if first.ip() == self.local_ip()? {
            return Ok(Mapping::Untranslated);
        }
        let dependence = match (first == second, first == third) {
            (true, true) => Dependence::Endpoint,
            (true, false) => Dependence::Address,
            (false, _) => Dependence::AddressAndPort,
        };
        Ok(Mapping::Translated(dependence, self.ports()?))
    }

    /// Fresh sockets ask the same destination one after another.
    fn ports(&self) -> Result<Ports, Failure> {
        let sockets = (0..PORT_SAMPLES).map(|_| self.socket(0)).collect::<Result<Vec<_>, _>>()?;
        for socket in &sockets {
            self.send(socket, 0, "ports 0")?;
            std::thread::sleep(SAMPLE_GAP);
        }
        let mut samples = Vec::new();
        for socket in &sockets {
            let answers = self.collect(socket, "ports", 1)?;
            let answer = answers.first().ok_or("no answer to a sample of the ports")?;
            samples.push((socket.local_addr()?.port(), answer.observed.port()));
        }
        Ok(classify(&samples))
    }

    /// A fresh socket asks (address 0, port 0); that socket, the other port and the other address answer.
    fn filtering(&self) -> Result<Dependence, Failure> {
        let socket = self.socket(0)?;
        self.send(&socket, 0, "filter 0,1,3")?;
        let mut through: Vec<_> =
            self.collect(&socket, "filter", 3)?.iter().map(|answer| answer.index).collect();
        through.sort_unstable();
        match through.as_slice() {
            [0, 1, 3] => Ok(Dependence::Endpoint),
            [0, 1] => Ok(Dependence::Address),
            [0] => Ok(Dependence::AddressAndPort),
            other => Err(format!("answers from {other:?} make no filter").into()),
        }
    }

    /// The shortest of some, until one is as it should be.
    fn round_trip(&self) -> Result<Duration, Failure> {
        let socket = self.socket(0)?;
        let mut shortest = Duration::MAX;
        for _ in 0..ROUND_TRIPS {
            let started = Instant::now();
            self.send(&socket, 0, "rtt 0")?;
            let answers = self.collect(&socket, "rtt", 1)?;
            let answer = answers.first().ok_or("no answer from the reflector")?;
            shortest = shortest.min(answer.at - started);
            if shortest <= self.expected_rtt {
                break;
            }
        }
        Ok(shortest)
    }

    fn input(&self, public: IpAddr) -> Result<Input, Failure> {
        let silent = self.socket(0)?;
        let port = silent.local_addr()?.port();
        let asker = self.socket(0)?;
        self.send(&asker, 0, &format!("knock 0 {public}:{port}"))?;
        if self.collect(&asker, "knock", 1)?.is_empty() {
            return Err("no answer after the knock".into());
        }
        self.send(&silent, KNOCKER, &format!("after {KNOCKER}"))?;
        let answers = self.collect(&silent, "after", 1)?;
        let answer = answers.first().ok_or("no answer from the knocker")?;
        Ok(if answer.observed.port() == port { Input::Forgotten } else { Input::Remembered })
    }

    /// Two sockets learn their outer addresses and send there.
    fn find_hairpin(&self) -> Result<Hairpin, Failure> {
        let sockets = [self.socket(0)?, self.socket(0)?];
        let mut outer = Vec::new();
        for socket in &sockets {
            self.send(socket, 0, "self 0")?;
            let answers = self.collect(socket, "self", 1)?;
            outer.push(answers.first().ok_or("no answer from the reflector")?.observed);
        }
        for _ in 0..HAIRPIN_TRIES {
            for (socket, other) in sockets.iter().zip(outer.iter().rev()) {
                socket.send_to(format!("turn 0 {other}").as_bytes(), other)?;
            }
            std::thread::sleep(SAMPLE_GAP);
        }
        for socket in &sockets {
            if self.collect(socket, "turn", 1)?.is_empty() {
                return Ok(Hairpin::Off);
            }
        }
        Ok(Hairpin::On)
    }

    fn socket(&self, port: u16) -> Result<UdpSocket, Failure> {
        let any: IpAddr = match self.reflector[0] {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        namespace::udp(self.namespace, (any, port).into())
    }

    fn local_ip(&self) -> Result<IpAddr, Failure> {
        let socket = self.socket(0)?;
        socket.connect(self.reflector[0])?;
        Ok(socket.local_addr()?.ip())
    }

    fn send(&self, socket: &UdpSocket, index: usize, question: &str) -> Result<(), Failure> {
        socket.send_to(question.as_bytes(), self.reflector[index])?;
        Ok(())
    }

    /// Answers to `nonce` until `count` came, or none has come for the waiting time.
    fn collect(
        &self,
        socket: &UdpSocket,
        nonce: &str,
        count: usize,
    ) -> Result<Vec<Answer>, Failure> {
        let deadline = Instant::now() + self.wait;
        let mut answers = Vec::new();
        let mut buffer = [0; 200];
        while answers.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            socket.set_read_timeout(Some(left))?;
            let Ok((length, _)) = socket.recv_from(&mut buffer) else { continue };
            answers.extend(parse(&String::from_utf8_lossy(&buffer[..length]), nonce));
        }
        Ok(answers)
    }
}

fn parse(text: &str, nonce: &str) -> Option<Answer> {
    let rest = text.strip_prefix(nonce)?.strip_prefix(' ')?;
    let (index, observed) = rest.split_once(' ')?;
    Some(Answer {
        index: index.parse().ok()?,
        observed: observed.parse().ok()?,
        at: Instant::now(),
    })
}

/// How outer ports were chosen, from (inner port, outer port) in the order in which the mappings were made.
fn classify(samples: &[(u16, u16)]) -> Ports {
    if samples.iter().all(|(inner, outer)| inner == outer) {
        return Ports::Preserving;
    }
    let outer = || samples.iter().map(|(_, outer)| *outer);
    let mut steps =
        outer().zip(outer().skip(1)).map(|(one, next)| next.wrapping_sub(one).cast_signed());
    if let Some(step) = steps.next().filter(|first| steps.all(|step| step == *first)) {
        return Ports::Sequential { step };
    }
    let lowest = outer().min().unwrap_or(0);
    let span = outer().max().unwrap_or(0) - lowest;
    if span < BLOCK_SPAN_MAX {
        Ports::Block { first: lowest, len: span + 1 }
    } else {
        Ports::Random
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_are_told_from_samples() {
        let found = |outer: [u16; 4]| {
            let inner = [50_001, 50_007, 50_002, 50_009];
            classify(&inner.into_iter().zip(outer).collect::<Vec<_>>())
        };
        assert_eq!(found([50_001, 50_007, 50_002, 50_009]), Ports::Preserving);
        assert_eq!(found([7000, 7003, 7006, 7009]), Ports::Sequential { step: 3 });
        assert_eq!(found([7000, 7003, 7006, 7010]), Ports::Block { first: 7000, len: 11 });
        assert_eq!(found([7000, 47_003, 21_000, 1024]), Ports::Random);
    }

    #[test]
    fn a_block_is_the_one_that_holds_all_samples() {
        let mapping = |ports| Mapping::Translated(Dependence::AddressAndPort, ports);
        let expected = mapping(Ports::Block { first: 40_960, len: 2048 });
        let found = |first, len| mapping(Ports::Block { first, len });
        assert!(same_mapping(expected, found(41_000, 1800)));
        assert!(!same_mapping(expected, found(40_000, 1800)));
        assert!(!same_mapping(expected, found(42_000, 1800)));
        assert!(!same_mapping(expected, mapping(Ports::Random)));
    }
}
