//! The `rendezvous` program; everything is in the library.

use std::process::ExitCode;

fn main() -> ExitCode {
    p2sp_server::cli::main()
}
