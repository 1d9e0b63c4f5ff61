//! `query`: statements in, tables or JSON out, over the Postgres wire.

use serde::Serialize;
use serde_json::Value;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage};

use crate::Login;
use crate::client::{Addresses, CliError, split_address};
use crate::output::{self, Form};
use crate::tls::Tls;

/// Connects to the first node that answers and takes the login.
pub(crate) async fn connect(addresses: &Addresses, login: &Login) -> Result<Client, CliError> {
    let (_, status) = addresses.first().await?;
    let (host, port) = split_address(&status.postgres_address, None)?;
    let mut config = Config::new();
    config
        .host(host.trim_matches(|c| c == '[' || c == ']'))
        .port(port)
        .user(&login.user)
        .dbname(&login.database)
        .application_name("rustydb-cli")
        .connect_timeout(addresses.timeout());
    if let Some(password) = &login.password {
        config.password(password);
    }
    let Some(authority) = &login.tls_ca else {
        let (client, connection) = config.connect(NoTls).await.map_err(|error| refused(&error))?;
        tokio::spawn(ended(connection));
        return Ok(client);
    };
    config.ssl_mode(SslMode::Require);
    let tls = Tls::of_authority(authority)?;
    let (client, connection) = config.connect(tls).await.map_err(|error| refused(&error))?;
    tokio::spawn(ended(connection));
    Ok(client)
}

/// The connection ends with the client; its error reaches the statement that waits for it.
async fn ended(connection: impl Future<Output = Result<(), tokio_postgres::Error>>) {
    let _ = connection.await;
}

/// One statement's outcome.
#[derive(Debug, Default, Serialize)]
pub(crate) struct StatementResult {
    pub(crate) columns: Vec<String>,
    pub(crate) rows: Vec<Vec<Option<String>>>,
    /// Rows returned or changed.
    pub(crate) count: u64,
}

pub(crate) async fn execute(client: &Client, sql: &str) -> Result<Vec<StatementResult>, CliError> {
    let messages = client.simple_query(sql).await.map_err(|error| refused(&error))?;
    let mut results = Vec::new();
    let mut current = StatementResult::default();
    for message in messages {
        match message {
            SimpleQueryMessage::RowDescription(columns) => {
                current.columns = columns.iter().map(|column| column.name().to_owned()).collect();
            }
            SimpleQueryMessage::Row(row) => {
                current.rows.push((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect());
            }
            SimpleQueryMessage::CommandComplete(count) => {
                current.count = count;
                results.push(std::mem::take(&mut current));
            }
            _ => {}
        }
    }
    Ok(results)
}

/// What the server said, in PostgreSQL's form with its SQLSTATE.
fn refused(error: &tokio_postgres::Error) -> CliError {
    let Some(db) = error.as_db_error() else {
        let cause = std::error::Error::source(error).map(|source| format!(": {source}")).unwrap_or_default();
        return CliError::Refused(format!("{error}{cause}"));
    };
    let mut text = format!("{}: {} (SQLSTATE {})", db.severity(), db.message(), db.code().code());
    for (name, more) in [("DETAIL", db.detail()), ("HINT", db.hint())] {
        if let Some(more) = more {
            text.push_str(&format!("\n{name}: {more}"));
        }
    }
    CliError::Refused(text)
}

pub(crate) fn print(form: Form, results: &[StatementResult]) {
    match form {
        Form::Json => output::json(&results.iter().map(as_json).collect::<Vec<Value>>()),
        Form::Table => results.iter().for_each(print_table),
    }
}

/// Columns, and rows as lists of their values in PostgreSQL's text form, since columns may share a name; a statement
/// that returns none is its count.
fn as_json(result: &StatementResult) -> Value {
    if result.columns.is_empty() {
        return serde_json::json!({ "count": result.count });
    }
    serde_json::json!({ "columns": result.columns, "rows": result.rows })
}

fn print_table(result: &StatementResult) {
    if result.columns.is_empty() {
        output::line(&format!("done, {} rows", result.count));
        return;
    }
    let heading: Vec<&str> = result.columns.iter().map(String::as_str).collect();
    let row = |row: &Vec<Option<String>>| row.iter().map(|cell| cell.clone().unwrap_or_default()).collect();
    output::table(&heading, result.rows.iter().map(row).collect());
    output::line(&format!("({} row{})", result.rows.len(), if result.rows.len() == 1 { "" } else { "s" }));
}

pub(crate) async fn run(addresses: &Addresses, form: Form, login: &Login, sql: &str) -> Result<(), CliError> {
    let client = connect(addresses, login).await?;
    let results = execute(&client, sql).await?;
    print(form, &results);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_may_share_a_name_and_null_stays_null() {
        let result = StatementResult {
            columns: vec!["id".to_owned(), "id".to_owned()],
            rows: vec![vec![Some("1".to_owned()), None]],
            count: 1,
        };
        let expected = serde_json::json!({ "columns": ["id", "id"], "rows": [["1", null]] });
        assert_eq!(as_json(&result), expected);
        let changed = StatementResult { count: 3, ..StatementResult::default() };
        assert_eq!(as_json(&changed), serde_json::json!({ "count": 3 }));
    }
}
