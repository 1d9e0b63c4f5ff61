//! One budget, carved.
//!
//! ```text
//! budget  =  engine caches 35 %  +  recent versions 25 %  +  log tail 10 %  +  work memory 20 %  +  the rest 10 %
//! ```
//!
//! The rest is for connections, plans and the process itself. Engine caches and recent versions are shared by
//! the groups of a node: each group gets an equal part of what is planned for [`GROUPS_PLANNED`] groups, because
//! the parts of a group are fixed when it is opened.

use crate::config::units::{ByteSize, MemoryBudget};

/// Groups that the shares per group are planned for. With more, the node uses more than its budget for caches.
pub const GROUPS_PLANNED: u64 = 4;

const LEAST: u64 = 128 << 20;

/// The parts of a node's budget, in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryPlan {
    /// The whole.
    pub budget: u64,
    /// Cache of one group's engine.
    pub engine_cache_per_group: u64,
    /// Recent versions of one group, old snapshots' included.
    pub recent_per_group: u64,
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
            engine_cache_per_group: percent(35) / GROUPS_PLANNED,
            recent_per_group: percent(25) / GROUPS_PLANNED,
            log_tail: percent(10),
            work: percent(20),
        }
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
            let groups = GROUPS_PLANNED * (plan.engine_cache_per_group + plan.recent_per_group);
            assert!(groups + plan.log_tail + plan.work <= plan.budget / 100 * 90, "{plan:?}");
        }
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
