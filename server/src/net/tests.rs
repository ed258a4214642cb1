use super::*;
use std::net::UdpSocket as Client;
use std::time::Duration;

fn at(addresses: &[&str]) -> Listen {
    Listen::At(addresses.iter().map(|text| text.parse().unwrap()).collect())
}

fn client(address: &str) -> Client {
    let client = Client::bind(address).unwrap();
    client.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    client
}

/// Reads from any socket until `count` datagrams have come, and sends each back the way it came.
async fn echo(sockets: &mut Sockets, count: usize) -> Vec<(Route, Vec<u8>)> {
    let mut buffers = Buffers::new();
    let mut seen = Vec::new();
    while seen.len() < count {
        let index = sockets.readable().await;
        if sockets.receive(index, &mut buffers).is_err() {
            continue;
        }
        for train in buffers.trains() {
            for datagram in train.bytes.chunks(train.stride) {
                sockets.send(train.route, datagram, None, train.ecn).unwrap();
                seen.push((train.route, datagram.to_vec()));
            }
        }
    }
    seen
}

/// The address with another IP: how a client reaches a socket on all addresses.
fn through(ip: &str, bound: SocketAddr) -> SocketAddr {
    SocketAddr::new(ip.parse().unwrap(), bound.port())
}

fn has_ipv6() -> bool {
    Client::bind("[::1]:0").is_ok()
}

#[tokio::test]
async fn answers_leave_from_the_address_that_was_asked() {
    for listen in ["0.0.0.0:0", "[::]:0"] {
        if listen.starts_with('[') && !has_ipv6() {
            continue;
        }
        let mut sockets = Sockets::bind(&at(&[listen]), AltPort::Next).unwrap();
        for bound in [sockets.main_addresses()[0], sockets.alt_addresses()[0]] {
            for ip in ["127.0.0.1", "127.0.0.2"] {
                let client = client("127.0.0.1:0");
                let asked = through(ip, bound);
                client.send_to(b"hello", asked).unwrap();
                let seen = echo(&mut sockets, 1).await;
                let from = client.local_addr().unwrap();
                assert_eq!(seen, [(Route::udp(asked, from), b"hello".to_vec())], "{listen}");
                let mut answer = [0; 16];
                assert_eq!(client.recv_from(&mut answer).unwrap(), (5, asked), "{listen}");
            }
        }
    }
}

#[tokio::test]
async fn one_wildcard_socket_speaks_both_families() {
    if !has_ipv6() {
        return;
    }
    let mut sockets = Sockets::bind(&at(&["[::]:0"]), AltPort::Off).unwrap();
    let asked = through("::1", sockets.main_addresses()[0]);
    let client = client("[::1]:0");
    client.send_to(b"six", asked).unwrap();
    let seen = echo(&mut sockets, 1).await;
    assert_eq!(seen[0].0, Route::udp(asked, client.local_addr().unwrap()));
    assert_eq!(client.recv_from(&mut [0; 16]).unwrap(), (3, asked));
}

#[tokio::test]
async fn a_route_finds_its_socket_among_several() {
    let sockets = Sockets::bind(&at(&["127.0.0.1:0", "127.0.0.2:0"]), AltPort::Next).unwrap();
    assert_eq!((sockets.main_addresses().len(), sockets.alt_addresses().len()), (2, 2));
    let client = client("127.0.0.1:0");
    for local in [sockets.main_addresses(), sockets.alt_addresses()].concat() {
        let route = Route::udp(local, client.local_addr().unwrap());
        sockets.send(route, b"x", None, None).unwrap();
        assert_eq!(client.recv_from(&mut [0; 16]).unwrap(), (1, local));
    }
    let nowhere = Route::udp("127.0.0.3:9".parse().unwrap(), client.local_addr().unwrap());
    let error = sockets.send(nowhere, b"x", None, None).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::AddrNotAvailable);
}

#[tokio::test]
async fn a_train_leaves_and_arrives_in_its_datagrams() {
    let mut sockets = Sockets::bind(&at(&["127.0.0.1:0", "127.0.0.1:0"]), AltPort::Off).unwrap();
    let [one, other] = sockets.main_addresses()[..] else { panic!("two sockets") };
    let train: Vec<u8> = (0..250).collect();
    sockets.send(Route::udp(one, other), &train, Some(100), None).unwrap();
    let mut buffers = Buffers::new();
    let mut lengths = Vec::new();
    let mut bytes = Vec::new();
    while bytes.len() < train.len() {
        let index = sockets.readable().await;
        if sockets.receive(index, &mut buffers).is_ok() {
            for train in buffers.trains() {
                lengths.extend(train.bytes.chunks(train.stride).map(<[u8]>::len));
                bytes.extend_from_slice(train.bytes);
            }
        }
    }
    assert_eq!((lengths, bytes), (vec![100, 100, 50], train));
}

#[tokio::test]
async fn a_refused_datagram_does_not_spoil_the_socket() {
    let mut sockets = Sockets::bind(&at(&["127.0.0.1:0"]), AltPort::Off).unwrap();
    let main = sockets.main_addresses()[0];
    let gone = client("127.0.0.1:0").local_addr().unwrap();
    for _ in 0..3 {
        let _ = sockets.send(Route::udp(main, gone), b"x", None, None);
    }
    let client = client("127.0.0.1:0");
    client.send_to(b"still there?", main).unwrap();
    assert_eq!(echo(&mut sockets, 1).await.len(), 1);
    assert_eq!(client.recv_from(&mut [0; 16]).unwrap(), (12, main));
}

#[tokio::test]
async fn an_empty_datagram_is_no_datagram() {
    let mut sockets = Sockets::bind(&at(&["127.0.0.1:0"]), AltPort::Off).unwrap();
    client("127.0.0.1:0").send_to(b"", sockets.main_addresses()[0]).unwrap();
    let mut buffers = Buffers::new();
    let index = sockets.readable().await;
    sockets.receive(index, &mut buffers).unwrap();
    let datagrams: usize = buffers.trains().map(|t| t.bytes.chunks(t.stride).count()).sum();
    assert_eq!(datagrams, 0);
}

#[tokio::test]
async fn a_taken_port_is_named_with_its_remedy() {
    let taken = client("127.0.0.1:0");
    let address = taken.local_addr().unwrap();
    let problem = |listen, alt| Sockets::bind(&listen, alt).err().unwrap().to_string();
    let main = problem(Listen::At(vec![address]), AltPort::Off);
    assert!(main.contains(&address.to_string()) && main.contains("--listen"), "{main}");
    let alt = problem(at(&["127.0.0.1:0"]), AltPort::At(address.port()));
    assert!(alt.contains(&address.to_string()) && alt.contains("--alt-port"), "{alt}");
}

#[tokio::test]
async fn an_address_of_another_host_is_named() {
    let problem = Sockets::bind(&at(&["192.0.2.1:0"]), AltPort::Off).err().unwrap().to_string();
    assert!(problem.contains("192.0.2.1") && problem.contains("--external-ip"), "{problem}");
}

#[tokio::test]
async fn a_second_ip_has_the_same_ports() {
    let second: IpAddr = [127, 0, 0, 2].into();
    let mut sockets = Sockets::bind(&at(&["127.0.0.1:0"]), AltPort::Next).unwrap();
    let [(main, alt)] = sockets.ports()[..] else { panic!("{:?}", sockets.ports()) };
    sockets.add_second_ip(second).unwrap();
    let on_second = |first: SocketAddr| SocketAddr::new(second, first.port());
    assert_eq!(sockets.ports(), [(main, alt), (on_second(main), on_second(alt))]);
    let remote = client("127.0.0.1:0");
    let to = remote.local_addr().unwrap();
    for from in [main, alt, on_second(main), on_second(alt)] {
        sockets.send_patiently(Route::udp(from, to), b"x").await.unwrap();
        assert_eq!(remote.recv_from(&mut [0; 9]).unwrap().1, from);
    }
    assert_eq!(sockets.main_addresses(), [main], "peers register at the first");
    assert_eq!(sockets.alt_addresses(), [alt]);
}

#[tokio::test]
async fn a_second_ip_of_another_host_is_named() {
    for listen in ["127.0.0.1:0", "0.0.0.0:0"] {
        let mut sockets = Sockets::bind(&at(&[listen]), AltPort::Next).unwrap();
        let problem = sockets.add_second_ip([192, 0, 2, 1].into()).unwrap_err().to_string();
        assert!(problem.contains("192.0.2.1") && problem.contains("--alt-ip"), "{problem}");
    }
    let mut all = Sockets::bind(&at(&["0.0.0.0:0"]), AltPort::Next).unwrap();
    all.add_second_ip([127, 0, 0, 2].into()).unwrap();
    assert_eq!(all.ports().len(), 1, "a socket on all addresses has it already");
}

#[tokio::test]
async fn the_alternative_port_follows_the_main_one() {
    // Another program may hold the next port of any one pair.
    let pair = (20_000..20_100).step_by(2).find_map(|port| {
        let listen = Listen::At(vec![([127, 0, 0, 1], port).into()]);
        Sockets::bind(&listen, AltPort::Next).ok()
    });
    let sockets = pair.expect("some pair of ports is free");
    assert_eq!(sockets.alt_addresses()[0].port(), sockets.main_addresses()[0].port() + 1);
    let main = "127.0.0.1:65535".parse().unwrap();
    assert!(matches!(alt_address(main, main, AltPort::Next), Err(BindError::NoNextPort(_))));
}

#[tokio::test]
async fn one_port_serves_a_wildcard_and_an_address_of_the_other_family() {
    if !has_ipv6() {
        return;
    }
    let free = client("127.0.0.1:0").local_addr().unwrap().port();
    let all = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), free);
    let one = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), free);
    assert_eq!(family(all, &[all]), Family::Dual);
    assert_eq!(family(all, &[all, one]), Family::V6);
    assert!(Sockets::bind(&Listen::At(vec![all, one]), AltPort::Off).is_ok());
}

#[test]
fn addresses_lose_what_the_family_added() {
    for (raw, plain) in [
        ("[::ffff:192.0.2.1]:5", "192.0.2.1:5"),
        ("192.0.2.1:5", "192.0.2.1:5"),
        ("[2001:db8::1]:5", "[2001:db8::1]:5"),
        ("[2001:db8::1%3]:5", "[2001:db8::1]:5"),
        ("[fe80::1%3]:5", "[fe80::1%3]:5"),
    ] {
        assert_eq!(canonical(raw.parse().unwrap()), plain.parse().unwrap(), "{raw}");
    }
}
