//! GRANT, REVOKE and ALTER DEFAULT PRIVILEGES.

use std::sync::Arc;

use sqlparser::tokenizer::Token;

use super::words::Words;
use crate::catalog::acl::AclKind;
use crate::error::{SqlError, SqlState};
use crate::parse::privilege::{GrantTarget, GranteeName, OwnedChange, PrivilegeChange};
use crate::session::statement::{Statement, SystemStatement};

impl Words<'_> {
    /// GRANT or REVOKE, whose word was taken.
    pub(super) fn grant(&mut self, is_grant: bool) -> Result<Statement, SqlError> {
        let option_for = !is_grant && self.take_all(&["grant", "option", "for"]);
        let admin_for = !is_grant && !option_for && self.take_all(&["admin", "option", "for"]);
        if admin_for || !self.names_objects() {
            return self.grant_roles(is_grant, admin_for);
        }
        let change = self.privileges(is_grant, option_for, |words| words.grant_target())?;
        if let GrantTarget::Objects(AclKind::Database, _) = change.target {
            return Ok(Statement::System(SystemStatement::ChangeDatabaseAcl { change }));
        }
        planned(&change)
    }

    /// ALTER DEFAULT PRIVILEGES, whose words were taken.
    pub(super) fn default_privileges(&mut self) -> Result<Statement, SqlError> {
        let (mut roles, mut schemas) = (None, None);
        loop {
            if self.take_all(&["for", "role"]) || self.take_all(&["for", "user"]) {
                roles = Some(self.grantees()?);
            } else if self.take_all(&["in", "schema"]) {
                schemas = Some(self.names()?);
            } else {
                break;
            }
        }
        let is_grant = self.take("grant");
        if !is_grant {
            self.expect("revoke")?;
        }
        let option_for = !is_grant && self.take_all(&["grant", "option", "for"]);
        let change = self.privileges(is_grant, option_for, |words| {
            let kinds = [
                ("tables", AclKind::Table),
                ("sequences", AclKind::Sequence),
                ("functions", AclKind::Function),
                ("routines", AclKind::Function),
                ("types", AclKind::Type),
                ("schemas", AclKind::Schema),
            ];
            for (word, kind) in kinds {
                if words.take(word) {
                    return Ok(GrantTarget::Defaults(kind, roles.clone(), schemas.clone()));
                }
            }
            Err(words.unexpected())
        })?;
        planned(&change)
    }

    /// REASSIGN OWNED or DROP OWNED, whose words were taken.
    pub(super) fn owned(&mut self, reassigns: bool) -> Result<Statement, SqlError> {
        self.expect("by")?;
        let roles = self.grantees()?;
        let mut change = OwnedChange { roles, to: None, cascade: false };
        if reassigns {
            self.expect("to")?;
            change.to = self.grantees()?.into_iter().next();
        } else {
            change.cascade = self.behavior();
        }
        let statement = change.to_statement();
        let statement = statement.ok_or_else(|| SqlError::internal("a change of owners has no form"))?;
        Ok(Statement::Plan(Arc::new(statement)))
    }

    /// Whether ON stands before TO or FROM: then privileges are meant, and else roles.
    fn names_objects(&self) -> bool {
        let rest = self.tokens.get(self.next..).unwrap_or_default();
        let word = |token: &&&sqlparser::tokenizer::TokenWithSpan| match &token.token {
            Token::Word(word) if word.quote_style.is_none() => {
                ["on", "to", "from"].iter().any(|known| word.value.eq_ignore_ascii_case(known))
            }
            _ => false,
        };
        let first = rest.iter().find(word).map(|token| token.token.to_string().to_lowercase());
        first.as_deref() == Some("on")
    }

    fn names(&mut self) -> Result<Vec<String>, SqlError> {
        let mut names = vec![self.name()?];
        while self.take_token(&Token::Comma) {
            names.push(self.name()?);
        }
        Ok(names)
    }

    pub(super) fn grantees(&mut self) -> Result<Vec<GranteeName>, SqlError> {
        let mut grantees = Vec::new();
        loop {
            let _group = self.take("group");
            let is_quoted = matches!(self.peek().map(|token| &token.token),
                Some(Token::Word(word)) if word.quote_style.is_some());
            let name = self.name()?;
            grantees.push(match name.as_str() {
                "public" if !is_quoted => GranteeName::Public,
                "current_user" | "current_role" | "session_user" if !is_quoted => GranteeName::Current,
                _ => GranteeName::Role(name),
            });
            if !self.take_token(&Token::Comma) {
                return Ok(grantees);
            }
        }
    }

    fn behavior(&mut self) -> bool {
        let cascade = self.take("cascade");
        let _restrict = !cascade && self.take("restrict");
        cascade
    }

    fn grant_roles(&mut self, is_grant: bool, admin_for: bool) -> Result<Statement, SqlError> {
        let roles = self.names()?;
        self.expect(if is_grant { "to" } else { "from" })?;
        let members = self.grantees()?;
        let admin = is_grant && self.take_all(&["with", "admin", "option"]);
        if self.take_all(&["granted", "by"]) {
            let _grantor = self.name()?;
        }
        let _cascade = !is_grant && self.behavior();
        Ok(Statement::System(if is_grant {
            SystemStatement::GrantRoles { roles, members, admin }
        } else {
            SystemStatement::RevokeRoles { roles, members, admin_only: admin_for }
        }))
    }

    fn privileges(
        &mut self,
        is_grant: bool,
        option_for: bool,
        target: impl FnOnce(&mut Self) -> Result<GrantTarget, SqlError>,
    ) -> Result<PrivilegeChange, SqlError> {
        let mut privileges = Vec::new();
        loop {
            let name = self.name()?;
            if name == "all" {
                let _word = self.take("privileges");
            }
            let mut columns = Vec::new();
            if self.take_token(&Token::LParen) {
                columns = self.names()?;
                if !self.take_token(&Token::RParen) {
                    return Err(self.unexpected());
                }
            }
            privileges.push((name, columns));
            if !self.take_token(&Token::Comma) {
                break;
            }
        }
        self.expect("on")?;
        let target = target(self)?;
        self.expect(if is_grant { "to" } else { "from" })?;
        let grantees = self.grantees()?;
        let with_option = is_grant && self.take_all(&["with", "grant", "option"]);
        if self.take_all(&["granted", "by"]) {
            let _grantor = self.name()?;
        }
        let cascade = !is_grant && self.behavior();
        let option = option_for || with_option;
        Ok(PrivilegeChange { is_grant, privileges, target, grantees, option, cascade })
    }

    fn grant_target(&mut self) -> Result<GrantTarget, SqlError> {
        if self.take("all") {
            let kinds = [
                ("tables", AclKind::Table),
                ("sequences", AclKind::Sequence),
                ("functions", AclKind::Function),
                ("procedures", AclKind::Function),
                ("routines", AclKind::Function),
            ];
            for (word, kind) in kinds {
                if self.take_all(&[word, "in", "schema"]) {
                    return Ok(GrantTarget::AllIn(kind, self.names()?));
                }
            }
            return Err(self.unexpected());
        }
        for word in ["function", "procedure", "routine", "language", "tablespace", "parameter", "foreign"] {
            if self.take(word) {
                let message = format!("privileges on a {word} are not supported");
                return Err(SqlError::new(SqlState::FEATURE_NOT_SUPPORTED, message));
            }
        }
        let kinds = [
            ("sequence", AclKind::Sequence),
            ("database", AclKind::Database),
            ("schema", AclKind::Schema),
            ("domain", AclKind::Type),
            ("type", AclKind::Type),
            ("table", AclKind::Table),
        ];
        let kind =
            kinds.into_iter().find(|(word, _)| self.take(word)).map_or(AclKind::Table, |(_, kind)| kind);
        let mut objects = Vec::new();
        loop {
            let name = self.name()?;
            objects.push(if self.take_token(&Token::Period) {
                (Some(name), self.name()?)
            } else {
                (None, name)
            });
            if !self.take_token(&Token::Comma) {
                return Ok(GrantTarget::Objects(kind, objects));
            }
        }
    }
}

fn planned(change: &PrivilegeChange) -> Result<Statement, SqlError> {
    let statement = change.to_statement();
    let statement = statement.ok_or_else(|| SqlError::internal("a change of privileges has no form"))?;
    Ok(Statement::Plan(Arc::new(statement)))
}
