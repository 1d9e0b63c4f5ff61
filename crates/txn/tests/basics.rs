//! One store over a local proposer: what a transaction sees, and what stays of it.

#![allow(clippy::unwrap_used)]

use std::time::Duration;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_storage::engine::EngineKind;
use rustydb_txn::{
    Access, Direction, Fate, FeedEvent, Isolation, KvConfig, KvStore, LocalKv, LockWait, OutcomeBounds,
    RowLock, RowLockOutcome, ScanRequest, Transaction, TxnError, TxnOptions,
};
use rustydb_types::ids::{Incarnation, RequestId, SessionId, Version};

const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

fn options(isolation: Isolation, access: Access) -> TxnOptions {
    TxnOptions { isolation, access, request: NOBODY }
}

fn local(dir: &tempfile::TempDir, delay_ms: u64) -> LocalKv {
    LocalKv::in_memory(&Env::os(), dir.path().into(), Duration::from_millis(delay_ms)).unwrap()
}

async fn writer(kv: &KvStore, isolation: Isolation) -> Transaction {
    kv.begin(options(isolation, Access::ReadWrite)).await.unwrap()
}

async fn set(
    txn: &mut Transaction,
    key: &'static str,
    value: &'static str,
) -> Result<RowLockOutcome, TxnError> {
    let outcome = txn.lock_row(key.as_bytes(), RowLock::ForUpdate, LockWait::NoWait).await?;
    txn.put(key.into(), value.into())?;
    Ok(outcome)
}

async fn put_all(kv: &KvStore, rows: &[(&'static str, &'static str)]) {
    let mut txn = writer(kv, Isolation::ReadCommitted).await;
    for (key, value) in rows {
        set(&mut txn, key, value).await.unwrap();
    }
    txn.commit().await.unwrap();
}

async fn read(kv: &KvStore, key: &str) -> Option<Bytes> {
    let txn = kv.begin(options(Isolation::ReadCommitted, Access::ReadOnly)).await.unwrap();
    txn.get(key.as_bytes()).unwrap()
}

fn all(txn: &Transaction, direction: Direction, max_rows: usize) -> Vec<(String, String)> {
    let mut rows = Vec::new();
    let mut range = Some((Bytes::new(), Bytes::new()));
    while let Some((start, end)) = range {
        let chunk = txn.scan(ScanRequest { start, end, direction, max_bytes: 1 << 16, max_rows }).unwrap();
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        rows.extend(chunk.iter().map(|(key, value)| (text(key), text(value))));
        range = chunk.rest();
    }
    rows
}

#[tokio::test]
async fn a_commit_is_read_by_the_next_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    put_all(&local.kv(), &[("a", "1"), ("b", "2")]).await;
    assert_eq!(read(&local.kv(), "a").await, Some("1".into()));
    let mut txn = writer(&local.kv(), Isolation::ReadCommitted).await;
    txn.delete("a".into()).unwrap();
    txn.commit().await.unwrap();
    assert_eq!(read(&local.kv(), "a").await, None);
}

#[tokio::test]
async fn a_rolled_back_write_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let mut txn = writer(&local.kv(), Isolation::ReadCommitted).await;
    set(&mut txn, "a", "1").await.unwrap();
    txn.rollback();
    assert_eq!(read(&local.kv(), "a").await, None);
    put_all(&local.kv(), &[("a", "2")]).await;
}

#[tokio::test]
async fn locks_are_released_at_numbering_and_the_next_writer_reads_what_is_in_flight() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 50);
    let kv = local.kv();
    put_all(&kv, &[("a", "0")]).await;
    let mut first = writer(&kv, Isolation::ReadCommitted).await;
    set(&mut first, "a", "1").await.unwrap();
    let committing = tokio::spawn(first.commit());
    tokio::task::yield_now().await;
    // The first commit is in flight: its lock is free and its write is read by writers, not by readers.
    let mut second = writer(&kv, Isolation::ReadCommitted).await;
    assert_eq!(second.get(b"a").unwrap(), Some("1".into()));
    assert_eq!(set(&mut second, "a", "2").await.unwrap(), RowLockOutcome::Unchanged);
    assert_eq!(read(&kv, "a").await, Some("0".into()));
    assert!(!committing.is_finished());
    second.settle_reads().await.unwrap();
    assert_eq!(read(&kv, "a").await, Some("1".into()));
    committing.await.unwrap().unwrap();
    second.commit().await.unwrap();
    assert_eq!(read(&kv, "a").await, Some("2".into()));
}

#[tokio::test]
async fn read_committed_is_told_that_a_row_changed_and_repeatable_read_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    put_all(&kv, &[("a", "0"), ("b", "0")]).await;
    let mut committed = writer(&kv, Isolation::ReadCommitted).await;
    committed.begin_statement();
    let mut repeatable = writer(&kv, Isolation::RepeatableRead).await;
    repeatable.begin_statement();
    put_all(&kv, &[("a", "1")]).await;
    assert_eq!(set(&mut committed, "a", "2").await.unwrap(), RowLockOutcome::Changed);
    assert_eq!(committed.get(b"a").unwrap(), Some("0".into()));
    assert_eq!(committed.get_latest(b"a").unwrap(), Some("2".into()));
    drop(committed);
    assert_eq!(repeatable.get(b"a").unwrap(), Some("0".into()));
    assert!(matches!(set(&mut repeatable, "a", "3").await, Err(TxnError::Serialization { .. })));
    assert_eq!(set(&mut repeatable, "b", "3").await.unwrap(), RowLockOutcome::Unchanged);
}

#[tokio::test]
async fn scans_merge_own_writes_generations_and_engine_in_both_directions() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = KvConfig::new(dir.path().into());
    config.flush_size_bytes = 1;
    config.flush_interval = Duration::from_millis(1);
    let local =
        LocalKv::with_engine(&Env::os(), config, EngineKind::Memory, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    put_all(&kv, &[("a", "1"), ("b", "1"), ("c", "1"), ("d", "1"), ("e", "1")]).await;
    while kv.stats().unflushed_size_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    put_all(&kv, &[("b", "2"), ("f", "2")]).await;
    let mut txn = writer(&kv, Isolation::ReadCommitted).await;
    txn.begin_statement();
    txn.delete("c".into()).unwrap();
    txn.put("bb".into(), "own".into()).unwrap();
    txn.begin_statement();
    let expected: Vec<(String, String)> =
        [("a", "1"), ("b", "2"), ("bb", "own"), ("d", "1"), ("e", "1"), ("f", "2")]
            .map(|(key, value)| (key.to_string(), value.to_string()))
            .into();
    let mut reversed = expected.clone();
    reversed.reverse();
    for max_rows in [1, 2, 3, 100] {
        assert_eq!(all(&txn, Direction::Forward, max_rows), expected, "{max_rows} rows a chunk");
        assert_eq!(all(&txn, Direction::Backward, max_rows), reversed, "{max_rows} rows a chunk");
    }
}

#[tokio::test]
async fn write_skew_is_refused_by_serializable() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    put_all(&kv, &[("a", "1"), ("b", "1")]).await;
    let mut first = writer(&kv, Isolation::Serializable).await;
    let mut second = writer(&kv, Isolation::Serializable).await;
    first.get(b"b").unwrap();
    second.get(b"a").unwrap();
    set(&mut first, "a", "0").await.unwrap();
    set(&mut second, "b", "0").await.unwrap();
    first.commit().await.unwrap();
    assert!(matches!(second.commit().await, Err(TxnError::Serialization { .. })));
}

#[tokio::test]
async fn a_fence_that_gave_way_to_others_still_refuses_a_late_original() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = KvConfig::new(dir.path().into());
    config.outcomes = OutcomeBounds { rows_max: 2, commits_max: 1_000 };
    let local =
        LocalKv::with_engine(&Env::os(), config, EngineKind::Memory, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    let request = |session| RequestId {
        incarnation: Incarnation::new(1),
        session: SessionId::new(session),
        counter: 1,
    };
    let named = |session| TxnOptions {
        request: request(session),
        ..options(Isolation::ReadCommitted, Access::ReadWrite)
    };
    let commit = async |session, key| {
        let mut txn = kv.begin(named(session)).await.unwrap();
        set(&mut txn, key, "1").await.unwrap();
        txn.commit().await
    };
    let since = kv.applied();
    let mut late = kv.begin(named(1)).await.unwrap();
    set(&mut late, "late", "1").await.unwrap();
    assert_eq!(kv.fate(request(1), since).await.unwrap(), Fate::Aborted);
    for (session, key) in [(2, "b"), (3, "c"), (4, "d")] {
        commit(session, key).await.unwrap();
    }
    assert!(
        matches!(late.commit().await, Err(TxnError::Serialization { .. })),
        "its client knows it as aborted"
    );
    assert_eq!(read(&kv, "late").await, None);
    // Nor does one that begins only now, of what was sent before the question.
    let mut later = kv.begin(named(1)).await.unwrap();
    later.began_by(since);
    set(&mut later, "late", "1").await.unwrap();
    assert!(matches!(later.commit().await, Err(TxnError::Serialization { .. })));
    assert_eq!(read(&kv, "late").await, None);
    // What is asked for by then is not known; nobody is told that it was aborted.
    assert_eq!(kv.fate(request(1), since).await.unwrap(), Fate::Forgotten);
    assert_eq!(kv.fate(request(2), since).await.unwrap(), Fate::Forgotten);
    assert!(matches!(kv.fate(request(4), since).await.unwrap(), Fate::Committed(_)));
    commit(5, "e").await.unwrap();
    let nobody = RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
    assert_eq!(kv.fate(nobody, since).await.unwrap(), Fate::Forgotten);
}

#[tokio::test]
async fn the_outcome_of_a_request_is_known_and_a_fence_refuses_a_late_original() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    let request =
        |counter| RequestId { incarnation: Incarnation::new(1), session: SessionId::new(2), counter };
    let named = |counter| TxnOptions {
        request: request(counter),
        ..options(Isolation::ReadCommitted, Access::ReadWrite)
    };
    let mut txn = kv.begin(named(1)).await.unwrap();
    set(&mut txn, "a", "1").await.unwrap();
    let receipt = txn.commit().await.unwrap();
    let since = Version::ZERO;
    assert_eq!(kv.fate(request(1), since).await.unwrap(), Fate::Committed(receipt.version));
    let mut late = kv.begin(named(2)).await.unwrap();
    set(&mut late, "a", "2").await.unwrap();
    assert_eq!(kv.fate(request(2), since).await.unwrap(), Fate::Aborted);
    assert!(matches!(late.commit().await, Err(TxnError::Serialization { .. })));
    assert_eq!(read(&kv, "a").await, Some("1".into()));
}

#[tokio::test]
async fn the_feed_tells_commits_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    let mut feed = kv.changes(10);
    put_all(&kv, &[("a", "1")]).await;
    put_all(&kv, &[("a", "2")]).await;
    for expected in ["1", "2"] {
        let FeedEvent::Change(change) = feed.next().await else { panic!("lagged") };
        assert_eq!(change.writes[0].value, Some(expected.into()));
    }
}

#[tokio::test]
async fn flushed_commits_survive_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = KvConfig::new(dir.path().into());
    config.flush_interval = Duration::from_millis(1);
    let open = || {
        LocalKv::with_engine(&Env::os(), config.clone(), EngineKind::Redb, 1 << 20, Duration::ZERO).unwrap()
    };
    let local = open();
    put_all(&local.kv(), &[("a", "1"), ("b", "2")]).await;
    while local.kv().stats().unflushed_size_bytes > 0 {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    local.shutdown(Duration::from_secs(1)).await;
    let local = open();
    assert_eq!(read(&local.kv(), "a").await, Some("1".into()));
    put_all(&local.kv(), &[("a", "3")]).await;
    assert_eq!(read(&local.kv(), "a").await, Some("3".into()));
}

#[tokio::test]
async fn a_waiting_lock_is_granted_when_its_holder_commits_and_times_out_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    let mut first = writer(&kv, Isolation::ReadCommitted).await;
    set(&mut first, "a", "1").await.unwrap();
    let mut second = writer(&kv, Isolation::ReadCommitted).await;
    second.begin_statement();
    let lock = RowLock::ForUpdate;
    assert!(matches!(second.lock_row(b"a", lock, LockWait::NoWait).await, Err(TxnError::LockNotAvailable)));
    let skipped = second.lock_row(b"a", lock, LockWait::SkipLocked).await.unwrap();
    assert_eq!(skipped, RowLockOutcome::Skipped);
    let short = LockWait::For(Duration::from_millis(5));
    assert!(matches!(second.lock_row(b"a", lock, short).await, Err(TxnError::LockTimeout)));
    let waiting = tokio::spawn(async move {
        let outcome = second.lock_row(b"a", lock, LockWait::Forever).await;
        (second, outcome)
    });
    tokio::task::yield_now().await;
    first.commit().await.unwrap();
    let (second, outcome) = waiting.await.unwrap();
    assert_eq!(outcome.unwrap(), RowLockOutcome::Changed);
    assert_eq!(second.get_latest(b"a").unwrap(), Some("1".into()));
}

#[tokio::test]
async fn no_dirty_write_and_no_dirty_read() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    put_all(&kv, &[("a", "0")]).await;
    let mut first = writer(&kv, Isolation::ReadCommitted).await;
    set(&mut first, "a", "1").await.unwrap();
    let mut second = writer(&kv, Isolation::ReadCommitted).await;
    second.begin_statement();
    assert_eq!(second.get(b"a").unwrap(), Some("0".into()));
    assert!(matches!(set(&mut second, "a", "2").await, Err(TxnError::LockNotAvailable)));
    assert!(matches!(second.put("a".into(), "2".into()), Err(TxnError::LockNotAvailable)));
}

#[tokio::test]
async fn no_lost_update_under_repeatable_read_even_for_a_deleted_row() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    put_all(&kv, &[("a", "0")]).await;
    let mut first = writer(&kv, Isolation::RepeatableRead).await;
    first.begin_statement();
    assert_eq!(first.get(b"a").unwrap(), Some("0".into()));
    let mut second = writer(&kv, Isolation::ReadCommitted).await;
    second.delete("a".into()).unwrap();
    second.commit().await.unwrap();
    assert!(matches!(set(&mut first, "a", "1").await, Err(TxnError::Serialization { .. })));
}

#[tokio::test]
async fn a_phantom_refuses_serializable_and_is_invisible_to_repeatable_read() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    let mut serializable = writer(&kv, Isolation::Serializable).await;
    let mut repeatable = writer(&kv, Isolation::RepeatableRead).await;
    for txn in [&mut serializable, &mut repeatable] {
        txn.begin_statement();
        assert!(all(txn, Direction::Forward, 10).is_empty());
    }
    put_all(&kv, &[("m", "1")]).await;
    assert!(all(&repeatable, Direction::Forward, 10).is_empty());
    set(&mut repeatable, "r", "1").await.unwrap();
    repeatable.commit().await.unwrap();
    set(&mut serializable, "s", "1").await.unwrap();
    assert!(matches!(serializable.commit().await, Err(TxnError::Serialization { .. })));
}

/// Fekete, O'Neil, O'Neil (2004): a reader must not see a state that no serial order has.
#[tokio::test]
async fn no_read_only_anomaly_under_serializable() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 0);
    let kv = local.kv();
    put_all(&kv, &[("checking", "0"), ("savings", "0")]).await;
    let mut withdraw = writer(&kv, Isolation::Serializable).await;
    withdraw.begin_statement();
    withdraw.get(b"checking").unwrap();
    withdraw.get(b"savings").unwrap();
    let mut deposit = writer(&kv, Isolation::Serializable).await;
    deposit.begin_statement();
    deposit.get(b"savings").unwrap();
    set(&mut deposit, "savings", "20").await.unwrap();
    deposit.commit().await.unwrap();
    let reader = kv.begin(options(Isolation::Serializable, Access::ReadOnly)).await.unwrap();
    assert_eq!(reader.get(b"savings").unwrap(), Some("20".into()));
    assert_eq!(reader.get(b"checking").unwrap(), Some("0".into()));
    set(&mut withdraw, "checking", "-11").await.unwrap();
    assert!(matches!(withdraw.commit().await, Err(TxnError::Serialization { .. })));
}

#[tokio::test]
async fn old_snapshots_are_given_up_when_they_hold_too_much() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = KvConfig::new(dir.path().into());
    config.flush_interval = Duration::from_millis(1);
    config.snapshot_size_bytes_max = 0;
    let local =
        LocalKv::with_engine(&Env::os(), config, EngineKind::Memory, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    let old = kv.begin(options(Isolation::RepeatableRead, Access::ReadOnly)).await.unwrap();
    put_all(&kv, &[("a", "1")]).await;
    let gone = async {
        while !matches!(old.get(b"a"), Err(TxnError::SnapshotTooOld)) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), gone).await.unwrap();
    assert_eq!(read(&kv, "a").await, Some("1".into()));
}

/// Real threads, with freezes and flushes all the time: every acknowledged increment is there, once, and every
/// snapshot has one sum.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn increments_of_many_threads_are_all_there() {
    const TASKS: u64 = 8;
    const INCREMENTS: u64 = 60;
    let dir = tempfile::tempdir().unwrap();
    let mut config = KvConfig::new(dir.path().into());
    config.flush_size_bytes = 2000;
    config.flush_interval = Duration::from_millis(1);
    let local =
        LocalKv::with_engine(&Env::os(), config, EngineKind::Memory, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    let number = |value: Option<Bytes>| -> i64 {
        value.map_or(0, |value| std::str::from_utf8(&value).unwrap().parse().unwrap())
    };
    // One key counts up, another down: their sum is zero in every snapshot.
    let add = move |txn: &mut Transaction, key: &'static [u8], change: i64| -> Result<(), TxnError> {
        let value = number(txn.get_latest(key)?) + change;
        txn.put(Bytes::from_static(key), value.to_string().into())
    };
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let kv = kv.clone();
        tasks.push(tokio::spawn(async move {
            let isolation = if task % 2 == 0 { Isolation::ReadCommitted } else { Isolation::RepeatableRead };
            let mut done = 0;
            while done < INCREMENTS {
                let mut txn = writer(&kv, isolation).await;
                txn.begin_statement();
                assert_eq!(number(txn.get(b"up").unwrap()) + number(txn.get(b"down").unwrap()), 0);
                let step = async {
                    for key in [&b"down"[..], b"up"] {
                        txn.lock_row(key, RowLock::ForUpdate, LockWait::Forever).await?;
                    }
                    add(&mut txn, b"up", 1)?;
                    add(&mut txn, b"down", -1)?;
                    txn.commit().await
                };
                match step.await {
                    Ok(_) => done += 1,
                    Err(TxnError::Serialization { .. }) => {}
                    Err(error) => panic!("{error}"),
                }
                let reader = kv.begin(options(Isolation::RepeatableRead, Access::ReadOnly)).await.unwrap();
                let sum = number(reader.get(b"up").unwrap()) + number(reader.get(b"down").unwrap());
                assert_eq!(sum, 0, "a torn snapshot");
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(number(read(&kv, "up").await), i64::try_from(TASKS * INCREMENTS).unwrap());
    assert_eq!(kv.stats().locks, 0);
}

#[tokio::test]
async fn a_row_beside_the_transaction_stays_when_that_is_rolled_back() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 2);
    let kv = &local.kv();
    let first = writer(kv, Isolation::RepeatableRead).await;
    let second = writer(kv, Isolation::Serializable).await;
    first.put_aside("n".into(), "1".into()).unwrap();
    // Whatever the snapshot, and though no lock is held.
    assert_eq!(second.get_aside(b"n").unwrap().as_deref(), Some(&b"1"[..]));
    second.put_aside("n".into(), "2".into()).unwrap();
    assert_eq!(first.get_aside(b"n").unwrap().as_deref(), Some(&b"2"[..]));
    first.rollback();
    second.commit().await.unwrap();
    assert_eq!(read(kv, "n").await.as_deref(), Some(&b"2"[..]));
    let reader = kv.begin(options(Isolation::ReadCommitted, Access::ReadOnly)).await.unwrap();
    assert_eq!(reader.get_aside(b"n").unwrap().as_deref(), Some(&b"2"[..]));
    assert!(matches!(reader.put_aside("n".into(), "3".into()), Err(TxnError::ReadOnly)));
}

#[tokio::test]
async fn a_commit_comes_after_the_rows_that_were_written_beside_it() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 5);
    let kv = &local.kv();
    let mut txn = writer(kv, Isolation::ReadCommitted).await;
    txn.put_aside("n".into(), "1".into()).unwrap();
    set(&mut txn, "row", "of 1").await.unwrap();
    let receipt = txn.commit().await.unwrap();
    let reader = kv.begin(options(Isolation::ReadCommitted, Access::ReadOnly)).await.unwrap();
    assert!(reader.snapshot() >= receipt.version);
    assert_eq!(reader.get(b"n").unwrap().as_deref(), Some(&b"1"[..]));
    // Without a write of its own it still waits for what it wrote beside.
    let mut txn = writer(kv, Isolation::ReadCommitted).await;
    txn.put_aside("n".into(), "2".into()).unwrap();
    txn.settle_reads().await.unwrap();
    assert_eq!(read(kv, "n").await.as_deref(), Some(&b"2"[..]));
}

#[tokio::test]
async fn beside_a_transaction_under_its_own_prefix_nothing_is_written_before_the_commit() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, 2);
    let kv = &local.kv();
    let mut txn = writer(kv, Isolation::ReadCommitted).await;
    txn.make_private("p".into());
    let savepoint = txn.savepoint();
    txn.put_aside("p1".into(), "1".into()).unwrap();
    txn.put_aside("p2".into(), "1".into()).unwrap();
    txn.rollback_to(savepoint).unwrap();
    assert_eq!(txn.get_aside(b"p1").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(read(kv, "p1").await, None);
    txn.delete("p2".into()).unwrap();
    txn.commit().await.unwrap();
    assert_eq!(read(kv, "p1").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(read(kv, "p2").await, None);

    let mut txn = writer(kv, Isolation::ReadCommitted).await;
    txn.make_private("q".into());
    txn.put_aside("q1".into(), "1".into()).unwrap();
    txn.rollback();
    assert_eq!(read(kv, "q1").await, None);
}
