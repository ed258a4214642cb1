//! What a running internet can be asked or told, over its Unix socket: a line each way.

use crate::{Failure, say};
use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

/// The answer to a command.
const DONE: &str = "done";

#[derive(Args)]
pub(crate) struct Options {
    /// Control socket of the internet.
    #[arg(long)]
    control: PathBuf,
    /// stats | loss PERCENT | jitter MS | cut SITE SITE | mend SITE SITE | rebind SITE
    #[arg(required = true)]
    words: Vec<String>,
}

/// Asks, and prints the answer of a question.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let order: Order = options.words.join(" ").parse()?;
    let answer = ask(&options.control, &order)?;
    if answer == DONE { Ok(()) } else { say(&answer) }
}

/// One line to the internet.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Order {
    /// The counters as JSON.
    Stats,
    /// Per cent of the packets that get lost from now on.
    Loss(f64),
    /// Every packet takes up to this much longer from now on.
    Jitter(Duration),
    /// Nothing passes between these two sites from now on, either way.
    Cut(String, String),
    /// It does again.
    Mend(String, String),
    /// The user-space router of this site restarts: it forgets all mappings and begins with other ports.
    Rebind(String),
}

impl FromStr for Order {
    type Err = Failure;

    fn from_str(text: &str) -> Result<Self, Failure> {
        Ok(match text.split_whitespace().collect::<Vec<_>>().as_slice() {
            ["stats"] => Self::Stats,
            ["loss", percent] => Self::Loss(percent.parse()?),
            ["jitter", ms] => {
                Self::Jitter(Duration::try_from_secs_f64(ms.parse::<f64>()? / 1000.0)?)
            }
            ["cut", one, other] => Self::Cut((*one).to_owned(), (*other).to_owned()),
            ["mend", one, other] => Self::Mend((*one).to_owned(), (*other).to_owned()),
            ["rebind", site] => Self::Rebind((*site).to_owned()),
            _ => return Err(format!("the internet does not understand: {text}").into()),
        })
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Stats => f.write_str("stats"),
            Self::Loss(percent) => write!(f, "loss {percent}"),
            Self::Jitter(most) => write!(f, "jitter {}", most.as_secs_f64() * 1000.0),
            Self::Cut(one, other) => write!(f, "cut {one} {other}"),
            Self::Mend(one, other) => write!(f, "mend {one} {other}"),
            Self::Rebind(site) => write!(f, "rebind {site}"),
        }
    }
}

/// Counters by (from, to), in the names of the sites.
pub(crate) fn counters(control: &Path) -> Result<BTreeMap<(String, String), Count>, Failure> {
    let answer: Value = serde_json::from_str(&ask(control, &Order::Stats)?)?;
    let rows = answer.as_array().ok_or("the counters are no list")?;
    rows.iter().map(Count::from_json).collect()
}

fn ask(control: &Path, order: &Order) -> Result<String, Failure> {
    let mut stream = UnixStream::connect(control)
        .map_err(|error| format!("no internet at {}: {error}", control.display()))?;
    writeln!(stream, "{order}")?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    match answer.trim_end().split_once("error: ") {
        Some((_, why)) => Err(why.to_owned().into()),
        None => Ok(answer.trim_end().to_owned()),
    }
}

/// Answers one client: `obey` carries the order out, and gives the answer where there is one.
pub(crate) fn answer(
    mut stream: UnixStream,
    obey: impl FnOnce(Order) -> Result<Option<Value>, Failure>,
) -> Result<(), Failure> {
    let mut line = String::new();
    BufReader::new(stream.try_clone()?).read_line(&mut line)?;
    let answer = match line.parse().and_then(obey) {
        Ok(None) => DONE.to_owned(),
        Ok(Some(value)) => value.to_string(),
        Err(why) => format!("error: {why}"),
    };
    Ok(writeln!(stream, "{answer}")?)
}

/// What went from one site to another: UDP datagrams only.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Count {
    /// Delivered.
    pub(crate) datagrams: u64,
    /// Delivered, IP headers included.
    pub(crate) bytes: u64,
    /// Lost on purpose, or for want of room.
    pub(crate) lost: u64,
    /// Sent with too short a life for the way.
    pub(crate) expired: u64,
}

impl Count {
    pub(crate) fn to_json(self, from: &str, to: &str) -> Value {
        let Self { datagrams, bytes, lost, expired } = self;
        json!({
            "from": from, "to": to,
            "datagrams": datagrams, "bytes": bytes, "lost": lost, "expired": expired,
        })
    }

    fn from_json(row: &Value) -> Result<((String, String), Self), Failure> {
        let text =
            |key: &str| row[key].as_str().map(str::to_owned).ok_or("a counter without a name");
        let number = |key: &str| row[key].as_u64().ok_or("a counter without a number");
        let count = Self {
            datagrams: number("datagrams")?,
            bytes: number("bytes")?,
            lost: number("lost")?,
            expired: number("expired")?,
        };
        Ok(((text("from")?, text("to")?), count))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders_are_read_as_they_are_written() {
        for text in ["stats", "loss 5", "jitter 2.5", "cut a b", "mend a b", "rebind a"] {
            assert_eq!(text.parse::<Order>().unwrap().to_string(), text);
        }
        for wrong in ["", "loss", "loss much", "jitter -1", "cut a", "rain"] {
            assert!(wrong.parse::<Order>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn counters_are_read_as_they_are_written() {
        let count = Count { datagrams: 1, bytes: 2, lost: 3, expired: 4 };
        let names = ("a".to_owned(), "b".to_owned());
        assert_eq!(Count::from_json(&count.to_json("a", "b")).unwrap(), (names, count));
    }
}
