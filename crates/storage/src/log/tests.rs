//! Tests of the log.

mod damage;
mod faults;
mod operations;
mod recovery;

use std::path::Path;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_types::ids::{GroupId, LogIndex, Term};
use rustydb_types::position::LogPosition;
use tokio::sync::oneshot;

use super::{Completion, GroupLog, Log, LogConfig, LogEntry, LogError};

/// Small segments, so that a test fills several.
fn small() -> LogConfig {
    LogConfig {
        segment_bytes: 64 << 10,
        spare_count: 1,
        tail_cache_bytes: 4 << 10,
        queue_bytes_max: 256 << 10,
        batch_bytes_max: 32 << 10,
        reserve_bytes: 0,
    }
}

fn index(index: u64) -> LogIndex {
    LogIndex::new(index)
}

fn position(term: u64, index: u64) -> LogPosition {
    LogPosition::new(Term::new(term), LogIndex::new(index))
}

fn group(id: u64) -> GroupId {
    GroupId::new(id)
}

/// An entry whose body tells which it is.
fn entry(term: u64, at: u64, size: usize) -> LogEntry {
    let mut body = format!("{term}-{at}:").into_bytes();
    body.resize(body.len().max(size), u8::try_from(at % 251).unwrap());
    LogEntry { index: index(at), term: Term::new(term), body: Bytes::from(body) }
}

fn entries(term: u64, range: std::ops::Range<u64>, size: usize) -> Vec<LogEntry> {
    range.map(|at| entry(term, at, size)).collect()
}

/// Calls with a completion and waits for it.
async fn done(call: impl FnOnce(Completion)) -> Result<(), LogError> {
    let (sender, receiver) = oneshot::channel();
    call(Box::new(move |result| {
        let _gone = sender.send(result);
    }));
    receiver.await.unwrap_or(Err(LogError::Closed))
}

async fn append(log: &GroupLog, entries: Vec<LogEntry>) -> Result<(), LogError> {
    done(|completion| log.append(entries, completion)).await
}

/// Everything a group holds.
fn all(log: &GroupLog) -> Vec<LogEntry> {
    let mut entries = Vec::new();
    let mut from = log.first_index();
    loop {
        let read = log.read(from..index(u64::MAX), 10_000).unwrap();
        let Some(last) = read.last() else { return entries };
        from = last.index.next();
        entries.extend(read);
    }
}

fn open(dir: &Path) -> Log {
    Log::open(&Env::os(), dir, small()).unwrap()
}
