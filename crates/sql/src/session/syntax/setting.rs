//! SET, RESET, SHOW and DISCARD.

use sqlparser::tokenizer::Token;

use super::words::Words;
use crate::error::SqlError;
use crate::session::settings::Scope;
use crate::session::statement::Statement;

impl Words<'_> {
    pub(super) fn set(&mut self) -> Result<Statement, SqlError> {
        if self.take_all(&["session", "characteristics", "as", "transaction"]) {
            return Ok(Statement::SetCharacteristics(self.modes()?));
        }
        let scope = if self.take("local") {
            Scope::Local
        } else {
            self.take("session");
            Scope::Session
        };
        if self.take("transaction") {
            if self.take("snapshot") {
                return Err(SqlError::not_supported("SET TRANSACTION SNAPSHOT is not supported"));
            }
            return Ok(Statement::SetTransaction(self.modes()?));
        }
        if self.take("constraints") {
            return self.set_constraints();
        }
        // Either word SESSION may have been taken.
        if self.take("authorization") || self.take_all(&["session", "authorization"]) {
            let value = self.values()?;
            return Ok(Statement::Set { scope, name: "session_authorization".to_owned(), value });
        }
        if self.take("role") {
            let is_generic = self.take_token(&Token::Eq) || self.take("to");
            let unexpected = self.unexpected();
            let value = self.values()?;
            if value.is_none() && !is_generic {
                return Err(unexpected);
            }
            return Ok(Statement::Set { scope, name: "role".to_owned(), value });
        }
        let name = if self.take_all(&["time", "zone"]) {
            let value = self.values()?;
            return Ok(Statement::Set { scope, name: "TimeZone".to_owned(), value });
        } else if self.take("names") {
            let value = if self.is_at_end() { None } else { self.values()? };
            return Ok(Statement::Set { scope, name: "client_encoding".to_owned(), value });
        } else {
            self.setting_name()?
        };
        if !self.take_token(&Token::Eq) {
            self.expect("to")?;
        }
        Ok(Statement::Set { scope, name, value: self.values()? })
    }

    fn set_constraints(&mut self) -> Result<Statement, SqlError> {
        let mut names = Vec::new();
        if !self.take("all") {
            loop {
                let name = self.name()?;
                names.push(if self.take_token(&Token::Period) {
                    (Some(name), self.name()?)
                } else {
                    (None, name)
                });
                if !self.take_token(&Token::Comma) {
                    break;
                }
            }
        }
        let names = (!names.is_empty()).then_some(names);
        let deferred = self.take("deferred");
        if !deferred {
            self.expect("immediate")?;
        }
        Ok(Statement::SetConstraints { names, deferred })
    }

    fn setting_name(&mut self) -> Result<String, SqlError> {
        let mut name = self.name()?;
        while self.take_token(&Token::Period) {
            name.push('.');
            name.push_str(&self.name()?);
        }
        Ok(name)
    }

    /// The value of a SET: words, strings and numbers, separated by commas; `None` for DEFAULT.
    pub(super) fn values(&mut self) -> Result<Option<String>, SqlError> {
        if self.take("default") {
            return Ok(None);
        }
        let mut values = Vec::new();
        loop {
            let negative = self.take_token(&Token::Minus);
            let value = match self.peek().map(|token| &token.token) {
                Some(Token::Number(digits, _)) => {
                    self.next += 1;
                    format!("{}{digits}", if negative { "-" } else { "" })
                }
                Some(Token::Word(_)) if !negative => self.name()?,
                _ if !negative => self.string().ok_or_else(|| self.unexpected())?,
                _ => return Err(self.unexpected()),
            };
            values.push(value);
            if !self.take_token(&Token::Comma) {
                return Ok(Some(values.join(", ")));
            }
        }
    }

    fn special_setting(&mut self) -> Option<String> {
        if self.take_all(&["time", "zone"]) {
            Some("TimeZone".to_owned())
        } else if self.take_all(&["transaction", "isolation", "level"]) {
            Some("transaction_isolation".to_owned())
        } else if self.take_all(&["session", "authorization"]) {
            Some("session_authorization".to_owned())
        } else {
            None
        }
    }

    pub(super) fn reset(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            return Ok(Statement::Reset(None));
        }
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(Statement::Reset(Some(name)))
    }

    pub(super) fn show(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            return Ok(Statement::Show(None));
        }
        let name = match self.special_setting() {
            Some(name) => name,
            None => self.setting_name()?,
        };
        Ok(Statement::Show(Some(name)))
    }

    pub(super) fn discard(&mut self) -> Result<Statement, SqlError> {
        if self.take("all") {
            Ok(Statement::DiscardAll)
        } else if self.take("plans") {
            Ok(Statement::Discard("DISCARD PLANS"))
        } else if self.take("sequences") {
            Ok(Statement::Discard("DISCARD SEQUENCES"))
        } else if self.take("temp") || self.take("temporary") {
            Ok(Statement::Discard("DISCARD TEMP"))
        } else {
            Err(self.unexpected())
        }
    }
}
