//! One budget, carved.
//!
//! ```text
//! budget  =  engine caches 40 %  +  recent versions 25 %  +  log tail 8 %  +  work memory 17 %  +  the rest 10 %
//! ```
//!
//! The rest is for connections, plans and the process itself. Engine caches and recent versions are shared by the
//! databases of a node. The part of a database is fixed when it is opened: half of what the others have left, so
//! that one database alone gets half of all, and the sum never exceeds the pool by more than a least part each.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use rustydb_types::ids::GroupId;

use crate::config::units::{ByteSize, MemoryBudget};

const LEAST: u64 = 128 << 20;

/// The parts of a node's budget, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The whole.
    pub budget: u64,
    /// Caches of all engines together.
    pub engine_caches: u64,
    /// Recent versions of all databases together, old snapshots' included.
    pub recent: u64,
    /// Tail of the log that is kept to feed followers and apply.
    pub log_tail: u64,
    /// Memory of all sorts, joins and aggregates together.
    pub work: u64,
}

impl MemoryPlan {
    /// Carves a budget; `auto` takes a quarter of `machine_bytes`.
    pub fn new(budget: MemoryBudget, machine_bytes: u64) -> MemoryPlan {
        let budget = match budget {
            MemoryBudget::Bytes(size) => size.get(),
            MemoryBudget::Auto => (machine_bytes / 4).max(LEAST),
        };
        let percent = |part: u64| budget / 100 * part;
        MemoryPlan {
            budget,
            engine_caches: percent(40),
            recent: percent(25),
            log_tail: percent(8),
            work: percent(17),
        }
    }
}

/// A pool that is given out in halves of what is left.
#[derive(Debug)]
pub struct Shares {
    pool: u64,
    least: u64,
    given: Mutex<BTreeMap<GroupId, u64>>,
}

impl Shares {
    /// Shares of `pool` bytes, each at least `least`.
    pub fn new(pool: u64, least: u64) -> Shares {
        Shares { pool, least, given: Mutex::default() }
    }

    /// The share of a group, in bytes: the one that it has, or a new one.
    pub fn take(&self, group: GroupId) -> u64 {
        let mut given = self.given.lock();
        let left = self.pool.saturating_sub(given.values().sum());
        *given.entry(group).or_insert((left / 2).max(self.least))
    }

    /// Takes a share back.
    pub fn give_back(&self, group: GroupId) {
        self.given.lock().remove(&group);
    }
}

/// Memory of this machine in bytes, or of the control group that the process is confined to if that is less.
pub fn machine_bytes() -> u64 {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let total = meminfo_total(&read("/proc/meminfo")).unwrap_or(ByteSize::from_mib(1024).get());
    let confined = read("/sys/fs/cgroup/memory.max").trim().parse().unwrap_or(u64::MAX);
    total.min(confined)
}

fn meminfo_total(text: &str) -> Option<u64> {
    let line = text.lines().find(|line| line.starts_with("MemTotal:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_parts_fit_in_the_budget() {
        for mib in [128, 512, 6144] {
            let plan = MemoryPlan::new(MemoryBudget::Bytes(ByteSize::from_mib(mib)), 0);
            let parts = plan.engine_caches + plan.recent + plan.log_tail + plan.work;
            assert!(parts <= plan.budget / 100 * 90, "{plan:?}");
        }
    }

    #[test]
    fn shares_halve_and_come_back() {
        let shares = Shares::new(1024, 100);
        let take = |group| shares.take(GroupId::new(group));
        assert_eq!([take(2), take(3), take(4), take(5), take(2)], [512, 256, 128, 100, 512]);
        shares.give_back(GroupId::new(2));
        assert_eq!(take(6), (1024 - 256 - 128 - 100) / 2);
    }

    #[test]
    fn auto_is_a_quarter_of_the_machine() {
        assert_eq!(MemoryPlan::new(MemoryBudget::Auto, 8 << 30).budget, 2 << 30);
        assert_eq!(MemoryPlan::new(MemoryBudget::Auto, 0).budget, LEAST);
        assert!(machine_bytes() > LEAST);
    }

    #[test]
    fn meminfo_is_read() {
        assert_eq!(meminfo_total("MemTotal:       24612345 kB\nMemFree: 1 kB\n"), Some(24_612_345 * 1024));
        assert_eq!(meminfo_total("nothing"), None);
    }
}
