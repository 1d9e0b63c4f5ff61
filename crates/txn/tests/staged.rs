//! Staged transactions below the transaction API: entries made by hand, applied by replicas that flush at different
//! times, must give one state.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_storage::engine::EngineKind;
use rustydb_txn::entry::{Base, EntryBuilder, EntryKind, Numbering};
use rustydb_txn::{
    Access, ApplyEntry, ApplyError, ApplyPayload, Direction, EngineOpener, Isolation, KvConfig, KvStore,
    LocalProposer, ScanRequest, StateMachine, TxnOptions,
};
use rustydb_types::ids::{Incarnation, LogIndex, RequestId, SessionId, Term, Version};
use rustydb_types::position::LogPosition;

const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

fn open(dir: &Path, kind: EngineKind) -> (KvStore, StateMachine) {
    open_checking(dir, kind, KvConfig::new(dir.into()).base_check_interval)
}

fn open_checking(dir: &Path, kind: EngineKind, base_check_interval: u64) -> (KvStore, StateMachine) {
    let env = Env::os();
    let mut config = KvConfig { base_check_interval, ..KvConfig::new(dir.into()) };
    config.flush_interval = Duration::from_secs(3600);
    let at = env.clone();
    let opener: EngineOpener = Arc::new(move |path| rustydb_storage::engine::open(kind, &at, path, 1 << 20));
    KvStore::open(&env, config, opener, Arc::new(LocalProposer::default())).unwrap()
}

/// Keys, what is replaced there, and the new values.
type Rows = &'static [(&'static str, Option<(u64, &'static str)>, Option<&'static str>)];

fn entry(sequence: u64, kind: EntryKind, staged: u64, rows: Rows) -> ApplyEntry {
    let mut builder = EntryBuilder::new(kind, NOBODY, Version::new(staged), &[]);
    for (key, base, value) in rows {
        let base = base.map(|(version, old)| Base::of(key.as_bytes(), Version::new(version), old.as_bytes()));
        builder.write(key.as_bytes(), base.unwrap_or(Base::NONE), value.map(str::as_bytes));
    }
    let (term, sequence) = (Term::new(1), Version::new(sequence));
    let command = builder.number(Numbering { term, sequence, attempt: sequence.get(), commit_time_us: 0 });
    ApplyEntry {
        position: LogPosition::new(term, LogIndex::new(sequence.get())),
        opaque_position: Bytes::new(),
        payload: ApplyPayload::Command(command),
    }
}

fn history() -> Vec<ApplyEntry> {
    vec![
        entry(
            1,
            EntryKind::Commit,
            0,
            &[("a", None, Some("old")), ("b", None, Some("old")), ("z", None, Some("z"))],
        ),
        entry(2, EntryKind::Stage, 0, &[("a", Some((1, "old")), Some("new")), ("c", None, Some("first"))]),
        entry(3, EntryKind::Commit, 0, &[("y", None, Some("y"))]),
        entry(4, EntryKind::Stage, 2, &[("b", Some((1, "old")), None), ("c", None, Some("second"))]),
        entry(
            5,
            EntryKind::Stage,
            0,
            &[("z", Some((1, "z")), Some("dropped")), ("x", None, Some("dropped"))],
        ),
        entry(6, EntryKind::CommitStaged, 2, &[("d", None, Some("last"))]),
        entry(7, EntryKind::AbortStaged, 5, &[]),
        entry(
            8,
            EntryKind::Commit,
            0,
            &[("a", Some((6, "new")), None), ("d", Some((6, "last")), Some("after"))],
        ),
    ]
}

async fn rows(kv: &KvStore) -> Vec<(String, String)> {
    let options =
        TxnOptions { isolation: Isolation::RepeatableRead, access: Access::ReadLocal, request: NOBODY };
    let txn = kv.begin(options).await.unwrap();
    let request = ScanRequest {
        start: Bytes::new(),
        end: Bytes::new(),
        direction: Direction::Forward,
        max_bytes: 1 << 16,
        max_rows: 100,
    };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let rows: Vec<_> =
        txn.scan(request).unwrap().iter().map(|(key, value)| (text(key), text(value))).collect();
    for (key, value) in &rows {
        assert_eq!(
            txn.get(key.as_bytes()).unwrap().as_deref(),
            Some(value.as_bytes()),
            "point read of {key}"
        );
    }
    rows
}

fn expected(rows: &[(&str, &str)]) -> Vec<(String, String)> {
    rows.iter().map(|(key, value)| (key.to_string(), value.to_string())).collect()
}

/// The rows after each entry.
fn steps() -> Vec<Vec<(String, String)>> {
    let before = expected(&[("a", "old"), ("b", "old"), ("z", "z")]);
    let beside = expected(&[("a", "old"), ("b", "old"), ("y", "y"), ("z", "z")]);
    let committed = expected(&[("a", "new"), ("c", "second"), ("d", "last"), ("y", "y"), ("z", "z")]);
    let after = expected(&[("c", "second"), ("d", "after"), ("y", "y"), ("z", "z")]);
    vec![before.clone(), before, beside.clone(), beside.clone(), beside, committed.clone(), committed, after]
}

#[tokio::test]
async fn provisional_rows_count_from_their_commit_on_wherever_they_are() {
    let dir = tempfile::tempdir().unwrap();
    // Bit n of the mask: flush after entry n. The first replica never flushes.
    let masks = [0_u32, 0xFF, 0b0000_0010, 0b0001_1010, 0b0010_0000, 0b0100_1001, 0b1000_0000];
    let mut hashes: Vec<Vec<u128>> = Vec::new();
    for (number, mask) in masks.into_iter().enumerate() {
        let (kv, mut machine) = open(&dir.path().join(number.to_string()), EngineKind::Memory);
        let mut hash = Vec::new();
        for (place, (entry, expected)) in history().into_iter().zip(steps()).enumerate() {
            machine.apply(&[entry]).unwrap();
            assert_eq!(rows(&kv).await, expected, "mask {mask:b} after entry {place}");
            if mask & (1 << place) != 0 {
                machine.flush().await.unwrap();
                assert_eq!(rows(&kv).await, expected, "mask {mask:b} flushed after entry {place}");
            }
            hash.push(machine.state_hash());
        }
        assert!(machine.recompute_hash().unwrap(), "mask {mask:b}");
        assert_eq!(rows(&kv).await, steps().pop().unwrap());
        hashes.push(hash);
    }
    for hash in &hashes {
        assert_eq!(Some(hash), hashes.first());
    }
}

#[tokio::test]
async fn a_replica_goes_on_after_a_restart_at_any_point() {
    let complete = {
        let dir = tempfile::tempdir().unwrap();
        let (_kv, mut machine) = open(dir.path(), EngineKind::Memory);
        machine.apply(&history()).unwrap();
        machine.state_hash()
    };
    for restart in 1..history().len() {
        let dir = tempfile::tempdir().unwrap();
        let (kv, mut machine) = open(dir.path(), EngineKind::Redb);
        machine.apply(&history()[..restart]).unwrap();
        machine.flush().await.unwrap();
        let (hash, applied) = (machine.state_hash(), machine.applied());
        machine.shutdown(Duration::from_secs(5)).await;
        drop(kv);
        let (kv, mut machine) = open(dir.path(), EngineKind::Redb);
        assert_eq!(machine.state_hash(), hash, "restart after entry {restart}");
        assert_eq!(machine.applied(), applied);
        machine.apply(&history()[restart..]).unwrap();
        assert_eq!(machine.state_hash(), complete, "restart after entry {restart}");
        assert_eq!(rows(&kv).await, steps().pop().unwrap());
        assert!(machine.recompute_hash().unwrap());
        machine.shutdown(Duration::from_secs(5)).await;
    }
}

#[tokio::test]
async fn a_snapshot_carries_open_and_committed_staged_transactions() {
    for taken in 1..=history().len() {
        let dir = tempfile::tempdir().unwrap();
        let (_from_kv, mut from) = open(&dir.path().join("from"), EngineKind::Memory);
        from.apply(&history()[..taken]).unwrap();
        let mut reader = from.snapshot().await.unwrap();
        let (kv, mut to) = open(&dir.path().join("to"), EngineKind::Memory);
        let mut installer = to.installer().unwrap();
        while let Some(chunk) = reader.next_chunk(16).unwrap() {
            installer.write_chunk(&chunk).unwrap();
        }
        installer.finish().unwrap();
        assert_eq!(to.state_hash(), from.state_hash(), "snapshot after entry {taken}");
        to.apply(&history()[taken..]).unwrap();
        from.apply(&history()[taken..]).unwrap();
        assert_eq!(to.state_hash(), from.state_hash());
        assert_eq!(rows(&kv).await, steps().pop().unwrap());
    }
}

#[tokio::test]
async fn an_incomplete_snapshot_is_refused_and_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (kv, mut machine) = open(&dir.path().join("store"), EngineKind::Memory);
    machine.apply(&history()).unwrap();
    let mut reader = machine.snapshot().await.unwrap();
    let mut installer = machine.installer().unwrap();
    let chunk = reader.next_chunk(1 << 20).unwrap().unwrap();
    installer.write_chunk(&chunk[..chunk.len() - 1]).unwrap();
    assert!(matches!(installer.finish(), Err(ApplyError::Stored { .. })));
    assert_eq!(rows(&kv).await, steps().pop().unwrap());
}

/// Applies an entry; the versions that it names and that there are, where they or the rows differ.
fn suspicion(machine: &mut StateMachine, entry: ApplyEntry) -> Option<(u64, u64)> {
    machine.apply(&[entry]).unwrap();
    machine.suspicion().map(|it| (it.expected.get(), it.found.get()))
}

#[tokio::test]
async fn a_wrong_base_is_applied_and_told_an_unknown_kind_and_disorder_stop_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let fresh = |name: &str| open(&dir.path().join(name), EngineKind::Memory);
    let (_kv, mut machine) = fresh("base");
    machine.apply(&history()[..1]).unwrap();
    let wrong = entry(2, EntryKind::Commit, 0, &[("a", Some((7, "old")), Some("x"))]);
    assert_eq!(machine.suspicion(), None);
    assert_eq!(suspicion(&mut machine, wrong), Some((7, 1)));
    assert_eq!(machine.suspicion(), None, "it is told once");

    let (_kv, mut machine) = fresh("kind");
    for (place, byte) in [(0, 9_u8), (1, 99)] {
        let mut unknown = entry(1, EntryKind::Commit, 0, &[]);
        if let ApplyPayload::Command(command) = &unknown.payload {
            let mut bytes = command.to_vec();
            bytes[place] = byte;
            unknown.payload = ApplyPayload::Command(bytes.into());
        }
        let error = machine.apply(&[unknown]).unwrap_err();
        let expected = matches!(
            error,
            ApplyError::UnknownVersion { version: 9, .. } | ApplyError::UnknownKind { kind: 99, .. }
        );
        assert!(expected || matches!(error, ApplyError::Stopped), "{error}");
    }

    let (_kv, mut machine) = fresh("order");
    machine.apply(&history()[..2]).unwrap();
    assert!(matches!(machine.apply(&history()[..1]), Err(ApplyError::OutOfOrder { .. })));

    let (_kv, mut machine) = fresh("staged");
    let nowhere = entry(1, EntryKind::CommitStaged, 9, &[]);
    assert!(matches!(machine.apply(&[nowhere]), Err(ApplyError::UnknownStaged { .. })));
}

#[tokio::test]
async fn what_is_overwritten_is_compared_in_memory_and_now_and_then_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let other = || entry(2, EntryKind::Commit, 0, &[("a", Some((1, "other")), Some("x"))]);
    let (_kv, mut machine) = open(&dir.path().join("memory"), EngineKind::Memory);
    machine.apply(&history()[..1]).unwrap();
    assert_eq!(suspicion(&mut machine, other()), Some((1, 1)));

    let (_kv, mut machine) = open_checking(&dir.path().join("all"), EngineKind::Memory, 1);
    machine.apply(&history()[..1]).unwrap();
    machine.flush().await.unwrap();
    assert_eq!(suspicion(&mut machine, other()), Some((1, 1)));

    // Not compared, it counts as the entry says, and the rows are found to differ from what they should be.
    let (_kv, mut machine) = open_checking(&dir.path().join("some"), EngineKind::Memory, 3);
    machine.apply(&history()[..1]).unwrap();
    machine.flush().await.unwrap();
    assert_eq!(suspicion(&mut machine, other()), None);
    assert!(!machine.recompute_hash().unwrap());
    let wrong = entry(3, EntryKind::Commit, 0, &[("b", Some((2, "old")), None)]);
    assert_eq!(suspicion(&mut machine, wrong), Some((2, 1)));
}

#[tokio::test]
async fn entries_of_another_term_or_out_of_sequence_are_skipped() {
    let dir = tempfile::tempdir().unwrap();
    let (kv, mut machine) = open(dir.path(), EngineKind::Memory);
    machine.apply(&history()[..1]).unwrap();
    let hash = machine.state_hash();
    let mut other_term = entry(2, EntryKind::Commit, 0, &[("q", None, Some("q"))]);
    other_term.position = LogPosition::new(Term::new(2), LogIndex::new(2));
    let mut gap = entry(3, EntryKind::Commit, 0, &[("q", None, Some("q"))]);
    gap.position = LogPosition::new(Term::new(1), LogIndex::new(3));
    machine.apply(&[other_term, gap]).unwrap();
    assert_eq!(machine.state_hash(), hash);
    assert_eq!(machine.applied().version, Version::new(1));
    assert_eq!(rows(&kv).await, steps()[0]);
}
