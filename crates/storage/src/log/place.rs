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
//! A log of which nothing is left where there was one is lost likewise, and so is one when nobody can say which folder
//! it is in: `LOG` cannot be read, or is gone although another folder than the first was begun. An old folder may be
//! sound and yet lack what was promised since.
//!
//! `LOG` is text: `folder NAME`, a line `mending GROUP` for each such group, and `sum CRC-32` of what is before.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustydb_env::{Disk, Env, OpenMode};
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

/// Whether there must be a log already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Past {
    /// The node may never have had one.
    Unknown,
    /// The node has had one: it belongs to a cluster.
    HadLog,
}

/// Where the log of a node is. One per data folder.
pub struct LogPlace {
    env: Env,
    data: PathBuf,
    place: Mutex<Place>,
    /// Why nobody can say which folder it is in.
    unknown: Option<LogError>,
}

impl LogPlace {
    /// Reads it from a data folder; the first folder where nothing is written. What is written and cannot be read is
    /// told by [`LogPlace::open`].
    ///
    /// # Errors
    /// [`LogError::Io`].
    pub fn load(env: &Env, data: &Path) -> Result<LogPlace, LogError> {
        let path = data.join(FILE);
        let disk = env.disk();
        let first = Place { folder: FIRST.to_owned(), mending: BTreeSet::new() };
        let unknown = |detail| LogError::Corrupt { path: path.clone(), offset: 0, detail };
        let (place, unknown) = if disk.exists(&path).map_err(|error| LogError::io(&path, error))? {
            match read(&**disk, &path) {
                Ok(Some(place)) => (place, None),
                Ok(None) => (first, Some(unknown("it does not name the folder of the log".to_owned()))),
                Err(error) => (first, Some(LogError::unreadable(&path, error))),
            }
        } else {
            let begun = folders(&**disk, data)?.into_iter().find(|folder| folder != FIRST);
            (first, begun.map(|begun| unknown(format!("it is gone, and {begun} was begun"))))
        };
        Ok(LogPlace { env: env.clone(), data: data.to_owned(), place: Mutex::new(place), unknown })
    }

    /// The folder in use.
    #[must_use]
    pub fn folder(&self) -> PathBuf {
        self.data.join(&self.place.lock().folder)
    }

    /// Opens the log. If it is damaged, lost or cannot be read and there are `groups`, what is there of it stays as it is,
    /// a new one is begun, and all of them are to be mended. Blocks for the disk.
    ///
    /// # Errors
    /// [`LogError::Gone`] when there is no log where there was one; as [`Log::open`].
    pub fn open(
        &self,
        config: LogConfig,
        past: Past,
        groups: impl IntoIterator<Item = GroupId>,
    ) -> Result<Log, LogError> {
        self.open_or_begin(config, past, groups, true)
    }

    /// The same, but that a log which cannot be read stays the one in use: the way to its disk may come back.
    ///
    /// # Errors
    /// [`LogError::Unreadable`]; as [`open`](LogPlace::open).
    pub fn open_readable(
        &self,
        config: LogConfig,
        past: Past,
        groups: impl IntoIterator<Item = GroupId>,
    ) -> Result<Log, LogError> {
        self.open_or_begin(config, past, groups, false)
    }

    fn open_or_begin(
        &self,
        config: LogConfig,
        past: Past,
        groups: impl IntoIterator<Item = GroupId>,
        gives_up_unreadable: bool,
    ) -> Result<Log, LogError> {
        match self.open_present(config, past) {
            Err(error @ (LogError::Corrupt { .. } | LogError::Gone { .. })) => {
                self.begin(error, config, groups)
            }
            Err(error @ LogError::Unreadable { .. }) if gives_up_unreadable => {
                self.begin(error, config, groups)
            }
            opened => opened,
        }
    }

    /// Begins another log, if there are groups that can be mended.
    fn begin(
        &self,
        error: LogError,
        config: LogConfig,
        groups: impl IntoIterator<Item = GroupId>,
    ) -> Result<Log, LogError> {
        let mut mending = self.place.lock().mending.clone();
        mending.extend(groups);
        if mending.is_empty() {
            return Err(error);
        }
        let folder = self.unused()?;
        tracing::error!(%error, begun = folder, "the log is damaged or lost; what is left stays as it is, and what it had comes from the other nodes");
        let new = Place { folder, mending };
        self.write(&new)?;
        *self.place.lock() = new;
        Log::open(&self.env, &self.folder(), config)
    }

    fn open_present(&self, config: LogConfig, past: Past) -> Result<Log, LogError> {
        if let Some(error) = &self.unknown {
            return Err(error.clone());
        }
        let folder = self.folder();
        if past == Past::HadLog && !Log::is_in(&self.env, &folder)? {
            return Err(LogError::Gone { path: folder });
        }
        Log::open(&self.env, &folder, config)
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

    /// A group has lost what it had in the log, though the log is sound; durable at return. Blocks for the disk.
    ///
    /// # Errors
    /// [`LogError::Io`]: it does not count as unmended.
    pub fn lost(&self, group: GroupId) -> Result<(), LogError> {
        let mut place = self.place.lock();
        let mut new = place.clone();
        if new.mending.insert(group) {
            self.write(&new)?;
            *place = new;
        }
        Ok(())
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

    /// A name behind those of all folders, so that none was ever used before.
    fn unused(&self) -> Result<String, LogError> {
        let number = |folder: &String| folder.strip_prefix(FIRST)?.strip_prefix('-')?.parse::<u64>().ok();
        let folders = folders(&**self.env.disk(), &self.data)?;
        let last = folders.iter().chain([&self.place.lock().folder]).filter_map(number).max();
        Ok(format!("{FIRST}-{}", last.unwrap_or(0).saturating_add(1)))
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

/// What a file says; [`None`] when it is not what was written.
fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<Place>> {
    let file = disk.open(path, OpenMode::Read)?;
    let size = file.len()?.min(SIZE_MAX);
    let mut bytes = vec![0; usize::try_from(size).unwrap_or(0)];
    file.read_at(0, &mut bytes)?;
    Ok(decode(&bytes))
}

/// The folders of logs in a data folder.
fn folders(disk: &dyn Disk, data: &Path) -> Result<Vec<String>, LogError> {
    let paths = match disk.list(data) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        paths => paths.map_err(|error| LogError::io(data, error))?,
    };
    let name = |path: PathBuf| Some(path.file_name()?.to_str()?.to_owned());
    let is_log = |name: &String| {
        let rest = name.strip_prefix(FIRST);
        rest.is_some_and(|rest| rest.is_empty() || rest.strip_prefix('-').is_some_and(is_number))
    };
    Ok(paths.into_iter().filter_map(name).filter(is_log).collect())
}

fn is_number(text: &str) -> bool {
    text.parse::<u64>().is_ok()
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
    use rustydb_env::sim::{DiskFaults, Simulation};
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

    #[test]
    fn a_log_that_cannot_be_read_is_given_up_only_when_that_is_asked_for() {
        let simulation = Simulation::new(1);
        let node = simulation.add_node();
        let env = simulation.env(node);
        let (data, group) = (Path::new("/"), GroupId::new(2));
        env.disk().create_dir_all(&data.join(FIRST)).unwrap();
        env.disk().sync_dir(data).unwrap();
        let faults = |read_errors_ppm| {
            simulation.disk(node).set_faults(DiskFaults { read_errors_ppm, ..DiskFaults::default() });
        };
        drop(LogPlace::load(&env, data).unwrap().open(config(), Past::Unknown, []).unwrap());
        simulation.crash(node);
        let env = simulation.env(node);
        faults(1_000_000);
        let place = LogPlace::load(&env, data).unwrap();
        let error = place.open_readable(config(), Past::HadLog, [group]).unwrap_err();
        assert!(matches!(error, LogError::Unreadable { .. }), "{error}");
        assert_eq!((place.folder(), place.mending()), (data.join(FIRST), BTreeSet::new()));
        // The way to the disk comes back.
        faults(0);
        let place = LogPlace::load(&env, data).unwrap();
        drop(place.open_readable(config(), Past::HadLog, [group]).unwrap());
        assert_eq!(place.mending(), BTreeSet::new());
        simulation.crash(node);
        let env = simulation.env(node);
        let place = LogPlace::load(&env, data).unwrap();
        faults(1_000_000);
        drop(place.open(config(), Past::HadLog, [group]));
        assert_eq!(place.mending(), BTreeSet::from([group]), "it does not come back");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_damaged_log_stays_as_it_is_and_another_is_begun_for_groups_that_can_be_mended() {
        let (env, data) = (Env::os(), tempfile::tempdir().unwrap());
        let (group, other) = (GroupId::new(2), GroupId::new(3));
        let segment = data.path().join("log/0000000000000001.log");
        let begin = || LogPlace::load(&env, data.path()).unwrap();
        let log = begin().open(config(), Past::Unknown, []).unwrap();
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
        assert!(
            matches!(begin().open(config(), Past::Unknown, []), Err(LogError::Corrupt { .. })),
            "nobody else has it"
        );
        let log = begin().open(config(), Past::Unknown, [group, other]).unwrap();
        assert_eq!(log.groups(), []);
        log.close().await;
        assert_eq!(std::fs::read(&segment).unwrap(), damaged);
        let place = begin();
        assert_eq!(place.mending(), [group, other].into());
        place.mended(group).unwrap();
        place.mended(group).unwrap();
        assert_eq!(begin().mending(), [other].into());
        assert!(begin().folder().ends_with("log-1"));
        begin().open(config(), Past::Unknown, []).unwrap().close().await;
    }
    async fn begun(env: &Env, data: &Path) {
        let log = LogPlace::load(env, data).unwrap().open(config(), Past::Unknown, []).unwrap();
        let (done, written) = tokio::sync::oneshot::channel();
        let vote = bytes::Bytes::from_static(b"promised");
        log.group(GroupId::new(2)).save_vote(vote, Box::new(move |result| drop(done.send(result))));
        written.await.unwrap().unwrap();
        log.close().await;
    }

    /// What is lost: the whole folder, what says which folder it is, or that it says so.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_log_that_is_gone_or_that_nobody_can_find_is_lost_and_not_begun_anew() {
        type Loss = fn(&Path);
        let losses: [(&str, Loss); 4] = [
            ("log-1", |data| std::fs::remove_dir_all(data.join("log")).unwrap()),
            ("log-1", |data| std::fs::write(data.join("LOG"), "folder log\nsum 00000000\n").unwrap()),
            ("log-1", |data| std::fs::write(data.join("LOG"), [0xff; 40]).unwrap()),
            ("log-8", |data| std::fs::create_dir(data.join("log-7")).unwrap()),
        ];
        for (folder, lose) in losses {
            let (env, data) = (Env::os(), tempfile::tempdir().unwrap());
            let group = GroupId::new(2);
            begun(&env, data.path()).await;
            lose(data.path());
            let begin = || LogPlace::load(&env, data.path()).unwrap();
            let refused = begin().open(config(), Past::HadLog, []);
            assert!(
                matches!(refused, Err(LogError::Corrupt { .. } | LogError::Gone { .. })),
                "{folder}: {refused:?}"
            );
            let place = begin();
            let log = place.open(config(), Past::HadLog, [group]).unwrap();
            assert_eq!(log.group(group).state().vote, None);
            assert!(place.is_mending(group) && place.folder().ends_with(folder), "{:?}", place.folder());
            log.close().await;
            let place = begin();
            place.open(config(), Past::HadLog, []).unwrap().close().await;
            assert!(place.is_mending(group) && place.folder().ends_with(folder), "{:?}", place.folder());
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_node_that_never_had_a_log_begins_one() {
        let (env, data) = (Env::os(), tempfile::tempdir().unwrap());
        begun(&env, data.path()).await;
        let place = LogPlace::load(&env, data.path()).unwrap();
        let log = place.open(config(), Past::HadLog, []).unwrap();
        assert_eq!(log.groups(), [GroupId::new(2)]);
        place.lost(GroupId::new(2)).unwrap();
        assert!(LogPlace::load(&env, data.path()).unwrap().is_mending(GroupId::new(2)));
        log.close().await;
    }
}
