//! The engine in use, and how another takes its place.
//!
//! ```text
//!   DIR/CURRENT    the name of the engine in use
//!   DIR/store-7    that engine
//!   DIR/store-8    being filled by a snapshot, or left over from an install that did not finish
//!   DIR/WITHHELD   there while the state differs from that of the other replicas, with the reason
//!   DIR/diverged   the engine that was replaced when the state was last withheld, for people to look at
//! ```
//!
//! `CURRENT` changes by one rename of a synced file, followed by a sync of the folder: before it the old state
//! counts, after it the new one. What `CURRENT` does not name is removed at opening.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustydb_env::{Bug, Env, OpenMode};
use rustydb_storage::engine::{Engine, EngineError};

use crate::error::ApplyError;

/// Opens the engine at a path, creating it when absent.
pub type EngineOpener = Arc<dyn Fn(&Path) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync>;

struct Current {
    number: u64,
    /// The last number that was given out.
    last: u64,
    engine: Arc<dyn Engine>,
}

/// The engines of one store.
pub(crate) struct Stores {
    env: Env,
    dir: PathBuf,
    opener: EngineOpener,
    current: Mutex<Current>,
}

const POINTER: &str = "CURRENT";
const POINTER_NEW: &str = "CURRENT.new";
const PREFIX: &str = "store-";
const WITHHELD: &str = "WITHHELD";
const DIVERGED: &str = "diverged";

impl Stores {
    /// Opens the engine that the folder names; the first one in a new folder.
    pub(crate) fn open(env: &Env, dir: PathBuf, opener: EngineOpener) -> Result<Stores, ApplyError> {
        let disk = env.disk();
        disk.create_dir_all(&dir)?;
        let number = if disk.exists(&dir.join(POINTER))? {
            // Whoever wrote it may have been killed before its name was durable, and what it does not name is removed.
            disk.sync_dir(&dir)?;
            read_pointer(env, &dir)?
        } else {
            write_pointer(env, &dir, 1)?;
            1
        };
        for path in disk.list(&dir)? {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(PREFIX) && name != store_name(number) {
                remove(env, &path)?;
            }
        }
        let engine = opener(&dir.join(store_name(number)))?;
        Ok(Stores {
            env: env.clone(),
            dir,
            opener,
            current: Mutex::new(Current { number, last: number, engine }),
        })
    }

    /// The engine in use.
    pub(crate) fn engine(&self) -> Arc<dyn Engine> {
        Arc::clone(&self.current.lock().engine)
    }

    /// A new, empty engine to be filled, with its number. Several may be filled at one time.
    pub(crate) fn create(&self) -> Result<(u64, Arc<dyn Engine>), ApplyError> {
        let number = {
            let mut current = self.current.lock();
            current.last += 1;
            current.last
        };
        let path = self.dir.join(store_name(number));
        remove(&self.env, &path)?;
        let engine = (self.opener)(&path)?;
        Ok((number, engine))
    }

    /// Puts a filled engine in the place of the one in use, durably. The former's files are removed; who still
    /// reads its view reads on.
    pub(crate) fn switch(&self, number: u64, engine: Arc<dyn Engine>) -> Result<(), ApplyError> {
        write_pointer(&self.env, &self.dir, number)?;
        let former = {
            let mut current = self.current.lock();
            let former = std::mem::replace(&mut current.number, number);
            current.engine = engine;
            self.dir.join(store_name(former))
        };
        let (disk, aside) = (self.env.disk(), self.dir.join(DIVERGED));
        if self.is_withheld()? && !disk.exists(&aside)? {
            disk.rename(&former, &aside)?;
            return Ok(disk.sync_dir(&self.dir)?);
        }
        remove(&self.env, &former)
    }

    /// Removes an engine that was not filled to its end.
    pub(crate) fn abandon(&self, number: u64) -> Result<(), ApplyError> {
        remove(&self.env, &self.dir.join(store_name(number)))
    }

    /// Whether the state was withheld when this was last said.
    pub(crate) fn is_withheld(&self) -> Result<bool, ApplyError> {
        Ok(self.env.disk().exists(&self.dir.join(WITHHELD))?)
    }

    /// Says, durably, that the state is withheld, and why. What an earlier time left aside is removed.
    pub(crate) fn withhold(&self, reason: &str) -> Result<(), ApplyError> {
        let disk = self.env.disk();
        remove(&self.env, &self.dir.join(DIVERGED))?;
        let file = disk.open(&self.dir.join(WITHHELD), OpenMode::Create)?;
        file.set_len(0)?;
        file.write_at(0, format!("{reason}\n").as_bytes())?;
        file.sync_all()?;
        Ok(disk.sync_dir(&self.dir)?)
    }

    /// Says, durably, that the state counts again.
    pub(crate) fn release(&self) -> Result<(), ApplyError> {
        remove(&self.env, &self.dir.join(WITHHELD))?;
        Ok(self.env.disk().sync_dir(&self.dir)?)
    }
}

fn store_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn read_pointer(env: &Env, dir: &Path) -> Result<u64, ApplyError> {
    let file = env.disk().open(&dir.join(POINTER), OpenMode::Read)?;
    let size = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(64);
    let mut bytes = vec![0; size];
    file.read_at(0, &mut bytes)?;
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim().strip_prefix(PREFIX)?.parse().ok())
        .ok_or(ApplyError::Stored { what: "pointer to the current engine" })
}

fn write_pointer(env: &Env, dir: &Path, number: u64) -> Result<(), ApplyError> {
    let disk = env.disk();
    let path = dir.join(POINTER_NEW);
    let file = disk.open(&path, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(0, format!("{}\n", store_name(number)).as_bytes())?;
    if !env.has_bug(Bug::PointerNotSynced) {
        file.sync_all()?;
    }
    disk.rename(&path, &dir.join(POINTER))?;
    if !env.has_bug(Bug::PointerNotSynced) {
        disk.sync_dir(dir)?;
    }
    Ok(())
}

/// Removes an engine, a file or a folder; nothing to do if it is absent.
fn remove(env: &Env, path: &Path) -> Result<(), ApplyError> {
    let disk = env.disk();
    if !disk.exists(path)? {
        return Ok(());
    }
    if disk.list(path).is_ok() {
        disk.remove_dir_all(path)?;
    } else {
        disk.remove_file(path)?;
    }
    Ok(())
}
