//! What is wrong with what was played.

use std::time::Duration;

use world::scenario::{Class, Outcome, Required, Within};

use super::statistics::{Tally, expectable, show};
use super::{Played, Run, is_direct};

/// Something that is not as it should be.
pub(crate) struct Problem {
    pub(crate) what: String,
    /// What is known of a run that shows it; may be empty.
    pub(crate) account: String,
    /// The command that shows it again.
    pub(crate) replay: String,
}

/// Runs in which a message was lost or something broke, and those that did what the oracle
/// excludes: a direct path where there can be none.
pub(crate) fn broken(played: &[Played]) -> Vec<Problem> {
    let runs = played.iter().flat_map(|played| played.runs.iter().map(move |run| (played, run)));
    runs.filter_map(|(played, (seed, run))| {
        let name = &played.pair.name;
        let (what, account) = match run {
            Err(text) => ("broken", format!("{text}\n")),
            Ok(_) if played.pair.class == Class::Hopeless && is_direct(run) => {
                ("direct, which the oracle excludes", String::new())
            }
            Ok(_) => return None,
        };
        let what = format!("{name}, seed {seed}: {what}");
        Some(Problem { what, account, replay: replay(name, *seed) })
    })
    .collect()
}

/// Classes and pairs that fall short of what is required.
pub(crate) fn short(played: &[Played]) -> Vec<Problem> {
    let of = |class| played.iter().filter(move |played| played.pair.class == class);
    let simple = Tally::of(of(Class::Simple)).over_floor(0.5).unwrap_or_default();
    let mut problems = Vec::new();
    for class in Class::ALL {
        let Some(required) = class.required() else { continue };
        let members: Vec<_> = of(class).collect();
        if members.is_empty() {
            continue;
        }
        let tally = Tally::of(members.iter().copied());
        let need = (required.share * tally.runs as f64).ceil() as usize;
        let complaints = complaints(&tally, need, required, simple);
        let name = class.name();
        problems.extend(complaints.map(|complaint| Problem {
            what: format!("class {name:?}: {complaint}"),
            account: String::new(),
            replay: format!("scripts/sim traversal --check --pairs '{}'", members[0].pair.name),
        }));
        for member in members {
            problems.extend(short_pair(member, required, simple));
        }
    }
    problems
}

fn short_pair(played: &Played, required: Required, simple: Duration) -> Option<Problem> {
    let tally = Tally::of([played]);
    let need = expectable(tally.runs, required.share);
    let complaint = complaints(&tally, need, required, simple).next()?;
    let name = &played.pair.name;
    let is_bad = |(_, run): &&(u64, Run)| !run.as_ref().is_ok_and(Outcome::is_good);
    let (seed, run) = played.runs.iter().find(is_bad).or(played.runs.first())?;
    let account = run.as_ref().map_or_else(|_| String::new(), |outcome| format!("{outcome}\n"));
    Some(Problem { what: format!("{name}: {complaint}"), account, replay: replay(name, *seed) })
}

/// What is wrong with these runs, of which `need` must be good.
fn complaints(
    tally: &Tally,
    need: usize,
    required: Required,
    simple: Duration,
) -> impl Iterator<Item = String> {
    let Tally { runs, good, most_sent, .. } = *tally;
    let few = (good < need)
        .then(|| format!("{good} of {runs} runs good, required {need}; most sent {most_sent}"));
    let late = match required.within {
        Within::Anytime => None,
        Within::TimesFloor(limit) => {
            let times = tally.times_floor(0.5).filter(|times| *times > limit);
            times.map(|times| format!("p50 is {times:.2} times the physical limit, not {limit}"))
        }
        Within::AfterSimple(limit) => {
            let over = tally.over_floor(0.5).map(|over| over.saturating_sub(simple));
            let over = over.filter(|over| *over > limit);
            over.map(|over| {
                let (over, limit) = (show(Some(over)), show(Some(limit)));
                format!("p50 is {over} beyond the simple pairs, not {limit}")
            })
        }
    };
    few.into_iter().chain(late)
}

fn replay(name: &str, seed: u64) -> String {
    format!("scripts/sim traversal --pairs '{name}' --seed {seed}")
}
