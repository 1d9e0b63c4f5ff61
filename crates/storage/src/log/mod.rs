//! The write-ahead log: one per node, shared by all its Raft groups.
//!
//! ```text
//!   group 1 --append--\                     +-------------------------- log thread ---------+
//!   group 2 --vote-----> queue (bounded) -->| drain | one write | one fdatasync | callbacks  |
//!   group 3 --append--/                     +-----------------------------------------------+
//!                                                      |
//!        0000000000000007.log  0000000000000008.log  0000000000000009.log  spare-...  spare-...
//!        [header|checkpoint|frames............][header|checkpoint|frames..][...]
//! ```
//!
//! The format is drawn in `docs/formats/log.md`.
//!
//! Invariants:
//! - Submissions of all groups are written in one order, and completed in that order, after the `fdatasync` that
//!   covers them. So a vote and the entries around it never change places.
//! - Frames written between two syncs form a batch and name its start. A bad frame that is followed by a frame of
//!   a later batch had been synced, and one that a single changed bit makes valid was written whole: that is
//!   corruption and the log refuses to open. Any other bad frame is a torn tail, and what follows it had never been
//!   acknowledged.
//! - Behind an end that was not clean nothing is written: the next segment says where it is.
//! - Every segment opens with a checkpoint of what all groups were at that point, so the segments before it are
//!   needed only for entries that are not purged.
//! - Beside the log it is noted how far it was durable; a log that ends before that is refused as well.
//! - A segment is retired when no group has an entry in it or before it, and only after the purge that says so is
//!   durable.
//! - After a failed write or sync the log is poisoned for good: it completes everything with an error until the
//!   process starts again.
//!
//! What is readable: an entry can be read as soon as `append` returned, before it is durable.

mod config;
mod dump;
mod end;
mod error;
mod frame;
mod group;
mod handle;
mod ledger;
mod place;
mod queue;
mod record;
mod recovery;
mod segment;
mod space;
mod tail;
#[cfg(test)]
mod tests;
mod view;
mod writer;

pub use config::LogConfig;
pub use dump::dump;
pub use error::{LogError, LogErrorKind};
pub use handle::{Completion, GroupLog, GroupLogState, Log, LogEntry, LogStats};
pub use place::{LogPlace, Past};
pub use view::GroupLogView;
