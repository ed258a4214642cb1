//! The first message to a known peer takes one one-way trip.

use world::scenario::{FirstMessage, first_message};

#[test]
fn from_a_registered_peer() {
    first_message(1, FirstMessage::Registered).unwrap_or_else(|failure| panic!("{failure}"));
}

#[test]
fn from_a_peer_that_has_just_started() {
    first_message(1, FirstMessage::Cold).unwrap_or_else(|failure| panic!("{failure}"));
}
