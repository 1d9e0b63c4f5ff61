//! How large a statement is, from its text, before anything is made of it.
//!
//! A word or sign of one byte becomes a token of a hundred, and then a node of a tree of several hundreds; a blank becomes
//! a token, too: a text of ten megabytes would take gigabytes. Text in quotes stays as it is, so that it is not the length
//! of a statement that is bounded but the count of its words and signs.
//!
//! The count must not be less than what the tokenizer makes of a text, whatever somebody thinks up: where it is not sure
//! that the tokenizer takes something for a quote or a comment, it counts the rest as if there were none of them.

use crate::error::{SqlError, SqlState};

/// Words and signs that a message may have.
pub(super) const WORDS_MAX: usize = 250_000;
/// Memory that a word or sign takes at most while its statement is planned, and as long as that is kept: measured with
/// long lists of numbers.
const WORD_BYTES: usize = 600;
/// Memory that a blank outside of quotes takes.
const BLANK_BYTES: usize = 100;
/// Signs of an operator at most; one with more is nothing that anybody means.
const OPERATOR_MAX: usize = 63;
const SIZE_MAX: usize = WORDS_MAX * WORD_BYTES;

/// Memory that is needed for what is made of a text, in bytes, and for the text.
///
/// # Errors
/// 54001 for a text that is too large in any case.
pub fn size_bytes(sql: &str) -> Result<usize, SqlError> {
    let size = measure(sql.as_bytes(), SIZE_MAX + 1);
    if size <= SIZE_MAX { Ok(sql.len() + size) } else { Err(too_large()) }
}

/// Refuses a text with more words and signs than can be planned in bounded memory.
///
/// # Errors
/// 54001.
pub(super) fn check(sql: &str) -> Result<(), SqlError> {
    // Each has at least a byte.
    if sql.len() <= WORDS_MAX { Ok(()) } else { size_bytes(sql).map(drop) }
}

fn too_large() -> SqlError {
    let message = format!("statement has more than {WORDS_MAX} words and signs");
    SqlError::new(SqlState::STATEMENT_TOO_COMPLEX, message)
        .with_detail("Six blanks outside of quotes count as a word.")
        .with_hint(
            "Use COPY for many rows, or several statements, or pass a list as an array in one parameter.",
        )
}

/// Adds up what the parts of a text take, until it is at least `most`.
fn measure(sql: &[u8], most: usize) -> usize {
    let (mut at, mut size) = (0, 0);
    let mut is_sure = true;
    while at < sql.len() && size < most {
        let rest = sql.get(at..).unwrap_or_default();
        let part = if is_sure { next(rest) } else { None };
        is_sure = part.is_some();
        let (length, bytes) = part.unwrap_or_else(|| plain(rest));
        size += bytes;
        at += length.max(1);
    }
    size
}

/// How long what is next in the text is, and what it takes; nothing where that is not sure.
fn next(text: &[u8]) -> Option<(usize, usize)> {
    Some(match text {
        [b'-', b'-', ..] => {
            (text.iter().position(|byte| matches!(byte, b'\n' | b'\r')).unwrap_or(text.len()), BLANK_BYTES)
        }
        [b'/', b'*', rest @ ..] => (2 + comment(rest), BLANK_BYTES),
        [b'e' | b'E' | b'x' | b'X', b'\'', rest @ ..] => (2 + quoted(rest, b'\'', true), WORD_BYTES),
        // The tokenizer takes what follows for a part of it.
        [b'&', b'>', ..] => return None,
        [quote @ (b'\'' | b'"'), rest @ ..] => (1 + quoted(rest, *quote, false), WORD_BYTES),
        [b'$', ..] => (dollar_quoted(text)?, WORD_BYTES),
        // These are signs by themselves, whatever follows.
        [b'+' | b'*', ..] => (1, WORD_BYTES),
        [byte, ..] if is_operator(*byte) => {
            let run = text.iter().take(OPERATOR_MAX + 1).take_while(|byte| is_operator(**byte)).count();
            let behind = text.get(1..run).unwrap_or_default();
            // Part of the operator, or a comment?
            if run > OPERATOR_MAX || behind.windows(2).any(|two| two == b"--" || two == b"/*") {
                return None;
            }
            (1, WORD_BYTES)
        }
        [b'0'..=b'9', ..] => {
            // Where the number ends, and whether what follows is quoted, depends on what it is.
            let run = text.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count();
            let number = text.get(..run).unwrap_or_default();
            let goes_into_quote = text.get(run) == Some(&b'\'') && !number.iter().all(u8::is_ascii_digit);
            if goes_into_quote || number.contains(&b'$') {
                return None;
            }
            plain(text)
        }
        [byte, ..] if is_word(*byte) => {
            (text.iter().take_while(|byte| is_word(**byte) || **byte == b'$').count(), WORD_BYTES)
        }
        _ => plain(text),
    })
}

/// The same without quotes and comments.
fn plain(text: &[u8]) -> (usize, usize) {
    match text {
        [b' ' | b'\t' | b'\n' | b'\r', ..] => (1, BLANK_BYTES),
        // A number ends where a word begins.
        [b'0'..=b'9', ..] => (text.iter().take_while(|byte| byte.is_ascii_digit()).count(), WORD_BYTES),
        [byte, ..] if is_word(*byte) => (text.iter().take_while(|byte| is_word(**byte)).count(), WORD_BYTES),
        _ => (1, WORD_BYTES),
    }
}

const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// What the tokenizer may make an operator of several signs of.
const fn is_operator(byte: u8) -> bool {
    matches!(
        byte,
        b'+' | b'-'
            | b'*'
            | b'/'
            | b'<'
            | b'>'
            | b'='
            | b'~'
            | b'!'
            | b'@'
            | b'#'
            | b'%'
            | b'^'
            | b'&'
            | b'|'
            | b'`'
            | b'?'
    )
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

/// `$tag$ ... $tag$`, or a parameter as `$1`; nothing where it may be either.
fn dollar_quoted(text: &[u8]) -> Option<usize> {
    let after = text.get(1..).unwrap_or_default();
    let word = after.iter().take_while(|byte| byte.is_ascii() && is_word(**byte)).count();
    match after.get(word) {
        Some(b'$') if after.first().is_some_and(u8::is_ascii_digit) => return None,
        Some(b'$') => {}
        // Some of these go on with the tag, and some do not.
        Some(byte) if !byte.is_ascii() => return None,
        _ => return Some(1 + word),
    }
    let tag_length = word + 2;
    let tag = text.get(..tag_length).unwrap_or_default();
    let body = text.get(tag_length..).unwrap_or_default();
    let end = body.windows(tag_length).position(|window| window == tag);
    Some(end.map_or(text.len(), |end| tag_length * 2 + end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use sqlparser::dialect::PostgreSqlDialect;
    use sqlparser::tokenizer::{Token, Tokenizer};

    use super::*;

    #[test]
    fn words_signs_and_blanks_are_counted() {
        for (sql, words, blanks) in [
            ("SELECT a, 'it''s' FROM t", 6, 4),
            ("SELECT 1 -- , , ,\n, 2 /* , /* , */ , */", 4, 7),
            (r"SELECT E'a\'b', $1, $$ , , $$, $x$ $ , $x$", 8, 4),
            ("SELECT \"a , \"\" b\"", 2, 1),
            ("SELECT größe", 2, 1),
            ("'never ended", 1, 0),
            ("/* never ended", 0, 1),
            ("$$never ended", 1, 0),
            ("", 0, 0),
        ] {
            let expected = words * WORD_BYTES + blanks * BLANK_BYTES;
            assert_eq!(measure(sql.as_bytes(), usize::MAX), expected, "{sql}");
        }
    }

    #[test]
    fn nothing_is_hidden_from_the_count() {
        let list = ",1".repeat(50);
        for before in [
            "a$$",
            "1 --\r",
            "1 @-- '\n",
            "1 =/* '",
            "$1$ ' $1$",
            "$\u{2014}$",
            "1 <@/*",
            "a$b$",
            "1$$ $$",
            "x'",
            "1a'",
        ] {
            let sql = format!("SELECT {before}{list}");
            let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, &sql).tokenize() else { continue };
            assert_counted(&sql, &tokens);
        }
        // Blanks are tokens, too.
        assert!(check(&" ".repeat(WORDS_MAX * 6 + 1)).is_err());
        // A long run of signs is gone through once.
        assert!(check(&"<".repeat(20 << 20)).is_err());
        // Whatever pieces stand side by side.
        let pieces = [
            "a", "1", "$", "$$", "$a$", "$1", "'", "''", "\"", "e'", "E'", "\\", "-", "--", "/", "/*", "*/",
            "*", "+", "@", "=", "<", ">", "?", "#", "~", "`", "|", "&", "!", "%", "^", ":", ".", ",", "\n",
            "\r", "\t", " ", "\u{e9}", "\u{2014}", "\u{a0}", "U&", "b", "x", "n", "0x", "1e", "_", "{", "[",
            "u&'", "B'", "X'",
        ];
        let mut state = 1_u64;
        for _ in 0..100_000 {
            let mut sql = String::new();
            for _ in 0..12 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                let place = usize::try_from(state >> 33).unwrap() % pieces.len();
                sql.push_str(pieces[place]);
            }
            if let Ok(tokens) = Tokenizer::new(&PostgreSqlDialect {}, &sql).tokenize() {
                assert_counted(&sql, &tokens);
            }
        }
    }

    fn assert_counted(sql: &str, tokens: &[Token]) {
        let words = tokens.iter().filter(|token| !matches!(token, Token::Whitespace(_))).count();
        let needed = words * WORD_BYTES + (tokens.len() - words) * BLANK_BYTES;
        assert!(measure(sql.as_bytes(), usize::MAX) >= needed, "{sql:?}: {tokens:?}");
    }

    #[test]
    fn long_texts_pass_and_many_words_do_not() {
        let text = format!("SELECT '{}'", "x, ".repeat(WORDS_MAX));
        assert!(check(&text).is_ok());
        let list = |count: usize| format!("SELECT 1 IN (1{})", ",1".repeat(count));
        assert!(check(&list((WORDS_MAX - 8) / 2)).is_ok());
        let error = check(&list(WORDS_MAX / 2)).err().map(|error| error.state());
        assert_eq!(error, Some(SqlState::STATEMENT_TOO_COMPLEX));
    }
}
