//! What happened, in numbers that only grow.

use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($($field:ident $variant:ident $doc:literal)*) => {
        /// Counters, monotonic since start; every drop has one.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Counters {
            $(#[doc = $doc] pub $field: u64,)*
        }

        /// Names one of [`Counters`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(super) enum Count {
            $($variant,)*
        }

        const COUNT: usize = [$(stringify!($variant)),*].len();

        impl Cells {
            pub(super) fn snapshot(&self) -> Counters {
                let mut counters = Counters {
                    $($field: self.0[Count::$variant as usize].load(Ordering::Relaxed),)*
                };
                counters.dropped = [$((stringify!($field), counters.$field)),*]
                    .iter()
                    .filter(|(name, _)| name.starts_with("dropped_"))
                    .map(|(_, value)| value)
                    .sum();
                counters
            }
        }
    };
}

counters! {
    stun Stun "STUN Binding requests answered."
    relayed Relayed "Relay frames forwarded."
    relayed_bytes RelayedBytes "Bytes of these, headers included."
    handshakes Handshakes "Handshakes answered."
    retries Retries "RETRY answers."
    resets Resets "RESET answers."
    stales Stales "STALE answers."
    versions Versions "VERSIONS answers."
    dropped Dropped "Sum of all that begin with `dropped_`."
    dropped_other DroppedOther "No family of ours, or one that only peers receive."
    dropped_malformed DroppedMalformed "Too short, or fields outside their range."
    dropped_stun DroppedStun "STUN that is no plain Binding request."
    dropped_limited DroppedLimited "An answer that the limit of its address prefix forbade."
    dropped_mac DroppedMac "Handshakes without a valid mac1."
    dropped_handshake DroppedHandshake "Handshakes that do not authenticate, or beyond the bounds."
    dropped_token DroppedToken "Unknown session tokens that got no RESET."
    dropped_address DroppedAddress "Relay frames from an address not validated for their token."
    dropped_channel DroppedChannel "Relay frames on a channel that is not open."
    dropped_target DroppedTarget "Relay frames whose target has no validated address."
    dropped_quota DroppedQuota "Relay frames beyond the sender's quota."
    dropped_packet DroppedPacket "Sealed packets that do not open, and replays."
}

/// The counters as workers share them.
pub(super) struct Cells([AtomicU64; COUNT]);

impl Default for Cells {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Cells {
    pub(super) fn add(&self, count: Count, amount: u64) {
        self.0[count as usize].fetch_add(amount, Ordering::Relaxed);
    }
}
