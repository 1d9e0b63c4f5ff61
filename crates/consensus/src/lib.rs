//! Binds openraft to the log, the state machine and a transport; gives a replicated `KvStore`.

pub mod codec;
pub mod node_state;
pub mod quorum;
pub mod runtime;
pub mod transport;
pub mod type_config;

mod calls;
