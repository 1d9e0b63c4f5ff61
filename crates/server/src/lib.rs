//! A node: configuration, wiring, HTTP, administration, and the commands of the binary `rustydb`.

pub mod config;
pub mod dev;
pub mod identity;
pub mod logging;
pub mod memory;
pub mod node;
pub mod serve;
pub mod systemd;
