//! Which lives of nodes are over, as far as this node knows: what sessions of those lives left behind can go.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;
use rustydb_types::ids::{Incarnation, NodeId};

use crate::system::SystemSnapshot;

/// The last life of each node of which a session was seen here. One life of a node begins when the one before is over,
/// and has the larger number.
#[derive(Debug, Default)]
pub struct Lives {
    last: Mutex<BTreeMap<NodeId, Incarnation>>,
    with_temporary: AtomicUsize,
}

/// The node that a life is of: see the server's identity.
const fn node_of(life: Incarnation) -> NodeId {
    NodeId::new(life.get() >> 32)
}

impl Lives {
    /// A session of this life is seen.
    pub fn note(&self, life: Incarnation) {
        let mut lives = self.last.lock();
        let last = lives.entry(node_of(life)).or_insert(life);
        *last = life.max(*last);
    }

    /// Whether a life is certainly over: its node has another, or was removed.
    #[must_use]
    pub fn is_over(&self, life: Incarnation, system: &SystemSnapshot) -> bool {
        let node = node_of(life);
        let is_removed = !system.nodes.is_empty() && !system.nodes.contains_key(&node);
        is_removed || self.last.lock().get(&node).is_some_and(|last| *last > life)
    }

    /// So many sessions have temporary objects in the databases that this node leads.
    pub fn note_with_temporary(&self, count: usize) {
        self.with_temporary.store(count, Ordering::Relaxed);
    }

    /// How many sessions have temporary objects in the databases that this node leads, as was counted lately.
    #[must_use]
    pub fn with_temporary(&self) -> usize {
        self.with_temporary.load(Ordering::Relaxed)
    }

    /// Forgets nodes that are gone.
    pub fn retain(&self, system: &SystemSnapshot) {
        self.last.lock().retain(|node, _| system.nodes.contains_key(node));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::system::NodeRecord;

    #[test]
    fn a_life_is_over_when_the_node_has_another_or_is_gone() {
        let life = |node: u64, number: u64| Incarnation::new(node << 32 | number);
        let lives = Lives::default();
        let mut system = SystemSnapshot::default();
        for node in [1, 2] {
            let record = NodeRecord {
                id: NodeId::new(node),
                name: String::new(),
                release: String::new(),
                labels: BTreeMap::new(),
                pg_address: String::new(),
                http_address: String::new(),
                interconnect_address: String::new(),
                leaving: false,
            };
            system.nodes.insert(record.id, record);
        }
        assert!(!lives.is_over(life(1, 1), &system), "nothing is known of it");
        lives.note(life(1, 3));
        lives.note(life(1, 2));
        assert!(lives.is_over(life(1, 2), &system));
        assert!(!lives.is_over(life(1, 3), &system));
        assert!(!lives.is_over(life(1, 4), &system));
        assert!(!lives.is_over(life(2, 1), &system));
        assert!(lives.is_over(life(3, 1), &system), "there is no node 3");
        assert!(!lives.is_over(life(3, 1), &SystemSnapshot::default()), "the records have not come yet");
    }
}
