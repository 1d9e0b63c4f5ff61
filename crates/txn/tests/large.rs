//! Large transactions from the side of whoever sends them: what leaves memory when, who waits for whom, and what
//! becomes of a transaction, and of what it staged, when a part of it is refused or lost.

#![allow(clippy::unwrap_used)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use rustydb_env::Env;
use rustydb_storage::engine::{EngineKind, MemoryEngine};
use rustydb_txn::entry::{Entry, EntryKind};
use rustydb_txn::{
    Access, ApplyEntry, ApplyPayload, Direction, EngineOpener, Isolation, KvConfig, KvStore, Leadership,
    Linearize, LocalKv, LockWait, Proposal, ProposeError, Proposer, RowLock, RowLockOutcome, ScanRequest,
    StateMachine, Transaction, TxnError, TxnOptions,
};
use rustydb_types::ids::{Incarnation, LogIndex, RequestId, SessionId, Term};
use rustydb_types::position::LogPosition;

const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };
const PATIENCE: Duration = Duration::from_secs(30);

fn options(isolation: Isolation, access: Access) -> TxnOptions {
    TxnOptions { isolation, access, request: NOBODY }
}

async fn writer(kv: &KvStore) -> Transaction {
    let mut txn = kv.begin(options(Isolation::ReadCommitted, Access::ReadWrite)).await.unwrap();
    txn.begin_statement();
    txn
}

fn config(dir: &tempfile::TempDir) -> KvConfig {
    let mut config = KvConfig::new(dir.path().into());
    config.stage_size_bytes = 2000;
    config.stage_begin_size_bytes = 2000;
    config.flush_size_bytes = 4000;
    config.flush_interval = Duration::from_millis(2);
    config
}

fn local(dir: &tempfile::TempDir, kind: EngineKind) -> LocalKv {
    LocalKv::with_engine(&Env::os(), config(dir), kind, 1 << 20, Duration::ZERO).unwrap()
}

fn key(number: u32) -> Bytes {
    format!("key-{number:06}").into()
}

async fn load(txn: &mut Transaction, keys: std::ops::Range<u32>, value: &str) -> Result<(), TxnError> {
    for number in keys {
        txn.lock_row(&key(number), RowLock::ForUpdate, LockWait::Forever).await?;
        txn.put(key(number), format!("{value}-{number}").into())?;
        txn.flush_if_large().await?;
    }
    Ok(())
}

fn scan(txn: &Transaction, direction: Direction) -> Vec<(Bytes, Bytes)> {
    let mut rows = Vec::new();
    let mut range = Some((Bytes::new(), Bytes::new()));
    while let Some((start, end)) = range {
        let chunk =
            txn.scan(ScanRequest { start, end, direction, max_bytes: 1 << 12, max_rows: 50 }).unwrap();
        let copy = Bytes::copy_from_slice;
        rows.extend(chunk.iter().map(|(key, value)| (copy(key), copy(value))));
        range = chunk.rest();
    }
    if direction == Direction::Backward {
        rows.reverse();
    }
    rows
}

async fn committed(kv: &KvStore) -> Vec<(Bytes, Bytes)> {
    let reader = kv.begin(options(Isolation::RepeatableRead, Access::ReadOnly)).await.unwrap();
    scan(&reader, Direction::Forward)
}

fn rows(keys: std::ops::Range<u32>, value: &str) -> Vec<(Bytes, Bytes)> {
    keys.map(|number| (key(number), format!("{value}-{number}").into())).collect()
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let wait = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_large_transaction_counts_as_a_whole_and_holds_little_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let mut txn = writer(&kv).await;
    let mut locks_most = 0;
    for start in (0..3000).step_by(100) {
        load(&mut txn, start..start + 100, "new").await.unwrap();
        locks_most = locks_most.max(kv.stats().locks);
    }
    assert_eq!(kv.stats().staged_open, 1);
    assert!(locks_most < 400, "{locks_most} locks at a time");
    assert!(committed(&kv).await.is_empty());
    txn.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..3000, "new"));
    assert_eq!((kv.stats().staged_open, kv.stats().locks), (0, 0));
    // The rows go to their place, and are the same there.
    let mut again = writer(&kv).await;
    load(&mut again, 0..3000, "newer").await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..3000, "newer"));
}

#[tokio::test]
async fn a_command_reads_what_earlier_commands_staged_and_not_what_it_stages_itself() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let mut old = writer(&kv).await;
    load(&mut old, 0..10, "old").await.unwrap();
    old.commit().await.unwrap();
    let mut txn = writer(&kv).await;
    load(&mut txn, 5..500, "own").await.unwrap();
    assert_eq!(kv.stats().staged_open, 1);
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(scan(&txn, direction), rows(0..10, "old"), "{direction:?}");
    }
    assert_eq!(txn.get(&key(7)).unwrap(), Some("old-7".into()));
    assert_eq!(txn.get(&key(300)).unwrap(), None);
    assert_eq!(txn.get_latest(&key(7)).unwrap(), Some("own-7".into()));
    txn.begin_statement();
    let expected = [rows(0..5, "old"), rows(5..500, "own")].concat();
    for direction in [Direction::Forward, Direction::Backward] {
        assert_eq!(scan(&txn, direction), expected, "{direction:?}");
    }
    // Once more over what is staged: this command reads the former values, the next one the new.
    load(&mut txn, 100..500, "twice").await.unwrap();
    txn.delete(key(6)).unwrap();
    assert_eq!(scan(&txn, Direction::Forward), expected);
    txn.begin_statement();
    let mut expected = [rows(0..5, "old"), rows(5..100, "own"), rows(100..500, "twice")].concat();
    expected.remove(6);
    assert_eq!(scan(&txn, Direction::Forward), expected);
    load(&mut txn, 500..1000, "more").await.unwrap();
    txn.commit().await.unwrap();
    expected.extend(rows(500..1000, "more"));
    assert_eq!(committed(&kv).await, expected);
}

#[tokio::test]
async fn who_meets_a_staged_row_waits_for_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    for (commits, expected) in [(true, Some("first-3")), (false, Some("first-3"))] {
        let mut first = writer(&kv).await;
        load(&mut first, 0..200, if commits { "first" } else { "never" }).await.unwrap();
        let mut second = writer(&kv).await;
        let lock = RowLock::ForUpdate;
        let refused = second.lock_row(&key(3), lock, LockWait::NoWait).await;
        assert!(matches!(refused, Err(TxnError::LockNotAvailable)));
        assert!(matches!(second.put(key(3), "x".into()), Err(TxnError::LockNotAvailable)));
        let skipped = second.lock_row(&key(3), lock, LockWait::SkipLocked).await.unwrap();
        assert_eq!(skipped, RowLockOutcome::Skipped);
        let short = LockWait::For(Duration::from_millis(5));
        assert!(matches!(second.lock_row(&key(3), lock, short).await, Err(TxnError::LockTimeout)));
        // The owner is not kept off its own row by those who wait for it.
        let waiting = tokio::spawn(async move {
            let outcome = second.lock_row(&key(3), lock, LockWait::Forever).await;
            (second, outcome)
        });
        tokio::task::yield_now().await;
        first.lock_row(&key(3), lock, LockWait::NoWait).await.unwrap();
        if commits {
            first.commit().await.unwrap();
        } else {
            first.rollback();
        }
        let (mut second, outcome) = waiting.await.unwrap();
        let changed = if commits { RowLockOutcome::Changed } else { RowLockOutcome::Unchanged };
        assert_eq!(outcome.unwrap(), changed);
        assert_eq!(second.get_latest(&key(3)).unwrap(), expected.map(Bytes::from));
        second.put(key(3), "first-3".into()).unwrap();
        second.commit().await.unwrap();
    }
}

#[tokio::test]
async fn two_that_wait_for_what_the_other_staged_are_a_deadlock() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let (mut first, mut second) = (writer(&kv).await, writer(&kv).await);
    load(&mut first, 0..100, "first").await.unwrap();
    load(&mut second, 100..200, "second").await.unwrap();
    let waiting = tokio::spawn(async move {
        let outcome = first.lock_row(&key(100), RowLock::ForUpdate, LockWait::Forever).await;
        (first, outcome)
    });
    tokio::task::yield_now().await;
    let refused = second.lock_row(&key(0), RowLock::ForUpdate, LockWait::Forever).await;
    assert!(matches!(refused, Err(TxnError::Deadlock)));
    second.rollback();
    let (first, outcome) = waiting.await.unwrap();
    outcome.unwrap();
    first.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..100, "first"));
}

#[tokio::test]
async fn a_rollback_frees_what_was_staged() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let mut txn = writer(&kv).await;
    load(&mut txn, 0..500, "gone").await.unwrap();
    txn.rollback();
    until("dropped", || kv.stats().staged_open == 0).await;
    assert!(committed(&kv).await.is_empty());
    let mut again = writer(&kv).await;
    load(&mut again, 0..500, "there").await.unwrap();
    again.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..500, "there"));
}

#[tokio::test]
async fn nothing_leaves_while_a_savepoint_is_open_and_the_bound_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.transaction_size_bytes_max = 20_000;
    let local =
        LocalKv::with_engine(&Env::os(), config, EngineKind::Memory, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    let mut txn = writer(&kv).await;
    load(&mut txn, 0..100, "kept").await.unwrap();
    let savepoint = txn.savepoint();
    txn.begin_statement();
    load(&mut txn, 50..120, "taken back").await.unwrap();
    txn.begin_statement();
    let refused = load(&mut txn, 200..2000, "too much").await;
    assert!(matches!(refused, Err(TxnError::TooManyChanges { .. })), "{refused:?}");
    txn.rollback_to(savepoint).unwrap();
    txn.release(savepoint).unwrap();
    txn.begin_statement();
    assert_eq!(scan(&txn, Direction::Forward), rows(0..100, "kept"));
    load(&mut txn, 100..1000, "kept").await.unwrap();
    txn.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..1000, "kept"));
}

#[tokio::test]
async fn private_keys_take_no_locks() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let mut txn = writer(&kv).await;
    txn.make_private("key-".into());
    for number in 0..1000 {
        txn.lock_row(&key(number), RowLock::ForUpdate, LockWait::Forever).await.unwrap();
        assert_eq!(txn.get_latest(&key(number)).unwrap(), None);
        txn.put(key(number), format!("new-{number}").into()).unwrap();
        txn.flush_if_large().await.unwrap();
        assert!(kv.stats().locks <= 1, "only the one for what is staged");
    }
    assert_eq!(txn.get_latest(&key(5)).unwrap(), Some("new-5".into()));
    txn.delete(key(5)).unwrap();
    txn.begin_statement();
    assert_eq!(txn.get(&key(5)).unwrap(), None);
    txn.put(key(5), "new-5".into()).unwrap();
    txn.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..1000, "new"));
}

#[tokio::test]
async fn a_load_waits_for_the_flush_before_apply_has_to() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    // Nothing is flushed but for want of room.
    config.flush_size_bytes = 1 << 30;
    config.flush_interval = Duration::from_secs(3600);
    config.unflushed_size_bytes_max = 100_000;
    let local = LocalKv::with_engine(&Env::os(), config, EngineKind::Redb, 1 << 20, Duration::ZERO).unwrap();
    let kv = local.kv();
    let mut txn = writer(&kv).await;
    let mut most = 0;
    for start in (0..3000).step_by(20) {
        load(&mut txn, start..start + 20, "new").await.unwrap();
        most = most.max(kv.stats().unflushed_size_bytes);
    }
    assert!(most < 100_000, "{most} bytes wait for the disk");
    txn.commit().await.unwrap();
    assert_eq!(committed(&kv).await, rows(0..3000, "new"));
}

#[tokio::test]
async fn what_was_staged_before_a_crash_is_dropped_after_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = local(&dir, EngineKind::Redb);
    let mut before = writer(&store.kv()).await;
    load(&mut before, 0..10, "kept").await.unwrap();
    before.commit().await.unwrap();
    let mut lost = writer(&store.kv()).await;
    load(&mut lost, 5..800, "lost").await.unwrap();
    until("flushed", || store.kv().stats().unflushed_size_bytes == 0).await;
    assert_eq!(store.kv().stats().staged_open, 1);
    store.shutdown(Duration::from_millis(200)).await;
    drop(lost);
    let store = local(&dir, EngineKind::Redb);
    let kv = store.kv();
    until("dropped", || kv.stats().staged_open == 0).await;
    assert_eq!(committed(&kv).await, rows(0..10, "kept"));
    let mut again = writer(&kv).await;
    load(&mut again, 5..800, "again").await.unwrap();
    again.commit().await.unwrap();
    let expected = [rows(0..5, "kept"), rows(5..800, "again")].concat();
    assert_eq!(committed(&kv).await, expected);
}

#[tokio::test]
async fn a_serializable_reader_is_refused_for_what_was_staged_into_its_range() {
    let dir = tempfile::tempdir().unwrap();
    let local = local(&dir, EngineKind::Memory);
    let kv = local.kv();
    let mut reader = kv.begin(options(Isolation::Serializable, Access::ReadWrite)).await.unwrap();
    reader.begin_statement();
    assert_eq!(reader.get(&key(7)).unwrap(), None);
    let mut txn = writer(&kv).await;
    load(&mut txn, 0..300, "new").await.unwrap();
    txn.commit().await.unwrap();
    reader.put("elsewhere".into(), "x".into()).unwrap();
    assert!(matches!(reader.commit().await, Err(TxnError::Serialization { .. })));
}

/// A proposer that keeps what it is given until the test says what becomes of it.
#[derive(Clone, Default)]
struct Desk {
    proposals: Arc<Mutex<VecDeque<Proposal>>>,
    /// Refusals of the next proposals, at once.
    refusals: Arc<Mutex<VecDeque<ProposeError>>>,
}

impl Proposer for Desk {
    fn propose(&self, proposal: Proposal) -> Result<(), ProposeError> {
        match self.refusals.lock().pop_front() {
            Some(error) => Err(error),
            None => {
                self.proposals.lock().push_back(proposal);
                Ok(())
            }
        }
    }

    fn linearize(&self) -> Linearize {
        Linearize::Now
    }
}

struct Bench {
    desk: Desk,
    kv: KvStore,
    machine: StateMachine,
    term: Term,
    next: LogIndex,
}

impl Bench {
    fn new(dir: &tempfile::TempDir) -> Bench {
        Bench::with(config(dir))
    }

    fn with(config: KvConfig) -> Bench {
        let desk = Desk::default();
        let opener: EngineOpener = Arc::new(|_| Ok(Arc::new(MemoryEngine::new())));
        let (kv, machine) = KvStore::open(&Env::os(), config, opener, Arc::new(desk.clone())).unwrap();
        let mut bench = Bench { desk, kv, machine, term: Term::new(0), next: LogIndex::new(0) };
        bench.lead();
        bench
    }

    fn lead(&mut self) {
        self.machine.leadership(Leadership::Follower { leader: None });
        self.desk.proposals.lock().clear();
        self.term = self.term.next();
        self.apply(ApplyPayload::Blank);
        self.machine.leadership(Leadership::Leader { term: self.term });
    }

    fn apply(&mut self, payload: ApplyPayload) {
        let position = LogPosition::new(self.term, self.next);
        self.next = self.next.next();
        self.machine.apply(&[ApplyEntry { position, opaque_position: Bytes::new(), payload }]).unwrap();
    }

    fn kinds(&self) -> Vec<EntryKind> {
        self.desk.proposals.lock().iter().map(|it| Entry::decode(&it.entry).unwrap().header.kind).collect()
    }

    fn take(&self) -> Option<Proposal> {
        self.desk.proposals.lock().pop_front()
    }

    /// Applies what is proposed, until `done`.
    async fn serve(&mut self, what: &str, mut done: impl FnMut(&Bench) -> bool) {
        let end = tokio::time::Instant::now() + PATIENCE;
        while !done(self) {
            assert!(tokio::time::Instant::now() < end, "never: {what}");
            match self.take() {
                Some(proposal) => {
                    self.apply(ApplyPayload::Command(proposal.entry));
                    (proposal.done)(Ok(()));
                }
                None => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    }

    /// Runs a task to its end, applying what it proposes.
    async fn run<T>(&mut self, task: impl Future<Output = T> + Send + 'static) -> T
    where
        T: Send + 'static,
    {
        let handle = tokio::spawn(task);
        self.serve("the end of a task", |_| handle.is_finished()).await;
        handle.await.unwrap()
    }

    /// A transaction that has staged the keys of a range.
    async fn staged(&mut self, keys: std::ops::Range<u32>) -> Transaction {
        let mut txn = writer(&self.kv).await;
        let txn = self
            .run(async move {
                load(&mut txn, keys, "new").await.unwrap();
                txn
            })
            .await;
        self.serve("quiet", |it| it.kv.stats().in_flight_entries == 0).await;
        txn
    }

    /// Lets a transaction write until it has proposed something.
    async fn first_proposal(&self) -> tokio::task::JoinHandle<(Transaction, Result<(), TxnError>)> {
        let mut txn = writer(&self.kv).await;
        let task = tokio::spawn(async move {
            let result = load(&mut txn, 0..200, "new").await;
            (txn, result)
        });
        until("a proposal", || !self.desk.proposals.lock().is_empty()).await;
        task
    }

    fn staged_open(&self) -> usize {
        self.kv.stats().staged_open
    }
}

#[tokio::test]
async fn the_first_chunk_goes_alone_and_the_commit_after_all_are_applied() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let task = bench.first_proposal().await;
    tokio::task::yield_now().await;
    assert_eq!(bench.kinds(), [EntryKind::Stage], "the others do not know the number yet");
    let first = bench.take().unwrap();
    bench.apply(ApplyPayload::Command(first.entry));
    until("the next chunks", || bench.kinds().len() == 4).await;
    assert!(!task.is_finished(), "a bounded number is on its way at a time");
    bench.serve("all written", |_| task.is_finished()).await;
    let (txn, result) = task.await.unwrap();
    result.unwrap();
    let commit = tokio::spawn(txn.commit());
    tokio::task::yield_now().await;
    while let Some(chunk) = bench.take() {
        assert_eq!(Entry::decode(&chunk.entry).unwrap().header.kind, EntryKind::Stage);
        assert!(!bench.kinds().contains(&EntryKind::CommitStaged), "a chunk is not applied");
        bench.apply(ApplyPayload::Command(chunk.entry));
        tokio::task::yield_now().await;
        if bench.kinds() == [EntryKind::CommitStaged] {
            break;
        }
    }
    until("the commit", || bench.kinds() == [EntryKind::CommitStaged]).await;
    bench.serve("the answer", |_| commit.is_finished()).await;
    commit.await.unwrap().unwrap();
    assert_eq!(committed(&bench.kv).await, rows(0..200, "new"));
}

#[tokio::test]
async fn a_machine_that_is_full_says_what_to_wait_for() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.flush_size_bytes = 1 << 30;
    config.flush_interval = Duration::from_secs(3600);
    config.stage_begin_size_bytes = 1 << 30;
    config.unflushed_size_bytes_max = 5000;
    let mut bench = Bench::with(config);
    assert!(bench.machine.room().is_none());
    let mut txn = writer(&bench.kv).await;
    for number in 0..50 {
        txn.put(key(number), "some".into()).unwrap();
    }
    bench.run(txn.commit()).await.unwrap();
    assert!(bench.kv.stats().unflushed_size_bytes >= 5000);
    bench.machine.room().expect("there is no room").await.unwrap();
    assert!(bench.machine.room().is_none());
    assert_eq!(bench.kv.stats().unflushed_size_bytes, 0);
}

/// What becomes of a proposal.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Refused,
    /// Lost, and in no log.
    Lost,
    /// The answer is lost, the entry is not.
    Late,
}

impl Bench {
    fn fail(&mut self, proposal: Proposal, fault: Fault) {
        let error =
            if matches!(fault, Fault::Refused) { ProposeError::Refused } else { ProposeError::Unknown };
        (proposal.done)(Err(error));
        if matches!(fault, Fault::Late) {
            self.apply(ApplyPayload::Command(proposal.entry));
        }
    }
}

#[tokio::test]
async fn a_chunk_that_fails_is_sent_again_and_nothing_counts_twice() {
    for fault in [Fault::Refused, Fault::Lost, Fault::Late] {
        for place in [0, 1, 3] {
            let dir = tempfile::tempdir().unwrap();
            let mut bench = Bench::new(&dir);
            let task = bench.first_proposal().await;
            for _ in 0..place {
                until("a proposal", || !bench.kinds().is_empty()).await;
                let proposal = bench.take().unwrap();
                bench.apply(ApplyPayload::Command(proposal.entry));
            }
            until("a chunk to fail", || !bench.kinds().is_empty()).await;
            let failing = bench.take().unwrap();
            bench.fail(failing, fault);
            bench.serve("all written", |_| task.is_finished()).await;
            let (mut txn, result) = task.await.unwrap();
            result.unwrap();
            txn.begin_statement();
            assert_eq!(scan(&txn, Direction::Forward), rows(0..200, "new"), "{fault:?} {place}");
            assert!(committed(&bench.kv).await.is_empty());
            bench.run(txn.commit()).await.unwrap();
            assert_eq!(committed(&bench.kv).await, rows(0..200, "new"), "{fault:?} {place}");
            // The one that a lost first chunk opened after all has no owner.
            bench.serve("swept", |it| it.staged_open() == 0).await;
            assert!(bench.machine.recompute_hash().unwrap());
            assert_eq!(committed(&bench.kv).await, rows(0..200, "new"), "{fault:?} {place}");
        }
    }
}

#[tokio::test]
async fn a_row_deleted_after_its_chunk_was_lost_does_not_come_back() {
    for fault in [Fault::Lost, Fault::Late] {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(&dir);
        let mut txn = bench.staged(0..100).await;
        let task = tokio::spawn(async move {
            load(&mut txn, 100..150, "new").await.unwrap();
            txn
        });
        until("a chunk", || !bench.kinds().is_empty()).await;
        let lost = bench.take().unwrap();
        let held: Vec<Bytes> =
            Entry::decode(&lost.entry).unwrap().writes.into_iter().map(|it| it.key).collect();
        assert!(held.contains(&key(101)));
        bench.fail(lost, fault);
        bench.serve("all written", |_| task.is_finished()).await;
        let mut txn = task.await.unwrap();
        txn.begin_statement();
        txn.lock_row(&key(101), RowLock::ForUpdate, LockWait::NoWait).await.unwrap();
        txn.delete(key(101)).unwrap();
        txn.begin_statement();
        let expected = [rows(0..101, "new"), rows(102..150, "new")].concat();
        assert_eq!(scan(&txn, Direction::Forward), expected, "{fault:?}");
        bench.run(txn.commit()).await.unwrap();
        assert_eq!(committed(&bench.kv).await, expected, "{fault:?}");
        assert!(bench.machine.recompute_hash().unwrap());
    }
}

#[tokio::test]
async fn chunks_that_are_refused_for_too_long_end_the_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = config(&dir);
    config.stage_wait = Duration::from_millis(100);
    let mut bench = Bench::with(config);
    let mut txn = writer(&bench.kv).await;
    let task = tokio::spawn(async move {
        let result = load(&mut txn, 0..200, "new").await;
        (txn, result)
    });
    let end = tokio::time::Instant::now() + PATIENCE;
    while !task.is_finished() {
        assert!(tokio::time::Instant::now() < end, "tried for ever");
        if let Some(proposal) = bench.take() {
            bench.fail(proposal, Fault::Refused);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let (txn, result) = task.await.unwrap();
    assert!(matches!(result, Err(TxnError::Fallen { .. })), "{result:?}");
    assert!(matches!(txn.commit().await, Err(TxnError::Fallen { .. })));
    assert_eq!(bench.staged_open(), 0);
}

#[tokio::test]
async fn a_chunk_that_finds_the_disk_full_ends_its_transaction() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let task = bench.first_proposal().await;
    (bench.take().unwrap().done)(Err(ProposeError::DiskFull));
    bench.serve("the end", |_| task.is_finished()).await;
    let (mut txn, result) = task.await.unwrap();
    assert!(matches!(result, Err(TxnError::DiskFull)), "{result:?}");
    assert!(matches!(txn.put(key(0), "x".into()), Err(TxnError::Fallen { .. })));
    assert!(matches!(txn.get(&key(0)), Err(TxnError::Fallen { .. })));
    assert!(matches!(txn.commit().await, Err(TxnError::Fallen { .. })));
    assert_eq!(bench.staged_open(), 0);
}

#[tokio::test]
async fn a_refused_commit_of_a_staged_transaction_is_submitted_anew_and_nobody_comes_between() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let txn = bench.staged(0..200).await;
    let mut other = writer(&bench.kv).await;
    let waiting = tokio::spawn(async move {
        let outcome = other.lock_row(&key(3), RowLock::ForUpdate, LockWait::Forever).await;
        (other, outcome)
    });
    let commit = tokio::spawn(txn.commit());
    for _ in 0..3 {
        bench.serve("the commit", |it| it.kinds() == [EntryKind::CommitStaged]).await;
        let refused = bench.take().unwrap();
        bench.fail(refused, Fault::Refused);
        assert!(!waiting.is_finished());
    }
    bench.serve("the answer", |_| commit.is_finished()).await;
    commit.await.unwrap().unwrap();
    assert_eq!(committed(&bench.kv).await, rows(0..200, "new"));
    let (mut other, outcome) = waiting.await.unwrap();
    assert_eq!(outcome.unwrap(), RowLockOutcome::Changed);
    assert_eq!(other.get_latest(&key(3)).unwrap(), Some("new-3".into()));
    other.put(key(3), "over".into()).unwrap();
    bench.run(other.commit()).await.unwrap();
    assert!(bench.machine.recompute_hash().unwrap());
}

#[tokio::test]
async fn a_chunk_for_which_there_is_no_room_is_sent_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    bench.desk.refusals.lock().extend([ProposeError::Overloaded; 3]);
    let txn = bench.staged(0..300).await;
    assert!(bench.desk.refusals.lock().is_empty());
    bench.run(txn.commit()).await.unwrap();
    assert_eq!(committed(&bench.kv).await, rows(0..300, "new"));
}

#[tokio::test]
async fn an_abort_that_is_refused_or_lost_is_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let txn = bench.staged(0..200).await;
    bench.desk.refusals.lock().extend([
        ProposeError::Overloaded,
        ProposeError::DiskFull,
        ProposeError::Refused,
    ]);
    drop(txn);
    until("an abort", || bench.kinds() == [EntryKind::AbortStaged]).await;
    assert!(bench.desk.refusals.lock().is_empty());
    drop(bench.take().unwrap().done);
    bench.serve("dropped", |it| it.staged_open() == 0).await;
    assert!(committed(&bench.kv).await.is_empty());
}

#[tokio::test]
async fn an_abort_that_is_refused_does_not_keep_others_waiting() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let (one, other) = (bench.staged(0..200).await, bench.staged(200..400).await);
    assert_eq!(bench.staged_open(), 2);
    drop((one, other));
    let mut refused = None;
    let end = tokio::time::Instant::now() + PATIENCE;
    while bench.staged_open() == 2 {
        assert!(tokio::time::Instant::now() < end, "the other is not dropped");
        if let Some(proposal) = bench.take() {
            let id = Entry::decode(&proposal.entry).unwrap().staged;
            if *refused.get_or_insert(id) == id {
                bench.fail(proposal, Fault::Refused);
            } else {
                bench.apply(ApplyPayload::Command(proposal.entry));
            }
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    bench.serve("dropped", |it| it.staged_open() == 0).await;
}

#[tokio::test]
async fn an_abort_that_is_refused_for_long_is_not_tried_without_a_pause() {
    const REFUSALS: usize = 100_000;
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let txn = bench.staged(0..200).await;
    bench.desk.refusals.lock().extend(std::iter::repeat_n(ProposeError::Refused, REFUSALS));
    drop(txn);
    let tried = || REFUSALS - bench.desk.refusals.lock().len();
    until("four trials", || tried() >= 4).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The pauses between them double from 10 ms on.
    assert!(tried() < 100, "{} trials", tried());
    bench.desk.refusals.lock().clear();
    bench.serve("dropped", |it| it.staged_open() == 0).await;
}

#[tokio::test]
async fn a_new_leader_drops_what_its_predecessor_left_and_lets_others_write_meanwhile() {
    let dir = tempfile::tempdir().unwrap();
    let mut bench = Bench::new(&dir);
    let mut before = bench.staged(0..200).await;
    bench.lead();
    assert!(matches!(before.put(key(0), "x".into()), Err(TxnError::Fallen { .. })));
    // The rows that were staged can never count, so they are in nobody's way.
    let mut txn = writer(&bench.kv).await;
    let outcome = txn.lock_row(&key(3), RowLock::ForUpdate, LockWait::NoWait).await.unwrap();
    assert_eq!(outcome, RowLockOutcome::Unchanged);
    txn.put(key(3), "over".into()).unwrap();
    bench.run(txn.commit()).await.unwrap();
    assert!(matches!(before.commit().await, Err(TxnError::Fallen { .. })));
    bench.serve("dropped", |it| it.staged_open() == 0).await;
    assert_eq!(committed(&bench.kv).await, [(key(3), Bytes::from("over"))]);
    assert!(bench.machine.recompute_hash().unwrap());
}

#[tokio::test]
async fn a_lost_commit_of_a_staged_transaction_is_settled_one_way_or_the_other() {
    for is_in_log in [true, false] {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(&dir);
        let txn = bench.staged(0..200).await;
        let commit = tokio::spawn(txn.commit());
        bench.serve("the commit", |it| it.kinds() == [EntryKind::CommitStaged]).await;
        let lost = bench.take().unwrap();
        (lost.done)(Err(ProposeError::Unknown));
        if is_in_log {
            bench.apply(ApplyPayload::Command(lost.entry));
        }
        assert!(matches!(commit.await.unwrap(), Err(TxnError::UnknownOutcome)));
        bench.serve("settled", |it| it.staged_open() == 0 && it.kv.stats().in_flight_entries == 0).await;
        let expected = if is_in_log { rows(0..200, "new") } else { Vec::new() };
        assert_eq!(committed(&bench.kv).await, expected);
        // Either way the store goes on.
        let mut txn = writer(&bench.kv).await;
        txn.put(key(3), "after".into()).unwrap();
        bench.run(txn.commit()).await.unwrap();
    }
}

#[tokio::test]
async fn who_has_seen_a_row_beside_a_transaction_falls_with_it() {
    for fault in [Fault::Refused, Fault::Lost] {
        let dir = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(&dir);
        let (first, second) = (writer(&bench.kv).await, writer(&bench.kv).await);
        let before = writer(&bench.kv).await;
        first.put_aside("n".into(), "1".into()).unwrap();
        assert_eq!(second.get_aside(b"n").unwrap().as_deref(), Some(&b"1"[..]));
        let proposal = bench.take().unwrap();
        bench.fail(proposal, fault);
        // Whoever wrote it, whoever has read it; not who saw nothing of it.
        let seen = |txn: &Transaction| txn.get_aside(b"n");
        assert!(matches!(seen(&first), Err(TxnError::Fallen { .. })), "{fault:?}");
        assert!(matches!(seen(&second), Err(TxnError::Fallen { .. })), "{fault:?}");
        assert_eq!(seen(&before).unwrap(), None, "{fault:?}");
        assert!(matches!(second.commit().await, Err(TxnError::Fallen { .. })), "{fault:?}");
    }
}
