//! Where the other nodes were when this one last knew, for a start at which the cluster's records cannot be read: they
//! come from the other nodes then, and those must be found.
//!
//! ```text
//! DATA/addresses.json    {"2":"db2.example.com:5433","3":"db3.example.com:5433"}
//! ```
//!
//! A hint: the records count as soon as they can be read, and a file that cannot be read is as good as none.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustydb_env::Env;
use rustydb_types::ids::NodeId;

use crate::identity;

const FILE: &str = "addresses.json";

/// The addresses by node.
type Known = BTreeMap<u64, String>;

/// Keeps the file.
pub(crate) struct Addresses {
    env: Env,
    dir: PathBuf,
    kept: Mutex<Known>,
}

impl Addresses {
    /// Those of a data folder.
    pub(crate) fn load(env: &Env, dir: &Path) -> Addresses {
        let read = || {
            let text = identity::read(env.disk().as_ref(), &dir.join(FILE)).ok()??;
            serde_json::from_str(&text).ok()
        };
        let kept = Mutex::new(read().unwrap_or_default());
        Addresses { env: env.clone(), dir: dir.to_path_buf(), kept }
    }

    /// What is kept.
    pub(crate) fn all(&self) -> Vec<(NodeId, String)> {
        self.kept.lock().iter().map(|(node, address)| (NodeId::new(*node), address.clone())).collect()
    }

    /// Keeps what the records say now.
    pub(crate) async fn keep(&self, recorded: impl IntoIterator<Item = (NodeId, String)>) {
        let recorded: Known = recorded.into_iter().map(|(node, address)| (node.get(), address)).collect();
        if recorded.is_empty() || *self.kept.lock() == recorded {
            return;
        }
        let (env, dir) = (self.env.clone(), self.dir.clone());
        let text = serde_json::to_string(&recorded).unwrap_or_default();
        let write = move || identity::replace(env.disk().as_ref(), &dir, FILE, text.as_bytes());
        match self.env.blocking(write).await {
            Ok(()) => *self.kept.lock() = recorded,
            Err(error) => tracing::warn!(%error, "the addresses of the other nodes are not kept"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_was_kept_is_found_again_and_nonsense_is_none() {
        let dir = tempfile::tempdir().unwrap();
        let env = Env::os();
        let addresses = Addresses::load(&env, dir.path());
        assert_eq!(addresses.all(), []);
        let two = (NodeId::new(2), "there:1".to_owned());
        addresses.keep([two.clone()]).await;
        addresses.keep([]).await;
        assert_eq!(Addresses::load(&env, dir.path()).all(), [two]);
        std::fs::write(dir.path().join(FILE), "{\"2\":").unwrap();
        assert_eq!(Addresses::load(&env, dir.path()).all(), []);
    }
}
