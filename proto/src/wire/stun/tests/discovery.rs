//! What clients that find out about their NAT ask for (RFC 5780).

use stun_rs::attributes::discovery::{OtherAddress, Padding, ResponsePort};

use super::*;

fn at(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

/// Two IPs of each family would be two servers: the second one is of IPv4.
pub(super) fn two_of_each() -> Places {
    let ports = ["192.0.2.1", "192.0.2.2", "[2001:db8::1]"];
    Places {
        ports: ports.map(|ip| (at(&format!("{ip}:3478")), at(&format!("{ip}:3479")))).to_vec(),
        second_ip: Some(SecondIp {
            local: "192.0.2.2".parse().unwrap(),
            public: "192.0.2.2".parse().unwrap(),
        }),
        external_ip: None,
    }
}

/// One IP, known to the sockets or not.
fn one_ip(bound: &str) -> Places {
    let ports = vec![(at(&format!("{bound}:3478")), at(&format!("{bound}:3479")))];
    Places { ports, ..Places::default() }
}

/// To the server's main address of the same family.
pub(super) fn route_from(from: SocketAddr) -> Route {
    let local = if from.is_ipv4() { server() } else { at("[2001:db8::1]:3478") };
    Route::udp(local, from)
}

fn change(flags: u8, padding: usize) -> Vec<u8> {
    let list: [(u16, &[u8]); 2] =
        [(kind::CHANGE_REQUEST, &[0, 0, 0, flags]), (kind::PADDING, &vec![0; padding])];
    raw(BINDING_REQUEST, MAGIC_COOKIE, &list)
}

fn is_refused(answer: &[u8]) -> bool {
    read_binding_error(answer).is_some()
}

#[test]
fn an_answer_comes_from_where_it_was_asked_to() {
    let two = two_of_each();
    for (asked, flags, leaves) in [
        ("192.0.2.1:3478", 2, "192.0.2.1:3479"),
        ("192.0.2.1:3479", 2, "192.0.2.1:3478"),
        ("192.0.2.1:3478", 4, "192.0.2.2:3478"),
        ("192.0.2.1:3478", 6, "192.0.2.2:3479"),
        ("192.0.2.2:3479", 6, "192.0.2.1:3478"),
    ] {
        let route = Route::udp(at(asked), v4());
        let (answer, sent) = ask_at(&change(flags, 40), route, &two).unwrap();
        assert_eq!(sent, Route::udp(at(leaves), v4()), "{asked} {flags}");
        assert_eq!(read_binding_response(&answer), Some((TRANSACTION, v4())));
        let origin = validated(&answer).get::<ResponseOrigin>().unwrap().clone();
        assert_eq!(*origin.as_response_origin().unwrap().socket_address(), at(leaves));
    }
}

#[test]
fn a_peers_request_for_change_is_answered() {
    for (wanted, leaves) in
        [(Change::Port, "192.0.2.1:3479"), (Change::IpAndPort, "192.0.2.2:3479")]
    {
        let request = changed_binding_request(TRANSACTION, wanted);
        assert_eq!(read_binding_request(&request), Some(TRANSACTION));
        let (answer, sent) = ask_at(&request, route_from(v4()), &two_of_each()).unwrap();
        assert_eq!(sent.local, at(leaves));
        assert_eq!(read_binding_response(&answer), Some((TRANSACTION, v4())));
    }
}

#[test]
fn what_the_server_has_not_cannot_be_asked_for() {
    let route = route_from(v4());
    for (places, flags, works) in [
        (Places::default(), 2, false),
        (one_ip("192.0.2.1"), 2, true),
        (one_ip("192.0.2.1"), 4, false),
        (one_ip("[::]"), 2, true),
        (one_ip("[::]"), 6, false),
        (one_ip("198.51.100.1"), 2, false),
    ] {
        let (answer, sent) = ask_at(&change(flags, 40), route, &places).unwrap();
        assert_eq!(!is_refused(&answer), works, "{places:?} {flags}");
        assert_eq!(sent != route, works, "{places:?} {flags}");
    }
    let six = Route::udp(at("[2001:db8::1]:3478"), v6());
    let (answer, sent) = ask_at(&change(4, 40), six, &two_of_each()).unwrap();
    assert!(is_refused(&answer) && sent == six, "the second IP is of the other family");
}

#[test]
fn who_pays_less_than_the_answer_is_refused() {
    for (from, bare) in [(v4(), 32), (v6(), 44)] {
        for padding in (0..40).step_by(4) {
            let request = change(2, padding);
            let route = route_from(from);
            let (answer, sent) = ask_at(&request, route, &two_of_each()).unwrap();
            assert_eq!(is_refused(&answer), request.len() < bare, "{padding}");
            assert_eq!(sent == route, request.len() < bare, "{padding}");
            assert!(sent == route || answer.len() <= request.len());
        }
    }
}

#[test]
fn the_answer_goes_to_another_port_on_request() {
    let request = |software: &str| {
        bytes(
            build(MessageClass::Request)
                .with_attribute(ResponsePort::from(50_001))
                .with_attribute(Software::new(software).unwrap()),
        )
    };
    let (answer, sent) = ask_at(&request("long enough"), route_from(v4()), &two_of_each()).unwrap();
    assert_eq!(sent, Route::udp(server(), at("203.0.113.9:50001")));
    assert_eq!(read_binding_response(&answer), Some((TRANSACTION, v4())));
    let bare = bytes(build(MessageClass::Request).with_attribute(ResponsePort::from(50_001)));
    let (answer, sent) = ask_at(&bare, route_from(v4()), &two_of_each()).unwrap();
    assert!(is_refused(&answer) && sent == route_from(v4()));
    let zero =
        raw(BINDING_REQUEST, MAGIC_COOKIE, &[(kind::RESPONSE_PORT, &[0; 4]), (0x8022, &[7; 40])]);
    let (answer, sent) = ask_at(&zero, route_from(v4()), &two_of_each()).unwrap();
    assert!(is_refused(&answer) && sent == route_from(v4()));
}

#[test]
fn behind_integrity_nothing_is_asked_for() {
    let list: [(u16, &[u8]); 4] = [
        (kind::MESSAGE_INTEGRITY, &[0; 20]),
        (kind::CHANGE_REQUEST, &[0, 0, 0, 6]),
        (kind::RESPONSE_PORT, &[1, 2, 0, 0]),
        (0x8022, &[b'x'; 40]),
    ];
    let request = raw(BINDING_REQUEST, MAGIC_COOKIE, &list);
    let (answer, sent) = ask_at(&request, route_from(v4()), &two_of_each()).unwrap();
    assert_eq!(sent, route_from(v4()));
    assert_eq!(read_binding_response(&answer), Some((TRANSACTION, v4())));
}

/// The other address that an answer to a padded request names.
fn other_address(places: &Places, local: &str) -> Option<SocketAddr> {
    let request =
        bytes(build(MessageClass::Request).with_attribute(Padding::new("x".repeat(60)).unwrap()));
    let (answer, _) = ask_at(&request, Route::udp(at(local), v4()), places).unwrap();
    let message = validated(&answer);
    let other = message.get::<OtherAddress>()?.as_other_address().unwrap();
    Some(*other.socket_address())
}

#[test]
fn only_two_ips_are_a_full_service() {
    let two = two_of_each();
    assert_eq!(other_address(&two, "192.0.2.1:3478"), Some(at("192.0.2.2:3479")));
    assert_eq!(other_address(&two, "192.0.2.2:3479"), Some(at("192.0.2.1:3478")));
    assert_eq!(other_address(&one_ip("192.0.2.1"), "192.0.2.1:3478"), None);
    let wildcard = Places { second_ip: two.second_ip, ..one_ip("0.0.0.0") };
    assert_eq!(other_address(&wildcard, "192.0.2.1:3478"), Some(at("192.0.2.2:3479")));
    assert_eq!(other_address(&wildcard, "192.0.2.2:3478"), None, "the first IP is not known");
}

#[test]
fn behind_a_translation_the_public_addresses_are_told() {
    let [first, second, public] =
        ["203.0.113.1", "192.0.2.2", "203.0.113.2"].map(|ip| ip.parse().unwrap());
    let second_ip = Some(SecondIp { local: second, public });
    let places = Places { second_ip, external_ip: Some(first), ..two_of_each() };
    assert_eq!(other_address(&places, "192.0.2.1:3478"), Some(at("203.0.113.2:3479")));
    assert_eq!(other_address(&places, "192.0.2.2:3478"), Some(at("203.0.113.1:3479")));
    let (_, sent) = ask_at(&change(6, 40), route_from(v4()), &places).unwrap();
    assert_eq!(sent.local, at("192.0.2.2:3479"), "sockets have the host's own addresses");
}
