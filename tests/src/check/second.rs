//! A second opinion on list and register histories: the crate `adya`, which knows nothing of ours.
//!
//! It reads the same lines that are kept of a history that is wrong.

use std::time::Duration;

use super::history::{Operation, as_lines};
use super::lists::Level;

/// What the steps of a history are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Appends and reads of lists.
    Lists,
    /// Writes and reads of registers.
    Registers,
}

/// Names of the anomalies that the level forbids and the history shows; `unknown` when the search had to be given up.
///
/// # Errors
/// The history cannot be read.
pub fn check(operations: &[Operation], kind: Kind, level: Level) -> Result<Vec<String>, String> {
    let model = match level {
        Level::ReadCommitted => "strong-read-committed",
        Level::Snapshot => "strong-snapshot-isolation",
        Level::Serializable => "strict-serializable",
    };
    check_model(operations, kind, model)
}

/// As [`check`], against a model by its name there.
///
/// # Errors
/// The history cannot be read.
pub fn check_model(operations: &[Operation], kind: Kind, model: &str) -> Result<Vec<String>, String> {
    let history = adya::History::from_json(&as_lines(operations)).map_err(|error| error.to_string())?;
    let workload = match kind {
        Kind::Lists => adya::Workload::ListAppend,
        Kind::Registers => adya::Workload::RwRegister,
    };
    let options = adya::Opts {
        models: vec![model.to_owned()],
        timeout: Duration::from_secs(20),
        // A transaction here writes a register that it read before, never the other way round.
        wfr_keys: kind == Kind::Registers,
        ..adya::Opts::default()
    };
    let report = adya::check(&history, workload, &options);
    Ok(match report.valid {
        adya::Valid::True => Vec::new(),
        adya::Valid::False => report.anomaly_types,
        // Transactions that have nothing to do with one another are right at every level.
        adya::Valid::Unknown if report.anomaly_types == ["empty-transaction-graph"] => Vec::new(),
        adya::Valid::Unknown => vec!["unknown".to_owned()],
    })
}
