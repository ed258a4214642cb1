//! Inits of processes that are gone, recorded and sent again.

use super::streams::{open, opened, read, saw, text, write};
use super::*;
use crate::id::{Address, Epoch, PacketNumber, PathId, ReceiverId};
use crate::session::{InitConfig, Initiator, Padding, Responder, Session, Side, Suites};
use crate::wire::frame::Frame;

/// What a process of node `from` sends to node `to` comes out of the relay.
fn relayed(net: &mut Net, from: u8, to: u8, datagram: &[u8]) {
    let (from, node) = (key(from).public(), &net.host(to).node);
    let (channel, _) = node.channels.iter().find(|(_, key)| **key == from).unwrap();
    let token = node.server.up().unwrap().token;
    let header = RelayHeader { channel: *channel, token }.encode();
    let mut data = [&header[..], datagram].concat();
    let route = Route::udp(address(to), SERVER.parse().unwrap());
    net.input(to, Input::Datagram { route, ecn: Ecn::NotEct, data: &mut data });
}

/// Node `to` gets an init that this process of node `from` once made.
fn replay(net: &mut Net, from: u8, to: u8, process: u8) -> Initiator {
    let local = key(from);
    let config = InitConfig {
        local: &local,
        remote: Some(key(to).public()),
        responder: Responder::Peer,
        network: net.host(to).node.core.network,
        suites: Suites::new(true),
        receiver: ReceiverId(process.into()),
        epoch: Epoch(process.into()),
        boot: Boot(process.into()),
        early: None,
        padding: Padding::None,
    };
    let mut rng = ChaCha12Rng::from_seed([process; 32]);
    let initiator = Initiator::new(config, &mut rng).unwrap();
    relayed(net, from, to, initiator.datagram());
    initiator
}

/// Each of the two, the name of the other, and the other.
const BOTH: [(u8, &str, u8); 2] = [(1, "bob", 2), (2, "alice", 1)];

/// Nobody holds the keys of a session with a process that is gone: nothing may be said in it.
#[test]
fn a_recorded_init_delays_no_message_and_ends_no_stream() {
    for (n, to, other) in BOTH {
        let mut net = Net::of_two();
        net.send(n, 1, to, "hello");
        let ours = open(&mut net, n, to);
        write(&mut net, n, ours, "question");
        net.run(ONE_WAY * 2 + Duration::from_millis(1));
        for process in 100..106 {
            replay(&mut net, other, n, process);
        }
        net.run(second(1));
        assert!(net.is_delivered(n, 1), "{n} {:#?}", net.seen);
        assert!(!saw(&mut net, n, ours, StreamEvent::Lost));
        let theirs = opened(&mut net, other, None).unwrap();
        assert_eq!(read(&mut net, other, theirs), text("question"));
    }
}

/// Nor is the living process taken for another one when the server names it next.
#[test]
fn a_recorded_init_ends_no_session() {
    for (n, to, other) in BOTH {
        let mut net = Net::of_two();
        net.send(n, 1, to, "hello");
        net.run(second(5));
        replay(&mut net, other, n, 100);
        net.run(second(1));
        net.seen.clear();
        net.send(n, 2, to, "still there?");
        net.run(ONE_WAY + Duration::from_millis(1));
        assert_eq!(net.texts(other).len(), 2, "{:#?}", net.seen);
        net.run(second(1));
        assert!(net.is_delivered(n, 2));
        assert_eq!(net.seen.iter().find(|line| line.contains("Handshake")), None);
    }
}

/// What a process of node 2 that is not gone says in its session counts: the session takes over.
#[test]
fn the_first_packet_shows_that_a_process_lives() {
    let mut net = Net::of_two();
    net.send(1, 1, "bob", "hello");
    net.run(second(2));
    let mut initiator = replay(&mut net, 2, 1, 100);
    assert!(!net.host(1).node.diagnose()[0].contains("boot Boot(100)"));
    let (_, reply) =
        net.flying.iter().find(|(_, t)| Family::of(&t.payload) == Family::Relay).unwrap();
    let completed = initiator.read_reply(&reply.payload[RELAY_HEADER_LEN..]).unwrap();
    let (side, local) = (Side::Initiator, Address::Peer(ReceiverId(100)));
    let (own, remote) = (key(2).public(), completed.info.address);
    let mut session = Session::new(completed.established, side, own, local, remote, 128, net.now);
    let mut packet = vec![0; session.header_len()];
    Frame::Confirm.encode(&mut packet);
    session.seal(PacketNumber::new(PathId::SERVER, 0), &mut packet, 0, net.now).unwrap();
    relayed(&mut net, 2, 1, &packet);
    assert!(net.host(1).node.diagnose()[0].contains("boot Boot(100)"));
}
