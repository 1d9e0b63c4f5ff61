//! Who may still add to the staged transactions of this leadership.
//!
//! A staged transaction is *live* while the transaction that opened it here may go on, and until its commit is
//! applied, since a commit that is refused may be submitted anew. The provisional rows of a live one may yet count:
//! whoever wants to write over them must wait for its end. Those of any other open one can never count, since its
//! commit is refused from then on: they are in nobody's way, and the sweep drops them.
//!
//! A transaction that has ended does not come back to life; so "not live" may be decided at any time and holds.
//! Entries are made and taken away under the lock of the sequencer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::RwLock;
use rustydb_types::ids::Version;
use smallvec::SmallVec;

use crate::core::TxnShared;
use crate::locks::TxnId;
use crate::ranges::KeyRanges;

struct Owner {
    shared: Arc<TxnShared>,
    /// The keys of all chunks numbered so far.
    keys: KeyRanges,
}

/// See the module.
#[derive(Default)]
pub(crate) struct Owners {
    owners: RwLock<BTreeMap<Version, Owner>>,
    /// Entries, so that the common empty case costs one load.
    count: AtomicUsize,
}

impl Owners {
    /// A chunk of the staged transaction `id` was numbered; the first one opens it.
    pub(crate) fn chunk(&self, id: Version, shared: &Arc<TxnShared>, keys: &KeyRanges) {
        let mut owners = self.owners.write();
        let fresh = || Owner { shared: Arc::clone(shared), keys: KeyRanges::default() };
        let owner = owners.entry(id).or_insert_with(fresh);
        if !Arc::ptr_eq(&owner.shared, shared) {
            // The opening chunk of another transaction was refused and its number given out again.
            *owner = fresh();
        }
        owner.keys.extend(keys);
        self.count.store(owners.len(), Ordering::Release);
    }

    /// Whether `shared` opened the staged transaction, and it is not committed.
    pub(crate) fn is_owner(&self, id: Version, shared: &Arc<TxnShared>) -> bool {
        self.owners.read().get(&id).is_some_and(|owner| Arc::ptr_eq(&owner.shared, shared))
    }

    /// Whether the staged transaction may yet be committed by a later entry.
    pub(crate) fn is_live(&self, id: Version) -> bool {
        self.owners.read().get(&id).is_some_and(|owner| owner.shared.check().is_ok())
    }

    /// A staged transaction was committed, or never opened.
    pub(crate) fn forget(&self, id: Version) {
        self.retain(|owned, _| owned != id);
    }

    /// Forgets those that have ended.
    pub(crate) fn forget_ended(&self) {
        self.retain(|_, owner| owner.shared.check().is_ok());
    }

    /// Forgets all: the leadership is over.
    pub(crate) fn clear(&self) {
        self.retain(|_, _| false);
    }

    fn retain(&self, keep: impl Fn(Version, &Owner) -> bool) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut owners = self.owners.write();
            owners.retain(|id, owner| keep(*id, owner));
            self.count.store(owners.len(), Ordering::Release);
        }
    }

    /// The live staged transactions of others than `txn` that may hold a row at `key`.
    pub(crate) fn others(&self, key: &[u8], txn: TxnId) -> SmallVec<[Version; 2]> {
        if self.count.load(Ordering::Acquire) == 0 {
            return SmallVec::new();
        }
        let owners = self.owners.read();
        let others = owners.iter().filter(|(_, owner)| owner.shared.id != txn);
        others
            .filter(|(_, owner)| owner.keys.covers(key) && owner.shared.check().is_ok())
            .map(|(id, _)| *id)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use rustydb_types::ids::Term;

    use super::*;

    #[test]
    fn only_a_live_owner_stands_in_the_way_of_others() {
        let owners = Owners::default();
        let shared = |id| Arc::new(TxnShared::new(id, Term::new(1), Version::ZERO));
        let (first, second) = (shared(1), shared(2));
        let mut keys = KeyRanges::default();
        keys.add(&"m".into());
        owners.chunk(Version::new(7), &first, &keys);
        assert!(owners.is_owner(Version::new(7), &first));
        assert!(!owners.is_owner(Version::new(7), &second));
        assert_eq!(owners.others(b"m", 2)[..], [Version::new(7)]);
        assert!(owners.others(b"m", 1).is_empty(), "its own rows are in nobody's way");
        assert!(owners.others(b"n", 2).is_empty());
        first.close();
        assert!(owners.others(b"m", 2).is_empty());
        assert!(!owners.is_live(Version::new(7)));
        owners.chunk(Version::new(7), &second, &keys);
        assert!(owners.is_live(Version::new(7)), "the number was given out again");
        owners.forget(Version::new(7));
        assert!(!owners.is_owner(Version::new(7), &second));
    }
}
