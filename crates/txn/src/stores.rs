//! The engine in use, and how another takes its place.
//!
//! ```text
//!   DIR/CURRENT    the name of the engine in use
//!   DIR/CURRENT-8  what `CURRENT` will be when store-8 takes its place
//!   DIR/store-7    that engine
//!   DIR/store-8    being filled by a snapshot, or left over from an install that did not finish
//!   DIR/waiting    empty: in use while the engine that `CURRENT` names is damaged and a snapshot is waited for
//!   DIR/WITHHELD   there while the state differs from that of the other replicas or is damaged, with the reason
//!   DIR/diverged   the engine that was replaced when the state was last withheld, for people to look at
//! ```
//!
//! `CURRENT` changes by one rename of a synced file, followed by a sync of the folder: before it the old state
//! counts, after it the new one. What `CURRENT` does not name is removed at opening.
//!
//! An engine that is found damaged at opening, or a `CURRENT` that cannot be read, stays as it is until another state is
//! in its place: until then it is the only copy that is known of.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use parking_lot::Mutex;
use rustydb_env::{Bug, Env, OpenMode};
use rustydb_storage::engine::{Engine, EngineError};
use xxhash_rust::xxh3::xxh3_64;

use crate::damage::Damage;
use crate::error::ApplyError;

/// Opens the engine at a path, creating it when absent.
pub type EngineOpener = Arc<dyn Fn(&Path) -> Result<Arc<dyn Engine>, EngineError> + Send + Sync>;

struct Current {
    /// Where it is.
    path: PathBuf,
    /// The last number that was given out.
    last: u64,
    engine: Arc<dyn Engine>,
    /// Those in whose stead it is empty.
    lost: Option<Lost>,
}

/// A state that cannot be read.
struct Lost {
    reason: String,
    /// Its engines, the newest last: more than one only where it is not known which of them was in use.
    paths: Vec<PathBuf>,
}

/// The engines of one store.
pub(crate) struct Stores {
    env: Env,
    dir: PathBuf,
    opener: EngineOpener,
    current: Mutex<Current>,
    damage: Damage,
}

const POINTER: &str = "CURRENT";
/// What the names of pointers begin with that are to take the place of [`POINTER`].
const POINTER_NEXT: &str = "CURRENT-";
const PREFIX: &str = "store-";
const WAITING: &str = "waiting";
/// The number of the engine at [`WAITING`].
const WAITING_NUMBER: u64 = 0;
const WITHHELD: &str = "WITHHELD";
const DIVERGED: &str = "diverged";

impl Stores {
    /// Opens the engine that the folder names; the first one in a new folder. If that is damaged, an empty one takes its
    /// stead, and the state is [lost](Stores::lost).
    pub(crate) fn open(env: &Env, dir: PathBuf, opener: EngineOpener) -> Result<Stores, ApplyError> {
        let disk = env.disk();
        disk.create_dir_all(&dir)?;
        remove(env, &dir.join(WAITING))?;
        for path in disk.list(&dir)? {
            if path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(POINTER_NEXT))
            {
                remove(env, &path)?;
            }
        }
        let mut present = numbered(env, &dir)?;
        let damage = Damage::new();
        let opened = match named(env, &dir, &present)? {
            Ok(number) => {
                for (_, path) in present.iter().filter(|(other, _)| *other != number) {
                    remove(env, path)?;
                }
                let path = dir.join(store_name(number));
                present = vec![(number, path.clone())];
                match opener(&path) {
                    Ok(engine) => {
                        damage.begin(number);
                        let engine = damage.watch(number, path.clone(), engine);
                        Ok(Current { path, last: number, engine, lost: None })
                    }
                    Err(error) if error.is_damage() => Err(error.to_string()),
                    Err(error) => return Err(error.into()),
                }
            }
            Err(reason) => Err(reason),
        };
        let current = match opened {
            Ok(current) => current,
            Err(reason) => {
                let last = present.last().map_or(0, |(number, _)| *number);
                let paths = present.into_iter().map(|(_, path)| path).collect();
                waiting(env, &dir, &opener, &damage, Lost { reason, paths }, last)?
            }
        };
        Ok(Stores { env: env.clone(), dir, opener, current: Mutex::new(current), damage })
    }

    /// What makes the state unreadable since it was opened, if anything does.
    pub(crate) fn lost(&self) -> Option<String> {
        self.current.lock().lost.as_ref().map(|lost| lost.reason.clone())
    }

    /// From here on the state is lost and an empty engine in its stead, since what is stored cannot be read.
    pub(crate) fn lose(&self, reason: String) -> Result<(), ApplyError> {
        let (paths, last) = {
            let current = self.current.lock();
            (vec![current.path.clone()], current.last)
        };
        let waiting =
            waiting(&self.env, &self.dir, &self.opener, &self.damage, Lost { reason, paths }, last)?;
        *self.current.lock() = waiting;
        Ok(())
    }

    /// Whether the engine in use is damaged.
    pub(crate) const fn damage(&self) -> &Damage {
        &self.damage
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
        Ok((number, self.damage.watch(number, path, engine)))
    }

    /// Makes ready what [`switch`](Stores::switch) needs, durably, so that it needs no room on the disk.
    pub(crate) fn prepare(&self, number: u64) -> Result<(), ApplyError> {
        prepare_pointer(&self.env, &self.dir, number)
    }

    /// Puts a filled engine that is [prepared](Stores::prepare) in the place of the one in use, durably. The former's files are removed, or kept aside if
    /// the state is withheld; who still reads its view reads on.
    ///
    /// # Errors
    /// The pointer cannot be written; the engine in use stays. Whatever fails after that is logged only: the new engine
    /// is in use then, its reader must know of it, and what is left of the former one goes at the next start.
    pub(crate) fn switch(&self, number: u64, engine: Arc<dyn Engine>) -> Result<(), ApplyError> {
        move_pointer(&self.env, &self.dir, number)?;
        let (former, unfilled) = {
            let mut current = self.current.lock();
            let path = std::mem::replace(&mut current.path, self.dir.join(store_name(number)));
            current.engine = engine;
            match current.lost.take() {
                Some(lost) => (lost.paths, Some(path)),
                None => (vec![path], None),
            }
        };
        self.damage.begin(number);
        if let Err(error) = self.clear(former, unfilled) {
            tracing::warn!(dir = %self.dir.display(), %error, "files of a former engine are not removed yet");
        }
        Ok(())
    }

    /// Removes what is not in use any more, but for what is kept aside, which comes first.
    fn clear(&self, mut former: Vec<PathBuf>, unfilled: Option<PathBuf>) -> Result<(), ApplyError> {
        let (disk, aside) = (self.env.disk(), self.dir.join(DIVERGED));
        if self.is_withheld()?
            && !disk.exists(&aside)?
            && let Some(newest) = former.pop()
            && disk.exists(&newest)?
        {
            disk.rename(&newest, &aside)?;
            disk.sync_dir(&self.dir)?;
        }
        unfilled.iter().chain(&former).try_for_each(|path| remove(&self.env, path))
    }

    /// Removes an engine that was not filled to its end.
    pub(crate) fn abandon(&self, number: u64) -> Result<(), ApplyError> {
        // The large one first.
        remove(&self.env, &self.dir.join(store_name(number)))?;
        remove(&self.env, &next_pointer(&self.dir, number))
    }

    /// Whether the state was withheld when this was last said.
    pub(crate) fn is_withheld(&self) -> Result<bool, ApplyError> {
        Ok(self.env.disk().exists(&self.dir.join(WITHHELD))?)
    }

    /// Says, durably, that the state is withheld, and why. What an earlier time left aside is removed.
    pub(crate) fn withhold(&self, reason: &str) -> Result<(), ApplyError> {
        remove(&self.env, &self.dir.join(DIVERGED))?;
        mark_withheld(&self.env, &self.dir, reason)
    }

    /// Says, durably, that the state counts again.
    pub(crate) fn release(&self) -> Result<(), ApplyError> {
        remove(&self.env, &self.dir.join(WITHHELD))?;
        Ok(self.env.disk().sync_dir(&self.dir)?)
    }
}

/// An empty engine in the stead of a state that is lost. That it is withheld is durable before anything else is.
fn waiting(
    env: &Env,
    dir: &Path,
    opener: &EngineOpener,
    damage: &Damage,
    lost: Lost,
    last: u64,
) -> Result<Current, ApplyError> {
    tracing::error!(dir = %dir.display(), reason = lost.reason, "the stored state cannot be read");
    mark_withheld(env, dir, &lost.reason)?;
    let path = dir.join(WAITING);
    remove(env, &path)?;
    damage.begin(WAITING_NUMBER);
    let engine = damage.watch(WAITING_NUMBER, path.clone(), opener(&path)?);
    Ok(Current { path, last, engine, lost: Some(lost) })
}

fn mark_withheld(env: &Env, dir: &Path, reason: &str) -> Result<(), ApplyError> {
    let disk = env.disk();
    let file = disk.open(&dir.join(WITHHELD), OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(0, format!("{reason}\n").as_bytes())?;
    file.sync_all()?;
    Ok(disk.sync_dir(dir)?)
}

fn store_name(number: u64) -> String {
    format!("{PREFIX}{number}")
}

fn number_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.parse().ok()
}

/// The engines that are there, in the order of their numbers.
fn numbered(env: &Env, dir: &Path) -> Result<Vec<(u64, PathBuf)>, ApplyError> {
    let paths = env.disk().list(dir)?;
    let number = |path: &PathBuf| number_of(path.file_name()?.to_str()?);
    let mut found: Vec<_> = paths.into_iter().filter_map(|path| Some((number(&path)?, path))).collect();
    found.sort_unstable();
    Ok(found)
}

/// The number of the engine in use, or why it cannot be told. A folder without engines gets its first one.
fn named(env: &Env, dir: &Path, present: &[(u64, PathBuf)]) -> Result<Result<u64, String>, ApplyError> {
    const FIRST: u64 = 1;
    let path = dir.join(POINTER);
    if !env.disk().exists(&path)? {
        if !present.is_empty() {
            return Ok(Err(format!("{} is missing", path.display())));
        }
        prepare_pointer(env, dir, FIRST)?;
        move_pointer(env, dir, FIRST)?;
        return Ok(Ok(FIRST));
    }
    // Whoever wrote it may have been killed before its name was durable, and what it does not name is removed.
    env.disk().sync_dir(dir)?;
    Ok(match read_pointer(env, &path)? {
        Some(number) if present.iter().any(|(other, _)| *other == number) => Ok(number),
        // The first one is named before it is made.
        Some(FIRST) if present.is_empty() => Ok(FIRST),
        Some(number) => Err(format!("{} names {}, which is missing", path.display(), store_name(number))),
        None => Err(format!("{} is damaged: it names no engine", path.display())),
    })
}

fn read_pointer(env: &Env, path: &Path) -> Result<Option<u64>, ApplyError> {
    let file = env.disk().open(path, OpenMode::Read)?;
    let size = usize::try_from(file.len()?).unwrap_or(usize::MAX).min(64);
    let mut bytes = vec![0; size];
    file.read_at(0, &mut bytes)?;
    Ok(std::str::from_utf8(&bytes).ok().and_then(pointed_at))
}

/// What is written to the pointer: the name, and a checksum, so that a changed bit does not name another engine.
fn pointer_to(number: u64) -> String {
    let name = store_name(number);
    format!("{name} {:016x}\n", xxh3_64(name.as_bytes()))
}

/// What a pointer names. One of an earlier release has no checksum.
fn pointed_at(text: &str) -> Option<u64> {
    let text = text.strip_suffix('\n').unwrap_or(text);
    let (name, sum) = text.split_once(' ').unwrap_or((text, ""));
    let is_whole = sum.is_empty() || format!("{:016x}", xxh3_64(name.as_bytes())) == sum;
    number_of(name).filter(|_| is_whole)
}

fn next_pointer(dir: &Path, number: u64) -> PathBuf {
    dir.join(format!("{POINTER_NEXT}{number}"))
}

/// Writes what the pointer will be.
fn prepare_pointer(env: &Env, dir: &Path, number: u64) -> Result<(), ApplyError> {
    let file = env.disk().open(&next_pointer(dir, number), OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(0, pointer_to(number).as_bytes())?;
    if !env.has_bug(Bug::PointerNotSynced) {
        file.sync_all()?;
    }
    Ok(())
}

/// Makes the pointer what was prepared.
fn move_pointer(env: &Env, dir: &Path, number: u64) -> Result<(), ApplyError> {
    let disk = env.disk();
    disk.rename(&next_pointer(dir, number), &dir.join(POINTER))?;
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_changed_bit_of_a_pointer_names_another_engine() {
        for number in [1, 2, 3, 7, 10, 4711] {
            let text = pointer_to(number);
            assert_eq!(pointed_at(&text), Some(number));
            for place in 0..text.len() * 8 {
                let mut bytes = text.clone().into_bytes();
                bytes[place / 8] ^= 1 << (place % 8);
                let named = std::str::from_utf8(&bytes).ok().and_then(pointed_at);
                assert!(named.is_none_or(|named| named == number), "{bytes:?}");
            }
        }
        assert_eq!(pointed_at("store-7\n"), Some(7), "of an earlier release");
    }
}
