//! Statements of the cluster: databases and roles.

use sqlparser::tokenizer::Token;

use super::words::Words;
use crate::error::{SqlError, SqlState};
use crate::session::statement::{Password, SystemStatement};
use crate::system::RoleChange;

impl Words<'_> {
    pub(super) fn system(&mut self) -> Result<Option<SystemStatement>, SqlError> {
        if self.take_all(&["create", "database"]) {
            return self.create_database().map(Some);
        }
        if self.take_all(&["drop", "database"]) {
            let if_exists = self.take_all(&["if", "exists"]);
            let name = self.name()?;
            self.take("with");
            if self.take_token(&Token::LParen) {
                self.expect("force")?;
                if !self.take_token(&Token::RParen) {
                    return Err(self.unexpected());
                }
            }
            return Ok(Some(SystemStatement::DropDatabase { name, if_exists }));
        }
        if self.take_all(&["alter", "database"]) {
            let name = self.name()?;
            if self.take_all(&["owner", "to"]) {
                let owner = self.grantees()?.into_iter().next();
                let owner = owner.ok_or_else(|| self.unexpected())?;
                return Ok(Some(SystemStatement::ChangeDatabaseOwner { name, owner }));
            }
            if !self.take_all(&["rename", "to"]) {
                return Err(SqlError::not_supported(
                    "only ALTER DATABASE .. RENAME TO and OWNER TO are supported",
                ));
            }
            return Ok(Some(SystemStatement::RenameDatabase { name, to: self.name()? }));
        }
        for (kind, login) in [("role", None), ("user", Some(true)), ("group", None)] {
            if self.take_all(&["create", kind]) {
                let place = self.unexpected().fields().position;
                let name = self.new_role().map_err(|error| match place {
                    Some(place) if !error.message().contains("pg_") => error.at(place),
                    _ => error,
                })?;
                let (mut properties, password) = self.role_options()?;
                properties.login = properties.login.or(login);
                return Ok(Some(SystemStatement::CreateRole { name, properties, password }));
            }
            if self.take_all(&["alter", kind]) {
                let name = self.name()?;
                if self.take_all(&["rename", "to"]) {
                    let change = RoleChange { name: Some(self.new_role()?), ..RoleChange::default() };
                    return Ok(Some(SystemStatement::AlterRole {
                        name,
                        change,
                        password: Password::Unchanged,
                    }));
                }
                let (change, password) = self.role_options()?;
                return Ok(Some(SystemStatement::AlterRole { name, change, password }));
            }
            if self.take_all(&["drop", kind]) {
                let if_exists = self.take_all(&["if", "exists"]);
                let mut names = vec![self.name()?];
                while self.take_token(&Token::Comma) {
                    names.push(self.name()?);
                }
                return Ok(Some(SystemStatement::DropRole { names, if_exists }));
            }
        }
        Ok(None)
    }

    /// The name of a role that comes to be.
    fn new_role(&mut self) -> Result<String, SqlError> {
        let is_quoted = matches!(self.peek().map(|token| &token.token),
            Some(Token::Word(word)) if word.quote_style.is_some());
        let name = self.name()?;
        let reserved = |message: String| SqlError::new(SqlState::RESERVED_NAME, message);
        if !is_quoted && matches!(name.as_str(), "current_user" | "current_role" | "session_user") {
            let message = format!("{} cannot be used as a role name here", name.to_uppercase());
            return Err(reserved(message));
        }
        if matches!(name.as_str(), "public" | "none") {
            return Err(reserved(format!("role name \"{name}\" is reserved")));
        }
        if name.starts_with("pg_") {
            return Err(reserved(format!("role name \"{name}\" is reserved"))
                .with_detail("Role names starting with \"pg_\" are reserved."));
        }
        Ok(name)
    }

    pub(super) fn create_database(&mut self) -> Result<SystemStatement, SqlError> {
        let name = self.name()?;
        let mut owner = None;
        self.take("with");
        while !self.is_at_end() {
            let option = self.name()?;
            self.take_token(&Token::Eq);
            match option.as_str() {
                "owner" => owner = Some(self.name()?),
                // One encoding and one collation exist; asking for them by their names is granted.
                "encoding" => {
                    let value = self.string().map_or_else(|| self.name(), Ok)?;
                    if !matches!(
                        value.to_ascii_lowercase().as_str(),
                        "utf8" | "utf-8" | "unicode" | "default"
                    ) {
                        return Err(SqlError::not_supported(format!(
                            "encoding \"{value}\" is not supported"
                        )));
                    }
                }
                "template" => {
                    let value = self.name()?;
                    if !matches!(value.as_str(), "template0" | "template1" | "default") {
                        return Err(SqlError::not_supported("a template database is not supported"));
                    }
                }
                "lc_collate" | "lc_ctype" | "locale" => {
                    let value = self.string().map_or_else(|| self.name(), Ok)?;
                    if !matches!(
                        value.to_ascii_lowercase().as_str(),
                        "c" | "posix" | "c.utf-8" | "c.utf8" | "default"
                    ) {
                        return Err(SqlError::not_supported(format!("locale \"{value}\" is not supported")));
                    }
                }
                _ => {
                    return Err(SqlError::not_supported(format!(
                        "database option \"{option}\" is not supported"
                    )));
                }
            }
        }
        Ok(SystemStatement::CreateDatabase { name, owner })
    }

    fn role_options(&mut self) -> Result<(RoleChange, Password), SqlError> {
        let mut change = RoleChange::default();
        let mut password = Password::Unchanged;
        self.take("with");
        while !self.is_at_end() {
            let at = self.next;
            let option = self.name()?;
            match option.as_str() {
                "superuser" => change.superuser = Some(true),
                "nosuperuser" => change.superuser = Some(false),
                "login" => change.login = Some(true),
                "nologin" => change.login = Some(false),
                "createdb" => change.create_database = Some(true),
                "nocreatedb" => change.create_database = Some(false),
                "createrole" => change.create_role = Some(true),
                "nocreaterole" => change.create_role = Some(false),
                // These are what a role is anyway.
                "inherit" => change.inherit = Some(true),
                "noinherit" => change.inherit = Some(false),
                "noreplication" | "nobypassrls" | "encrypted" => {}
                "password" => {
                    password = if self.take("null") {
                        Password::None
                    } else {
                        Password::Given(self.string().ok_or_else(|| self.unexpected())?)
                    };
                }
                "connection" => {
                    self.expect("limit")?;
                    change.connection_limit = Some(self.integer()?);
                }
                "replication" | "bypassrls" | "valid" | "in" | "role" | "admin" | "sysid" => {
                    return Err(SqlError::not_supported(format!(
                        "role option {} is not supported",
                        option.to_uppercase()
                    )));
                }
                _ => {
                    self.next = at;
                    return Err(self.unexpected());
                }
            }
        }
        Ok((change, password))
    }
}
