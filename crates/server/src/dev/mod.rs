//! `rustydb dev`: a whole cluster of real server processes on loopback, from one command.
//!
//! The processes are this executable with `server --config DIR/node-K.toml`. They hold the other end of a pipe,
//! so that they stop when this process dies in whatever way. Nothing is restarted by itself: a node that died
//! stays dead until somebody starts it with `--start-node`, and the running `dev` notices its return.

mod layout;
mod process;
mod supervisor;

use std::path::PathBuf;

pub use layout::{Layout, LayoutError, NODES_MAX, Wanted};

/// What the command line asks for.
#[derive(Debug, Clone)]
pub struct DevOptions {
    /// Folder of the cluster.
    pub data: PathBuf,
    /// Shape of the cluster.
    pub wanted: Wanted,
    /// Start this one node and return.
    pub start_node: Option<u16>,
}

/// Why `dev` ended early.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DevError {
    /// The folder or its layout cannot be used.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// A process cannot be started.
    #[error("node {node} cannot be started: {source}")]
    Spawn {
        /// The node.
        node: u16,
        /// What the system said.
        source: std::io::Error,
    },
    /// A node ended before it served; `reason` is the last that it logged.
    #[error("node {node} did not start: {reason}")]
    Start {
        /// The node.
        node: u16,
        /// Why, in its own words.
        reason: String,
    },
    /// The node runs already.
    #[error("node {node} runs already as process {pid}")]
    Running {
        /// The node.
        node: u16,
        /// Its process.
        pid: u64,
    },
    /// A step took too long.
    #[error("{what} took longer than {seconds} s")]
    Deadline {
        /// The step.
        what: String,
        /// Its deadline.
        seconds: u64,
    },
    /// The cluster refused a step.
    #[error("{what}: {reason}")]
    Refused {
        /// The step.
        what: String,
        /// Why.
        reason: String,
    },
    /// A node runs and cannot serve; it is left running, and serves when it can.
    #[error("node {node} runs as process {pid}, but does not serve yet: {reason}")]
    NotServing {
        /// The node.
        node: u16,
        /// Its process.
        pid: u64,
        /// What it waits for.
        reason: String,
    },
    /// Every node has died.
    #[error("every node has died; start all of them again with: rustydb dev --data {}", dir.display())]
    AllDied {
        /// Folder of the cluster.
        dir: PathBuf,
    },
    /// Signals cannot be caught.
    #[error("signals cannot be caught: {0}")]
    Signals(std::io::Error),
}

/// Runs the command until Ctrl-C, or, for one node, until it serves.
///
/// # Errors
/// The cluster cannot be started, or all of it died.
pub async fn run(options: DevOptions) -> Result<(), DevError> {
    match options.start_node {
        Some(node) => supervisor::start_one(&options.data, node).await,
        None => supervisor::run(&options.data, options.wanted).await,
    }
}
