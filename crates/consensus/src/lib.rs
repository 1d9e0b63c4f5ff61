//! Binds openraft to the log, the state machine and a transport; gives a replicated KvStore.
