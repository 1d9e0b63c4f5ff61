//! What the nodes of a plan do while it is executed, for EXPLAIN ANALYZE.

use std::collections::HashMap;

use parking_lot::Mutex;

use super::operator::Batch;
use super::run::{Run, RunState};
use crate::error::SqlError;
use crate::plan::Node;

/// What a node did.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Measure {
    /// How often it was run from its beginning.
    pub loops: u64,
    /// Rows that it gave in all of them.
    pub rows: u64,
    /// Rows that its filter kept back.
    pub removed: u64,
    /// Microseconds until its first rows, the nodes under it included.
    pub startup_micros: i64,
    /// Microseconds in all.
    pub total_micros: i64,
    /// Whether it has more to give.
    is_open: bool,
}

/// Measures of nodes, by [`key`].
#[derive(Debug, Default)]
pub(crate) struct Meter(Mutex<HashMap<usize, Measure>>);

/// What tells a node of a plan from the others: where it is, since plans do not move.
pub(crate) fn key(node: &Node) -> usize {
    match node {
        Node::Scan(scan) => std::ptr::from_ref(scan.as_ref()).addr(),
        other => std::ptr::from_ref(other).addr(),
    }
}

impl Meter {
    /// What a node did; absent when it never ran.
    pub(crate) fn of(&self, key: usize) -> Option<Measure> {
        self.0.lock().get(&key).copied()
    }

    /// Measures how a node gives its next rows.
    pub(crate) fn measured(
        &self,
        key: usize,
        run: &Run<'_>,
        next: impl FnOnce() -> Result<Option<Batch>, SqlError>,
    ) -> Result<Option<Batch>, SqlError> {
        let begun = run.eval.session.clock();
        let given = next();
        let micros = run.eval.session.clock().saturating_sub(begun).max(0);
        let mut all = self.0.lock();
        let measure = all.entry(key).or_default();
        if !measure.is_open {
            measure.loops += 1;
            measure.startup_micros += micros;
        }
        measure.total_micros += micros;
        measure.is_open = matches!(given, Ok(Some(_)));
        if let Ok(Some(batch)) = &given {
            measure.rows += batch.len() as u64;
        }
        given
    }
}

impl RunState {
    /// Counts rows that a filter kept back, where anybody counts.
    pub(crate) fn removed(&self, key: impl FnOnce() -> usize, count: usize) {
        if let Some(meter) = &self.meter
            && count > 0
        {
            meter.0.lock().entry(key()).or_default().removed += count as u64;
        }
    }
}
