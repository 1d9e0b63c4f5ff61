//! The simulated disk: what a file system may do to data that was not synced.
//!
//! Each file is kept twice: as running programs see it, and as the platter holds it, with the list of changes
//! in between. A sync moves the changes over. At a crash each change since the last sync is kept, torn at a
//! sector or lost, independently of the others and in any combination; names that were created, renamed or
//! removed since the last sync of their directory are kept or forgotten likewise.
//!
//! Faults are switched on by the test through [`DiskFaults`]. After a failed sync the dirty data of the file is
//! dropped from the platter's view for good, as Linux does, so that a second sync that "succeeds" proves nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::{Rng as _, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::disk::{Disk, DiskLock, File, OpenMode};
use crate::rng::below;

/// The unit that is written whole or not at all.
const SECTOR_SIZE_BYTES: usize = 512;

/// What goes wrong, in chances per million operations; all zero by default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskFaults {
    /// A read fails with an I/O error.
    pub read_errors_ppm: u64,
    /// A write fails with an I/O error after part of it.
    pub write_errors_ppm: u64,
    /// A sync fails with an I/O error and its data is lost.
    pub sync_errors_ppm: u64,
    /// Bytes that the disk holds in all; beyond it writes fail with `StorageFull`. `None`: no limit.
    pub capacity_bytes: Option<u64>,
    /// After so many more changing operations (writes, syncs, renames...) the power is cut: this operation and
    /// all later ones fail until the node crashes.
    pub power_cut_after: Option<u64>,
    /// After so many more changing operations one fails, and those after it do not.
    pub failure_after: Option<(u64, DiskFailure)>,
    /// After so many more reads one fails with an I/O error, and those after it do not.
    pub read_error_after: Option<u64>,
}

/// How one changing operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskFailure {
    /// An I/O error: of a write nothing is done; of a sync the data is lost.
    Error,
    /// Of a write only the first part is done, then it is an I/O error; anything else fails as [`Self::Error`].
    Short,
    /// There is no room: part of a write is done; a sync that has to find room for what was written loses it.
    Full,
}

impl DiskFailure {
    fn error(self) -> io::Error {
        match self {
            Self::Error => io::Error::other("simulated error of one operation"),
            Self::Short => io::Error::other("simulated short write"),
            Self::Full => io::Error::from(io::ErrorKind::StorageFull),
        }
    }
}

/// The platter of one node; it outlives the node's crashes. Clones share it.
#[derive(Clone)]
pub struct SimDisk {
    state: Arc<Mutex<Platter>>,
}

struct Platter {
    rng: ChaCha8Rng,
    faults: DiskFaults,
    /// Incarnation of the node that may use the disk.
    epoch: u64,
    power_is_cut: bool,
    /// Changing operations so far.
    change_count: u64,
    /// Reads so far.
    read_count: u64,
    files: BTreeMap<u64, Inode>,
    next_file: u64,
    names: BTreeMap<PathBuf, Entry>,
    durable_names: BTreeMap<PathBuf, Entry>,
    locks: BTreeSet<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Entry {
    Directory,
    File(u64),
}

#[derive(Default)]
struct Inode {
    live: Vec<u8>,
    durable: Vec<u8>,
    changes: Vec<Change>,
}

enum Change {
    Write { offset: usize, bytes: Vec<u8> },
    Length(usize),
}

impl Change {
    fn apply(&self, content: &mut Vec<u8>) {
        match self {
            Change::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if content.len() < end {
                    content.resize(end, 0);
                }
                content[*offset..end].copy_from_slice(bytes);
            }
            Change::Length(length) => content.resize(*length, 0),
        }
    }
}

/// The first `length` bytes of a write at `offset`, cut at the last sector that is whole: a file system takes a write that
/// fails up to some block.
fn whole_sectors(offset: usize, bytes: &[u8], length: usize) -> &[u8] {
    let end = (offset + length) / SECTOR_SIZE_BYTES * SECTOR_SIZE_BYTES;
    bytes.get(..end.saturating_sub(offset)).unwrap_or_default()
}

impl SimDisk {
    pub(super) fn new(seed: u64) -> SimDisk {
        let root = BTreeMap::from([(PathBuf::from("/"), Entry::Directory)]);
        SimDisk {
            state: Arc::new(Mutex::new(Platter {
                rng: ChaCha8Rng::seed_from_u64(seed),
                faults: DiskFaults::default(),
                epoch: 0,
                power_is_cut: false,
                change_count: 0,
                read_count: 0,
                files: BTreeMap::new(),
                next_file: 0,
                names: root.clone(),
                durable_names: root,
                locks: BTreeSet::new(),
            })),
        }
    }

    /// Bytes that its files take.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// Switches faults.
    pub fn set_faults(&self, faults: DiskFaults) {
        self.state.lock().faults = faults;
    }

    /// The faults that are on.
    #[must_use]
    pub fn faults(&self) -> DiskFaults {
        self.state.lock().faults
    }

    /// How many changing operations there were so far: the points at which [`DiskFaults::power_cut_after`] can strike.
    #[must_use]
    pub fn change_count(&self) -> u64 {
        self.state.lock().change_count
    }

    /// How many reads there were so far: the points at which [`DiskFaults::read_error_after`] can strike.
    #[must_use]
    pub fn read_count(&self) -> u64 {
        self.state.lock().read_count
    }

    /// The files that running programs see, in order of name.
    #[must_use]
    pub fn file_names(&self) -> Vec<PathBuf> {
        let state = self.state.lock();
        let files = state.names.iter().filter(|(_, entry)| matches!(entry, Entry::File(_)));
        files.map(|(path, _)| path.clone()).collect()
    }

    /// What a file holds for running programs; `None` when there is no such file.
    #[must_use]
    pub fn content(&self, path: &Path) -> Option<Vec<u8>> {
        let state = self.state.lock();
        let Some(Entry::File(file)) = state.names.get(path) else { return None };
        state.files.get(file).map(|inode| inode.live.clone())
    }

    /// Flips one bit of a file at rest. False when the file has no such byte.
    pub fn flip_bit(&self, path: &Path, offset: usize, bit: u8) -> bool {
        let mut state = self.state.lock();
        let Some(Entry::File(file)) = state.names.get(path).copied() else { return false };
        let Some(inode) = state.files.get_mut(&file) else { return false };
        let mut flipped = false;
        for content in [&mut inode.live, &mut inode.durable] {
            if let Some(byte) = content.get_mut(offset) {
                *byte ^= 1 << (bit & 7);
                flipped = true;
            }
        }
        flipped
    }

    pub(super) fn crash(&self) {
        self.state.lock().crash();
    }

    pub(super) fn kill(&self) {
        self.state.lock().end_epoch();
    }
}

impl Platter {
    fn chance(&mut self, ppm: u64) -> bool {
        ppm > 0 && below(self.rng.next_u64(), 1_000_000) < ppm
    }

    fn check(&self, epoch: u64) -> io::Result<()> {
        if self.epoch != epoch {
            return Err(io::Error::other("the node has crashed"));
        }
        if self.power_is_cut {
            return Err(io::Error::other("the power is cut"));
        }
        Ok(())
    }

    /// Called before every changing operation but writes and syncs.
    fn begin_change(&mut self, epoch: u64) -> io::Result<()> {
        self.begin_partial(epoch)?.map_or(Ok(()), |failure| Err(failure.error()))
    }

    /// Called before a write or a sync; gives how it is to fail, after part of it.
    fn begin_partial(&mut self, epoch: u64) -> io::Result<Option<DiskFailure>> {
        self.check(epoch)?;
        self.change_count += 1;
        if let Some(left) = &mut self.faults.power_cut_after {
            if *left == 0 {
                self.faults.power_cut_after = None;
                self.power_is_cut = true;
                return Err(io::Error::other("the power is cut"));
            }
            *left -= 1;
        }
        if let Some((left, failure)) = &mut self.faults.failure_after {
            if *left == 0 {
                let failure = *failure;
                self.faults.failure_after = None;
                return Ok(Some(failure));
            }
            *left -= 1;
        }
        Ok(None)
    }

    /// Called before every read.
    fn begin_read(&mut self, epoch: u64) -> io::Result<()> {
        self.check(epoch)?;
        self.read_count += 1;
        let ppm = self.faults.read_errors_ppm;
        let mut fails = self.chance(ppm);
        if let Some(left) = &mut self.faults.read_error_after {
            fails |= *left == 0;
            self.faults.read_error_after = left.checked_sub(1);
        }
        if fails { Err(io::Error::other("simulated read error")) } else { Ok(()) }
    }

    /// Bytes of all files that have a name.
    fn used_bytes(&self) -> u64 {
        let files = self.names.values().filter_map(|entry| match entry {
            Entry::File(file) => self.files.get(file),
            Entry::Directory => None,
        });
        files.map(|inode| inode.live.len() as u64).sum()
    }

    /// To what length `file` may grow.
    fn length_max(&self, file: u64) -> usize {
        let Some(capacity) = self.faults.capacity_bytes else { return usize::MAX };
        let current = self.files.get(&file).map_or(0, |inode| inode.live.len());
        let room = usize::try_from(capacity.saturating_sub(self.used_bytes())).unwrap_or(usize::MAX);
        current.saturating_add(room)
    }

    /// Whether `file` may grow to `length`.
    fn check_room(&self, file: u64, length: usize) -> io::Result<()> {
        if length > self.length_max(file) {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        Ok(())
    }

    fn change(&mut self, file: u64, change: Change) -> io::Result<()> {
        let inode = self.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        change.apply(&mut inode.live);
        inode.changes.push(change);
        Ok(())
    }

    fn write(&mut self, epoch: u64, file: u64, offset: usize, bytes: &[u8]) -> io::Result<()> {
        let failure = self.begin_partial(epoch)?;
        let fits = self.length_max(file).saturating_sub(offset);
        if fits < bytes.len() {
            // As a file system does: what fits is there, and then the error.
            let part = whole_sectors(offset, bytes, fits);
            self.change(file, Change::Write { offset, bytes: part.to_vec() })?;
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        if failure == Some(DiskFailure::Error) {
            return Err(DiskFailure::Error.error());
        }
        if failure.is_some() || self.chance(self.faults.write_errors_ppm) {
            let part = below(self.rng.next_u64(), bytes.len() as u64 + 1);
            let part = whole_sectors(offset, bytes, usize::try_from(part).unwrap_or(0));
            self.change(file, Change::Write { offset, bytes: part.to_vec() })?;
            return Err(failure.map_or_else(|| io::Error::other("simulated write error"), DiskFailure::error));
        }
        self.change(file, Change::Write { offset, bytes: bytes.to_vec() })
    }

    fn sync(&mut self, epoch: u64, file: u64) -> io::Result<()> {
        let failure = self.begin_partial(epoch)?;
        let failed = self.chance(self.faults.sync_errors_ppm);
        let inode = self.files.get_mut(&file).ok_or(io::ErrorKind::NotFound)?;
        let changes = std::mem::take(&mut inode.changes);
        if let Some(failure) = failure {
            return Err(failure.error());
        }
        if failed {
            // The pages count as clean from now on, and the platter never gets them.
            return Err(io::Error::other("simulated sync error"));
        }
        for change in changes {
            change.apply(&mut inode.durable);
        }
        Ok(())
    }

    fn sync_dir(&mut self, dir: &Path) {
        let gone: Vec<PathBuf> = self
            .durable_names
            .keys()
            .filter(|path| path.parent() == Some(dir) && !self.names.contains_key(*path))
            .cloned()
            .collect();
        for path in gone {
            self.durable_names.retain(|name, _| !name.starts_with(&path));
        }
        let here = self.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        for (path, entry) in here.map(|(path, entry)| (path.clone(), *entry)).collect::<Vec<_>>() {
            self.durable_names.insert(path, entry);
        }
    }

    fn require_dir(&self, path: &Path) -> io::Result<()> {
        match self.names.get(path) {
            Some(Entry::Directory) => Ok(()),
            _ => Err(io::Error::new(io::ErrorKind::NotFound, format!("no directory {}", path.display()))),
        }
    }

    /// The process that used the disk is gone, and its faults with it.
    fn end_epoch(&mut self) {
        self.epoch += 1;
        self.power_is_cut = false;
        self.faults = DiskFaults { capacity_bytes: self.faults.capacity_bytes, ..DiskFaults::default() };
        self.locks.clear();
    }

    fn crash(&mut self) {
        self.end_epoch();
        self.crash_names();
        let kept: BTreeSet<u64> = self
            .names
            .values()
            .filter_map(|entry| match entry {
                Entry::File(file) => Some(*file),
                Entry::Directory => None,
            })
            .collect();
        self.files.retain(|file, _| kept.contains(file));
        let files: Vec<u64> = self.files.keys().copied().collect();
        for file in files {
            self.crash_file(file);
        }
    }

    /// Each unsynced change of a name happened or did not.
    fn crash_names(&mut self) {
        let before = std::mem::take(&mut self.durable_names);
        let after = std::mem::take(&mut self.names);
        let mut paths: BTreeSet<PathBuf> = before.keys().cloned().collect();
        paths.extend(after.keys().cloned());
        for path in paths {
            let (old, new) = (before.get(&path), after.get(&path));
            let survivor = if old == new || self.rng.next_u64() & 1 == 0 { old } else { new };
            // A name lives only below a directory that does.
            let parent_lives = path.parent().is_none_or(|parent| self.names.contains_key(parent));
            if let (Some(entry), true) = (survivor, parent_lives) {
                self.names.insert(path, *entry);
            }
        }
        self.durable_names = self.names.clone();
    }

    /// Each unsynced change of a file reached the platter, in full, in part or not at all.
    fn crash_file(&mut self, file: u64) {
        let Some(inode) = self.files.get_mut(&file) else { return };
        for change in std::mem::take(&mut inode.changes) {
            match self.rng.next_u64() % 4 {
                0 => {}
                1 => {
                    if let Change::Write { offset, bytes } = change {
                        // Sectors are whole or absent; which ones came through is the drive's business.
                        for (number, sector) in bytes.chunks(SECTOR_SIZE_BYTES).enumerate() {
                            if self.rng.next_u64() & 1 == 0 {
                                let offset = offset + number * SECTOR_SIZE_BYTES;
                                Change::Write { offset, bytes: sector.to_vec() }.apply(&mut inode.durable);
                            }
                        }
                    }
                }
                _ => change.apply(&mut inode.durable),
            }
        }
        inode.live.clone_from(&inode.durable);
    }
}

/// The disk as one incarnation of a node sees it.
pub(super) struct NodeDisk {
    disk: SimDisk,
    epoch: u64,
}

impl NodeDisk {
    pub(super) fn new(disk: SimDisk, epoch: u64) -> NodeDisk {
        NodeDisk { disk, epoch }
    }
}

impl fmt::Debug for NodeDisk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NodeDisk").field("epoch", &self.epoch).finish_non_exhaustive()
    }
}

/// Paths are absolute in the simulation; a relative one is taken from the root.
fn absolute(path: &Path) -> PathBuf {
    Path::new("/").join(path)
}

impl Disk for NodeDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let path = absolute(path);
        let mut state = self.disk.state.lock();
        state.check(self.epoch)?;
        let file = match (state.names.get(&path).copied(), mode) {
            (Some(Entry::Directory), _) => return Err(io::ErrorKind::IsADirectory.into()),
            (Some(Entry::File(_)), OpenMode::CreateNew) => return Err(io::ErrorKind::AlreadyExists.into()),
            (Some(Entry::File(file)), _) => file,
            (None, OpenMode::Read | OpenMode::ReadWrite) => return Err(io::ErrorKind::NotFound.into()),
            (None, OpenMode::Create | OpenMode::CreateNew) => {
                state.begin_change(self.epoch)?;
                state.require_dir(path.parent().unwrap_or(Path::new("/")))?;
                state.next_file += 1;
                let file = state.next_file;
                state.files.insert(file, Inode::default());
                state.names.insert(path, Entry::File(file));
                file
            }
        };
        Ok(Arc::new(SimFile {
            disk: self.disk.clone(),
            epoch: self.epoch,
            file,
            writable: mode != OpenMode::Read,
        }))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let (from, to) = (absolute(from), absolute(to));
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        match state.names.get(&from).copied() {
            Some(Entry::File(file)) => {
                state.names.remove(&from);
                state.names.insert(to, Entry::File(file));
                Ok(())
            }
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        match state.names.get(&path) {
            Some(Entry::File(_)) => {
                state.names.remove(&path);
                Ok(())
            }
            Some(Entry::Directory) => Err(io::ErrorKind::IsADirectory.into()),
            None => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        let mut directories: Vec<PathBuf> = path.ancestors().map(Path::to_path_buf).collect();
        directories.reverse();
        for directory in directories {
            match state.names.get(&directory) {
                Some(Entry::File(_)) => return Err(io::ErrorKind::NotADirectory.into()),
                Some(Entry::Directory) => {}
                None => {
                    state.names.insert(directory.clone(), Entry::Directory);
                    state.durable_names.insert(directory, Entry::Directory);
                }
            }
        }
        Ok(())
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        let path = absolute(path);
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        state.names.retain(|name, _| !name.starts_with(&path));
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let dir = absolute(dir);
        let state = self.disk.state.lock();
        state.check(self.epoch)?;
        state.require_dir(&dir)?;
        Ok(state.names.keys().filter(|path| path.parent() == Some(&dir)).cloned().collect())
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        let state = self.disk.state.lock();
        state.check(self.epoch)?;
        Ok(state.names.contains_key(&absolute(path)))
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        let dir = absolute(dir);
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        state.require_dir(&dir)?;
        let ppm = state.faults.sync_errors_ppm;
        if state.chance(ppm) {
            return Err(io::Error::other("simulated sync error"));
        }
        state.sync_dir(&dir);
        Ok(())
    }

    fn sync_filesystem(&self, _path: &Path) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        let files: Vec<u64> = state.files.keys().copied().collect();
        for file in files {
            state.sync(self.epoch, file)?;
        }
        state.begin_change(self.epoch)?;
        state.durable_names = state.names.clone();
        Ok(())
    }

    fn available_bytes(&self, _path: &Path) -> io::Result<u64> {
        /// What an unlimited disk claims to have.
        const PLENTY_BYTES: u64 = 1 << 40;
        let state = self.disk.state.lock();
        state.check(self.epoch)?;
        let capacity = state.faults.capacity_bytes.unwrap_or(PLENTY_BYTES);
        Ok(capacity.saturating_sub(state.used_bytes()))
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let path = absolute(path);
        let mut state = self.disk.state.lock();
        state.check(self.epoch)?;
        state.require_dir(path.parent().unwrap_or(Path::new("/")))?;
        if !state.locks.insert(path.clone()) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        Ok(Box::new(SimLock { disk: self.disk.clone(), epoch: self.epoch, path }))
    }
}

struct SimLock {
    disk: SimDisk,
    epoch: u64,
    path: PathBuf,
}

impl fmt::Debug for SimLock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimLock").field("path", &self.path).finish_non_exhaustive()
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        let mut state = self.disk.state.lock();
        if state.epoch == self.epoch {
            state.locks.remove(&self.path);
        }
    }
}

struct SimFile {
    disk: SimDisk,
    epoch: u64,
    file: u64,
    writable: bool,
}

impl fmt::Debug for SimFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SimFile").field("file", &self.file).finish_non_exhaustive()
    }
}

fn position(offset: u64) -> io::Result<usize> {
    usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput.into())
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.writable { Ok(()) } else { Err(io::ErrorKind::PermissionDenied.into()) }
    }
}

impl File for SimFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        state.begin_read(self.epoch)?;
        let inode = state.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        let start = position(offset)?;
        let content = inode.live.get(start..start + buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(content);
        Ok(())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_writable()?;
        self.disk.state.lock().write(self.epoch, self.file, position(offset)?, bytes)
    }

    fn len(&self) -> io::Result<u64> {
        let state = self.disk.state.lock();
        state.check(self.epoch)?;
        let inode = state.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        Ok(inode.live.len() as u64)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        let length = position(len)?;
        state.check_room(self.file, length)?;
        state.change(self.file, Change::Length(length))
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.check_writable()?;
        let mut state = self.disk.state.lock();
        state.begin_change(self.epoch)?;
        let end = position(offset)? + position(len)?;
        state.check_room(self.file, end)?;
        let inode = state.files.get(&self.file).ok_or(io::ErrorKind::NotFound)?;
        if inode.live.len() >= end {
            return Ok(());
        }
        state.change(self.file, Change::Length(end))
    }

    fn sync_data(&self) -> io::Result<()> {
        self.disk.state.lock().sync(self.epoch, self.file)
    }

    fn sync_all(&self) -> io::Result<()> {
        self.sync_data()
    }
}
