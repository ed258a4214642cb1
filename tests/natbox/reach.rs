//! Whether one host's datagrams reach another under its own address: two hosts of one LAN do, isolated ones do not.

use crate::{Failure, namespace, say};
use clap::{Args, ValueEnum};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// Datagrams sent; the first may wait for address resolution.
const TRIES: usize = 3;
/// For one of them to arrive.
const PATIENCE: Duration = Duration::from_millis(200);

#[derive(Args)]
pub(crate) struct Options {
    /// Namespace of the sender.
    #[arg(long)]
    from: String,
    /// Namespace of the receiver.
    #[arg(long)]
    to: String,
    /// The receiver's address.
    #[arg(long)]
    address: IpAddr,
    /// Fail unless it is so.
    #[arg(long)]
    expect: Reached,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Reached {
    Yes,
    No,
}

pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let receiver = namespace::udp(&options.to, (options.address, 0).into())?;
    let sender = namespace::udp(&options.from, (Ipv4Addr::UNSPECIFIED, 0).into())?;
    for _ in 0..TRIES {
        sender.send_to(b"reach", receiver.local_addr()?)?;
    }
    receiver.set_read_timeout(Some(PATIENCE))?;
    let found = match receiver.recv_from(&mut [0; 16]) {
        Ok(_) => Reached::Yes,
        Err(_) => Reached::No,
    };
    say(&format!("reach={found:?}"))?;
    if found == options.expect {
        Ok(())
    } else {
        Err(format!("{} is reached: {found:?}", options.address).into())
    }
}
