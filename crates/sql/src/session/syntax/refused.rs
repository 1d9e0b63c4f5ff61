//! What PostgreSQL's grammar has and this one has not, so that whoever writes it reads its name and no syntax error.
//!
//! It is looked at only when a statement does not parse; a name that is missing here costs a worse message.

use sqlparser::tokenizer::{Token, TokenWithSpan};

/// Statements by their first words.
const STATEMENTS: &[&str] = &[
    "CALL",
    "CHECKPOINT",
    "CLUSTER",
    "DO",
    "IMPORT FOREIGN SCHEMA",
    "LOAD",
    "LOCK",
    "MERGE",
    "REFRESH MATERIALIZED VIEW",
    "REINDEX",
    "SECURITY LABEL",
    "TABLE",
];

/// What CREATE, ALTER, DROP and COMMENT ON may name.
const OBJECTS: &[&str] = &[
    "ACCESS METHOD",
    "AGGREGATE",
    "CAST",
    "COLLATION",
    "CONSTRAINT",
    "CONSTRAINT TRIGGER",
    "CONVERSION",
    "EVENT TRIGGER",
    "EXTENSION",
    "FOREIGN DATA WRAPPER",
    "FOREIGN TABLE",
    "FUNCTION",
    "LANGUAGE",
    "LARGE OBJECT",
    "MATERIALIZED VIEW",
    "OPERATOR",
    "OPERATOR CLASS",
    "OPERATOR FAMILY",
    "POLICY",
    "PROCEDURAL LANGUAGE",
    "PROCEDURE",
    "PUBLICATION",
    "RECURSIVE VIEW",
    "ROUTINE",
    "RULE",
    "SERVER",
    "STATISTICS",
    "SUBSCRIPTION",
    "SYSTEM",
    "TABLESPACE",
    "TEXT SEARCH",
    "TRANSFORM",
    "TRIGGER",
    "TRUSTED LANGUAGE",
    "USER MAPPING",
    "VIEW",
];

/// Clauses, wherever they stand: the words that betray them, and what they are called.
const CLAUSES: &[(&str, &str)] = &[
    ("COLLATION FOR", "COLLATION FOR"),
    ("CURRENT OF", "WHERE CURRENT OF"),
    ("GROUP BY DISTINCT", "GROUP BY DISTINCT"),
    ("WITH NO DATA", "WITH NO DATA"),
    ("WITH DATA", "WITH DATA"),
    ("NOT VALID", "NOT VALID but in ALTER TABLE"),
    ("NULLS NOT DISTINCT", "NULLS NOT DISTINCT"),
    ("OVERRIDING SYSTEM VALUE", "OVERRIDING"),
    ("OVERRIDING USER VALUE", "OVERRIDING"),
    ("ROWS FROM", "ROWS FROM"),
    ("UESCAPE", "UESCAPE"),
    ("XMLELEMENT", "XMLELEMENT"),
    ("XMLFOREST", "XMLFOREST"),
    ("XMLPARSE", "XMLPARSE"),
    ("XMLSERIALIZE", "XMLSERIALIZE"),
];

/// Parts of ALTER TABLE.
const ALTERATIONS: &[&str] = &[
    "ATTACH PARTITION",
    "CLUSTER ON",
    "DETACH PARTITION",
    "INHERIT",
    "NO INHERIT",
    "SET COMPRESSION",
    "SET SCHEMA",
    "SET STATISTICS",
    "SET STORAGE",
    "SET TABLESPACE",
    "SET WITHOUT CLUSTER",
];

/// The name of what the tokens of a statement ask for that is known and not supported.
pub(super) fn feature(tokens: &[&TokenWithSpan]) -> Option<String> {
    let words: Vec<String> = tokens.iter().map(|token| word(&token.token)).collect();
    if let Some(found) = STATEMENTS.iter().find(|name| starts(&words, name)) {
        return Some((*found).to_owned());
    }
    for (verb, skipped) in [
        ("CREATE", &["OR REPLACE", "TEMP", "TEMPORARY"][..]),
        ("ALTER", &[]),
        ("DROP", &[]),
        ("COMMENT ON", &[]),
    ] {
        if !starts(&words, verb) {
            continue;
        }
        let mut rest = words.get(verb.split(' ').count()..).unwrap_or_default();
        for more in skipped {
            if starts(rest, more) {
                rest = rest.get(more.split(' ').count()..).unwrap_or_default();
            }
        }
        // The longest name fits best.
        let found = OBJECTS.iter().filter(|object| starts(rest, object)).max_by_key(|object| object.len());
        if let Some(object) = found {
            return Some(format!("{verb} {object}"));
        }
    }
    if starts(&words, "CREATE TABLE") && words.get(3).is_some_and(|word| word == "OF") {
        return Some("CREATE TABLE OF a type".to_owned());
    }
    if starts(&words, "ALTER TABLE") {
        let found = ALTERATIONS.iter().find(|name| contains(&words, name));
        return found.map(|name| format!("ALTER TABLE {name}"));
    }
    if starts(&words, "COPY") && contains(&words, "FORCE_QUOTE") {
        return Some("FORCE_QUOTE of all columns".to_owned());
    }
    if starts(&words, "COPY") && !starts(&words, "COPY (") && contains(&words, "WHERE") {
        return Some("COPY ... WHERE".to_owned());
    }
    for object in ["ALTER ROLE", "ALTER USER", "ALTER DATABASE"] {
        if starts(&words, object) && contains(&words, "SET") {
            return Some(format!("{object} ... SET"));
        }
    }
    if starts(&words, "ALTER SEQUENCE") {
        let found =
            ["SET SCHEMA", "SET LOGGED", "SET UNLOGGED"].into_iter().find(|name| contains(&words, name));
        return found.map(|name| format!("ALTER SEQUENCE {name}"));
    }
    if starts(&words, "ALTER INDEX IF EXISTS") {
        return Some("ALTER INDEX IF EXISTS".to_owned());
    }
    for statement in ["ANALYZE", "VACUUM"] {
        if starts(&words, statement) {
            let is_list = !words.iter().any(|word| word == "(") && words.iter().any(|word| word == ",");
            return Some(format!("{statement} of {}", if is_list { "several tables" } else { "this form" }));
        }
    }
    if !words.iter().any(|word| word == "FROM")
        && (contains(&words, "FOR UPDATE") || contains(&words, "FOR SHARE"))
    {
        return Some("locking of rows without FROM".to_owned());
    }
    let found = CLAUSES.iter().find(|(words_of, _)| contains(&words, words_of));
    found.map(|(_, name)| (*name).to_owned())
}

/// A word that is not quoted, in upper case; a sign; nothing of anything else.
fn word(token: &Token) -> String {
    match token {
        Token::Word(word) if word.quote_style.is_none() => word.value.to_uppercase(),
        Token::LParen | Token::Comma => token.to_string(),
        _ => String::new(),
    }
}

fn starts(words: &[String], name: &str) -> bool {
    let mut words = words.iter();
    name.split(' ').all(|part| words.next().is_some_and(|word| word == part))
}

fn contains(words: &[String], name: &str) -> bool {
    (0..words.len()).any(|at| words.get(at..).is_some_and(|rest| starts(rest, name)))
}
