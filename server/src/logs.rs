//! Log lines: to standard error or, while somebody types at the console, above the typed line. A
//! thread shows them, so that a slow reader never stops the server.

use std::io::{self, IsTerminal as _, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustyline::ExternalPrinter;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::{Layer as _, SubscriberExt as _};
use tracing_subscriber::registry;

use crate::config::{Level, LogFormat};

/// Lines waiting for a slow or stopped (Ctrl-S) terminal or pipe; further ones are dropped.
const LINES_MAX: usize = 1024;

/// How long the end of the process, or of the console, waits for lines to be shown.
const PATIENCE: Duration = Duration::from_secs(1);

/// Where log lines appear. Clones share the place.
#[derive(Clone)]
pub(crate) struct Screen(Arc<Mutex<Option<Sink>>>);

impl Screen {
    /// Starts logging for the whole process.
    pub(crate) fn start(level: Level, format: LogFormat) -> Self {
        let screen = Self(Arc::new(Mutex::new(Some(Sink::start(to_stderr)))));
        let layer = tracing_subscriber::fmt::layer().with_target(false).with_writer(screen.clone());
        let layer = match format {
            LogFormat::Text => layer.with_ansi(io::stderr().is_terminal()).boxed(),
            LogFormat::Json => layer.json().flatten_event(true).boxed(),
        };
        // Only our own lines: the line editor would log every key, each line drawing a new one.
        let ours = Targets::new().with_target("p2sp", filter(level));
        // An error means that a program around this one logs already.
        let _ = tracing::subscriber::set_global_default(registry().with(layer.with_filter(ours)));
        screen
    }

    /// From now on lines go through the line editor.
    pub(crate) fn attach(&self, mut printer: impl ExternalPrinter + Send + 'static) {
        self.switch(Some(Sink::start(move |line| printer.print(line).is_ok())));
    }

    /// From now on lines go to standard error again.
    pub(crate) fn detach(&self) {
        self.switch(Some(Sink::start(to_stderr)));
    }

    /// Shows what is left; later lines are lost.
    pub(crate) fn finish(&self) {
        self.switch(None);
    }

    fn switch(&self, sink: Option<Sink>) {
        let before = std::mem::replace(&mut *self.lock(), sink);
        if let Some(before) = before {
            before.finish();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Option<Sink>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Screen {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(self)
    }
}

/// Takes in one line.
pub(crate) struct Line<'a>(&'a Screen);

impl Write for Line<'_> {
    /// A closed or full sink loses the line, never the server.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        if let Some(sink) = &*self.0.lock() {
            let _ = sink.lines.try_send(String::from_utf8_lossy(line).into_owned());
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A thread that shows lines, however long each takes.
struct Sink {
    lines: SyncSender<String>,
    ended: Receiver<()>,
}

impl Sink {
    /// `show` answers whether it can show more.
    fn start(mut show: impl FnMut(String) -> bool + Send + 'static) -> Self {
        let (lines, queue) = sync_channel::<String>(LINES_MAX);
        let (end, ended) = sync_channel(1);
        thread::spawn(move || {
            while queue.recv().is_ok_and(&mut show) {}
            // Nobody may be waiting.
            let _ = end.send(());
        });
        Self { lines, ended }
    }

    /// Waits, within reason, until everything is shown.
    fn finish(self) {
        drop(self.lines);
        let _ = self.ended.recv_timeout(PATIENCE);
    }
}

fn to_stderr(line: String) -> bool {
    io::stderr().write_all(line.as_bytes()).is_ok()
}

const fn filter(level: Level) -> LevelFilter {
    match level {
        Level::Error => LevelFilter::ERROR,
        Level::Warn => LevelFilter::WARN,
        Level::Info => LevelFilter::INFO,
        Level::Debug => LevelFilter::DEBUG,
        Level::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc::channel;

    #[test]
    fn every_line_is_shown_before_the_end() {
        let (shown, seen) = channel();
        let screen =
            Screen(Arc::new(Mutex::new(Some(Sink::start(move |line| shown.send(line).is_ok())))));
        for index in 0..100 {
            write!(screen.make_writer(), "{index}").unwrap();
        }
        screen.finish();
        write!(screen.make_writer(), "too late").unwrap();
        assert_eq!(
            seen.iter().collect::<Vec<_>>(),
            (0..100).map(|n| n.to_string()).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_stopped_reader_stops_nobody() {
        let (release, wait) = channel::<()>();
        let screen = Screen(Arc::new(Mutex::new(Some(Sink::start(move |_| wait.recv().is_ok())))));
        for _ in 0..2 * LINES_MAX {
            screen.make_writer().write_all(b"line").unwrap();
        }
        drop(release);
        screen.finish();
    }
}
