//! Keys of the database's key-value store; the map of them is drawn in the parent module.

use rustydb_types::ids::{Incarnation, Oid, SessionId};

use super::descriptor::StorageId;

/// First byte of every catalog key.
const CATALOG: u8 = 0x01;
/// First byte of every key of a row or of an index entry.
const DATA: u8 = 0x02;
/// First byte of every key of a sequence's position.
const SEQUENCE: u8 = 0x03;

/// First byte of every key of what the catalog knows of a session's temporary objects.
const TEMPORARY: u8 = 0x04;

/// The row that changes with every committed change of schema.
pub const VERSION: [u8; 2] = [CATALOG, 0x00];
/// The row that holds the next object identifier and the next storage number.
pub const ALLOCATOR: [u8; 2] = [CATALOG, 0x01];
/// Everything in the catalog, from the first key to the end.
pub const ALL: (&[u8], &[u8]) = (&[CATALOG], &[CATALOG + 1]);

/// The kinds of catalog rows that belong to one object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A schema.
    Schema = 2,
    /// A table.
    Table = 3,
    /// What ANALYZE found out about a table.
    Statistics = 4,
    /// A comment.
    Comment = 5,
    /// A dropped storage whose rows are still to be swept.
    Sweep = 6,
    /// A sequence, without its position.
    Sequence = 7,
    /// A view.
    View = 8,
    /// A type that a user made.
    Type = 9,
    /// What ALTER DEFAULT PRIVILEGES said.
    DefaultAcl = 10,
}

/// The key of the row of one object.
#[must_use]
pub fn object(kind: Kind, number: u32) -> Vec<u8> {
    let mut key = vec![CATALOG, kind as u8];
    key.extend_from_slice(&number.to_be_bytes());
    key
}

/// The number of the object that a row of [`object`] belongs to.
#[must_use]
pub fn object_number(key: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*key.get(2..)?.first_chunk()?))
}

/// The key of a comment on an object of a class (`pg_class` and so on) or on one of its columns.
#[must_use]
pub fn comment(class: u32, object: Oid, sub: u32) -> Vec<u8> {
    let mut key = vec![CATALOG, Kind::Comment as u8];
    key.extend_from_slice(&class.to_be_bytes());
    key.extend_from_slice(&object.get().to_be_bytes());
    key.extend_from_slice(&sub.to_be_bytes());
    key
}

/// All rows of one kind: from the first key to the end.
#[must_use]
pub fn kind_range(kind: Kind) -> (Vec<u8>, Vec<u8>) {
    (vec![CATALOG, kind as u8], vec![CATALOG, kind as u8 + 1])
}

/// What the keys begin with of the temporary objects of a session.
#[must_use]
pub fn temporary_prefix((incarnation, session): (Incarnation, SessionId)) -> [u8; 17] {
    let mut key = [TEMPORARY; 17];
    let numbers = [incarnation.get(), session.get()];
    for (to, from) in key[1..].iter_mut().zip(numbers.iter().flat_map(|number| number.to_be_bytes())) {
        *to = from;
    }
    key
}

/// The key that stands for a catalog key among the temporary objects of a session.
#[must_use]
pub fn temporary(owner: (Incarnation, SessionId), key: &[u8]) -> Vec<u8> {
    [temporary_prefix(owner).as_slice(), key.get(1..).unwrap_or_default()].concat()
}

/// The catalog key that a key of [`temporary`] stands for, and the session.
#[must_use]
pub fn of_temporary(key: &[u8]) -> Option<((Incarnation, SessionId), Vec<u8>)> {
    let (prefix, rest) = key.split_first_chunk::<17>()?;
    let (incarnation, session) = prefix.get(1..)?.split_first_chunk::<8>()?;
    let session = SessionId::new(u64::from_be_bytes(session.try_into().ok()?));
    let incarnation = Incarnation::new(u64::from_be_bytes(*incarnation));
    Some(((incarnation, session), [&[CATALOG], rest].concat()))
}

/// The keys of the temporary objects of all sessions: from the first to the end.
#[must_use]
pub fn temporary_range() -> (Vec<u8>, Vec<u8>) {
    (vec![TEMPORARY], vec![TEMPORARY + 1])
}

/// The key of the position of the sequence with this mark.
#[must_use]
pub fn sequence(mark: u64) -> [u8; 9] {
    let mut key = [SEQUENCE; 9];
    if let Some(rest) = key.last_chunk_mut::<8>() {
        *rest = mark.to_be_bytes();
    }
    key
}

/// What the keys of one storage begin with.
#[must_use]
pub fn storage_prefix(storage: StorageId) -> [u8; 5] {
    let [a, b, c, d] = storage.get().to_be_bytes();
    [DATA, a, b, c, d]
}

/// The storage that a key is in; `None` for keys of the catalog.
#[must_use]
pub fn storage_of(key: &[u8]) -> Option<StorageId> {
    match key {
        [DATA, a, b, c, d, ..] => Some(StorageId::new(u32::from_be_bytes([*a, *b, *c, *d]))),
        _ => None,
    }
}

/// All keys of one storage: from the first key to the end.
#[must_use]
pub fn storage_range(storage: StorageId) -> (Vec<u8>, Vec<u8>) {
    let start = storage_prefix(storage).to_vec();
    let end = after_prefix(&start);
    (start, end)
}

/// The smallest key that is larger than every key with this prefix. Every prefix used here begins with a small byte,
/// so there is one; an all-ones prefix gives the empty key.
#[must_use]
pub fn after_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    while let Some(last) = end.pop() {
        if last < u8::MAX {
            end.push(last + 1);
            break;
        }
    }
    end
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_prefix_and_nothing_of_its_neighbour() {
        let (start, end) = storage_range(StorageId::new(0x00ff_ffff));
        assert_eq!(storage_of(&start), Some(StorageId::new(0x00ff_ffff)));
        assert_eq!(storage_of(&VERSION), None);
        assert!(start < end);
        let inside = [storage_prefix(StorageId::new(0x00ff_ffff)).as_slice(), &[0xff; 9]].concat();
        assert!(start <= inside && inside < end);
        assert_eq!(end.len(), 2, "carried bytes are cut: {end:?}");
        assert!(storage_prefix(StorageId::new(0x0100_0000)).as_slice() >= end.as_slice());
    }
}
