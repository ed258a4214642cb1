//! The far end of the probes: four sockets, two addresses with two ports each, numbered 2 * address + port.
//!
//! A question is a line `NONCE INDEX[,INDEX..] [KNOCK]`: each socket INDEX answers the asker with `NONCE INDEX OBSERVED`,
//! OBSERVED being the address the question came from. With KNOCK, an address, the last socket first sends one
//! unsolicited datagram there.

use crate::Failure;
use clap::Args;
use std::fs::File;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::PathBuf;

/// The longest question: a nonce, four indices and an address.
const QUESTION_MAX: usize = 200;
/// The socket that knocks.
pub(crate) const KNOCKER: usize = 3;

#[derive(Args)]
pub(crate) struct ServeOptions {
    #[command(flatten)]
    sockets: Options,
    /// A file to create once questions are answered.
    #[arg(long)]
    ready: PathBuf,
}

#[derive(Args, Clone)]
#[group(id = "reflector")]
pub(crate) struct Options {
    #[arg(long, num_args = 2, required = true)]
    addresses: Vec<IpAddr>,
    #[arg(long, num_args = 2, default_values_t = [5001, 5002])]
    ports: Vec<u16>,
}

impl Options {
    /// The socket addresses in the order of their numbers.
    pub(crate) fn sockets(&self) -> Vec<SocketAddr> {
        let with_ports =
            |&address: &IpAddr| self.ports.iter().map(move |&port| SocketAddr::new(address, port));
        self.addresses.iter().flat_map(with_ports).collect()
    }
}

/// Runs until killed.
pub(crate) fn run(options: &ServeOptions) -> Result<(), Failure> {
    let addresses = options.sockets.sockets();
    let sockets = addresses.iter().map(UdpSocket::bind).collect::<Result<Vec<_>, _>>()?;
    File::create(&options.ready)?;
    std::thread::scope(|scope| {
        for socket in &sockets {
            scope.spawn(|| serve(socket, &sockets));
        }
    });
    Ok(())
}

fn serve(socket: &UdpSocket, all: &[UdpSocket]) {
    let mut question = [0; QUESTION_MAX];
    loop {
        // An error is a late report of a port that has closed since.
        let Ok((length, from)) = socket.recv_from(&mut question) else { continue };
        let _ = answer(&String::from_utf8_lossy(&question[..length]), from, all);
    }
}

fn answer(question: &str, from: SocketAddr, all: &[UdpSocket]) -> Result<(), Failure> {
    let mut words = question.split_whitespace();
    let (nonce, indices) = words.next().zip(words.next()).ok_or("no question")?;
    if let Some(target) = words.next() {
        all[KNOCKER].send_to(b"knock", target)?;
    }
    for index in indices.split(',').map(str::parse::<usize>) {
        let index = index?;
        let socket = all.get(index).ok_or("no such socket")?;
        socket.send_to(format!("{nonce} {index} {from}").as_bytes(), from)?;
    }
    Ok(())
}
