//! The chat program.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2sp_peer::cli::main()
}
