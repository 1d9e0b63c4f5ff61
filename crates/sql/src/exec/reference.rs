//! Foreign keys: keys that must be there, and rows that refer to keys that go away.
//!
//! ```text
//! a row is written ----> is its key there now? --yes--> its key is locked FOR KEY SHARE, done
//!                                              '-no---> asked again at the end of the statement
//! a key goes away -----> at the end of the statement: rows that refer to it are looked for in what is newest,
//!                        and refused or changed, which may make other keys go away
//! ```
//!
//! Whoever writes a row that refers holds its key FOR KEY SHARE; whoever deletes a key holds it FOR UPDATE and looks for
//! rows only then. So one of the two sees the other, whatever their snapshots are. What was found there early cannot go
//! away later in the same statement without being looked for.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use bytes::Bytes;
use rustydb_txn::{Direction, RowLock, ScanRequest, Transaction};
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::value::Value;

use super::database::ExecContext;
use super::deferred::{Question, Waiting};
use super::rows::{self, RowLayout};
use super::run::{RunState, row_size};
use super::text;
use super::write::TableWriter;
use crate::bind::from::column_type;
use crate::bind::privilege::Authority;
use crate::catalog::{ReferentialAction, TableDescriptor, keys};
use crate::error::{SqlError, SqlState};
use crate::plan::Row;
use crate::plan::references::{Link, References};
use crate::scalar::{CastContext, EvalContext, Expr, coerce};

/// Keys that are known to be there and locked; more are forgotten.
const KNOWN_COUNT_MAX: usize = 4096;
/// Rows that a search for rows that refer reads at a time.
const CHUNK_ROWS: usize = 512;

/// A row whose key was not there when it was written.
struct Absent {
    link: usize,
    /// Where the row is.
    row: Bytes,
}

/// A key that went away.
#[derive(Clone)]
struct Gone {
    link: usize,
    /// The key, encoded as that of the parent's index.
    key: Vec<u8>,
    /// The columns that are referred to, as they were.
    old: Row,
    /// What they are now; none when the row was deleted.
    new: Option<Row>,
}

/// Keeps the foreign keys that one statement touches.
pub(crate) struct Referee {
    references: Arc<References>,
    state: RunState,
    absent: Vec<Absent>,
    gone: VecDeque<Gone>,
    known: HashSet<(usize, Vec<u8>)>,
}

impl Referee {
    /// One for a statement; `None` when it touches no foreign key.
    pub(crate) fn new(references: Option<&Arc<References>>, context: &ExecContext<'_>) -> Option<Self> {
        let pool = Arc::clone(context.database.work_memory());
        Some(Self {
            references: Arc::clone(references?),
            state: RunState::new(context.work_mem, pool, Arc::clone(&context.interrupts)),
            absent: Vec::new(),
            gone: VecDeque::new(),
            known: HashSet::new(),
        })
    }

    /// A row was inserted, at `stored`.
    ///
    /// # Errors
    /// 23503 for a key of MATCH FULL that is NULL in part, lock errors, storage errors.
    pub(crate) async fn inserted(
        &mut self,
        table: &TableDescriptor,
        row: &[Value],
        stored: &Bytes,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let references = Arc::clone(&self.references);
        for place in references.outgoing.get(&table.oid).into_iter().flatten() {
            if let Some(link) = references.links.get(*place) {
                self.written((*place, link), row, stored, txn, context).await?;
            }
        }
        Ok(())
    }

    /// A row was updated, and is at `stored` now.
    ///
    /// # Errors
    /// As [`Referee::inserted`].
    pub(crate) async fn updated(
        &mut self,
        table: &TableDescriptor,
        (old, new): (&[Value], &[Value]),
        stored: &Bytes,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let references = Arc::clone(&self.references);
        for place in references.outgoing.get(&table.oid).into_iter().flatten() {
            let Some(link) = references.links.get(*place) else { continue };
            if own_key(link, old) != own_key(link, new) {
                self.written((*place, link), new, stored, txn, context).await?;
            }
        }
        self.left(table, old, Some(new), context)
    }

    /// A row was deleted.
    ///
    /// # Errors
    /// 53200 when too many keys went away.
    pub(crate) fn deleted(
        &mut self,
        table: &TableDescriptor,
        old: &[Value],
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        self.left(table, old, None, context)
    }

    fn left(
        &mut self,
        table: &TableDescriptor,
        old: &[Value],
        new: Option<&[Value]>,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let references = Arc::clone(&self.references);
        for place in references.incoming.get(&table.oid).into_iter().flatten() {
            let Some(link) = references.links.get(*place) else { continue };
            let Some(index) = link.parent.indexes.get(link.parent_index) else { continue };
            let (key, has_null) = rows::index_key(&link.parent, index, old)?;
            if has_null {
                continue;
            }
            if let Some(new) = new
                && rows::index_key(&link.parent, index, new)?.0 == key
            {
                continue;
            }
            let columns = |row: &[Value]| -> Row {
                let value = |column: &crate::plan::references::LinkColumn| row.get(column.parent).cloned();
                link.columns.iter().map(|column| value(column).unwrap_or(Value::Null)).collect()
            };
            let gone = Gone { link: *place, key, old: columns(old), new: new.map(columns) };
            let action = if new.is_none() { link.key.on_delete } else { link.key.on_update };
            let mut deferred = context.deferred.lock();
            if action == ReferentialAction::NoAction && deferred.is_deferred(&link.key) {
                let names = (link.key.oid, link.parent.oid);
                deferred.put_off(names, Question::Key(gone.key), gone.old, context)?;
                continue;
            }
            drop(deferred);
            self.state.charge(gone.size())?;
            self.gone.push_back(gone);
        }
        Ok(())
    }

    /// Looks whether the key of a row is there, and remembers the row when it is not.
    async fn written(
        &mut self,
        (place, link): (usize, &Link),
        row: &[Value],
        stored: &Bytes,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let referred = parent_key(link, row, &context.eval(&[]))?;
        if !matches!(referred, Referred::Nothing) {
            let mut deferred = context.deferred.lock();
            if deferred.is_deferred(&link.key) {
                let names = (link.key.oid, link.child.oid);
                return deferred.put_off(names, Question::Row(stored.clone()), Row::new(), context);
            }
        }
        match referred {
            Referred::Nothing => Ok(()),
            Referred::Key(key) => {
                if !self.is_there((place, link), key, false, txn, context).await? {
                    self.remember(place, stored)?;
                }
                Ok(())
            }
            // Refused at the end of the statement, as a key that is not there.
            Referred::Mixed | Referred::Impossible => self.remember(place, stored),
        }
    }

    fn remember(&mut self, link: usize, stored: &Bytes) -> Result<(), SqlError> {
        self.state.charge(size_of::<Absent>() + stored.len())?;
        self.absent.push(Absent { link, row: stored.clone() });
        Ok(())
    }

    /// Whether a key is there; it is locked then, so that it stays. Unless it is the last time, a key that is not there
    /// is not locked.
    async fn is_there(
        &mut self,
        (place, link): (usize, &Link),
        key: Vec<u8>,
        is_last: bool,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<bool, SqlError> {
        let entry = (place, key);
        if self.known.contains(&entry) {
            return Ok(true);
        }
        let stored = parent_entry(link, &entry.1);
        if !is_last && txn.get_latest(&stored)?.is_none() {
            // Not locked: it may be asked for only at the commit, and others may put the key there meanwhile.
            return Ok(false);
        }
        txn.lock_row(&stored, RowLock::ForKeyShare, context.lock_wait).await?;
        let found = txn.get_latest(&stored)?.is_some();
        if found {
            if self.known.len() >= KNOWN_COUNT_MAX {
                self.known.clear();
            }
            self.known.insert(entry);
        }
        Ok(found)
    }

    /// The end of the statement: what is left to be asked is asked, and the actions are done.
    ///
    /// # Errors
    /// 23503, whatever the constraints of the tables raise that actions write to, lock errors, storage errors.
    pub(crate) async fn finish(
        &mut self,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let references = Arc::clone(&self.references);
        loop {
            while let Some(first) = self.gone.front().map(|gone| (gone.link, gone.new.is_none())) {
                let mut batch = Vec::new();
                self.gone.retain_mut(|gone| {
                    let is_alike = (gone.link, gone.new.is_none()) == first;
                    if is_alike {
                        batch.push(Gone {
                            old: std::mem::take(&mut gone.old),
                            new: gone.new.take(),
                            key: std::mem::take(&mut gone.key),
                            link: gone.link,
                        });
                    }
                    !is_alike
                });
                let size = batch.iter().map(Gone::size).sum();
                if let Some(link) = references.links.get(first.0) {
                    let action = if first.1 { link.key.on_delete } else { link.key.on_update };
                    // What a default refers to may be the very key that went away.
                    let again = action == ReferentialAction::SetDefault;
                    let asked = if again { batch.clone() } else { Vec::new() };
                    self.act(link, action, batch, txn, context).await?;
                    self.act(link, ReferentialAction::NoAction, asked, txn, context).await?;
                }
                self.state.release(size);
                context.breathe().await?;
            }
            let absent = std::mem::take(&mut self.absent);
            if absent.is_empty() {
                return Ok(());
            }
            for absent in absent {
                self.state.release(size_of::<Absent>() + absent.row.len());
                if let Some(link) = references.links.get(absent.link) {
                    self.ask_again((absent.link, link), &absent.row, txn, context).await?;
                }
            }
        }
    }

    /// Refuses a row whose key is still not there. The row may have changed since, or be gone.
    async fn ask_again(
        &mut self,
        (place, link): (usize, &Link),
        stored: &Bytes,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let Some(value) = txn.get_latest(stored)? else { return Ok(()) };
        let row = RowLayout::new(&link.child)?.decode_all(&value)?;
        let there = match parent_key(link, &row, &context.eval(&[]))? {
            Referred::Nothing => true,
            Referred::Mixed => return Err(mixed(link)),
            Referred::Key(key) => self.is_there((place, link), key, true, txn, context).await?,
            Referred::Impossible => false,
        };
        if there { Ok(()) } else { Err(absent(link, &row, &context.analyze.authority)) }
    }

    /// Does what a foreign key asks for when keys go away.
    async fn act(
        &mut self,
        link: &Link,
        action: ReferentialAction,
        mut batch: Vec<Gone>,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        if action == ReferentialAction::NoAction {
            let mut left = Vec::with_capacity(batch.len());
            for gone in batch {
                if txn.get_latest(&parent_entry(link, &gone.key))?.is_none() {
                    left.push(gone);
                }
            }
            batch = left;
        }
        if batch.is_empty() {
            return Ok(());
        }
        let keys: HashMap<Vec<u8>, &Gone> = batch.iter().map(|gone| (gone.key.clone(), gone)).collect();
        let layout = RowLayout::new(&link.child)?;
        let lock = match action {
            ReferentialAction::Cascade if batch.first().is_some_and(|gone| gone.new.is_none()) => {
                RowLock::ForUpdate
            }
            _ if !action.writes() => RowLock::ForKeyShare,
            _ if moves(link) => RowLock::ForUpdate,
            _ => RowLock::ForNoKeyUpdate,
        };
        loop {
            let found = self.find(link, &keys, !action.writes(), txn, context).await?;
            self.treat((link, action), (&found, lock, &layout), &keys, txn, context).await?;
            self.state.release(found.iter().map(|key| size_of::<Bytes>() + key.len()).sum());
            if action.writes() || found.len() < CHUNK_ROWS {
                return Ok(());
            }
            // Of the rows that were found none is there any longer, but there may be more.
        }
    }

    /// Does what [`Referee::act`] is to do with the rows that were found.
    async fn treat(
        &mut self,
        (link, action): (&Link, ReferentialAction),
        (found, lock, layout): (&[Bytes], RowLock, &RowLayout),
        keys: &HashMap<Vec<u8>, &Gone>,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        for stored in found {
            txn.lock_row(stored, lock, context.lock_wait).await?;
            let Some(value) = txn.get_latest(stored)? else { continue };
            let row = layout.decode_all(&value)?;
            let Referred::Key(key) = parent_key(link, &row, &context.eval(&[]))? else { continue };
            let Some(gone) = keys.get(&key) else { continue };
            if !action.writes() {
                return Err(still_referenced(link, &gone.old, &context.analyze.authority));
            }
            self.write(link, action, gone, stored, row, txn, context).await?;
            txn.flush_if_large().await?;
        }
        Ok(())
    }

    /// Deletes or changes a row whose key went away.
    #[expect(clippy::too_many_arguments, reason = "one step of `act`")]
    async fn write(
        &mut self,
        link: &Link,
        action: ReferentialAction,
        gone: &Gone,
        stored: &Bytes,
        row: Row,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<(), SqlError> {
        let references = Arc::clone(&self.references);
        let Some(target) = references.targets.get(&link.child.oid) else {
            return Err(SqlError::internal("an action writes to a table that is not known"));
        };
        let writer = TableWriter::new(
            Arc::clone(&target.table),
            target.schema.clone(),
            Arc::clone(context.database.row_numbers()),
            context.lock_wait,
            &target.rules,
            &context.analyze.authority,
        )?;
        if action == ReferentialAction::Cascade && gone.new.is_none() {
            writer.delete(txn, stored, &row).await?;
            return self.deleted(&target.table, &row, context);
        }
        let mut new = row.clone();
        for (place, column) in link.columns.iter().enumerate() {
            let value = match (action, &gone.new) {
                (ReferentialAction::Cascade, Some(keys)) => {
                    let key = keys.get(place).cloned().unwrap_or(Value::Null);
                    let key = Expr::Const { value: key, ty: column.parent_type };
                    coerce(key, column.child_type, CastContext::Assignment)?.eval(&[], &context.eval(&[]))?
                }
                (ReferentialAction::SetDefault, _) => match target.defaults.get(column.child) {
                    Some(default) => {
                        let eval = EvalContext { txn: Some(txn), ..context.eval(&[]) };
                        default.eval(&[], &eval)?
                    }
                    None => Value::Null,
                },
                _ => Value::Null,
            };
            if let Some(slot) = new.get_mut(column.child) {
                *slot = value;
            }
        }
        writer.generate(&mut new, context)?;
        let now = writer.update(txn, stored, &row, &new, context).await?;
        // What an action writes may be written to again by another one: boxed, as both call each other.
        Box::pin(self.updated(&target.table, (&row, &new), &now, txn, context)).await
    }

    /// Where the rows are that refer to one of these keys, as of now.
    async fn find(
        &self,
        link: &Link,
        wanted: &HashMap<Vec<u8>, &Gone>,
        any: bool,
        txn: &mut Transaction,
        context: &ExecContext<'_>,
    ) -> Result<Vec<Bytes>, SqlError> {
        // What is newest, with what this statement wrote; at REPEATABLE READ a row that the transaction's own snapshot
        // does not have is found, and refused when it is locked.
        txn.begin_statement();
        txn.read_newest();
        let layout = RowLayout::new(&link.child)?;
        let index = link.child_index.and_then(|place| link.child.indexes.get(place));
        let ranges: Vec<(Bytes, Bytes)> = match index {
            Some(index) => {
                let probe = |gone: &&Gone| child_range(link, index, &gone.old);
                wanted.values().filter_map(probe).collect()
            }
            None => {
                let (start, end) = keys::storage_range(link.child.storage);
                vec![(start.into(), end.into())]
            }
        };
        let by_entry = index.is_some_and(|index| !link.child.is_row_key(index));
        let mut found = Vec::new();
        for (start, end) in ranges {
            let mut rest = Some((start, end));
            while let Some((start, end)) = rest {
                let direction = Direction::Forward;
                let chunk = txn.scan(ScanRequest {
                    start,
                    end,
                    direction,
                    max_bytes: 256 << 10,
                    max_rows: CHUNK_ROWS,
                })?;
                rest = chunk.rest();
                for (key, value) in chunk.iter() {
                    let (stored, value) = if by_entry {
                        let stored = rows::stored_key(&link.child, value);
                        match txn.get(&stored)? {
                            Some(value) => (stored, value),
                            None => continue,
                        }
                    } else {
                        (Bytes::copy_from_slice(key), Bytes::copy_from_slice(value))
                    };
                    let row = layout.decode_all(&value)?;
                    if let Referred::Key(key) = parent_key(link, &row, &context.eval(&[]))?
                        && wanted.contains_key(&key)
                    {
                        self.state.charge(size_of::<Bytes>() + stored.len())?;
                        found.push(stored);
                        // A few of them are enough to refuse, unless all are gone by the time they are locked.
                        if any && found.len() >= CHUNK_ROWS {
                            rest = None;
                            break;
                        }
                    }
                }
                context.breathe().await?;
            }
        }
        // Back to the snapshot of the transaction, by which locks tell what has changed.
        txn.begin_statement();
        Ok(found)
    }
}

impl Gone {
    fn size(&self) -> usize {
        size_of::<Self>() + self.key.len() + row_size(&self.old) + self.new.as_deref().map_or(0, row_size)
    }
}

/// Whether setting the columns that refer moves a row or an entry that other rows may refer to.
fn moves(link: &Link) -> bool {
    let indexes = link.child.indexes.iter().filter(|index| index.is_unique());
    indexes.flat_map(|index| &index.key).any(|part| link.key.columns.contains(&part.column))
}

/// What a row refers to.
enum Referred {
    /// Nothing: a column is NULL.
    Nothing,
    /// Some columns are NULL, some are not, which MATCH FULL forbids.
    Mixed,
    /// A key, encoded as that of the parent's index.
    Key(Vec<u8>),
    /// A value that no key can have.
    Impossible,
}

/// The columns of a row that refer, encoded, to tell whether they changed.
fn own_key(link: &Link, row: &[Value]) -> Vec<u8> {
    let mut key = Vec::with_capacity(16);
    for column in &link.columns {
        keycodec::encode(&mut key, row.get(column.child).unwrap_or(&Value::Null), KeyOrder::ASCENDING);
    }
    key
}

/// A value of one side of a foreign key as one of the other's type; `None` when that type has no such value.
fn converted(
    value: &Value,
    (from, to): (rustydb_types::datatype::DataType, rustydb_types::datatype::DataType),
    eval: &EvalContext<'_>,
) -> Result<Option<Value>, SqlError> {
    use rustydb_types::datatype::BaseType;
    if from.base == to.base {
        return Ok(Some(value.clone()));
    }
    if let Some(number) = value.as_i64()
        && let Some(value) = match to.base {
            BaseType::Int2 => Some(i16::try_from(number).ok().map(Value::Int2)),
            BaseType::Int4 => Some(i32::try_from(number).ok().map(Value::Int4)),
            BaseType::Int8 => Some(Some(Value::Int8(number))),
            _ => None,
        }
    {
        return Ok(value);
    }
    let constant = Expr::Const { value: value.clone(), ty: from };
    let to = rustydb_types::datatype::DataType::from(to.base);
    coerce(constant, to, CastContext::Implicit)?.eval(&[], eval).map(Some)
}

/// What a row refers to by a foreign key.
fn parent_key(link: &Link, row: &[Value], eval: &EvalContext<'_>) -> Result<Referred, SqlError> {
    let is_null =
        |column: &&crate::plan::references::LinkColumn| row.get(column.child).is_none_or(Value::is_null);
    let nulls = link.columns.iter().filter(is_null).count();
    if nulls > 0 {
        let is_mixed = link.key.is_full && nulls < link.columns.len();
        return Ok(if is_mixed { Referred::Mixed } else { Referred::Nothing });
    }
    let Some(index) = link.parent.indexes.get(link.parent_index) else { return Ok(Referred::Impossible) };
    let mut key = Vec::with_capacity(16);
    for part in &index.key {
        let parent = link.parent.column_index_of(part.column);
        let Some(column) = link.columns.iter().find(|column| Some(column.parent) == parent) else {
            return Err(SqlError::internal("a foreign key and its index differ"));
        };
        let value = row.get(column.child).unwrap_or(&Value::Null);
        let Some(value) = converted(value, (column.child_type, column.parent_type), eval)? else {
            return Ok(Referred::Impossible);
        };
        let order = KeyOrder { descending: part.descending, nulls_first: part.nulls_first };
        keycodec::encode(&mut key, &value, order);
    }
    Ok(Referred::Key(key))
}

/// The stored key under which a key of the parent is found: that of the row, or of the entry of a unique index.
fn parent_entry(link: &Link, key: &[u8]) -> Bytes {
    let storage =
        link.parent.indexes.get(link.parent_index).map_or(link.parent.storage, |index| index.storage);
    [keys::storage_prefix(storage).as_slice(), key].concat().into()
}

/// The range of an index of the child in which rows that refer to a key are; `None` when they cannot be.
fn child_range(
    link: &Link,
    index: &crate::catalog::IndexDescriptor,
    key: &[Value],
) -> Option<(Bytes, Bytes)> {
    let mut start = keys::storage_prefix(index.storage).to_vec();
    for part in index.key.iter().take(link.columns.len()) {
        let child = link.child.column_index_of(part.column);
        let place = link.columns.iter().position(|column| Some(column.child) == child)?;
        let (column, value) = (link.columns.get(place)?, key.get(place)?);
        let value = match (value.as_i64(), column.child_type.base) {
            (Some(number), rustydb_types::datatype::BaseType::Int2) => {
                Value::Int2(i16::try_from(number).ok()?)
            }
            (Some(number), rustydb_types::datatype::BaseType::Int4) => {
                Value::Int4(i32::try_from(number).ok()?)
            }
            (Some(number), rustydb_types::datatype::BaseType::Int8) => Value::Int8(number),
            _ => value.clone(),
        };
        keycodec::encode(
            &mut start,
            &value,
            KeyOrder { descending: part.descending, nulls_first: part.nulls_first },
        );
    }
    let end = keys::after_prefix(&start);
    Some((start.into(), end.into()))
}

fn violation(link: &Link, message: String, detail: String) -> SqlError {
    SqlError::new(SqlState::FOREIGN_KEY_VIOLATION, message)
        .with_detail(detail)
        .with_table(link.child_schema.clone(), link.child.name.clone())
        .with_constraint(link.key.name.clone())
}

/// Columns with their values, as details show them to one who may see them, else "Key".
fn shown(
    table: &TableDescriptor,
    columns: impl Iterator<Item = (usize, Value)>,
    authority: &Authority,
) -> String {
    let mut names = Vec::new();
    let mut values = Vec::new();
    let readable = authority.readable(table);
    for (place, value) in columns {
        if readable.as_ref().is_some_and(|readable| !readable.contains(&place)) {
            return "Key".to_owned();
        }
        if let Some(column) = table.columns.get(place) {
            names.push(column.name.clone());
            values.push(text::print(&value, column_type(column.data_type)));
        }
    }
    format!("Key ({})=({})", names.join(", "), values.join(", "))
}

/// 23503 for a row that refers to a key that is not there.
pub(crate) fn absent(link: &Link, row: &[Value], authority: &Authority) -> SqlError {
    let value = |place: usize| row.get(place).cloned().unwrap_or(Value::Null);
    let columns = link.columns.iter().map(|column| (column.child, value(column.child)));
    let key = shown(&link.child, columns, authority);
    violation(
        link,
        format!(
            "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
            link.child.name, link.key.name
        ),
        format!("{key} is not present in table \"{}\".", link.parent.name),
    )
}

fn mixed(link: &Link) -> SqlError {
    violation(
        link,
        format!(
            "insert or update on table \"{}\" violates foreign key constraint \"{}\"",
            link.child.name, link.key.name
        ),
        "MATCH FULL does not allow mixing of null and nonnull key values.".to_owned(),
    )
}

fn still_referenced(link: &Link, old: &[Value], authority: &Authority) -> SqlError {
    let columns = link.columns.iter().zip(old).map(|(column, value)| (column.parent, value.clone()));
    let key = shown(&link.parent, columns, authority);
    violation(
        link,
        format!(
            "update or delete on table \"{}\" violates foreign key constraint \"{}\" on table \"{}\"",
            link.parent.name, link.key.name, link.child.name
        ),
        format!("{key} is still referenced from table \"{}\".", link.child.name),
    )
}

/// Asks what was put off.
///
/// # Errors
/// 23503, lock errors, storage errors.
pub(crate) async fn ask_waiting(
    waiting: Vec<Waiting>,
    txn: &mut Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    let mut rest = waiting;
    while let Some(constraint) = rest.first().map(|first| first.constraint) {
        let (asked, others): (Vec<_>, Vec<_>) =
            rest.into_iter().partition(|waiting| waiting.constraint == constraint);
        rest = others;
        let mut tables = context.analyze.catalog.tables();
        let found = tables
            .find_map(|table| Some((table, table.foreign_keys.iter().find(|key| key.oid == constraint)?)));
        // The constraint may have been dropped since.
        let Some((child, key)) = found else { continue };
        let Some(parent) = context.analyze.catalog.table(key.table) else { continue };
        let link_of = |references: Option<Arc<References>>| {
            let references = references?;
            let place = references.links.iter().position(|link| link.key.oid == constraint)?;
            Some((references, place))
        };
        // Bound apart: a binder is not to live over a wait.
        let (rows, keys) = {
            let binder = crate::bind::Binder::new(context.analyze, &[]);
            (link_of(binder.references_of_insert(child)?), link_of(binder.references_of_delete(parent)?))
        };
        let mut gone = Vec::new();
        for waiting in asked {
            match waiting.question {
                Question::Row(stored) => {
                    let Some((references, place)) = &rows else { continue };
                    let (Some(mut referee), Some(link)) =
                        (Referee::new(Some(references), context), references.links.get(*place))
                    else {
                        continue;
                    };
                    referee.ask_again((*place, link), &stored, txn, context).await?;
                }
                Question::Key(key) => gone.push(Gone { link: 0, key, old: waiting.old, new: None }),
            }
        }
        if let Some((references, place)) = &keys
            && let Some(mut referee) = Referee::new(Some(references), context)
            && let Some(link) = references.links.get(*place)
        {
            referee.act(link, ReferentialAction::NoAction, gone, txn, context).await?;
        }
    }
    Ok(())
}

/// Refuses a table's rows that refer to keys that are not there: for a constraint that is being added, under locks that
/// keep both tables as they are.
///
/// # Errors
/// 23503, storage errors.
pub(crate) fn check_row(
    link: &Link,
    row: &[Value],
    txn: &Transaction,
    context: &ExecContext<'_>,
) -> Result<(), SqlError> {
    match parent_key(link, row, &context.eval(&[]))? {
        Referred::Nothing => Ok(()),
        Referred::Mixed => Err(mixed(link)),
        Referred::Key(key) if txn.get_latest(&parent_entry(link, &key))?.is_some() => Ok(()),
        _ => Err(absent(link, row, &context.analyze.authority)),
    }
}
