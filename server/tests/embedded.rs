//! The server as a library: started on free ports, asked, and stopped.

use std::time::Duration;

use p2sp_proto::id::{Boot, Epoch, NetworkId, ReceiverId};
use p2sp_proto::session::{
    EarlyVerdict, InitConfig, Initiator, Padding, Responder, StaticKey, Suites,
};
use p2sp_server::{AltPort, Config, Listen, Sockets};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use tokio::net::UdpSocket;
use tokio::sync::oneshot;
use tokio::time::timeout;

const SOON: Duration = Duration::from_secs(10);

#[tokio::test]
async fn strangers_get_a_session_and_the_server_ends_when_told() {
    let server = StaticKey::from_bytes([7; 32]);
    let listen = Listen::At(vec![([127, 0, 0, 1], 0).into()]);
    let sockets = Sockets::bind(&listen, AltPort::Off).unwrap();
    let address = sockets.main_addresses()[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let config = Config::open(server.clone(), [9; 32]);
    let serving = tokio::spawn(p2sp_server::run(config, sockets, async {
        let _ = stopped.await;
    }));

    let peer = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut initiator = Initiator::new(
            InitConfig {
                local: &StaticKey::generate(&mut rng),
                remote: Some(server.public()),
                responder: Responder::Server,
                network: NetworkId::default(),
                suites: Suites::new(false),
                receiver: ReceiverId(u32::try_from(seed).unwrap()),
                epoch: Epoch(1),
                boot: Boot(1),
                early: None,
                padding: Padding::Full,
            },
            &mut rng,
        )
        .unwrap();
        peer.send_to(initiator.datagram(), address).await.unwrap();
        let mut reply = [0; 1500];
        let (length, from) = timeout(SOON, peer.recv_from(&mut reply)).await.unwrap().unwrap();
        assert_eq!(from, address);
        let completed = initiator.read_reply(&reply[..length]).unwrap();
        assert_eq!(completed.info.observed, Some(peer.local_addr().unwrap()));
        assert_eq!(completed.info.early, EarlyVerdict::None);
    }

    stop.send(()).unwrap();
    timeout(SOON, serving).await.unwrap().unwrap();
}
