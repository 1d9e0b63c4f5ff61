//! What systemd wants to hear: `READY=1`, `STOPPING=1` and the watchdog's sign of life.
//!
//! The protocol is one datagram per message to the socket named in `NOTIFY_SOCKET` (sd_notify(3)). Without that
//! variable nothing is sent, so the same binary runs anywhere.

use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

/// The way to the service manager, if there is one.
#[derive(Debug)]
pub struct Notifier {
    socket: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notifier {
    /// Takes the way from the environment of this process.
    pub fn from_environment() -> Notifier {
        let address = std::env::var("NOTIFY_SOCKET").ok();
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|text| text.parse().ok());
        Notifier::new(address.as_deref(), watchdog.map(Duration::from_micros))
    }

    fn new(address: Option<&str>, watchdog: Option<Duration>) -> Notifier {
        let socket = address.and_then(|address| {
            // A leading @ names an abstract socket, which has no file.
            let address = match address.strip_prefix('@') {
                Some(name) => SocketAddr::from_abstract_name(name).ok()?,
                None => SocketAddr::from_pathname(address).ok()?,
            };
            Some((UnixDatagram::unbound().ok()?, address))
        });
        Notifier { socket, watchdog }
    }

    /// Sends one message, such as `READY=1`. A manager that does not listen is no reason to stop.
    pub fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::debug!(%error, message, "the service manager was not told");
        }
    }

    /// How often to send `WATCHDOG=1`: half of what the manager allows.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.socket.as_ref()?;
        self.watchdog.map(|allowed| allowed / 2).filter(|interval| !interval.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_arrive_at_the_named_socket() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let manager = UnixDatagram::bind(&path).unwrap();
        let notifier = Notifier::new(path.to_str(), Some(Duration::from_secs(10)));
        notifier.send("READY=1");
        let mut buffer = [0; 64];
        let count = manager.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..count], b"READY=1");
        assert_eq!(notifier.watchdog_interval(), Some(Duration::from_secs(5)));
    }

    #[test]
    fn without_a_manager_nothing_happens() {
        let notifier = Notifier::new(None, Some(Duration::from_secs(10)));
        notifier.send("READY=1");
        assert_eq!(notifier.watchdog_interval(), None);
    }
}
