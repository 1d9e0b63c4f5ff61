//! When a leadership may move without cost: a new leader knows nothing of the transactions that are open at the old one,
//! and they fail.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rustydb_env::{Env, Instant};
use rustydb_txn::KvStore;

/// How long a group is watched for a moment in which only short transactions are open.
const PATIENCE: Duration = Duration::from_secs(1);
/// Pause between two looks.
const STEP: Duration = Duration::from_millis(20);
/// Locks that are looked at; more of them are no calm moment.
const LOCKS_MAX: usize = 10_000;

/// The transactions of a group that hold locks, or wait for them, as they were seen to come.
struct Watch {
    begun: Instant,
    /// When each was seen first; absent for those that were there when the watch began.
    seen: BTreeMap<u64, Option<Instant>>,
}

impl Watch {
    fn new(open: &BTreeSet<u64>, now: Instant) -> Self {
        Self { begun: now, seen: open.iter().map(|transaction| (*transaction, None)).collect() }
    }

    /// Whether all that are open have come a moment ago. The moment grows while the watch goes on, for groups in which
    /// transactions are always under way.
    fn is_calm(&mut self, open: &BTreeSet<u64>, now: Instant) -> bool {
        self.seen.retain(|transaction, _| open.contains(transaction));
        for transaction in open {
            self.seen.entry(*transaction).or_insert(Some(now));
        }
        let moment = STEP + now.saturating_since(self.begun) / 8;
        self.seen.values().all(|since| since.is_some_and(|since| now.saturating_since(since) < moment))
    }
}

fn open(store: &KvStore) -> Option<BTreeSet<u64>> {
    let locks = store.locks(LOCKS_MAX);
    (locks.len() < LOCKS_MAX).then(|| locks.iter().map(|lock| lock.transaction).collect())
}

/// Waits for a moment in which the leadership of a store's group may move; false when there is none for a while.
pub(super) async fn calm_moment(store: &KvStore, env: &Env) -> bool {
    let begun = env.now();
    let Some(mut watch) = open(store).map(|open| Watch::new(&open, begun)) else { return false };
    loop {
        let now = env.now();
        if open(store).is_some_and(|open| watch.is_calm(&open, now)) {
            return true;
        }
        if now.saturating_since(begun) >= PATIENCE {
            return false;
        }
        env.sleep(STEP).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_transactions_let_a_leadership_move_and_a_long_one_keeps_it() {
        let now = |millis| Instant::ORIGIN + Duration::from_millis(millis);
        let set = |transactions: &[u64]| transactions.iter().copied().collect::<BTreeSet<u64>>();
        let mut idle = Watch::new(&set(&[]), now(0));
        assert!(idle.is_calm(&set(&[]), now(0)));
        // How old those are that were there before is not known.
        let mut long = Watch::new(&set(&[1]), now(0));
        for millis in (0..2000).step_by(20) {
            assert!(!long.is_calm(&set(&[1, millis + 2]), now(millis)));
        }
        assert!(long.is_calm(&set(&[9999]), now(2000)));
        // One that came while it was watched grows old, too.
        let mut later = Watch::new(&set(&[1]), now(0));
        assert!(later.is_calm(&set(&[2]), now(20)));
        assert!(!later.is_calm(&set(&[2]), now(60)));
        assert!(!later.is_calm(&set(&[2, 3]), now(500)));
        assert!(later.is_calm(&set(&[3]), now(520)));
    }
}
