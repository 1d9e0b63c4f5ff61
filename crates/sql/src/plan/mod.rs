//! Plans: the tree that the binder draws, the optimizer improves and the executor runs.
//!
//! There is one tree. The binder writes every scan as a full scan and every join as a nested loop; the optimizer then
//! pushes predicates down, picks access paths and join algorithms in place. A plan that was never optimized gives the
//! same rows, only slower, which the tests use as their model.

pub mod cost;
pub mod narrow;
pub mod node;
pub mod optimize;
mod order;
pub mod path;
pub mod references;
pub mod selectivity;
pub mod statement;
pub mod window;

pub use node::{
    AccessPath, Aggregate, AggregateCall, ColumnInfo, GroupingSet, Join, JoinAlgorithm, JoinKind, Node,
    Probe, Row, Scan, SetOperation, SortKey, TableFunction,
};
