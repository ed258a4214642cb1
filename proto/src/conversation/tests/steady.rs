//! What a packet takes of the heap once a conversation is under way.

use allocation_counter::{AllocationInfo, measure};

use super::*;

/// Two ends without a line between them, and what each took of the heap.
struct Steady {
    line: Line,
    /// Buffers that serve again, as those of a shell do.
    sealed: Vec<u8>,
    packets: [u64; 2],
    allocations: [u64; 2],
}

impl Steady {
    fn new() -> Self {
        let mut line = Line::new(1, 0.0);
        line.connect();
        line.run(Duration::from_secs(1));
        let sealed = Vec::with_capacity(DATAGRAM_LEN_MAX);
        Self { line, sealed, packets: [0; 2], allocations: [0; 2] }
    }

    /// End 0 sends a message `times` over, as fast as windows allow, until all have receipts.
    fn send(&mut self, message: &Bytes, times: usize) {
        let mut left = times;
        while left > 0 || !self.line.ends[0].conversation.transport_ref().is_idle() {
            self.line.now += Duration::from_millis(1);
            let now = self.line.now;
            let AllocationInfo { count_total, .. } = measure(|| {
                let transport = self.line.ends[0].conversation.transport();
                for _ in 0..left.min(20) {
                    if !transport.has_room(message.len()) {
                        break;
                    }
                    transport.send(Channel(0), message.clone(), now).unwrap();
                    left -= 1;
                }
            });
            self.allocations[0] += count_total;
            while self.carry(0) {
                self.carry(0);
                while self.carry(1) {}
            }
            while self.carry(1) {}
        }
    }

    /// Takes one datagram over; the other end takes what is complete.
    fn carry(&mut self, from: usize) -> bool {
        let Self { line, sealed, packets, allocations } = self;
        let now = line.now;
        sealed.clear();
        let sender = &mut line.ends[from].conversation;
        let mut made = None;
        let took = measure(|| made = sender.poll_datagram_into(sealed, &mut line.rng, now));
        allocations[from] += took.count_total;
        if made.is_none() {
            return false;
        }
        packets[from] += 1;
        let receiver = &mut line.ends[1 - from].conversation;
        let took = measure(|| {
            receiver.handle_packet(sealed, &mut line.rng, now).unwrap();
            while receiver.poll_event().is_some() {}
            while receiver.transport().poll_message(now).is_some() {}
        });
        allocations[1 - from] += took.count_total;
        true
    }

    /// Packets and allocations of each end from now on.
    fn count(&mut self, work: impl FnOnce(&mut Self)) -> ([u64; 2], [u64; 2]) {
        (self.packets, self.allocations) = ([0; 2], [0; 2]);
        work(self);
        (self.packets, self.allocations)
    }
}

#[test]
fn packets_of_long_messages_allocate_nothing() {
    let mut steady = Steady::new();
    let message = Bytes::from(vec![7; 1 << 20]);
    steady.send(&message, 8);
    let ([sent, answers], [sender, receiver]) = steady.count(|steady| steady.send(&message, 8));
    assert!(sent > 5000 && answers > 20, "{sent} packets, {answers} answers");
    assert_eq!(sender, 0, "allocations of the sender");
    // Its first part comes before there is a grant for the rest, for which room is made at once.
    assert!(receiver <= 2 * 8, "{receiver} allocations of the receiver");
}

#[test]
fn short_messages_allocate_what_is_handed_over_and_nothing_else() {
    let mut steady = Steady::new();
    let message = Bytes::from_static(&[7; 64]);
    steady.send(&message, 2000);
    let ([sent, _], [sender, receiver]) = steady.count(|steady| steady.send(&message, 2000));
    assert!(sent <= 2000 / 10, "{sent} packets for 2000 messages");
    assert_eq!(sender, 0, "allocations of the sender");
    assert!(receiver <= 2000, "{receiver} allocations of the receiver");
}

#[test]
fn one_message_at_a_time_allocates_no_more() {
    let mut steady = Steady::new();
    let message = Bytes::from_static(&[7; 64]);
    let each = |steady: &mut Steady| (0..100).for_each(|_| steady.send(&message, 1));
    each(&mut steady);
    let (_, [sender, receiver]) = steady.count(each);
    assert_eq!(sender, 0, "allocations of the sender");
    assert!(receiver <= 100, "{receiver} allocations of the receiver");
}
