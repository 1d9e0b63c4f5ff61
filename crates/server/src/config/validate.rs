//! The relations between configured values, each with an error of its own.

use std::net::IpAddr;
use std::time::Duration;

use super::units::{ByteSize, MemoryBudget, TimeSpan};
use super::{AuthRule, Config};

/// One broken relation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigProblem {
    /// A number, time or size is outside its range.
    #[error("{found} is outside {min} to {max}")]
    Range {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
        /// Smallest value allowed.
        min: String,
        /// Greatest value allowed.
        max: String,
    },
    /// An address is not `host:port`.
    #[error("`{found}` is not an address of the form host:port")]
    Address {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
    },
    /// Two listeners would use one address.
    #[error("{address} is already taken by {other}")]
    SameAddress {
        /// The key.
        key: &'static str,
        /// The key that has the address too.
        other: &'static str,
        /// The address.
        address: String,
    },
    /// A wildcard address cannot be told to others.
    #[error(
        "`{found}` is a wildcard: set listen.advertise_host to the name under which others reach this node"
    )]
    NoAdvertisedHost {
        /// The key.
        key: &'static str,
        /// Its value.
        found: String,
    },
    /// The election timeout leaves no room for a lost heartbeat.
    #[error("{found} is less than 3 heartbeats ({heartbeat} each)")]
    ElectionTooShort {
        /// The minimal election timeout.
        found: TimeSpan,
        /// The heartbeat interval.
        heartbeat: TimeSpan,
    },
    /// The range of the election timeout is empty.
    #[error("{max} is not more than raft.election_timeout_min ({min})")]
    ElectionRange {
        /// The minimal election timeout.
        min: TimeSpan,
        /// The maximal election timeout.
        max: TimeSpan,
    },
    /// One file of a pair is missing.
    #[error("is empty although {other} is set")]
    TlsPair {
        /// The empty key.
        key: &'static str,
        /// The key that is set.
        other: &'static str,
    },
    /// A rule's addresses cannot be read.
    #[error("rule {number}: `{found}` is neither `all` nor a network such as 10.0.0.0/8")]
    AuthNetwork {
        /// Number of the rule, from 1.
        number: usize,
        /// What was read.
        found: String,
    },
    /// There are no rules, so nobody could log in.
    #[error("there is no rule, so that nobody could log in")]
    NoAuthRule,
    /// The log filter is not understood.
    #[error("`{found}` is not a list of tracing directives: {reason}")]
    LogFilter {
        /// What was read.
        found: String,
        /// What the parser said.
        reason: String,
    },
    /// A path is empty.
    #[error("is empty")]
    EmptyPath {
        /// The key.
        key: &'static str,
    },
}

impl ConfigProblem {
    /// The key that is wrong, with its section.
    pub fn key(&self) -> &'static str {
        match self {
            ConfigProblem::Range { key, .. }
            | ConfigProblem::Address { key, .. }
            | ConfigProblem::SameAddress { key, .. }
            | ConfigProblem::NoAdvertisedHost { key, .. }
            | ConfigProblem::TlsPair { key, .. }
            | ConfigProblem::EmptyPath { key } => key,
            ConfigProblem::ElectionTooShort { .. } => "raft.election_timeout_min",
            ConfigProblem::ElectionRange { .. } => "raft.election_timeout_max",
            ConfigProblem::AuthNetwork { .. } | ConfigProblem::NoAuthRule => "auth.rules",
            ConfigProblem::LogFilter { .. } => "logging.filter",
        }
    }
}

/// Collects problems; each method names one relation.
struct Findings(Vec<ConfigProblem>);

impl Findings {
    fn range<T: PartialOrd + std::fmt::Display>(&mut self, key: &'static str, found: T, min: T, max: T) {
        if found < min || found > max {
            let (found, min, max) = (found.to_string(), min.to_string(), max.to_string());
            self.0.push(ConfigProblem::Range { key, found, min, max });
        }
    }

    fn address(&mut self, key: &'static str, found: &str) {
        let good = found
            .rsplit_once(':')
            .is_some_and(|(host, port)| !host.is_empty() && port.parse::<u16>().is_ok_and(|port| port != 0));
        if !good {
            self.0.push(ConfigProblem::Address { key, found: found.to_owned() });
        }
    }

    fn pair(&mut self, first: (&'static str, &std::path::Path), second: (&'static str, &std::path::Path)) {
        let empty = |path: &std::path::Path| path.as_os_str().is_empty();
        match (empty(first.1), empty(second.1)) {
            (true, false) => self.0.push(ConfigProblem::TlsPair { key: first.0, other: second.0 }),
            (false, true) => self.0.push(ConfigProblem::TlsPair { key: second.0, other: first.0 }),
            _ => {}
        }
    }
}

impl Config {
    /// Names every relation that does not hold; empty when the configuration can be used.
    pub fn validate(&self) -> Vec<ConfigProblem> {
        let mut findings = Findings(Vec::new());
        self.validate_node(&mut findings);
        self.validate_raft(&mut findings);
        self.validate_resources(&mut findings);
        self.validate_security(&mut findings);
        findings.0
    }

    fn validate_node(&self, findings: &mut Findings) {
        findings.range("node.id", self.node.id, 1, u64::from(u32::MAX));
        if self.node.data_dir.as_os_str().is_empty() {
            findings.0.push(ConfigProblem::EmptyPath { key: "node.data_dir" });
        }
        findings.range(
            "node.shutdown_timeout",
            self.node.shutdown_timeout,
            TimeSpan::from_secs(1),
            TimeSpan::from_secs(600),
        );
        for peer in &self.cluster.join {
            findings.address("cluster.join", peer);
        }
        for peer in &self.cluster.peers {
            findings.address("cluster.peers", peer);
        }
        let listeners = [
            ("listen.postgres", &self.listen.postgres),
            ("listen.interconnect", &self.listen.interconnect),
            ("listen.http", &self.listen.http),
        ];
        for (at, (key, address)) in listeners.iter().enumerate() {
            findings.address(key, address);
            if let Some((other, _)) = listeners.iter().take(at).find(|(_, earlier)| earlier == address) {
                let address = (*address).clone();
                findings.0.push(ConfigProblem::SameAddress { key, other, address });
            }
            let host = address.rsplit_once(':').map_or("", |(host, _)| host);
            if matches!(host, "0.0.0.0" | "[::]") && self.listen.advertise_host.is_empty() {
                findings.0.push(ConfigProblem::NoAdvertisedHost { key, found: (*address).clone() });
            }
        }
    }

    fn validate_raft(&self, findings: &mut Findings) {
        let raft = &self.raft;
        let (ten, five) = (TimeSpan::from_millis(10), TimeSpan::from_secs(5));
        findings.range("raft.heartbeat_interval", raft.heartbeat_interval, ten, five);
        let minute = TimeSpan::from_secs(60);
        findings.range("raft.election_timeout_max", raft.election_timeout_max, ten, minute);
        if raft.election_timeout_min.get() < raft.heartbeat_interval.get().saturating_mul(3) {
            let (found, heartbeat) = (raft.election_timeout_min, raft.heartbeat_interval);
            findings.0.push(ConfigProblem::ElectionTooShort { found, heartbeat });
        }
        if raft.election_timeout_max <= raft.election_timeout_min {
            let (min, max) = (raft.election_timeout_min, raft.election_timeout_max);
            findings.0.push(ConfigProblem::ElectionRange { min, max });
        }
        findings.range("raft.max_entries_per_append", raft.max_entries_per_append, 1, 100_000);
        let (least, most) = (ByteSize::new(64 << 10), ByteSize::from_mib(16));
        findings.range("raft.max_append_size", raft.max_append_size, least, most);
        let (least, most) = (ByteSize::from_mib(1), ByteSize::from_mib(1 << 20));
        findings.range("raft.snapshot_log_size", raft.snapshot_log_size, least, most);
        findings.range("raft.max_uncommitted_entries", raft.max_uncommitted_entries, 100, 10_000_000);
        let (least, most) = (ByteSize::from_mib(4), ByteSize::from_mib(16 << 10));
        findings.range("raft.max_uncommitted_size", raft.max_uncommitted_size, least, most);
    }

    fn validate_resources(&self, findings: &mut Findings) {
        let (least, most) = (TimeSpan::from_millis(100), TimeSpan::from_secs(3600));
        findings.range("storage.flush_interval", self.storage.flush_interval, least, most);
        let (least, most) = (ByteSize::from_mib(8), ByteSize::from_mib(1 << 10));
        findings.range("log.segment_size", self.log.segment_size, least, most);
        let (least, most) = (ByteSize::from_mib(16), ByteSize::from_mib(1 << 20));
        findings.range("log.disk_reserve", self.log.disk_reserve, least, most);
        if let MemoryBudget::Bytes(budget) = self.memory.budget {
            findings.range("memory.budget", budget, ByteSize::from_mib(128), ByteSize::from_mib(16 << 20));
        }
        findings.range("session.max_connections", self.session.max_connections, 1, 100_000);
        let (least, most) = (ByteSize::new(64 << 10), ByteSize::from_mib(1 << 10));
        findings.range("session.max_message_size", self.session.max_message_size, least, most);
        let (least, most) = (TimeSpan::from_secs(1), TimeSpan::from_secs(600));
        findings.range("session.authentication_timeout", self.session.authentication_timeout, least, most);
        let off_or_days = |span: TimeSpan| span.get() <= Duration::from_secs(24 * 86_400);
        let timeouts = [
            ("session.idle_session_timeout", self.session.idle_session_timeout),
            ("session.idle_in_transaction_session_timeout", self.session.idle_in_transaction_session_timeout),
            ("session.statement_timeout", self.session.statement_timeout),
            ("session.lock_timeout", self.session.lock_timeout),
        ];
        for (key, span) in timeouts {
            if !off_or_days(span) {
                findings.range(key, span, TimeSpan::default(), TimeSpan::from_secs(24 * 86_400));
            }
        }
        findings.range("runtime.sql_threads", self.runtime.sql_threads, 0, 256);
        findings.range("runtime.consensus_threads", self.runtime.consensus_threads, 0, 64);
        if let Err(error) = tracing_subscriber::EnvFilter::builder().parse(&self.logging.filter) {
            let (found, reason) = (self.logging.filter.clone(), error.to_string());
            findings.0.push(ConfigProblem::LogFilter { found, reason });
        }
    }

    fn validate_security(&self, findings: &mut Findings) {
        let tls = &self.tls;
        findings.pair(("tls.certificate_file", &tls.certificate_file), ("tls.key_file", &tls.key_file));
        findings.pair(
            ("tls.interconnect_ca_file", &tls.interconnect_ca_file),
            ("tls.interconnect_certificate_file", &tls.interconnect_certificate_file),
        );
        findings.pair(
            ("tls.interconnect_certificate_file", &tls.interconnect_certificate_file),
            ("tls.interconnect_key_file", &tls.interconnect_key_file),
        );
        if self.auth.rules.is_empty() {
            findings.0.push(ConfigProblem::NoAuthRule);
        }
        for (at, rule) in self.auth.rules.iter().enumerate() {
            if rule.from != "all" && rule.network().is_none() {
                findings.0.push(ConfigProblem::AuthNetwork { number: at + 1, found: rule.from.clone() });
            }
        }
    }
}

impl AuthRule {
    /// The rule's network as address and length of its prefix in bits; nothing for `all` and for what is no
    /// network. An address without a prefix is that one address.
    pub fn network(&self) -> Option<(IpAddr, u8)> {
        let (address, prefix) = match self.from.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (self.from.as_str(), None),
        };
        let address: IpAddr = address.parse().ok()?;
        let longest = if address.is_ipv4() { 32 } else { 128 };
        let prefix = match prefix {
            Some(prefix) => prefix.parse().ok().filter(|bits| *bits <= longest)?,
            None => longest,
        };
        Some((address, prefix))
    }
}
