//! `rustydb server`: the life of a server process.
//!
//! ```text
//! bind ports -> lock data folder -> start node -> READY=1 -> ... -> signal -> hand over leaders -> sync -> exit
//! ```
//!
//! Two runtimes: one for consensus, its log and its network, one for SQL, so that a heavy query never costs an
//! election.

use std::io;
use std::net::TcpListener;
use std::time::Duration;

use rustydb_env::Env;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use crate::config::Config;
use crate::logging;
use crate::node::{Environments, Listeners, Node, NodeError};
use crate::systemd::Notifier;

/// Whether the process outlives the one that started it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parent {
    /// It lives until it is told to stop.
    Ignored,
    /// It stops when standard input ends.
    Watched,
}

/// Why a server process ended with a failure.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The system gave no threads or no signals.
    #[error("cannot start: {0}")]
    System(io::Error),
    /// A port cannot be listened on.
    #[error("cannot listen on {address} ({key}): {}", reason(source))]
    Listen {
        /// The configuration key.
        key: &'static str,
        /// The address.
        address: String,
        /// What the system said.
        source: io::Error,
    },
    /// The node cannot start or had to stop.
    #[error(transparent)]
    Node(#[from] NodeError),
}

fn reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "the port is in use by another process".to_owned(),
        io::ErrorKind::PermissionDenied => "this account may not use the port".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        _ => error.to_string(),
    }
}

fn bind(key: &'static str, address: &str) -> Result<TcpListener, ServeError> {
    let failed = |source| ServeError::Listen { key, address: address.to_owned(), source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    // The library asks for 128 that wait to be accepted; whoever comes beyond them comes again after a second.
    rustix::net::listen(&listener, BACKLOG).map_err(|error| failed(error.into()))?;
    listener.set_nonblocking(true).map_err(failed)?;
    Ok(listener)
}

/// Connections that wait to be accepted, as far as the system lets so many wait.
const BACKLOG: i32 = 4096;

/// Stack of a thread, of which the system gives what is used: enough for the deepest statement that is let through.
const STACK_BYTES: usize = 32 << 20;

/// A runtime with so many threads; what computes or blocks may take `more_max` beyond them.
fn runtime(name: &str, threads: usize, more_max: usize) -> Result<Runtime, ServeError> {
    Builder::new_multi_thread()
        .thread_name(name)
        .worker_threads(threads)
        .max_blocking_threads(more_max)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .map_err(ServeError::System)
}

/// Runs a node until it is told to stop.
///
/// # Errors
/// It cannot start, or it must not go on.
pub fn run(config: Config, parent: Parent) -> Result<(), ServeError> {
    logging::start(&config.logging);
    let listeners = Listeners {
        postgres: bind("listen.postgres", &config.listen.postgres)?,
        interconnect: bind("listen.interconnect", &config.listen.interconnect)?,
        http: bind("listen.http", &config.listen.http)?,
    };
    let cores = std::thread::available_parallelism().map_or(2, usize::from);
    let sql_threads = if config.runtime.sql_threads == 0 { cores } else { config.runtime.sql_threads };
    // Few, since each hands work to the next: two threads on one core only wake each other.
    let consensus_threads = match config.runtime.consensus_threads {
        0 => (cores / 2).clamp(1, 4),
        threads => threads,
    };
    let consensus = runtime("consensus", consensus_threads, 512)?;
    // All sessions of all nodes may compute at once at a leader, and each that does hands its thread's work to another.
    let sessions_max = config.session.max_connections.saturating_mul(7);
    let sql = runtime("sql", sql_threads, sessions_max.saturating_add(512))?;
    let environments = Environments {
        consensus: Env::os_on(consensus.handle().clone()),
        sql: Env::os_on(sql.handle().clone()),
    };
    let outcome = consensus.block_on(live(config, environments, listeners, parent));
    // What has not ended by now is dropped with its threads.
    sql.shutdown_timeout(Duration::from_millis(500));
    consensus.shutdown_timeout(Duration::from_millis(500));
    outcome
}

async fn live(
    config: Config,
    environments: Environments,
    listeners: Listeners,
    parent: Parent,
) -> Result<(), ServeError> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(ServeError::System)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(ServeError::System)?;
    let deadline = config.node.shutdown_timeout.get();
    let node = Node::start(environments, config, listeners).await?;
    let notifier = Notifier::from_environment();
    notifier.send("READY=1");
    let watchdog = async {
        let Some(interval) = notifier.watchdog_interval() else { return std::future::pending::<()>().await };
        loop {
            notifier.send("WATCHDOG=1");
            tokio::time::sleep(interval).await;
        }
    };
    let parent_gone = parent_gone(parent);
    let stopped = tokio::select! {
        biased;
        fatal = node.failed() => Err(ServeError::Node(fatal)),
        _ = interrupt.recv() => Ok("SIGINT"),
        _ = terminate.recv() => Ok("SIGTERM"),
        () = parent_gone => Ok("the end of the parent process"),
        () = node.dismissed() => Ok("the removal of this node from its cluster"),
        () = watchdog => Ok("the end of the watchdog"),
    };
    notifier.send("STOPPING=1");
    match &stopped {
        Ok(why) => tracing::info!(why, "stopping"),
        Err(error) => tracing::error!(%error, "stopping"),
    }
    if tokio::time::timeout(deadline, node.shutdown(deadline)).await.is_err() {
        tracing::warn!(?deadline, "not everything ended in time; the rest is dropped");
    }
    stopped.map(|_| ())
}

/// Ends when standard input does, if that is asked for.
async fn parent_gone(parent: Parent) {
    if parent == Parent::Ignored {
        return std::future::pending().await;
    }
    let (sender, receiver) = tokio::sync::oneshot::channel();
    // A thread, because a blocking read of standard input would hold up the end of a runtime.
    std::thread::spawn(move || {
        let _ = io::copy(&mut io::stdin(), &mut io::sink());
        let _ = sender.send(());
    });
    let _ = receiver.await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_taken_port_is_named_with_its_key() {
        let taken = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap().to_string();
        let error = bind("listen.http", &address).unwrap_err();
        let expected =
            format!("cannot listen on {address} (listen.http): the port is in use by another process");
        assert_eq!(error.to_string(), expected);
    }
}
