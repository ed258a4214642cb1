//! Two peers behind every pair of boxes: does the network see the path that the oracle expects?
//!
//! - [`Kind`] is what a peer is behind, [`Pair`] two of them with their lines and what happens to
//!   them; `list` holds all pairs.
//! - [`run_pair`] plays one. Whether it became direct, when, and what it cost is read off the
//!   network's own counters.
//! - [`Class`] says what pairs have in common, and what is required of them.

mod class;
mod kind;
mod list;
mod pair;
mod play;

pub use class::{Class, Goal, Required, Within};
pub use kind::Kind;
pub use pair::{Incident, Lines, Pair};
pub use play::{Outcome, Path, check_pair, run_pair, tell_pair};
