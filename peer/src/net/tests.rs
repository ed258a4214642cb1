use super::*;

fn transmit(remote: &str, len: usize) -> Transmit {
    let route = Route::udp("0.0.0.0:1".parse().unwrap(), remote.parse().unwrap());
    Transmit::new(route, vec![0; len])
}

#[test]
fn trains_have_one_route_and_one_size() {
    let (a, b) = ("192.0.2.1:1", "192.0.2.2:1");
    for (train, segments, expected) in [
        (vec![(a, 100)], 64, 1),
        (vec![(a, 100), (a, 100), (a, 100)], 64, 3),
        (vec![(a, 100), (a, 100), (a, 100)], 2, 2),
        (vec![(a, 100), (a, 100), (a, 100)], 1, 1),
        (vec![(a, 100), (b, 100)], 64, 1),
        (vec![(a, 100), (a, 100), (a, 40), (a, 40)], 64, 3),
        (vec![(a, 100), (a, 40), (a, 40)], 64, 1),
        (vec![(a, 40), (a, 100)], 64, 1),
        (vec![(a, 100), (a, 0), (a, 100)], 64, 1),
        (vec![(a, 1200); 64], 64, 54),
    ] {
        let single = |(to, len): &(&str, usize)| Parcel::Single(transmit(to, *len));
        let outbox: VecDeque<_> = train.iter().map(single).collect();
        assert_eq!(train_length(&outbox, segments), expected, "{train:?}");
    }
}

#[tokio::test]
async fn datagrams_cross_between_two_nets() {
    let bind = |text: &str| Some(text.parse().unwrap());
    let (mut a, mut b) =
        (Net::open(bind("127.0.0.1:0")).unwrap(), Net::open(bind("127.0.0.1:0")).unwrap());
    let (from, to) = (a.sockets[0].bound, b.sockets[0].bound);
    for size in [10_u8, 10, 10, 3] {
        a.push(Transmit::new(Route::udp(from, to), vec![size; usize::from(size)]));
    }
    // A socket is known to be writable only after the runtime looked.
    a.ready().await;
    a.flush();
    let mut seen = Vec::new();
    while seen.len() < 4 {
        b.ready().await;
        b.receive(|route, _, datagram| seen.push((route, datagram.to_vec())));
    }
    let sizes: Vec<_> = seen.iter().map(|(_, datagram)| datagram.len()).collect();
    assert_eq!(sizes, [10, 10, 10, 3]);
    assert!(seen.iter().all(|(route, _)| *route == Route::udp(to, from)));
    assert_eq!(b.local_sockets(false), [LocalSocket { bound: to, addresses: vec![to.ip()] }]);
}

#[tokio::test]
async fn marks_cross_and_share_no_train_with_what_has_none() {
    let open = || Net::open(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let (mut a, mut b) = (open(), open());
    let route = Route::udp(a.sockets[0].bound, b.sockets[0].bound);
    let sent = [Ecn::Ect0, Ecn::Ect0, Ecn::NotEct, Ecn::Ce];
    for ecn in sent {
        a.push(Transmit { ecn, ..Transmit::new(route, vec![7; 100]) });
    }
    a.ready().await;
    a.flush();
    let mut seen = Vec::new();
    while seen.len() < sent.len() {
        b.ready().await;
        b.receive(|_, ecn, _| seen.push(ecn));
    }
    assert_eq!(seen, sent);
}

#[tokio::test]
async fn a_train_arrives_in_its_pieces() {
    let open = || Net::open(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let (mut a, mut b) = (open(), open());
    let route = Route::udp(a.sockets[0].bound, b.sockets[0].bound);
    a.push(Transmit::new(route, vec![9]));
    a.ready().await;
    let payload: Vec<u8> = (0..=250).collect();
    a.push_train(Train { route, payload: payload.clone(), segment: 100, ecn: Ecn::Ect0 });
    let mut sent = 0;
    let train = Train { route, payload: payload.clone(), segment: 20, ecn: Ecn::NotEct };
    // As a system without segmentation takes it.
    a.sockets[0].send_train(&train, &mut sent, 1).unwrap();
    assert_eq!(sent, payload.len());
    let mut seen = Vec::new();
    while seen.len() < 17 {
        b.ready().await;
        b.receive(|_, ecn, datagram| seen.push((ecn, datagram.to_vec())));
    }
    let joined = |part: &[(Ecn, Vec<u8>)]| -> Vec<u8> {
        part.iter().flat_map(|(_, datagram)| datagram.clone()).collect()
    };
    let lengths = seen[1..4].iter().map(|(ecn, datagram)| (*ecn, datagram.len()));
    assert!(lengths.eq([(Ecn::Ect0, 100), (Ecn::Ect0, 100), (Ecn::Ect0, 51)]));
    assert_eq!((joined(&seen[1..4]), joined(&seen[4..])), (payload.clone(), payload));
}

#[tokio::test]
async fn more_than_a_batch_is_read_to_its_end() {
    let open = || Net::open(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let (mut a, mut b) = (open(), open());
    let route = Route::udp(a.sockets[0].bound, b.sockets[0].bound);
    a.push(Transmit::new(route, vec![0]));
    a.ready().await;
    let mut seen = Vec::new();
    for round in 0..3 {
        for number in 0..3 * RECEIVE_BATCH as u8 {
            // None fits a train with the next one.
            a.push(Transmit::new(route, vec![number; 1 + usize::from(number)]));
        }
        a.flush();
        let wanted = 1 + (round + 1) * 3 * RECEIVE_BATCH;
        while seen.len() < wanted {
            b.ready().await;
            b.receive(|_, _, datagram| seen.push(datagram.len()));
        }
    }
    assert_eq!(seen[1..=3 * RECEIVE_BATCH], Vec::from_iter(1..=3 * RECEIVE_BATCH));
}

#[tokio::test]
async fn few_payloads_are_kept_to_serve_again() {
    let mut net = Net::open(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let bound = net.sockets[0].bound;
    let datagram = || Transmit::new(Route::udp(bound, bound), vec![0]);
    net.push(datagram());
    net.ready().await;
    (0..3 * SINGLES).for_each(|_| net.push(datagram()));
    net.flush();
    assert_eq!((net.outbox.queue.len(), net.outbox.bytes), (0, 0));
    assert_eq!(net.spent().count(), SPENT_MAX);
    assert_eq!(net.spent().count(), 0);
}

#[tokio::test]
async fn spares_are_few_and_not_told_but_carry() {
    let mut net = Net::open(Some("127.0.0.1:0".parse().unwrap())).unwrap();
    let first = net.sockets[0].bound;
    let kind = SocketUse::Spare;
    let spares: Vec<_> = (0..kind.limit()).map(|_| net.open_extra(kind).unwrap()).collect();
    assert!(net.open_extra(kind).is_err());
    assert!(net.open_extra(SocketUse::Measure).is_ok());
    let told: Vec<_> = net.local_sockets(true).into_iter().map(|s| s.bound).collect();
    assert_eq!(told, [first]);
    let route = Route::udp(spares[3], first);
    net.push(Transmit { ttl: Some(3), ..Transmit::new(route, b"over".to_vec()) });
    net.ready().await;
    net.flush();
    let mut seen = Vec::new();
    while seen.is_empty() {
        net.ready().await;
        net.receive(|route, _, datagram| seen.push((route, datagram.to_vec())));
    }
    assert_eq!(seen, [(Route::udp(first, spares[3]), b"over".to_vec())]);
    net.close(&[spares[3], first]);
    assert!(net.open_extra(kind).is_ok(), "there is room again");
    assert_eq!(net.local_sockets(true).len(), 1, "its own sockets stay");
}

#[tokio::test]
async fn loopback_is_told_only_when_asked() {
    let net = Net::open(None).unwrap();
    let told = |with| {
        net.local_sockets(with).into_iter().flat_map(|s| s.addresses).any(|a| a.is_loopback())
    };
    assert!(!told(false));
    assert!(told(true));
    assert!(net.speaks(&"192.0.2.1:1".parse().unwrap()));
}
