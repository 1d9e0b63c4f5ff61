#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| rustydb_tests::fuzz::targets::run("configuration", input));
