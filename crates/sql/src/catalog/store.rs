//! Reading and changing the catalog within a transaction.

use std::collections::VecDeque;
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_txn::{Direction, LockWait, RowLock, ScanRequest, Transaction};
use rustydb_types::ids::Oid;
use serde::{Deserialize, Serialize};

use super::descriptor::{self, SchemaDescriptor, StorageId, TableDescriptor};
use super::keys::{self, Kind};
use super::sequence::SequenceDescriptor;
use super::snapshot::{self, CatalogSnapshot};
use super::statistics::TableStatistics;
use super::temporary::{self, Numbers};
use crate::error::{SqlError, SqlState};

/// Catalogs that are kept, so that a transaction with changes of its own does not cost the others theirs.
const KEPT_COUNT: usize = 4;
/// As many for sessions with temporary objects, of which each has its own.
const KEPT_WITH_TEMPORARY_COUNT: usize = 64;

/// What is given out next.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Allocator {
    next_oid: u32,
    next_storage: u32,
}

impl Default for Allocator {
    fn default() -> Self {
        Self { next_oid: Oid::FIRST_USER.get(), next_storage: 1 }
    }
}

impl From<descriptor::DescriptorError> for SqlError {
    fn from(error: descriptor::DescriptorError) -> Self {
        Self::new(SqlState::DATA_CORRUPTED, error.to_string())
    }
}

/// The last catalogs of a database, by version.
#[derive(Debug, Default)]
pub struct CatalogCache {
    kept: Mutex<VecDeque<Arc<CatalogSnapshot>>>,
    /// Those with temporary objects of a session.
    kept_with_temporary: Mutex<VecDeque<Arc<CatalogSnapshot>>>,
}

impl CatalogCache {
    /// The catalog as the transaction's snapshot has it, with its own changes of earlier commands.
    ///
    /// # Errors
    /// Storage errors; XX001 when a descriptor cannot be read.
    pub fn get(&self, txn: &Transaction) -> Result<Arc<CatalogSnapshot>, SqlError> {
        let base = self.base(txn)?;
        let Some(own) = temporary::version(txn)? else { return Ok(base) };
        let version = [base.version(), own.as_ref()].concat();
        if let Some(found) = self.kept_with_temporary.lock().iter().find(|kept| kept.version() == version) {
            return Ok(Arc::clone(found));
        }
        let mut all = base.with_version(version);
        temporary::each(txn, |key, value| absorb(&mut all, key, value))?;
        all.settle_temporary();
        let all = Arc::new(all);
        let mut kept = self.kept_with_temporary.lock();
        kept.push_front(Arc::clone(&all));
        kept.truncate(KEPT_WITH_TEMPORARY_COUNT);
        Ok(all)
    }

    /// What all sessions see.
    fn base(&self, txn: &Transaction) -> Result<Arc<CatalogSnapshot>, SqlError> {
        let version = txn.get(&keys::VERSION)?.unwrap_or_default();
        if let Some(found) = self.kept.lock().iter().find(|kept| kept.version() == version.as_ref()) {
            return Ok(Arc::clone(found));
        }
        let snapshot = Arc::new(load(txn, version.to_vec())?);
        let mut kept = self.kept.lock();
        kept.push_front(Arc::clone(&snapshot));
        kept.truncate(KEPT_COUNT);
        Ok(snapshot)
    }
}

/// Reads the whole catalog.
fn load(txn: &Transaction, version: Vec<u8>) -> Result<CatalogSnapshot, SqlError> {
    let mut snapshot = CatalogSnapshot::empty(version);
    let (mut start, mut end) = (Bytes::from_static(keys::ALL.0), Bytes::from_static(keys::ALL.1));
    loop {
        let request =
            ScanRequest { start, end, direction: Direction::Forward, max_bytes: 64 << 10, max_rows: 1024 };
        let chunk = txn.scan(request)?;
        for (key, value) in chunk.iter() {
            absorb(&mut snapshot, key, value)?;
        }
        match chunk.rest() {
            Some(rest) => (start, end) = rest,
            None => {
                snapshot.settle_types()?;
                return Ok(snapshot);
            }
        }
    }
}

fn absorb(snapshot: &mut CatalogSnapshot, key: &[u8], value: &[u8]) -> Result<(), SqlError> {
    let number = |at: usize| {
        let bytes = key.get(at..at + 4).and_then(|bytes| bytes.try_into().ok());
        bytes.map(u32::from_be_bytes).unwrap_or_default()
    };
    match key.get(1).copied() {
        Some(kind) if kind == Kind::Schema as u8 => {
            match descriptor::decode::<Option<SchemaDescriptor>>(value)? {
                Some(schema) => snapshot.add_schema(schema),
                None => snapshot.remove_schema(Oid::new(number(2))),
            }
        }
        Some(kind) if kind == Kind::Table as u8 => {
            snapshot.add_table(descriptor::decode::<TableDescriptor>(value)?)
        }
        Some(kind) if kind == Kind::Sequence as u8 => {
            snapshot.add_sequence(descriptor::decode::<SequenceDescriptor>(value)?);
        }
        Some(kind) if kind == Kind::View as u8 => {
            snapshot.add_view(descriptor::decode::<super::ViewDescriptor>(value)?);
        }
        Some(kind) if kind == Kind::Type as u8 => {
            snapshot.add_type(descriptor::decode::<super::TypeDescriptor>(value)?);
        }
        Some(kind) if kind == Kind::DefaultAcl as u8 => {
            snapshot.add_default_acl(descriptor::decode::<super::acl::DefaultAcl>(value)?);
        }
        Some(kind) if kind == Kind::Statistics as u8 => {
            snapshot.add_statistics(Oid::new(number(2)), descriptor::decode::<TableStatistics>(value)?);
        }
        Some(kind) if kind == Kind::Comment as u8 => {
            let text = String::from_utf8_lossy(value).into_owned();
            snapshot.add_comment(number(2), Oid::new(number(6)), number(10), text);
        }
        _ => {}
    }
    Ok(())
}

/// The catalog's version as it is now, under the locks that the transaction has, in the form of
/// [`CatalogSnapshot::version`].
///
/// # Errors
/// Storage errors.
pub fn latest_version(txn: &Transaction) -> Result<Vec<u8>, SqlError> {
    let base = txn.get_latest(&keys::VERSION)?.unwrap_or_default();
    let own = temporary::latest_version(txn)?.unwrap_or_default();
    Ok([base.as_ref(), own.as_ref()].concat())
}

/// The catalog's version as the transaction's snapshot has it.
///
/// # Errors
/// Storage errors.
pub fn seen_version(txn: &Transaction) -> Result<Vec<u8>, SqlError> {
    let base = txn.get(&keys::VERSION)?.unwrap_or_default();
    let own = temporary::version(txn)?.unwrap_or_default();
    Ok([base.as_ref(), own.as_ref()].concat())
}

/// Changes the catalog within a transaction. Changes of one database follow each other: the version row is locked
/// until the transaction ends. Those of temporary objects are in nobody's way: each session has its own.
pub struct CatalogWriter<'a> {
    /// The transaction.
    pub txn: &'a mut Transaction,
    counter: u64,
    token: u64,
    /// Gives the numbers of what is made, if that is temporary.
    numbers: Option<&'a dyn Numbers>,
}

impl<'a> CatalogWriter<'a> {
    /// Locks the catalog against other changes; `token` is 64 random bits.
    ///
    /// # Errors
    /// Lock errors and storage errors.
    pub async fn begin(txn: &'a mut Transaction, wait: LockWait, token: u64) -> Result<Self, SqlError> {
        txn.lock_row(&keys::VERSION, RowLock::ForUpdate, wait).await?;
        txn.lock_row(&keys::ALLOCATOR, RowLock::ForUpdate, wait).await?;
        let counter = match txn.get_latest(&keys::VERSION)? {
            Some(version) => version.get(..8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_be_bytes),
            None => 0,
        };
        Ok(Self { txn, counter: counter.wrapping_add(1), token, numbers: None })
    }

    /// A writer for the session's temporary objects, whose numbers `numbers` gives; `token` is 64 random bits.
    ///
    /// # Errors
    /// Lock errors and storage errors.
    pub async fn begin_temporary(
        txn: &'a mut Transaction,
        wait: LockWait,
        token: u64,
        numbers: &'a dyn Numbers,
    ) -> Result<Self, SqlError> {
        let key = temporary::version_key(txn);
        txn.lock_row(&key, RowLock::ForUpdate, wait).await?;
        Ok(Self { txn, counter: 0, token, numbers: Some(numbers) })
    }

    /// Gives the catalog another version. Each write does, so that equal versions mean equal catalogs also between
    /// the steps of one transaction; the counter alone would be the same after a rollback and another change.
    async fn mark(&mut self, is_temporary: bool) -> Result<(), SqlError> {
        self.token = self.token.wrapping_add(1);
        let version = [self.counter.to_be_bytes(), self.token.to_be_bytes()].concat();
        if !is_temporary && self.numbers.is_some() {
            return Err(SqlError::internal("a change of temporary objects changes others"));
        }
        if !is_temporary {
            return Ok(self.txn.put(Bytes::from_static(&keys::VERSION), version.into())?);
        }
        let key = temporary::version_key(self.txn);
        self.txn.lock_row(&key, RowLock::ForUpdate, LockWait::Forever).await?;
        Ok(self.txn.put(key.into(), version.into())?)
    }

    fn allocate(&mut self, take: impl FnOnce(&mut Allocator) -> u32) -> Result<u32, SqlError> {
        let mut allocator = match self.txn.get_latest(&keys::ALLOCATOR)? {
            Some(stored) => descriptor::decode(&stored)?,
            None => Allocator::default(),
        };
        let taken = take(&mut allocator);
        if taken >= Oid::FIRST_TEMPORARY.get() {
            let message = "the database has no numbers left for new objects";
            return Err(SqlError::new(SqlState::PROGRAM_LIMIT_EXCEEDED, message)
                .with_hint("Move its content to a new database."));
        }
        self.txn.put(Bytes::from_static(&keys::ALLOCATOR), descriptor::encode(&allocator)?.into())?;
        Ok(taken)
    }

    /// A new object identifier.
    ///
    /// # Errors
    /// Storage errors.
    pub fn new_oid(&mut self) -> Result<Oid, SqlError> {
        if let Some(numbers) = self.numbers {
            self.token = self.token.wrapping_add(1);
            return numbers.next_number(self.txn, self.token).map(Oid::new);
        }
        self.allocate(|allocator| {
            allocator.next_oid += 1;
            allocator.next_oid - 1
        })
        .map(Oid::new)
    }

    /// A number for a storage without rows: neither of a table of long ago nor of one that is still to be swept.
    fn unused_storage(&mut self, numbers: &dyn Numbers) -> Result<StorageId, SqlError> {
        loop {
            self.token = self.token.wrapping_add(1);
            let storage = StorageId::new(numbers.next_number(self.txn, self.token)?);
            let (start, end) = keys::storage_range(storage);
            let (start, end, direction) = (start.into(), end.into(), Direction::Forward);
            let rows = self.txn.scan(ScanRequest { start, end, direction, max_bytes: 1, max_rows: 1 })?;
            if rows.iter().next().is_none() {
                return Ok(storage);
            }
        }
    }

    /// A new storage number. Until the commit its rows are this transaction's alone and need no locks.
    ///
    /// # Errors
    /// Storage errors.
    pub fn new_storage(&mut self) -> Result<StorageId, SqlError> {
        let storage = match self.numbers {
            Some(numbers) => self.unused_storage(numbers)?,
            None => StorageId::new(self.allocate(|allocator| {
                allocator.next_storage += 1;
                allocator.next_storage - 1
            })?),
        };
        // Nobody else learns of it before the commit.
        self.txn.make_private(Bytes::copy_from_slice(&keys::storage_prefix(storage)));
        Ok(storage)
    }

    /// Writes a row of an object, by whose number is known where it belongs.
    async fn write(&mut self, object: Oid, key: Vec<u8>, value: Option<Vec<u8>>) -> Result<(), SqlError> {
        self.mark(object.is_temporary()).await?;
        let key = if object.is_temporary() { keys::temporary(temporary::owner(self.txn), &key) } else { key };
        self.txn.lock_row(&key, RowLock::ForUpdate, LockWait::Forever).await?;
        match value {
            Some(value) => self.txn.put(key.into(), value.into())?,
            None => self.txn.delete(key.into())?,
        }
        Ok(())
    }

    /// Writes a table's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_table(&mut self, table: &TableDescriptor) -> Result<(), SqlError> {
        let bytes = descriptor::encode_table(table)?;
        self.write(table.oid, keys::object(Kind::Table, table.oid.get()), Some(bytes)).await
    }

    /// Removes a table's descriptor, its statistics, and leaves its storages to be swept.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_table(&mut self, table: &TableDescriptor) -> Result<(), SqlError> {
        self.write(table.oid, keys::object(Kind::Table, table.oid.get()), None).await?;
        self.write(table.oid, keys::object(Kind::Statistics, table.oid.get()), None).await?;
        self.drop_storage(table.storage).await?;
        for index in table.indexes.iter().filter(|index| index.storage != table.storage) {
            self.drop_storage(index.storage).await?;
        }
        Ok(())
    }

    /// A new random number under which the position of a sequence is stored. Until the commit it is this transaction's
    /// alone.
    pub fn new_mark(&mut self, random: u64) -> u64 {
        self.txn.make_private(Bytes::copy_from_slice(&keys::sequence(random)));
        random
    }

    /// Writes a sequence's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_sequence(&mut self, sequence: &SequenceDescriptor) -> Result<(), SqlError> {
        let bytes = descriptor::encode(sequence)?;
        self.write(sequence.oid, keys::object(Kind::Sequence, sequence.oid.get()), Some(bytes)).await
    }

    /// Writes a view's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_view(&mut self, view: &super::ViewDescriptor) -> Result<(), SqlError> {
        self.write(view.oid, keys::object(Kind::View, view.oid.get()), Some(descriptor::encode(view)?)).await
    }

    /// Removes a view's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_view(&mut self, view: Oid) -> Result<(), SqlError> {
        self.write(view, keys::object(Kind::View, view.get()), None).await
    }

    /// Writes a type's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_type(&mut self, descriptor: &super::TypeDescriptor) -> Result<(), SqlError> {
        let bytes = descriptor::encode(descriptor)?;
        self.write(descriptor.oid, keys::object(Kind::Type, descriptor.oid.get()), Some(bytes)).await
    }

    /// Writes what ALTER DEFAULT PRIVILEGES said, or forgets it.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_default_acl(
        &mut self,
        oid: Oid,
        default: Option<&super::acl::DefaultAcl>,
    ) -> Result<(), SqlError> {
        let bytes = default.map(descriptor::encode).transpose()?;
        self.write(oid, keys::object(Kind::DefaultAcl, oid.get()), bytes).await
    }

    /// Removes a type's descriptor.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_type(&mut self, oid: Oid) -> Result<(), SqlError> {
        self.write(oid, keys::object(Kind::Type, oid.get()), None).await
    }

    /// Removes a sequence's descriptor and its position.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_sequence(&mut self, sequence: &SequenceDescriptor) -> Result<(), SqlError> {
        self.write(sequence.oid, keys::object(Kind::Sequence, sequence.oid.get()), None).await?;
        self.drop_position(sequence.mark).await
    }

    /// Removes the position that is stored under a mark.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_position(&mut self, mark: u64) -> Result<(), SqlError> {
        let key = keys::sequence(mark);
        self.txn.lock_row(&key, RowLock::ForUpdate, LockWait::Forever).await?;
        Ok(self.txn.delete(Bytes::copy_from_slice(&key))?)
    }

    /// Leaves a storage to be swept: see [`crate::exec::sweep`].
    ///
    /// # Errors
    /// Storage errors.
    pub async fn drop_storage(&mut self, storage: StorageId) -> Result<(), SqlError> {
        let key = keys::object(Kind::Sweep, storage.get());
        if !storage.is_temporary() {
            return self.write(Oid::INVALID, key, Some(Vec::new())).await;
        }
        // The sweep is told in one place of all; no catalog has changed by it.
        self.txn.lock_row(&key, RowLock::ForUpdate, LockWait::Forever).await?;
        Ok(self.txn.put(key.into(), Bytes::new())?)
    }

    /// Writes a schema's descriptor; `None` marks a built-in one as dropped.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_schema(&mut self, oid: Oid, schema: Option<&SchemaDescriptor>) -> Result<(), SqlError> {
        self.write(oid, keys::object(Kind::Schema, oid.get()), Some(descriptor::encode(&schema)?)).await
    }

    /// Writes what ANALYZE found out.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_statistics(&mut self, table: Oid, statistics: &TableStatistics) -> Result<(), SqlError> {
        let bytes = descriptor::encode(statistics)?;
        self.write(table, keys::object(Kind::Statistics, table.get()), Some(bytes)).await
    }

    /// Sets or removes a comment.
    ///
    /// # Errors
    /// Storage errors.
    pub async fn put_comment(
        &mut self,
        (class, object, sub): (u32, Oid, u32),
        text: Option<&str>,
    ) -> Result<(), SqlError> {
        // What the schema `public` is said to be is nowhere stored, so that there is no comment must be.
        let is_built_in = object == snapshot::PUBLIC && class == snapshot::CLASS_SCHEMA;
        let text = text.or(is_built_in.then_some(""));
        self.write(object, keys::comment(class, object, sub), text.map(|text| text.as_bytes().to_vec())).await
    }
}
