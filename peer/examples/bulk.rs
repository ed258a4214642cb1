//! Sends as much as the path takes, or counts what arrives; scripts/link-test.sh watches it from
//! outside.
//!
//! `bulk HOST:PORT NAME` receives until it is killed; `bulk HOST:PORT NAME RECIPIENT SECONDS`
//! sends, and first waits for a direct path, which it needs.

use std::time::{Duration, Instant};

use p2sp_peer::{PathView, Peer};

/// Length of a message, bytes.
const MESSAGE_LEN: usize = 60_000;
/// How long a direct path may take.
const PATIENCE: Duration = Duration::from_secs(20);

type Outcome = Result<(), Box<dyn std::error::Error>>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [server, name] => receive(start(server, name).await?).await,
        [server, name, to, seconds] => {
            let time = Duration::from_secs(seconds.parse()?);
            send(start(server, name).await?, to, time).await
        }
        _ => Err("usage: bulk HOST:PORT NAME [RECIPIENT SECONDS]".into()),
    }
}

async fn start(server: &str, name: &str) -> Result<Peer, Box<dyn std::error::Error>> {
    let builder = Peer::builder(server.parse()?).name(name).ephemeral();
    let peer = builder.no_lan().no_port_mapping().start().await?;
    peer.registered().await?;
    Ok(peer)
}

async fn receive(peer: Peer) -> Outcome {
    while peer.recv().await.is_some() {}
    Ok(())
}

async fn send(peer: Peer, to: &str, time: Duration) -> Outcome {
    let begun = Instant::now();
    while !matches!(peer.send(to, "hello").await?.path, PathView::Direct { .. }) {
        if begun.elapsed() > PATIENCE {
            return Err(format!("no direct path to {to} after {PATIENCE:?}").into());
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let end = tokio::time::Instant::now() + time;
    let payload = bytes::Bytes::from(vec![7; MESSAGE_LEN]);
    while let Ok(accepted) = tokio::time::timeout_at(end, peer.submit(to, payload.clone())).await {
        drop(accepted?);
    }
    Ok(())
}
