//! The transport beside what else could carry the bytes: QUIC (quinn), TCP (iperf3) and bare UDP through tokio.
//!
//! `far` is one end and answers; `near` is the other and measures: it appends lines of *row, subject, value* to a file. Every
//! program is one thread with tokio's current-thread runtime, built alike, with socket buffers of the same size.
//! `scripts/bench.sh` puts the two ends into network namespaces, takes turns between the subjects, and lets `report`
//! say what came out.

mod far;
mod iperf;
mod line;
mod measure;
mod memory;
mod near;
mod p2sp;
mod quic;
mod report;
mod udp;

use std::error::Error;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

/// Whatever went wrong, as a sentence for the person at the terminal.
type Failure = Box<dyn Error + Send + Sync>;

#[derive(Parser)]
#[command(about = "The transport beside QUIC, TCP and bare UDP", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Answer until killed.
    Far(far::Options),
    /// Measure against a running `far`.
    Near(near::Options),
    /// Turn what iperf3 says into lines.
    Iperf(iperf::Options),
    /// Print the medians and what they mean.
    Report(report::Options),
}

/// Who carries the bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Subject {
    /// Two peers of this project that met through its server.
    P2sp,
    /// quinn.
    Quic,
    /// tokio's UDP socket, unprotected.
    Udp,
    /// Several peers of this project, whose server is another process.
    Crowd,
    /// That server.
    Rendezvous,
}

fn main() -> ExitCode {
    let runtime = match Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("bench: no runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    let outcome = match Arguments::parse().command {
        Command::Far(options) => run(&runtime, far::run(options)),
        Command::Near(options) => run(&runtime, near::run(options)),
        Command::Iperf(options) => iperf::run(&options).map(|()| true),
        Command::Report(options) => report::run(&options),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Runs as a task among the others, as most of a program does.
fn run(
    runtime: &Runtime,
    work: impl Future<Output = Result<(), Failure>> + Send + 'static,
) -> Result<bool, Failure> {
    runtime.block_on(runtime.spawn(work))??;
    Ok(true)
}
