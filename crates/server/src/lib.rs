//! A node: configuration, wiring, HTTP, administration, and the commands of the binary `rustydb`.

pub mod config;
pub mod dev;
pub mod identity;
pub mod logging;
pub mod memory;
pub mod node;
pub mod serve;
pub mod systemd;

use std::path::Path;

use config::{Config, ConfigError, Finding};

/// Checks a configuration file, and the certificates and keys that it names, as a start would.
///
/// # Errors
/// All that is wrong in the file; when nothing is, what is wrong with a certificate.
pub fn check_config(path: &Path) -> Result<(), ConfigError> {
    let config = Config::load(path)?;
    let findings: Vec<Finding> = node::certificate_problems(&config.tls)
        .into_iter()
        .map(|(key, reason)| Finding::of_key(&std::fs::read_to_string(path).unwrap_or_default(), key, reason))
        .collect();
    if findings.is_empty() { Ok(()) } else { Err(ConfigError::Wrong { path: path.to_owned(), findings }) }
}
