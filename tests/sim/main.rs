//! The simulated world and what the machines do in it.

mod chaos;
mod first_message;
mod gap;
mod guess;
mod hiding;
mod lan;
mod lifetime;
mod matrix;
mod nat;
mod network;
mod oracle;
mod probe;
mod profile;
mod renewal;
mod steady;
mod talk;
mod transport;
