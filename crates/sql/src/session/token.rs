//! The name of a transaction by which its client can ask what became of it, on any node and at any later time.
//!
//! ```text
//!   r1.<database>.<incarnation>.<session>.<counter>.<since>.<check>       numbers in hexadecimal
//! ```
//!
//! `since` is a version from before the commit: by it, an outcome that was dropped is told from one that never was.
//! The check finds a token that was cut or mistyped, for which the answer would otherwise be "aborted".

use std::fmt;
use std::str::FromStr;

use rustydb_types::ids::{DatabaseId, Incarnation, Oid, RequestId, SessionId, Version};

/// What became of transactions, as a statement asks for it. A question is noted where an expression asks it, and
/// answered between two runs of the statement, because an expression cannot wait.
#[derive(Clone, Debug, Default)]
pub struct Questions {
    /// What is asked and not yet answered.
    pub open: Option<TransactionToken>,
    /// What is answered.
    pub answers: Vec<(TransactionToken, &'static str)>,
}

/// What the first part of every token is.
const FORM: &str = "r1";

/// Names a transaction that may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TransactionToken {
    /// The database.
    pub database: DatabaseId,
    /// The commit.
    pub request: RequestId,
    /// A version from before the commit.
    pub since: Version,
}

/// The text is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a transaction token")]
pub struct NoToken;

impl TransactionToken {
    fn fields(&self) -> [u64; 5] {
        [
            u64::from(self.database.get().get()),
            self.request.incarnation.get(),
            self.request.session.get(),
            self.request.counter,
            self.since.get(),
        ]
    }
}

/// FNV-1a.
fn check(text: &str) -> u32 {
    text.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

impl fmt::Display for TransactionToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [database, incarnation, session, counter, since] = self.fields();
        let text = format!("{FORM}.{database:x}.{incarnation:x}.{session:x}.{counter:x}.{since:x}");
        write!(f, "{text}.{:08x}", check(&text))
    }
}

impl FromStr for TransactionToken {
    type Err = NoToken;

    fn from_str(text: &str) -> Result<Self, NoToken> {
        let (body, sum) = text.rsplit_once('.').ok_or(NoToken)?;
        let mut parts = body.split('.');
        if parts.next() != Some(FORM) {
            return Err(NoToken);
        }
        let mut number = || {
            let part = parts.next().ok_or(NoToken)?;
            u64::from_str_radix(part, 16).map_err(|_| NoToken)
        };
        let database = u32::try_from(number()?).map_err(|_| NoToken)?;
        let request = RequestId {
            incarnation: Incarnation::new(number()?),
            session: SessionId::new(number()?),
            counter: number()?,
        };
        let since = Version::new(number()?);
        let token = Self { database: DatabaseId::new(Oid::new(database)), request, since };
        // Only one text stands for a token.
        if sum == format!("{:08x}", check(body)) && token.to_string() == text {
            Ok(token)
        } else {
            Err(NoToken)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_the_round_trip_and_a_damaged_one_does_not() {
        let token = TransactionToken {
            database: DatabaseId::new(Oid::new(16_384)),
            request: RequestId {
                incarnation: Incarnation::new(1 << 32 | 3),
                session: SessionId::new(77),
                counter: 5,
            },
            since: Version::new(u64::MAX),
        };
        let text = token.to_string();
        assert!(text.starts_with("r1.4000.100000003.4d.5.ffffffffffffffff."), "{text}");
        assert_eq!(text.parse(), Ok(token));
        for damaged in [
            "",
            "r1",
            &text[..text.len() - 1],
            &text.replace("4d", "4e"),
            &text.replace("r1", "r2"),
            &text.replace(".5.", ".05."),
        ] {
            assert_eq!(damaged.parse::<TransactionToken>(), Err(NoToken), "{damaged}");
        }
    }
}
