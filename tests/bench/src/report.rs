//! Medians, ratios, and whether they are good enough.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use clap::Args;

use crate::Failure;

#[derive(Args)]
pub(crate) struct Options {
    /// What the runs wrote.
    #[arg(long)]
    sheet: PathBuf,
    /// Fail where a figure falls short.
    #[arg(long)]
    check: bool,
}

/// Figures by row and subject, each the median of all rounds.
struct Medians(BTreeMap<(String, String), f64>);

/// One line of the table: a row of the sheet, its unit, and its subjects.
struct Row {
    row: &'static str,
    title: &'static str,
    subjects: &'static [&'static str],
}

const TRIPS: &[&str] = &["p2sp", "udp", "quic datagrams", "quic stream"];
const BULK: &[&str] = &["p2sp", "quic", "tcp"];
const RATES: &[&str] = &["p2sp", "quic datagrams", "quic stream"];

const ROWS: [Row; 9] = [
    Row { row: "bulk", title: "bulk, MiB/s", subjects: BULK },
    Row { row: "cpu near", title: "bulk, CPU of the sender, us/MiB", subjects: BULK },
    Row { row: "cpu far", title: "bulk, CPU of the receiver, us/MiB", subjects: BULK },
    Row { row: "trip p50", title: "64 B there and back, median, us", subjects: TRIPS },
    Row { row: "trip p99", title: "64 B there and back, 99 %, us", subjects: TRIPS },
    Row { row: "in flight 1", title: "64 B messages/s, 1 in flight", subjects: RATES },
    Row { row: "in flight 16", title: "64 B messages/s, 16 in flight", subjects: RATES },
    Row { row: "in flight 256", title: "64 B messages/s, 256 in flight", subjects: RATES },
    Row { row: "memory", title: "memory of an idle session, bytes", subjects: &["p2sp", "quic"] },
];

/// What must hold of this project's figure divided by the best of the others named.
struct Demand {
    row: &'static str,
    others: &'static [&'static str],
    bound: Bound,
}

#[derive(Clone, Copy)]
enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

const DEMANDS: [Demand; 3] = [
    Demand { row: "trip p50", others: &["udp"], bound: Bound::AtMost(1.5) },
    Demand { row: "bulk", others: &["quic"], bound: Bound::AtLeast(1.5) },
    Demand {
        row: "in flight 256",
        others: &["quic datagrams", "quic stream"],
        bound: Bound::AtLeast(1.5),
    },
];

/// Whether all that was asked for holds.
pub(crate) fn run(options: &Options) -> Result<bool, Failure> {
    let medians = Medians::read(&fs::read_to_string(&options.sheet)?)?;
    println!("medians; in brackets this project's figure divided by the other's");
    for row in &ROWS {
        medians.print(row);
    }
    let (mut verdict, mut good) = (Vec::new(), true);
    for demand in &DEMANDS {
        let (text, holds) = medians.judge(demand);
        good &= holds;
        verdict.push(text);
    }
    println!("bench: {}: {}", if good { "good" } else { "falls short" }, verdict.join("; "));
    Ok(good || !options.check)
}

impl Medians {
    fn read(sheet: &str) -> Result<Self, Failure> {
        let mut samples: BTreeMap<(String, String), Vec<f64>> = BTreeMap::new();
        for line in sheet.lines() {
            let [row, subject, value] = line.split('\t').collect::<Vec<_>>()[..] else {
                return Err(format!("no line of a sheet: {line}").into());
            };
            let key = (row.to_owned(), subject.to_owned());
            samples.entry(key).or_default().push(value.parse()?);
        }
        Ok(Self(samples.into_iter().map(|(key, values)| (key, median(values))).collect()))
    }

    fn get(&self, row: &str, subject: &str) -> Option<f64> {
        self.0.get(&(row.to_owned(), subject.to_owned())).copied()
    }

    fn print(&self, row: &Row) {
        let Some(own) = self.get(row.row, "p2sp") else { return };
        let others = row.subjects.iter().filter(|subject| **subject != "p2sp");
        let others = others.filter_map(|subject| {
            let value = self.get(row.row, subject)?;
            Some(format!("{subject} {value:.1} ({:.2})", own / value))
        });
        println!("{:<34} p2sp {own:.1}, {}", row.title, others.collect::<Vec<_>>().join(", "));
    }

    fn judge(&self, demand: &Demand) -> (String, bool) {
        let Demand { row, others, bound } = demand;
        let best = others.iter().filter_map(|subject| self.get(row, subject));
        let best = match bound {
            Bound::AtLeast(_) => best.reduce(f64::max),
            Bound::AtMost(_) => best.reduce(f64::min),
        };
        let (Some(own), Some(best)) = (self.get(row, "p2sp"), best) else {
            return (format!("{row}: not measured"), false);
        };
        let ratio = own / best;
        let (holds, wanted) = match bound {
            Bound::AtLeast(least) => (ratio >= *least, format!("at least {least}")),
            Bound::AtMost(most) => (ratio <= *most, format!("at most {most}")),
        };
        let verdict = if holds { "good" } else { "falls short" };
        (format!("{row} {ratio:.2} of {wanted}: {verdict}"), holds)
    }
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    if values.len() % 2 == 1 {
        values[middle]
    } else {
        f64::midpoint(values[middle - 1], values[middle])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sheet(bulk: f64) -> Medians {
        let text = format!("bulk\tp2sp\t{bulk}\nbulk\tp2sp\t1\nbulk\tp2sp\t900\nbulk\tquic\t100\n");
        Medians::read(&text).unwrap()
    }

    #[test]
    fn the_median_of_all_rounds_is_judged() {
        assert!(sheet(150.0).judge(&DEMANDS[1]).1);
        assert!(!sheet(149.0).judge(&DEMANDS[1]).1);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
    }

    #[test]
    fn what_was_not_measured_falls_short() {
        assert!(!sheet(150.0).judge(&DEMANDS[0]).1);
    }
}
