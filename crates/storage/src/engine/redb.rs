//! redb, the default engine: a copy-on-write B-tree in one file.
//!
//! It runs over the node's own disk port, so the very same engine takes part in the deterministic
//! simulation with its crashes and its faults. One redb table per [`Space`]; a batch is one redb write
//! transaction with quick repair, so that opening after a crash does not walk the whole tree.
//!
//! redb does not look at the checksums of its pages when it reads them, so below it lies a file that checks each
//! block: what changed at rest is an error and never a row.
//!
//! A new file is built under a temporary name and renamed when it is whole and synced: a crash while an
//! engine is created leaves either nothing or an empty engine, never half a header.

use std::io;
use std::ops::{Bound, ControlFlow};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use redb::{Builder, Database, ReadOnlyTable, ReadableDatabase, StorageBackend, TableDefinition};
use rustydb_env::{Bug, Disk, Env, File, OpenMode, ambient};

use super::checked::EngineFile;
use super::{
    BatchFiller, Direction, Durability, Engine, EngineError, EngineStats, EngineView, EngineWriter, KeyRange,
    RowVisitor, Space,
};

/// Free bytes that the file system must have before a batch starts. A batch that ran out of space half
/// way would poison the engine; being refused in time leaves reads working and needs no restart.
const FREE_SIZE_BYTES_MIN: u64 = 32 << 20;

/// The table of each space.
const TABLES: [TableDefinition<'static, &[u8], &[u8]>; Space::COUNT as usize] = [
    TableDefinition::new("space0"),
    TableDefinition::new("space1"),
    TableDefinition::new("space2"),
    TableDefinition::new("space3"),
    TableDefinition::new("space4"),
    TableDefinition::new("space5"),
    TableDefinition::new("space6"),
    TableDefinition::new("space7"),
];

/// An engine in one redb file.
pub struct RedbEngine {
    database: parking_lot::RwLock<Database>,
    disk: Arc<dyn Disk>,
    file: Arc<dyn File>,
    path: PathBuf,
    cache_size_bytes: usize,
    poisoned: AtomicBool,
    /// Whether a read has met a block that is not what was written: then nothing of it is read or written any more.
    damaged: Arc<AtomicBool>,
}

impl RedbEngine {
    /// Opens or creates the engine in the file `path`; its folder must exist.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] when the file is not a whole redb file, [`EngineError::Io`] when the disk fails.
    pub fn open(env: &Env, path: &Path, cache_size_bytes: usize) -> Result<RedbEngine, EngineError> {
        let disk = Arc::clone(env.disk());
        let io_failed = |source| EngineError::Io { path: path.to_path_buf(), source };
        if !disk.exists(path).map_err(io_failed)? {
            create(&disk, path, cache_size_bytes)?;
        }
        let file = disk.open(path, OpenMode::ReadWrite).map_err(io_failed)?;
        let database = open_database(path, &file, cache_size_bytes)?;
        // What it says to be stored, and its name, may be in memory only if the process was killed before: the log is
        // shortened by what this says.
        file.sync_all().map_err(io_failed)?;
        disk.sync_dir(path.parent().unwrap_or(Path::new("."))).map_err(io_failed)?;
        Ok(RedbEngine {
            database: parking_lot::RwLock::new(database),
            disk,
            file,
            path: path.to_path_buf(),
            cache_size_bytes,
            poisoned: AtomicBool::new(false),
            damaged: Arc::default(),
        })
    }

    fn check_poison(&self) -> Result<(), EngineError> {
        if self.poisoned.load(Ordering::Acquire) {
            return Err(EngineError::Poisoned { path: self.path.clone() });
        }
        if self.damaged.load(Ordering::Acquire) {
            let source = "an earlier read met a block that fails its checksum".into();
            return Err(EngineError::Damaged { path: self.path.clone(), source });
        }
        Ok(())
    }

    fn check_free_space(&self) -> Result<(), EngineError> {
        let available_bytes = self
            .disk
            .available_bytes(&self.path)
            .map_err(|source| EngineError::Io { path: self.path.clone(), source })?;
        if available_bytes < FREE_SIZE_BYTES_MIN {
            return Err(EngineError::DiskFull {
                path: self.path.clone(),
                available_bytes,
                needed_bytes: FREE_SIZE_BYTES_MIN,
            });
        }
        Ok(())
    }

    fn write_batch(&self, durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), BatchError> {
        let database = self.database.read();
        let mut transaction = database.begin_write().map_err(|error| self.failed(error))?;
        // Without quick repair the first open after a crash reads the whole file.
        transaction.set_quick_repair(true);
        if durability == Durability::Buffered {
            transaction.set_durability(redb::Durability::None).map_err(|error| self.failed(error))?;
        }
        {
            let mut writer = RedbWriter { path: &self.path, tables: Vec::with_capacity(TABLES.len()) };
            for table in TABLES {
                writer.tables.push(transaction.open_table(table).map_err(|error| self.failed(error))?);
            }
            if let Err(error) = fill(&mut writer) {
                drop(writer);
                transaction.abort().map_err(|error| self.failed(error))?;
                return Err(BatchError::Given(error));
            }
        }
        transaction.commit().map_err(|error| self.failed(error))?;
        Ok(())
    }

    fn failed(&self, error: impl Into<redb::Error>) -> BatchError {
        BatchError::Engine(translate(&self.path, error))
    }
}

/// Whether a batch failed by the engine (poison) or by whoever filled it (nothing happened).
enum BatchError {
    Engine(EngineError),
    Given(EngineError),
}

/// Builds an empty engine aside and moves it to its name once it is durable.
fn create(disk: &Arc<dyn Disk>, path: &Path, cache_size_bytes: usize) -> Result<(), EngineError> {
    let io_failed = |source| EngineError::Io { path: path.to_path_buf(), source };
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    if disk.exists(&temporary).map_err(io_failed)? {
        disk.remove_file(&temporary).map_err(io_failed)?;
    }
    let file = disk.open(&temporary, OpenMode::CreateNew).map_err(io_failed)?;
    let database = open_database(&temporary, &file, cache_size_bytes)?;
    let transaction = database.begin_write().map_err(|error| translate(path, error))?;
    for table in TABLES {
        transaction.open_table(table).map_err(|error| translate(path, error))?;
    }
    transaction.commit().map_err(|error| translate(path, error))?;
    drop(database);
    file.sync_all().map_err(io_failed)?;
    drop(file);
    disk.rename(&temporary, path).map_err(io_failed)?;
    let folder = path.parent().unwrap_or(Path::new("."));
    disk.sync_dir(folder).map_err(io_failed)
}

fn open_database(
    path: &Path,
    file: &Arc<dyn File>,
    cache_size_bytes: usize,
) -> Result<Database, EngineError> {
    let file = EngineFile::open(Arc::clone(file)).map_err(|error| translate(path, redb::Error::Io(error)))?;
    Builder::new()
        .set_cache_size(cache_size_bytes)
        .create_with_backend(DiskBackend { file })
        .map_err(|error| translate(path, error))
}

fn translate(path: &Path, error: impl Into<redb::Error>) -> EngineError {
    match error.into() {
        // What is not there is damage as well: the file is shorter than it says.
        redb::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof) =>
        {
            EngineError::Damaged { path: path.to_path_buf(), source: Box::new(source) }
        }
        redb::Error::Io(source) => EngineError::Io { path: path.to_path_buf(), source },
        redb::Error::PreviousIo => EngineError::Poisoned { path: path.to_path_buf() },
        other => EngineError::Damaged { path: path.to_path_buf(), source: Box::new(other) },
    }
}

impl Engine for RedbEngine {
    fn view(&self) -> Result<Arc<dyn EngineView>, EngineError> {
        self.check_poison()?;
        let transaction = self.database.read().begin_read().map_err(|error| translate(&self.path, error))?;
        let mut tables = Vec::with_capacity(TABLES.len());
        for table in TABLES {
            tables.push(transaction.open_table(table).map_err(|error| translate(&self.path, error))?);
        }
        Ok(Arc::new(RedbView { path: self.path.clone(), tables, damaged: Arc::clone(&self.damaged) }))
    }

    fn write(&self, durability: Durability, fill: &mut BatchFiller<'_>) -> Result<(), EngineError> {
        self.check_poison()?;
        self.check_free_space()?;
        match self.write_batch(durability, fill) {
            Ok(()) => Ok(()),
            Err(BatchError::Given(error)) => Err(error),
            Err(BatchError::Engine(error)) => {
                self.poisoned.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    fn compact(&self) -> Result<bool, EngineError> {
        self.check_poison()?;
        self.check_free_space()?;
        // redb compacts only a database that nobody else uses; a busy one is left for the next time.
        let Some(mut database) = self.database.try_write() else { return Ok(false) };
        match database.compact() {
            Ok(_) => Ok(true),
            Err(redb::CompactionError::TransactionInProgress) => Ok(false),
            Err(error) => {
                self.poisoned.store(true, Ordering::Release);
                Err(translate(&self.path, error))
            }
        }
    }

    fn stats(&self) -> EngineStats {
        EngineStats {
            file_size_bytes: self.file.len().unwrap_or(0),
            memory_bytes: (self.database.read().cache_stats().used_bytes()).min(self.cache_size_bytes) as u64,
        }
    }
}

/// redb's view of one file of the disk port.
#[derive(Debug)]
struct DiskBackend {
    file: EngineFile,
}

impl StorageBackend for DiskBackend {
    fn len(&self) -> io::Result<u64> {
        self.file.len()
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.file.read(offset, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn sync_data(&self) -> io::Result<()> {
        if ambient::has_bug(Bug::EngineNotSynced) {
            return Ok(());
        }
        self.file.sync()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.file.write(offset, data)
    }
}

struct RedbWriter<'t> {
    path: &'t Path,
    tables: Vec<redb::Table<'t, &'static [u8], &'static [u8]>>,
}

impl RedbWriter<'_> {
    fn failed(&self, error: redb::StorageError) -> EngineError {
        translate(self.path, error)
    }
}

impl EngineWriter for RedbWriter<'_> {
    fn put(&mut self, space: Space, key: &[u8], value: &[u8]) -> Result<(), EngineError> {
        let result = self.tables[space.index()].insert(key, value).map(drop);
        result.map_err(|error| self.failed(error))
    }

    fn delete(&mut self, space: Space, key: &[u8]) -> Result<(), EngineError> {
        let result = self.tables[space.index()].remove(key).map(drop);
        result.map_err(|error| self.failed(error))
    }

    fn delete_range(&mut self, space: Space, range: KeyRange<'_>) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let result = self.tables[space.index()].retain_in::<&[u8], _>(bounds(&range), |_, _| false);
        result.map_err(|error| self.failed(error))
    }
}

fn bounds<'a>(range: &KeyRange<'a>) -> (Bound<&'a [u8]>, Bound<&'a [u8]>) {
    (Bound::Included(range.start), range.end.map_or(Bound::Unbounded, Bound::Excluded))
}

struct RedbView {
    path: PathBuf,
    tables: Vec<ReadOnlyTable<&'static [u8], &'static [u8]>>,
    /// The engine's.
    damaged: Arc<AtomicBool>,
}

impl RedbView {
    fn failed(&self, error: redb::StorageError) -> EngineError {
        let error = translate(&self.path, error);
        if matches!(error, EngineError::Damaged { .. }) && !self.damaged.swap(true, Ordering::AcqRel) {
            tracing::error!(%error, "the engine's file is not what was written");
        }
        error
    }
}

impl EngineView for RedbView {
    fn get(&self, space: Space, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let found = self.tables[space.index()].get(key).map_err(|error| self.failed(error))?;
        Ok(found.map(|guard| Bytes::copy_from_slice(guard.value())))
    }

    fn scan(
        &self,
        space: Space,
        range: KeyRange<'_>,
        direction: Direction,
        visit: &mut RowVisitor<'_>,
    ) -> Result<(), EngineError> {
        if range.is_empty() {
            return Ok(());
        }
        let mut rows =
            self.tables[space.index()].range::<&[u8]>(bounds(&range)).map_err(|error| self.failed(error))?;
        loop {
            let row = match direction {
                Direction::Forward => rows.next(),
                Direction::Backward => rows.next_back(),
            };
            let Some(row) = row else { return Ok(()) };
            let (key, value) = row.map_err(|error| self.failed(error))?;
            if let ControlFlow::Break(()) = visit(key.value(), value.value()) {
                return Ok(());
            }
        }
    }
}
