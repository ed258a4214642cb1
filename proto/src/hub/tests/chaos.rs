//! Anything in any order: the hub's parts must go on agreeing with each other.

use proptest::prelude::*;

use super::*;
use crate::hub::sessions::{Holder, Stage};

/// What may happen.
#[derive(Clone, Debug)]
enum Step {
    Shake { n: u8, boot: u8, xx: bool },
    Register { client: usize, name: u8 },
    Unregister { client: usize },
    Watch { client: usize },
    Connect { client: usize, n: u8 },
    Roam { client: usize, port: u16 },
    Silence { client: usize },
    Close { client: usize },
    Block { name: u8 },
    Unblock { name: u8 },
    Broadcast,
    Pass { seconds: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let client = || 0usize..8;
    prop_oneof![
        4 => (1u8..5, 1u8..4, any::<bool>()).prop_map(|(n, boot, xx)| Step::Shake { n, boot, xx }),
        4 => (client(), 0u8..4).prop_map(|(client, name)| Step::Register { client, name }),
        1 => client().prop_map(|client| Step::Unregister { client }),
        1 => client().prop_map(|client| Step::Watch { client }),
        3 => (client(), 1u8..5).prop_map(|(client, n)| Step::Connect { client, n }),
        2 => (client(), 1u16..999).prop_map(|(client, port)| Step::Roam { client, port }),
        1 => client().prop_map(|client| Step::Silence { client }),
        1 => client().prop_map(|client| Step::Close { client }),
        1 => (0u8..4).prop_map(|name| Step::Block { name }),
        1 => (0u8..4).prop_map(|name| Step::Unblock { name }),
        1 => Just(Step::Broadcast),
        3 => (0u64..20).prop_map(|seconds| Step::Pass { seconds }),
    ]
}

fn take(world: &mut World, step: Step) {
    let known = world.clients.len();
    let at = |client: usize| (client < known).then_some(client);
    match step {
        Step::Shake { n, boot, xx } => {
            let port = 1000 + known as u16;
            let address = SocketAddr::from(([198, 51, 100, n], port));
            let hello = Hello { boot: Boot(boot.into()), address, ..Hello::new(n) };
            world.shake(Hello { knows_server: !xx, ..hello });
            world.control(known, ControlFrame::Ping);
        }
        Step::Register { client, name } => {
            let register = registration(&format!("n{name}"), None);
            at(client).map(|client| world.post(client, Operation::Register(register)));
        }
        Step::Unregister { client } => {
            at(client).map(|client| world.post(client, Operation::Unregister));
        }
        Step::Watch { client } => {
            at(client).map(|client| world.post(client, Operation::Watch { names: None }));
        }
        Step::Connect { client, n } => {
            let key = StaticKey::from_bytes([n; 32]).public();
            let (connect, candidates) = (ConnectId([n; 16]), Vec::new());
            let operation = Operation::Connect { key, connect, candidates };
            at(client).map(|client| world.post(client, operation));
        }
        Step::Roam { client, port } => {
            if let Some(client) = at(client) {
                world.clients[client].address.set_port(port);
                world.control(client, ControlFrame::Ping);
            }
        }
        Step::Silence { client } => {
            if let Some(client) = at(client) {
                world.clients[client].silent = true;
            }
        }
        Step::Close { client } => {
            if let Some(client) = at(client) {
                world.control(client, ControlFrame::Close(0, String::new()));
            }
        }
        Step::Block { name } => drop(world.hub.block(&format!("n{name}"), world.now)),
        Step::Unblock { name } => drop(world.hub.unblock(&format!("n{name}"), world.now)),
        Step::Broadcast => drop(world.hub.broadcast("hear", world.now)),
        Step::Pass { seconds } => world.run(Duration::from_secs(seconds)),
    }
    world.drain();
    world.exchange();
}

/// Every registration has a live session that knows of it, and the other way round.
fn check(world: &mut World) {
    let hub = &mut world.hub;
    let mut registered = 0;
    for token in hub.sessions.tokens() {
        assert!(hub.routes.slots.find(token).is_some(), "workers know every session");
        let Some(Holder::Peer(peer)) = hub.sessions.holder(token) else { continue };
        let Some(network) = peer.network else { continue };
        registered += 1;
        assert_eq!(peer.stage, Stage::Live);
        let member = hub.networks[network].member(&peer.key).expect("a member");
        assert_eq!(member.token, token);
        assert_eq!(member.observed, peer.route.remote);
        let view = hub.routes.slots.find(token).and_then(|view| view.route());
        assert_eq!(view, Some(peer.route));
        let name = member.name.clone();
        assert_eq!(hub.networks[network].by_name(&name), Some(peer.key));
        assert_eq!(hub.networks[network].by_address(member.observed), Some(peer.key));
    }
    assert_eq!(hub.members().len(), registered);
    assert_eq!(hub.status(world.now).peers as usize, registered);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn the_parts_agree_whatever_happens(steps in proptest::collection::vec(step(), 1..60)) {
        let mut world = World::new();
        for step in steps {
            take(&mut world, step);
            check(&mut world);
        }
        for client in &mut world.clients {
            client.silent = true;
        }
        world.run(Duration::from_secs(200));
        let status = world.hub.status(world.now);
        prop_assert_eq!((status.peers, status.sessions), (0, 0), "all is given back");
    }
}
