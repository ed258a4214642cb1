//! Conversations of two transports.

mod faults;
mod flow;
mod link;
mod paths;
mod sessions;
mod streams;

pub(in crate::transport) use crate::time::origin;
