//! The end that answers.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args;

use crate::{Failure, Subject, memory, p2sp, quic, udp};

#[derive(Args)]
pub(crate) struct Options {
    subject: Subject,
    /// Where to listen; for p2sp and the crowd, where the server does.
    #[arg(long)]
    listen: SocketAddr,
    /// A file to make when all is there to answer: the certificate of a quic end, else an empty one.
    #[arg(long)]
    ready: PathBuf,
}

pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    match options.subject {
        Subject::P2sp => p2sp::far(options.listen, &options.ready).await,
        Subject::Quic => quic::far(options.listen, &options.ready).await,
        Subject::Udp => udp::far(options.listen, &options.ready).await,
        Subject::Crowd => memory::far(options.listen, &options.ready).await,
        Subject::Rendezvous => memory::serve(options.listen, &options.ready).await,
    }
}
