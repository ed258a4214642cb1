use std::pin::pin;

use p2sp_proto::control::Problem;
use p2sp_proto::id::{Channel, Epoch, PeerKey, PeerName, Sequence};
use p2sp_proto::node::{Audience, PathView};

use super::*;

fn desk(room: usize) -> (Arc<Desk>, Clerk) {
    let desk = Arc::new(Desk::new(room));
    let clerk = Clerk::new(Arc::clone(&desk));
    (desk, clerk)
}

fn bob() -> PeerName {
    PeerName::new("bob").unwrap()
}

fn submit(desk: &Desk) -> Handle {
    desk.try_submit(Recipient::Name(bob()), Bytes::new(), 1).unwrap()
}

fn receipt() -> Fate {
    Ok(Receipt { to: bob(), path: PathView::None })
}

fn settle(clerk: &mut Clerk, handle: Handle, fate: Fate) {
    assert!(clerk.settle(handle, || fate));
    clerk.tell();
}

async fn fate(desk: &Desk, handle: Handle) -> Fate {
    poll_fn(|cx| desk.poll_fate(handle, cx)).await
}

/// What a future answers at once.
fn at_once<F: Future>(future: F) -> Option<F::Output> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => Some(output),
        Poll::Pending => None,
    }
}

fn taken(clerk: &mut Clerk) -> (Vec<Handle>, Vec<Handle>) {
    let (mut submitted, mut cancelled) = (Vec::new(), Vec::new());
    clerk.take(|of| submitted.push(of.handle), |handle| cancelled.push(handle));
    (submitted, cancelled)
}

fn incoming(number: u64) -> Incoming {
    Incoming {
        from: bob(),
        key: PeerKey::from_bytes([1; 32]),
        audience: Audience::Private,
        id: (Epoch(1), Channel(0), Sequence(number)),
        payload: Bytes::new(),
    }
}

#[tokio::test]
async fn each_fate_goes_to_who_waits_for_it() {
    let (desk, mut clerk) = desk(10);
    let (first, second) = (submit(&desk), submit(&desk));
    assert_eq!(taken(&mut clerk), (vec![first, second], vec![]));
    let waiting = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { fate(&desk, second).await }
    });
    tokio::task::yield_now().await;
    let problem = Problem { code: 404, text: "nobody".to_owned() };
    settle(&mut clerk, second, Err(SendError::Failed(problem.clone())));
    assert_eq!(waiting.await.unwrap(), Err(SendError::Failed(problem)));
    assert!(at_once(fate(&desk, first)).is_none(), "another message's fate");
    settle(&mut clerk, first, receipt());
    assert_eq!(fate(&desk, first).await, receipt());
    assert_eq!(fate(&desk, first).await, Err(SendError::Closed), "asked twice");
}

#[tokio::test]
async fn room_comes_back_with_fates_and_places_are_used_again() {
    let (desk, mut clerk) = desk(2);
    let mut seen = Vec::new();
    for round in 0..3 {
        let handles = [submit(&desk), submit(&desk)];
        let full = desk.try_submit(Recipient::Name(bob()), Bytes::new(), 1);
        assert_eq!(full, Err(SendError::Full));
        // Forgotten before its fate is known, and after.
        desk.forget(handles[0]);
        handles.iter().for_each(|handle| settle(&mut clerk, *handle, receipt()));
        desk.forget(handles[1]);
        assert_eq!(desk.lock().places.len(), 2, "round {round}");
        seen.extend(handles);
    }
    settle(&mut clerk, seen[0], receipt());
    assert_eq!(desk.room.available_permits(), 2, "an old handle frees nothing");
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 6);
    assert!(seen.iter().chain([&desk.handle()]).all(|handle| handle.0 < 1 << 53));
    assert!(!clerk.settle(desk.handle(), receipt), "no message");
}

#[tokio::test]
async fn who_has_to_wait_for_room_is_served() {
    let (desk, mut clerk) = desk(1);
    let first = submit(&desk);
    assert!(at_once(desk.wait_for_room(1)).is_none());
    desk.cancel(first);
    assert_eq!(taken(&mut clerk), (vec![first], vec![first]));
    settle(&mut clerk, first, Err(SendError::Closed));
    desk.wait_for_room(1).await.unwrap();
    drop(clerk);
    assert_eq!(desk.wait_for_room(1).await, Err(SendError::Closed));
}

#[tokio::test]
async fn the_driver_wakes_for_messages_and_for_room() {
    let (desk, mut clerk) = desk(10);
    assert!(at_once(clerk.wanted(false)).is_none());
    let submitted = async {
        tokio::task::yield_now().await;
        submit(&desk);
    };
    tokio::join!(clerk.wanted(false), submitted);
    taken(&mut clerk);
    clerk.deliver(&mut (0..RECEIVE_QUEUE_MAX as u64).map(incoming).collect());
    assert_eq!(clerk.room(), 0);
    assert!(at_once(clerk.wanted(true)).is_none());
    let received = async {
        for number in 0..RECEIVE_QUEUE_MAX as u64 {
            assert_eq!(desk.recv().await, Some(incoming(number)));
        }
    };
    tokio::join!(clerk.wanted(true), received);
    assert_eq!(clerk.room(), RECEIVE_QUEUE_MAX);
}

#[tokio::test]
async fn with_the_driver_all_waiting_ends_and_what_came_is_left() {
    let (desk, mut clerk) = desk(10);
    let (lost, arrived) = (submit(&desk), submit(&desk));
    clerk.deliver(&mut [incoming(1), incoming(2)].into_iter().collect());
    // Known, but not told yet.
    clerk.settle(arrived, receipt);
    let waiting = tokio::spawn({
        let desk = Arc::clone(&desk);
        async move { (fate(&desk, lost).await, desk.recv().await, desk.recv().await) }
    });
    tokio::task::yield_now().await;
    drop(clerk);
    let (lost, first, second) = waiting.await.unwrap();
    assert_eq!((lost, first), (Err(SendError::Closed), Some(incoming(1))));
    assert_eq!((second, desk.recv().await), (Some(incoming(2)), None));
    assert_eq!(fate(&desk, arrived).await, receipt());
    let late = desk.try_submit(Recipient::Name(bob()), Bytes::new(), 1);
    assert_eq!(late, Err(SendError::Closed));
}
