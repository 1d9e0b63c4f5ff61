//! Who a data folder belongs to.
//!
//! ```text
//! DATA/lock              held by the one process that uses the folder
//! DATA/rustydb.pid       its process id, for people and scripts
//! DATA/identity.json     {"format":1,"cluster_id":"…","founder":true,"node_id":1,"incarnation":7,"engine":"redb"}
//! DATA/log/              the write-ahead log of all groups
//! DATA/groups/           the engine's files, one set per group
//! ```
//!
//! The file is replaced whole, through a synced temporary and a rename, so it is either the old or the new one.
//! The incarnation grows at each start and is synced before anything else happens; request ids carry it, so
//! that two lives of a node never share one. A folder that holds a log but no identity is refused: whoever
//! removed the identity removed the only proof of whose votes these are. A node that was removed from its cluster notes
//! `"removed":true`, and its folder is refused from then on: what it promised is forgotten by the others.

use std::io;
use std::path::{Path, PathBuf};

use rustydb_env::{Disk, DiskLock, Env, OpenMode};
use rustydb_types::ids::{Incarnation, NodeId};
use serde::{Deserialize, Serialize};

use crate::config::EngineChoice;

const FILE: &str = "identity.json";
const FORMAT: u32 = 1;

/// What the file holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format: u32,
    cluster_id: Option<String>,
    founder: bool,
    node_id: u64,
    incarnation: u64,
    engine: EngineChoice,
    /// The node was removed from its cluster.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    removed: bool,
}

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Another process holds it.
    #[error("data folder {} is in use by another process{}", dir.display(), holder.as_ref().map_or(String::new(), |pid| format!(" (pid {pid})")))]
    InUse {
        /// The folder.
        dir: PathBuf,
        /// The process, as its pid file says.
        holder: Option<String>,
    },
    /// The folder cannot be read or written.
    #[error("data folder {}: {action}", dir.display())]
    Io {
        /// The folder.
        dir: PathBuf,
        /// What was tried.
        action: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// The identity file is not one.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The folder is of a later release.
    #[error("{} has format {found}; this release knows formats up to {FORMAT}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// Its format.
        found: u32,
    },
    /// The folder belongs to another node.
    #[error("data folder {} belongs to node {found}, but node.id is {configured}", dir.display())]
    OtherNode {
        /// The folder.
        dir: PathBuf,
        /// Whose it is.
        found: u64,
        /// Who asks.
        configured: u64,
    },
    /// The folder belongs to another cluster.
    #[error("data folder {} belongs to cluster {found}, not to {asked}", dir.display())]
    OtherCluster {
        /// The folder.
        dir: PathBuf,
        /// The cluster it belongs to.
        found: String,
        /// The cluster that asks.
        asked: String,
    },
    /// The node was removed from its cluster.
    #[error(
        "node {node} was removed from cluster {cluster}, and data folder {} cannot be used again: to use this machine, \
         give it an empty data folder and an unused node.id, and add it as a new node",
        dir.display()
    )]
    Removed {
        /// The node.
        node: u64,
        /// What was its cluster.
        cluster: String,
        /// Its folder.
        dir: PathBuf,
    },
    /// The node is asked to form a cluster and has one.
    #[error("node {node} is already a member of cluster {cluster}")]
    Member {
        /// The node.
        node: u64,
        /// Its cluster.
        cluster: String,
    },
    /// The folder was written with another engine.
    #[error("data folder {} was written with engine {found:?}, but storage.engine is {configured:?}", dir.display())]
    OtherEngine {
        /// The folder.
        dir: PathBuf,
        /// The engine in it.
        found: EngineChoice,
        /// The engine configured.
        configured: EngineChoice,
    },
    /// There is data without a name on it.
    #[error("data folder {} holds data but no {FILE}: it was removed or the folder was copied in part; \
             start the node with an empty folder and a new node.id", dir.display())]
    Nameless {
        /// The folder.
        dir: PathBuf,
    },
}

/// What part a node has in the beginning of its cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// It forms the cluster.
    Founder,
    /// It is taken in.
    Joiner,
}

/// A locked data folder and whose it is.
#[derive(Debug)]
pub struct DataFolder {
    env: Env,
    dir: PathBuf,
    record: Record,
    _lock: Box<dyn DiskLock>,
}

impl DataFolder {
    /// Locks the folder, checks whose it is, and begins a new incarnation; durable at return.
    ///
    /// # Errors
    /// Another process uses it, or it belongs to someone else, or it cannot be read and written.
    pub fn open(
        env: &Env,
        dir: &Path,
        node: NodeId,
        engine: EngineChoice,
    ) -> Result<DataFolder, IdentityError> {
        let failed = |action| move |source| IdentityError::Io { dir: dir.to_owned(), action, source };
        let disk = env.disk();
        disk.create_dir_all(dir).map_err(failed("cannot be created"))?;
        let lock = disk.lock_exclusive(&dir.join("lock")).map_err(|source| match source.kind() {
            io::ErrorKind::WouldBlock => {
                let holder = read(disk.as_ref(), &dir.join("rustydb.pid")).ok().flatten();
                IdentityError::InUse { dir: dir.to_owned(), holder: holder.map(|pid| pid.trim().to_owned()) }
            }
            _ => IdentityError::Io { dir: dir.to_owned(), action: "cannot be locked", source },
        })?;
        let path = dir.join(FILE);
        let record = match read(disk.as_ref(), &path).map_err(failed("identity cannot be read"))? {
            Some(text) => parse(&path, &text)?,
            None if has_data(disk.as_ref(), dir).map_err(failed("cannot be read"))? => {
                return Err(IdentityError::Nameless { dir: dir.to_owned() });
            }
            None => Record {
                format: FORMAT,
                cluster_id: None,
                founder: false,
                node_id: node.get(),
                incarnation: 0,
                engine,
                removed: false,
            },
        };
        if record.removed {
            return Err(removal(dir, &record));
        }
        if record.node_id != node.get() {
            let (found, configured) = (record.node_id, node.get());
            return Err(IdentityError::OtherNode { dir: dir.to_owned(), found, configured });
        }
        if record.engine != engine {
            let (found, configured) = (record.engine, engine);
            return Err(IdentityError::OtherEngine { dir: dir.to_owned(), found, configured });
        }
        let mut folder = DataFolder { env: env.clone(), dir: dir.to_owned(), record, _lock: lock };
        folder.record.incarnation = folder.record.incarnation.saturating_add(1);
        folder.write().map_err(failed("identity cannot be written"))?;
        Ok(folder)
    }

    /// The folder's path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The cluster it belongs to, if any.
    pub fn cluster_id(&self) -> Option<&str> {
        self.record.cluster_id.as_deref()
    }

    /// Whether this node formed its cluster. A founder that died while it did so goes on when it starts again.
    pub fn is_founder(&self) -> bool {
        self.record.founder
    }

    /// Which life of the node this is, counted from 1.
    pub fn starts(&self) -> u64 {
        self.record.incarnation
    }

    /// The name of this life in request ids: the node's number above its count of starts, so that no two lives of
    /// any two nodes share one.
    pub fn incarnation(&self) -> Incarnation {
        Incarnation::new((self.record.node_id << 32) | (self.record.incarnation & u64::from(u32::MAX)))
    }

    /// Makes the folder belong to a cluster; durable at return. Repeating it with the same cluster changes nothing.
    ///
    /// # Errors
    /// It belongs to another cluster, or cannot be written.
    pub fn adopt(&mut self, cluster_id: &str, part: Part) -> Result<(), IdentityError> {
        match &self.record.cluster_id {
            Some(present) if present == cluster_id => return Ok(()),
            Some(present) => {
                let (dir, found, asked) = (self.dir.clone(), present.clone(), cluster_id.to_owned());
                return Err(IdentityError::OtherCluster { dir, found, asked });
            }
            None => {}
        }
        self.record.cluster_id = Some(cluster_id.to_owned());
        self.record.founder = part == Part::Founder;
        self.write().map_err(|source| IdentityError::Io {
            dir: self.dir.clone(),
            action: "identity cannot be written",
            source,
        })
    }

    /// Notes that the node was removed from its cluster, so that the folder is refused from its next start on; durable at
    /// return. Repeating it changes nothing.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn mark_removed(&mut self) -> Result<(), IdentityError> {
        if self.record.removed {
            return Ok(());
        }
        self.record.removed = true;
        self.write().map_err(|source| IdentityError::Io {
            dir: self.dir.clone(),
            action: "identity cannot be written",
            source,
        })
    }

    /// What is said of a folder whose node was removed.
    pub fn removal(&self) -> IdentityError {
        removal(&self.dir, &self.record)
    }

    /// Writes the pid file. It is for people and scripts; nothing rests on it, so it is not synced.
    ///
    /// # Errors
    /// The folder cannot be written.
    pub fn write_pid(&self, pid: u32) -> Result<(), IdentityError> {
        let write = || {
            let file = self.env.disk().open(&self.dir.join("rustydb.pid"), OpenMode::Create)?;
            file.set_len(0)?;
            file.write_at(0, format!("{pid}\n").as_bytes())
        };
        write().map_err(|source| IdentityError::Io {
            dir: self.dir.clone(),
            action: "the pid file cannot be written",
            source,
        })
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_string(&self.record).map_err(io::Error::other)?;
        replace(self.env.disk().as_ref(), &self.dir, FILE, text.as_bytes())
    }
}

fn removal(dir: &Path, record: &Record) -> IdentityError {
    let cluster = record.cluster_id.clone().unwrap_or_default();
    IdentityError::Removed { node: record.node_id, cluster, dir: dir.to_owned() }
}

/// Whether a data folder says that its node was removed from its cluster. The folder may be in use.
pub(crate) fn says_removed(disk: &dyn Disk, dir: &Path) -> bool {
    let path = dir.join(FILE);
    let text = read(disk, &path).ok().flatten();
    text.and_then(|text| parse(&path, &text).ok()).is_some_and(|record| record.removed)
}

/// Whether somebody has written here what only a node with a name writes.
fn has_data(disk: &dyn Disk, dir: &Path) -> io::Result<bool> {
    for name in ["log", "LOG", "groups"] {
        if disk.exists(&dir.join(name))? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn parse(path: &Path, text: &str) -> Result<Record, IdentityError> {
    #[derive(Deserialize)]
    struct Version {
        format: u32,
    }
    let damaged = |error: serde_json::Error| IdentityError::Damaged {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    // The version is read first, so that a later release's file is told from a damaged one.
    let version: Version = serde_json::from_str(text).map_err(damaged)?;
    if version.format != FORMAT {
        return Err(IdentityError::Format { path: path.to_owned(), found: version.format });
    }
    serde_json::from_str(text).map_err(damaged)
}

/// The text of a file, or nothing when it is absent. Files read this way are small and written by us.
pub(crate) fn read(disk: &dyn Disk, path: &Path) -> io::Result<Option<String>> {
    const SIZE_MAX: u64 = 1 << 20;
    if !disk.exists(path)? {
        return Ok(None);
    }
    let file = disk.open(path, OpenMode::Read)?;
    let len = file.len()?;
    if len > SIZE_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "the file is too large to be ours"));
    }
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    file.read_at(0, &mut bytes)?;
    String::from_utf8(bytes).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Replaces a small file whole; durable at return.
pub(crate) fn replace(disk: &dyn Disk, dir: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let temporary = dir.join(format!("{name}.new"));
    let file = disk.open(&temporary, OpenMode::Create)?;
    file.set_len(0)?;
    file.write_at(0, bytes)?;
    file.sync_all()?;
    drop(file);
    disk.rename(&temporary, &dir.join(name))?;
    disk.sync_dir(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(dir: &Path, node: u64) -> Result<DataFolder, IdentityError> {
        DataFolder::open(&Env::os(), dir, NodeId::new(node), EngineChoice::Redb)
    }

    #[test]
    fn each_start_is_a_new_incarnation_and_the_cluster_stays() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(dir.path(), 1).unwrap();
        assert_eq!((folder.starts(), folder.cluster_id()), (1, None));
        assert_eq!(folder.incarnation(), Incarnation::new((1 << 32) | 1));
        folder.adopt("c1", Part::Founder).unwrap();
        folder.adopt("c1", Part::Joiner).unwrap();
        assert!(matches!(folder.adopt("c2", Part::Joiner), Err(IdentityError::OtherCluster { .. })));
        drop(folder);
        let folder = open(dir.path(), 1).unwrap();
        assert_eq!((folder.starts(), folder.cluster_id()), (2, Some("c1")));
        assert!(folder.is_founder());
    }

    #[test]
    fn a_second_user_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let _first = open(dir.path(), 1).unwrap();
        assert!(matches!(open(dir.path(), 1), Err(IdentityError::InUse { .. })));
    }

    #[test]
    fn someone_elses_folder_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(open(dir.path(), 1).unwrap());
        assert!(matches!(open(dir.path(), 2), Err(IdentityError::OtherNode { found: 1, .. })));
        let sled = DataFolder::open(&Env::os(), dir.path(), NodeId::new(1), EngineChoice::Sled);
        assert!(matches!(sled, Err(IdentityError::OtherEngine { .. })));
    }

    #[test]
    fn the_folder_of_a_removed_node_is_refused_for_ever() {
        let dir = tempfile::tempdir().unwrap();
        let mut folder = open(dir.path(), 4).unwrap();
        folder.adopt("c1", Part::Joiner).unwrap();
        let text = std::fs::read_to_string(dir.path().join(FILE)).unwrap();
        assert!(!text.contains("removed"), "members have the form of earlier releases: {text}");
        folder.mark_removed().unwrap();
        folder.mark_removed().unwrap();
        drop(folder);
        assert!(says_removed(Env::os().disk().as_ref(), dir.path()));
        // Under another number as well: the number is not what is wrong.
        for number in [4, 5] {
            let refusal = open(dir.path(), number).unwrap_err();
            assert!(matches!(refusal, IdentityError::Removed { node: 4, .. }), "{refusal}");
        }
    }

    #[test]
    fn data_without_identity_is_refused() {
        for part in ["log", "groups"] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::create_dir(dir.path().join(part)).unwrap();
            assert!(matches!(open(dir.path(), 1), Err(IdentityError::Nameless { .. })), "{part}");
        }
    }

    #[test]
    fn a_damaged_file_is_told_from_one_of_a_later_release() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join(FILE), "{\"format\":9,\"x\":1}").unwrap();
        assert!(matches!(open(dir.path(), 1), Err(IdentityError::Format { found: 9, .. })));
        std::fs::write(dir.path().join(FILE), "{\"format\":1").unwrap();
        assert!(matches!(open(dir.path(), 1), Err(IdentityError::Damaged { .. })));
    }
}
