//! Bare UDP through tokio: the least that a round trip between two programs takes.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;

use tokio::net::UdpSocket;

use crate::Failure;
use crate::line::{Line, SMALL};

/// Echoes until killed.
pub(crate) async fn far(listen: SocketAddr, ready: &Path) -> Result<(), Failure> {
    let socket = UdpSocket::bind(listen).await?;
    fs::write(ready, [])?;
    let mut buffer = [0; 2048];
    loop {
        let (length, from) = socket.recv_from(&mut buffer).await?;
        socket.send_to(&buffer[..length], from).await?;
    }
}

/// A socket that speaks to one `far`.
pub(crate) struct Bare {
    socket: UdpSocket,
    far: SocketAddr,
    buffer: [u8; 2048],
}

impl Bare {
    pub(crate) async fn open(far: SocketAddr) -> Result<Self, Failure> {
        Ok(Self { socket: UdpSocket::bind("0.0.0.0:0").await?, far, buffer: [0; 2048] })
    }
}

impl Line for Bare {
    async fn send(&mut self) -> Result<(), Failure> {
        self.socket.send_to(&[0; SMALL], self.far).await?;
        Ok(())
    }

    async fn echo(&mut self) -> Result<(), Failure> {
        self.socket.recv_from(&mut self.buffer).await?;
        Ok(())
    }
}
