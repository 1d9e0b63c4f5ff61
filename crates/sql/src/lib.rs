//! Catalog, binding, planning and execution over any KvStore; sessions and their forwarding.
