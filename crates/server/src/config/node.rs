//! Who this node is, where it listens and whom it joins.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::units::TimeSpan;

/// `[node]`: who this node is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct NodeConfig {
    /// Number of this node, unique in its cluster for ever; range 1 to 2^32 - 1; default 1.
    /// A node that lost its data folder comes back under a new number, because its votes are lost too.
    pub id: u64,
    /// Folder of all that this node keeps; default `/var/lib/rustydb`. One process may use it at a time.
    pub data_dir: PathBuf,
    /// Longest time from the stop signal to the end of the process; default 30s.
    /// In it leaders are handed over and sessions end; what is left then is dropped, which loses no commit.
    pub shutdown_timeout: TimeSpan,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            id: 1,
            data_dir: PathBuf::from("/var/lib/rustydb"),
            shutdown_timeout: TimeSpan::from_secs(30),
        }
    }
}

/// `[cluster]`: whom this node joins.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ClusterConfig {
    /// Interconnect addresses (`host:port`) of nodes to ask for admission at the first start; default none.
    /// Empty means that the node waits for `rustydb-cli cluster init` or `rustydb-cli node add`.
    /// Without meaning once the node belongs to a cluster.
    pub join: Vec<String>,
    /// Interconnect addresses (`host:port`) of members where this node may look for the others at each start;
    /// default none. Needed only when addresses of several nodes changed while all were down; else the cluster's
    /// own records suffice.
    pub peers: Vec<String>,
}

/// `[listen]`: the three ports of a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// Address for PostgreSQL clients; default `127.0.0.1:5432`, so that nothing is open by accident.
    pub postgres: String,
    /// Address for the other nodes and for `rustydb-cli`; default `127.0.0.1:5532`.
    pub interconnect: String,
    /// Address for health, readiness and metrics; default `127.0.0.1:5632`. It has no authentication.
    pub http: String,
    /// Host name or address under which other nodes and clients reach this node; default empty, which takes
    /// the host of each address above. Needed when those are `0.0.0.0` or `[::]`.
    pub advertise_host: String,
}

impl Default for ListenConfig {
    fn default() -> ListenConfig {
        ListenConfig {
            postgres: "127.0.0.1:5432".to_owned(),
            interconnect: "127.0.0.1:5532".to_owned(),
            http: "127.0.0.1:5632".to_owned(),
            advertise_host: String::new(),
        }
    }
}

impl ListenConfig {
    /// The address that others use for `listen`: its host replaced by [`ListenConfig::advertise_host`] if set.
    pub fn advertised(&self, listen: &str) -> String {
        match listen.rsplit_once(':') {
            Some((_, port)) if !self.advertise_host.is_empty() => format!("{}:{port}", self.advertise_host),
            _ => listen.to_owned(),
        }
    }
}

/// `[runtime]`: threads.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that run SQL; range 0 to 256; default 0, which takes one per core.
    pub sql_threads: usize,
    /// Threads that run consensus and its network; range 0 to 64; default 0, which takes one for two cores, at most
    /// four. They are apart from SQL, so that a heavy query never costs an election.
    pub consensus_threads: usize,
}

/// Form of the lines that the server logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// One readable line per event.
    #[default]
    Text,
    /// One JSON object per event.
    Json,
}

/// `[logging]`: what the server tells about itself, on standard error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoggingConfig {
    /// What is logged, as `tracing` directives such as `info` or `warn,rustydb_consensus=debug`; default
    /// `info,openraft=error,openraft::raft=off,openraft::core::heartbeat=off`, because openraft tells every message at
    /// `info`, every lost one at `warn`, and at `error` that a call is tried again or came at a stop.
    pub filter: String,
    /// `text` or `json`; default `text`.
    pub format: LogFormat,
}

impl Default for LoggingConfig {
    fn default() -> LoggingConfig {
        LoggingConfig { filter: format!("info,{}", rustydb_consensus::LOG_FILTER), format: LogFormat::Text }
    }
}
