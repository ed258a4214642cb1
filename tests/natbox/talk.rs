//! Two peers talk across the lab, and what they do is judged from outside.
//!
//! 1. A rendezvous and two peers start; both register and see each other.
//! 2. A first batch of numbered messages goes both ways at once, beginning at time zero.
//! 3. Chat goes on until both peers report the path that is expected, or the time is up.
//! 4. A second batch goes both ways. The internet's counters before and after it tell which way it took: between the
//!    two sites, or through the server's.
//! 5. Every message of both batches must have arrived once, in order.

use crate::delay::{self, Count};
use crate::peers::{Peer, Program, Report, Said, Side, Way};
use crate::{Failure, say};
use clap::{Args, ValueEnum};
use std::collections::BTreeMap;
use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// Characters of a message: enough that a batch stands out from keepalives and checks.
const MESSAGE_LENGTH: usize = 400;
/// For both peers to register.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// For one peer, who was there first, to see the other join; if it does not, the other may still be reached.
const JOIN_LIMIT: Duration = Duration::from_secs(3);
/// For the last message of a batch.
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);
/// For the peers to say good bye; they wait 10 s for receipts before they complain.
const STOP_LIMIT: Duration = Duration::from_secs(13);
/// Before the counters are read, so that the tail of the first batch does not count in the second.
const REST: Duration = Duration::from_millis(300);
/// Between messages while waiting for a path.
const CHAT_GAP: Duration = Duration::from_millis(100);

#[derive(Args)]
pub(crate) struct Options {
    /// Namespaces of peer a, peer b and the server.
    #[arg(long)]
    a: String,
    #[arg(long)]
    b: String,
    #[arg(long)]
    server: String,
    /// Where the rendezvous listens; the peers use the first.
    #[arg(long, required = true)]
    listen: Vec<SocketAddr>,
    /// The programs under test.
    #[arg(long)]
    rendezvous_bin: PathBuf,
    #[arg(long)]
    peer_bin: PathBuf,
    /// Control socket of the internet.
    #[arg(long)]
    control: PathBuf,
    /// For state and logs; must exist.
    #[arg(long)]
    dir: PathBuf,
    #[arg(long)]
    expect: Route,
    /// Messages each way in each batch.
    #[arg(long, default_value_t = 20)]
    count: usize,
    /// Milliseconds between messages of a batch.
    #[arg(long, default_value_t = 10)]
    gap: u64,
    /// Seconds to wait for a direct path.
    #[arg(long, default_value_t = 8.0)]
    direct_limit: f64,
    /// Seconds that a relayed pair gets to find a direct path after all.
    #[arg(long, default_value_t = 1.5)]
    relay_patience: f64,
}

/// The way that messages take, as the internet sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Route {
    /// Between the two sites; the server's site stands still.
    Direct,
    /// Through the server's site.
    Relay,
    /// Not seen at all: the two are in the same site.
    Lan,
    /// Some of each.
    Mixed,
}

impl fmt::Display for Route {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Direct => "direct",
            Self::Relay => "relay",
            Self::Lan => "lan",
            Self::Mixed => "mixed",
        })
    }
}

/// Prints one line of KEY=VALUE; fails when anything is not as it must be.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut talk = Talk::start(options)?;
    talk.meet()?;
    talk.batch(options)?;
    talk.settle(options)?;
    let before = Traffic::read(options)?;
    let payload = talk.batch(options)?;
    talk.await_delivery()?;
    let observed = Traffic::read(options)?.since(before).route(payload);
    let stopped = talk.stop()?;
    say(&talk.tally.line(observed))?;
    judge(options.expect, observed, &talk.tally, &stopped)
}

fn judge(
    expected: Route,
    observed: Route,
    tally: &Tally,
    stopped: &[String],
) -> Result<(), Failure> {
    let mut wrong = stopped.to_vec();
    if observed != expected {
        wrong.push(format!("{observed} instead of {expected}"));
    }
    if tally.delivered() != tally.sent() {
        wrong.push(format!("{} of {} messages delivered", tally.delivered(), tally.sent()));
    }
    if tally.doubled > 0 {
        wrong.push(format!("{} messages delivered again", tally.doubled));
    }
    if tally.disordered > 0 {
        wrong.push(format!("{} messages out of order", tally.disordered));
    }
    wrong.extend(tally.errors.first().map(|text| format!("a peer reported: {text}")));
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ").into()) }
}

struct Talk {
    server: Program,
    peers: [Peer; 2],
    reports: Receiver<Report>,
    tally: Tally,
}

impl Talk {
    fn start(options: &Options) -> Result<Self, Failure> {
        let rendezvous = *options.listen.first().ok_or("nowhere to listen")?;
        let server = Program::rendezvous(
            &options.server,
            &options.rendezvous_bin,
            &options.listen,
            &options.dir,
        )?;
        let (sender, reports) = mpsc::channel();
        let peer = |side: Side, namespace: &str| {
            Peer::start(
                namespace,
                &options.peer_bin,
                side,
                rendezvous,
                &options.dir,
                sender.clone(),
            )
        };
        let peers = [peer(Side::A, &options.a)?, peer(Side::B, &options.b)?];
        Ok(Self { server, peers, reports, tally: Tally::default() })
    }

    fn meet(&mut self) -> Result<(), Failure> {
        let registered = |tally: &Tally| tally.registered.len() == 2;
        if !self.listen_until(Instant::now() + REGISTER_LIMIT, registered)? {
            let here: Vec<_> = self.tally.registered.keys().map(|side| side.name()).collect();
            let why = self.tally.errors.join("; ");
            return Err(format!("registered in time: {here:?} of a and b; {why}").into());
        }
        // The rendezvous may have been starting still when the peers first asked.
        self.tally.errors.clear();
        self.listen_until(Instant::now() + JOIN_LIMIT, |tally| !tally.joined.is_empty())?;
        Ok(())
    }

    /// Sends a batch both ways and returns its payload in bytes.
    fn batch(&mut self, options: &Options) -> Result<u64, Failure> {
        let mut payload = 0;
        for _ in 0..options.count {
            for side in Side::BOTH {
                payload += self.send(side)?;
            }
            self.listen_until(Instant::now() + Duration::from_millis(options.gap), |_| false)?;
        }
        Ok(payload)
    }

    /// Chats until both peers are where they are expected to be, everything has arrived and the paths are quiet.
    fn settle(&mut self, options: &Options) -> Result<(), Failure> {
        let seconds = match options.expect {
            Route::Direct | Route::Lan => options.direct_limit,
            Route::Relay | Route::Mixed => options.relay_patience,
        };
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        while self.tally.direct.len() < 2 && Instant::now() < deadline {
            for side in Side::BOTH {
                self.send(side)?;
            }
            self.listen_until(Instant::now() + CHAT_GAP, |tally| tally.direct.len() == 2)?;
        }
        self.await_delivery()?;
        self.listen_until(Instant::now() + REST, |_| false)?;
        Ok(())
    }

    fn await_delivery(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        self.listen_until(deadline, |tally| tally.delivered() == tally.sent())?;
        Ok(())
    }

    fn send(&mut self, side: Side) -> Result<u64, Failure> {
        let text = self.tally.next_text(side);
        self.peers[side as usize].send(side.other(), &text)?;
        Ok(text.len() as u64)
    }

    /// Takes reports until `done` or the deadline; tells whether it is done.
    fn listen_until(
        &mut self,
        deadline: Instant,
        done: impl Fn(&Tally) -> bool,
    ) -> Result<bool, Failure> {
        while !done(&self.tally) {
            let left = deadline.saturating_duration_since(Instant::now());
            match self.reports.recv_timeout(left) {
                Ok(report) => self.tally.take(report),
                Err(mpsc::RecvTimeoutError::Timeout) => return Ok(false),
                Err(mpsc::RecvTimeoutError::Disconnected) => return Err("both peers ended".into()),
            }
        }
        Ok(true)
    }

    /// Ends the peers; a complaint for each that does not end well.
    fn stop(&mut self) -> Result<Vec<String>, Failure> {
        let mut complaints = Vec::new();
        if let Some(status) = self.server.ended()? {
            complaints.push(format!("the rendezvous ended: {status}"));
        }
        self.peers.iter_mut().for_each(Peer::stop);
        let deadline = Instant::now() + STOP_LIMIT;
        for (peer, side) in self.peers.iter_mut().zip(Side::BOTH) {
            match peer.wait(deadline)? {
                Some(status) if status.success() => {}
                Some(status) => complaints.push(format!("peer {} ended: {status}", side.name())),
                None => complaints.push(format!("peer {} did not stop", side.name())),
            }
        }
        while let Ok(report) = self.reports.try_recv() {
            self.tally.take(report);
        }
        Ok(complaints)
    }
}

/// What was sent and what arrived.
#[derive(Default)]
struct Tally {
    started: Option<Instant>,
    sent: BTreeMap<Side, usize>,
    /// How often each message arrived, by sender and number.
    arrived: BTreeMap<(Side, usize), usize>,
    /// The newest number that arrived, by sender.
    newest: BTreeMap<Side, usize>,
    doubled: usize,
    disordered: usize,
    registered: BTreeMap<Side, Instant>,
    joined: BTreeMap<Side, Instant>,
    /// First report of a direct path, by peer.
    direct: BTreeMap<Side, Instant>,
    first: Option<Instant>,
    errors: Vec<String>,
}

impl Tally {
    /// The next message of `side`; the first one starts the clock.
    fn next_text(&mut self, side: Side) -> String {
        self.started.get_or_insert_with(Instant::now);
        let number = self.sent.entry(side).or_default();
        let text = format!("{} {number} ", side.name());
        *number += 1;
        format!("{text:.<MESSAGE_LENGTH$}")
    }

    fn take(&mut self, report: Report) {
        let Report { at, side, said } = report;
        match said {
            Said::Registered => drop(self.registered.entry(side).or_insert(at)),
            Said::Joined => drop(self.joined.entry(side).or_insert(at)),
            Said::Message { text } => self.arrive(side.other(), &text, at),
            Said::Path(Way::Direct) => drop(self.direct.entry(side).or_insert(at)),
            Said::Error { text } => self.errors.push(format!("{}: {text}", side.name())),
            Said::Path(Way::Relay | Way::Unknown) | Said::Delivered | Said::Other => {}
        }
    }

    fn arrive(&mut self, from: Side, text: &str, at: Instant) {
        let mut words = text.split(' ');
        let number = words.next().filter(|&name| name == from.name()).and_then(|_| words.next());
        let Some(number) = number.and_then(|number| number.parse::<usize>().ok()) else {
            self.errors.push(format!("strange message: {text:.40}"));
            return;
        };
        self.first.get_or_insert(at);
        let times = self.arrived.entry((from, number)).or_default();
        *times += 1;
        if *times > 1 {
            self.doubled += 1;
            return;
        }
        match self.newest.insert(from, number) {
            Some(newest) if newest > number => self.disordered += 1,
            Some(_) | None => {}
        }
    }

    fn sent(&self) -> usize {
        self.sent.values().sum()
    }

    fn delivered(&self) -> usize {
        self.arrived.len()
    }

    fn line(&self, observed: Route) -> String {
        let since = |at: Option<Instant>| match at.zip(self.started) {
            Some((at, started)) => format!("{}", at.saturating_duration_since(started).as_millis()),
            None => "-".to_owned(),
        };
        let both = if self.direct.len() == 2 { self.direct.values().max() } else { None };
        format!(
            "observed={observed} first_ms={} direct_ms={} both_ms={} sent={} delivered={} doubled={}",
            since(self.first),
            since(self.direct.values().min().copied()),
            since(both.copied()),
            self.sent(),
            self.delivered(),
            self.doubled
        )
    }
}

/// Bytes that crossed the internet.
#[derive(Clone, Copy)]
struct Traffic {
    between_peers: u64,
    with_server: u64,
}

impl Traffic {
    fn read(options: &Options) -> Result<Self, Failure> {
        let counters = delay::counters(&options.control)?;
        let mut traffic = Self { between_peers: 0, with_server: 0 };
        for ((from, to), Count { bytes, .. }) in counters {
            if from == "server" || to == "server" {
                traffic.with_server += bytes;
            } else {
                traffic.between_peers += bytes;
            }
        }
        Ok(traffic)
    }

    fn since(self, before: Self) -> Self {
        Self {
            between_peers: self.between_peers - before.between_peers,
            with_server: self.with_server - before.with_server,
        }
    }

    /// The way that `payload` bytes took. Keepalives and checks are far below a quarter of it; what is relayed crosses
    /// the server's link twice.
    fn route(self, payload: u64) -> Route {
        let still = |bytes: u64| bytes < payload / 4;
        match (self.between_peers, self.with_server) {
            (peers, server) if peers >= payload && still(server) => Route::Direct,
            (peers, server) if still(peers) && still(server) => Route::Lan,
            (_, server) if server >= payload * 3 / 2 => Route::Relay,
            _ => Route::Mixed,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrive(tally: &mut Tally, text: &str) {
        let said = Said::Message { text: text.to_owned() };
        tally.take(Report { at: Instant::now(), side: Side::B, said });
    }

    #[test]
    fn doubled_and_disordered_messages_are_noticed() {
        let mut tally = Tally::default();
        let texts: Vec<_> = (0..3).map(|_| tally.next_text(Side::A)).collect();
        arrive(&mut tally, &texts[1]);
        arrive(&mut tally, &texts[0]);
        arrive(&mut tally, &texts[1]);
        assert_eq!((tally.sent(), tally.delivered()), (3, 2));
        assert_eq!((tally.doubled, tally.disordered), (1, 1));
        let verdict = judge(Route::Direct, Route::Direct, &tally, &[]).unwrap_err().to_string();
        assert!(verdict.contains("2 of 3 messages delivered"), "{verdict}");
    }

    #[test]
    fn direct_is_told_of_the_first_side_and_of_both() {
        let mut tally = Tally::default();
        let _ = tally.next_text(Side::A);
        let started = tally.started.unwrap();
        for (side, after) in [(Side::B, 120), (Side::A, 160), (Side::B, 900)] {
            let at = started + Duration::from_millis(after);
            tally.take(Report { at, side, said: Said::Path(Way::Direct) });
        }
        let line = tally.line(Route::Direct);
        assert!(line.contains("direct_ms=120 both_ms=160 "), "{line}");
    }

    #[test]
    fn a_message_nobody_sent_is_an_error() {
        let mut tally = Tally::default();
        arrive(&mut tally, "b 0 ...");
        assert_eq!(tally.delivered(), 0);
        assert_eq!(tally.errors.len(), 1);
    }

    #[test]
    fn the_route_follows_from_who_carried_the_bytes() {
        let route = |between_peers, with_server| Traffic { between_peers, with_server }.route(1000);
        assert_eq!(route(1200, 100), Route::Direct);
        assert_eq!(route(0, 2400), Route::Relay);
        assert_eq!(route(5000, 2400), Route::Relay);
        assert_eq!(route(10, 100), Route::Lan);
        assert_eq!(route(600, 600), Route::Mixed);
        assert_eq!(route(600, 1200), Route::Mixed);
    }
}
