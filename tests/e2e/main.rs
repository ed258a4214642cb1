//! The real programs `rendezvous` and `peer` on loopback, as people and scripts meet them.

#![expect(clippy::unwrap_used, reason = "a test says what went wrong by ending there")]

mod chat;
mod disk;
mod folder;
mod hiding;
mod json;
mod lan;
mod lines;
mod netcheck;
mod outage;
mod programs;
mod refusals;
mod server;
mod stage;
mod streams;
mod stun;
mod terminal;
