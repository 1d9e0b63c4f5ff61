//! `pg_get_keywords()`: the words of SQL, which drivers ask for when they connect.

use rustydb_types::datatype::DataType;
use rustydb_types::value::Value;

/// The function's name.
pub const FUNCTION: &str = "pg_get_keywords";

/// Its columns.
pub const COLUMNS: [(&str, DataType); 5] = [
    ("word", DataType::TEXT),
    ("catcode", DataType::CHAR),
    ("barelabel", DataType::BOOL),
    ("catdesc", DataType::TEXT),
    ("baredesc", DataType::TEXT),
];

/// Its rows, by word.
pub fn rows() -> impl Iterator<Item = [Value; 5]> {
    include_str!("data/pg_keywords.tsv").lines().filter_map(|line| {
        let mut fields = line.split('\t');
        let (word, category, label) = (fields.next()?, fields.next()?, fields.next()?);
        let meaning = match category {
            "U" => "unreserved",
            "C" => "unreserved (cannot be function or type name)",
            "T" => "reserved (can be function or type name)",
            _ => "reserved",
        };
        let is_label = label == "t";
        Some([
            Value::text(word),
            Value::text(category),
            Value::Bool(is_label),
            Value::text(meaning),
            Value::text(if is_label { "can be bare label" } else { "requires AS" }),
        ])
    })
}
