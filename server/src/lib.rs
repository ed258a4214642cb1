//! The rendezvous server: sockets, clock, files and threads around the
//! [`Hub`](p2sp_proto::hub::Hub) machine, which takes every decision.
//!
//! A program embeds a server in three steps; port 0 gives it free ports:
//!
//! ```no_run
//! use p2sp_proto::session::StaticKey;
//! use p2sp_server::{AltPort, Config, Listen, Sockets};
//!
//! # async fn embed(secret: [u8; 32], reset_key: [u8; 32]) -> Result<(), p2sp_server::BindError> {
//! let listen = Listen::At(vec![([127, 0, 0, 1], 0).into()]);
//! let sockets = Sockets::bind(&listen, AltPort::Next)?;
//! println!("{:?}", sockets.main_addresses());
//! let config = Config::open(StaticKey::from_bytes(secret), reset_key);
//! p2sp_server::run(config, sockets, std::future::pending()).await;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]
#![warn(missing_docs)]

pub mod cli;

mod config;
mod console;
mod driver;
mod keys;
mod logs;
mod net;
mod operator;
mod pool;

pub use config::{AltPort, Listen};
pub use driver::{Config, run};
pub use net::{BindError, Sockets};
