//! The recent layer: where applied versions live until an engine has them.
//!
//! ```text
//!   numbered, not applied    Overlay         (leader only; dropped on refusal)
//!   applied, newest          active          one generation takes all new versions
//!                            frozen, frozen  older generations, waiting for the flush
//!   flushed                  engine view     each key's newest version as of the flush
//! ```
//!
//! A [`LayerSet`] is one consistent stack of the lower three. A snapshot is a set and a version: the set keeps its
//! generations and its engine view alive for as long as the snapshot needs them, and what no set needs is freed
//! with the last reference. The versions in a view are never newer than a snapshot that was taken with it.
//!
//! Staged transactions add provisional rows beside the rows, under the number of their transaction; a table of
//! those that are committed says at which version their rows count.

mod generation;
mod pins;
mod scan;
mod set;

pub(crate) use generation::{Generation, Provisional, staged_key};
pub(crate) use pins::{Layers, Pin};
pub(crate) use scan::{Item, ItemRun, Limits, ScanBounds, merge, visit_rows};
pub use scan::{ScanChunk, ScanRequest};
pub(crate) use set::{Found, LayerSet, decode_provisional, decode_row, encode_provisional, encode_row};

use rustydb_storage::engine::Space;

/// Current rows: key to version and value.
pub(crate) const ROWS: Space = Space::new(0);
/// The applied position and all that is kept once per store.
pub(crate) const META: Space = Space::new(1);
/// Outcomes: one row per session.
pub(crate) const OUTCOMES: Space = Space::new(2);
/// Provisional rows of staged transactions: number and key to value.
pub(crate) const STAGED: Space = Space::new(3);
/// The table of staged transactions.
pub(crate) const STAGED_TABLE: Space = Space::new(4);
