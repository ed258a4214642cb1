//! The end that measures.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};

use crate::line::Line;
use crate::measure::{Sheet, cpu, rate, round_trips};
use crate::{Failure, Subject, memory, p2sp, quic, udp};

/// Bytes of a bulk transfer.
const BULK: usize = 256 << 20;
/// Bytes that go before, until windows and packet sizes have grown.
const BULK_WARM_UP: usize = 32 << 20;
/// How many small messages are on their way at a time.
const WINDOWS: [u32; 3] = [1, 16, 256];

#[derive(Args)]
pub(crate) struct Options {
    subject: Subject,
    work: Work,
    /// Where `far` listens.
    #[arg(long)]
    far: SocketAddr,
    /// Its process.
    #[arg(long)]
    far_pid: u32,
    /// The file that it made.
    #[arg(long)]
    ready: PathBuf,
    /// Where the figures go.
    #[arg(long)]
    sheet: PathBuf,
    /// Tells this run from others.
    #[arg(long)]
    run: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Work {
    /// As fast as it goes, in one direction.
    Bulk,
    /// Small messages, one at a time.
    Trip,
    /// Small messages, many at a time.
    Rate,
    /// Many sessions that say nothing.
    Memory,
}

pub(crate) async fn run(options: Options) -> Result<(), Failure> {
    let sheet = Sheet::new(&options.sheet);
    match (options.subject, options.work) {
        (Subject::P2sp, Work::Bulk) => {
            let near = p2sp::Near::open(options.far, &options.run).await?;
            near.bulk(BULK_WARM_UP).await?;
            bulk(&sheet, "p2sp", options.far_pid, near.bulk(BULK)).await
        }
        (Subject::Quic, Work::Bulk) => {
            let near = quic::Near::open(options.far, &options.ready).await?;
            near.bulk(BULK_WARM_UP).await?;
            bulk(&sheet, "quic", options.far_pid, near.bulk(BULK)).await
        }
        (Subject::P2sp, Work::Trip) => {
            let mut near = p2sp::Near::open(options.far, &options.run).await?;
            trip(&sheet, "p2sp", &mut near).await
        }
        (Subject::P2sp, Work::Rate) => {
            let mut near = p2sp::Near::open(options.far, &options.run).await?;
            rates(&sheet, "p2sp", &mut near).await
        }
        (Subject::Quic, Work::Trip) => {
            let near = quic::Near::open(options.far, &options.ready).await?;
            trip(&sheet, "quic datagrams", &mut near.datagrams()).await?;
            trip(&sheet, "quic stream", &mut near.stream().await?).await
        }
        (Subject::Quic, Work::Rate) => {
            let near = quic::Near::open(options.far, &options.ready).await?;
            rates(&sheet, "quic datagrams", &mut near.datagrams()).await?;
            rates(&sheet, "quic stream", &mut near.stream().await?).await
        }
        (Subject::Udp, Work::Trip) => {
            let mut near = udp::Bare::open(options.far).await?;
            trip(&sheet, "udp", &mut near).await
        }
        (Subject::Crowd, Work::Memory) => {
            let bytes = memory::p2sp(options.far, options.far_pid).await?;
            sheet.write("memory", "p2sp", bytes)
        }
        (Subject::Quic, Work::Memory) => {
            let bytes = memory::quic(options.far, &options.ready, options.far_pid).await?;
            sheet.write("memory", "quic", bytes)
        }
        (subject, work) => Err(format!("{subject:?} does no {work:?}").into()),
    }
}

async fn bulk(
    sheet: &Sheet,
    subject: &str,
    far: u32,
    transfer: impl Future<Output = Result<(), Failure>>,
) -> Result<(), Failure> {
    let own = std::process::id();
    let (start, near_before, far_before) = (Instant::now(), cpu(own)?, cpu(far)?);
    transfer.await?;
    let (time, near, far) = (start.elapsed(), cpu(own)? - near_before, cpu(far)? - far_before);
    let mebibytes = BULK as f64 / f64::from(1 << 20);
    sheet.write("bulk", subject, mebibytes / time.as_secs_f64())?;
    sheet.write("cpu near", subject, near.as_secs_f64() * 1e6 / mebibytes)?;
    sheet.write("cpu far", subject, far.as_secs_f64() * 1e6 / mebibytes)
}

async fn trip(sheet: &Sheet, subject: &str, line: &mut impl Line) -> Result<(), Failure> {
    let (median, slow) = round_trips(line).await?;
    sheet.write("trip p50", subject, median)?;
    sheet.write("trip p99", subject, slow)
}

async fn rates(sheet: &Sheet, subject: &str, line: &mut impl Line) -> Result<(), Failure> {
    for window in WINDOWS {
        sheet.write(&format!("in flight {window}"), subject, rate(line, window).await?)?;
    }
    Ok(())
}
