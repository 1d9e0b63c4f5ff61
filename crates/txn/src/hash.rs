//! The state hash: a sum over everything that replicas must agree on.
//!
//! A sum of 128-bit hashes, so that a change costs the change and not the whole: the old row's share is taken off,
//! the new row's is added. The share of a row is `content(key, value) + version * place(key)`: so the shares of a
//! staged transaction can be summed before its version is known. Tombstones have no share.

use rustydb_types::ids::Version;
use xxhash_rust::xxh3::{xxh3_64, xxh3_128_with_seed};

use crate::outcomes::OutcomeRow;

const PLACE_SEED: u64 = 0x7275_7374_7964_6201;
const OUTCOME_SEED: u64 = 0x7275_7374_7964_6202;

/// The share of key and value.
pub(crate) fn content(key: &[u8], value: &[u8]) -> u128 {
    xxh3_128_with_seed(value, xxh3_64(key))
}

/// What is multiplied by the version.
pub(crate) fn place(key: &[u8]) -> u128 {
    xxh3_128_with_seed(key, PLACE_SEED)
}

/// The share of a row.
pub(crate) fn row(key: &[u8], version: Version, value: &[u8]) -> u128 {
    content(key, value).wrapping_add(place(key).wrapping_mul(u128::from(version.get())))
}

/// The share of an outcome.
pub(crate) fn outcome(key: &[u8], row: &OutcomeRow) -> u128 {
    xxh3_128_with_seed(&row.encode(), OUTCOME_SEED ^ xxh3_64(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_tell_keys_values_and_versions_apart() {
        let base = row(b"k", Version::new(1), b"v");
        assert_ne!(base, row(b"k", Version::new(2), b"v"));
        assert_ne!(base, row(b"k", Version::new(1), b"w"));
        assert_ne!(base, row(b"l", Version::new(1), b"v"));
    }

    #[test]
    fn a_version_can_be_added_later() {
        let staged = content(b"k", b"v").wrapping_add(place(b"k").wrapping_mul(9));
        assert_eq!(staged, row(b"k", Version::new(9), b"v"));
    }
}
