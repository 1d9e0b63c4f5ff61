//! Statements that the session runs itself: transactions, settings, prepared statements, databases and roles.

use std::sync::Arc;

use bytes::{BufMut, BytesMut};
use rustydb_types::ids::Oid;
use sqlparser::ast;

use super::activity::kept_text;
use super::core::Session;
use super::executor::{Executor, ResultFormats};
use super::failure::{Fault, no_such_cursor, no_such_statement, store_error};
use super::notify::Listening;
use super::prepared::{Prepared, hold};
use super::request::{Bind, Request};
use super::response::{self, Field, Mark, RowWriter, TransactionStatus};
use super::settings::{DEFINITIONS, Scope};
use super::sink::ResponseSink;
use super::statement::{Isolation, Modes, Password, Statement, SystemStatement};
use super::token::TokenKey;
use crate::bind::privilege::Authority;
use crate::catalog::acl::AclKind;
use crate::ddl::privileges::{Application, role_of, wanted};
use crate::error::{Severity, SqlError, SqlState};
use crate::parse::privilege::{GrantTarget, GranteeName};
use crate::system::{RoleRecord, SystemCommand, SystemSnapshot};

/// `pg_type.oid` of `text`, in which SHOW answers.
const TEXT_OID: u32 = 25;

impl<E: Executor> Session<E> {
    /// Runs a statement of the session. `is_described`: the client has asked for the shape of rows before.
    pub(super) async fn run_utility<S: ResponseSink>(
        &mut self,
        statement: &Statement,
        formats: &ResultFormats,
        is_described: bool,
        sink: &mut S,
    ) -> Result<(), Fault> {
        if self.block.status == TransactionStatus::Failed && !statement.ends_failure() {
            return Err(SqlError::new(
                SqlState::IN_FAILED_SQL_TRANSACTION,
                "current transaction is aborted, commands ignored until end of transaction block",
            )
            .into());
        }
        let tag = match statement {
            Statement::Plan(_) => {
                return Err(SqlError::internal("a planned statement is not the session's").into());
            }
            Statement::Begin { modes, tag } => {
                if self.block.status == TransactionStatus::Idle {
                    self.begin_block(*modes)?;
                } else {
                    warn(
                        sink.buffer(),
                        SqlState::ACTIVE_SQL_TRANSACTION,
                        "there is already a transaction in progress",
                    );
                    self.set_modes(*modes)?;
                }
                tag
            }
            Statement::Commit(chain) => return self.commit_block(*chain, sink).await,
            Statement::Rollback(chain) => {
                // Rows of statements that succeeded in the block are the client's, whatever becomes of the block.
                self.settle(sink).await?;
                self.roll_back_block(*chain, sink)?;
                return Ok(());
            }
            Statement::Savepoint(name) => {
                self.make_savepoint(name).await?;
                "SAVEPOINT"
            }
            Statement::RollbackTo(name) => {
                self.settle(sink).await?;
                self.roll_back_to(name)?;
                "ROLLBACK"
            }
            Statement::Release(name) => {
                self.release(name)?;
                "RELEASE"
            }
            Statement::SetTransaction(modes) => {
                if self.block.status == TransactionStatus::Idle {
                    let message = "SET TRANSACTION can only be used in transaction blocks";
                    warn(sink.buffer(), SqlState::NO_ACTIVE_SQL_TRANSACTION, message);
                } else {
                    self.set_modes(*modes)?;
                }
                "SET"
            }
            Statement::SetConstraints { names, deferred } => {
                if self.block.status == TransactionStatus::Idle {
                    let message = "SET CONSTRAINTS can only be used in transaction blocks";
                    warn(sink.buffer(), SqlState::NO_ACTIVE_SQL_TRANSACTION, message);
                } else {
                    self.set_constraints(names.as_deref(), *deferred).await?;
                }
                "SET CONSTRAINTS"
            }
            Statement::SetCharacteristics(modes) => {
                self.set_characteristics(modes)?;
                "SET"
            }
            Statement::Set { scope, name, value } => {
                self.set(*scope, name, value.as_deref(), sink.buffer())?;
                "SET"
            }
            Statement::Reset(Some(name)) => {
                self.change_setting(Scope::Session, name, None)?;
                "RESET"
            }
            Statement::Reset(None) => {
                self.context.settings.reset_all();
                "RESET"
            }
            Statement::Show(name) => {
                self.show(name.as_deref(), formats, is_described, sink.buffer())?;
                "SHOW"
            }
            Statement::Discard("DISCARD SEQUENCES") => {
                self.context.sequences.lock().clear();
                "DISCARD SEQUENCES"
            }
            Statement::DiscardAll => {
                self.refuse_in_block("DISCARD ALL")?;
                self.context.sequences.lock().clear();
                self.portals.clear();
                self.change_setting(Scope::Session, "session_authorization", None)?;
                self.change_setting(Scope::Session, "role", None)?;
                self.context.settings.reset_all();
                self.deallocate_all();
                self.context.advisory.get_mut().release_all();
                self.context.notify.get_mut().listen(Listening::AllOff);
                self.discard_temporary().await?;
                "DISCARD ALL"
            }
            Statement::Discard("DISCARD TEMP") => {
                self.discard_temporary().await?;
                "DISCARD TEMP"
            }
            Statement::Discard(tag) => tag,
            Statement::Listen(Listening::On(_)) if !self.has_replica => {
                let message = "LISTEN needs a connection to a node with a replica of the database";
                return Err(SqlError::not_supported(message)
                    .with_hint("Connect to one of those nodes.")
                    .into());
            }
            Statement::Listen(what) => {
                self.context.notify.get_mut().listen(what.clone());
                if matches!(what, Listening::On(_)) { "LISTEN" } else { "UNLISTEN" }
            }
            Statement::Notify { channel, payload } => {
                self.ensure_transaction(rustydb_txn::Access::ReadWrite).await?;
                if self.access == rustydb_txn::Access::ReadOnly {
                    let message = "cannot execute NOTIFY in a read-only transaction";
                    return Err(SqlError::new(SqlState::READ_ONLY_SQL_TRANSACTION, message).into());
                }
                self.context.notify.get_mut().send(channel, payload)?;
                "NOTIFY"
            }
            Statement::Deallocate(None) => {
                self.deallocate_all();
                "DEALLOCATE ALL"
            }
            Statement::Deallocate(Some(name)) => {
                if !self.remove_prepared(name) {
                    return Err(no_such_statement(name).into());
                }
                "DEALLOCATE"
            }
            Statement::Prepare { name, param_types, statement, sql } => {
                self.check_new_prepared(name)?;
                let memory = hold(&*self.parts.executor, &self.own_memory, sql)?;
                let prepared = Prepared {
                    text: kept_text(sql),
                    statement: Some(Arc::new(Statement::Plan(Arc::clone(statement)))),
                    param_types: param_types.clone(),
                    plan: None,
                    memory,
                };
                self.add_prepared(name, sql, prepared);
                // A statement that cannot be planned is refused now, not when it is executed.
                if let Err(error) = self.plan_of(name).await {
                    self.remove_prepared(name);
                    return Err(error.into());
                }
                "PREPARE"
            }
            Statement::Execute { name, params } => {
                return self.execute_prepared(name, params, formats, is_described, sink).await;
            }
            Statement::Declare(declaration) => {
                let plan = self.plan(&declaration.query, &[], statement.looks_read_only()).await?;
                let plan = self.lock(plan, &declaration.query, &[]).await?;
                let cursor = self.parts.executor.open(&self.context, &plan, &Bind::EMPTY)?;
                self.declare(declaration, plan, cursor, Arc::clone(&self.memory)).await?;
                "DECLARE CURSOR"
            }
            Statement::Fetch { name, motion, is_move } => {
                let tag = self.fetch(name, *motion, *is_move, formats, is_described, sink).await?;
                response::command_complete(sink.buffer(), &tag);
                return Ok(());
            }
            Statement::CloseCursor(None) => {
                self.portals.retain(|_, portal| portal.cursor.is_none());
                "CLOSE CURSOR ALL"
            }
            Statement::CloseCursor(Some(name)) => {
                if self.portals.remove(name).is_none() {
                    return Err(no_such_cursor(name).into());
                }
                "CLOSE CURSOR"
            }
            Statement::System(system) => {
                self.run_system(system, sink.buffer()).await?;
                system.tag()
            }
        };
        response::command_complete(sink.buffer(), tag);
        Ok(())
    }

    /// The shape of what [`Session::run_utility`] answers.
    pub(super) fn describe_utility(
        &self,
        statement: Option<&Statement>,
        formats: &ResultFormats,
        out: &mut BytesMut,
    ) {
        match statement {
            Some(Statement::Fetch { name, is_move: false, .. }) if self.portals.contains_key(name) => {
                self.describe_cursor(name, formats, out);
            }
            Some(Statement::Show(name)) => describe_show(name.as_deref(), formats, out),
            _ => response::mark(out, Mark::NoData),
        }
    }

    /// VACUUM runs by itself, LOCK TABLE in a block alone.
    pub(super) fn refuse_by_block(&self, statement: &ast::Statement) -> Result<(), SqlError> {
        match statement {
            ast::Statement::Vacuum(_) => self.refuse_in_block("VACUUM"),
            // Outside of a block its locks would end with it.
            ast::Statement::Lock(_) => self.need_block("LOCK TABLE"),
            _ => Ok(()),
        }
    }

    fn refuse_in_block(&self, what: &str) -> Result<(), SqlError> {
        if self.block.status != TransactionStatus::Idle || self.is_multiple() {
            return Err(SqlError::new(
                SqlState::ACTIVE_SQL_TRANSACTION,
                format!("{what} cannot run inside a transaction block"),
            ));
        }
        Ok(())
    }

    fn need_block(&self, what: &str) -> Result<(), SqlError> {
        if self.block.status == TransactionStatus::Idle {
            return Err(SqlError::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                format!("{what} can only be used in transaction blocks"),
            ));
        }
        Ok(())
    }

    async fn set_constraints(
        &mut self,
        names: Option<&[(Option<String>, String)]>,
        deferred: bool,
    ) -> Result<(), SqlError> {
        self.ensure_transaction(rustydb_txn::Access::ReadWrite).await?;
        self.begin_statement().await?;
        self.is_fresh = false;
        let Some(txn) = &mut self.txn else { return Ok(()) };
        let set = std::pin::pin!(self.parts.executor.set_constraints(txn, &self.context, names, deferred));
        self.context.interrupts.guard(&self.parts.env, self.deadline, set).await?
    }

    async fn make_savepoint(&mut self, name: &str) -> Result<(), SqlError> {
        self.need_block("SAVEPOINT")?;
        self.ensure_transaction(rustydb_txn::Access::ReadWrite).await?;
        if let Some(txn) = &mut self.txn {
            self.block.savepoints.push((name.to_owned(), txn.savepoint()));
            self.context.settings.savepoint();
            self.context.deferred.get_mut().savepoint();
            self.context.notify.get_mut().savepoint();
        }
        Ok(())
    }

    fn savepoint_named(&self, name: &str) -> Result<usize, SqlError> {
        self.block.savepoints.iter().rposition(|(savepoint, _)| savepoint == name).ok_or_else(|| {
            SqlError::new(
                SqlState::INVALID_SAVEPOINT_SPECIFICATION,
                format!("savepoint \"{name}\" does not exist"),
            )
        })
    }

    fn roll_back_to(&mut self, name: &str) -> Result<(), SqlError> {
        self.need_block("ROLLBACK TO SAVEPOINT")?;
        let depth = self.savepoint_named(name)?;
        if let (Some(txn), Some((_, savepoint))) = (&mut self.txn, self.block.savepoints.get(depth)) {
            txn.rollback_to(*savepoint).map_err(store_error)?;
        }
        self.block.savepoints.truncate(depth + 1);
        self.portals.retain(|_, portal| portal.depth <= depth);
        self.context.settings.roll_back_to(depth);
        self.context.deferred.get_mut().roll_back_to(depth);
        self.context.notify.get_mut().roll_back_to(depth);
        self.block.status = TransactionStatus::InBlock;
        Ok(())
    }

    fn release(&mut self, name: &str) -> Result<(), SqlError> {
        self.need_block("RELEASE SAVEPOINT")?;
        let depth = self.savepoint_named(name)?;
        if let (Some(txn), Some((_, savepoint))) = (&mut self.txn, self.block.savepoints.get(depth)) {
            txn.release(*savepoint).map_err(store_error)?;
        }
        self.block.savepoints.truncate(depth);
        for portal in self.portals.values_mut() {
            portal.depth = portal.depth.min(depth);
        }
        self.context.settings.release_to(depth);
        self.context.deferred.get_mut().release_to(depth);
        self.context.notify.get_mut().release_to(depth);
        Ok(())
    }

    fn set_characteristics(&mut self, modes: &Modes) -> Result<(), SqlError> {
        let switch = |on| if on { "on" } else { "off" };
        if let Some(isolation) = modes.isolation {
            self.change_setting(Scope::Session, "default_transaction_isolation", Some(isolation.name()))?;
        }
        if let Some(read_only) = modes.read_only {
            self.change_setting(Scope::Session, "default_transaction_read_only", Some(switch(read_only)))?;
        }
        if let Some(deferrable) = modes.deferrable {
            self.change_setting(Scope::Session, "default_transaction_deferrable", Some(switch(deferrable)))?;
        }
        Ok(())
    }

    fn set(
        &mut self,
        scope: Scope,
        name: &str,
        value: Option<&str>,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        let transaction_mode = match (name.to_ascii_lowercase().as_str(), value) {
            ("transaction_isolation", Some(value)) => Modes {
                isolation: Some(Isolation::from_name(&value.to_ascii_lowercase())),
                ..Modes::default()
            },
            ("transaction_read_only", Some(value)) => {
                let read_only = super::settings::parse_bool(value).ok_or_else(|| {
                    SqlError::new(
                        SqlState::INVALID_PARAMETER_VALUE,
                        "parameter \"transaction_read_only\" requires a Boolean value",
                    )
                })?;
                Modes { read_only: Some(read_only), ..Modes::default() }
            }
            _ => {
                if scope == Scope::Local && self.block.status == TransactionStatus::Idle {
                    let message = "SET LOCAL can only be used in transaction blocks";
                    warn(out, SqlState::NO_ACTIVE_SQL_TRANSACTION, message);
                }
                return self.change_setting(scope, name, value);
            }
        };
        if self.block.status == TransactionStatus::Idle { Ok(()) } else { self.set_modes(transaction_mode) }
    }

    fn setting_value(&self, name: &str) -> Result<(String, String), SqlError> {
        let (name, value) = self.context.settings.show(name)?;
        let in_block = self.block.status != TransactionStatus::Idle;
        let default = |of| self.context.settings.get(of).to_owned();
        let value = match name.as_str() {
            "transaction_isolation" => match self.block.modes.isolation.filter(|_| in_block) {
                Some(isolation) => isolation.name().to_owned(),
                None => default("default_transaction_isolation"),
            },
            "transaction_read_only" => match self.block.modes.read_only.filter(|_| in_block) {
                Some(read_only) => if read_only { "on" } else { "off" }.to_owned(),
                None => default("default_transaction_read_only"),
            },
            _ => value,
        };
        Ok((name, value))
    }

    fn show(
        &self,
        name: Option<&str>,
        formats: &ResultFormats,
        is_described: bool,
        out: &mut BytesMut,
    ) -> Result<(), SqlError> {
        // Nothing may be written before the name is known to exist.
        let one = name.map(|name| self.setting_value(name)).transpose()?;
        if !is_described {
            describe_show(name, formats, out);
        }
        if let Some((_, value)) = one {
            text_row(out, &[&value]);
            return Ok(());
        }
        for definition in DEFINITIONS {
            let (name, value) = self.setting_value(definition.name)?;
            text_row(out, &[&name, &value, definition.description]);
        }
        Ok(())
    }

    fn deallocate_all(&mut self) {
        let names: Vec<String> = self.prepared.keys().cloned().collect();
        for name in names {
            self.remove_prepared(&name);
        }
    }

    async fn execute_prepared<S: ResponseSink>(
        &mut self,
        name: &str,
        params: &[Option<String>],
        formats: &ResultFormats,
        is_described: bool,
        sink: &mut S,
    ) -> Result<(), Fault> {
        // A Bind message in memory: parameters of EXECUTE take the same way as those of the protocol.
        let mut body = BytesMut::new();
        response::put_string(&mut body, "");
        response::put_string(&mut body, name);
        body.put_u16(0);
        body.put_u16(u16::try_from(params.len()).unwrap_or(u16::MAX));
        for param in params {
            match param {
                Some(text) => {
                    body.put_i32(i32::try_from(text.len()).unwrap_or(i32::MAX));
                    body.put_slice(text.as_bytes());
                }
                None => body.put_i32(-1),
            }
        }
        body.put_u16(0);
        match Request::decode(b'B', &body) {
            Ok(Request::Bind(bind)) => self.run_bound(&bind, formats, is_described, sink).await,
            _ => Err(SqlError::internal("EXECUTE made a malformed Bind").into()),
        }
    }

    async fn run_system(&mut self, statement: &SystemStatement, out: &mut BytesMut) -> Result<(), SqlError> {
        let tag = statement.tag();
        if matches!(
            statement,
            SystemStatement::CreateDatabase { .. }
                | SystemStatement::DropDatabase { .. }
                | SystemStatement::RenameDatabase { .. }
        ) {
            self.refuse_in_block(tag)?;
        } else if self.block.status != TransactionStatus::Idle
            || self.txn.as_ref().is_some_and(|txn| txn.has_writes())
        {
            return Err(SqlError::not_supported(format!("{tag} cannot run inside a transaction block"))
                .with_hint("Roles belong to the whole cluster: run the statement by itself."));
        }
        let system = self.parts.cluster.system();
        let me = system.role_named(self.context.current_user()).cloned();
        // What comes now is committed in the system's group.
        self.is_whole = false;
        match statement {
            SystemStatement::CreateDatabase { name, owner } => {
                allow(me.as_ref(), "permission denied to create database", |role| role.create_database)?;
                let owner_name = owner.as_deref().unwrap_or_else(|| self.context.current_user());
                let owner = system.role_named(owner_name).ok_or_else(|| no_role(owner_name))?.oid;
                let replicas = self.parts.cluster.placement();
                let token_key = TokenKey::random(&mut self.parts.env.rng());
                let command =
                    SystemCommand::CreateDatabase { name: name.clone(), owner, replicas, token_key };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::DropDatabase { name, if_exists } => {
                let Some(record) = system.database_named(name) else {
                    return missing(*if_exists, SqlState::INVALID_CATALOG_NAME, "database", name, out);
                };
                let owner = record.owner;
                allow(me.as_ref(), &format!("must be owner of database {name}"), |role| role.oid == owner)?;
                if *name == self.context.database {
                    return Err(SqlError::new(
                        SqlState::OBJECT_IN_USE,
                        "cannot drop the currently open database",
                    ));
                }
                self.parts.cluster.execute_system(SystemCommand::DropDatabase { name: name.clone() }).await
            }
            SystemStatement::RenameDatabase { name, to } => {
                let record = system.database_named(name).ok_or_else(|| no_database(name))?;
                let owner = record.owner;
                allow(me.as_ref(), &format!("must be owner of database {name}"), |role| role.oid == owner)?;
                if *name == self.context.database {
                    let message = "current database cannot be renamed";
                    return Err(SqlError::not_supported(message));
                }
                let command = SystemCommand::RenameDatabase { name: name.clone(), to: to.clone() };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::CreateRole { name, properties, password } => {
                allow(me.as_ref(), "permission denied to create role", |role| role.create_role)?;
                if properties.superuser == Some(true) {
                    allow(me.as_ref(), "must be superuser to create superusers", |_| false)?;
                }
                let mut properties = properties.clone();
                properties.verifier = self.verifier(password)?;
                let command = SystemCommand::CreateRole { name: name.clone(), properties };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::AlterRole { name, change, password } => {
                let target = system.role_named(name).ok_or_else(|| no_role(name))?;
                if target.superuser || change.superuser.is_some() {
                    let message = "must be superuser to alter superuser roles or change superuser attribute";
                    allow(me.as_ref(), message, |_| false)?;
                } else if *change != crate::system::RoleChange::default() || *name != self.context.user {
                    // Everyone may change the own password, and nothing else.
                    allow(me.as_ref(), "permission denied", |role| role.create_role)?;
                }
                let mut change = change.clone();
                change.verifier = self.verifier(password)?;
                self.parts
                    .cluster
                    .execute_system(SystemCommand::AlterRole { name: name.clone(), change })
                    .await
            }
            SystemStatement::GrantRoles { roles, members, admin } => {
                let (roles, members, grantor) = self.membership(roles, members, me.as_ref(), &system)?;
                for member in &members {
                    for role in &roles {
                        let (Some(member), Some(role)) = (system.roles.get(member), system.roles.get(role))
                        else {
                            continue;
                        };
                        let known = member.member_of.iter().find(|known| known.role == role.oid);
                        if known.is_some_and(|known| known.admin || !admin) {
                            let message = format!(
                                "role \"{}\" is already a member of role \"{}\"",
                                member.name, role.name
                            );
                            let notice = SqlError::new(SqlState::SUCCESSFUL_COMPLETION, message);
                            response::sql_notice(out, &notice.with_severity(Severity::Notice));
                        }
                    }
                }
                let command = SystemCommand::GrantRoles { roles, members, admin: *admin, grantor };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::RevokeRoles { roles, members, admin_only } => {
                let (roles, members, _) = self.membership(roles, members, me.as_ref(), &system)?;
                for member in &members {
                    for role in &roles {
                        let (Some(member), Some(role)) = (system.roles.get(member), system.roles.get(role))
                        else {
                            continue;
                        };
                        if !member.member_of.iter().any(|known| known.role == role.oid) {
                            let message =
                                format!("role \"{}\" is not a member of role \"{}\"", member.name, role.name);
                            warn(out, SqlState::WARNING, &message);
                        }
                    }
                }
                let command = SystemCommand::RevokeRoles { roles, members, admin_only: *admin_only };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::ChangeDatabaseAcl { change } => {
                let role = me.as_ref().map_or(Oid::new(0), |role| role.oid);
                let GrantTarget::Objects(_, names) = &change.target else {
                    return Err(SqlError::internal("a change of privileges names no database"));
                };
                for (_, name) in names {
                    let system = self.parts.cluster.system();
                    let record = system.database_named(name).ok_or_else(|| no_database(name))?;
                    let authority = Authority::of(role, &system, Some(record.id));
                    let application = Application::new(change, &authority, &system)?;
                    let (asked, _) = wanted(change, AclKind::Database)?;
                    let (acl, warning) = application.apply(
                        AclKind::Database,
                        ("database", name),
                        record.owner,
                        (record.acl.as_ref(), None),
                        asked,
                    )?;
                    if let Some(warning) = warning {
                        response::sql_notice(out, &warning);
                    }
                    let (id, former) = (record.id, record.acl.clone());
                    self.parts
                        .cluster
                        .execute_system(SystemCommand::SetDatabaseAcl { id, former, acl })
                        .await?;
                }
                Ok(())
            }
            SystemStatement::ChangeDatabaseOwner { name, owner } => {
                let record = system.database_named(name).ok_or_else(|| no_database(name))?;
                let present = record.owner;
                let role = me.as_ref().map_or(Oid::new(0), |role| role.oid);
                let own = system.roles_of(role, None, true);
                let message = format!("must be owner of database {name}");
                allow(me.as_ref(), &message, |_| own.contains(&present))?;
                let new = role_of(owner, role, &system)?;
                let members = system.roles_of(role, None, false);
                let shown = system.roles.get(&new).map_or("", |role| role.name.as_str());
                allow(me.as_ref(), &format!("must be member of role \"{shown}\""), |me| {
                    me.create_database && members.contains(&new)
                })?;
                let command = SystemCommand::SetDatabaseOwner { id: record.id, owner: new };
                self.parts.cluster.execute_system(command).await
            }
            SystemStatement::DropRole { names, if_exists } => {
                allow(me.as_ref(), "permission denied to drop role", |role| role.create_role)?;
                for name in names {
                    let Some(target) = system.role_named(name) else {
                        missing(*if_exists, SqlState::UNDEFINED_OBJECT, "role", name, out)?;
                        continue;
                    };
                    if *name == self.context.user {
                        return Err(SqlError::new(SqlState::OBJECT_IN_USE, "current user cannot be dropped"));
                    }
                    if target.superuser {
                        allow(me.as_ref(), "must be superuser to drop superusers", |_| false)?;
                    }
                    let mut used = self.parts.executor.objects_of(target.oid).await?;
                    let databases = system.databases.values();
                    let named =
                        databases.filter(|own| own.acl.as_ref().is_some_and(|acl| acl.names(target.oid)));
                    used.extend(named.map(|own| format!("privileges for database {}", own.name)));
                    if !used.is_empty() {
                        let message =
                            format!("role \"{name}\" cannot be dropped because some objects depend on it");
                        return Err(SqlError::new(SqlState::DEPENDENT_OBJECTS_STILL_EXIST, message)
                            .with_detail(used.join("\n")));
                    }
                    self.parts.cluster.execute_system(SystemCommand::DropRole { name: name.clone() }).await?;
                }
                Ok(())
            }
        }
    }

    /// The roles and members that GRANT or REVOKE names, and who says so, if the current role may.
    fn membership(
        &self,
        roles: &[String],
        members: &[GranteeName],
        me: Option<&RoleRecord>,
        system: &SystemSnapshot,
    ) -> Result<(Vec<Oid>, Vec<Oid>, Oid), SqlError> {
        let own = me.map_or(Oid::new(0), |role| role.oid);
        let mut found = Vec::with_capacity(roles.len());
        for name in roles {
            let role = system.role_named(name).ok_or_else(|| no_role(name))?;
            if role.superuser {
                allow(me, "must be superuser to alter superusers", |_| false)?;
            }
            let held = system.roles_of(own, None, false);
            let admins =
                held.iter().filter_map(|role| system.roles.get(role)).flat_map(|role| &role.member_of);
            let is_admin = admins.into_iter().any(|member| member.role == role.oid && member.admin);
            let message = format!("must have admin option on role \"{name}\"");
            allow(me, &message, |me| me.create_role || is_admin)?;
            found.push(role.oid);
        }
        let members = members.iter().map(|name| match name {
            GranteeName::Public => Err(no_role("public")),
            name => role_of(name, own, system),
        });
        Ok((found, members.collect::<Result<_, _>>()?, own))
    }

    /// The change of the verifier that a statement asks for. The password in clear ends here.
    fn verifier(&self, password: &Password) -> Result<Option<Option<String>>, SqlError> {
        Ok(match password {
            Password::Unchanged => None,
            Password::None => Some(None),
            Password::Given(password) => Some(Some(self.parts.cluster.password_verifier(password)?)),
        })
    }
}

fn warn(out: &mut BytesMut, state: SqlState, message: &str) {
    response::sql_notice(out, &SqlError::new(state, message).with_severity(Severity::Warning));
}

fn allow(
    role: Option<&RoleRecord>,
    message: &str,
    may: impl Fn(&RoleRecord) -> bool,
) -> Result<(), SqlError> {
    if role.is_some_and(|role| role.superuser || may(role)) {
        return Ok(());
    }
    Err(SqlError::new(SqlState::INSUFFICIENT_PRIVILEGE, message))
}

fn no_role(name: &str) -> SqlError {
    SqlError::new(SqlState::UNDEFINED_OBJECT, format!("role \"{name}\" does not exist"))
}

fn no_database(name: &str) -> SqlError {
    SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
}

/// What is to be dropped is not there: an error, or with IF EXISTS a notice.
fn missing(
    if_exists: bool,
    state: SqlState,
    kind: &str,
    name: &str,
    out: &mut BytesMut,
) -> Result<(), SqlError> {
    let message = format!("{kind} \"{name}\" does not exist");
    if !if_exists {
        return Err(SqlError::new(state, message));
    }
    let notice = SqlError::new(SqlState::SUCCESSFUL_COMPLETION, format!("{message}, skipping"));
    response::sql_notice(out, &notice.with_severity(Severity::Notice));
    Ok(())
}

fn describe_show(name: Option<&str>, formats: &ResultFormats, out: &mut BytesMut) {
    let canonical =
        name.map(|name| super::settings::definition(name).map_or(name, |definition| definition.name));
    let names: &[&str] = match &canonical {
        Some(name) => std::slice::from_ref(name),
        None => &["name", "setting", "description"],
    };
    let fields = names.iter().enumerate().map(|(index, name)| Field {
        name,
        table: 0,
        column: 0,
        type_oid: TEXT_OID,
        type_size: -1,
        modifier: -1,
        format: formats.get(index),
    });
    response::row_description(out, fields);
}

/// A row of text, which is the same in both formats.
fn text_row(out: &mut BytesMut, values: &[&str]) {
    let mut row = RowWriter::begin(out, values.len());
    for value in values {
        let written: Result<(), std::convert::Infallible> = row.value(|out| {
            out.put_slice(value.as_bytes());
            Ok(())
        });
        match written {
            Ok(()) => {}
        }
    }
    row.finish();
}
