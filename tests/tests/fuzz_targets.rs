//! The fuzzer's targets for a moment each; the program `fuzz` runs them for longer.

use rustydb_tests::crash::Dice;
use rustydb_tests::fuzz::attack::deep_statements;
use rustydb_tests::fuzz::desk::Desk;
use rustydb_tests::fuzz::targets::TARGETS;
use rustydb_tests::raw;

#[test]
fn every_target_takes_its_corpus_and_changes_of_it() {
    for target in TARGETS {
        let corpus = (target.corpus)();
        assert!(!corpus.is_empty(), "{} has no corpus", target.name);
        let mut dice = Dice::new(7);
        for input in &corpus {
            (target.run)(input);
        }
        for _ in 0..150 {
            let input = (target.mutate)(&corpus, &mut dice);
            (target.run)(&input);
        }
    }
}

/// A hostile or a generated statement is answered, by an error if need be: nothing in it takes twice as long with every
/// level, and none ends the process.
#[test]
fn deep_and_long_statements_are_answered() {
    let mut desk = Desk::new();
    for depth in [45, 300, 3000] {
        for (_, sql) in deep_statements(depth) {
            desk.converse(&raw::query(&sql));
            desk.converse(&[raw::parse("", &sql), raw::message(b'D', b"S\0")].concat());
        }
    }
}
