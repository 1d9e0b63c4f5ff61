//! The file system of the operating system.

use std::fs;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{FallocateFlags, FlockOperation};

use crate::disk::{Disk, DiskLock, File, OpenMode};

/// `std::fs`, by position, with the directory syncs that durable names need.
#[derive(Clone, Copy, Debug, Default)]
pub struct OsDisk;

#[derive(Debug)]
struct OsFile(fs::File);

/// The lock of an open file description; the kernel ends it when the last descriptor is closed.
#[derive(Debug)]
struct OsLock(#[expect(dead_code, reason = "kept open: closing it ends the lock")] fs::File);

impl DiskLock for OsLock {}

/// The directory that holds `path`, `.` for a bare name.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => Path::new("/"),
    }
}

impl Disk for OsDisk {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn File>> {
        let mut options = fs::OpenOptions::new();
        options.read(true);
        match mode {
            OpenMode::Read => &mut options,
            OpenMode::ReadWrite => options.write(true),
            OpenMode::Create => options.write(true).create(true).truncate(false),
            OpenMode::CreateNew => options.write(true).create_new(true),
        };
        Ok(Arc::new(OsFile(options.open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        if path.as_os_str().is_empty() {
            return Ok(());
        }
        let above = parent(path);
        if path.is_dir() {
            // Whoever made it may have been killed before its name was durable. Where the directory above may not be
            // opened, nobody of this kind has made it.
            return match self.sync_dir(above) {
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
                other => other,
            };
        }
        self.create_dir_all(above)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        self.sync_dir(above)
    }

    fn remove_dir_all(&self, path: &Path) -> io::Result<()> {
        match fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<PathBuf>> {
        let mut paths = Vec::new();
        for entry in fs::read_dir(dir)? {
            paths.push(entry?.path());
        }
        paths.sort_unstable();
        Ok(paths)
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        path.try_exists()
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn sync_filesystem(&self, path: &Path) -> io::Result<()> {
        Ok(rustix::fs::syncfs(fs::File::open(path)?)?)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(path)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock_exclusive(&self, path: &Path) -> io::Result<Box<dyn DiskLock>> {
        let file = fs::OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path)?;
        rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(OsLock(file)))
    }
}

impl File for OsFile {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(buffer, offset)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, offset)
    }

    fn len(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        match rustix::fs::fallocate(&self.0, FallocateFlags::empty(), offset, len) {
            // A file system without reservations: the space is then not promised, only the length set.
            Err(rustix::io::Errno::OPNOTSUPP) => {
                let end = offset.saturating_add(len);
                if self.len()? < end { self.set_len(end) } else { Ok(()) }
            }
            other => Ok(other?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }

    fn sync_all(&self) -> io::Result<()> {
        self.0.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_written_by_position_and_listed_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("a/b");
        OsDisk.create_dir_all(&deep).unwrap();
        let file = OsDisk.open(&deep.join("2"), OpenMode::CreateNew).unwrap();
        file.write_at(3, b"xyz").unwrap();
        file.sync_all().unwrap();
        assert_eq!(file.len().unwrap(), 6);
        let mut bytes = [9u8; 6];
        file.read_at(0, &mut bytes).unwrap();
        assert_eq!(&bytes, b"\0\0\0xyz");
        assert_eq!(file.read_at(4, &mut bytes).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        file.allocate(0, 4096).unwrap();
        assert_eq!(file.len().unwrap(), 4096);
        OsDisk.open(&deep.join("1"), OpenMode::Create).unwrap();
        OsDisk.sync_dir(&deep).unwrap();
        assert_eq!(OsDisk.list(&deep).unwrap(), vec![deep.join("1"), deep.join("2")]);
        OsDisk.rename(&deep.join("1"), &deep.join("2")).unwrap();
        assert_eq!(OsDisk.open(&deep.join("2"), OpenMode::Read).unwrap().len().unwrap(), 0);
        assert!(OsDisk.available_bytes(&deep).unwrap() > 0);
        OsDisk.remove_dir_all(&deep).unwrap();
        OsDisk.remove_dir_all(&deep).unwrap();
        assert!(!OsDisk.exists(&deep).unwrap());
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("LOCK");
        let held = OsDisk.lock_exclusive(&path).unwrap();
        assert_eq!(OsDisk.lock_exclusive(&path).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(held);
        OsDisk.lock_exclusive(&path).unwrap();
    }
}
