//! What the groups of a simulated node apply to: the model, or the real stores.

use std::sync::Arc;

use rustydb_consensus::{MachineFactory, model::ModelStore};
use rustydb_env::Env;
use rustydb_types::{
    ids::{GroupId, Term},
    position::LogPosition,
};

/// The state machines of one node, over all its lives. Clones are the same machines.
pub trait Machines: Clone + Send + Sync + 'static {
    /// Opens machines for a new life of the node.
    fn factory(&self, env: &Env) -> Arc<dyn MachineFactory>;

    /// Forgets what a power cut takes.
    fn crash(&self);

    /// The term in which the node may serve a group, if any.
    fn leads(&self, group: GroupId) -> Option<Term>;

    /// How far a group is applied, and the hash of that state. [`None`] before the first entry, or when it is down.
    fn applied(&self, group: GroupId) -> Option<(LogPosition, u128)>;

    /// Up to where a crash would leave a group applied.
    fn flushed(&self, group: GroupId) -> Option<LogPosition>;
}

impl Machines for ModelStore {
    fn factory(&self, _env: &Env) -> Arc<dyn MachineFactory> {
        Arc::new(self.clone())
    }

    fn crash(&self) {
        ModelStore::crash(self);
    }

    fn leads(&self, group: GroupId) -> Option<Term> {
        self.cell(group).leads()
    }

    fn applied(&self, group: GroupId) -> Option<(LogPosition, u128)> {
        let state = self.cell(group).present();
        Some((state.applied.position?, u128::from(state.hash)))
    }

    fn flushed(&self, group: GroupId) -> Option<LogPosition> {
        self.cell(group).flushed()
    }
}
