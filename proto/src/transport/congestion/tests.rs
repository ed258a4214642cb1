//! What the window does on acknowledgements and losses, in calls.

use super::*;
use crate::transport::tests::origin;

const RTT: Duration = Duration::from_millis(50);

/// A window and the time.
struct Flow {
    congestion: Congestion,
    now: Instant,
    newest: u64,
}

impl Flow {
    fn new() -> Self {
        Self { congestion: Congestion::new(1000), now: origin(), newest: 0 }
    }

    /// One round trip in which the whole window is sent and acknowledged.
    fn round(&mut self) {
        self.round_with(1.0, RTT);
    }

    /// One in which a part of the window is sent.
    fn round_with(&mut self, used: f64, rtt: Duration) {
        let bytes = (self.congestion.window() as f64 * used) as u64;
        self.congestion.on_sent(bytes);
        self.newest += 100;
        self.now += rtt;
        for step in 0..10 {
            let largest = self.newest - 90 + 10 * step;
            self.congestion.on_progress(largest, self.newest + 50, Some(rtt));
            self.congestion.on_ack(bytes / 10, largest, rtt, self.now);
        }
    }

    /// A loss of the newest of some more packets.
    fn lose(&mut self) -> LossEvent {
        self.now += RTT;
        self.newest += 10;
        self.congestion.on_loss(self.newest, self.newest + 1)
    }

    /// To a window of this many packets in avoidance, from which a loss takes 30 %.
    fn at(packets: f32) -> Self {
        let mut flow = Self::new();
        flow.congestion.window = packets * 1000.0;
        flow.lose();
        flow
    }

    fn packets(&self) -> f64 {
        f64::from(self.congestion.window) / 1000.0
    }
}

#[test]
fn slow_start_doubles_and_one_loss_reduces_once() {
    let mut flow = Flow::new();
    flow.round();
    assert_eq!(flow.congestion.window(), 20_000);
    flow.lose();
    flow.congestion.on_loss(flow.newest - 5, flow.newest + 1);
    assert_eq!(flow.congestion.window(), 14_000);
    assert!(!flow.congestion.in_slow_start());
}

/// RFC 9438 figure 1: back at the old window after K seconds, flat there, steeper beyond.
#[test]
fn avoidance_follows_the_cubic_curve() {
    let mut flow = Flow::at(1000.0);
    let start = flow.now;
    let rise = (300.0f64 / 0.4).cbrt();
    assert!((9.0..9.1).contains(&rise), "seconds from 700 packets to 1000: {rise}");
    let mut seen = Vec::new();
    while flow.now < start + Duration::from_secs(14) {
        flow.round();
        let at = (flow.now - start).as_secs_f64();
        let expected = 0.4 * (at - rise).powi(3) + 1000.0;
        assert!((flow.packets() - expected).abs() < 12.0, "{at} s: {}", flow.packets());
        seen.push(flow.packets());
    }
    assert!(seen.is_sorted() && flow.packets() > 1040.0, "{}", flow.packets());
}

/// RFC 9438 section 4.3: where round trips are short it grows like Reno, 9/17 of a packet each
/// up to the old window, then a whole one.
#[test]
fn on_short_round_trips_it_is_as_fast_as_reno() {
    let mut flow = Flow::at(20.0);
    let mut rounds = 0;
    while flow.packets() < 20.0 {
        flow.round_with(1.0, Duration::from_millis(2));
        rounds += 1;
    }
    // 14 to 20 packets.
    assert!((10..=13).contains(&rounds), "{rounds}");
    let before = flow.packets();
    (0..10).for_each(|_| flow.round_with(1.0, Duration::from_millis(2)));
    let gain = flow.packets() - before;
    assert!((9.0..=10.5).contains(&gain), "{gain}");
}

#[test]
fn a_flow_that_lost_before_its_old_peak_makes_room() {
    let mut flow = Flow::at(1000.0);
    (0..3).for_each(|_| flow.round());
    let before = flow.packets();
    assert!(before < 800.0);
    flow.lose();
    // Fast convergence: the new peak is 0.85 of that, not all of it.
    let start = flow.now;
    let rise = ((0.85 - 0.7) * before / 0.4).cbrt();
    while (flow.now - start).as_secs_f64() < rise {
        flow.round();
    }
    let peak = flow.packets() / before;
    assert!((0.83..0.88).contains(&peak), "{peak}");
}

#[test]
fn an_application_that_sends_little_gains_nothing_by_it() {
    for before in [0.0, 100.0] {
        let mut flow = if before > 0.0 { Flow::at(before) } else { Flow::new() };
        (0..2).for_each(|_| flow.round());
        let window = flow.congestion.window();
        // Two rounds in which the last full one still counts.
        (0..2).for_each(|_| flow.round_with(0.3, RTT));
        let after = flow.congestion.window();
        (0..200).for_each(|_| flow.round_with(0.3, RTT));
        assert_eq!(flow.congestion.window(), after, "from {window}");
        // The curve goes on where it was, not where it would be.
        flow.round();
        let gain = flow.congestion.window() as f64 / after as f64;
        assert!(gain < if before > 0.0 { 1.05 } else { 2.01 }, "{gain}");
    }
}

#[test]
fn time_without_anything_in_flight_is_no_time_of_the_curve() {
    let mut flow = Flow::at(100.0);
    (0..3).for_each(|_| flow.round());
    let before = flow.packets();
    flow.congestion.rest();
    flow.now += Duration::from_secs(60);
    flow.round();
    assert!(flow.packets() < before + 3.0, "{before} to {}", flow.packets());
}

#[test]
fn growing_delay_ends_slow_start_without_a_loss() {
    let mut flow = Flow::new();
    for round in 0..20 {
        flow.round_with(1.0, RTT + Duration::from_millis(7 * round));
    }
    assert!(!flow.congestion.in_slow_start());
    // Doubling each round would have reached the bound; a round before, then four or five
    // cautious ones of a quarter each, then avoidance.
    assert!(flow.packets() < 130.0, "{}", flow.packets());
}

#[test]
fn losses_that_were_none_are_taken_back_together() {
    let mut flow = Flow::at(100.0);
    flow.round();
    let window = flow.congestion.window();
    let event = flow.lose();
    flow.congestion.on_loss(flow.newest - 1, flow.newest + 1);
    assert!(flow.congestion.window() < window * 3 / 4);
    flow.congestion.on_spurious_loss(event);
    assert!(flow.congestion.window() < window * 3 / 4, "one of two may be real");
    flow.congestion.on_spurious_loss(event);
    assert_eq!(flow.congestion.window(), window);
    // Once: a second answer for the same event does nothing.
    let event = flow.lose();
    flow.congestion.on_spurious_loss(LossEvent(event.0 - 1));
    assert!(flow.congestion.window() < window * 3 / 4);
}

#[test]
fn slow_start_that_ended_by_mistake_goes_on() {
    let mut flow = Flow::new();
    flow.round();
    let event = flow.lose();
    assert!(!flow.congestion.in_slow_start());
    flow.congestion.on_spurious_loss(event);
    assert!(flow.congestion.in_slow_start());
    flow.round();
    assert_eq!(flow.congestion.window(), 40_000);
}

#[test]
fn a_loss_nobody_remembers_is_not_taken_back() {
    let mut flow = Flow::at(100.0);
    let event = flow.lose();
    let window = flow.congestion.window();
    flow.congestion.on_forgotten_loss(event);
    flow.congestion.on_spurious_loss(event);
    assert_eq!(flow.congestion.window(), window);
}

#[test]
fn the_window_never_falls_below_two_packets() {
    let mut flow = Flow::new();
    for _ in 0..20 {
        flow.lose();
    }
    assert_eq!(flow.congestion.window(), 2000);
    flow.congestion.on_persistent_congestion();
    assert_eq!(flow.congestion.window(), 2000);
}

#[test]
fn after_persistent_congestion_it_starts_slowly_up_to_half() {
    let mut flow = Flow::at(100.0);
    flow.lose();
    flow.congestion.on_persistent_congestion();
    assert_eq!((flow.congestion.window(), flow.congestion.in_slow_start()), (2000, true));
    (0..2).for_each(|_| flow.round());
    assert_eq!(flow.congestion.window(), 8000, "doubled twice");
    (0..10).for_each(|_| flow.round());
    assert!(!flow.congestion.in_slow_start());
    assert!((49.0..57.0).contains(&flow.packets()), "{}", flow.packets());
}
