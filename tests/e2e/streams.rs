//! Byte streams and datagrams of the library, between two peers and a server on loopback.

use std::io::ErrorKind;

use p2sp_peer::{Peer, Stream, StreamError, stream_code};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::stage::Stage;

/// A transfer of many windows.
const LONG: usize = 10 << 20;

/// Peers of one stage; `bob` takes streams.
async fn two(stage: &Stage) -> (Peer, Peer) {
    let builder = |name: &str| {
        let rendezvous = stage.address.to_string().parse().unwrap();
        Peer::builder(rendezvous).name(name).ephemeral().no_port_mapping()
    };
    let alice = builder("alice").start().await.unwrap();
    let bob = builder("bob").accept_streams().start().await.unwrap();
    alice.registered().await.unwrap();
    bob.registered().await.unwrap();
    (alice, bob)
}

async fn connected(alice: &Peer, bob: &Peer) -> (Stream, Stream) {
    let ours = alice.open_stream("bob").await.unwrap();
    let theirs = bob.accept_stream().await.unwrap();
    assert_eq!((ours.peer().as_str(), theirs.peer().as_str()), ("bob", "alice"));
    (ours, theirs)
}

fn content(seed: u8) -> Vec<u8> {
    (0..LONG).map(|n| (n / 251) as u8 ^ n as u8 ^ seed).collect()
}

#[tokio::test]
async fn ten_megabytes_go_there_and_others_back_after_the_first_flow_ended() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let (mut ours, mut theirs) = connected(&alice, &bob).await;
    let answering = tokio::spawn(async move {
        let mut got = Vec::new();
        theirs.read_to_end(&mut got).await.unwrap();
        theirs.write_all(&content(2)).await.unwrap();
        theirs.finish().await.unwrap();
        got
    });
    ours.write_all(&content(1)).await.unwrap();
    ours.shutdown().await.unwrap();
    let mut got = Vec::new();
    ours.read_to_end(&mut got).await.unwrap();
    assert!(got == content(2));
    assert!(answering.await.unwrap() == content(1));
    let error = ours.write_all(b"more").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::BrokenPipe);
}

#[tokio::test]
async fn a_reader_that_rests_holds_back_its_writer_and_nobody_else() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let (mut slow, mut resting) = connected(&alice, &bob).await;
    let (mut quick, mut reading) = connected(&alice, &bob).await;
    let writing = tokio::spawn(async move {
        slow.write_all(&content(3)).await.unwrap();
        slow.finish().await.unwrap();
    });
    for _ in 0..20 {
        quick.write_all(&[7; 100_000]).await.unwrap();
        let mut got = vec![0; 100_000];
        reading.read_exact(&mut got).await.unwrap();
    }
    assert!(!writing.is_finished(), "10 MB find no room without a reader");
    let mut got = Vec::new();
    resting.read_to_end(&mut got).await.unwrap();
    assert!(got == content(3));
    writing.await.unwrap();
}

#[tokio::test]
async fn streams_end_with_the_codes_that_are_given() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let (mut ours, mut theirs) = connected(&alice, &bob).await;
    ours.write_all(b"hello").await.unwrap();
    theirs.read_exact(&mut [0; 5]).await.unwrap();
    ours.reset(1234);
    let error = theirs.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Reset(1234));
    ours.stop(1235);
    let error = loop {
        if let Err(error) = theirs.write_all(&[0; 100_000]).await {
            break error;
        }
    };
    assert_eq!(error.downcast::<StreamError>().unwrap(), StreamError::Stopped(1235));
}

#[tokio::test]
async fn who_takes_no_streams_refuses_them() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let mut stream = bob.open_stream("alice").await.unwrap();
    let error = stream.read_to_end(&mut Vec::new()).await.unwrap_err();
    let refused = StreamError::Reset(stream_code::REFUSED);
    assert_eq!(error.downcast::<StreamError>().unwrap(), refused);
    assert!(alice.accept_stream().await.is_none());
    let error = alice.open_stream("nobody").await.unwrap_err();
    assert!(error.to_string().contains("nobody"), "{error}");
}

#[tokio::test]
async fn a_peer_that_leaves_ends_its_streams_on_both_sides() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let (mut ours, mut theirs) = connected(&alice, &bob).await;
    let (mut ended, mut ending) = connected(&alice, &bob).await;
    ending.write_all(b"last words").await.unwrap();
    ending.shutdown().await.unwrap();
    bob.close().await;
    let error = theirs.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotConnected);
    let error = ours.read_to_end(&mut Vec::new()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionAborted);
    let mut words = String::new();
    ended.read_to_string(&mut words).await.unwrap();
    assert_eq!(words, "last words");
}

#[tokio::test]
async fn datagrams_come_as_they_were_sent() {
    let stage = Stage::new();
    let (alice, bob) = two(&stage).await;
    let (_ours, _theirs) = connected(&alice, &bob).await;
    alice.send_datagram("bob", vec![5; 1000]).await.unwrap();
    let datagram = bob.recv_datagram().await.unwrap();
    assert_eq!((datagram.from.as_str(), &datagram.payload[..]), ("alice", &[5; 1000][..]));
    assert!(alice.send_datagram("bob", vec![5; 70_000]).await.is_err());
    assert!(alice.send_datagram("nobody", "x").await.is_err());
}
