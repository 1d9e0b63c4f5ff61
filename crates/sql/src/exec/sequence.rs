//! Numbers of sequences.
//!
//! ```text
//!   stored (catalog::keys::sequence)   how far numbers are taken: on a majority before any of them is shown
//!   live   (Sequences, at the leader)  which of the taken numbers are given out
//! ```
//!
//! The leader takes numbers in blocks, each with one write beside the transaction that needs it
//! ([`Transaction::put_aside`]), and gives them out from memory. What is left of a block when the leadership ends is
//! never given out: gaps, but no number twice. A block grows while the one before it did not last long, so that a bulk
//! load does not write for each few rows, and shrinks again; of a sequence with few numbers it stays small.
//!
//! The live position counts only while the stored row is byte for byte the one that it belongs to; each write draws a
//! random number, so a row that was refused, or replaced by another leader or by `setval`, is told apart. Whoever
//! takes a number has read that row: if its write is refused, all who hold numbers of it fall with it.

use std::collections::HashMap;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use parking_lot::Mutex;
use rustydb_txn::Transaction;
use rustydb_types::datatype::BaseType;
use rustydb_types::ids::Oid;

use crate::catalog::temporary::Numbers;
use crate::catalog::{SequenceDescriptor, keys};
use crate::error::{SqlError, SqlState};

/// The smallest and the largest block.
const BLOCK_MIN: i64 = 32;
const BLOCK_MAX: i64 = 8192;
/// One block takes no more than this share of a sequence, unless that is less than the smallest block.
const SHARE: i64 = 1024;
/// A block that lasted less is followed by one twice as large, one that lasted longer by one half as large; microseconds.
const BLOCK_LASTS: i64 = 100_000;
/// Sequences whose live position is kept; beyond it all begin with new blocks.
const LIVE_COUNT_MAX: usize = 4096;
/// The format of a stored position.
const FORMAT: u8 = 1;

/// Where a sequence stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The last number.
    pub last: i64,
    /// Whether that number was given out, or is the next one.
    pub is_called: bool,
}

impl Position {
    fn encode(self, random: u64) -> Bytes {
        let mut out = BytesMut::with_capacity(18);
        out.put_u8(FORMAT);
        out.put_u8(u8::from(self.is_called));
        out.put_i64(self.last);
        out.put_u64(random);
        out.freeze()
    }

    fn decode(mut bytes: &[u8]) -> Result<Self, SqlError> {
        let damaged = || SqlError::new(SqlState::DATA_CORRUPTED, "the position of a sequence is malformed");
        if bytes.try_get_u8().map_err(|_| damaged())? != FORMAT {
            return Err(damaged());
        }
        let is_called = bytes.try_get_u8().map_err(|_| damaged())? != 0;
        Ok(Self { is_called, last: bytes.try_get_i64().map_err(|_| damaged())? })
    }

    /// Where a sequence stands of which nothing is stored.
    const fn first(sequence: &SequenceDescriptor) -> Self {
        Self { last: sequence.start, is_called: false }
    }
}

/// What is given out of the last block.
#[derive(Debug)]
struct Live {
    /// The stored row that took the block.
    row: Bytes,
    last: i64,
    is_called: bool,
    /// Numbers of the block that are left behind `last`.
    left: i64,
    /// How large the block was to be.
    block: i64,
    /// When it was taken; microseconds.
    taken: i64,
}

/// The live positions of the sequences of one database at this node.
#[derive(Debug, Default)]
pub struct Sequences {
    /// By mark.
    live: Mutex<HashMap<u64, Live>>,
}

/// Under which the position of the sequence is stored that numbers of temporary objects are taken from. Those of other
/// sequences are random.
const TEMPORARY_MARK: u64 = 0;
/// Numbers of temporary objects that are taken at a time.
const TEMPORARY_BLOCK: i64 = 1024;

impl Numbers for Sequences {
    fn next_number(&self, txn: &Transaction, random: u64) -> Result<u32, SqlError> {
        let (first, last) = (Oid::FIRST_TEMPORARY.get().into(), Oid::LAST_TEMPORARY.get().into());
        let sequence = SequenceDescriptor {
            oid: Oid::INVALID,
            schema: Oid::INVALID,
            name: String::new(),
            owner: Oid::INVALID,
            acl: None,
            data_type: BaseType::Int8.oid(),
            start: first,
            increment: 1,
            min: first,
            max: last,
            cache: TEMPORARY_BLOCK,
            // Whatever had the first ones is long gone by then, and storages that are not are passed over.
            cycle: true,
            mark: TEMPORARY_MARK,
            owned_by: None,
        };
        let number = self.next(&sequence, txn, random, 0)?;
        u32::try_from(number).map_err(|_| SqlError::internal("a temporary object has no number"))
    }
}

impl Sequences {
    /// The next number. `random` is new each time; `now` is any clock's, in microseconds.
    ///
    /// # Errors
    /// 2200H at the end of the sequence; those of the store.
    pub fn next(
        &self,
        sequence: &SequenceDescriptor,
        txn: &Transaction,
        random: u64,
        now: i64,
    ) -> Result<i64, SqlError> {
        let key = keys::sequence(sequence.mark);
        // Held throughout: writers of one row are kept apart by it. Nothing is waited for meanwhile.
        let mut lives = self.live.lock();
        let stored = txn.get_aside(&key)?;
        let live = lives.get_mut(&sequence.mark).filter(|live| Some(&live.row) == stored.as_ref());
        let mut block = BLOCK_MIN;
        if let Some(live) = live {
            if live.left > 0 {
                live.last = live.last.saturating_add(sequence.increment);
                live.left -= 1;
                live.is_called = true;
                return Ok(live.last);
            }
            let is_fast = (0..BLOCK_LASTS).contains(&now.saturating_sub(live.taken));
            block = if is_fast { live.block.saturating_mul(2) } else { live.block / 2 };
            block = block
                .clamp(BLOCK_MIN, BLOCK_MAX)
                .min((room(sequence, sequence.start) / SHARE).max(BLOCK_MIN));
        }
        let position = stored.as_deref().map_or(Ok(Position::first(sequence)), Position::decode)?;
        let first = following(sequence, position)?;
        let count = room(sequence, first).min(block.max(sequence.cache));
        let last = i128::from(first) + i128::from(sequence.increment) * i128::from(count - 1);
        let last = i64::try_from(last).map_err(|_| SqlError::internal("a block of numbers is too large"))?;
        let row = Position { last, is_called: true }.encode(random);
        txn.put_aside(Bytes::copy_from_slice(&key), row.clone())?;
        if lives.len() >= LIVE_COUNT_MAX {
            lives.clear();
        }
        lives.insert(
            sequence.mark,
            Live { row, last: first, is_called: true, left: count - 1, block, taken: now },
        );
        Ok(first)
    }

    /// Lets a sequence stand at `position`, which is within its bounds.
    ///
    /// # Errors
    /// Those of the store.
    pub fn set(
        &self,
        sequence: &SequenceDescriptor,
        position: Position,
        txn: &Transaction,
        random: u64,
    ) -> Result<(), SqlError> {
        let mut lives = self.live.lock();
        lives.remove(&sequence.mark);
        txn.put_aside(Bytes::copy_from_slice(&keys::sequence(sequence.mark)), position.encode(random))?;
        Ok(())
    }

    /// Where a sequence stands: at the node that gives out its numbers the last one, elsewhere the last one that is
    /// taken.
    ///
    /// # Errors
    /// Those of the store.
    pub fn position(&self, sequence: &SequenceDescriptor, txn: &Transaction) -> Result<Position, SqlError> {
        let lives = self.live.lock();
        let stored = txn.get_aside(&keys::sequence(sequence.mark))?;
        let live = lives.get(&sequence.mark).filter(|live| Some(&live.row) == stored.as_ref());
        match (live, stored) {
            (Some(live), _) => Ok(Position { last: live.last, is_called: live.is_called }),
            (None, Some(stored)) => Position::decode(&stored),
            (None, None) => Ok(Position::first(sequence)),
        }
    }
}

/// The number behind a position.
fn following(sequence: &SequenceDescriptor, position: Position) -> Result<i64, SqlError> {
    if !position.is_called {
        return Ok(position.last);
    }
    let ascends = sequence.increment > 0;
    match position.last.checked_add(sequence.increment) {
        Some(next) if sequence.min <= next && next <= sequence.max => Ok(next),
        _ if sequence.cycle => Ok(if ascends { sequence.min } else { sequence.max }),
        _ => {
            let (what, bound) = if ascends { ("maximum", sequence.max) } else { ("minimum", sequence.min) };
            let message =
                format!("nextval: reached {what} value of sequence \"{}\" ({bound})", sequence.name);
            Err(SqlError::new(SqlState::SEQUENCE_GENERATOR_LIMIT_EXCEEDED, message))
        }
    }
}

/// How many numbers there are from `first` to the end of the sequence, itself included.
fn room(sequence: &SequenceDescriptor, first: i64) -> i64 {
    let bound = if sequence.increment > 0 { sequence.max } else { sequence.min };
    let steps = (i128::from(bound) - i128::from(first)) / i128::from(sequence.increment);
    i64::try_from(steps.max(0)).unwrap_or(i64::MAX).saturating_add(1)
}

#[cfg(test)]
mod tests {
    use rustydb_env::Env;
    use rustydb_txn::{Access, Isolation, LocalKv, TxnOptions};
    use rustydb_types::ids::{Incarnation, Oid, RequestId, SessionId};

    use super::*;

    fn sequence(start: i64, increment: i64, (min, max): (i64, i64)) -> SequenceDescriptor {
        SequenceDescriptor {
            oid: Oid::new(20_000),
            schema: Oid::new(2200),
            name: "s".into(),
            owner: Oid::new(10),
            acl: None,
            data_type: 20,
            start,
            increment,
            min,
            max,
            cache: 1,
            cycle: false,
            mark: 1,
            owned_by: None,
        }
    }

    #[test]
    fn a_position_survives_being_stored() {
        for position in [Position { last: i64::MIN, is_called: true }, Position { last: 7, is_called: false }]
        {
            assert_eq!(Position::decode(&position.encode(9)).unwrap(), position);
        }
        assert!(Position::decode(&[]).is_err());
        assert!(Position::decode(&[9; 18]).is_err());
    }

    #[test]
    fn the_ends_of_the_number_range_are_reached_and_not_passed() {
        let up = sequence(1, 1, (1, i64::MAX));
        let at = |last| Position { last, is_called: true };
        assert_eq!(following(&up, at(i64::MAX - 1)).unwrap(), i64::MAX);
        assert!(following(&up, at(i64::MAX)).is_err());
        assert_eq!(room(&up, i64::MAX), 1);
        assert_eq!(room(&sequence(1, i64::MAX, (1, i64::MAX)), 1), 1);
        let down = sequence(-1, -2, (i64::MIN, -1));
        assert_eq!(following(&down, at(i64::MIN + 2)).unwrap(), i64::MIN);
        assert!(following(&down, at(i64::MIN + 1)).is_err());
        assert_eq!(room(&down, i64::MIN), 1);
        assert_eq!(room(&sequence(i64::MIN, 1, (i64::MIN, i64::MAX)), i64::MIN), i64::MAX);
        let cycling = SequenceDescriptor { cycle: true, ..sequence(2, 2, (1, 6)) };
        assert_eq!(following(&cycling, at(6)).unwrap(), 1);
    }

    #[tokio::test]
    async fn a_block_counts_only_while_nobody_has_written_another_position() {
        let dir = tempfile::tempdir().unwrap();
        let local =
            LocalKv::in_memory(&Env::os(), dir.path().into(), std::time::Duration::from_millis(1)).unwrap();
        let request = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
        let options = TxnOptions { isolation: Isolation::ReadCommitted, access: Access::ReadWrite, request };
        let txn = local.kv().begin(options).await.unwrap();
        let sequence = sequence(1, 1, (1, i64::MAX));
        // Two leaderships, each with what it has in memory.
        let (first, second) = (Sequences::default(), Sequences::default());
        let mut random = 0;
        let mut next = |of: &Sequences| {
            random += 1;
            of.next(&sequence, &txn, random, 0).unwrap()
        };
        assert_eq!((next(&first), next(&first)), (1, 2));
        assert_eq!((next(&second), next(&second)), (33, 34));
        assert_eq!(next(&first), 65);
        second.set(&sequence, Position { last: 500, is_called: false }, &txn, 1_000).unwrap();
        assert_eq!(first.position(&sequence, &txn).unwrap().last, 500);
        assert_eq!((next(&first), next(&first)), (500, 501));
    }
}
