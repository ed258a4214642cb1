//! This project's peers, as a program has them: the library, a server, and a direct path.

use std::collections::VecDeque;
use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use p2sp_peer::{Incoming, PathView, Peer, PeerName, Sending};
use p2sp_proto::session::StaticKey;
use p2sp_server::{AltPort, Config, Listen, Sockets};

use crate::Failure;
use crate::line::{Line, SMALL};

/// First byte of a message that comes back.
const ECHO: u8 = 1;
/// First byte of a message that does not.
const SINK: u8 = 0;
/// The name of the far peer.
pub(crate) const FAR: &str = "far";
/// How long two peers may take to meet directly.
const MEETING: Duration = Duration::from_secs(10);
/// Length of the messages that a bulk transfer is divided into.
const BULK_MESSAGE: usize = 1 << 18;
/// Messages of a bulk transfer that wait for their receipts.
const BULK_AHEAD: usize = 32;

/// A server and one peer, which echoes what asks for it, until killed.
pub(crate) async fn far(listen: SocketAddr, ready: &Path) -> Result<(), Failure> {
    let sockets = Sockets::bind(&Listen::At(vec![listen]), AltPort::Next)?;
    let config = Config::open(StaticKey::from_bytes([7; 32]), [9; 32]);
    let server = p2sp_server::run(config, sockets, std::future::pending());
    let answer = async {
        let peer = open(listen, FAR).await?;
        fs::write(ready, [])?;
        while let Some(message) = peer.recv().await {
            if message.payload.first() == Some(&ECHO) {
                // The other end counts; nobody here waits for the receipt.
                drop(peer.submit(message.from, message.payload).await?);
            }
        }
        Ok(())
    };
    tokio::select! {
        _ = server => Err("the server ended".into()),
        outcome = answer => outcome,
    }
}

/// Starts a peer and waits until the server knows it.
pub(crate) async fn open(server: SocketAddr, name: &str) -> Result<Peer, Failure> {
    let builder = Peer::builder(server.to_string().parse()?);
    let peer = builder.name(name).ephemeral().no_port_mapping().start().await?;
    peer.registered().await?;
    Ok(peer)
}

/// A peer with a direct path to the far one.
pub(crate) struct Near {
    peer: Peer,
    far: PeerName,
}

impl Near {
    pub(crate) async fn open(server: SocketAddr, name: &str) -> Result<Self, Failure> {
        Self::meet(open(server, name).await?).await
    }

    /// Talks until there is a direct path.
    pub(crate) async fn meet(peer: Peer) -> Result<Self, Failure> {
        let start = Instant::now();
        loop {
            let receipt = peer.send(FAR, vec![SINK]).await?;
            if matches!(receipt.path, PathView::Direct { .. }) {
                return Ok(Self { peer, far: FAR.parse()? });
            }
            if start.elapsed() > MEETING {
                return Err("no direct path to the far peer".into());
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Sends so many bytes, and returns when the far application has them.
    pub(crate) async fn bulk(&self, bytes: usize) -> Result<(), Failure> {
        let message = Bytes::from(vec![SINK; BULK_MESSAGE]);
        let mut waiting: VecDeque<Sending> = VecDeque::new();
        for _ in 0..bytes.div_ceil(BULK_MESSAGE) {
            if waiting.len() >= BULK_AHEAD
                && let Some(oldest) = waiting.pop_front()
            {
                oldest.await?;
            }
            waiting.push_back(self.peer.submit(self.far.clone(), message.clone()).await?);
        }
        for sending in waiting {
            sending.await?;
        }
        Ok(())
    }

    async fn next(&self) -> Result<Incoming, Failure> {
        self.peer.recv().await.ok_or_else(|| "the peer ended".into())
    }
}

impl Line for Near {
    async fn send(&mut self) -> Result<(), Failure> {
        drop(self.peer.submit(self.far.clone(), Bytes::from_static(&[ECHO; SMALL])).await?);
        Ok(())
    }

    async fn echo(&mut self) -> Result<(), Failure> {
        self.next().await?;
        Ok(())
    }
}
