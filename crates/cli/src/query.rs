//! `query`: statements in, tables or JSON out, over the Postgres wire.

use std::io::{Read as _, Write as _};

use serde_json::{Value, json};

use crate::Login;
use crate::client::{Addresses, split_address};
use crate::error::CliError;
use crate::output::{self, Form};
use crate::wire::{Column, Event, Session};

/// Size of the pieces in which standard input goes to the server.
const COPY_PIECE_SIZE_BYTES: usize = 64 * 1024;

/// Connects to the first node that answers and takes the login.
pub(crate) async fn connect(addresses: &Addresses, login: &Login) -> Result<Session, CliError> {
    let (_, status) = addresses.first().await?;
    let (host, port) = split_address(&status.postgres_address, None)?;
    let host = host.trim_matches(|c| c == '[' || c == ']');
    Session::connect(host, port, login, addresses.timeout()).await
}

/// Where COPY FROM STDIN takes its rows from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CopySource {
    /// Standard input, to its end.
    Input,
    /// Nowhere: standard input has the statements.
    None,
}

/// One statement's outcome.
#[derive(Debug, Default)]
struct StatementResult {
    /// What its rows have; nothing when it returns none.
    columns: Option<Vec<Column>>,
    rows: Vec<Vec<Option<String>>>,
    /// What COPY TO STDOUT gave.
    copied: Option<Vec<u8>>,
    /// The command tag, such as `INSERT 0 1`.
    tag: String,
}

/// Runs statements and prints the outcome of each, also of those before one that fails.
///
/// # Errors
/// The first failure; statements after it did not run.
pub(crate) async fn execute(
    session: &mut Session,
    form: Form,
    sql: &str,
    source: CopySource,
) -> Result<(), CliError> {
    let mut documents = Vec::new();
    let outcome = match session.query(sql).await {
        Ok(()) => read(session, form, source, &mut documents).await,
        Err(error) => Err(error),
    };
    if form == Form::Json {
        output::json(&documents);
    }
    outcome
}

async fn read(
    session: &mut Session,
    form: Form,
    source: CopySource,
    documents: &mut Vec<Value>,
) -> Result<(), CliError> {
    let mut current = StatementResult::default();
    while let Some(event) = session.next().await? {
        match event {
            Event::Columns(columns) => current.columns = Some(columns),
            Event::Row(row) => current.rows.push(row),
            Event::CopyOut(data) if form == Form::Table => {
                current.copied = Some(Vec::new());
                output::raw(&data);
            }
            Event::CopyOut(data) => current.copied.get_or_insert_default().extend_from_slice(&data),
            Event::CopyIn => copy_in(session, source).await?,
            Event::Notice(notice) if form == Form::Table => {
                eprintln!("{}: {}", notice.severity, notice.message);
            }
            Event::Notice(_) => {}
            Event::Complete(tag) => {
                let result = StatementResult { tag, ..std::mem::take(&mut current) };
                match form {
                    Form::Json => documents.push(as_json(&result)),
                    Form::Table => print_table(&result),
                }
            }
        }
    }
    Ok(())
}

async fn copy_in(session: &mut Session, source: CopySource) -> Result<(), CliError> {
    if source == CopySource::None {
        let reason = "COPY FROM STDIN is for `rustydb-cli query`, which has the rows on its standard input";
        return session.end_copy(Some(reason)).await;
    }
    let mut input = std::io::stdin().lock();
    let mut piece = vec![0; COPY_PIECE_SIZE_BYTES];
    loop {
        match input.read(&mut piece) {
            Ok(0) => return session.end_copy(None).await,
            Ok(count) => session.copy(piece.get(..count).unwrap_or_default()).await?,
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return session.end_copy(Some(&format!("standard input: {error}"))).await,
        }
    }
}

/// A statement is its `tag`; with rows also `columns` and `rows`, a row being the list of its values since columns may
/// share a name; without rows `count`, what it changed; of COPY TO STDOUT `copy`, its text.
fn as_json(result: &StatementResult) -> Value {
    let mut document = json!({ "tag": result.tag });
    if let Some(columns) = &result.columns {
        let value = |(cell, column): (&Option<String>, &Column)| value(cell.as_deref(), column.type_oid);
        let row = |row: &Vec<Option<String>>| row.iter().zip(columns).map(value).collect::<Vec<Value>>();
        document["columns"] = columns.iter().map(|column| column.name.as_str()).collect();
        document["rows"] = result.rows.iter().map(row).collect();
    } else {
        let count = result.tag.rsplit(' ').next().and_then(|count| count.parse::<u64>().ok());
        document["count"] = json!(count.unwrap_or(0));
    }
    if let Some(copied) = &result.copied {
        document["copy"] = json!(String::from_utf8_lossy(copied));
    }
    document
}

/// Integers, finite floats and booleans are JSON's own; everything else is PostgreSQL's text form, `numeric` among it,
/// whose digits a JSON reader might round.
fn value(text: Option<&str>, type_oid: u32) -> Value {
    const BOOL: u32 = 16;
    const INTEGERS: [u32; 4] = [20, 21, 23, 26];
    const FLOATS: [u32; 2] = [700, 701];
    let Some(text) = text else { return Value::Null };
    let own = match type_oid {
        BOOL => Some(json!(text == "t")),
        oid if INTEGERS.contains(&oid) => text.parse::<i64>().ok().map(Value::from),
        oid if FLOATS.contains(&oid) => {
            text.parse::<f64>().ok().and_then(serde_json::Number::from_f64).map(Value::Number)
        }
        _ => None,
    };
    own.unwrap_or_else(|| json!(text))
}

/// As psql does: rows and their count, else the command tag. The data of a COPY stands for itself.
fn print_table(result: &StatementResult) {
    let changes = ["INSERT", "UPDATE", "DELETE"].iter().any(|word| result.tag.starts_with(word));
    if let Some(columns) = &result.columns {
        let heading: Vec<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let row =
            |row: &Vec<Option<String>>| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect();
        output::table(&heading, result.rows.iter().map(row).collect());
        output::line(&format!(
            "({} row{})",
            result.rows.len(),
            if result.rows.len() == 1 { "" } else { "s" }
        ));
    }
    if (result.columns.is_none() && result.copied.is_none()) || changes {
        output::line(&result.tag);
    }
}

pub(crate) async fn run(addresses: &Addresses, form: Form, login: &Login, sql: &str) -> Result<(), CliError> {
    let mut session = connect(addresses, login).await?;
    let outcome = execute(&mut session, form, sql, CopySource::Input).await;
    // What was printed stands before the error, also when both go to one place.
    let _ = std::io::stdout().flush();
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    fn column(name: &str, type_oid: u32) -> Column {
        Column { name: name.to_owned(), type_oid }
    }

    #[test]
    fn columns_may_share_a_name_and_values_are_of_their_type() {
        let result = StatementResult {
            columns: Some(vec![column("id", 23), column("id", 16), column("n", 1700), column("f", 701)]),
            rows: vec![
                vec![Some("1".to_owned()), Some("t".to_owned()), Some("1.50".to_owned()), None],
                vec![None, Some("f".to_owned()), None, Some("0.25".to_owned())],
                vec![None, None, None, Some("NaN".to_owned())],
            ],
            tag: "SELECT 3".to_owned(),
            ..StatementResult::default()
        };
        let expected = json!({
            "tag": "SELECT 3",
            "columns": ["id", "id", "n", "f"],
            "rows": [[1, true, "1.50", null], [null, false, null, 0.25], [null, null, null, "NaN"]],
        });
        assert_eq!(as_json(&result), expected);
    }

    #[test]
    fn a_statement_without_rows_is_its_tag_and_count() {
        let of = |tag: &str| as_json(&StatementResult { tag: tag.to_owned(), ..StatementResult::default() });
        assert_eq!(of("INSERT 0 3"), json!({ "tag": "INSERT 0 3", "count": 3 }));
        assert_eq!(of("CREATE TABLE"), json!({ "tag": "CREATE TABLE", "count": 0 }));
    }
}
