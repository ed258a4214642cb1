//! Measures the NAT in front of a host in the terms of RFC 4787, sharing nothing with the product.
//!
//! - Mapping: one socket asks three reflector sockets; do they see the same port?
//! - Filtering: a fresh socket asks one reflector socket and is answered by three; which answers arrive?
//! - Unsolicited input: the reflector knocks at a port that nobody has used, then a socket with that port sends to the
//!   knocker; a router that kept state for the knock moves the mapping to another port.

use crate::reflector::{self, KNOCKER};
use crate::{Failure, namespace, say};
use clap::{Args, ValueEnum};
use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Samples of the round trip at most: on a busy machine it takes some to meet a quiet moment.
const ROUND_TRIPS: u32 = 40;
/// Milliseconds that a round trip may be longer than it should be.
const RTT_TOLERANCE: f64 = 5.0;

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
    /// Fail unless the router is of this kind.
    #[arg(long)]
    expect: Option<Kind>,
    /// Fail unless unsolicited input does this to a later mapping.
    #[arg(long)]
    expect_input: Option<Input>,
    /// Fail unless the shortest round trip to the reflector is this many milliseconds, at most 5 more.
    #[arg(long)]
    expect_rtt: Option<f64>,
}

/// The routers of the lab.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
#[value(rename_all = "lower")]
pub(crate) enum Kind {
    None,
    FullCone,
    Restricted,
    PortRestricted,
    Symmetric,
}

impl Kind {
    fn traits(self) -> (Mapping, Filtering) {
        match self {
            Self::None => (Mapping::Untranslated, Filtering::EndpointIndependent),
            Self::FullCone => (Mapping::EndpointIndependent, Filtering::EndpointIndependent),
            Self::Restricted => (Mapping::EndpointIndependent, Filtering::AddressDependent),
            Self::PortRestricted => {
                (Mapping::EndpointIndependent, Filtering::AddressAndPortDependent)
            }
            Self::Symmetric => {
                (Mapping::AddressAndPortDependent, Filtering::AddressAndPortDependent)
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mapping {
    Untranslated,
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filtering {
    EndpointIndependent,
    AddressDependent,
    AddressAndPortDependent,
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

struct Found {
    mapping: Mapping,
    filtering: Filtering,
    input: Input,
    rtt: Duration,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rtt = self.rtt.as_secs_f64() * 1000.0;
        write!(
            f,
            "mapping={:?} filtering={:?} input={:?} rtt_ms={rtt:.1}",
            self.mapping, self.filtering, self.input
        )
    }
}

/// Measures, prints what was found, and compares.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let prober = Prober {
        namespace: &options.namespace,
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
        && kind.traits() != (found.mapping, found.filtering)
    {
        return Err(format!("the router is not {kind:?}: {found}").into());
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

struct Prober<'a> {
    namespace: &'a str,
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
            Mapping::EndpointIndependent => self.input(seen[0].ip())?,
            Mapping::Untranslated
            | Mapping::AddressDependent
            | Mapping::AddressAndPortDependent => Input::Unknown,
        };
        Ok(Found { mapping, filtering, input, rtt })
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
        let inside = self.local_ip()?;
        Ok(match seen {
            [first, second, third] if first == second && second == third => {
                if first.ip() == inside {
                    Mapping::Untranslated
                } else {
                    Mapping::EndpointIndependent
                }
            }
            [first, second, _] if first == second => Mapping::AddressDependent,
            _ => Mapping::AddressAndPortDependent,
        })
    }

    /// A fresh socket asks (address 0, port 0); that socket, the other port and the other address answer.
    fn filtering(&self) -> Result<Filtering, Failure> {
        let socket = self.socket(0)?;
        self.send(&socket, 0, "filter 0,1,3")?;
        let mut through: Vec<_> =
            self.collect(&socket, "filter", 3)?.iter().map(|answer| answer.index).collect();
        through.sort_unstable();
        match through.as_slice() {
            [0, 1, 3] => Ok(Filtering::EndpointIndependent),
            [0, 1] => Ok(Filtering::AddressDependent),
            [0] => Ok(Filtering::AddressAndPortDependent),
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

    fn socket(&self, port: u16) -> Result<UdpSocket, Failure> {
        namespace::udp(self.namespace, (Ipv4Addr::UNSPECIFIED, port).into())
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
