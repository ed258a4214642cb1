//! STUN of strangers, as a server and as a client.

#![no_main]

use std::net::SocketAddr;

use libfuzzer_sys::fuzz_target;
use p2sp_proto::id::CheckTag;
use p2sp_proto::io::Route;
use p2sp_proto::wire::stun::{
    ANSWER_LEN_MAX, Places, SecondIp, StunVerdict, answer, is_binding_for, read_binding_response,
};

fuzz_target!(|input: (bool, bool, &[u8])| {
    let (v6, everywhere, datagram) = input;
    let (local, remote) = if v6 {
        (SocketAddr::from(([1; 8], 3478)), SocketAddr::from(([2; 8], 999)))
    } else {
        (SocketAddr::from(([192, 0, 2, 1], 3478)), SocketAddr::from(([192, 0, 2, 9], 999)))
    };
    let places = if everywhere { all_places(local) } else { Places::default() };
    let mut out = [0; ANSWER_LEN_MAX];
    if let StunVerdict::Answer { len, route } =
        answer(datagram, Route::udp(local, remote), &places, &mut out)
    {
        assert!(len <= ANSWER_LEN_MAX);
        assert_eq!(route.remote.ip(), remote.ip(), "nobody else is sent anything");
    }
    let _ = read_binding_response(datagram);
    let _ = is_binding_for(datagram, CheckTag([1; 8]));
});

fn all_places(local: SocketAddr) -> Places {
    let second = if local.is_ipv6() {
        SocketAddr::from(([3; 8], 0)).ip()
    } else {
        SocketAddr::from(([192, 0, 2, 2], 0)).ip()
    };
    Places {
        ports: vec![(local, SocketAddr::new(local.ip(), 3479))],
        second_ip: Some(SecondIp { local: second, public: second }),
        external_ip: None,
    }
}
