//! Where the nodes of a `dev` cluster keep their data and listen.
//!
//! ```text
//! DIR/layout.json        nodes, base port and engine: later starts continue the same layout
//! DIR/node-K.toml        configuration of node K, written at each start
//! DIR/node-K.log         what it logs
//! DIR/node-K/            its data folder, with rustydb.pid
//! ports                  P+K Postgres, P+100+K interconnect, P+200+K HTTP
//! ```

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::config::units::{ByteSize, MemoryBudget, TimeSpan};
use crate::config::{
    AuthConfig, ClusterConfig, Config, EngineChoice, ListenConfig, MemoryConfig, NodeConfig, StorageConfig,
};

/// Most nodes of a `dev` cluster.
pub const NODES_MAX: u16 = 7;
const FILE: &str = "layout.json";

/// The shape of a `dev` cluster.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Layout {
    #[serde(skip)]
    dir: PathBuf,
    /// How many nodes there are.
    pub nodes: u16,
    /// Node K listens on this port plus K, plus 100 + K and plus 200 + K.
    pub base_port: u16,
    /// Engine of all nodes.
    pub engine: EngineChoice,
}

/// What the command line asks for; what it leaves out comes from the folder, then from the defaults.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Number of nodes; default 3.
    pub nodes: Option<u16>,
    /// Base port; default 15400.
    pub base_port: Option<u16>,
    /// Engine; default redb.
    pub engine: Option<EngineChoice>,
}

/// Why a layout cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LayoutError {
    /// The folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The layout file is damaged.
    #[error("{} is damaged: {reason}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// Fewer nodes than the cluster has.
    #[error("{} holds a cluster of {present} nodes; it cannot be started with {wanted}", dir.display())]
    Fewer {
        /// The folder.
        dir: PathBuf,
        /// Nodes of the cluster.
        present: u16,
        /// Nodes asked for.
        wanted: u16,
    },
    /// The node is not in the layout.
    #[error("there is no node {node}: the cluster in {} has nodes 1 to {nodes}", dir.display())]
    NoNode {
        /// The folder.
        dir: PathBuf,
        /// The node asked for.
        node: u16,
        /// Nodes of the cluster.
        nodes: u16,
    },
    /// There is no cluster to start a node of.
    #[error("{} holds no cluster: start one with `rustydb dev`", dir.display())]
    Empty {
        /// The folder.
        dir: PathBuf,
    },
}

impl Layout {
    /// The layout in a folder, if there is one.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn read(dir: &Path) -> Result<Option<Layout>, LayoutError> {
        let path = dir.join(FILE);
        let text = match std::fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LayoutError::Io { path, source }),
        };
        let mut layout: Layout = serde_json::from_str(&text)
            .map_err(|error| LayoutError::Damaged { path, reason: error.to_string() })?;
        dir.clone_into(&mut layout.dir);
        Ok(Some(layout))
    }

    /// The layout in a folder with what is wanted laid over it, written back.
    ///
    /// # Errors
    /// Fewer nodes are wanted than there are, or the folder cannot be written.
    pub fn open(dir: &Path, wanted: Wanted) -> Result<Layout, LayoutError> {
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| LayoutError::Io { path, source }
        };
        std::fs::create_dir_all(dir).map_err(io(dir))?;
        let dir = dir.canonicalize().map_err(io(dir))?;
        let present = Layout::read(&dir)?;
        if let (Some(layout), Some(nodes)) = (&present, wanted.nodes)
            && nodes < layout.nodes
        {
            return Err(LayoutError::Fewer { dir, present: layout.nodes, wanted: nodes });
        }
        let from = present.unwrap_or(Layout {
            dir: dir.clone(),
            nodes: 3,
            base_port: 15_400,
            engine: EngineChoice::default(),
        });
        let layout = Layout {
            dir,
            nodes: wanted.nodes.unwrap_or(from.nodes),
            base_port: wanted.base_port.unwrap_or(from.base_port),
            engine: wanted.engine.unwrap_or(from.engine),
        };
        let path = layout.dir.join(FILE);
        let text = serde_json::to_string(&layout)
            .map_err(|error| LayoutError::Damaged { path: path.clone(), reason: error.to_string() })?;
        replace(&path, &text).map_err(io(&path))?;
        Ok(layout)
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Numbers of the nodes.
    pub fn node_numbers(&self) -> std::ops::RangeInclusive<u16> {
        1..=self.nodes
    }

    /// Where node `node` is reached: Postgres, interconnect, HTTP.
    pub fn addresses(&self, node: u16) -> [String; 3] {
        [0, 100, 200].map(|offset| format!("127.0.0.1:{}", self.base_port + offset + node))
    }

    /// Data folder of a node.
    pub fn data_dir(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node-{node}"))
    }

    /// File that a node logs to.
    pub fn log_file(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node-{node}.log"))
    }

    /// File with a node's configuration.
    pub fn config_file(&self, node: u16) -> PathBuf {
        self.dir.join(format!("node-{node}.toml"))
    }

    /// Configuration of a node: loopback only and trusted, 512 MiB, every other node as a place to look.
    pub fn config(&self, node: u16) -> Config {
        let [postgres, interconnect, http] = self.addresses(node);
        let others = self.node_numbers().filter(|other| *other != node);
        Config {
            node: NodeConfig {
                id: u64::from(node),
                data_dir: self.data_dir(node),
                shutdown_timeout: TimeSpan::from_secs(10),
            },
            cluster: ClusterConfig {
                peers: others.map(|other| self.addresses(other)[1].clone()).collect(),
                ..ClusterConfig::default()
            },
            listen: ListenConfig { postgres, interconnect, http, advertise_host: String::new() },
            storage: StorageConfig { engine: self.engine, ..StorageConfig::default() },
            memory: MemoryConfig { budget: MemoryBudget::Bytes(ByteSize::from_mib(512)) },
            auth: AuthConfig::trust_loopback(),
            ..Config::default()
        }
    }

    /// Writes the configuration of a node and says where.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_config(&self, node: u16) -> Result<PathBuf, LayoutError> {
        let path = self.config_file(node);
        let text = toml::to_string(&self.config(node))
            .map_err(|error| LayoutError::Damaged { path: path.clone(), reason: error.to_string() })?;
        let text = format!("# Written by `rustydb dev` at each start.\n\n{text}");
        replace(&path, &text).map_err(|source| LayoutError::Io { path: path.clone(), source })?;
        Ok(path)
    }
}

/// Writes a file that others read meanwhile: they see the former text or this one, whole, also after a crash. What has
/// not changed is not written.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    if std::fs::read_to_string(path).is_ok_and(|present| present == text) {
        return Ok(());
    }
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let new = path.with_file_name(name);
    let written = std::fs::File::create(&new)
        .and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()))
        .and_then(|()| std::fs::rename(&new, path));
    if written.is_err() {
        // What is left of it is of no use.
        let _ = std::fs::remove_file(&new);
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_later_start_continues_the_layout() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Layout::read(dir.path()).unwrap().is_none());
        let wanted = Wanted { nodes: Some(5), base_port: Some(20_000), engine: Some(EngineChoice::Sled) };
        let first = Layout::open(dir.path(), wanted).unwrap();
        let second = Layout::open(dir.path(), Wanted::default()).unwrap();
        assert_eq!(first, second);
        assert_eq!(second.addresses(5), ["127.0.0.1:20005", "127.0.0.1:20105", "127.0.0.1:20205"]);
        let fewer = Layout::open(dir.path(), Wanted { nodes: Some(3), ..Wanted::default() });
        assert!(matches!(fewer, Err(LayoutError::Fewer { present: 5, wanted: 3, .. })));
        assert_eq!(Layout::open(dir.path(), Wanted { nodes: Some(7), ..wanted }).unwrap().nodes, 7);
    }

    #[test]
    fn the_configuration_of_every_node_is_valid_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let layout = Layout::open(dir.path(), Wanted { nodes: Some(7), ..Wanted::default() }).unwrap();
        for node in layout.node_numbers() {
            assert_eq!(layout.config(node).validate(), []);
            let path = layout.write_config(node).unwrap();
            assert_eq!(Config::load(&path).unwrap(), layout.config(node));
        }
    }
}
