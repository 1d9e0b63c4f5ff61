//! The text of JSON: reading it with PostgreSQL's complaints, and writing strings.

use std::sync::Arc;

use super::{DEPTH_MAX, Json, too_deep};
use crate::value_error::ValueError;

/// A part of a JSON text, which it does not own.
#[derive(Clone, Debug)]
pub struct Item<'t> {
    /// The text of the part, as it was written.
    pub text: &'t str,
    /// What it is.
    pub kind: Kind<'t>,
}

/// What a part of a JSON text is.
#[derive(Clone, Debug)]
pub enum Kind<'t> {
    /// `null`
    Null,
    /// `true`, `false`
    Bool(bool),
    /// A number.
    Number,
    /// A string; the text with its quotes.
    String,
    /// An array.
    Array(Vec<Item<'t>>),
    /// An object: keys as written, with their quotes, in their order, also repeated ones.
    Object(Vec<(&'t str, Item<'t>)>),
}

/// Reads JSON as `jsonb`.
///
/// # Errors
/// 22P02 for what is no JSON, 22P05 for `\u0000`, 54001 for what nests too deeply, 22003 for numbers beyond `numeric`.
pub fn read(text: &str) -> Result<Json, ValueError> {
    parse(text)?.to_json()
}

/// Reads JSON as parts of its text.
///
/// # Errors
/// 22P02 for what is no JSON, 54001 for what nests too deeply.
pub fn parse(text: &str) -> Result<Item<'_>, ValueError> {
    let mut reader = Reader { text, at: 0 };
    let item = reader.value(0, "JSON value")?;
    match reader.token()? {
        None => Ok(item),
        Some(token) => Err(expected("end of input", Some(token))),
    }
}

/// The string that a quoted text means.
///
/// # Errors
/// 22P05 for `\u0000`, 22P02 for halves of surrogate pairs.
pub fn unquote(quoted: &str) -> Result<String, ValueError> {
    let inner = quoted.get(1..quoted.len().saturating_sub(1)).unwrap_or_default();
    let mut out = String::with_capacity(inner.len());
    let mut rest = inner;
    let mut high: Option<u32> = None;
    while let Some(place) = rest.find('\\') {
        let (before, after) = rest.split_at(place);
        if !before.is_empty() && high.is_some() {
            return Err(surrogate("Unicode low surrogate must follow a high surrogate."));
        }
        out.push_str(before);
        let mut letters = after.chars();
        letters.next();
        let letter = letters.next().unwrap_or('\\');
        rest = letters.as_str();
        let plain = match letter {
            'u' => {
                let digits = rest.get(..4).unwrap_or_default();
                let code = u32::from_str_radix(digits, 16).unwrap_or(0);
                rest = rest.get(4..).unwrap_or_default();
                match (code, high) {
                    (0, _) => {
                        return Err(ValueError::new("22P05", "unsupported Unicode escape sequence")
                            .with_detail("\\u0000 cannot be converted to text."));
                    }
                    (0xd800..=0xdbff, None) => {
                        high = Some(code);
                        continue;
                    }
                    (0xd800..=0xdbff, Some(_)) => {
                        return Err(surrogate("Unicode high surrogate must not follow a high surrogate."));
                    }
                    (0xdc00..=0xdfff, Some(first)) => {
                        high = None;
                        char::from_u32(0x10000 + ((first - 0xd800) << 10) + (code - 0xdc00))
                    }
                    (0xdc00..=0xdfff, None) | (_, Some(_)) => {
                        return Err(surrogate("Unicode low surrogate must follow a high surrogate."));
                    }
                    (code, None) => char::from_u32(code),
                }
            }
            'b' => Some('\u{8}'),
            'f' => Some('\u{c}'),
            'n' => Some('\n'),
            'r' => Some('\r'),
            't' => Some('\t'),
            other => Some(other),
        };
        if high.is_some() {
            return Err(surrogate("Unicode low surrogate must follow a high surrogate."));
        }
        out.extend(plain);
    }
    if high.is_some() {
        return Err(surrogate("Unicode low surrogate must follow a high surrogate."));
    }
    out.push_str(rest);
    Ok(out)
}

/// Appends a string in quotes.
pub fn quote(out: &mut String, text: &str) {
    use std::fmt::Write;
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            control if control < ' ' => drop(write!(out, "\\u{:04x}", u32::from(control))),
            other => out.push(other),
        }
    }
    out.push('"');
}

impl Item<'_> {
    /// The value that it means.
    ///
    /// # Errors
    /// As [`read`].
    pub fn to_json(&self) -> Result<Json, ValueError> {
        Ok(match &self.kind {
            Kind::Null => Json::Null,
            Kind::Bool(flag) => Json::Bool(*flag),
            Kind::Number => Json::Number(self.text.parse()?),
            Kind::String => Json::String(unquote(self.text)?.into()),
            Kind::Array(items) => Json::Array(items.iter().map(Item::to_json).collect::<Result<_, _>>()?),
            Kind::Object(pairs) => {
                let pair = |(key, item): &(&str, Item<'_>)| -> Result<(Arc<str>, Json), ValueError> {
                    Ok((unquote(key)?.into(), item.to_json()?))
                };
                Json::object(pairs.iter().map(pair).collect::<Result<_, _>>()?)
            }
        })
    }

    /// What `json_typeof` calls it.
    #[must_use]
    pub fn type_name(&self) -> &'static str {
        match self.kind {
            Kind::Null => "null",
            Kind::Bool(_) => "boolean",
            Kind::Number => "number",
            Kind::String => "string",
            Kind::Array(_) => "array",
            Kind::Object(_) => "object",
        }
    }
}

fn surrogate(detail: &str) -> ValueError {
    invalid(detail)
}

fn invalid(detail: impl Into<String>) -> ValueError {
    ValueError::new("22P02", "invalid input syntax for type json").with_detail(detail)
}

fn expected(what: &str, found: Option<&str>) -> ValueError {
    match found {
        None => invalid("The input string ended unexpectedly."),
        Some(found) => {
            let what = match what {
                "JSON value" | "string" | "end of input" => what.to_owned(),
                other => other.to_owned(),
            };
            invalid(format!("Expected {what}, but found \"{found}\"."))
        }
    }
}

struct Reader<'t> {
    text: &'t str,
    at: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t str {
        self.text.get(self.at..).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        let rest = self.rest();
        self.at += rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r']).len();
    }

    /// The next token, as written; `None` at the end.
    fn token(&mut self) -> Result<Option<&'t str>, ValueError> {
        self.skip_blanks();
        let rest = self.rest();
        let Some(first) = rest.bytes().next() else { return Ok(None) };
        let length = match first {
            b'{' | b'}' | b'[' | b']' | b',' | b':' => 1,
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => {
                let length = number(rest.as_bytes());
                let word = rest.bytes().skip(length).take_while(|byte| is_word(*byte)).count();
                if word > 0 || !rest.as_bytes().get(length.wrapping_sub(1)).is_some_and(u8::is_ascii_digit) {
                    let shown = rest.get(..length + word).unwrap_or(rest);
                    return Err(invalid(format!("Token \"{shown}\" is invalid.")));
                }
                length
            }
            _ => {
                let word = rest.bytes().take_while(|byte| is_word(*byte)).count();
                let length = if word > 0 { word } else { rest.chars().next().map_or(1, char::len_utf8) };
                let word = rest.get(..length).unwrap_or(rest);
                if !matches!(word, "true" | "false" | "null") {
                    return Err(invalid(format!("Token \"{word}\" is invalid.")));
                }
                length
            }
        };
        let token = rest.get(..length);
        self.at += length;
        Ok(token)
    }

    /// The length of the string that begins here.
    fn string(&self) -> Result<usize, ValueError> {
        let rest = self.rest();
        let mut bytes = rest.bytes().enumerate().skip(1);
        while let Some((place, byte)) = bytes.next() {
            match byte {
                b'"' => return Ok(place + 1),
                0..=0x1f => {
                    return Err(invalid(format!("Character with value 0x{byte:02x} must be escaped.")));
                }
                b'\\' => match bytes.next() {
                    None => break,
                    Some((_, b'u')) => {
                        for _ in 0..4 {
                            match bytes.next() {
                                None => break,
                                Some((_, digit)) if digit.is_ascii_hexdigit() => {}
                                Some(_) => {
                                    let detail = "\"\\u\" must be followed by four hexadecimal digits.";
                                    return Err(invalid(detail));
                                }
                            }
                        }
                    }
                    Some((_, b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't')) => {}
                    Some((place, _)) => {
                        let letter = rest.get(place..).and_then(|rest| rest.chars().next()).unwrap_or('?');
                        return Err(invalid(format!("Escape sequence \"\\{letter}\" is invalid.")));
                    }
                },
                _ => {}
            }
        }
        Err(invalid(format!("Token \"{rest}\" is invalid.")))
    }

    fn value(&mut self, depth: usize, what: &str) -> Result<Item<'t>, ValueError> {
        if depth > DEPTH_MAX {
            return Err(too_deep());
        }
        self.skip_blanks();
        let from = self.at;
        let token = self.token()?;
        let kind = match token {
            Some("{") => self.object(depth)?,
            Some("[") => self.array(depth)?,
            Some("null") => Kind::Null,
            Some("true") => Kind::Bool(true),
            Some("false") => Kind::Bool(false),
            Some(token) if token.starts_with('"') => Kind::String,
            Some(token) if token.starts_with(|first: char| first == '-' || first.is_ascii_digit()) => {
                Kind::Number
            }
            other => return Err(expected(what, other)),
        };
        Ok(Item { text: self.text.get(from..self.at).unwrap_or_default(), kind })
    }

    fn array(&mut self, depth: usize) -> Result<Kind<'t>, ValueError> {
        let mut items = Vec::new();
        self.skip_blanks();
        if self.rest().starts_with(']') {
            self.at += 1;
            return Ok(Kind::Array(items));
        }
        loop {
            items.push(self.value(depth + 1, "JSON value")?);
            match self.token()? {
                Some(",") => {}
                Some("]") => return Ok(Kind::Array(items)),
                other => return Err(expected("\",\" or \"]\"", other)),
            }
        }
    }

    fn object(&mut self, depth: usize) -> Result<Kind<'t>, ValueError> {
        let mut pairs = Vec::new();
        let mut wanted = "string or \"}\"";
        loop {
            let key = match self.token()? {
                Some("}") if pairs.is_empty() => return Ok(Kind::Object(pairs)),
                Some(key) if key.starts_with('"') => key,
                other => return Err(expected(wanted, other)),
            };
            wanted = "string";
            match self.token()? {
                Some(":") => {}
                other => return Err(expected("\":\"", other)),
            }
            pairs.push((key, self.value(depth + 1, "JSON value")?));
            match self.token()? {
                Some(",") => {}
                Some("}") => return Ok(Kind::Object(pairs)),
                other => return Err(expected("\",\" or \"}\"", other)),
            }
        }
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

/// How many bytes a number takes; it ends in a digit if it is one.
fn number(bytes: &[u8]) -> usize {
    let digits = |from: usize| bytes.iter().skip(from).take_while(|byte| byte.is_ascii_digit()).count();
    let mut at = usize::from(bytes.first() == Some(&b'-'));
    if bytes.get(at) == Some(&b'0') {
        at += 1;
    } else {
        let whole = digits(at);
        if whole == 0 {
            return at;
        }
        at += whole;
    }
    if bytes.get(at) == Some(&b'.') {
        let part = digits(at + 1);
        at += 1 + part;
        if part == 0 {
            return at;
        }
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        at += 1 + usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at += digits(at);
    }
    at
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn what_is_no_json_is_refused_in_the_words_of_postgresql() {
        for (text, detail) in [
            ("{\"a\":1,}", "Expected string, but found \"}\"."),
            ("[1,2", "The input string ended unexpectedly."),
            ("", "The input string ended unexpectedly."),
            ("01", "Token \"01\" is invalid."),
            ("{\"a\":tru}", "Token \"tru\" is invalid."),
            ("\"x\ty\"", "Character with value 0x09 must be escaped."),
            ("\"\\x\"", "Escape sequence \"\\x\" is invalid."),
            ("{\"a\" 1}", "Expected \":\", but found \"1\"."),
            ("{1:1}", "Expected string or \"}\", but found \"1\"."),
            ("1 2", "Expected end of input, but found \"2\"."),
            ("[1,]", "Expected JSON value, but found \"]\"."),
            ("{\"a\":1 \"b\"}", "Expected \",\" or \"}\", but found \"\"b\"\"."),
            ("[1 2]", "Expected \",\" or \"]\", but found \"2\"."),
            ("\"abc", "Token \"\"abc\" is invalid."),
            ("\"\\u00zz\"", "\"\\u\" must be followed by four hexadecimal digits."),
            ("-", "Token \"-\" is invalid."),
            ("1.", "Token \"1.\" is invalid."),
            ("1e", "Token \"1e\" is invalid."),
        ] {
            let error = parse(text).expect_err(text);
            assert_eq!((error.state, error.detail.as_deref()), ("22P02", Some(detail)), "{text}");
        }
        let deep = "[".repeat(DEPTH_MAX + 2);
        assert_eq!(parse(&deep).expect_err("too deep").state, "54001");
    }

    #[test]
    fn escapes_mean_their_characters() {
        assert_eq!(
            unquote(r#""a\"\\\/\b\f\n\r\tA\u00e9\ud83d\ude00""#),
            Ok("a\"\\/\u{8}\u{c}\n\r\tAé😀".to_owned())
        );
        assert_eq!(unquote(r#""\u0000""#).expect_err("NUL").state, "22P05");
        for half in [
            r#""\ud800""#,
            r#""\ud800x""#,
            r#""\ude00""#,
            r#""\ud800\ud800""#,
            r#""\ud800\n""#,
            r#""\ud800A""#,
        ] {
            assert_eq!(unquote(half).expect_err(half).state, "22P02");
            assert!(parse(half).is_ok(), "{half} is text of json");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]{}:,\"\\\\ua0-9.eE truefalsn\u{0}-\u{1f}é-]{0,24}") {
            let _ = read(&text);
        }
    }
}
