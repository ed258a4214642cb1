//! What an idle session adds to a process: the far one, seen from outside.
//!
//! A peer has 256 relay channels at most, so four far peers in one process share the sessions, each in a network of its
//! own with as many near ones. The server is another process; what the far peers know of the networks is counted before.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use p2sp_peer::Peer;
use p2sp_proto::hub::{AccessToken, Limits};
use p2sp_proto::session::StaticKey;
use p2sp_server::{AltPort, Config, Listen, Sockets};
use tokio::task::JoinSet;

use crate::{Failure, p2sp, quic};

/// Sessions that the far process holds.
const SESSIONS: usize = 1000;
/// Far peers among which they are divided.
const FAR_PEERS: usize = 4;
/// Sessions, or registrations, under way at a time.
const AT_ONCE: usize = 16;
/// How long nothing happens before the far process is looked at.
const REST: Duration = Duration::from_secs(8);

/// The server of all, until killed: with room for a thousand peers that come at once.
pub(crate) async fn serve(listen: SocketAddr, ready: &Path) -> Result<(), Failure> {
    let sockets = Sockets::bind(&Listen::At(vec![listen]), AltPort::Next)?;
    let token = |network| AccessToken {
        id: format!("id{network}"),
        secret: "secret".to_owned(),
        network: format!("network{network}"),
    };
    let tokens = (0..FAR_PEERS).map(token).collect();
    let mut config = Config::with_tokens(StaticKey::from_bytes([7; 32]), [9; 32], tokens);
    config.hub.limits =
        Limits { handshakes_per_second: 10_000, stun_per_second: 100_000, ..config.hub.limits };
    fs::write(ready, [])?;
    p2sp_server::run(config, sockets, std::future::pending()).await;
    Err("the server ended".into())
}

/// The far peers, until killed.
pub(crate) async fn far(server: SocketAddr, ready: &Path) -> Result<(), Failure> {
    let mut peers = JoinSet::new();
    for network in 0..FAR_PEERS {
        let peer = open(server, network, p2sp::FAR.to_owned()).await?;
        peers.spawn(async move { while peer.recv().await.is_some() {} });
    }
    fs::write(ready, [])?;
    peers.join_next().await;
    Err("a peer ended".into())
}

/// Bytes for each session of far peers with as many others.
pub(crate) async fn p2sp(server: SocketAddr, far: u32) -> Result<f64, Failure> {
    let near = |index: usize| open(server, index % FAR_PEERS, format!("near{index}"));
    let peers = all((0..SESSIONS).map(near)).await?;
    added(far, all(peers.into_iter().map(p2sp::Near::meet))).await
}

/// Bytes for each connection of a far endpoint.
pub(crate) async fn quic(far: SocketAddr, certificate: &Path, pid: u32) -> Result<f64, Failure> {
    let certificate = Arc::<Path>::from(certificate);
    let connect = |_| {
        let certificate = certificate.clone();
        async move { quic::Near::open(far, &certificate).await }
    };
    added(pid, all((0..SESSIONS).map(connect))).await
}

async fn open(server: SocketAddr, network: usize, name: String) -> Result<Peer, Failure> {
    let builder = Peer::builder(server.to_string().parse()?).name(&name).ephemeral();
    let builder = builder.token(format!("id{network}.secret")).no_lan().no_port_mapping();
    let peer = builder.bind((Ipv4Addr::UNSPECIFIED, 0).into()).start().await?;
    peer.registered().await?;
    Ok(peer)
}

/// What these futures make, some of them at a time.
async fn all<T: Send + 'static>(
    makers: impl Iterator<Item = impl Future<Output = Result<T, Failure>> + Send + 'static>,
) -> Result<Vec<T>, Failure> {
    let (mut made, mut under_way) = (Vec::new(), JoinSet::new());
    for maker in makers {
        if under_way.len() >= AT_ONCE
            && let Some(done) = under_way.join_next().await
        {
            made.push(done??);
        }
        under_way.spawn(maker);
    }
    while let Some(done) = under_way.join_next().await {
        made.push(done??);
    }
    Ok(made)
}

/// Bytes that the sessions add to a process, each.
async fn added<T>(
    pid: u32,
    sessions: impl Future<Output = Result<T, Failure>>,
) -> Result<f64, Failure> {
    tokio::time::sleep(REST).await;
    let before = resident(pid)?;
    let sessions = sessions.await?;
    tokio::time::sleep(REST).await;
    let after = resident(pid)?;
    drop(sessions);
    Ok((after - before) / SESSIONS as f64)
}

/// Bytes of memory that a process has, shared ones divided among their users.
fn resident(pid: u32) -> Result<f64, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/smaps_rollup"))?;
    let line = text.lines().find_map(|line| line.strip_prefix("Pss:"));
    let kibibytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kibibytes: f64 = kibibytes.ok_or("the kernel does not tell of the memory")?.parse()?;
    Ok(kibibytes * 1024.0)
}
