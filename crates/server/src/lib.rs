//! A node: configuration, wiring, HTTP and the commands of the binary `rustydb`.

pub mod config;
