//! One server process of a `dev` cluster, and its admin service.

use std::fs::File;
use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};
use rustydb_proto::v1::admin_client::AdminClient;
use rustydb_proto::v1::{NodeStatusRequest, NodeStatusResponse};
use tonic::transport::{Channel, Endpoint};

use super::layout::Layout;

/// Whether a node stops when the process that started it ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lifetime {
    /// It does: the node of a running `dev`.
    WithParent,
    /// It stays: the node of `--start-node`.
    Own,
}

/// Starts the server process of a node. It is in a process group of its own, so that Ctrl-C at the terminal
/// reaches `dev` only, which then stops the nodes in order.
pub(crate) fn spawn(layout: &Layout, node: u16, lifetime: Lifetime) -> io::Result<Child> {
    let config = layout.write_config(node).map_err(io::Error::other)?;
    let log = File::options().create(true).append(true).open(layout.log_file(node))?;
    let mut command = Command::new(std::env::current_exe()?);
    command.arg("server").arg("--config").arg(config).stdout(log.try_clone()?).stderr(log).process_group(0);
    match lifetime {
        Lifetime::WithParent => command.arg("--exit-with-parent").stdin(Stdio::piped()),
        Lifetime::Own => command.stdin(Stdio::null()),
    };
    command.spawn()
}

/// Sends a signal; whether there was such a process.
pub(crate) fn signal(pid: u64, signal: Signal) -> bool {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    pid.is_some_and(|pid| rustix::process::kill_process(pid, signal).is_ok())
}

/// Whether a process exists that is not just waiting to be collected.
pub(crate) fn is_alive(pid: u64) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    // The state follows the name, which is in parentheses and may hold anything.
    let state = stat.rsplit_once(')').and_then(|(_, rest)| rest.trim_start().chars().next());
    !matches!(state, None | Some('Z' | 'X'))
}

/// How a process ended, for people.
pub(crate) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("exit code {code}"),
        (None, Some(9)) => "killed (signal 9)".to_owned(),
        (None, Some(signal)) => format!("signal {signal}"),
        (None, None) => "unknown end".to_owned(),
    }
}

/// Why a node ended before it served: what ended it from outside, else its last words.
pub(crate) fn why_ended(layout: &Layout, node: u16, status: ExitStatus) -> String {
    if status.signal().is_some() { describe(status) } else { last_words(layout, node) }
}

/// The last line that a node logged about an error, or its last line at all.
pub(crate) fn last_words(layout: &Layout, node: u16) -> String {
    let text = std::fs::read_to_string(layout.log_file(node)).unwrap_or_default();
    let lines = || text.lines().rev().take(50).filter(|line| !line.trim().is_empty());
    let error = lines().find(|line| line.starts_with("rustydb: ") || line.contains("ERROR"));
    let words = error.or_else(|| lines().next()).unwrap_or("it logged nothing");
    words.trim_start_matches("rustydb: ").to_owned()
}

/// Asks a node for its status.
#[derive(Debug, Clone)]
pub(crate) struct NodeClient {
    admin: AdminClient<Channel>,
}

impl NodeClient {
    /// A client that connects when it is first used, and again after the node was away.
    pub(crate) fn new(layout: &Layout, node: u16) -> Result<NodeClient, tonic::transport::Error> {
        let [_, interconnect, _] = layout.addresses(node);
        let endpoint = Endpoint::from_shared(format!("http://{interconnect}"))?
            .connect_timeout(Duration::from_millis(500))
            .timeout(Duration::from_secs(60));
        Ok(NodeClient { admin: AdminClient::new(endpoint.connect_lazy()) })
    }

    /// What the node says about itself, or nothing if it does not answer within a second.
    pub(crate) async fn status(&self) -> Option<NodeStatusResponse> {
        let mut admin = self.admin.clone();
        let request = admin.node_status(NodeStatusRequest {});
        Some(tokio::time::timeout(Duration::from_secs(1), request).await.ok()?.ok()?.into_inner())
    }

    /// The client itself, for requests that change the cluster.
    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        self.admin.clone()
    }
}
