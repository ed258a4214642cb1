//! Conversations of two transports.

mod faults;
mod flow;
mod link;
mod paths;
mod sessions;

use std::time::Instant;

/// Where virtual time begins.
#[expect(clippy::disallowed_methods, reason = "an origin has to come from somewhere")]
pub(in crate::transport) fn origin() -> Instant {
    Instant::now()
}
