//! Real server processes under real faults, while clients record what they do and see: see `bin/chaos.rs`.
//!
//! ```text
//! network      namespaces, a bridge, packet filters      nodes       server processes, started and hurt
//! links        a router that delays, loses, reorders     clients     sessions that survive it
//! workloads    what clients do, and how it is judged     faults      what is done to nodes, and undone
//! round        one fault from begin to judgement         run         all rounds, and what they come to
//!
//! sections:
//! calibration  the same on PostgreSQL                    storm       kills, pauses, partitions, restarts
//! weather      bad links                                 clocks      wall clocks that are wrong
//! components   each single component lost                overload    ten times the clients
//! ```

pub mod calibration;
pub mod churn;
pub mod clients;
pub mod clocks;
pub mod components;
pub mod faults;
pub mod links;
pub mod network;
pub mod nodes;
pub mod overload;
pub mod paused;
pub mod random;
pub mod round;
pub mod run;
pub mod sections;
pub mod storm;
mod tun;
pub mod weather;
pub mod workloads;
