//! The kernel lab's helper: a user-space internet between network namespaces, the probes that verify its routers,
//! and the driver that lets two real peers talk across it.
//!
//! - `delay` is the internet: one TUN device per site, packets routed by destination, delayed, lost and counted, and
//!   translated by routers in user space where the kernel has none of that kind.
//! - `tell` asks a running `delay` for its counters, or changes its weather.
//! - `reflector` answers `probe` and `punch` from two addresses and two ports each.
//! - `probe` measures what kind of NAT a host is behind; a wrong router fails.
//! - `punch` opens a path between two hosts with nothing but the reflector, as a control experiment.
//! - `reach` tells whether two hosts see each other without any router.
//! - `talk` starts a rendezvous and two peers, exchanges messages and judges the path from the internet's counters.

mod control;
mod delay;
mod kind;
mod namespace;
mod packet;
mod peers;
mod probe;
mod punch;
mod reach;
mod reflector;
mod talk;
mod tally;
mod traffic;
mod uplink;

use clap::{Parser, Subcommand};
use std::error::Error;
use std::io::Write;
use std::process::ExitCode;

/// Whatever went wrong, as a sentence for the person at the terminal.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(name = "natbox", about = "Helper of the NAT lab", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Be the internet between namespaces until killed.
    Delay(delay::Options),
    /// Ask or tell a running `delay` something.
    Tell(control::Options),
    /// Answer probes until killed.
    Reflector(reflector::ServeOptions),
    /// Measure the NAT this host is behind.
    Probe(probe::Options),
    /// Open a path between two namespaces with the reflector's help only.
    Punch(punch::Options),
    /// Find out whether one namespace's datagrams reach another's address.
    Reach(reach::Options),
    /// Let two peers talk and judge how they did it.
    Talk(talk::Options),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Delay(options) => delay::run(&options),
        Command::Tell(options) => control::run(&options),
        Command::Reflector(options) => reflector::run(&options),
        Command::Probe(options) => probe::run(&options),
        Command::Punch(options) => punch::run(&options),
        Command::Reach(options) => reach::run(&options),
        Command::Talk(options) => talk::run(&options),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            let _ = writeln!(std::io::stderr(), "natbox: {failure}");
            ExitCode::FAILURE
        }
    }
}

/// Prints one line on standard output.
fn say(line: &str) -> Result<(), Failure> {
    Ok(writeln!(std::io::stdout(), "{line}")?)
}
