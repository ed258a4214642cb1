//! One question to a router over UDP, asked until it is answered.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::net::UdpSocket;
use tokio::time::{Instant, timeout_at};

use super::lease::Failure;

/// Where PCP and NAT-PMP servers listen (RFC 6887 section 19.1, RFC 6886 section 1.1).
const PORT: u16 = 5351;
/// The first wait for an answer; each further one is twice as long (RFC 6886 section 3.1).
const WAIT_FIRST: Duration = Duration::from_millis(250);
/// How often a question is asked: a router of the same link that kept silent for 1.75 s does not
/// speak the protocol.
const TRIES: u32 = 3;
/// Longest answer (RFC 6887 section 7).
const ANSWER_MAX: usize = 1100;

/// What became of a datagram that came from the router.
pub(super) enum Read<T> {
    /// It is the answer.
    Answer(T),
    /// It is the router's refusal, with its code.
    Refusal(u16),
    /// The router speaks only the older protocol.
    OtherVersion,
    /// It belongs to something else.
    Foreign,
}

/// Asks the router at `gateway` from `local`, an address of this host.
pub(super) async fn ask<T>(
    local: IpAddr,
    gateway: SocketAddr,
    question: &[u8],
    read: impl Fn(&[u8]) -> Read<T>,
) -> Result<T, Failure> {
    let socket = UdpSocket::bind(SocketAddr::new(local, 0)).await.map_err(Failure::Unreachable)?;
    let mut to = gateway;
    to.set_port(PORT);
    socket.connect(to).await.map_err(Failure::Unreachable)?;
    let mut buffer = [0; ANSWER_MAX];
    for round in 0..TRIES {
        socket.send(question).await.map_err(Failure::Unreachable)?;
        let end = Instant::now() + WAIT_FIRST * 2_u32.pow(round);
        while let Ok(received) = timeout_at(end, socket.recv(&mut buffer)).await {
            let length = received.map_err(Failure::Unreachable)?;
            match read(&buffer[..length]) {
                Read::Answer(answer) => return Ok(answer),
                Read::Refusal(code) => return Err(Failure::Refused(code)),
                Read::OtherVersion => return Err(Failure::OtherVersion),
                Read::Foreign => {}
            }
        }
    }
    Err(Failure::Silence)
}
