//! How large a statement is, from its text, before anything is made of it.
//!
//! A word or sign of one byte becomes a token of a hundred, and then a node of a tree of several hundreds: a text of ten
//! megabytes would take gigabytes. Text in quotes stays as it is, so that it is not the length of a statement that is
//! bounded but the count of its words and signs.

use crate::error::{SqlError, SqlState};

/// Words and signs that a message may have: some hundred bytes of memory each while it is planned.
pub(super) const WORDS_MAX: usize = 250_000;

/// Memory that a word or sign takes at most while its statement is planned, and as long as that is kept: measured with
/// long lists of numbers, which take the most.
const WORD_BYTES: usize = 600;

/// Memory that is needed for what is made of a text, in bytes, and for the text.
///
/// # Errors
/// 54001 for a text that is too large in any case.
pub fn size_bytes(sql: &str) -> Result<usize, SqlError> {
    check(sql)?;
    Ok(sql.len() + count_to(sql.as_bytes(), WORDS_MAX) * WORD_BYTES)
}

/// Refuses a text with more words and signs than can be planned in bounded memory.
///
/// # Errors
/// 54001.
pub(super) fn check(sql: &str) -> Result<(), SqlError> {
    // Each has at least a byte.
    if sql.len() <= WORDS_MAX || count_to(sql.as_bytes(), WORDS_MAX + 1) <= WORDS_MAX {
        return Ok(());
    }
    Err(SqlError::new(
        SqlState::STATEMENT_TOO_COMPLEX,
        format!("statement has more than {WORDS_MAX} words and signs"),
    )
    .with_hint("Use COPY for many rows, or several statements, or pass a list as an array in one parameter."))
}

/// Counts words and signs up to `most`. What the tokenizer makes of odd text may differ by some.
fn count_to(sql: &[u8], most: usize) -> usize {
    let (mut at, mut count) = (0, 0);
    while at < sql.len() && count < most {
        let rest = sql.get(at..).unwrap_or_default();
        let (length, is_counted) = next(rest);
        count += usize::from(is_counted);
        at += length.max(1);
    }
    count
}

/// How long what is next in the text is, and whether it is a word or a sign.
fn next(text: &[u8]) -> (usize, bool) {
    match text {
        [b' ' | b'\t' | b'\n' | b'\r', ..] => (1, false),
        [b'-', b'-', ..] => (text.iter().position(|byte| *byte == b'\n').unwrap_or(text.len()), false),
        [b'/', b'*', rest @ ..] => (2 + comment(rest), false),
        [b'e' | b'E', b'\'', rest @ ..] => (2 + quoted(rest, b'\'', true), true),
        [quote @ (b'\'' | b'"'), rest @ ..] => (1 + quoted(rest, *quote, false), true),
        [b'$', ..] => (dollar_quoted(text), true),
        _ => (text.iter().take_while(|byte| is_word(**byte)).count(), true),
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// To the end of a comment that has begun; comments nest.
fn comment(text: &[u8]) -> usize {
    let (mut at, mut depth) = (0, 1_usize);
    while depth > 0 {
        match text.get(at..) {
            Some([b'*', b'/', ..]) => (depth, at) = (depth - 1, at + 2),
            Some([b'/', b'*', ..]) => (depth, at) = (depth + 1, at + 2),
            Some([_, ..]) => at += 1,
            _ => break,
        }
    }
    at
}

/// To the end of a text in quotes that has begun; a quote is doubled in it, or stands behind a backslash.
fn quoted(text: &[u8], quote: u8, with_backslashes: bool) -> usize {
    let mut at = 0;
    loop {
        match text.get(at..) {
            Some([b'\\', _, ..]) if with_backslashes => at += 2,
            Some([one, two, ..]) if *one == quote && *two == quote => at += 2,
            Some([one, ..]) if *one == quote => return at + 1,
            Some([_, ..]) => at += 1,
            _ => return at,
        }
    }
}

/// `$tag$ ... $tag$`, or a parameter as `$1`.
fn dollar_quoted(text: &[u8]) -> usize {
    let after = text.get(1..).unwrap_or_default();
    let word = after.iter().take_while(|byte| is_word(**byte)).count();
    let is_parameter = after.first().is_some_and(u8::is_ascii_digit);
    if is_parameter || after.get(word) != Some(&b'$') {
        return 1 + word;
    }
    let tag_length = word + 2;
    let tag = text.get(..tag_length).unwrap_or_default();
    let body = text.get(tag_length..).unwrap_or_default();
    let end = body.windows(tag_length).position(|window| window == tag);
    end.map_or(text.len(), |end| tag_length * 2 + end)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(sql: &str) -> usize {
        count_to(sql.as_bytes(), usize::MAX)
    }

    #[test]
    fn words_and_signs_are_counted() {
        assert_eq!(count("SELECT a, 'it''s' FROM t"), 6);
        assert_eq!(count("SELECT 1 -- , , ,\n, 2 /* , /* , */ , */"), 4);
        assert_eq!(count(r"SELECT E'a\'b', $1, $$ , , $$, $x$ $ , $x$"), 8);
        assert_eq!(count("SELECT \"a , \"\" b\""), 2);
        assert_eq!(count("SELECT größe"), 2);
        assert_eq!(count("'never ended"), 1);
        assert_eq!(count("/* never ended"), 0);
        assert_eq!(count("$$never ended"), 1);
        assert_eq!(count(""), 0);
    }

    #[test]
    fn long_texts_pass_and_many_words_do_not() {
        let text = format!("SELECT '{}'", "x, ".repeat(WORDS_MAX));
        assert!(check(&text).is_ok());
        let list = |count: usize| format!("SELECT 1 IN (1{})", ",1".repeat(count));
        assert!(check(&list((WORDS_MAX - 6) / 2)).is_ok());
        let error = check(&list(WORDS_MAX / 2)).err().map(|error| error.state());
        assert_eq!(error, Some(SqlState::STATEMENT_TOO_COMPLEX));
    }
}
