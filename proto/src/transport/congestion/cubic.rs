//! Congestion avoidance of CUBIC (RFC 9438): what the window becomes between two losses.

use std::time::{Duration, Instant};

/// How fast the window rises with the cube of time (RFC 9438 section 4.1), packets per second
/// cubed.
const C: f32 = 0.4;
/// What is left of the window after a loss (RFC 9438 section 4.6).
pub(super) const BETA: f32 = 0.7;
/// Slope of the Reno estimate below the window of the last loss (RFC 9438 section 4.3).
const ALPHA: f32 = 3.0 * (1.0 - BETA) / (1.0 + BETA);

/// The curve that the window follows. Windows are bytes in `f32`: 24 bits of mantissa are exact
/// enough for 16 MiB.
#[derive(Clone, Debug, Default)]
pub(super) struct Cubic {
    /// W_max: where the curve is flat. Zero while there was no loss to learn it from.
    peak: f32,
    /// The window before the last reduction.
    prior: f32,
    stage: Option<Box<Stage>>,
}

/// Congestion avoidance since the last reduction, the end of slow start, or the last pause.
#[derive(Clone, Debug)]
struct Stage {
    start: Instant,
    /// K: seconds from the start to the flat part of the curve.
    rise: f32,
    /// W_est: what Reno would have reached.
    reno: f32,
}

/// An acknowledgement while the window was used.
#[derive(Clone, Copy, Debug)]
pub(super) struct Acked {
    /// Bytes.
    pub(super) bytes: f32,
    /// Smoothed round-trip time.
    pub(super) rtt: Duration,
    /// Bytes in a full packet.
    pub(super) packet: f32,
}

impl Cubic {
    /// The window after an acknowledgement.
    pub(super) fn grow(&mut self, window: f32, acked: Acked, now: Instant) -> f32 {
        let Acked { bytes, rtt, packet } = acked;
        if self.stage.is_none() {
            self.begin(window, packet, now);
        }
        let Self { peak, prior, stage: Some(stage) } = self else { return window };
        let slope = if stage.reno < *prior { ALPHA } else { 1.0 };
        stage.reno += slope * packet * bytes / window;
        let curve = |at: f32| C * (at - stage.rise).powi(3) * packet + *peak;
        let elapsed = now.saturating_duration_since(stage.start).as_secs_f32();
        if curve(elapsed) < stage.reno {
            return window.max(stage.reno);
        }
        let target = curve(elapsed + rtt.as_secs_f32()).clamp(window, 1.5 * window);
        window + (target - window) * bytes / window
    }

    /// The window after a loss (sections 4.6 and 4.7).
    pub(super) fn reduce(&mut self, window: f32) -> f32 {
        // Fast convergence: a flow that never came back to its peak leaves room to others.
        let converging = window < self.peak;
        self.peak = if converging { window * (1.0 + BETA) / 2.0 } else { window };
        self.prior = window;
        self.stage = None;
        window * BETA
    }

    /// What was learned of the path is void (section 4.8).
    pub(super) fn forget(&mut self) {
        *self = Self::default();
    }

    /// The application leaves room in the window. Such time is no time of the curve (section
    /// 5.8): the next stage begins where the window stands, which is the same point of it.
    pub(super) fn pause(&mut self) {
        self.stage = None;
    }

    fn begin(&mut self, window: f32, packet: f32, now: Instant) {
        if self.peak < window {
            // Slow start was left without a loss, or beyond the old peak (section 4.10).
            (self.peak, self.prior) = (window, window);
        }
        let rise = ((self.peak - window) / packet / C).cbrt();
        self.stage = Some(Box::new(Stage { start: now, rise, reno: window }));
    }
}
