//! When a member may campaign again, and how long it waits for votes.
//!
//! openraft waits for votes no longer than the shortest election timeout, and campaigns again after the next. A disk that
//! needs longer than that to keep a vote would never let anybody be elected: each campaign ends the one before. So a
//! member rests after a vote when its disk was slow, or when several votes in a row brought no leader: the longer the
//! slower the disk and the more there were, and for a random part of it, so that one comes first. Candidates wait as
//! long for their votes, and never less than for an append. On a disk that is fast enough nobody rests after the first
//! elections.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use parking_lot::Mutex;
use rustydb_env::{Bug, Instant, ambient, sync::watch};

use crate::{config::ConsensusConfig, type_config::Vote};

/// Votes without a leader after which a member rests whatever its disk does.
const FRUITLESS_MAX: u32 = 3;
/// How many times as long as its disk took for a vote a member rests: the other voters' disks, and the new leader's own
/// vote as a leader, come before its first heartbeat.
const REST_PER_VOTE: u32 = 4;
/// The longest rest: enough for disks that take up to 2.5 s for a vote.
const REST_MAX: Duration = Duration::from_secs(10);
/// The longest rest for votes in vain on a fast disk, in longest election timeouts.
const FRUITLESS_REST_MAX: u32 = 8;

/// Settles anew whether the member campaigns.
type Settle = Box<dyn Fn() + Send + Sync>;

/// What the votes of one group at this node tell about the next.
pub(crate) struct Campaigns {
    config: Arc<ConsensusConfig>,
    lately: Mutex<Lately>,
    changes: watch::Sender<()>,
    settle: OnceLock<Settle>,
    /// Whether the member campaigns.
    is_allowed: AtomicBool,
}

#[derive(Clone, Copy, Default)]
struct Lately {
    /// Votes since a leader was heard of.
    fruitless: u32,
    rest: Duration,
    rests_until: Option<Instant>,
}

impl Campaigns {
    pub(crate) fn new(config: Arc<ConsensusConfig>) -> Self {
        Self {
            config,
            lately: Mutex::default(),
            changes: watch::channel(()).0,
            settle: OnceLock::new(),
            is_allowed: AtomicBool::new(false),
        }
    }

    /// Has `settle` called after each vote before openraft goes on, which would campaign at once.
    pub(crate) fn settled_by(&self, settle: Settle) {
        // Once, when the group starts.
        let _first = self.settle.set(settle);
    }

    /// Notes whether the member campaigns from now on.
    pub(crate) fn allow(&self, is_allowed: bool) {
        self.is_allowed.store(is_allowed, Ordering::Release);
    }

    /// Whether the member campaigns now, so that answers to its pre-votes count.
    pub(crate) fn is_allowed(&self) -> bool {
        self.is_allowed.load(Ordering::Acquire)
    }

    /// Notes a vote that was made durable, and how long that took.
    pub(crate) fn note(&self, vote: &Vote, took: Duration) {
        let rest = {
            let mut lately = self.lately.lock();
            if vote.committed {
                *lately = Lately::default();
            } else if !ambient::has_bug(Bug::CampaignsAtOnce) {
                lately.fruitless = lately.fruitless.saturating_add(1);
                lately.rest = rest_after(&self.config, lately.fruitless, took);
                let half = u64::try_from(lately.rest.as_nanos() / 2).unwrap_or(u64::MAX);
                lately.rests_until = (half > 0).then(|| {
                    let least = Duration::from_nanos(half);
                    ambient::now() + least + Duration::from_nanos(ambient::rng().range(0..half))
                });
            }
            lately.rest
        };
        if !rest.is_zero() {
            let term = vote.leader_id.term;
            tracing::debug!(term, ?took, ?rest, "votes take long or bring no leader; resting");
        }
        if let Some(settle) = self.settle.get() {
            settle();
        }
        self.changes.send_modify(|()| ());
    }

    /// Before this moment the member does not campaign.
    pub(crate) fn rests_until(&self) -> Option<Instant> {
        self.lately.lock().rests_until
    }

    /// How long to wait for a vote. One that comes late still counts if its campaign goes on, and the disk that takes long
    /// may be the voter's.
    pub(crate) fn patience(&self) -> Duration {
        if ambient::has_bug(Bug::CampaignsAtOnce) {
            return self.config.election_timeout_min;
        }
        self.lately.lock().rest.max(self.config.append_timeout)
    }

    /// How long to wait for the answer to a pre-vote, which is asked for anew after each election timeout.
    pub(crate) fn pre_vote_patience(&self) -> Duration {
        self.config.election_timeout_max * 2
    }

    /// Ticks when there is something to look at.
    pub(crate) fn watch(&self) -> watch::Receiver<()> {
        self.changes.subscribe()
    }
}

/// The longest rest after so many votes without a leader, of which the last took so long to keep.
fn rest_after(config: &ConsensusConfig, fruitless: u32, took: Duration) -> Duration {
    let by_disk = if took * 2 > config.election_timeout_min {
        took.saturating_mul(REST_PER_VOTE)
    } else {
        Duration::ZERO
    };
    let by_number = match fruitless.checked_sub(FRUITLESS_MAX) {
        Some(more) => {
            let timeouts = 2u32.saturating_pow(more.min(16) + 1).min(FRUITLESS_REST_MAX);
            config.election_timeout_max.saturating_mul(timeouts)
        }
        None => Duration::ZERO,
    };
    by_disk.max(by_number).min(REST_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn millis(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    #[test]
    fn nobody_rests_after_the_first_votes_on_a_fast_disk() {
        let config = ConsensusConfig::default();
        for fruitless in 1..3 {
            assert_eq!(rest_after(&config, fruitless, millis(100)), Duration::ZERO);
        }
    }

    #[test]
    fn rests_grow_with_the_disk_and_with_votes_in_vain_up_to_a_bound() {
        let config = ConsensusConfig::default();
        assert_eq!(rest_after(&config, 1, millis(300)), millis(1200));
        let rests: Vec<Duration> =
            (3..6).map(|fruitless| rest_after(&config, fruitless, millis(1))).collect();
        assert_eq!(rests, [millis(800), millis(1600), millis(3200)]);
        for fruitless in [8, 100, u32::MAX] {
            assert_eq!(rest_after(&config, fruitless, millis(1)), millis(3200));
        }
        assert_eq!(rest_after(&config, 1, Duration::from_secs(100)), REST_MAX);
    }

    #[tokio::test]
    async fn a_leader_ends_the_rest() {
        let config = Arc::new(ConsensusConfig::default());
        let campaigns = Campaigns::new(config);
        let began = ambient::now();
        campaigns.note(&Vote::new(1, 1), millis(300));
        let until = campaigns.rests_until().unwrap();
        assert!(until >= began + millis(600), "rests for half of it at least");
        assert!(until <= ambient::now() + millis(1200), "and for all of it at most");
        campaigns.note(&Vote::new_committed(1, 1), millis(300));
        assert_eq!(campaigns.rests_until(), None);
        assert_eq!(campaigns.patience(), Duration::from_secs(2));
        campaigns.note(&Vote::new(2, 1), Duration::from_secs(1));
        assert_eq!(campaigns.patience(), Duration::from_secs(4));
    }
}
