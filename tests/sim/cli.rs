//! `sim SUITE`: runs a suite of the simulated world over many seeds.
//!
//! Every failing run prints the command that replays it; the last line is the verdict.

mod traversal;

use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Args, Parser};
use world::scenario::{
    Death, Failure, FirstMessage, chaos, first_message, gap, steady, talk, transport,
};

/// Failed seeds in the verdict.
const FAILED_SHOWN: usize = 20;
/// Probe timeouts for which a conversation may stand still.
const GAP_MAX: f64 = 3.0;
/// Of more seeds than this only those that failed are shown.
const LINES_MAX: u64 = 500;

/// Runs a suite of the simulated world over many seeds
#[derive(Parser)]
#[command(name = "sim")]
enum Suite {
    /// Faults of all kinds while peers talk
    Chaos(Seeds),
    /// Every pair of NAT boxes, counted in classes and compared with what is required of them
    Traversal(traversal::Options),
    /// Registering, listing and talking
    Talk(Seeds),
    /// How long the first message to a known peer takes
    FirstMessage(Seeds),
    /// Two conversations under random operations and faults, compared with lists of what they said
    Transport(Seeds),
    /// How long a conversation stands still when its direct path dies, in probe timeouts
    Gap(Gaps),
    /// A conversation whose network changes under it, and what losses do to one
    Steady(Seeds),
}

#[derive(Args)]
struct Seeds {
    /// Number of seeds [default: 100; 1 with --seed; traversal: 50]
    #[arg(long, value_name = "N")]
    seeds: Option<u64>,
    /// The first of them
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
}

#[derive(Args)]
struct Gaps {
    #[command(flatten)]
    seeds: Seeds,
    /// Fail at three probe timeouts or more
    #[arg(long)]
    check: bool,
}

impl Seeds {
    fn range(&self, default: u64) -> RangeInclusive<u64> {
        let (first, many) = self.seed.map_or((1, default), |seed| (seed, 1));
        first..=first.saturating_add(self.seeds.unwrap_or(many)).saturating_sub(1)
    }
}

fn main() -> io::Result<ExitCode> {
    let mut out = io::stdout().lock();
    let good = match Suite::parse() {
        Suite::Chaos(seeds) => run_seeds(&mut out, "chaos", &seeds, chaos)?,
        Suite::Traversal(options) => traversal::run(&mut out, &options)?,
        Suite::Steady(seeds) => run_seeds(&mut out, "steady", &seeds, steady)?,
        Suite::Talk(seeds) => run_seeds(&mut out, "talk", &seeds, talk)?,
        Suite::Transport(seeds) => run_seeds(&mut out, "transport", &seeds, transport)?,
        Suite::Gap(options) => gaps(&mut out, &options)?,
        Suite::FirstMessage(seeds) => {
            run_seeds(&mut out, "first-message", &seeds, both_first_messages)?
        }
    };
    out.flush()?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn both_first_messages(seed: u64) -> Result<String, Failure> {
    let cold = first_message(seed, FirstMessage::Cold)?;
    let registered = first_message(seed, FirstMessage::Registered)?;
    Ok(format!("{cold}; {registered}"))
}

/// How long conversations stood still; true when that is short enough.
fn gaps(out: &mut impl io::Write, options: &Gaps) -> io::Result<bool> {
    let mut good = true;
    for death in [Death::BothWays, Death::OneWay] {
        let mut timeouts = Vec::new();
        for seed in options.seeds.range(100) {
            match caught(|| gap(seed, death)) {
                Ok(gap) => timeouts.push(gap.timeouts()),
                Err(text) => {
                    writeln!(out, "seed {seed}, {death:?}: FAILED\n{text}")?;
                    writeln!(out, "replay: scripts/sim gap --seed {seed}")?;
                    good = false;
                }
            }
        }
        timeouts.sort_by(f64::total_cmp);
        let worst = timeouts.last().copied().unwrap_or_default();
        let median = timeouts.get(timeouts.len() / 2).copied().unwrap_or_default();
        let runs = timeouts.len();
        writeln!(
            out,
            "{death:?}: {runs} runs, median {median:.2}, worst {worst:.2} probe timeouts"
        )?;
        good &= !options.check || worst < GAP_MAX;
    }
    writeln!(out, "{}: gap", if good { "PASS" } else { "FAIL" })?;
    Ok(good)
}

/// Runs a suite seed by seed; true when all are good.
fn run_seeds(
    out: &mut impl io::Write,
    suite: &str,
    seeds: &Seeds,
    run: impl Fn(u64) -> Result<String, Failure>,
) -> io::Result<bool> {
    let (mut runs, mut failed) = (0, Vec::new());
    let range = seeds.range(100);
    let many = range.end() - range.start() >= LINES_MAX;
    for seed in range {
        runs += 1;
        match caught(|| run(seed)) {
            Ok(_) if many => {}
            Ok(line) => writeln!(out, "seed {seed}: {line}")?,
            Err(text) => {
                writeln!(out, "seed {seed}: FAILED\n{text}")?;
                writeln!(out, "replay: scripts/sim {suite} --seed {seed}")?;
                failed.push(seed);
            }
        }
    }
    let good = failed.is_empty();
    let verdict = if good { "PASS" } else { "FAIL" };
    let (count, more) = (failed.len(), failed.len() > FAILED_SHOWN);
    failed.truncate(FAILED_SHOWN);
    let more = if more { ", .." } else { "" };
    writeln!(out, "{verdict}: {suite}, {runs} seeds, {count} failed {failed:?}{more}")?;
    Ok(good)
}

/// Runs something; a panic is a failure like any other.
fn caught<T>(run: impl FnOnce() -> Result<T, Failure>) -> Result<T, String> {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(_) => Err("panicked, see above".into()),
    }
}
