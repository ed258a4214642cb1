//! What iperf3 measured, as lines of the sheet.

use std::io::Read as _;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use crate::Failure;
use crate::measure::Sheet;

#[derive(Args)]
pub(crate) struct Options {
    /// Where the figures go.
    #[arg(long)]
    sheet: PathBuf,
}

/// Reads iperf3's JSON from stdin.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    let said: Value = serde_json::from_str(&text)?;
    let number = |pointer: &str| {
        let found = said.pointer(pointer).and_then(Value::as_f64);
        found.ok_or_else(|| format!("iperf3 did not say {pointer}"))
    };
    let mebibytes = number("/end/sum_received/bytes")? / f64::from(1 << 20);
    let seconds = number("/end/sum_received/seconds")?;
    // Per cent of one processor over the run.
    let per_mebibyte = |percent: f64| percent / 100.0 * seconds * 1e6 / mebibytes;
    let sheet = Sheet::new(&options.sheet);
    sheet.write("bulk", "tcp", mebibytes / seconds)?;
    sheet.write(
        "cpu near",
        "tcp",
        per_mebibyte(number("/end/cpu_utilization_percent/host_total")?),
    )?;
    sheet.write(
        "cpu far",
        "tcp",
        per_mebibyte(number("/end/cpu_utilization_percent/remote_total")?),
    )
}
