//! The statements that the session runs itself, told by their first word; transaction control among them.

use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::keywords::Keyword;
use sqlparser::tokenizer::Token;

use super::words::Words;
use crate::error::SqlError;
use crate::session::notify::Listening;
use crate::session::statement::{Chain, Isolation, Modes, Statement};

impl Words<'_> {
    /// The statements that the session runs itself; `None` leaves it to the planner.
    pub(super) fn utility(&mut self, dialect: &PostgreSqlDialect) -> Result<Option<Statement>, SqlError> {
        let Some(Token::Word(first)) = self.peek().map(|token| &token.token) else { return Ok(None) };
        if first.quote_style.is_some() {
            return Ok(None);
        }
        let start = self.next;
        let statement = match first.keyword {
            Keyword::BEGIN => {
                self.next += 1;
                self.optional_transaction_word();
                Some(Statement::Begin { modes: self.modes()?, tag: "BEGIN" })
            }
            Keyword::START => {
                self.next += 1;
                self.expect("transaction")?;
                Some(Statement::Begin { modes: self.modes()?, tag: "START TRANSACTION" })
            }
            Keyword::COMMIT | Keyword::END => {
                self.next += 1;
                if self.take("prepared") {
                    return Err(SqlError::not_supported("two-phase commit is not supported"));
                }
                self.optional_transaction_word();
                Some(Statement::Commit(self.chain()?))
            }
            Keyword::ROLLBACK | Keyword::ABORT => {
                self.next += 1;
                if self.take("prepared") {
                    return Err(SqlError::not_supported("two-phase commit is not supported"));
                }
                self.optional_transaction_word();
                if self.take("to") {
                    self.take("savepoint");
                    Some(Statement::RollbackTo(self.name()?))
                } else {
                    Some(Statement::Rollback(self.chain()?))
                }
            }
            Keyword::SAVEPOINT => {
                self.next += 1;
                Some(Statement::Savepoint(self.name()?))
            }
            Keyword::RELEASE => {
                self.next += 1;
                self.take("savepoint");
                Some(Statement::Release(self.name()?))
            }
            Keyword::SET => {
                self.next += 1;
                Some(self.set()?)
            }
            Keyword::RESET => {
                self.next += 1;
                Some(self.reset()?)
            }
            Keyword::SHOW => {
                self.next += 1;
                Some(self.show()?)
            }
            Keyword::DISCARD => {
                self.next += 1;
                Some(self.discard()?)
            }
            Keyword::DEALLOCATE => {
                self.next += 1;
                self.take("prepare");
                let name = if self.take("all") { None } else { Some(self.name()?) };
                Some(Statement::Deallocate(name))
            }
            Keyword::PREPARE => {
                self.next += 1;
                Some(self.prepare(dialect)?)
            }
            Keyword::EXECUTE => {
                self.next += 1;
                Some(self.execute()?)
            }
            Keyword::DECLARE => {
                self.next += 1;
                Some(self.declare(dialect)?)
            }
            Keyword::FETCH => {
                self.next += 1;
                Some(self.fetch(false)?)
            }
            _ if self.take("unlisten") => {
                let all = self.take_token(&Token::Mul);
                Some(Statement::Listen(if all { Listening::AllOff } else { Listening::Off(self.name()?) }))
            }
            _ if self.take("listen") => Some(Statement::Listen(Listening::On(self.name()?))),
            _ if self.take("notify") => {
                let channel = self.name()?;
                let payload = if self.take_token(&Token::Comma) {
                    self.string().ok_or_else(|| self.unexpected())?
                } else {
                    String::new()
                };
                Some(Statement::Notify { channel, payload })
            }
            _ if self.take("move") => Some(self.fetch(true)?),
            Keyword::CLOSE => {
                self.next += 1;
                Some(Statement::CloseCursor(if self.take("all") { None } else { Some(self.name()?) }))
            }
            Keyword::GRANT => {
                self.next += 1;
                Some(self.grant(true)?)
            }
            Keyword::REVOKE => {
                self.next += 1;
                Some(self.grant(false)?)
            }
            Keyword::DROP if self.take_all(&["drop", "owned"]) => Some(self.owned(false)?),
            _ if self.take_all(&["reassign", "owned"]) => Some(self.owned(true)?),
            Keyword::ALTER if self.take_all(&["alter", "default", "privileges"]) => {
                Some(self.default_privileges()?)
            }
            Keyword::CREATE | Keyword::ALTER | Keyword::DROP => self.system()?.map(Statement::System),
            _ => None,
        };
        if statement.is_none() {
            self.next = start;
        }
        Ok(statement)
    }

    fn optional_transaction_word(&mut self) {
        let _found = self.take("work") || self.take("transaction");
    }

    pub(super) fn chain(&mut self) -> Result<Chain, SqlError> {
        if !self.take("and") {
            return Ok(Chain::NoChain);
        }
        let chain = if self.take("no") { Chain::NoChain } else { Chain::Chain };
        self.expect("chain")?;
        Ok(chain)
    }

    pub(super) fn modes(&mut self) -> Result<Modes, SqlError> {
        let mut modes = Modes::default();
        while !self.is_at_end() {
            if self.take_all(&["isolation", "level"]) {
                modes.isolation = Some(self.isolation()?);
            } else if self.take_all(&["read", "only"]) {
                modes.read_only = Some(true);
            } else if self.take_all(&["read", "write"]) {
                modes.read_only = Some(false);
            } else if self.take_all(&["not", "deferrable"]) {
                modes.deferrable = Some(false);
            } else if self.take("deferrable") {
                modes.deferrable = Some(true);
            } else {
                return Err(self.unexpected());
            }
            self.take_token(&Token::Comma);
        }
        Ok(modes)
    }

    pub(super) fn isolation(&mut self) -> Result<Isolation, SqlError> {
        if self.take("serializable") {
            Ok(Isolation::Serializable)
        } else if self.take_all(&["repeatable", "read"]) {
            Ok(Isolation::RepeatableRead)
        } else if self.take_all(&["read", "committed"]) || self.take_all(&["read", "uncommitted"]) {
            Ok(Isolation::ReadCommitted)
        } else {
            Err(self.unexpected())
        }
    }
}
