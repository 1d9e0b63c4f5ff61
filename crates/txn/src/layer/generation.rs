//! One generation: the versions that were applied between two freezes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use bytes::{BufMut, Bytes, BytesMut};
use parking_lot::RwLock;
use rustydb_types::ids::Version;
use smallvec::SmallVec;

/// The versions of one key in one generation, oldest first.
pub(crate) type Chain = SmallVec<[(Version, Option<Bytes>); 1]>;

/// The newest version of a chain that a reader at `at` sees.
pub(crate) fn chain_at(chain: &Chain, at: Version) -> Option<&(Version, Option<Bytes>)> {
    // A reader mostly wants the newest; a reader that lags looks for its place.
    match chain.last() {
        Some(newest) if newest.0 <= at => Some(newest),
        _ => {
            let after = chain.partition_point(|(version, _)| *version <= at);
            after.checked_sub(1).and_then(|index| chain.get(index))
        }
    }
}

/// The key of a provisional row: the number of its transaction, then the row's key.
pub(crate) fn staged_key(staged: Version, key: &[u8]) -> Bytes {
    let mut bytes = BytesMut::with_capacity(8 + key.len());
    bytes.put_u64(staged.get());
    bytes.put_slice(key);
    bytes.freeze()
}

/// A row of a staged transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Provisional {
    /// Which command of its transaction wrote it.
    pub(crate) command: u32,
    /// The value; `None` deletes the row.
    pub(crate) value: Option<Bytes>,
}

/// What a generation holds.
#[derive(Default)]
pub(crate) struct Rows {
    /// Versions by key.
    pub(crate) chains: BTreeMap<Bytes, Chain>,
    /// Provisional rows by [`staged_key`].
    pub(crate) staged: BTreeMap<Bytes, Provisional>,
    /// Staged transactions that were committed in this generation, and at which version.
    pub(crate) resolved: BTreeMap<Version, Version>,
}

/// The versions that were applied between two freezes. Only the active generation changes.
pub(crate) struct Generation {
    rows: RwLock<Rows>,
    size_bytes: AtomicUsize,
    has_resolved: AtomicBool,
    has_staged: AtomicBool,
    flushed: AtomicBool,
    /// Bytes of flushed generations that something still refers to.
    retained: Arc<AtomicUsize>,
}

/// What a version costs in memory beside its key and value.
const VERSION_OVERHEAD_BYTES: usize = 160;

impl Generation {
    pub(crate) fn new(retained: Arc<AtomicUsize>) -> Generation {
        Generation {
            rows: RwLock::default(),
            size_bytes: AtomicUsize::new(0),
            has_resolved: AtomicBool::new(false),
            has_staged: AtomicBool::new(false),
            flushed: AtomicBool::new(false),
            retained,
        }
    }

    pub(crate) fn read(&self) -> parking_lot::RwLockReadGuard<'_, Rows> {
        self.rows.read()
    }

    /// Adds versions and provisional rows. Called by apply only, with versions above all that are here.
    pub(crate) fn extend(
        &self,
        versions: impl IntoIterator<Item = (Bytes, Version, Option<Bytes>)>,
        staged: impl IntoIterator<Item = (Bytes, Provisional)>,
        resolved: impl IntoIterator<Item = (Version, Version)>,
    ) {
        let mut size = 0;
        let mut rows = self.rows.write();
        for (key, version, value) in versions {
            size += VERSION_OVERHEAD_BYTES + key.len() + value.as_ref().map_or(0, Bytes::len);
            rows.chains.entry(key).or_default().push((version, value));
        }
        for (key, row) in staged {
            size += VERSION_OVERHEAD_BYTES + key.len() + row.value.as_ref().map_or(0, Bytes::len);
            self.has_staged.store(true, Ordering::Release);
            rows.staged.insert(key, row);
        }
        for (transaction, version) in resolved {
            self.has_resolved.store(true, Ordering::Release);
            rows.resolved.insert(transaction, version);
        }
        drop(rows);
        self.size_bytes.fetch_add(size, Ordering::Relaxed);
    }

    pub(crate) fn size_bytes(&self) -> usize {
        self.size_bytes.load(Ordering::Relaxed)
    }

    /// Whether a staged transaction was committed in this generation.
    pub(crate) fn has_resolved(&self) -> bool {
        self.has_resolved.load(Ordering::Acquire)
    }

    /// Whether provisional rows are here.
    pub(crate) fn has_staged(&self) -> bool {
        self.has_staged.load(Ordering::Acquire)
    }

    /// The engine has everything of this generation: from now on it lives for old snapshots only.
    pub(crate) fn mark_flushed(&self) {
        if !self.flushed.swap(true, Ordering::AcqRel) {
            self.retained.fetch_add(self.size_bytes(), Ordering::AcqRel);
        }
    }
}

impl Drop for Generation {
    fn drop(&mut self) {
        if *self.flushed.get_mut() {
            self.retained.fetch_sub(*self.size_bytes.get_mut(), Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reader_finds_the_newest_version_it_may_see() {
        let chain: Chain = [2, 5, 9].into_iter().map(|v| (Version::new(v), None)).collect();
        let at = |v| chain_at(&chain, Version::new(v)).map(|(version, _)| version.get());
        assert_eq!(at(1), None);
        assert_eq!(at(2), Some(2));
        assert_eq!(at(8), Some(5));
        assert_eq!(at(9), Some(9));
        assert_eq!(at(100), Some(9));
    }

    #[test]
    fn a_flushed_generation_counts_as_retained_until_it_is_dropped() {
        let retained = Arc::new(AtomicUsize::new(0));
        let generation = Generation::new(Arc::clone(&retained));
        generation.extend([("k".into(), Version::new(1), Some("v".into()))], [], []);
        assert_eq!(retained.load(Ordering::Relaxed), 0);
        generation.mark_flushed();
        generation.mark_flushed();
        assert_eq!(retained.load(Ordering::Relaxed), generation.size_bytes());
        drop(generation);
        assert_eq!(retained.load(Ordering::Relaxed), 0);
    }
}
