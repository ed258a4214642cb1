//! A control experiment: opens a path between two hosts with no product at all, to know what the two routers allow and
//! that the internet between them is as long and as lossy as asked for.
//!
//! Both ends learn their mapped address from the reflector, send to each other at the same moment, and answer to
//! wherever the other's datagrams come from. No port is predicted.

use crate::{Failure, namespace, say};
use clap::Args;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

/// Between two attempts of one side.
const RETRY: Duration = Duration::from_millis(20);
/// Between two echoes.
const ECHO_GAP: Duration = Duration::from_millis(5);
/// Rounds a side goes on after it knows that the path works, so that the other side learns it too.
const FAREWELL: u32 = 10;

#[derive(Args)]
pub(crate) struct Options {
    /// Namespace of one host.
    #[arg(long)]
    a: String,
    /// Namespace of the other.
    #[arg(long)]
    b: String,
    /// A socket of the reflector.
    #[arg(long)]
    reflector: SocketAddr,
    /// Milliseconds to try.
    #[arg(long, default_value_t = 700)]
    limit: u64,
    /// Echoes to send over the open path.
    #[arg(long, default_value_t = 20)]
    count: usize,
}

/// Prints `direct=yes|no`, and over an open path the median round trip and the echoes that came back.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let any = any_address(options.reflector);
    let (a, b) = (namespace::udp(&options.a, any)?, namespace::udp(&options.b, any)?);
    let (at_a, at_b) = (observed(&a, options.reflector)?, observed(&b, options.reflector)?);
    let deadline = Instant::now() + Duration::from_millis(options.limit);
    let (to_b, to_a) = both(|| meet(&a, at_b, deadline), || meet(&b, at_a, deadline))?;
    match to_b.zip(to_a) {
        None => say("direct=no"),
        Some((to_b, _)) => {
            let (echoes, ()) = both(|| ping(&a, to_b, options.count), || echo(&b))?;
            say(&format!("direct=yes {}", summary(echoes, options.count)))
        }
    }
}

fn both<A: Send, B: Send>(
    one: impl FnOnce() -> Result<A, Failure> + Send,
    other: impl FnOnce() -> Result<B, Failure> + Send,
) -> Result<(A, B), Failure> {
    std::thread::scope(|scope| {
        let other = scope.spawn(other);
        let one = one()?;
        Ok((one, other.join().map_err(|_| "a worker thread panicked")??))
    })
}

/// Any address and port of the reflector's family.
fn any_address(reflector: SocketAddr) -> SocketAddr {
    match reflector {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    }
}

fn observed(socket: &UdpSocket, reflector: SocketAddr) -> Result<SocketAddr, Failure> {
    socket.set_read_timeout(Some(Duration::from_millis(300)))?;
    for _ in 0..10 {
        socket.send_to(b"punch 0", reflector)?;
        let Some((text, _)) = receive(socket) else { continue };
        let address = text.rsplit(' ').next().ok_or("an empty answer")?;
        return Ok(address.parse()?);
    }
    Err("no answer from the reflector".into())
}

fn receive(socket: &UdpSocket) -> Option<(String, SocketAddr)> {
    let mut buffer = [0; 200];
    let (length, from) = socket.recv_from(&mut buffer).ok()?;
    Some((String::from_utf8_lossy(&buffer[..length]).into_owned(), from))
}

/// Sends `hello`, or `seen` once anything was heard, until a `seen` shows that both directions work.
fn meet(
    socket: &UdpSocket,
    mapped: SocketAddr,
    deadline: Instant,
) -> Result<Option<SocketAddr>, Failure> {
    let (mut target, mut heard, mut confirmed) = (mapped, false, false);
    let mut farewell = FAREWELL;
    while farewell > 0 && Instant::now() < deadline {
        let word: &[u8] = if heard { b"seen" } else { b"hello" };
        socket.send_to(word, target)?;
        farewell -= u32::from(confirmed);
        let next = Instant::now() + RETRY;
        while let Some((text, from)) = receive_until(socket, next)? {
            if text == "hello" || text == "seen" {
                (target, heard, confirmed) = (from, true, confirmed || text == "seen");
            }
        }
    }
    Ok(confirmed.then_some(target))
}

fn receive_until(
    socket: &UdpSocket,
    until: Instant,
) -> Result<Option<(String, SocketAddr)>, Failure> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        socket.set_read_timeout(Some(left))?;
        if let Some(received) = receive(socket) {
            return Ok(Some(received));
        }
    }
}

/// Round trips of the echoes that came back.
fn ping(socket: &UdpSocket, target: SocketAddr, count: usize) -> Result<Vec<Duration>, Failure> {
    let mut sent = Vec::new();
    let mut echoes = Vec::new();
    while sent.len() < count {
        socket.send_to(format!("ping {}", sent.len()).as_bytes(), target)?;
        sent.push(Instant::now());
        take_echoes(socket, Instant::now() + ECHO_GAP, &sent, &mut echoes)?;
    }
    let patience = Instant::now() + Duration::from_millis(500);
    take_echoes(socket, patience, &sent, &mut echoes)?;
    for _ in 0..FAREWELL {
        socket.send_to(b"stop", target)?;
    }
    Ok(echoes)
}

fn take_echoes(
    socket: &UdpSocket,
    until: Instant,
    sent: &[Instant],
    echoes: &mut Vec<Duration>,
) -> Result<(), Failure> {
    while echoes.len() < sent.len() {
        let Some((text, _)) = receive_until(socket, until)? else { break };
        let number = text.strip_prefix("ping ").and_then(|number| number.parse::<usize>().ok());
        echoes.extend(number.and_then(|number| sent.get(number)).map(Instant::elapsed));
    }
    // The gap is kept even where the echoes come at once.
    std::thread::sleep(if sent.len() == echoes.len() {
        Duration::ZERO
    } else {
        until.saturating_duration_since(Instant::now())
    });
    Ok(())
}

fn echo(socket: &UdpSocket) -> Result<(), Failure> {
    let until = Instant::now() + Duration::from_secs(10);
    while let Some((text, from)) = receive_until(socket, until)? {
        match text.as_str() {
            "stop" => break,
            ping if ping.starts_with("ping ") => drop(socket.send_to(ping.as_bytes(), from)?),
            _ => {}
        }
    }
    Ok(())
}

fn summary(mut echoes: Vec<Duration>, sent: usize) -> String {
    echoes.sort_unstable();
    let median = echoes.get(echoes.len() / 2).map_or(f64::NAN, |rtt| rtt.as_secs_f64() * 1000.0);
    format!("rtt_ms={median:.1} echoes={}/{sent}", echoes.len())
}
