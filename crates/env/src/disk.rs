//! The disk as the database sees it: files read and written by position, directories that must be synced.
//!
//! All calls block; they are made from the log's own thread or inside [`Env::blocking`](crate::Env::blocking),
//! never on a reactor thread when they may take long.
//!
//! What is durable:
//! - bytes of a file: those written before a `sync_data` or `sync_all` of it returned `Ok`;
//! - the length of a file: as its bytes;
//! - a name in a directory (created, renamed, removed): once `sync_dir` of that directory returned `Ok`.
//!
//! After a failed sync nothing is known about any byte written since the last good one; the caller must stop
//! using the file and never sync again in hope (the kernel may have dropped the dirty pages and report success).

use std::any::Any;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// For reading; the file must exist.
    Read,
    /// For reading and writing; the file must exist.
    ReadWrite,
    /// For reading and writing; created empty if absent.
    Create,
    /// For reading and writing; fails with `AlreadyExists` if the file is there.
    CreateNew,
}

/// Keeps a lock until dropped.
pub trait DiskLock: Any + Send + Sync + fmt::Debug {}

/// An open file. Shared freely: every call names its position.
pub trait File: Send + Sync + fmt::Debug {
    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before the buffer is full; any error of the device.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes all of `bytes` at `offset`, growing the file if needed. Not durable before a sync.
    ///
    /// # Errors
    /// `StorageFull` when the disk has no room; any error of the device. Part of the bytes may be written.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// The length in bytes.
    ///
    /// # Errors
    /// Any error of the device.
    fn len(&self) -> io::Result<u64>;

    /// Whether the file has no bytes.
    ///
    /// # Errors
    /// Any error of the device.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Cuts or extends the file; new bytes read as zero.
    ///
    /// # Errors
    /// Any error of the device.
    fn set_len(&self, len: u64) -> io::Result<()>;

    /// Reserves disk space for `len` bytes from `offset` and extends the file to cover them, so that writing
    /// there later cannot fail for want of space. Bytes that were there stay; new ones read as zero.
    ///
    /// # Errors
    /// `StorageFull` when there is no room.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Makes the bytes durable, and of the metadata what is needed to read them again.
    ///
    /// # Errors
    /// Any error is final for this file: see the module's text.
    fn sync_data(&self) -> io::Result<()>;

    /// Makes bytes and all metadata durable.
    ///
    /// # Errors
    /// As [`sync_data`](File::sync_data).
    fn sync_all(&self) -> io::Result<()>;
}

/// A file system.
pub trait Disk: Send + Sync + fmt::Debug {
    /// Opens a file.
    ///
    /// # Errors
    /// `NotFound`, `AlreadyExists` as the mode says; any error of the device.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>>;

    /// Renames a file, replacing the target if there is one, atomically. Files only, and within one directory.
    /// Durable after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// `NotFound`; any error of the device.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file. Durable after [`sync_dir`](Disk::sync_dir).
    ///
    /// # Errors
    /// `NotFound`; any error of the device.
    fn remove_file(&self, path: &Path) -> io::Result<()>;

    /// Creates a directory and those above it, and makes each new name durable.
    ///
    /// # Errors
    /// Any error of the device.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Removes a directory and all below it; nothing to do if it is absent.
    ///
    /// # Errors
    /// Any error of the device.
    fn remove_dir_all(&self, path: &Path) -> io::Result<()>;

    /// The full paths of what is directly in a directory, in order of name.
    ///
    /// # Errors
    /// `NotFound`; any error of the device.
    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>>;

    /// Whether there is a file or directory of this name.
    ///
    /// # Errors
    /// Any error of the device.
    fn exists(&self, path: &Path) -> io::Result<bool>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    /// Any error is final, as for [`File::sync_data`].
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;

    /// Makes everything on the file system that holds `path` durable: for libraries that write by themselves
    /// and sync less than they promise.
    ///
    /// # Errors
    /// As [`File::sync_data`].
    fn sync_filesystem(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written to the file system that holds `path`.
    ///
    /// # Errors
    /// Any error of the device.
    fn available_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Takes the exclusive lock named by a file (created if absent), without waiting. The lock ends with the
    /// guard or with the process.
    ///
    /// # Errors
    /// `WouldBlock` when someone else holds it; any error of the device.
    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn DiskLock>>;
}
