//! Events on standard error, as lines or JSON.

use tracing_subscriber::EnvFilter;

use crate::config::{LogFormat, LoggingConfig};

/// Starts logging for this process. Calling it again changes nothing.
pub fn start(config: &LoggingConfig) {
    let filter = EnvFilter::builder().parse(&config.filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // Standard error may be a file on the disk that is full: a line that cannot be written is dropped. The library
    // would complain on standard error instead, and the failure of that would be a panic of whoever logged.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .log_internal_errors(false);
    // A test that starts two nodes in one process keeps the first one's subscriber.
    let _ = match config.format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().try_init(),
    };
}
