//! What a program prints, awaited with a deadline.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// For anything that works at all, also on a machine that is busy with a build.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

/// The lines of a stream, collected by a thread of their own.
pub(crate) struct Lines(Arc<(Mutex<State>, Condvar)>);

#[derive(Default)]
struct State {
    waiting: Vec<String>,
    all: Vec<String>,
    ended: bool,
}

impl Lines {
    pub(crate) fn of(stream: impl Read + Send + 'static) -> Self {
        let shared = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let theirs = Arc::clone(&shared);
        thread::spawn(move || {
            for line in BufReader::new(stream).split(b'\n') {
                let Ok(line) = line else { break };
                let line = String::from_utf8_lossy(&line).trim_end_matches('\r').to_owned();
                let mut state = theirs.0.lock().unwrap();
                state.waiting.push(line.clone());
                state.all.push(line);
                theirs.1.notify_all();
            }
            theirs.0.lock().unwrap().ended = true;
            theirs.1.notify_all();
        });
        Self(shared)
    }

    /// Waits for a line that `choose` likes and takes it out; later calls find only others.
    pub(crate) fn find<T>(&self, what: &str, choose: impl Fn(&str) -> Option<T>) -> T {
        self.find_within(PATIENCE, what, choose)
    }

    /// As [`Self::find`] with a patience of its own.
    pub(crate) fn find_within<T>(
        &self,
        patience: Duration,
        what: &str,
        choose: impl Fn(&str) -> Option<T>,
    ) -> T {
        let until = Instant::now() + patience;
        let mut state = self.0.0.lock().unwrap();
        loop {
            let found =
                state.waiting.iter().enumerate().find_map(|(i, line)| Some((i, choose(line)?)));
            if let Some((i, found)) = found {
                state.waiting.remove(i);
                return found;
            }
            let left = until.saturating_duration_since(Instant::now());
            let problem = if state.ended { "ended" } else { "waited too long" };
            assert!(!state.ended && !left.is_zero(), "{problem} for {what}: {:#?}", state.all);
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
    }

    /// Waits for a line that contains `part`.
    pub(crate) fn expect(&self, part: &str) -> String {
        self.find(part, |line| line.contains(part).then(|| line.to_owned()))
    }

    /// Waits for the end of the stream; answers everything that was printed.
    pub(crate) fn to_end(&self) -> Vec<String> {
        let until = Instant::now() + PATIENCE;
        let mut state = self.0.0.lock().unwrap();
        while !state.ended {
            let left = until.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "does not end: {:#?}", state.all);
            state = self.0.1.wait_timeout(state, left).unwrap().0;
        }
        state.all.clone()
    }

    /// Everything so far, also what was taken.
    pub(crate) fn so_far(&self) -> Vec<String> {
        self.0.0.lock().unwrap().all.clone()
    }
}
