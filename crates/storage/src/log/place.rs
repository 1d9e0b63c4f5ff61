//! Which folder a node's log is in, and which groups have lost what they had in an earlier one.
//!
//! ```text
//!   DATA/log      the first folder; stays as it is when it is found damaged
//!   DATA/log-1    the one that was begun then
//!   DATA/LOG      which is in use, and the groups that are not mended yet; absent while it is the first, and all are well
//! ```
//!
//! A damaged log is neither cut nor read in part: a frame that cannot be read may have held a vote or entries that were
//! acknowledged. A new one is begun beside it, in the same durable step that notes all groups as unmended. What that
//! means for a group is consensus's business: it takes no part in elections until it has again what it may have
//! promised.
//!
//! `LOG` is text: `folder NAME`, a line `mending GROUP` for each such group, and `sum CRC-32` of what is before.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustydb_env::{Env, OpenMode};
use rustydb_types::ids::GroupId;

use super::config::LogConfig;
use super::error::LogError;
use super::handle::Log;

const FILE: &str = "LOG";
const FILE_NEW: &str = "LOG.new";
const FIRST: &str = "log";
/// The file is small and written by us.
const SIZE_MAX: u64 = 1 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Place {
    folder: String,
    mending: BTreeSet<GroupId>,
}

/// Where the log of a node is. One per data folder.
pub struct LogPlace {
    env: Env,
    data: PathBuf,
    place: Mutex<Place>,
}

impl LogPlace {
    /// Reads it from a data folder; the first folder where nothing is written.
    ///
    /// # Errors
    /// [`LogError::Corrupt`] when what is written cannot be read, [`LogError::Io`].
    pub fn load(env: &Env, data: &Path) -> Result<LogPlace, LogError> {
        let path = data.join(FILE);
        let at_path = |error| LogError::io(&path, error);
        let disk = env.disk();
        let place = if disk.exists(&path).map_err(at_path)? {
            let file = disk.open(&path, OpenMode::Read).map_err(at_path)?;
            let size = file.len().map_err(at_path)?.min(SIZE_MAX);
            let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
            file.read_at(0, &mut bytes).map_err(at_path)?;
            decode(&bytes).ok_or_else(|| LogError::Corrupt {
                path: path.clone(),
                offset: 0,
                detail: "it does not name the folder of the log".to_owned(),
            })?
        } else {
            Place { folder: FIRST.to_owned(), mending: BTreeSet::new() }
        };
        Ok(LogPlace { env: env.clone(), data: data.to_owned(), place: Mutex::new(place) })
    }

    /// The folder in use.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.data.join(&self.place.lock().folder)
    }

    /// Opens the log. If it is damaged and there are `groups`, it is left as it is, a new one is begun, and all of them
    /// are to be mended. Blocks for the disk.
    ///
    /// # Errors
    /// As [`Log::open`].
    pub fn open(
        &self,
        config: LogConfig,
        groups: impl IntoIterator<Item = GroupId>,
    ) -> Result<Log, LogError> {
        let folder = self.folder();
        let error = match Log::open(&self.env, &folder, config) {
            Err(error @ LogError::Corrupt { .. }) => error,
            opened => return opened,
        };
        let mut mending = self.place.lock().mending.clone();
        mending.extend(groups);
        if mending.is_empty() {
            return Err(error);
        }
        let folder = self.unused()?;
        tracing::error!(%error, begun = folder, "the log is damaged; it stays as it is, and what it had comes from the other nodes");
        let new = Place { folder, mending };
        self.write(&new)?;
        *self.place.lock() = new;
        Log::open(&self.env, &self.folder(), config)
    }

    /// Whether a group has not got back what it may have lost.
    #[must_use]
    pub fn is_mending(&self, group: GroupId) -> bool {
        self.place.lock().mending.contains(&group)
    }

    /// The groups that have not.
    #[must_use]
    pub fn mending(&self) -> BTreeSet<GroupId> {
        self.place.lock().mending.clone()
    }

    /// A group has, or is no more; durable at return. Blocks for the disk.
    ///
    /// # Errors
    /// [`LogError::Io`]: it still counts as unmended.
    pub fn mended(&self, group: GroupId) -> Result<(), LogError> {
        // Under the lock to its end: two groups may be mended at the same time.
        let mut place = self.place.lock();
        let mut new = place.clone();
        if new.mending.remove(&group) {
            self.write(&new)?;
            *place = new;
        }
        Ok(())
    }

    /// A name that no folder has.
    fn unused(&self) -> Result<String, LogError> {
        let mut number = 1_u64;
        loop {
            let (name, path) = (format!("{FIRST}-{number}"), self.data.join(format!("{FIRST}-{number}")));
            if !self.env.disk().exists(&path).map_err(|error| LogError::io(&path, error))? {
                return Ok(name);
            }
            number += 1;
        }
    }

    fn write(&self, new: &Place) -> Result<(), LogError> {
        let (path, temporary) = (self.data.join(FILE), self.data.join(FILE_NEW));
        let disk = self.env.disk();
        let write = || {
            let file = disk.open(&temporary, OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(0, encode(new).as_bytes())?;
            file.sync_all()?;
            disk.rename(&temporary, &path)?;
            disk.sync_dir(&self.data)
        };
        write().map_err(|error| LogError::io(&path, error))
    }
}

fn encode(place: &Place) -> String {
    let mut text = format!("folder {}\n", place.folder);
    for group in &place.mending {
        text.push_str(&format!("mending {group}\n"));
    }
    let sum = crc32fast::hash(text.as_bytes());
    text.push_str(&format!("sum {sum:08x}\n"));
    text
}

fn decode(bytes: &[u8]) -> Option<Place> {
    let text = std::str::from_utf8(bytes).ok()?;
    let mut place = Place { folder: String::new(), mending: BTreeSet::new() };
    for line in text.lines() {
        match line.split_once(' ')? {
            ("folder", name) => name.clone_into(&mut place.folder),
            ("mending", group) => {
                place.mending.insert(GroupId::new(group.parse().ok()?));
            }
            ("sum", _) => {}
            _ => return None,
        }
    }
    // Byte for byte what would be written, so the checksum is right, too.
    (encode(&place) == text && !place.folder.is_empty()).then_some(place)
}

#[cfg(test)]
mod tests {
    use rustydb_types::ids::{LogIndex, Term};

    use super::super::LogEntry;
    use super::*;

    fn config() -> LogConfig {
        LogConfig { segment_bytes: 1 << 20, reserve_bytes: 1 << 20, ..LogConfig::default() }
    }

    #[test]
    fn no_changed_bit_is_taken_for_what_was_written() {
        let place = Place { folder: "log-3".to_owned(), mending: [1, 7, 300].map(GroupId::new).into() };
        let text = encode(&place);
        assert_eq!(decode(text.as_bytes()), Some(place));
        for bit in 0..text.len() * 8 {
            let mut bytes = text.clone().into_bytes();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&bytes), None, "{:?}", String::from_utf8_lossy(&bytes));
        }
        for length in 0..text.len() {
            assert_eq!(decode(text.get(..length).unwrap().as_bytes()), None, "{length}");
        }
    }

    #[test]
    fn groups_that_are_mended_at_the_same_time_are_all_noted() {
        let (env, data) = (Env::os(), tempfile::tempdir().unwrap());
        let place = LogPlace::load(&env, data.path()).unwrap();
        let groups = || (1..=8).map(GroupId::new);
        for _ in 0..5 {
            let new = Place { folder: FIRST.to_owned(), mending: groups().collect() };
            place.write(&new).unwrap();
            *place.place.lock() = new;
            std::thread::scope(|scope| {
                for group in groups() {
                    let place = &place;
                    scope.spawn(move || place.mended(group).unwrap());
                }
            });
            assert_eq!(place.mending(), BTreeSet::new());
            assert_eq!(LogPlace::load(&env, data.path()).unwrap().mending(), BTreeSet::new());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_damaged_log_stays_as_it_is_and_another_is_begun_for_groups_that_can_be_mended() {
        let (env, data) = (Env::os(), tempfile::tempdir().unwrap());
        let (group, other) = (GroupId::new(2), GroupId::new(3));
        let segment = data.path().join("log/0000000000000001.log");
        let begin = || LogPlace::load(&env, data.path()).unwrap();
        let log = begin().open(config(), []).unwrap();
        for index in 0..20 {
            let (done, written) = tokio::sync::oneshot::channel();
            let entry =
                LogEntry { index: LogIndex::new(index), term: Term::new(1), body: vec![7; 100].into() };
            log.group(group).append(vec![entry], Box::new(move |result| drop(done.send(result))));
            written.await.unwrap().unwrap();
        }
        log.close().await;
        let mut damaged = std::fs::read(&segment).unwrap();
        damaged[1000] ^= 8;
        std::fs::write(&segment, &damaged).unwrap();
        assert!(matches!(begin().open(config(), []), Err(LogError::Corrupt { .. })), "nobody else has it");
        let log = begin().open(config(), [group, other]).unwrap();
        assert_eq!(log.groups(), []);
        log.close().await;
        assert_eq!(std::fs::read(&segment).unwrap(), damaged);
        let place = begin();
        assert_eq!(place.mending(), [group, other].into());
        place.mended(group).unwrap();
        place.mended(group).unwrap();
        assert_eq!(begin().mending(), [other].into());
        assert!(begin().folder().ends_with("log-1"));
        begin().open(config(), []).unwrap().close().await;
    }
}
