//! What is numbered and not yet applied: the writes in flight, as read-write transactions at the leader see them.
//!
//! A reader looks here first and then in the generations; apply writes to the generation first and then removes
//! from here. So a version on its way is found in one place or in both, never in none.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use bytes::Bytes;
use parking_lot::RwLock;
use rustydb_types::ids::Version;
use smallvec::SmallVec;

use crate::layer::{Found, Item, ItemRun, Limits, ScanBounds};

type Chain = SmallVec<[(Version, Option<Bytes>); 1]>;

/// The writes in flight.
#[derive(Default)]
pub(crate) struct Overlay {
    chains: RwLock<BTreeMap<Bytes, Chain>>,
    /// Staged transactions whose commit is in flight, with its version.
    staged: RwLock<BTreeMap<Version, Version>>,
    has_staged: AtomicBool,
    /// Keys in the map, so that the common empty case costs one load.
    keys: AtomicUsize,
    /// The highest version that is numbered.
    numbered: AtomicU64,
}

impl Overlay {
    /// The highest numbered version; readers compare it with the applied one.
    pub(crate) const fn numbered(&self) -> &AtomicU64 {
        &self.numbered
    }

    /// Adds the writes of one commit and makes them visible.
    pub(crate) fn number(&self, version: Version, writes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>) {
        let mut chains = self.chains.write();
        for (key, value) in writes {
            chains.entry(key).or_default().push((version, value));
        }
        self.keys.store(chains.len(), Ordering::Release);
        self.numbered.store(version.get(), Ordering::Release);
    }

    /// As [`number`](Overlay::number), for the commit of a staged transaction.
    pub(crate) fn number_staged(
        &self,
        version: Version,
        staged: Version,
        writes: impl IntoIterator<Item = (Bytes, Option<Bytes>)>,
    ) {
        self.staged.write().insert(staged, version);
        self.has_staged.store(true, Ordering::Release);
        self.number(version, writes);
    }

    /// The staged transactions whose commit is in flight and visible at `at`. `noted` learns of them, whether or
    /// not the reader then finds a row of theirs.
    pub(crate) fn staged_visible(&self, at: Version, noted: &AtomicU64) -> Vec<(Version, Version)> {
        if !self.has_staged.load(Ordering::Acquire) {
            return Vec::new();
        }
        let staged = self.staged.read();
        let visible = staged.iter().filter(|(_, commit)| **commit <= at);
        visible
            .map(|(id, commit)| {
                noted.fetch_max(commit.get(), Ordering::AcqRel);
                (*id, *commit)
            })
            .collect()
    }

    /// Whether the commit of a staged transaction is in flight.
    pub(crate) fn is_committing(&self, id: Version) -> bool {
        self.has_staged.load(Ordering::Acquire) && self.staged.read().contains_key(&id)
    }

    fn retain_staged(&self, keep: impl Fn(Version) -> bool) {
        if self.has_staged.load(Ordering::Acquire) {
            let mut staged = self.staged.write();
            staged.retain(|_, commit| keep(*commit));
            self.has_staged.store(!staged.is_empty(), Ordering::Release);
        }
    }

    /// Removes what was applied.
    pub(crate) fn applied<'a>(&self, keys: impl IntoIterator<Item = &'a Bytes>, applied: Version) {
        self.retain_staged(|commit| commit > applied);
        if self.keys.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut chains = self.chains.write();
        for key in keys {
            if let Some(chain) = chains.get_mut(key) {
                chain.retain(|(version, _)| *version > applied);
                if chain.is_empty() {
                    chains.remove(key);
                }
            }
        }
        self.keys.store(chains.len(), Ordering::Release);
    }

    /// Drops every version from `from` on: they were refused.
    pub(crate) fn drop_from(&self, from: Version) {
        self.retain_staged(|commit| commit < from);
        let mut chains = self.chains.write();
        chains.retain(|_, chain| {
            chain.retain(|(version, _)| *version < from);
            !chain.is_empty()
        });
        self.keys.store(chains.len(), Ordering::Release);
        let last = from.previous().unwrap_or(Version::ZERO);
        self.numbered.fetch_min(last.get(), Ordering::AcqRel);
    }

    /// Forgets everything; `applied` is the highest version there is.
    pub(crate) fn clear(&self, applied: Version) {
        self.retain_staged(|_| false);
        let mut chains = self.chains.write();
        chains.clear();
        self.keys.store(0, Ordering::Release);
        self.numbered.store(applied.get(), Ordering::Release);
    }

    /// The version in flight that a reader at `at` sees. `noted` learns how far the reader has read, before the
    /// version can be dropped.
    pub(crate) fn get(&self, key: &[u8], at: Version, noted: &AtomicU64) -> Option<Found> {
        if self.keys.load(Ordering::Acquire) == 0 {
            return None;
        }
        let chains = self.chains.read();
        let (version, value) = visible(chains.get(key)?, at)?;
        noted.fetch_max(version.get(), Ordering::AcqRel);
        Some(Found { version: *version, value: value.clone() })
    }

    /// The versions in flight in a range.
    pub(crate) fn run(&self, bounds: &ScanBounds, at: Version, limits: Limits, noted: &AtomicU64) -> ItemRun {
        if self.keys.load(Ordering::Acquire) == 0 {
            return ItemRun::default();
        }
        let chains = self.chains.read();
        let items = bounds.of_map(&chains).filter_map(|(key, chain)| {
            let (version, value) = visible(chain, at)?;
            noted.fetch_max(version.get(), Ordering::AcqRel);
            Some(Item { key: key.clone(), version: *version, value: value.clone() })
        });
        ItemRun::collect(items, limits)
    }
}

fn visible(chain: &Chain, at: Version) -> Option<&(Version, Option<Bytes>)> {
    chain.iter().rev().find(|(version, _)| *version <= at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_drops_what_was_numbered_from_there_on() {
        let overlay = Overlay::default();
        let noted = AtomicU64::new(0);
        for version in 1..=3 {
            overlay.number(Version::new(version), [("k".into(), Some(version.to_string().into()))]);
        }
        assert_eq!(overlay.get(b"k", Version::new(2), &noted).unwrap().version, Version::new(2));
        overlay.drop_from(Version::new(2));
        assert_eq!(overlay.get(b"k", Version::MAX, &noted).unwrap().value, Some("1".into()));
        assert_eq!(overlay.numbered().load(Ordering::Relaxed), 1);
        overlay.applied([&"k".into()], Version::new(1));
        assert_eq!(overlay.get(b"k", Version::MAX, &noted), None);
        assert_eq!(noted.load(Ordering::Relaxed), 2);
    }
}
