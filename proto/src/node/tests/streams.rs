//! Streams and datagrams of nodes.

use super::*;

pub(super) fn open(net: &mut Net, n: u8, to: &str) -> StreamHandle {
    let to = Recipient::Name(to.parse().unwrap());
    let handle = Handle(1000 + net.host(n).events.len() as u64);
    net.command(n, Command::OpenStream { handle, to });
    opened(net, n, Some(handle)).unwrap()
}

/// The stream that this command opened, or the last that the other side did.
pub(super) fn opened(net: &mut Net, n: u8, wanted: Option<Handle>) -> Option<StreamHandle> {
    let found = |event: &Event| {
        let Event::StreamOpened { stream, handle, .. } = event else { return None };
        (*handle == wanted).then_some(*stream)
    };
    net.host(n).events.iter().rev().find_map(found)
}

pub(super) fn write(net: &mut Net, n: u8, stream: StreamHandle, text: &str) {
    let now = net.now;
    assert_eq!(net.host(n).node.write_stream(stream, text.as_bytes(), now), Ok(text.len()));
    net.drain();
}

fn finish(net: &mut Net, n: u8, stream: StreamHandle) {
    let now = net.now;
    net.host(n).node.finish_stream(stream, now);
    net.drain();
}

pub(super) fn read(net: &mut Net, n: u8, stream: StreamHandle) -> Result<Read, StreamError> {
    let now = net.now;
    let read = net.host(n).node.read_stream(stream, 1 << 20, now);
    net.drain();
    read
}

pub(super) fn text(text: &str) -> Result<Read, StreamError> {
    Ok(Read::Bytes(Bytes::copy_from_slice(text.as_bytes())))
}

pub(super) fn saw(net: &mut Net, n: u8, of: StreamHandle, wanted: StreamEvent) -> bool {
    net.count(
        n,
        |e| matches!(e, Event::Stream { stream, event } if (*stream, *event) == (of, wanted)),
    ) > 0
}

#[test]
fn a_stream_is_opened_by_name_and_ends_on_each_side_for_itself() {
    let mut net = Net::of_two();
    let ours = open(&mut net, 1, "bob");
    write(&mut net, 1, ours, "question");
    finish(&mut net, 1, ours);
    net.run(second(1));
    let theirs = opened(&mut net, 2, None).unwrap();
    assert!(saw(&mut net, 2, theirs, StreamEvent::Readable));
    assert!(saw(&mut net, 1, ours, StreamEvent::Finished));
    assert_eq!(read(&mut net, 2, theirs), text("question"));
    assert_eq!(read(&mut net, 2, theirs), Ok(Read::End));
    write(&mut net, 2, theirs, "answer");
    finish(&mut net, 2, theirs);
    net.run(second(1));
    assert_eq!(read(&mut net, 1, ours), text("answer"));
    assert_eq!(read(&mut net, 1, ours), Ok(Read::End));
    net.run(second(1));
    for (n, stream) in [(1, ours), (2, theirs)] {
        assert!(saw(&mut net, n, stream, StreamEvent::Closed), "{n}");
        assert_eq!(read(&mut net, n, stream), Err(StreamError::Closed));
    }
}

#[test]
fn a_stream_to_nobody_fails() {
    let mut net = Net::of_two();
    let to = Recipient::Name("nobody".parse().unwrap());
    net.command(1, Command::OpenStream { handle: Handle(1), to });
    net.run(second(1));
    let failed =
        |e: &Event| matches!(e, Event::Failed { problem, .. } if problem.code == code::NOT_FOUND);
    assert_eq!(net.count(1, failed), 1);
}

#[test]
fn a_quiet_stream_stays_while_the_peer_is_there_and_the_server_is_not() {
    let mut net = Net::of_two();
    let ours = open(&mut net, 1, "bob");
    net.run(second(5));
    net.drops = |t| is_server(t.route.remote) || is_server(t.route.local);
    net.run(second(1200));
    assert!(!saw(&mut net, 1, ours, StreamEvent::Lost));
    let theirs = opened(&mut net, 2, None).unwrap();
    write(&mut net, 1, ours, "still here");
    net.run(second(1));
    assert_eq!(read(&mut net, 2, theirs), text("still here"));
}

#[test]
fn streams_are_lost_when_the_peer_is_silent_for_a_minute() {
    let mut net = Net::of_two();
    let ours = open(&mut net, 1, "bob");
    net.run(second(5));
    net.drops = |_| true;
    net.run(second(35));
    assert!(!saw(&mut net, 1, ours, StreamEvent::Lost), "a cut that may heal");
    net.run(second(60));
    assert!(saw(&mut net, 1, ours, StreamEvent::Lost));
    let theirs = opened(&mut net, 2, None).unwrap();
    assert!(saw(&mut net, 2, theirs, StreamEvent::Lost));
    net.drops = |_| false;
    net.run(second(60));
    let again = open(&mut net, 1, "bob");
    write(&mut net, 1, again, "anew");
    net.run(second(5));
    let theirs = opened(&mut net, 2, None).unwrap();
    assert_eq!(read(&mut net, 2, theirs), text("anew"));
}

#[test]
fn streams_outlive_a_restart_of_the_server() {
    let mut net = Net::of_two();
    let ours = open(&mut net, 1, "bob");
    write(&mut net, 1, ours, "before ");
    net.run(second(1));
    net.restart_hub();
    net.run(second(30));
    write(&mut net, 1, ours, "after");
    net.run(second(1));
    let theirs = opened(&mut net, 2, None).unwrap();
    assert_eq!(read(&mut net, 2, theirs), text("before after"));
}

#[test]
fn a_peer_that_restarts_ends_its_streams_and_takes_new_ones() {
    let mut net = Net::of_two();
    let ours = open(&mut net, 1, "bob");
    write(&mut net, 1, ours, "into the void");
    net.run(second(1));
    net.add(2, config(2, "bob"));
    net.start(2);
    net.run(second(5));
    assert!(saw(&mut net, 1, ours, StreamEvent::Lost));
    let fresh = open(&mut net, 1, "bob");
    write(&mut net, 1, fresh, "fresh");
    net.run(second(2));
    let theirs = opened(&mut net, 2, None).unwrap();
    assert_eq!(read(&mut net, 2, theirs), text("fresh"));
    assert!(!saw(&mut net, 1, fresh, StreamEvent::Lost));
}

#[test]
fn good_bye_waits_for_finished_streams_and_ends_the_others() {
    let mut net = Net::of_two();
    let (ended, open_one) = (open(&mut net, 1, "bob"), open(&mut net, 1, "bob"));
    net.run(second(1));
    write(&mut net, 1, ended, "last words");
    finish(&mut net, 1, ended);
    net.command(1, Command::Close);
    net.run(second(5));
    assert_eq!(net.count(1, |e| matches!(e, Event::Closed)), 1);
    let of = |event: &Event| {
        let Event::StreamOpened { stream, .. } = event else { return None };
        Some(*stream)
    };
    let theirs: Vec<StreamHandle> = net.host(2).events.iter().filter_map(of).collect();
    assert_eq!(theirs.len(), 2, "{open_one:?}");
    assert_eq!(read(&mut net, 2, theirs[0]), text("last words"));
    assert_eq!(read(&mut net, 2, theirs[0]), Ok(Read::End));
    assert!(saw(&mut net, 2, theirs[1], StreamEvent::Lost));
    assert_eq!(read(&mut net, 2, theirs[1]), Err(StreamError::Lost));
}

#[test]
fn datagrams_go_to_who_is_known() {
    let mut net = Net::of_two();
    let now = net.now;
    let send = |net: &mut Net, to: &str, len: usize| {
        let sent = net.host(1).node.send_datagram(&to.parse().unwrap(), vec![7; len].into(), now);
        net.drain();
        sent.map_err(|problem| problem.code)
    };
    assert_eq!(send(&mut net, "nobody", 1), Err(code::NOT_FOUND));
    assert_eq!(send(&mut net, "bob", 2000), Err(code::TOO_LARGE));
    assert_eq!(send(&mut net, "bob", 1000), Ok(()));
    net.run(second(1));
    let got = |e: &Event| {
        matches!(e, Event::Datagram { from, payload, .. }
            if from.as_str() == "alice" && payload[..] == [7; 1000])
    };
    assert_eq!(net.count(2, got), 1);
}
