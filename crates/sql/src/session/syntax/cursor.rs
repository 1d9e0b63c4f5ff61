//! DECLARE, FETCH, MOVE and CLOSE.

use std::sync::Arc;

use sqlparser::ast::{self, SetExpr};
use sqlparser::dialect::PostgreSqlDialect;
use sqlparser::tokenizer::{Token, TokenWithSpan};

use super::text::plan_statement;
use super::words::Words;
use crate::error::{SqlError, SqlState};
use crate::session::statement::{Declaration, Motion, Statement};

impl Words<'_> {
    pub(super) fn declare(&mut self, dialect: &PostgreSqlDialect) -> Result<Statement, SqlError> {
        let name = self.name()?;
        let (mut is_binary, mut is_scroll, mut is_no_scroll) = (false, false, false);
        loop {
            if self.take("binary") {
                is_binary = true;
            } else if self.take_all(&["no", "scroll"]) {
                is_no_scroll = true;
            } else if self.take("scroll") {
                is_scroll = true;
            } else if !self.take("insensitive") && !self.take("asensitive") {
                break;
            }
        }
        self.expect("cursor")?;
        let is_holdable = if self.take_all(&["with", "hold"]) {
            true
        } else {
            self.take_all(&["without", "hold"]);
            false
        };
        self.expect("for")?;
        if is_scroll && is_no_scroll {
            return Err(SqlError::new(
                SqlState::INVALID_CURSOR_DEFINITION,
                "cannot specify both SCROLL and NO SCROLL",
            ));
        }
        let rest: Vec<TokenWithSpan> =
            self.tokens.get(self.next..).unwrap_or_default().iter().map(|token| (*token).clone()).collect();
        if rest.is_empty() {
            return Err(self.unexpected());
        }
        let first = self.next;
        let query = plan_statement(self.sql, rest, dialect)?;
        let ast::Statement::Query(inner) = &query else {
            self.next = first;
            return Err(self.unexpected());
        };
        if matches!(*inner.body, SetExpr::Insert(_) | SetExpr::Update(_) | SetExpr::Delete(_)) {
            return Err(SqlError::not_supported("DECLARE CURSOR must not contain data-modifying statements"));
        }
        if !inner.locks.is_empty() && (is_scroll || is_holdable) {
            let which = if is_holdable { "DECLARE CURSOR WITH HOLD" } else { "DECLARE SCROLL CURSOR" };
            return Err(SqlError::not_supported(format!("{which} ... FOR UPDATE is not supported"))
                .with_detail(if is_holdable {
                    "Holdable cursors must be READ ONLY."
                } else {
                    "Scrollable cursors must be READ ONLY."
                }));
        }
        self.next = self.tokens.len();
        let query = Arc::new(query);
        Ok(Statement::Declare(Arc::new(Declaration { name, is_binary, is_scroll, is_holdable, query })))
    }

    /// FETCH or MOVE.
    pub(super) fn fetch(&mut self, is_move: bool) -> Result<Statement, SqlError> {
        let motion = self.motion()?;
        let _preposition = self.take("from") || self.take("in");
        Ok(Statement::Fetch { name: self.name()?, motion, is_move })
    }

    fn motion(&mut self) -> Result<Motion, SqlError> {
        let start = self.next;
        let motion = if self.take("next") {
            Motion::Forward(1)
        } else if self.take("prior") {
            Motion::Forward(-1)
        } else if self.take("first") {
            Motion::Absolute(1)
        } else if self.take("last") {
            Motion::Absolute(-1)
        } else if self.take("absolute") {
            Motion::Absolute(i64::from(self.integer()?))
        } else if self.take("relative") {
            Motion::Relative(i64::from(self.integer()?))
        } else if self.take("all") {
            Motion::ForwardAll
        } else if self.take("forward") {
            self.count(Motion::ForwardAll, 1)?
        } else if self.take("backward") {
            self.count(Motion::BackwardAll, -1)?
        } else {
            self.count(Motion::ForwardAll, 1)?
        };
        // A cursor may bear one of these words as its name.
        if self.is_at_end() && self.next > start {
            self.next = start;
            return Ok(Motion::Forward(1));
        }
        Ok(motion)
    }

    /// A number of rows, ALL, or nothing for one row.
    fn count(&mut self, all: Motion, sign: i64) -> Result<Motion, SqlError> {
        if self.take("all") {
            return Ok(all);
        }
        let is_number = matches!(
            self.peek().map(|token| &token.token),
            Some(Token::Number(..) | Token::Minus | Token::Plus)
        );
        self.take_token(&Token::Plus);
        let count = if is_number { i64::from(self.integer()?) } else { 1 };
        Ok(Motion::Forward(sign * count))
    }
}
