//! The suite that every engine passes: the trait's contract as tests, run on each engine.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;

use proptest::prelude::*;
use rustydb_env::Env;

use super::{
    Direction, Durability, Engine, EngineError, EngineKind, EngineView, EngineWriter, KeyRange, Space, open,
};

const ROWS: Space = Space::new(0);
const META: Space = Space::new(7);
const CACHE_SIZE_BYTES: usize = 1 << 20;

/// What a space holds.
type Rows = BTreeMap<Vec<u8>, Vec<u8>>;

/// An engine in a folder of its own that can be closed and opened again.
struct Fixture {
    kind: EngineKind,
    env: Env,
    folder: tempfile::TempDir,
}

impl Fixture {
    fn new(kind: EngineKind) -> Fixture {
        Fixture { kind, env: Env::os(), folder: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("group-1")
    }

    fn open(&self) -> Arc<dyn Engine> {
        open(self.kind, &self.env, &self.path(), CACHE_SIZE_BYTES).unwrap()
    }
}

fn put_all(engine: &dyn Engine, space: Space, rows: &[(&[u8], &[u8])]) {
    engine
        .write(Durability::Synced, &mut |writer| {
            rows.iter().try_for_each(|(key, value)| writer.put(space, key, value))
        })
        .unwrap();
}

fn rows_of(
    view: &dyn EngineView,
    space: Space,
    range: KeyRange<'_>,
    direction: Direction,
) -> Vec<(Vec<u8>, Vec<u8>)> {
    let mut rows = Vec::new();
    view.scan(space, range, direction, &mut |key, value| {
        rows.push((key.to_vec(), value.to_vec()));
        ControlFlow::Continue(())
    })
    .unwrap();
    rows
}

fn keys_of(view: &dyn EngineView, range: KeyRange<'_>, direction: Direction) -> Vec<String> {
    let rows = rows_of(view, ROWS, range, direction);
    rows.into_iter().map(|(key, _)| String::from_utf8(key).unwrap()).collect()
}

fn check_reads_and_ranges(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    let engine = fixture.open();
    put_all(&*engine, ROWS, &[(b"a", b"1"), (b"b", b""), (b"ba", b"3"), (b"c", b"4"), (b"", b"empty key")]);
    put_all(&*engine, META, &[(b"a", b"other space")]);
    let view = engine.view().unwrap();
    assert_eq!(view.get(ROWS, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(
        view.get(ROWS, b"b").unwrap().as_deref(),
        Some(&b""[..]),
        "an empty value is not an absent one"
    );
    assert_eq!(view.get(ROWS, b"").unwrap().as_deref(), Some(&b"empty key"[..]));
    assert_eq!(view.get(ROWS, b"bb").unwrap(), None);
    assert_eq!(view.get(META, b"a").unwrap().as_deref(), Some(&b"other space"[..]));
    assert_eq!(keys_of(&*view, KeyRange::ALL, Direction::Forward), ["", "a", "b", "ba", "c"]);
    assert_eq!(keys_of(&*view, KeyRange::ALL, Direction::Backward), ["c", "ba", "b", "a", ""]);
    assert_eq!(keys_of(&*view, KeyRange::new(b"a", b"ba"), Direction::Forward), ["a", "b"]);
    assert_eq!(keys_of(&*view, KeyRange::new(b"b", b"c"), Direction::Backward), ["ba", "b"]);
    assert!(
        keys_of(&*view, KeyRange::new(b"c", b"a"), Direction::Forward).is_empty(),
        "an inverted range is empty"
    );
    let mut seen = 0;
    view.scan(ROWS, KeyRange::ALL, Direction::Forward, &mut |_, _| {
        seen += 1;
        if seen == 2 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })
    .unwrap();
    assert_eq!(seen, 2, "a scan ends where its visitor breaks");
}

fn check_batch_order(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    let engine = fixture.open();
    put_all(&*engine, ROWS, &[(b"a", b"1"), (b"b", b"2"), (b"c", b"3"), (b"d", b"4")]);
    engine
        .write(Durability::Synced, &mut |writer| {
            writer.put(ROWS, b"bb", b"new, then ranged away")?;
            writer.delete_range(ROWS, KeyRange::new(b"b", b"d"))?;
            writer.put(ROWS, b"c", b"back")?;
            writer.put(ROWS, b"d", b"x")?;
            writer.delete(ROWS, b"d")?;
            writer.delete(ROWS, b"never there")
        })
        .unwrap();
    assert_eq!(keys_of(&*engine.view().unwrap(), KeyRange::ALL, Direction::Forward), ["a", "c"]);
    engine.write(Durability::Synced, &mut |writer| writer.delete_range(ROWS, KeyRange::ALL)).unwrap();
    assert!(keys_of(&*engine.view().unwrap(), KeyRange::ALL, Direction::Forward).is_empty());
}

fn check_views_never_change(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    let engine = fixture.open();
    put_all(&*engine, ROWS, &[(b"a", b"1"), (b"b", b"1")]);
    let first = engine.view().unwrap();
    put_all(&*engine, ROWS, &[(b"a", b"2"), (b"c", b"2")]);
    let second = engine.view().unwrap();
    engine.write(Durability::Synced, &mut |writer| writer.delete_range(ROWS, KeyRange::ALL)).unwrap();
    put_all(&*engine, ROWS, &[(b"z", b"4")]);
    assert_eq!(keys_of(&*first, KeyRange::ALL, Direction::Forward), ["a", "b"]);
    assert_eq!(first.get(ROWS, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(keys_of(&*second, KeyRange::ALL, Direction::Backward), ["c", "b", "a"]);
    assert_eq!(second.get(ROWS, b"a").unwrap().as_deref(), Some(&b"2"[..]));
    drop(first);
    assert_eq!(second.get(ROWS, b"c").unwrap().as_deref(), Some(&b"2"[..]), "a view outlives an older one");
    assert_eq!(keys_of(&*engine.view().unwrap(), KeyRange::ALL, Direction::Forward), ["z"]);
}

fn check_abandoned_batch(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    let engine = fixture.open();
    put_all(&*engine, ROWS, &[(b"a", b"1")]);
    let error = engine
        .write(Durability::Synced, &mut |writer| {
            writer.put(ROWS, b"a", b"2")?;
            writer.put(ROWS, b"b", b"2")?;
            Err(EngineError::Abandoned("the caller changed its mind".into()))
        })
        .unwrap_err();
    assert!(matches!(error, EngineError::Abandoned(_)), "{error}");
    let view = engine.view().unwrap();
    assert_eq!(view.get(ROWS, b"a").unwrap().as_deref(), Some(&b"1"[..]));
    assert_eq!(view.get(ROWS, b"b").unwrap(), None);
    put_all(&*engine, ROWS, &[(b"a", b"3")]);
}

fn check_reopen(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    for round in 0..4_u8 {
        let engine = fixture.open();
        let view = engine.view().unwrap();
        let expected: Vec<_> = (0..round).map(|number| (vec![number], vec![number; 3])).collect();
        assert_eq!(rows_of(&*view, ROWS, KeyRange::ALL, Direction::Forward), expected);
        put_all(&*engine, ROWS, &[(&[round], &[round; 3])]);
    }
}

fn check_large_values_and_long_scans(kind: EngineKind) {
    let fixture = Fixture::new(kind);
    let engine = fixture.open();
    let large = vec![7_u8; 3 << 20];
    engine
        .write(Durability::Buffered, &mut |writer| {
            for number in 0..5_000_u32 {
                writer.put(ROWS, &number.to_be_bytes(), &number.to_le_bytes())?;
            }
            writer.put(META, b"large", &large)
        })
        .unwrap();
    let view = engine.view().unwrap();
    engine.write(Durability::Synced, &mut |writer| writer.delete_range(ROWS, KeyRange::ALL)).unwrap();
    for direction in [Direction::Forward, Direction::Backward] {
        let mut keys: Vec<u32> = rows_of(&*view, ROWS, KeyRange::ALL, direction)
            .into_iter()
            .map(|(key, _)| u32::from_be_bytes(key.try_into().unwrap()))
            .collect();
        if direction == Direction::Backward {
            keys.reverse();
        }
        assert_eq!(keys, (0..5_000).collect::<Vec<_>>(), "{direction:?}");
    }
    assert_eq!(view.get(META, b"large").unwrap().map(|value| value.len()), Some(large.len()));
}

#[derive(Clone, Debug)]
enum Step {
    Batch(Vec<Change>),
    TakeView,
    DropOldestView,
    Reopen,
}

#[derive(Clone, Debug)]
enum Change {
    Put(u8, u8),
    Delete(u8),
    DeleteRange(u8, u8),
}

fn step() -> impl Strategy<Value = Step> {
    let change = prop_oneof![
        6 => (0..40_u8, any::<u8>()).prop_map(|(key, value)| Change::Put(key, value)),
        3 => (0..40_u8).prop_map(Change::Delete),
        1 => (0..40_u8, 0..40_u8).prop_map(|(start, end)| Change::DeleteRange(start, end)),
    ];
    prop_oneof![
        6 => prop::collection::vec(change, 1..12).prop_map(Step::Batch),
        3 => Just(Step::TakeView),
        2 => Just(Step::DropOldestView),
        1 => Just(Step::Reopen),
    ]
}

fn apply_to_model(model: &mut BTreeMap<Vec<u8>, Vec<u8>>, change: &Change) {
    match *change {
        Change::Put(key, value) => drop(model.insert(vec![key], vec![value])),
        Change::Delete(key) => drop(model.remove(&[key][..])),
        Change::DeleteRange(start, end) => model.retain(|key, _| key[0] < start || key[0] >= end),
    }
}

fn apply_to_engine(writer: &mut dyn EngineWriter, change: &Change) -> Result<(), EngineError> {
    match *change {
        Change::Put(key, value) => writer.put(ROWS, &[key], &[value]),
        Change::Delete(key) => writer.delete(ROWS, &[key]),
        Change::DeleteRange(start, end) => writer.delete_range(ROWS, KeyRange::new(&[start], &[end])),
    }
}

fn check_against_model(kind: EngineKind, steps: &[Step]) {
    let fixture = Fixture::new(kind);
    let mut engine = fixture.open();
    let mut model = Rows::new();
    let mut views: Vec<(Arc<dyn EngineView>, Rows)> = Vec::new();
    for step in steps {
        match step {
            Step::Batch(changes) => {
                changes.iter().for_each(|change| apply_to_model(&mut model, change));
                engine
                    .write(Durability::Synced, &mut |writer| {
                        changes.iter().try_for_each(|change| apply_to_engine(writer, change))
                    })
                    .unwrap();
            }
            Step::TakeView => views.push((engine.view().unwrap(), model.clone())),
            Step::DropOldestView if !views.is_empty() => drop(views.remove(0)),
            Step::DropOldestView => {}
            Step::Reopen => {
                views.clear();
                drop(engine);
                engine = fixture.open();
            }
        }
        views.push((engine.view().unwrap(), model.clone()));
        for (view, expected) in &views {
            let rows: BTreeMap<_, _> =
                rows_of(&**view, ROWS, KeyRange::ALL, Direction::Forward).into_iter().collect();
            assert_eq!(&rows, expected);
        }
        views.pop();
    }
}

macro_rules! suite {
    ($module:ident, $kind:expr, $survives:expr) => {
        mod $module {
            use super::*;

            #[test]
            fn reads_and_ranges_are_exact() {
                check_reads_and_ranges($kind);
            }

            #[test]
            fn later_changes_of_a_batch_win() {
                check_batch_order($kind);
            }

            #[test]
            fn a_view_never_changes() {
                check_views_never_change($kind);
            }

            #[test]
            fn an_abandoned_batch_leaves_nothing() {
                check_abandoned_batch($kind);
            }

            #[test]
            fn synced_batches_survive_closing() {
                if $survives {
                    check_reopen($kind);
                } else {
                    // The model keeps nothing: a second one starts empty.
                    let fixture = Fixture::new($kind);
                    put_all(&*fixture.open(), ROWS, &[(b"a", b"1")]);
                    assert_eq!(fixture.open().view().unwrap().get(ROWS, b"a").unwrap(), None);
                }
            }

            #[test]
            fn large_values_and_long_scans_are_whole() {
                check_large_values_and_long_scans($kind);
            }

            proptest! {
                #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

                #[test]
                fn equals_the_model(steps in prop::collection::vec(step(), 1..24)) {
                    let steps: Vec<_> = steps
                        .into_iter()
                        .filter(|step| $survives || !matches!(step, Step::Reopen))
                        .collect();
                    check_against_model($kind, &steps);
                }
            }
        }
    };
}

suite!(memory, EngineKind::Memory, false);
suite!(redb, EngineKind::Redb, true);
suite!(sled, EngineKind::Sled, true);

#[test]
fn a_damaged_redb_file_is_refused() {
    let fixture = Fixture::new(EngineKind::Redb);
    put_all(&*fixture.open(), ROWS, &[(b"a", b"1")]);
    let file = fixture.env.disk().open(&fixture.path(), rustydb_env::OpenMode::ReadWrite).unwrap();
    file.write_at(0, &[0_u8; 64]).unwrap();
    drop(file);
    let Err(error) = open(EngineKind::Redb, &fixture.env, &fixture.path(), CACHE_SIZE_BYTES) else {
        panic!("a file without its header was opened")
    };
    assert!(matches!(error, EngineError::Damaged { .. } | EngineError::Io { .. }), "{error}");
}

#[test]
fn a_half_made_redb_file_is_made_again() {
    let fixture = Fixture::new(EngineKind::Redb);
    let mut leftover = fixture.path().into_os_string();
    leftover.push(".new");
    let file = fixture.env.disk().open(&PathBuf::from(leftover), rustydb_env::OpenMode::CreateNew).unwrap();
    file.write_at(0, b"half a header").unwrap();
    drop(file);
    let engine = fixture.open();
    put_all(&*engine, ROWS, &[(b"a", b"1")]);
    assert_eq!(keys_of(&*engine.view().unwrap(), KeyRange::ALL, Direction::Forward), ["a"]);
}
