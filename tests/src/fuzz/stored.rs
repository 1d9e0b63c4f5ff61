//! What lies on a disk or in a file that people write: segments of the log, rows, keys, snapshots, configuration.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::sim::{SimNode, Simulation};
use rustydb_env::{Env, OpenMode};
use rustydb_storage::engine::MemoryEngine;
use rustydb_storage::log::{Log, LogConfig, LogEntry};
use rustydb_txn::{
    Access, ApplyEntry, ApplyPayload, EngineOpener, Isolation, KvConfig, KvStore, Leadership, Linearize,
    Proposal, ProposeError, Proposer, StateMachine, TxnError, TxnOptions,
};
use rustydb_types::binary;
use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::ids::{GroupId, Incarnation, LogIndex, RequestId, SessionId, Term};
use rustydb_types::keycodec::{self, KeyOrder};
use rustydb_types::position::LogPosition;
use rustydb_types::rowcodec::{self, Wanted};
use rustydb_types::text::{self, TextContext};
use rustydb_types::value::Value;

/// Values of many types, as text; the type of each is its neighbour.
const VALUES: &[(&str, BaseType)] = &[
    ("t", BaseType::Bool),
    ("-12345", BaseType::Int4),
    ("9223372036854775807", BaseType::Int8),
    ("3.14159e-300", BaseType::Float8),
    ("-12345678901234567890.000123", BaseType::Numeric),
    ("NaN", BaseType::Numeric),
    ("text with \\ and é", BaseType::Text),
    ("\\x00ff10", BaseType::Bytea),
    ("2024-02-29", BaseType::Date),
    ("23:59:59.999999", BaseType::Time),
    ("2024-02-29 12:34:56.789+05:30", BaseType::Timestamptz),
    ("1 year 2 mons -3 days 04:05:06.7", BaseType::Interval),
    ("550e8400-e29b-41d4-a716-446655440000", BaseType::Uuid),
    ("{a,NULL,\"b c\",\"\\\"\"}", BaseType::TextArray),
];

fn values() -> Vec<(Value, BaseType)> {
    let read = |(text, base): &(&str, BaseType)| {
        text::text_in(text, *base, &TextContext::UTC).ok().map(|value| (value, *base))
    };
    VALUES.iter().filter_map(read).collect()
}

/// Rows: a byte that says which type is wanted, then the row.
#[must_use]
pub fn rows() -> Vec<Vec<u8>> {
    let values = values();
    let columns: Vec<u32> = (1..).take(values.len()).collect();
    let plain: Vec<Value> = values.iter().map(|(value, _)| value.clone()).collect();
    let mut all = vec![[&[0][..], &rowcodec::encode(&columns, &plain)].concat()];
    for (at, (value, _)) in values.iter().enumerate() {
        let row = rowcodec::encode(&[1], std::slice::from_ref(value));
        all.push([&[u8::try_from(at).unwrap_or(0)][..], &row].concat());
    }
    all
}

/// A row is decoded as some types.
pub fn row_target(input: &[u8]) {
    let Some((first, row)) = input.split_first() else { return };
    let bases = BaseType::ALL;
    let wanted: Vec<Wanted> = (0..8_usize)
        .map(|slot| Wanted {
            column: u32::try_from(slot + 1).unwrap_or(1),
            base: bases[(usize::from(*first) + slot) % bases.len()],
            slot,
        })
        .collect();
    let mut out = vec![Value::Null; wanted.len()];
    if rowcodec::decode(row, &wanted, &mut out).is_ok() {
        for (value, wanted) in out.iter().zip(&wanted) {
            if !value.is_null() {
                let _text = text::text_out(value, DataType::plain(wanted.base), &TextContext::UTC);
            }
        }
    }
}

/// Keys: a byte that says which type, then the key.
#[must_use]
pub fn keys() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (value, base) in values() {
        for order in [KeyOrder::ASCENDING, KeyOrder::DESCENDING] {
            let at = BaseType::ALL.iter().position(|known| *known == base).unwrap_or(0);
            let mut key = vec![u8::try_from(at).unwrap_or(0)];
            keycodec::encode(&mut key, &value, order);
            all.push(key);
        }
    }
    all
}

/// A key is decoded and skipped in both orders; both go equally far.
pub fn key_target(input: &[u8]) {
    let Some((first, key)) = input.split_first() else { return };
    let base = BaseType::ALL[usize::from(*first) % BaseType::ALL.len()];
    if !base.is_storable() {
        return;
    }
    for order in [KeyOrder::ASCENDING, KeyOrder::DESCENDING] {
        let (mut decoded, mut skipped) = (key, key);
        let value = keycodec::decode(&mut decoded, base, order);
        let skip = keycodec::skip(&mut skipped, base, order);
        if value.is_ok() && skip.is_ok() {
            assert_eq!(decoded.len(), skipped.len(), "a key of {base:?} is skipped as far as it is decoded");
        }
    }
}

/// Values as clients send them, text and binary: a byte that says which type, then the value.
#[must_use]
pub fn parameters() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for (text, base) in VALUES {
        let at = BaseType::ALL.iter().position(|known| known == base).unwrap_or(0);
        let first = u8::try_from(at).unwrap_or(0);
        all.push([&[first][..], text.as_bytes()].concat());
        if let Ok(value) = text::text_in(text, *base, &TextContext::UTC) {
            let mut bytes = vec![first];
            binary::binary_out(&mut bytes, &value);
            all.push(bytes);
        }
    }
    all
}

/// A value is read as text and as binary; what is read is written again.
pub fn parameter_target(input: &[u8]) {
    let Some((first, bytes)) = input.split_first() else { return };
    let base = BaseType::ALL[usize::from(*first) % BaseType::ALL.len()];
    let mut read = Vec::new();
    if let Ok(text) = std::str::from_utf8(bytes) {
        read.extend(text::text_in(text, base, &TextContext::UTC));
    }
    read.extend(binary::binary_in(bytes, base));
    for value in read.into_iter().filter(|value| !value.is_null()) {
        let _text = text::text_out(&value, DataType::plain(base), &TextContext::UTC);
        let mut out = Vec::new();
        binary::binary_out(&mut out, &value);
    }
}

/// Names of types, as people write them.
pub fn type_name_target(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _read = DataType::read(text);
    }
}

/// The configuration of the repository, in parts that are small.
#[must_use]
pub fn configurations() -> Vec<Vec<u8>> {
    let whole = include_str!("../../../config/rustydb.toml");
    let mut all = vec![whole.as_bytes().to_vec()];
    all.push(b"[node]\nid = 3\ndata_dir = \"/x\"\n[raft]\nheartbeat_interval = \"20ms\"\n[auth]\nrules = [{ from = \"10.0.0.0/8\", method = \"trust\" }]\n".to_vec());
    all.push(
        b"[memory]\nbudget = \"1GiB\"\n[log]\nsegment_size = \"8MiB\"\n[session]\nmax_connections = 10\n"
            .to_vec(),
    );
    all
}

/// A configuration is read and checked.
pub fn configuration_target(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        let _checked = rustydb_server::config::check_text(text);
    }
}

fn log_config() -> LogConfig {
    LogConfig { segment_bytes: 16 << 10, spare_count: 1, reserve_bytes: 0, ..LogConfig::default() }
}

/// The name of a first segment.
const SEGMENT: &str = "/log/0000000000000001.log";

fn world() -> (Simulation, SimNode) {
    let simulation = Simulation::new(3);
    let node = simulation.add_node();
    (simulation, node)
}

/// Segments of a log with entries, votes and purges.
///
/// # Panics
/// A sound log cannot be written.
#[must_use]
pub fn segments() -> Vec<Vec<u8>> {
    let (simulation, node) = world();
    let log = Log::open(&simulation.env(node), Path::new("/log"), log_config()).expect("a fresh log opens");
    let group = log.group(GroupId::new(1));
    for at in 0..30_u64 {
        let entry = LogEntry {
            index: LogIndex::new(at),
            term: Term::new(1),
            body: Bytes::from(vec![u8::try_from(at).unwrap_or(0); 40 + usize::try_from(at).unwrap_or(0)]),
        };
        group.append(vec![entry], Box::new(|_| ()));
        if at.is_multiple_of(7) {
            group.save_vote(Bytes::from_static(b"a vote"), Box::new(|_| ()));
        }
        simulation.run_for(Duration::from_millis(2));
    }
    group.truncate_after(Some(LogIndex::new(20)), Box::new(|_| ()));
    simulation.run_for(Duration::from_millis(5));
    let whole = simulation.disk(node).content(Path::new(SEGMENT)).expect("the first segment is there");
    vec![whole]
}

/// A log is opened over a segment, and dumped; what it opens with can be read.
pub fn segment_target(input: &[u8]) {
    let (simulation, node) = world();
    let env: Env = simulation.env(node);
    let disk = env.disk();
    let written = disk.create_dir_all(Path::new("/log")).and_then(|()| {
        let file = disk.open(Path::new(SEGMENT), OpenMode::CreateNew)?;
        file.write_at(0, input)
    });
    if written.is_err() {
        return;
    }
    let _dumped = rustydb_storage::log::dump(&env, Path::new(SEGMENT));
    if let Ok(log) = Log::open(&env, Path::new("/log"), log_config()) {
        for id in log.groups() {
            let group = log.group(id);
            let _entries = group.read(group.first_index()..LogIndex::new(u64::MAX), 1 << 20);
        }
    }
}

/// Takes proposals for whoever applies them by hand.
#[derive(Default)]
struct Taken(parking_lot::Mutex<Vec<Proposal>>);

impl Proposer for Taken {
    fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        self.0.lock().push(proposal);
        Ok(())
    }

    fn linearize(&self) -> Linearize {
        Linearize::Now
    }
}

/// A store in memory of a simulated node, and its state machine.
fn store(simulation: &Simulation, node: SimNode) -> Option<(KvStore, StateMachine, Arc<Taken>)> {
    let opener: EngineOpener = Arc::new(|_| Ok(Arc::new(MemoryEngine::new())));
    let taken = Arc::new(Taken::default());
    let config = KvConfig::new("/store".into());
    let env = simulation.env(node);
    let (store, machine) =
        KvStore::open(&env, config, opener, Arc::clone(&taken) as Arc<dyn Proposer>).ok()?;
    Some((store, machine, taken))
}

/// Snapshots of a store with some rows, whole.
///
/// # Panics
/// A sound store gives none.
#[must_use]
pub fn snapshots() -> Vec<Vec<u8>> {
    let (simulation, node) = world();
    let (store, mut machine, taken) = store(&simulation, node).expect("a store in memory opens");
    let term = Term::new(1);
    machine.leadership(Leadership::Leader { term });
    for number in 1..6_u64 {
        let (writing, env) = (store.clone(), simulation.env(node));
        drop(env.spawn("write", async move {
            let request =
                RequestId { incarnation: Incarnation::new(1), session: SessionId::new(1), counter: number };
            let isolation = Isolation::ReadCommitted;
            let mut txn = writing.begin(TxnOptions { isolation, access: Access::ReadWrite, request }).await?;
            txn.put(Bytes::from(format!("row {number}")), Bytes::from(vec![7; 30]))?;
            txn.commit().await?;
            Ok::<_, TxnError>(())
        }));
        simulation.run_for(Duration::from_millis(20));
        let proposals = std::mem::take(&mut *taken.0.lock());
        for proposal in proposals {
            let position = LogPosition::new(term, LogIndex::new(number));
            let payload = ApplyPayload::Command(proposal.entry);
            let entry = ApplyEntry { position, opaque_position: Bytes::new(), payload };
            machine.apply(&[entry]).expect("a sound entry is applied");
            (proposal.done)(Ok(()));
        }
    }
    let snapshot = machine.snapshot();
    let mut reader = simulation
        .block_on(Duration::from_secs(60), snapshot)
        .expect("a flush ends")
        .expect("a sound store gives a snapshot");
    let mut whole = Vec::new();
    while let Ok(Some(chunk)) = reader.next_chunk(64) {
        whole.extend_from_slice(&chunk);
    }
    assert!(whole.len() > 200, "the snapshot holds the rows");
    vec![whole]
}

/// A snapshot is taken in, in two pieces; if it is whole the store opens with it.
pub fn snapshot_target(input: &[u8]) {
    let (simulation, node) = world();
    let Some((_store, machine, _)) = store(&simulation, node) else { return };
    let Ok(mut installer) = machine.installer() else { return };
    let (first, second) = input.split_at(input.len() / 2);
    if installer.write_chunk(first).is_ok() && installer.write_chunk(second).is_ok() {
        let _installed = installer.finish();
    }
}
