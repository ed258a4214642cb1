//! The threads that do the curve operations of handshakes, so that the packet loop never waits
//! for them.

use std::sync::mpsc as std_mpsc;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use p2sp_proto::hub::{HandshakeDone, HandshakeJob};
use tokio::sync::mpsc;

/// Handshakes under way at once. A job takes about a quarter of a millisecond: more than these
/// would only wait longer than an initiator does before it sends its init again.
pub(crate) const JOBS_MAX: usize = 256;

/// Most threads; beyond these the packet loop is the bottleneck.
const THREADS_MAX: usize = 4;

/// Runs handshake jobs on a few threads of its own, which end when this is dropped.
pub(crate) struct Pool {
    jobs: std_mpsc::Sender<HandshakeJob>,
    done: mpsc::UnboundedReceiver<HandshakeDone>,
    under_way: usize,
}

impl Pool {
    /// Starts the threads.
    pub(crate) fn start() -> Self {
        let (jobs, queue) = std_mpsc::channel();
        let (results, done) = mpsc::unbounded_channel();
        let queue = Arc::new(Mutex::new(queue));
        for _ in 0..threads() {
            let queue = Arc::clone(&queue);
            let results = results.clone();
            thread::spawn(move || work(&queue, &results));
        }
        Self { jobs, done, under_way: 0 }
    }

    /// Whether more handshakes may be begun. The queue itself has no bound: whoever feeds the
    /// machine asks here first, so nothing that the machine began is thrown away.
    pub(crate) const fn has_room(&self) -> bool {
        self.under_way < JOBS_MAX
    }

    /// Queues a job.
    pub(crate) fn submit(&mut self, job: HandshakeJob) {
        if self.jobs.send(job).is_ok() {
            self.under_way += 1;
        }
    }

    /// The next result; pending while nothing is under way.
    pub(crate) async fn next(&mut self) -> HandshakeDone {
        match self.done.recv().await {
            Some(done) => self.count(done),
            // Every thread is gone, which only the end of the process brings about.
            None => std::future::pending().await,
        }
    }

    /// A result that is there already.
    pub(crate) fn try_next(&mut self) -> Option<HandshakeDone> {
        let done = self.done.try_recv().ok()?;
        Some(self.count(done))
    }

    const fn count(&mut self, done: HandshakeDone) -> HandshakeDone {
        self.under_way = self.under_way.saturating_sub(1);
        done
    }
}

fn threads() -> usize {
    thread::available_parallelism().map_or(1, |cores| cores.get().min(THREADS_MAX))
}

fn work(
    queue: &Mutex<std_mpsc::Receiver<HandshakeJob>>,
    results: &mpsc::UnboundedSender<HandshakeDone>,
) {
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(job) = job else { return };
        if results.send(job.run()).is_err() {
            return;
        }
    }
}
