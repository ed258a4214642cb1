//! STUN clients of others, against the real server: they must be installed (coturn, stun-client).

use std::net::{SocketAddr, UdpSocket};
use std::process::Command;

use stun_rs::attributes::discovery::{ChangeRequest, ChangeRequestFlags};
use stun_rs::attributes::stun::{Software, XorMappedAddress};
use stun_rs::methods::BINDING;
use stun_rs::{
    MessageClass, MessageDecoderBuilder, MessageEncoderBuilder, StunMessage, StunMessageBuilder,
};

use crate::lines::PATIENCE;
use crate::stage::{Stage, finish};

/// A server with a main and a second port in this family.
fn ports(ip: &str) -> (Stage, [SocketAddr; 2]) {
    let stage = Stage::with_server(&["--listen", &format!("{ip}:0")]);
    let ports = [stage.address, stage.alt.unwrap()];
    (stage, ports)
}

/// The client with its limit of time: some wait for ever.
fn client(name: &str) -> Command {
    let mut command = Command::new("timeout");
    command.args(["20", name]);
    command
}

#[test]
fn coturns_client_learns_its_address() {
    for ip in ["127.0.0.1", "[::1]"] {
        let (_stage, ports) = ports(ip);
        for asked in ports {
            let (port, ip) = (asked.port().to_string(), asked.ip().to_string());
            let (code, out, err) = finish(client("turnutils_stunclient").args(["-p", &port, &ip]));
            assert_eq!(code, 0, "turnutils_stunclient (package coturn): {out} {err}");
            let address = format!("UDP reflexive addr: {ip}:");
            assert!(format!("{out}{err}").contains(&address), "{out} {err}");
        }
    }
}

#[test]
fn debians_client_finds_no_nat_on_loopback() {
    let (_stage, ports) = ports("127.0.0.1");
    for asked in ports {
        let (code, out, err) = finish(client("stun").args([&asked.to_string(), "1", "-v"]));
        let said = format!("{out}{err}");
        assert_eq!(code, 0, "stun (package stun-client): {said}");
        assert!(said.contains("127.0.0.1:"), "{said}");
    }
    let (_, out, err) = finish(client("stun").arg(ports[0].to_string()));
    assert!(format!("{out}{err}").contains("Primary: Open"), "{out} {err}");
}

#[test]
fn a_library_reads_the_answer_from_the_port_that_was_asked() {
    for ip in ["127.0.0.1", "[::1]"] {
        let (_stage, ports) = ports(ip);
        for asked in ports {
            let client = UdpSocket::bind(SocketAddr::new(asked.ip(), 0)).unwrap();
            client.set_read_timeout(Some(PATIENCE)).unwrap();
            let request = StunMessageBuilder::new(BINDING, MessageClass::Request).build();
            let mut bytes = [0; 512];
            let encoder = MessageEncoderBuilder::default().build();
            let length = encoder.encode(&mut bytes, &request).unwrap();
            client.send_to(&bytes[..length], asked).unwrap();
            let (length, from) = client.recv_from(&mut bytes).unwrap();
            let decoder = MessageDecoderBuilder::default().build();
            let (answer, _): (StunMessage, usize) = decoder.decode(&bytes[..length]).unwrap();
            assert_eq!(answer.transaction_id(), request.transaction_id());
            let mapped = answer.get::<XorMappedAddress>().unwrap().as_xor_mapped_address().unwrap();
            assert_eq!((*mapped.socket_address(), from), (client.local_addr().unwrap(), asked));
        }
    }
}

/// RFC 5780 as coturn's client speaks it; it must pad its requests, for no answer is larger.
#[test]
fn coturns_client_discovers_no_nat_with_two_ips() {
    let stage = Stage::with_server(&["--listen", "127.0.0.1:0", "--alt-ip", "127.0.0.2"]);
    let port = stage.address.port().to_string();
    for (asked, found) in [
        ("-m", "NAT with Endpoint Independent Mapping!"),
        ("-f", "NAT with Endpoint Independent Filtering!"),
    ] {
        let discover = ["-P", asked, "-p", &port, "127.0.0.1"];
        let (code, out, err) = finish(client("turnutils_natdiscovery").args(discover));
        let said = format!("{out}{err}");
        assert_eq!(code, 0, "turnutils_natdiscovery (package coturn): {said}");
        assert!(said.contains(found), "{asked}: {said}");
        let other = format!("Other addr: : 127.0.0.2:{}", stage.alt.unwrap().port());
        assert!(said.contains(&other), "{asked}: {said}");
    }
}

/// With one IP nothing is promised, and the other port answers all the same, at whichever
/// address of the host was asked.
#[test]
fn the_other_port_answers_on_request() {
    for (listen, ip) in
        [("127.0.0.1:0", "127.0.0.1"), ("0.0.0.0:0", "127.0.0.3"), ("[::]:0", "127.0.0.3")]
    {
        let stage = Stage::with_server(&["--listen", listen]);
        let at = |port| SocketAddr::new(ip.parse().unwrap(), port);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.set_read_timeout(Some(PATIENCE)).unwrap();
        let request: StunMessage = StunMessageBuilder::new(BINDING, MessageClass::Request)
            .with_attribute(ChangeRequest::new(Some(ChangeRequestFlags::ChangePort.into())))
            .with_attribute(Software::new("as long as the answer").unwrap())
            .build();
        let mut bytes = [0; 200];
        let encoder = MessageEncoderBuilder::default().build();
        let length = encoder.encode(&mut bytes, &request).unwrap();
        client.send_to(&bytes[..length], at(stage.address.port())).unwrap();
        let (_, from) = client.recv_from(&mut bytes).unwrap();
        assert_eq!(from, at(stage.alt.unwrap().port()), "{listen}");
    }
}
