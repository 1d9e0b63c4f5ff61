//! Fields, errors and chunk borders of COPY data. Expected values were taken from PostgreSQL 15.

use proptest::prelude::*;

use super::*;
use crate::copy::CopyWriter;

fn csv() -> CopyOptions {
    CopyOptions { format: CopyFormat::Csv, delimiter: b',', null: String::new(), ..CopyOptions::default() }
}

fn columns(count: usize) -> Vec<String> {
    ["a", "b", "c"][..count].iter().map(|name| (*name).to_owned()).collect()
}

fn read_all(
    options: &CopyOptions,
    count: usize,
    data: &[u8],
    chunk_size: usize,
) -> Result<Vec<Vec<Option<String>>>, SqlError> {
    let mut reader = CopyReader::new(options.clone(), "t", columns(count));
    let mut rows = Vec::new();
    for chunk in data.chunks(chunk_size.max(1)) {
        reader.push(chunk)?;
        while let Some(row) = reader.next_row()? {
            rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
        }
    }
    reader.finish();
    while let Some(row) = reader.next_row()? {
        rows.push((0..row.len()).map(|index| row.get(index).map(str::to_owned)).collect());
    }
    Ok(rows)
}

/// Rows as text: fields joined by `|`, NULL as `~`.
fn check(options: &CopyOptions, count: usize, data: &str, expected: &[&str]) {
    for chunk_size in [1, 2, 3, 7, 1_000] {
        let rows = read_all(options, count, data.as_bytes(), chunk_size).unwrap();
        let rows: Vec<String> = rows
            .iter()
            .map(|row| row.iter().map(|field| field.as_deref().unwrap_or("~")).collect::<Vec<_>>().join("|"))
            .collect();
        assert_eq!(rows, expected, "{data:?} in chunks of {chunk_size}");
    }
}

fn check_error(options: &CopyOptions, count: usize, data: &[u8], state: &str, message: &str, context: &str) {
    let error = read_all(options, count, data, 1_000).unwrap_err();
    assert_eq!(error.state().code(), state, "{data:?}");
    assert_eq!(error.message(), message);
    assert_eq!(error.fields().context.as_deref(), Some(context));
}

#[test]
fn text_fields_and_escapes() {
    let text = CopyOptions::default();
    check(&text, 2, "1\tone\n2\t\\N\n", &["1|one", "2|~"]);
    check(&text, 2, "1\tno end", &["1|no end"]);
    check(&text, 2, "1\ta\\tb\\\\c\\nd\\x41\\101\\q\n", &["1|a\tb\\c\nd\u{41}Aq"]);
    check(&text, 1, "line one\\\nline two\nnext\n", &["line one\nline two", "next"]);
    check(&text, 1, "\\\\N\n\n", &["\\N", ""]);
    check(&text, 1, "a\n\\.\nignored\n", &["a"]);
    check(&text, 2, "1\ta\r\n2\tb\r\n", &["1|a", "2|b"]);
    check(&text, 2, "1\ta\r2\tb\r", &["1|a", "2|b"]);
    check(&CopyOptions { header: true, ..text }, 1, "a\n1\n", &["1"]);
}

#[test]
fn csv_fields_and_quotes() {
    check(&csv(), 2, "1,one\n2,\n3,\"\"\n", &["1|one", "2|~", "3|"]);
    check(&csv(), 2, "1,\"a,b\"\"c\"\n2,x\"y\"z\n", &["1|a,b\"c", "2|xyz"]);
    check(&csv(), 2, "1,\"two\nlines\"\n2,b\n", &["1|two\nlines", "2|b"]);
    check(&csv(), 1, "a\r\nb\r\n", &["a", "b"]);
    let escaped = CopyOptions { escape: b'\\', ..csv() };
    check(&escaped, 2, "1,\"a\\\"b\\\\\"\n2,c\n", &["1|a\"b\\", "2|c"]);
    let forced = CopyOptions {
        null: "NA".to_owned(),
        force_not_null: vec!["a".to_owned()],
        force_null: vec!["b".to_owned()],
        ..csv()
    };
    check(&forced, 2, "NA,\"NA\"\n", &["NA|~"]);
    check(&CopyOptions { header: true, ..csv() }, 1, "\"a\nb\"\n1\n", &["1"]);
}

#[test]
fn errors_name_their_line() {
    let text = CopyOptions::default();
    check_error(&text, 2, b"1\ta\n2\n", "22P04", "missing data for column \"b\"", "COPY t, line 2: \"2\"");
    check_error(
        &text,
        1,
        b"1\t2\n",
        "22P04",
        "extra data after last expected column",
        "COPY t, line 1: \"1\t2\"",
    );
    check_error(
        &csv(),
        2,
        b"1,\"a\n2,b\n",
        "22P04",
        "unterminated CSV quoted field",
        "COPY t, line 1: \"1,\"a\n2,b\n\"",
    );
    check_error(&text, 1, b"a\nb\r\nc\n", "22P04", "literal carriage return found in data", "COPY t, line 2");
    check_error(&csv(), 1, b"a\r\nb\n", "22P04", "unquoted newline found in data", "COPY t, line 2");
    let invalid = "invalid byte sequence for encoding \"UTF8\": 0xff";
    check_error(&text, 1, b"a\n\xff\n", "22021", invalid, "COPY t, line 2: \"\u{fffd}\"");
    check_error(&text, 1, b"a\\.b\n", "22P04", "end-of-copy marker corrupt", "COPY t, line 1: \"a\\.b\"");
}

#[test]
fn an_error_in_a_value_names_its_column() {
    let mut reader = CopyReader::new(CopyOptions::default(), "t", columns(2));
    reader.push(b"1\tx\n").unwrap();
    assert!(reader.next_row().unwrap().is_some());
    let error = SqlError::new(SqlState::INVALID_TEXT_REPRESENTATION, "bad");
    let placed = reader.at_field(error.clone(), 1, Some("x"));
    assert_eq!(placed.fields().context.as_deref(), Some("COPY t, line 1, column b: \"x\""));
    let placed = reader.at_line_number(error.clone());
    assert_eq!(placed.fields().context.as_deref(), Some("COPY t, line 1"));
    let long = "y".repeat(300);
    let placed = reader.at_field(error, 1, Some(&long));
    assert_eq!(placed.fields().context.as_ref().map(String::len), Some(27 + 100 + 4), "shortened");
}

fn row() -> impl Strategy<Value = Vec<Option<String>>> {
    let field = prop_oneof![
        1 => Just(None),
        1 => Just(Some("\\.".to_owned())),
        1 => Just(Some("\\N".to_owned())),
        6 => "[a\\\\\"',\t\n\r\u{e9}.N ]{0,6}".prop_map(Some),
    ];
    prop::collection::vec(field, 2)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_back(
        rows in prop::collection::vec(row(), 0..8),
        text_format in any::<bool>(),
        escape_backslash in any::<bool>(),
        chunk_size in 1..40_usize,
    ) {
        let mut options = if text_format { CopyOptions::default() } else { csv() };
        if !text_format && escape_backslash {
            options.escape = b'\\';
        }
        let writer = CopyWriter::new(options.clone(), &columns(2));
        let mut data = Vec::new();
        for row in &rows {
            writer.write_row(row.iter().map(Option::as_deref), &mut data);
        }
        prop_assert_eq!(read_all(&options, 2, &data, chunk_size).unwrap(), rows);
    }
}
