//! Why a command failed, and how that is said.

use serde::Serialize;
use serde_json::{Value, json};
use tonic::{Code, Status};

use crate::output::Form;

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CliError {
    /// The command line or a file that it names is wrong.
    Usage(String),
    /// No node answered; each address with its reason.
    Unreachable(String),
    /// A node answered, and the answer is no.
    Refused(String),
    /// What was waited for did not happen in time.
    TimedOut(String),
    /// The server refused a statement or a login.
    Sql(Box<SqlFailure>),
    /// Statements of a script failed; each was told when it did.
    Script {
        /// How many.
        failed: u64,
    },
}

/// What a server says about a failure, in PostgreSQL's terms.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct SqlFailure {
    pub(crate) severity: String,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
    /// Where in the text of the statements, in characters from 1.
    pub(crate) position: Option<u64>,
}

impl CliError {
    pub(crate) fn exit_code(&self) -> u8 {
        match self {
            CliError::Refused(_) | CliError::TimedOut(_) | CliError::Sql(_) | CliError::Script { .. } => 1,
            CliError::Usage(_) => 2,
            CliError::Unreachable(_) => 3,
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            CliError::Usage(_) => "usage",
            CliError::Unreachable(_) => "unreachable",
            CliError::Refused(_) => "refused",
            CliError::TimedOut(_) => "timed_out",
            CliError::Sql(_) | CliError::Script { .. } => "sql",
        }
    }

    /// `{"error": {"kind", "message"}}`, of SQL with `severity`, `sqlstate`, and what the server said of `detail`,
    /// `hint` and `position`.
    pub(crate) fn as_json(&self) -> Value {
        let mut error = json!({ "kind": self.kind() });
        if let CliError::Sql(failure) = self {
            error["severity"] = json!(failure.severity);
            error["sqlstate"] = json!(failure.sqlstate);
            error["message"] = json!(failure.message);
            for (name, more) in [("detail", &failure.detail), ("hint", &failure.hint)] {
                if let Some(more) = more {
                    error[name] = json!(more);
                }
            }
            if let Some(position) = failure.position {
                error["position"] = json!(position);
            }
        } else {
            error["message"] = json!(self.to_string());
        }
        json!({ "error": error })
    }

    /// Says it on standard error: for people, or as one line of JSON.
    pub(crate) fn report(&self, form: Form) {
        match form {
            Form::Json => eprintln!("{}", self.as_json()),
            Form::Table => eprintln!("rustydb-cli: {self}"),
        }
    }
}

impl std::fmt::Display for CliError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CliError::Usage(text)
            | CliError::Unreachable(text)
            | CliError::Refused(text)
            | CliError::TimedOut(text) => f.write_str(text),
            CliError::Sql(failure) => write!(f, "{failure}"),
            CliError::Script { failed: 1 } => f.write_str("1 statement failed"),
            CliError::Script { failed } => write!(f, "{failed} statements failed"),
        }
    }
}

impl std::fmt::Display for SqlFailure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {} (SQLSTATE {})", self.severity, self.message, self.sqlstate)?;
        for (name, more) in [("DETAIL", &self.detail), ("HINT", &self.hint)] {
            if let Some(more) = more {
                write!(f, "\n{name}: {more}")?;
            }
        }
        Ok(())
    }
}

impl From<Status> for CliError {
    fn from(status: Status) -> CliError {
        let text = status.message().to_owned();
        match status.code() {
            // With a source the connection failed; without one a node that was reached says that another is not.
            Code::Unavailable if std::error::Error::source(&status).is_some() => CliError::Unreachable(text),
            Code::DeadlineExceeded => CliError::TimedOut(text),
            _ => CliError::Refused(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_object_for_programs() {
        let failure = SqlFailure {
            severity: "ERROR".to_owned(),
            sqlstate: "42703".to_owned(),
            message: "column \"nothing\" does not exist".to_owned(),
            hint: Some("look again".to_owned()),
            position: Some(8),
            ..SqlFailure::default()
        };
        let expected = json!({ "error": {
            "kind": "sql", "severity": "ERROR", "sqlstate": "42703", "message": "column \"nothing\" does not exist",
            "hint": "look again", "position": 8,
        } });
        assert_eq!(CliError::Sql(Box::new(failure)).as_json(), expected);
        let expected = json!({ "error": { "kind": "timed_out", "message": "late" } });
        assert_eq!(CliError::TimedOut("late".to_owned()).as_json(), expected);
    }
}
