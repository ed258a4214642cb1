//! `sim traversal`: every pair of boxes over many seeds.

mod picture;
mod statistics;
mod verdict;

use std::io;
use std::num::NonZero;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use clap::Args;
use world::scenario::{Class, Goal, Outcome, Pair, Path, run_pair, tell_pair};

use crate::{Seeds, caught};
use statistics::{Tally, show};

/// Every pair of NAT boxes, counted in classes and compared with what is required of them.
///
/// A kind of box is written as mapping, filtering and choice of ports: eim-adf-pres is
/// endpoint-independent mapping, address-dependent filtering, port preserving; seq2 counts ports
/// in steps of 2, block draws them from a block of 2048, rand from all. Where the choice of ports
/// cannot matter it is represented by two kinds, and boxes that map by address count in steps of 1
/// only; other routers, lines and incidents are tried with seven kinds.
///
/// The share of good runs is required of a class as a whole. A single pair must reach the number
/// of good runs that a true share of this size reaches in 999 of 1000 cases.
#[derive(Args)]
pub(crate) struct Options {
    #[command(flatten)]
    seeds: Seeds,
    /// Fail when the required figures are missed, too, and name every pair that falls short
    #[arg(long)]
    check: bool,
    /// Only pairs with such a name; * stands for anything
    #[arg(long, value_name = "PATTERN", default_value = "*")]
    pairs: String,
    /// Write the matrix of all kinds as a picture
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
}

/// One pair and one seed.
type Run = Result<Outcome, String>;

/// A pair with its runs, in the order of their seeds.
pub(crate) struct Played {
    pub(crate) pair: Pair,
    pub(crate) runs: Vec<(u64, Run)>,
}

/// Failed runs that are told in full; the others by the command that replays them.
const TOLD_MAX: usize = 3;

/// Runs what the options ask for; true when all is well.
pub(crate) fn run(out: &mut impl io::Write, options: &Options) -> io::Result<bool> {
    let begin = Instant::now();
    let pairs: Vec<_> =
        Pair::all().into_iter().filter(|pair| matches(&options.pairs, &pair.name)).collect();
    let seeds: Vec<u64> = options.seeds.range(50).collect();
    if let ([pair], [seed]) = (&pairs[..], &seeds[..]) {
        writeln!(out, "{}", tell_pair(pair, *seed))?;
    }
    let played = play_all(pairs, &seeds);
    table(out, &played)?;
    let mut problems = verdict::broken(&played);
    if options.check {
        problems.extend(verdict::short(&played));
    }
    for (number, problem) in problems.iter().enumerate() {
        let told = if number < TOLD_MAX { &problem.account[..] } else { "" };
        writeln!(out, "{}\n{told}replay: {}", problem.what, problem.replay)?;
    }
    if let Some(file) = &options.svg {
        std::fs::write(file, picture::draw(&played))?;
    }
    let good = problems.is_empty() && !played.is_empty();
    let verdict = if good { "PASS" } else { "FAIL" };
    let (pairs, seeds, problems) = (played.len(), seeds.len(), problems.len());
    let took = begin.elapsed().as_secs();
    writeln!(
        out,
        "{verdict}: traversal, {pairs} pairs x {seeds} seeds in {took} s, {problems} problems"
    )?;
    Ok(good)
}

/// Plays every pair with every seed, on all cores. What a run does depends on nothing but its
/// pair and seed.
fn play_all(pairs: Vec<Pair>, seeds: &[u64]) -> Vec<Played> {
    let (next, results) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(pair) = pairs.get(number) else { break };
            let play = |seed: &u64| (*seed, caught(|| run_pair(pair, *seed)));
            let runs: Vec<_> = seeds.iter().map(play).collect();
            results.lock().expect("no worker panics with it").push((number, runs));
        }
    };
    let workers = std::thread::available_parallelism().map_or(1, NonZero::get);
    std::thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(work);
        }
    });
    let mut results = results.into_inner().expect("no worker panicked with it");
    results.sort_unstable_by_key(|(number, _)| *number);
    let played = pairs.into_iter().zip(results);
    played.map(|(pair, (_, runs))| Played { pair, runs }).collect()
}

/// A line for each class that has been played.
fn table(out: &mut impl io::Write, played: &[Played]) -> io::Result<()> {
    writeln!(
        out,
        "{:<32}{:>6}{:>8}{:>9}{:>10}{:>10}{:>12}{:>12}{:>10}",
        "class", "pairs", "runs", "direct", "p50", "p95", "over limit", "times limit", "most sent"
    )?;
    for class in Class::ALL {
        let members: Vec<_> = played.iter().filter(|played| played.pair.class == class).collect();
        if members.is_empty() {
            continue;
        }
        let tally = Tally::of(members.iter().copied());
        // What happens in mid-conversation has nothing to do with the time of a first path.
        let is_first = class.goal() != Goal::Recovery;
        writeln!(
            out,
            "{:<32}{:>6}{:>8}{:>8.1}%{:>10}{:>10}{:>12}{:>12}{:>10}",
            class.name(),
            members.len(),
            tally.runs,
            100.0 * tally.direct as f64 / tally.runs as f64,
            show(tally.time(0.5)),
            show(tally.time(0.95)),
            show(tally.over_floor(0.5).filter(|_| is_first)),
            tally
                .times_floor(0.5)
                .filter(|_| is_first)
                .map_or_else(|| "-".into(), |times| format!("{times:.2}")),
            tally.most_sent
        )?;
    }
    Ok(())
}

/// Whether a name matches a pattern in which `*` stands for anything.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((head, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(name) = name.strip_prefix(head) else { return false };
    let ends = name.char_indices().map(|(at, _)| at).chain([name.len()]);
    ends.into_iter().any(|at| matches(rest, &name[at..]))
}

/// Whether the network saw a direct path.
const fn is_direct(run: &Run) -> bool {
    matches!(run, Ok(Outcome { judged: Path::Direct, .. }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns() {
        for (pattern, name, expected) in [
            ("*", "a:b", true),
            ("a:b", "a:b", true),
            ("a:b", "a:b@loss", false),
            ("a:b*", "a:b@loss", true),
            ("*@loss", "a:b@loss", true),
            ("*b*s", "a:b@loss", true),
            ("*c*", "a:b@loss", false),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern} for {name}");
        }
    }

    #[test]
    fn threads_do_not_change_what_happens() {
        let pairs = || Pair::specials().into_iter().take(3).collect();
        let text = |played: Vec<Played>| {
            let runs = played.into_iter().flat_map(|played| played.runs);
            runs.map(|(seed, run)| format!("{seed} {run:?}")).collect::<Vec<_>>()
        };
        assert_eq!(text(play_all(pairs(), &[1, 2])), text(play_all(pairs(), &[1, 2])));
    }
}
