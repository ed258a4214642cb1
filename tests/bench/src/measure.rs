//! Clocks and counts.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::Failure;
use crate::line::Line;

/// How long small messages go to and fro before anything counts.
const WARM_UP: Duration = Duration::from_millis(300);
/// How long each row of small messages takes.
const ROW: Duration = Duration::from_millis(1500);

/// Appends lines of row, subject and value.
pub(crate) struct Sheet(PathBuf);

impl Sheet {
    pub(crate) fn new(path: &Path) -> Self {
        Self(path.to_owned())
    }

    pub(crate) fn write(&self, row: &str, subject: &str, value: f64) -> Result<(), Failure> {
        let mut file = fs::OpenOptions::new().create(true).append(true).open(&self.0)?;
        writeln!(file, "{row}\t{subject}\t{value}")?;
        Ok(())
    }
}

/// Time on a processor that the first thread of a process has used.
pub(crate) fn cpu(pid: u32) -> Result<Duration, Failure> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds = text.split(' ').next().unwrap_or_default().parse()?;
    Ok(Duration::from_nanos(nanoseconds))
}

/// One message at a time: microseconds of the median round trip and of the hundredth slowest.
pub(crate) async fn round_trips(line: &mut impl Line) -> Result<(f64, f64), Failure> {
    let mut samples = Vec::new();
    let start = Instant::now();
    loop {
        let sent = Instant::now();
        line.send().await?;
        line.echo().await?;
        let now = Instant::now();
        if now > start + WARM_UP {
            samples.push(now - sent);
        }
        if now > start + WARM_UP + ROW {
            break;
        }
    }
    samples.sort_unstable();
    let at = |share: f64| samples[((samples.len() - 1) as f64 * share) as usize];
    Ok((at(0.5).as_secs_f64() * 1e6, at(0.99).as_secs_f64() * 1e6))
}

/// Messages a second that come back while `window` of them are on their way.
pub(crate) async fn rate(line: &mut impl Line, window: u32) -> Result<f64, Failure> {
    for _ in 0..window {
        line.send().await?;
    }
    let start = Instant::now();
    let (mut counting_from, mut echoes) = (None, 0_u64);
    let rate = loop {
        line.echo().await?;
        line.send().await?;
        let now = Instant::now();
        match counting_from {
            None if now > start + WARM_UP => counting_from = Some(now),
            None => {}
            Some(from) => {
                echoes += 1;
                if now > from + ROW {
                    break echoes as f64 / (now - from).as_secs_f64();
                }
            }
        }
    };
    for _ in 0..window {
        line.echo().await?;
    }
    Ok(rate)
}
