//! Messages and services between nodes, generated from `proto/rustydb/v1/*.proto` at build time.
//!
//! Field numbers are never reused. Messages named `Raft*` lie on disk too (see `docs/formats/raft.md`): a change
//! of them is a change of a stored format. `bytes` fields become `bytes::Bytes`, so that decoding shares the
//! buffer that the network delivered.

/// Version 1 of all messages and services.
#[allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
pub mod v1 {
    tonic::include_proto!("rustydb.v1");
}
