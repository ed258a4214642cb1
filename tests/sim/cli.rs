//! `sim SUITE`: runs a suite of the simulated world over many seeds.
//!
//! Every failing seed prints the command that replays it; the last line is the verdict.

use std::io::{self, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;

use clap::{Parser, ValueEnum};
use world::scenario::{
    Failure, FirstMessage, Lines, Pair, PairResult, chaos, check_pair, first_message, talk,
};

/// Runs a suite of the simulated world over many seeds
#[derive(Parser)]
#[command(name = "sim")]
struct Options {
    /// What to run
    suite: Suite,
    /// Number of seeds, from 1
    #[arg(long, value_name = "N", default_value_t = 100, conflicts_with = "seed")]
    seeds: u64,
    /// Only this seed
    #[arg(long, value_name = "S")]
    seed: Option<u64>,
    /// Fail when the required figures are missed, too
    #[arg(long)]
    check: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum Suite {
    /// Faults of all kinds while peers talk
    Chaos,
    /// Every pair of NAT boxes against the oracle; one seed is the whole matrix
    Traversal,
    /// Registering, listing and talking
    Talk,
    /// How long the first message to a known peer takes
    FirstMessage,
}

impl Suite {
    const fn name(self) -> &'static str {
        match self {
            Self::Chaos => "chaos",
            Self::Traversal => "traversal",
            Self::Talk => "talk",
            Self::FirstMessage => "first-message",
        }
    }

    fn run(self, seed: u64, figures: &mut Figures) -> Result<String, Failure> {
        match self {
            Self::Chaos => chaos(seed),
            Self::Traversal => traversal(seed, figures),
            Self::Talk => talk(seed),
            Self::FirstMessage => {
                let cold = first_message(seed, FirstMessage::Cold)?;
                let registered = first_message(seed, FirstMessage::Registered)?;
                Ok(format!("{cold}; {registered}"))
            }
        }
    }
}

/// Times to a confirmed direct path of simple pairs, in milliseconds.
#[derive(Default)]
struct Figures {
    confirmed_after: Vec<u128>,
}

impl Figures {
    fn note(&mut self, result: &PairResult) {
        let time = result.confirmed_after.filter(|_| result.pair.is_simple());
        self.confirmed_after.extend(time.map(|time| time.as_millis()));
    }

    /// The median and what it must not exceed: 1.2 times the physical limit.
    fn median(&mut self) -> Option<(u128, u128)> {
        self.confirmed_after.sort_unstable();
        let median = self.confirmed_after.get(self.confirmed_after.len() / 2)?;
        Some((*median, PairResult::FLOOR.as_millis() * 12 / 10))
    }
}

fn main() -> io::Result<ExitCode> {
    let options = Options::parse();
    let mut out = io::stdout().lock();
    let mut figures = Figures::default();
    let seeds = options.seed.map_or(1..=options.seeds, |seed| seed..=seed);
    let (mut runs, mut failed) = (0, Vec::new());
    for seed in seeds {
        runs += 1;
        match run(options.suite, seed, &mut figures) {
            Ok(line) => writeln!(out, "seed {seed}: {line}")?,
            Err(text) => {
                writeln!(out, "seed {seed}: FAILED\n{text}")?;
                writeln!(out, "replay: scripts/sim {} --seed {seed}", options.suite.name())?;
                failed.push(seed);
            }
        }
    }
    let slow = report(&mut out, &mut figures)? && options.check;
    let good = failed.is_empty() && !slow;
    let verdict = if good { "PASS" } else { "FAIL" };
    let suite = options.suite.name();
    writeln!(out, "{verdict}: {suite}, {runs} seeds, {} failed {failed:?}", failed.len())?;
    Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs one seed; a panic is a failure like any other.
fn run(suite: Suite, seed: u64, figures: &mut Figures) -> Result<String, String> {
    let result = catch_unwind(AssertUnwindSafe(|| suite.run(seed, figures)));
    match result {
        Ok(result) => result.map_err(|failure| failure.to_string()),
        Err(_) => Err("panicked, see above".into()),
    }
}

/// The whole matrix once. The first seed has clean lines and yields the figures, the others have
/// rough ones.
fn traversal(seed: u64, figures: &mut Figures) -> Result<String, Failure> {
    let lines = if seed == 1 { Lines::Clean } else { Lines::Rough };
    let (mut good, mut failures) = (Vec::new(), Vec::new());
    for pair in Pair::all() {
        match check_pair(&pair, seed, lines) {
            Ok(result) => {
                if lines == Lines::Clean {
                    figures.note(&result);
                }
                good.push(result.to_string());
            }
            Err(failure) => failures.push(failure.0),
        }
    }
    if failures.is_empty() {
        return Ok(format!("{} pairs as the oracle expects{}", good.len(), listing(&good, lines)));
    }
    let (good, bad) = (good.len(), failures.len());
    Err(Failure(format!("{}\n{good} pairs good, {bad} bad", failures.join("\n\n"))))
}

/// The clean lines' results one by one.
fn listing(good: &[String], lines: Lines) -> String {
    match lines {
        Lines::Clean => good.iter().map(|line| format!("\n  {line}")).collect(),
        Lines::Rough => String::new(),
    }
}

/// Prints the figures; true when they miss what is required.
fn report(out: &mut impl io::Write, figures: &mut Figures) -> io::Result<bool> {
    let Some((median, limit)) = figures.median() else { return Ok(false) };
    writeln!(
        out,
        "direct path confirmed after {median} ms (median of simple pairs), required {limit} ms"
    )?;
    Ok(median > limit)
}
