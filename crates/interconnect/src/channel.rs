//! Connections to other nodes.

use std::time::Duration;

use tonic::transport::{Channel, ClientTlsConfig, Endpoint};

/// Longest wait for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// A connection on which nothing comes for so long is asked for a sign of life, and closed without one.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMEOUT: Duration = Duration::from_secs(2);
/// What may be on its way unacknowledged on one stream and on one connection: enough for a fast disk at the other
/// side, little enough that a slow one is noticed.
const STREAM_WINDOW: u32 = 4 << 20;
const CONNECTION_WINDOW: u32 = 8 << 20;

/// Why there is no connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The address is none.
    #[error("`{address}` is not an address: {reason}")]
    Address {
        /// What was given.
        address: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The other side does not answer there.
    #[error("{address} cannot be reached: {reason}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

pub(crate) fn endpoint(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Endpoint, ChannelError> {
    let wrong = |error: tonic::transport::Error| ChannelError::Address {
        address: address.to_owned(),
        reason: innermost(&error),
    };
    let scheme = if tls.is_some() { "https" } else { "http" };
    let endpoint = Endpoint::from_shared(format!("{scheme}://{address}"))
        .map_err(wrong)?
        .connect_timeout(CONNECT_TIMEOUT)
        .tcp_nodelay(true)
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE_TIMEOUT)
        .keep_alive_while_idle(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW);
    match tls {
        Some(tls) => endpoint.tls_config(tls.clone()).map_err(wrong),
        None => Ok(endpoint),
    }
}

/// A connection, made now.
pub(crate) async fn connect(address: &str, tls: Option<&ClientTlsConfig>) -> Result<Channel, ChannelError> {
    let refused = |reason: String| ChannelError::Connect { address: address.to_owned(), reason };
    let endpoint = endpoint(address, tls)?;
    // The endpoint's own deadline does not cover the handshake.
    tokio::time::timeout(CONNECT_TIMEOUT * 2, endpoint.connect())
        .await
        .map_err(|_| refused("no answer in time".to_owned()))?
        .map_err(|error| refused(innermost(&error)))
}

/// The last cause of an error, which is the one that a person can act on.
fn innermost(error: &dyn std::error::Error) -> String {
    let mut current = error;
    while let Some(source) = current.source() {
        current = source;
    }
    current.to_string()
}
