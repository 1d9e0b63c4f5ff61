//! Which keys a staged transaction may hold, coarsely: for each group of keys the least and the greatest.
//!
//! Keys are grouped by their first bytes, which tell tables and indexes apart, so that a transaction over two
//! tables does not seem to hold what lies between them. A key that is not covered is certainly not held; that
//! spares a look into the engine for every new row of a load in ascending order.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::layer::ScanBounds;

/// First bytes that keys of one group have in common.
const GROUP_BYTES: usize = 5;
/// Groups kept apart; beyond it all keys are one group.
const GROUPS_MAX: usize = 1024;

/// Keys of one group from which on it pays to look whether there is anything between them.
const RUN_KEYS: usize = 8;

/// Cuts items in ascending order of key into runs of one group, each with its bounds if it is long enough to be worth
/// a look at the whole of it. Items that are not in ascending order are one run without bounds.
pub(crate) fn runs<'i, T>(
    items: &'i [T],
    key: impl Fn(&T) -> &Bytes + Copy + 'i,
) -> impl Iterator<Item = (&'i [T], Option<ScanBounds>)> {
    let ascending = items.is_sorted_by(|a, b| key(a) < key(b));
    let group = move |item: &T| key(item).slice(..key(item).len().min(GROUP_BYTES));
    items.chunk_by(move |a, b| !ascending || group(a) == group(b)).map(move |run| {
        let bounds = match run {
            [first, .., last] if ascending && run.len() >= RUN_KEYS => {
                Some(ScanBounds::including(key(first), key(last)))
            }
            _ => None,
        };
        (run, bounds)
    })
}

/// See the module.
#[derive(Clone, Debug, Default)]
pub(crate) struct KeyRanges {
    /// Group to its least and greatest key.
    groups: BTreeMap<Bytes, (Bytes, Bytes)>,
    /// Whether there were too many groups to keep apart: then there is one, of the empty name.
    joined: bool,
}

impl KeyRanges {
    /// Takes in a key.
    pub(crate) fn add(&mut self, key: &Bytes) {
        let group = self.group_of(key);
        match self.groups.get_mut(&group[..]) {
            Some((first, last)) => {
                if *key < *first {
                    *first = key.clone();
                } else if *key > *last {
                    *last = key.clone();
                }
            }
            None => {
                self.groups.insert(group, (key.clone(), key.clone()));
                if self.groups.len() > GROUPS_MAX {
                    self.join();
                }
            }
        }
    }

    /// Takes in everything that another set covers.
    pub(crate) fn extend(&mut self, other: &KeyRanges) {
        for (first, last) in other.groups.values() {
            self.add(first);
            self.add(last);
        }
    }

    /// Whether a key may be held.
    pub(crate) fn covers(&self, key: &[u8]) -> bool {
        let group = if self.joined { &[][..] } else { key.get(..GROUP_BYTES).unwrap_or(key) };
        self.groups.get(group).is_some_and(|(first, last)| first[..] <= *key && *key <= last[..])
    }

    /// The ranges, both ends included.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &(Bytes, Bytes)> {
        self.groups.values()
    }

    fn group_of(&self, key: &Bytes) -> Bytes {
        if self.joined { Bytes::new() } else { key.slice(..key.len().min(GROUP_BYTES)) }
    }

    fn join(&mut self) {
        self.joined = true;
        let ranges = std::mem::take(&mut self.groups);
        for (first, last) in ranges.into_values() {
            self.add(&first);
            self.add(&last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_kept_apart_and_what_lies_beyond_is_not_covered() {
        let mut ranges = KeyRanges::default();
        for key in ["tab-a3", "tab-a7", "tab-c1", "x"] {
            ranges.add(&key.into());
        }
        for covered in ["tab-a3", "tab-a5", "tab-c1", "x"] {
            assert!(ranges.covers(covered.as_bytes()), "{covered}");
        }
        for free in ["tab-a8", "tab-b5", "tab-c2", "w", ""] {
            assert!(!ranges.covers(free.as_bytes()), "{free}");
        }
        let mut whole = KeyRanges::default();
        whole.extend(&ranges);
        assert_eq!(whole.iter().collect::<Vec<_>>(), ranges.iter().collect::<Vec<_>>());
    }

    #[test]
    fn long_runs_in_order_have_bounds() {
        let keys =
            |text: &str| text.split(' ').map(|it| Bytes::copy_from_slice(it.as_bytes())).collect::<Vec<_>>();
        let long = keys("aaaaa1 aaaaa2 aaaaa3 aaaaa4 aaaaa5 aaaaa6 aaaaa7 aaaaa8 bbbbb1 c");
        let found: Vec<_> =
            runs(&long, |key| key).map(|(run, bounds)| (run.len(), bounds.is_some())).collect();
        assert_eq!(found, [(8, true), (1, false), (1, false)]);
        let disorder = keys("aaaaa2 aaaaa1 aaaaa3 aaaaa4 aaaaa5 aaaaa6 aaaaa7 aaaaa8 bbbbb1");
        let found: Vec<_> =
            runs(&disorder, |key| key).map(|(run, bounds)| (run.len(), bounds.is_some())).collect();
        assert_eq!(found, [(9, false)]);
    }

    #[test]
    fn too_many_groups_become_one() {
        let mut ranges = KeyRanges::default();
        for number in 0..5000_u32 {
            ranges.add(&Bytes::from(number.to_be_bytes().repeat(2)));
        }
        assert_eq!(ranges.iter().count(), 1);
        assert!(ranges.covers(&4000_u32.to_be_bytes().repeat(2)));
        assert!(!ranges.covers(&5000_u32.to_be_bytes().repeat(2)));
    }
}
