//! Scenarios: machines in a world, with a verdict.
//!
//! Each is a function of a seed (and of what it varies) to a one-line result or an account of
//! what went wrong. The test binary runs a few of each; the binary `sim` runs as many as wanted.

mod chaos;
mod first_message;
mod flow;
mod gap;
mod matrix;
mod stage;
mod talk;
mod transport;

pub use chaos::chaos;
pub use first_message::{FirstMessage, first_message};
pub use flow::{Change, Figures, Flow, lossy, steady, survive};
pub use gap::{Death, Gap, gap};
pub use matrix::{
    Class, Goal, Incident, Kind, Lines, Outcome, Pair, Path, Required, Within, check_pair,
    run_pair, tell_pair,
};
pub use stage::{Failure, Site, Stage};
pub use talk::talk;
pub use transport::{play, transport};
