//! Two peers talk across the lab, and what they do is judged from outside.
//!
//! 1. A rendezvous and two peers start; both register and see each other.
//! 2. A first batch of numbered messages goes both ways at once, beginning at time zero.
//! 3. Chat goes on until both peers report the path that is expected, or the time is up.
//! 4. Where the case disturbs the network, numbered messages flow all the time while it is disturbed and mended; then
//!    they must go directly again in time. Where the network changes by itself, they flow for a while, and must never
//!    go another way for longer.
//! 5. A second batch goes both ways. The internet's counters before and after it tell which way it took: between the
//!    two sites, or through the server's.
//! 6. Every message must have arrived once, in order.

use crate::peers::{Peer, Program, Report, Side};
use crate::tally::Tally;
use crate::traffic::{Course, Route, Sample, Traffic, WINDOW};
use crate::{Failure, say};
use clap::{Args, ValueEnum};
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::sync::mpsc::{self, Receiver};
use std::time::{Duration, Instant};

/// For both peers to register.
const REGISTER_LIMIT: Duration = Duration::from_secs(10);
/// For one peer, who was there first, to see the other join. Where both came at once neither may, and both are there.
const JOIN_LIMIT: Duration = Duration::from_millis(500);
/// For the last message of a batch.
const DELIVERY_LIMIT: Duration = Duration::from_secs(10);
/// For the peers to say good bye; they wait 10 s for receipts before they complain.
const STOP_LIMIT: Duration = Duration::from_secs(13);
/// Before the counters are read, so that the tail of the first batch does not count in the second.
const REST: Duration = Duration::from_millis(300);
/// Between messages while waiting for a path.
const CHAT_GAP: Duration = Duration::from_millis(100);
/// Between messages of one side around a disturbance: 20 in a second.
const FLOW_GAP: Duration = Duration::from_millis(50);
/// The conversation flows undisturbed for this long, so that a disturbance meets it in full swing.
const BEFORE_DISTURBANCE: Duration = Duration::from_secs(1);
/// For a disturbance, or its mending, to be carried out.
const COMMAND_LIMIT: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Options {
    /// Namespaces of peer a, peer b and the server.
    #[arg(long)]
    a: String,
    #[arg(long)]
    b: String,
    #[arg(long)]
    server: String,
    /// Where the rendezvous listens; peer b uses the first, peer a the last.
    #[arg(long, required = true, num_args = 1..)]
    listen: Vec<SocketAddr>,
    /// The second IP of the rendezvous.
    #[arg(long)]
    alt_ip: Option<IpAddr>,
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
    expect: Expected,
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
    #[command(flatten)]
    disturbance: Disturbance,
}

/// The path that a case must end with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Expected {
    Direct,
    Relay,
    Lan,
    /// Direct if the ports are guessed right, which chance decides: the caller judges many runs. Any path will do.
    Guess,
}

impl Expected {
    fn allows(self, observed: Route) -> bool {
        match self {
            Self::Direct => observed == Route::Direct,
            Self::Relay => observed == Route::Relay,
            Self::Lan => observed == Route::Lan,
            Self::Guess => observed != Route::Lan,
        }
    }
}

/// What happens to the network in mid-conversation, as commands for bash.
#[derive(Args)]
struct Disturbance {
    /// Disturbs it.
    #[arg(long, requires = "mend")]
    disturb: Option<String>,
    /// Milliseconds from there to the mending.
    #[arg(long, default_value_t = 0)]
    outage: u64,
    /// Sets it right, or changes it at one blow; the network is back when this command has ended.
    #[arg(long)]
    mend: Option<String>,
    /// Fail unless the conversation is relayed in the last half second of the outage.
    #[arg(long)]
    relayed_meanwhile: bool,
    /// Milliseconds for which messages flow through a network that changes by itself.
    #[arg(long, conflicts_with = "mend")]
    endure: Option<u64>,
    /// Milliseconds in which messages must go directly again.
    #[arg(long, default_value_t = 2000)]
    again: u64,
}

/// Prints one line of KEY=VALUE; fails when anything is not as it must be.
pub(crate) fn run(options: &Options) -> Result<(), Failure> {
    let mut talk = Talk::start(options)?;
    talk.meet()?;
    talk.batch(options)?;
    talk.settle(options)?;
    let (again, mut wrong) = match &options.disturbance {
        Disturbance { mend: Some(mend), .. } => talk.be_disturbed(options, mend)?,
        Disturbance { endure: Some(time), .. } => talk.endure(options, *time)?,
        Disturbance { .. } => (None, Vec::new()),
    };
    talk.rest()?;
    let before = Traffic::read(&options.control)?;
    let payload = talk.batch(options)?;
    talk.await_delivery()?;
    let observed = Traffic::read(&options.control)?.since(before).route(payload);
    wrong.extend(talk.stop()?);
    say(&talk.tally.line(observed, again))?;
    judge(options.expect, observed, &talk.tally, wrong)
}

fn judge(
    expected: Expected,
    observed: Route,
    tally: &Tally,
    mut wrong: Vec<String>,
) -> Result<(), Failure> {
    if !expected.allows(observed) {
        wrong.push(format!("{observed} instead of {expected:?}").to_lowercase());
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
    /// Bytes of all messages.
    payload: u64,
}

impl Talk {
    fn start(options: &Options) -> Result<Self, Failure> {
        let first = *options.listen.first().ok_or("nowhere to listen")?;
        let last = *options.listen.last().ok_or("nowhere to listen")?;
        let server = Program::rendezvous(
            &options.server,
            &options.rendezvous_bin,
            &options.listen,
            options.alt_ip,
            &options.dir,
        )?;
        let (sender, reports) = mpsc::channel();
        let peer = |side: Side, namespace: &str, rendezvous: SocketAddr| {
            Peer::start(
                namespace,
                &options.peer_bin,
                side,
                rendezvous,
                &options.dir,
                sender.clone(),
            )
        };
        let peers = [peer(Side::A, &options.a, last)?, peer(Side::B, &options.b, first)?];
        Ok(Self { server, peers, reports, tally: Tally::default(), payload: 0 })
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
        let before = self.payload;
        for _ in 0..options.count {
            self.send_both()?;
            self.listen_for(Duration::from_millis(options.gap))?;
        }
        Ok(self.payload - before)
    }

    /// Chats until both peers are where they are expected to be, or the time is up.
    fn settle(&mut self, options: &Options) -> Result<(), Failure> {
        let seconds = match options.expect {
            Expected::Direct | Expected::Lan | Expected::Guess => options.direct_limit,
            Expected::Relay => options.relay_patience,
        };
        let deadline = Instant::now() + Duration::from_secs_f64(seconds);
        while self.tally.direct.len() < 2 && Instant::now() < deadline {
            self.send_both()?;
            self.listen_until(Instant::now() + CHAT_GAP, |tally| tally.direct.len() == 2)?;
        }
        Ok(())
    }

    /// Lets messages flow while the network is disturbed. Gives the time from its mending to the first window in which
    /// all went directly, and complaints.
    fn be_disturbed(
        &mut self,
        options: &Options,
        mend: &str,
    ) -> Result<(Option<Duration>, Vec<String>), Failure> {
        let Disturbance { disturb, outage, relayed_meanwhile, again, .. } = &options.disturbance;
        let mut flow = Flow { talk: self, options, course: Course::default() };
        let mut wrong = Vec::new();
        flow.on_for(BEFORE_DISTURBANCE)?;
        if let Some(disturb) = disturb {
            flow.on_while(disturb)?;
            flow.on_for(Duration::from_millis(*outage))?;
        }
        if *relayed_meanwhile
            && let Some(way) = flow.course.latest(WINDOW)
            && way != Route::Relay
        {
            wrong.push(format!("{way} instead of relay in the disturbance"));
        }
        flow.on_while(mend)?;
        let back = Instant::now();
        let limit = Duration::from_millis(*again);
        while flow.course.direct_since(back).is_none() && back.elapsed() < limit + 2 * WINDOW {
            flow.on()?;
        }
        let again = flow.course.direct_since(back).map(|at| at - back);
        if again.is_none_or(|again| again > limit) {
            wrong.push(format!("not direct again within {} ms", limit.as_millis()));
        }
        Ok((again, wrong))
    }

    /// Lets messages flow for so many milliseconds. Gives the longest time in which they did not all go directly, and
    /// complaints.
    fn endure(
        &mut self,
        options: &Options,
        time: u64,
    ) -> Result<(Option<Duration>, Vec<String>), Failure> {
        let mut flow = Flow { talk: self, options, course: Course::default() };
        flow.on_for(Duration::from_millis(time))?;
        let course = flow.course;
        let limit = Duration::from_millis(options.disturbance.again);
        let detour = course.longest_detour();
        let mut wrong = Vec::new();
        if detour > limit {
            wrong.push(format!("not direct for {} ms", detour.as_millis()));
        }
        Ok((Some(detour), wrong))
    }

    /// Lets everything arrive and the paths fall quiet.
    fn rest(&mut self) -> Result<(), Failure> {
        self.await_delivery()?;
        self.listen_for(REST)
    }

    fn await_delivery(&mut self) -> Result<(), Failure> {
        let deadline = Instant::now() + DELIVERY_LIMIT;
        self.listen_until(deadline, |tally| tally.delivered() == tally.sent())?;
        Ok(())
    }

    fn send_both(&mut self) -> Result<(), Failure> {
        for side in Side::BOTH {
            let text = self.tally.next_text(side);
            self.peers[side as usize].send(side.other(), &text)?;
            self.payload += text.len() as u64;
        }
        Ok(())
    }

    fn listen_for(&mut self, time: Duration) -> Result<(), Failure> {
        self.listen_until(Instant::now() + time, |_| false).map(drop)
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

/// A conversation that goes on at a steady pace whatever happens to the network.
struct Flow<'a> {
    talk: &'a mut Talk,
    options: &'a Options,
    course: Course,
}

impl Flow<'_> {
    /// One message each way.
    fn on(&mut self) -> Result<(), Failure> {
        self.talk.send_both()?;
        let tally = &self.talk.tally;
        self.course.note(Sample {
            at: Instant::now(),
            traffic: Traffic::read(&self.options.control)?,
            payload: self.talk.payload,
            sent: tally.sent() / Side::BOTH.len(),
            arrived: tally.arrived_in_order(),
        });
        self.talk.listen_for(FLOW_GAP)
    }

    fn on_for(&mut self, time: Duration) -> Result<(), Failure> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.on()?;
        }
        Ok(())
    }

    /// Until the command has ended.
    fn on_while(&mut self, command: &str) -> Result<(), Failure> {
        let mut running = Running(Command::new("bash").args(["-c", command]).spawn()?);
        let deadline = Instant::now() + COMMAND_LIMIT;
        loop {
            match running.0.try_wait()? {
                Some(status) if status.success() => return Ok(()),
                Some(status) => return Err(format!("{command} ended: {status}").into()),
                None if Instant::now() >= deadline => {
                    return Err(format!("{command} does not end").into());
                }
                None => self.on()?,
            }
        }
    }
}

/// A command that is killed when nobody waits for it any more.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It has ended by itself if all is well.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_did_not_arrive_is_complained_of() {
        let mut tally = Tally::default();
        let _ = tally.next_text(Side::A);
        let verdict = judge(Expected::Direct, Route::Relay, &tally, vec!["late".to_owned()]);
        let verdict = verdict.unwrap_err().to_string();
        assert_eq!(verdict, "late; relay instead of direct; 0 of 1 messages delivered");
    }

    #[test]
    fn a_guess_may_end_on_any_path() {
        let tally = Tally::default();
        for observed in [Route::Direct, Route::Relay, Route::Mixed] {
            assert!(judge(Expected::Guess, observed, &tally, Vec::new()).is_ok());
        }
        assert!(judge(Expected::Relay, Route::Direct, &tally, Vec::new()).is_err());
    }
}
