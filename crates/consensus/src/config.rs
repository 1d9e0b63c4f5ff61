//! How Raft groups behave. Checked once by whoever reads a configuration file; trusted inside.

use std::time::Duration;

/// Timing and bounds of the groups of a node. All nodes of a cluster should have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsensusConfig {
    /// A leader without other traffic sends a heartbeat this often. Default 50 ms.
    pub heartbeat_interval: Duration,
    /// A follower campaigns after the leader's lease has run out and a random time between this and
    /// `election_timeout_max` more. Default 200 ms.
    pub election_timeout_min: Duration,
    /// See `election_timeout_min`; it also is the length of the leader's lease. Default 400 ms.
    pub election_timeout_max: Duration,
    /// An append that is unanswered for so long ends its stream, which is then opened anew. Default 2 s: longer
    /// than a slow disk needs.
    pub append_timeout: Duration,
    /// Appends that one stream keeps unanswered. Default 64; at the bound, the stream waits.
    pub append_window: usize,
    /// Bytes of entries in one append; a single larger entry goes alone. Default 1 MiB.
    pub append_bytes_max: usize,
    /// Entries in one append. Default 4096.
    pub append_entries_max: u64,
    /// Proposals of one group that are not applied yet. Default 100,000; beyond, proposals are refused.
    pub uncommitted_entries_max: usize,
    /// Bytes of proposals of one group that are not applied yet. Default 100 MB; beyond, proposals are refused.
    pub uncommitted_bytes_max: usize,
    /// Bytes applied since the last snapshot after which the next is taken and the log purged; also how far behind the
    /// end of the log, which all groups share, an entry of a group may lie before it is purged. Default 256 MiB.
    pub snapshot_log_bytes: u64,
    /// Entries that stay in the log behind a snapshot, as far as `snapshot_log_bytes` allows, so that a follower that
    /// was away for a moment needs none. Default 10,000.
    pub entries_kept_behind_snapshot: u64,
    /// Size of the pieces of a snapshot. Default 512 KiB.
    pub snapshot_chunk_bytes: usize,
    /// Pieces of a snapshot that are unanswered at one time. Default 4; at the bound, the sender waits.
    pub snapshot_window: usize,
    /// A snapshot of which no piece is answered for so long is given up. Default 30 s.
    pub snapshot_timeout: Duration,
    /// A change of members or a transfer of leadership that takes longer is given up. Default 10 s.
    pub change_timeout: Duration,
    /// A read that waits for a majority gives up after this. Default 2 s.
    pub read_timeout: Duration,
    /// How often the leadership of a group is compared with its preferred leader, and its log with
    /// `snapshot_log_bytes`. Default 1 s.
    pub upkeep_interval: Duration,
    /// How often a member compares the hash of its state with those of the others, if something was applied since.
    /// Default 10 s.
    pub compare_interval: Duration,
}

impl Default for ConsensusConfig {
    fn default() -> Self {
        Self {
            heartbeat_interval: Duration::from_millis(50),
            election_timeout_min: Duration::from_millis(200),
            election_timeout_max: Duration::from_millis(400),
            append_timeout: Duration::from_secs(2),
            append_window: 64,
            append_bytes_max: 1 << 20,
            append_entries_max: 4096,
            uncommitted_entries_max: 100_000,
            uncommitted_bytes_max: 100_000_000,
            snapshot_log_bytes: 256 << 20,
            entries_kept_behind_snapshot: 10_000,
            snapshot_chunk_bytes: 512 << 10,
            snapshot_window: 4,
            snapshot_timeout: Duration::from_secs(30),
            change_timeout: Duration::from_secs(10),
            read_timeout: Duration::from_secs(2),
            upkeep_interval: Duration::from_secs(1),
            compare_interval: Duration::from_secs(10),
        }
    }
}

/// A relation between two values that does not hold.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The election timeouts are not a range.
    #[error("election_timeout_min ({min:?}) must be below election_timeout_max ({max:?})")]
    ElectionTimeouts {
        /// The lower bound.
        min: Duration,
        /// The upper bound.
        max: Duration,
    },
    /// A follower would campaign between two heartbeats.
    #[error("heartbeat_interval ({heartbeat:?}) must be at most a third of election_timeout_min ({min:?})")]
    Heartbeat {
        /// The interval.
        heartbeat: Duration,
        /// The lower bound of the election timeout.
        min: Duration,
    },
    /// A bound that must be positive is zero.
    #[error("{name} must be positive")]
    Zero {
        /// The field.
        name: &'static str,
    },
}

impl ConsensusConfig {
    /// Checks the relations between the values.
    ///
    /// # Errors
    /// The first relation that does not hold.
    pub fn validate(&self) -> Result<(), ConfigError> {
        let (min, max) = (self.election_timeout_min, self.election_timeout_max);
        if min >= max {
            return Err(ConfigError::ElectionTimeouts { min, max });
        }
        if self.heartbeat_interval * 3 > min {
            return Err(ConfigError::Heartbeat { heartbeat: self.heartbeat_interval, min });
        }
        let positive = [
            ("heartbeat_interval", self.heartbeat_interval.as_millis() > 0),
            ("append_window", self.append_window > 0),
            ("append_bytes_max", self.append_bytes_max > 0),
            ("append_entries_max", self.append_entries_max > 0),
            ("uncommitted_entries_max", self.uncommitted_entries_max > 0),
            ("uncommitted_bytes_max", self.uncommitted_bytes_max > 0),
            ("snapshot_chunk_bytes", self.snapshot_chunk_bytes > 0),
            ("snapshot_window", self.snapshot_window > 0),
            ("upkeep_interval", !self.upkeep_interval.is_zero()),
            ("compare_interval", !self.compare_interval.is_zero()),
        ];
        match positive.into_iter().find(|(_, holds)| !holds) {
            Some((name, _)) => Err(ConfigError::Zero { name }),
            None => Ok(()),
        }
    }

    /// For how long after a heartbeat a follower votes for nobody else.
    #[must_use]
    pub const fn leader_lease(&self) -> Duration {
        self.election_timeout_max
    }

    /// For how long after a quorum's last answer was asked for the leader may read without asking again: the lease
    /// less a tenth, for clocks that do not run alike.
    #[must_use]
    pub fn read_lease(&self) -> Duration {
        self.leader_lease() - self.leader_lease() / 10
    }

    /// openraft's form.
    pub(crate) fn to_openraft(&self, cluster_name: String) -> openraft::Config {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        openraft::Config {
            cluster_name,
            heartbeat_interval: millis(self.heartbeat_interval),
            election_timeout_min: millis(self.election_timeout_min),
            election_timeout_max: millis(self.election_timeout_max),
            install_snapshot_timeout: millis(self.snapshot_timeout),
            max_payload_entries: self.append_entries_max,
            // Followers that lag are served from the log as long as the log has what they need.
            replication_lag_threshold: u64::MAX / 2,
            // Taken by bytes, in `group::upkeep`.
            snapshot_policy: openraft::SnapshotPolicy::Never,
            max_in_snapshot_log_to_keep: self.entries_kept_behind_snapshot,
            enable_pre_vote: Some(true),
            enable_leader_restore: Some(false),
            // A retry every 50 ms at first: a restarted peer must not wait for its log longer than an election.
            backoff: "50ms 100ms 200ms ...400ms".to_owned(),
            ..openraft::Config::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_hold_and_openraft_takes_them() {
        let config = ConsensusConfig::default();
        assert_eq!(config.validate(), Ok(()));
        assert!(config.to_openraft("test".to_owned()).validate().is_ok());
        assert_eq!(config.read_lease(), Duration::from_millis(360));
    }

    #[test]
    fn every_broken_relation_is_named() {
        let mut config =
            ConsensusConfig { election_timeout_min: Duration::from_millis(400), ..Default::default() };
        assert!(matches!(config.validate(), Err(ConfigError::ElectionTimeouts { .. })));
        config = ConsensusConfig { heartbeat_interval: Duration::from_millis(70), ..Default::default() };
        assert!(matches!(config.validate(), Err(ConfigError::Heartbeat { .. })));
        config = ConsensusConfig { snapshot_window: 0, ..Default::default() };
        assert_eq!(config.validate(), Err(ConfigError::Zero { name: "snapshot_window" }));
    }
}
