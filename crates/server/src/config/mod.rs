//! Configuration of a node: one TOML file, every key with a default, unknown keys refused.
//!
//! Reading has two steps: the text becomes plain data ([`Config`]), then [`Config::validate`] names every
//! relation that does not hold. Nothing is repaired silently, and after [`Config::load`] the values are trusted.
//! All keys belong to one process; none is reloaded while it runs. `config/rustydb.toml` in the repository
//! holds every key with its default, and a test proves that the two are equal.

mod check;
mod node;
mod raft;
mod security;
mod session;
mod storage;
pub mod units;
mod validate;

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use check::exposed_keys;
pub use check::{Finding, check_text};
pub use node::{ClusterConfig, ListenConfig, LogFormat, LoggingConfig, NodeConfig, RuntimeConfig};
pub use raft::RaftConfig;
pub use security::{AuthConfig, AuthMethod, AuthRule, TlsConfig};
pub use session::SessionConfig;
pub use storage::{EngineChoice, LogConfig, MemoryConfig, StorageConfig};
pub use validate::ConfigProblem;

/// All that a node is told. One field per section of the file.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this node is.
    pub node: NodeConfig,
    /// Whom it joins.
    pub cluster: ClusterConfig,
    /// Where it listens.
    pub listen: ListenConfig,
    /// How it agrees with the others.
    pub raft: RaftConfig,
    /// How it keeps tables.
    pub storage: StorageConfig,
    /// How it keeps the log.
    pub log: LogConfig,
    /// How much memory it plans with.
    pub memory: MemoryConfig,
    /// What a client may use.
    pub session: SessionConfig,
    /// Certificates.
    pub tls: TlsConfig,
    /// Who may log in.
    pub auth: AuthConfig,
    /// Threads.
    pub runtime: RuntimeConfig,
    /// What is logged.
    pub logging: LoggingConfig,
}

/// Why a configuration cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file was read and is wrong.
    #[error("{path} cannot be used:\n{}", list(findings))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// What is wrong, in the order of the file.
        findings: Vec<Finding>,
    },
}

fn list(findings: &[Finding]) -> String {
    findings.iter().map(|finding| format!("  {finding}")).collect::<Vec<_>>().join("\n")
}

impl Config {
    /// Reads and checks a file.
    ///
    /// # Errors
    /// The file cannot be read, or at least one thing in it is wrong; all findings are returned at once.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let wrong = |findings| ConfigError::Wrong { path: path.to_owned(), findings };
        let config = check_text(&text).map_err(wrong)?;
        let findings = exposed_keys(&text, &config.tls);
        if findings.is_empty() { Ok(config) } else { Err(wrong(findings)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: &str = include_str!("../../../../config/rustydb.toml");

    #[test]
    fn the_file_in_the_repository_equals_the_defaults() {
        assert_eq!(check_text(FILE).unwrap(), Config::default());
    }

    /// Walks both as TOML, so that a key that has a default but is missing in the file is found too.
    #[test]
    fn the_file_in_the_repository_holds_every_key() {
        let file: toml::Table = FILE.parse().unwrap();
        let defaults = toml::Table::try_from(Config::default()).unwrap();
        let keys = |table: &toml::Table| -> Vec<String> {
            let section = |(name, value): (&String, &toml::Value)| -> Vec<String> {
                value.as_table().unwrap().keys().map(|key| format!("{name}.{key}")).collect()
            };
            table.iter().flat_map(section).collect()
        };
        assert_eq!(keys(&file), keys(&defaults));
    }

    /// A key without a comment above it is a key that nobody can set with confidence.
    #[test]
    fn every_key_in_the_file_is_explained() {
        let mut previous = "";
        for line in FILE.lines() {
            if line.contains(" = ") && !line.starts_with('#') && !line.starts_with(' ') {
                assert!(previous.starts_with("# "), "no comment above `{line}`");
            }
            previous = line;
        }
    }

    #[test]
    fn the_advertised_address_keeps_the_port() {
        let listen = ListenConfig { advertise_host: "db1.example".to_owned(), ..ListenConfig::default() };
        assert_eq!(listen.advertised("0.0.0.0:5432"), "db1.example:5432");
        assert_eq!(ListenConfig::default().advertised("10.0.0.1:5432"), "10.0.0.1:5432");
    }
}
