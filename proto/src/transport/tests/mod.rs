//! Conversations of two transports.

mod absence;
mod behaviour;
mod bottleneck;
mod credit;
mod faults;
mod flow;
mod link;
mod marks;
mod paths;
mod recovery;
mod sessions;
mod stream_rules;
mod streams;

pub(in crate::transport) use crate::time::origin;
