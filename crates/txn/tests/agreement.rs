//! What replicas are compared by, and what happens to one that is wrong: marks, audits, and a state that is withheld.

#![allow(clippy::unwrap_used)]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rustydb_env::Env;
use rustydb_storage::engine::EngineKind;
use rustydb_txn::entry::{Base, EntryBuilder, EntryKind, Numbering};
use rustydb_txn::{
    Access, ApplyEntry, ApplyPayload, AuditId, EngineOpener, Fate, Isolation, KvConfig, KvStore, Leadership,
    LocalKv, LocalProposer, MarkAt, StateMachine, TxnError, TxnOptions,
};
use rustydb_types::ids::{Incarnation, LogIndex, RequestId, SessionId, Term, Version};
use rustydb_types::position::LogPosition;

const NOBODY: RequestId =
    RequestId { incarnation: Incarnation::new(0), session: SessionId::new(0), counter: 0 };

fn open(dir: &Path) -> (KvStore, StateMachine) {
    let env = Env::os();
    let config = KvConfig { flush_interval: Duration::from_secs(3600), ..KvConfig::new(dir.into()) };
    let at = env.clone();
    let opener: EngineOpener =
        Arc::new(move |path| rustydb_storage::engine::open(EngineKind::Redb, &at, path, 1 << 20));
    KvStore::open(&env, config, opener, Arc::new(LocalProposer::default())).unwrap()
}

fn entry(number: u64, value: &str) -> ApplyEntry {
    let mut builder = EntryBuilder::new(EntryKind::Commit, NOBODY, Version::ZERO, &[]);
    builder.write(format!("key {number}").as_bytes(), Base::NONE, Some(value.as_bytes()));
    let (term, sequence) = (Term::new(1), Version::new(number));
    let command = builder.number(Numbering { term, sequence, attempt: number, commit_time_us: 0 });
    ApplyEntry {
        position: LogPosition::new(term, LogIndex::new(number)),
        opaque_position: Bytes::new(),
        payload: ApplyPayload::Command(command),
    }
}

fn options(access: Access, request: RequestId) -> TxnOptions {
    TxnOptions { isolation: Isolation::ReadCommitted, access, request }
}

async fn read(kv: &KvStore, key: &'static str) -> Result<Option<Bytes>, TxnError> {
    kv.begin(options(Access::ReadLocal, NOBODY)).await?.get(key.as_bytes())
}

#[tokio::test]
async fn marks_are_equal_where_states_are_and_only_there() {
    let dir = tempfile::tempdir().unwrap();
    let (_one, mut one) = open(&dir.path().join("one"));
    let (_two, mut two) = open(&dir.path().join("two"));
    assert_eq!(one.mark(), None);
    let entries: Vec<_> = (1..=5).map(|number| entry(number, "right")).collect();
    one.apply(&entries).unwrap();
    two.apply(&entries[..3]).unwrap();
    let third = LogIndex::new(3);
    assert_eq!(one.mark_at(third), two.mark_at(third));
    assert_eq!(
        two.mark(),
        match one.mark_at(third) {
            MarkAt::Known(mark) => Some(mark),
            other => panic!("{other:?}"),
        }
    );
    assert_eq!(two.mark_at(LogIndex::new(4)), MarkAt::NotYet);
    two.apply(&[entry(4, "wrong"), entries[4].clone()]).unwrap();
    for index in [4, 5] {
        assert_ne!(one.mark_at(LogIndex::new(index)), two.mark_at(LogIndex::new(index)), "{index}");
    }
    assert_eq!(one.mark().unwrap().hash, one.state_hash());
}

#[tokio::test]
async fn a_withheld_state_is_shown_to_nobody_until_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (_sound, mut sound) = open(&dir.path().join("sound"));
    let path = dir.path().join("wrong");
    let (kv, mut machine) = open(&path);
    sound.apply(&[entry(1, "right"), entry(2, "right")]).unwrap();
    machine.apply(&[entry(1, "wrong")]).unwrap();
    let mut before = kv.begin(options(Access::ReadLocal, NOBODY)).await.unwrap();
    machine.withhold("a test says so").unwrap();
    assert!(
        matches!(before.settle_reads().await, Err(TxnError::NotLeader { .. })),
        "what was read is not shown"
    );
    assert!(matches!(read(&kv, "key 1").await, Err(TxnError::NotLeader { .. })));
    machine.leadership(Leadership::Leader { term: Term::new(2) });
    assert!(!kv.is_leader());
    assert!(kv.begin(options(Access::ReadWrite, NOBODY)).await.is_err());
    drop((before, kv, machine));

    // It is still withheld after a restart, applies entries, and is replaced.
    let (kv, machine) = open(&path);
    assert!(machine.is_withheld());
    assert!(read(&kv, "key 1").await.is_err());
    let mut reader = sound.snapshot().await.unwrap();
    assert_eq!(reader.mark(), sound.mark());
    let mut installer = machine.installer().unwrap();
    while let Some(chunk) = reader.next_chunk(64).unwrap() {
        installer.write_chunk(&chunk).unwrap();
    }
    assert!(installer.adds_up().unwrap());
    installer.finish().unwrap();
    assert!(read(&kv, "key 1").await.is_err(), "not before it is released");
    machine.release().unwrap();
    assert_eq!(read(&kv, "key 1").await.unwrap().unwrap(), "right");
    assert_eq!(machine.mark(), sound.mark());
    assert!(path.join("diverged").exists() && !path.join("WITHHELD").exists());
    drop((kv, machine));
    let (_kv, machine) = open(&path);
    assert!(!machine.is_withheld());
}

#[tokio::test]
async fn a_snapshot_whose_rows_are_not_those_of_its_hash_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let (_sound, mut sound) = open(&dir.path().join("sound"));
    let (_kv, machine) = open(&dir.path().join("other"));
    sound.apply(&[entry(1, "right")]).unwrap();
    let mut reader = sound.snapshot().await.unwrap();
    let chunk = reader.next_chunk(1 << 20).unwrap().unwrap();
    let mut bytes = chunk.to_vec();
    let place = bytes.windows(5).position(|window| window == b"right").unwrap();
    bytes[place] = b'l';
    let mut installer = machine.installer().unwrap();
    installer.write_chunk(&bytes).unwrap();
    assert!(!installer.adds_up().unwrap());
}

/// Changes a bit of each block of rows of an engine's file.
fn spoil(store: &Path) {
    let mut bytes = std::fs::read(store).unwrap();
    for page in 2..bytes.len() / 4096 {
        bytes[page * 4096 + 100] ^= 8;
    }
    std::fs::write(store, bytes).unwrap();
}

/// Fills a state from a sound one.
async fn fill(machine: &StateMachine, sound: &StateMachine) {
    let mut reader = sound.snapshot().await.unwrap();
    let mut installer = machine.installer().unwrap();
    while let Some(chunk) = reader.next_chunk(1 << 16).unwrap() {
        installer.write_chunk(&chunk).unwrap();
    }
    installer.finish().unwrap();
}

#[tokio::test]
async fn a_damaged_state_is_lost_at_opening_and_stays_as_it_is_until_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (_sound, mut sound) = open(&dir.path().join("sound"));
    let entries: Vec<_> = (1..=500).map(|number| entry(number, "right")).collect();
    sound.apply(&entries).unwrap();
    let path = dir.path().join("damaged");
    for (file, number) in [("store-1", 1), ("CURRENT", 2)] {
        let (kv, mut machine) = open(&path);
        if number == 1 {
            machine.apply(&entries).unwrap();
        }
        machine.flush().await.unwrap();
        drop((kv, machine));
        match file {
            "CURRENT" => std::fs::write(path.join(file), "store-9").unwrap(),
            _ => spoil(&path.join(file)),
        }
        let store = path.join(format!("store-{number}"));
        let before = std::fs::read(&store).unwrap();
        for _restart in 0..2 {
            let (kv, machine) = open(&path);
            assert!(machine.lost().is_some_and(|reason| reason.contains(file)), "{:?}", machine.lost());
            assert!(machine.is_withheld() && machine.applied().position.is_none());
            assert!(read(&kv, "key 1").await.is_err());
            assert_eq!(std::fs::read(&store).unwrap(), before, "what was damaged is changed");
        }
        let (kv, machine) = open(&path);
        fill(&machine, &sound).await;
        machine.release().unwrap();
        assert_eq!((machine.lost(), machine.mark()), (None, sound.mark()));
        assert_eq!(read(&kv, "key 7").await.unwrap().unwrap(), "right");
        assert!(!store.exists() && path.join("diverged").exists(), "it is kept aside");
        drop((kv, machine));
        std::fs::remove_file(path.join("diverged")).unwrap();
    }
    let (kv, machine) = open(&path);
    assert!(machine.lost().is_none() && !machine.is_withheld());
    assert_eq!(read(&kv, "key 7").await.unwrap().unwrap(), "right");
}

#[tokio::test]
async fn damage_that_is_met_is_told_and_what_takes_its_place_is_used() {
    use std::os::unix::fs::FileExt;

    let dir = tempfile::tempdir().unwrap();
    let (_sound, mut sound) = open(&dir.path().join("sound"));
    let value = "right".repeat(200);
    // Several times what the engine caches.
    let entries: Vec<_> = (1..=6000).map(|number| entry(number, &value)).collect();
    sound.apply(&entries).unwrap();
    let path = dir.path().join("damaged");
    let (kv, mut machine) = open(&path);
    machine.apply(&entries).unwrap();
    machine.flush().await.unwrap();
    let store = path.join("store-1");
    let bytes = std::fs::read(&store).unwrap();
    let file = std::fs::OpenOptions::new().write(true).open(&store).unwrap();
    for (place, _) in bytes.windows(8).enumerate().filter(|(_, window)| window == b"key 1234") {
        file.write_at(b"j", place as u64).unwrap();
    }
    let all = kv.begin(options(Access::ReadLocal, NOBODY)).await.unwrap();
    let mut met = 0;
    for number in 1..=6000 {
        match all.get(format!("key {number}").as_bytes()) {
            Ok(found) => assert_eq!(found.unwrap(), value),
            Err(error) => {
                assert!(matches!(error, TxnError::Storage(_)), "{error}");
                met += 1;
            }
        }
    }
    assert!(met > 0, "nobody met it");
    assert!(machine.damaged().await.contains("store-1"));
    assert!(machine.damage().is_some() && machine.lost().is_none());
    machine.withhold("it is damaged").unwrap();
    fill(&machine, &sound).await;
    machine.release().unwrap();
    assert_eq!(machine.damage(), None);
    assert_eq!(read(&kv, "key 1234").await.unwrap().unwrap(), value);
}

#[tokio::test]
async fn an_audit_counts_what_is_stored_at_its_entry_while_others_write() {
    let dir = tempfile::tempdir().unwrap();
    let config = KvConfig { flush_size_bytes: 16 << 10, ..KvConfig::new(dir.path().join("store")) };
    let store = LocalKv::with_engine(&Env::os(), config, EngineKind::Redb, 1 << 20, Duration::ZERO).unwrap();
    let kv = store.kv();
    let write = async |from: usize, to: usize| {
        let mut txn = kv.begin(options(Access::ReadWrite, NOBODY)).await.unwrap();
        for number in from..to {
            txn.put(Bytes::from(format!("key {number:06}")), Bytes::from(vec![7; 100])).unwrap();
        }
        txn.commit().await.unwrap();
    };
    for step in 0..20 {
        write(step * 500, step * 500 + 500).await;
    }
    let audit = kv.begin_audit(AuditId::new(9)).unwrap();
    kv.mark_audit(AuditId::new(9)).await.unwrap();
    write(0, 300).await;
    write(20_000, 20_100).await;
    let report = audit.report().await.unwrap();
    assert_eq!((report.rows, report.stored), (10_000, report.kept));
    // Without its entry it waits, and too many are refused.
    let waiting: Vec<_> = (10..14).map(|number| kv.begin_audit(AuditId::new(number)).unwrap()).collect();
    assert!(matches!(kv.begin_audit(AuditId::new(14)), Err(TxnError::Overloaded { .. })));
    drop(waiting);
    let later = kv.begin_audit(AuditId::new(15)).unwrap();
    assert!(tokio::time::timeout(Duration::from_millis(20), later.report()).await.is_err());
}

#[tokio::test]
async fn the_fate_of_a_transaction_is_final_and_what_is_fenced_does_not_commit() {
    let dir = tempfile::tempdir().unwrap();
    let store = LocalKv::in_memory(&Env::os(), dir.path().join("store"), Duration::ZERO).unwrap();
    let kv = store.kv();
    let request = |session, counter| RequestId {
        incarnation: Incarnation::new(1),
        session: SessionId::new(session),
        counter,
    };
    let begin = async |request| kv.begin(options(Access::ReadWrite, request)).await.unwrap();
    let mut txn = begin(request(1, 1)).await;
    let since = txn.snapshot();
    txn.put(Bytes::from_static(b"k"), Bytes::from_static(b"v")).unwrap();
    let version = txn.commit().await.unwrap().version;
    assert_eq!(kv.fate(request(1, 1), since).await.unwrap(), Fate::Committed(version));

    let mut fenced = begin(request(2, 1)).await;
    fenced.put(Bytes::from_static(b"l"), Bytes::from_static(b"v")).unwrap();
    assert_eq!(kv.fate(request(2, 1), fenced.snapshot()).await.unwrap(), Fate::Aborted);
    assert!(fenced.commit().await.is_err());
    assert_eq!(kv.fate(request(2, 1), since).await.unwrap(), Fate::Aborted);

    let mut empty = begin(request(3, 1)).await;
    empty.keep_outcome();
    empty.commit().await.unwrap();
    assert!(matches!(kv.fate(request(3, 1), since).await.unwrap(), Fate::Committed(_)));
    begin(request(3, 2)).await.commit().await.unwrap();
    assert!(
        matches!(kv.fate(request(3, 1), since).await.unwrap(), Fate::Committed(_)),
        "nothing was recorded since"
    );
    let mut last = begin(request(3, 3)).await;
    last.keep_outcome();
    last.commit().await.unwrap();
    assert!(
        matches!(kv.fate(request(3, 1), since).await.unwrap(), Fate::Committed(_)),
        "the one before the last"
    );
    let mut next = begin(request(3, 4)).await;
    next.keep_outcome();
    next.commit().await.unwrap();
    assert_eq!(kv.fate(request(3, 1), since).await.unwrap(), Fate::Forgotten);
}
