//! Session and catalog information.

use rustydb_txn::AdvisoryId;
use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::numeric::Numeric;
use rustydb_types::value::Value;

use super::super::cast;
use super::super::catalogue::{Catalogue, Function, FunctionFn, FunctionKind, Invocation};
use super::super::context::{ObjectKind, SizeOf};
use super::{int, mismatch, text};
use crate::error::{Severity, SqlError, SqlState};
use crate::session::advisory::AdvisoryLock;

/// What `version()` answers; clients parse the beginning.
const VERSION: &str = "PostgreSQL 15.0 (RustyDB)";

/// What the arguments of an advisory lock's function name.
fn advisory_id(args: &[Value]) -> Result<AdvisoryId, SqlError> {
    match args {
        [Value::Int8(key)] => Ok(AdvisoryId::One(*key)),
        [Value::Int4(first), Value::Int4(second)] => Ok(AdvisoryId::Pair(*first, *second)),
        _ => Err(mismatch()),
    }
}

fn advisory(
    args: &[Value],
    call: &Invocation<'_>,
    is_shared: bool,
    for_transaction: bool,
) -> Result<Value, SqlError> {
    let on = advisory_id(args)?;
    call.ctx.session.advisory_lock(AdvisoryLock { on, is_shared, for_transaction })?;
    Ok(Value::text(""))
}

fn try_advisory(
    args: &[Value],
    call: &Invocation<'_>,
    is_shared: bool,
    for_transaction: bool,
) -> Result<Value, SqlError> {
    let on = advisory_id(args)?;
    call.ctx.session.advisory_try(AdvisoryLock { on, is_shared, for_transaction }).map(Value::Bool)
}

fn advisory_unlock(args: &[Value], call: &Invocation<'_>, is_shared: bool) -> Result<Value, SqlError> {
    let was_held = call.ctx.session.advisory_unlock(advisory_id(args)?, is_shared);
    if !was_held {
        let mode = if is_shared { "ShareLock" } else { "ExclusiveLock" };
        let warning = SqlError::new(SqlState::WARNING, format!("you don't own a lock of type {mode}"));
        call.ctx.session.notice(warning.with_severity(Severity::Warning));
    }
    Ok(Value::Bool(was_held))
}

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    use BaseType as T;
    Some(match name {
        "version" => |_, _| Ok(Value::text(VERSION)),
        "current_user" => |_, call| Ok(Value::text(call.ctx.session.current_user())),
        "session_user" => |_, call| Ok(Value::text(call.ctx.session.session_user())),
        "current_database" => |_, call| Ok(Value::text(call.ctx.session.database())),
        "current_schema" => {
            |_, call| Ok(call.ctx.session.search_path().first().map_or(Value::Null, Value::text))
        }
        "current_schemas" => |a, call| {
            let mut path = call.ctx.session.search_path();
            if a[0].as_bool() == Some(true) && !path.iter().any(|schema| schema == "pg_catalog") {
                path.insert(0, "pg_catalog".to_owned());
            }
            if a[0].as_bool() == Some(true)
                && let Some(temporary) = call.ctx.catalog.temporary_schema().map(|(_, name)| name)
                && !path.contains(&temporary)
            {
                path.insert(0, temporary);
            }
            Ok(Value::array(BaseType::Name, path.into_iter().map(Value::text).collect()))
        },
        "pg_typeof" => |_, call| Ok(Value::Oid(call.arg_types.first().map_or(705, |ty| ty.oid()))),
        "current_setting" => |a, call| {
            let name = text(a, 0)?.to_ascii_lowercase();
            match call.ctx.session.setting(&name) {
                Some(value) => Ok(Value::text(value)),
                None if a.get(1).and_then(Value::as_bool) == Some(true) => Ok(Value::Null),
                None => Err(SqlError::new(
                    SqlState::UNDEFINED_OBJECT,
                    format!("unrecognized configuration parameter \"{name}\""),
                )),
            }
        },
        "set_config" => |a, call| {
            let Some(name) = a.first().and_then(Value::as_str) else {
                return Err(SqlError::new(SqlState::NULL_VALUE_NOT_ALLOWED, "SET requires parameter name"));
            };
            let is_local = a.get(2).and_then(Value::as_bool) == Some(true);
            let value = call.ctx.session.change_setting(name, a.get(1).and_then(Value::as_str), is_local)?;
            Ok(Value::text(value))
        },
        "pg_advisory_unlock_all" => |_, call| {
            call.ctx.session.advisory_unlock_all();
            Ok(Value::text(""))
        },
        "pg_notify" => |a, call| {
            let part = |at: usize| a.get(at).and_then(Value::as_str).unwrap_or_default();
            call.ctx.session.notify(part(0), part(1))?;
            Ok(Value::text(""))
        },
        // What waits does so in queues of its own, with bounds of their own.
        "pg_notification_queue_usage" => |_, _| Ok(Value::Float8(0.0)),
        "pg_advisory_lock" => |a, call| advisory(a, call, false, false),
        "pg_advisory_lock_shared" => |a, call| advisory(a, call, true, false),
        "pg_advisory_xact_lock" => |a, call| advisory(a, call, false, true),
        "pg_advisory_xact_lock_shared" => |a, call| advisory(a, call, true, true),
        "pg_try_advisory_lock" => |a, call| try_advisory(a, call, false, false),
        "pg_try_advisory_lock_shared" => |a, call| try_advisory(a, call, true, false),
        "pg_try_advisory_xact_lock" => |a, call| try_advisory(a, call, false, true),
        "pg_try_advisory_xact_lock_shared" => |a, call| try_advisory(a, call, true, true),
        "pg_advisory_unlock" => |a, call| advisory_unlock(a, call, false),
        "pg_advisory_unlock_shared" => |a, call| advisory_unlock(a, call, true),
        "pg_sleep" => |a, call| {
            let Some(Value::Float8(seconds)) = a.first() else { return Err(mismatch()) };
            call.ctx.session.sleep((seconds * 1e6) as i64);
            Ok(Value::text(""))
        },
        "pg_sleep_for" => |a, call| {
            let Some(Value::Interval(span)) = a.first() else { return Err(mismatch()) };
            call.ctx.session.sleep(i64::try_from(span.normalised()).unwrap_or(i64::MAX));
            Ok(Value::text(""))
        },
        "pg_sleep_until" => |a, call| {
            let Some(Value::Timestamptz(until)) = a.first() else { return Err(mismatch()) };
            call.ctx.session.sleep(until.saturating_sub(call.ctx.session.clock()));
            Ok(Value::text(""))
        },
        "pg_backend_pid" => |_, call| Ok(Value::Int4(call.ctx.session.backend_pid())),
        "rustydb_transaction_token" => |_, call| match call.ctx.session.transaction_token() {
            Some(token) => Ok(Value::text(token)),
            None => Err(SqlError::new(
                SqlState::NO_ACTIVE_SQL_TRANSACTION,
                "there is no transaction whose outcome could be asked for",
            )
            .with_hint("Ask for the token within a transaction block that is not read-only.")),
        },
        "rustydb_transaction_outcome" => {
            |a, call| call.ctx.session.transaction_outcome(text(a, 0)?).map(Value::text)
        }
        "pg_client_encoding" => |_, _| Ok(Value::text("UTF8")),
        "num_nonnulls" => |a, _| Ok(Value::Int4(a.iter().filter(|v| !v.is_null()).count() as i32)),
        "num_nulls" => |a, _| Ok(Value::Int4(a.iter().filter(|v| v.is_null()).count() as i32)),
        "gen_random_uuid" => |_, call| {
            let random = call.ctx.session;
            let mut bytes = [0u8; 16];
            let halves = [random.random().to_be_bytes(), random.random().to_be_bytes()];
            for (to, from) in bytes.iter_mut().zip(halves.iter().flatten()) {
                *to = *from;
            }
            Ok(Value::Uuid(*uuid::Builder::from_random_bytes(bytes).as_uuid().as_bytes()))
        },
        "format_type" => |a, call| {
            let Some(oid) = a[0].as_i64() else { return Ok(Value::Null) };
            let modifier = a[1].as_i64().map_or(-1, |n| n as i32);
            let text = match DataType::from_oid(oid as u32, modifier) {
                Some(ty) if a[1].is_null() => ty.base.sql_name().to_owned(),
                Some(ty) => ty.to_string(),
                None if oid == 0 => "-".to_owned(),
                None => call.ctx.catalog.type_text(oid as u32).unwrap_or_else(|| "???".to_owned()),
            };
            Ok(Value::text(text))
        },
        "acldefault" => |a, call| {
            let kind = a.first().and_then(Value::as_str).unwrap_or_default().to_owned();
            let owner = call.ctx.catalog.object_name(ObjectKind::Role, int(a, 1)? as u32);
            acl_default(&kind, &owner.map_or_else(|| int(a, 1).unwrap_or(0).to_string(), |found| found.name))
        },
        "pg_get_userbyid" => |a, call| {
            let oid = int(a, 0)? as u32;
            let name = call.ctx.catalog.object_name(ObjectKind::Role, oid);
            Ok(Value::text(name.map_or_else(|| format!("unknown (OID={oid})"), |found| found.name)))
        },
        "pg_table_is_visible" => |a, call| {
            let found = call.ctx.catalog.object_name(ObjectKind::Relation, int(a, 0)? as u32);
            Ok(found.map_or(Value::Null, |found| Value::Bool(found.visible)))
        },
        "pg_type_is_visible" => |a, call| {
            let found = call.ctx.catalog.object_name(ObjectKind::Type, int(a, 0)? as u32);
            Ok(found.map_or(Value::Null, |found| Value::Bool(found.visible)))
        },
        "pg_function_is_visible"
        | "pg_operator_is_visible"
        | "pg_collation_is_visible"
        | "pg_opclass_is_visible" => |_, _| Ok(Value::Bool(true)),
        // The catalog's expression columns hold the text itself.
        "pg_get_expr" => |a, call| {
            let pretty = a.get(2).and_then(Value::as_bool).unwrap_or(false);
            let zone = call.ctx.session.timezone();
            let shown = call.ctx.catalog.expression(text(a, 0)?, int(a, 1)? as u32, pretty, zone);
            Ok(shown.map_or_else(|| a[0].clone(), Value::text))
        },
        "pg_get_indexdef" => |a, call| {
            let column = a.get(1).and_then(Value::as_i64).unwrap_or(0) as i32;
            let pretty = a.get(2).and_then(Value::as_bool).unwrap_or(false);
            Ok(call
                .ctx
                .catalog
                .index_definition(int(a, 0)? as u32, column, pretty)
                .map_or(Value::Null, Value::text))
        },
        "pg_get_constraintdef" => |a, call| {
            let pretty = a.get(1).and_then(Value::as_bool).unwrap_or(false);
            Ok(call
                .ctx
                .catalog
                .constraint_definition(int(a, 0)? as u32, pretty, call.ctx.session.timezone())
                .map_or(Value::Null, Value::text))
        },
        "pg_encoding_to_char" => |a, _| Ok(Value::text(if int(a, 0)? == 6 { "UTF8" } else { "" })),
        "obj_description" | "shobj_description" if args.len() == 2 => |a, call| {
            Ok(call
                .ctx
                .catalog
                .description(int(a, 0)? as u32, text(a, 1)?, 0)
                .map_or(Value::Null, Value::text))
        },
        // The old form: an object of any catalog.
        "obj_description" => |a, call| {
            Ok(call.ctx.catalog.description(int(a, 0)? as u32, "", 0).map_or(Value::Null, Value::text))
        },
        "col_description" => |a, call| {
            Ok(call
                .ctx
                .catalog
                .description(int(a, 0)? as u32, "pg_class", int(a, 1)? as i32)
                .map_or(Value::Null, Value::text))
        },
        "pg_relation_size" | "pg_table_size" if args.first() == Some(&T::RegClass) => {
            |a, call| size(a, call, SizeOf::Main)
        }
        "pg_total_relation_size" => |a, call| size(a, call, SizeOf::Total),
        "pg_indexes_size" => |a, call| size(a, call, SizeOf::Indexes),
        "pg_database_size" if args.first() == Some(&T::Oid) => {
            |a, call| Ok(call.ctx.catalog.database_size(int(a, 0)? as u32).map_or(Value::Null, Value::Int8))
        }
        "to_regclass" => |a, call| {
            Ok(cast::find_object(text(a, 0)?, T::RegClass, call.ctx)?.map_or(Value::Null, Value::Oid))
        },
        "to_regtype" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegType, call.ctx)?.map_or(Value::Null, Value::Oid))
        }
        "to_regnamespace" => |a, call| {
            Ok(cast::find_object(text(a, 0)?, T::RegNamespace, call.ctx)?.map_or(Value::Null, Value::Oid))
        },
        "to_regrole" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegRole, call.ctx)?.map_or(Value::Null, Value::Oid))
        }
        "pg_is_in_recovery" | "pg_is_other_temp_schema" => |_, _| Ok(Value::Bool(false)),
        "pg_relation_is_publishable" => |_, _| Ok(Value::Bool(true)),
        "to_regproc" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegProc, call.ctx)?.map_or(Value::Null, Value::Oid))
        }
        "to_regprocedure" => |a, call| {
            Ok(cast::find_object(text(a, 0)?, T::RegProcedure, call.ctx)?.map_or(Value::Null, Value::Oid))
        },
        "pg_char_to_encoding" => |a, _| {
            let name = text(a, 0)?.to_ascii_lowercase();
            Ok(Value::Int4(if matches!(name.as_str(), "utf8" | "utf-8" | "unicode") { 6 } else { -1 }))
        },
        "getdatabaseencoding" => |_, _| Ok(Value::text("UTF8")),
        "pg_jit_available" | "row_security_active" => |_, _| Ok(Value::Bool(false)),
        "pg_my_temp_schema" => {
            |_, call| Ok(Value::Oid(call.ctx.catalog.temporary_schema().map_or(0, |(oid, _)| oid)))
        }
        "pg_size_pretty" if args == [T::Numeric] => |a, _| match &a[0] {
            Value::Numeric(n) => numeric_size_pretty(n).map(Value::text),
            _ => Err(super::mismatch()),
        },
        "pg_size_bytes" => |a, _| size_bytes(text(a, 0)?).map(Value::Int8),
        "pg_encoding_max_length" => |a, _| Ok(if int(a, 0)? == 6 { Value::Int4(4) } else { Value::Null }),
        "getpgusername" => |_, call| Ok(Value::text(call.ctx.session.current_user())),
        "pg_trigger_depth" => |_, _| Ok(Value::Int4(0)),
        "has_type_privilege" => |a, call| privilege(a, call, ObjectKind::Type, T::RegType),
        // Tables take changes of every kind; what the server computes takes none.
        "pg_relation_is_updatable" => |a, call| {
            let oid = int(a, 0)? as u32;
            let found = call.ctx.catalog.object_name(ObjectKind::Relation, oid);
            Ok(Value::Int4(if found.is_some() && oid >= FIRST_USER_OID { 28 } else { 0 }))
        },
        "pg_column_is_updatable" => |a, call| {
            let oid = int(a, 0)? as u32;
            let found = call.ctx.catalog.object_name(ObjectKind::Relation, oid);
            Ok(Value::Bool(found.is_some() && oid >= FIRST_USER_OID && int(a, 1)? > 0))
        },
        "pg_size_pretty" if args == [T::Int8] => |a, _| Ok(Value::text(size_pretty(int(a, 0)?))),
        "has_table_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_sequence_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_any_column_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_schema_privilege" => |a, call| privilege(a, call, ObjectKind::Schema, T::RegNamespace),
        "has_function_privilege" => |a, call| privilege(a, call, ObjectKind::Function, T::RegProcedure),
        "has_database_privilege" => |a, call| privilege(a, call, ObjectKind::Database, T::Oid),
        "has_column_privilege" => |a, call| column_privilege(a, call),
        "pg_has_role" => |a, call| {
            let (Some(list), Some(of)) = (a.last().and_then(Value::as_str), a.iter().rev().nth(1)) else {
                return Err(super::mismatch());
            };
            let role =
                if a.len() == 3 { a.first().map(|role| role_number(role, call)).transpose()? } else { None };
            let found = call.ctx.catalog.has_role(role, role_number(of, call)?, &list.to_ascii_lowercase());
            Ok(found.map_or(Value::Null, Value::Bool))
        },
        "has_tablespace_privilege" => |_, _| Ok(Value::Bool(true)),
        _ if name.ends_with("_is_visible") => |_, _| Ok(Value::Bool(true)),
        "pg_get_function_result" => |a, _| {
            Ok(builtin(int(a, 0)? as u32).map_or(Value::Null, |function| {
                let set = if function.kind == FunctionKind::SetReturning { "SETOF " } else { "" };
                Value::text(format!("{set}{}", function.result.sql_name()))
            }))
        },
        "pg_get_function_arguments" | "pg_get_function_identity_arguments" => |a, _| {
            Ok(builtin(int(a, 0)? as u32).map_or(Value::Null, |function| {
                let last = function.args.len().saturating_sub(1);
                let shown = function.args.iter().enumerate().map(|(index, ty)| {
                    let is_variadic = index == last && function.variadic.is_some();
                    format!("{}{}", if is_variadic { "VARIADIC " } else { "" }, ty.sql_name())
                });
                Value::text(shown.collect::<Vec<_>>().join(", "))
            }))
        },
        _ if asks_catalog(name) => |a, call| call.ctx.catalog.call(call.function.name, a),
        _ => return None,
    })
}

fn size(args: &[Value], call: &super::super::catalogue::Invocation<'_>, part: SizeOf) -> super::Answer {
    Ok(call.ctx.catalog.relation_size(int(args, 0)? as u32, part).map_or(Value::Null, Value::Int8))
}

/// `has_..._privilege([role,] object, privilege)`; the object by number or by name.
fn privilege(
    args: &[Value],
    call: &super::super::catalogue::Invocation<'_>,
    kind: ObjectKind,
    base: BaseType,
) -> super::Answer {
    let (Some(what), Some(object)) = (args.last().and_then(Value::as_str), args.iter().rev().nth(1)) else {
        return Err(super::mismatch());
    };
    let oid = match object {
        Value::Oid(oid) => *oid,
        named if kind == ObjectKind::Database => {
            let name = named.as_str().unwrap_or("");
            call.ctx.catalog.object_by_name(kind, None, name).ok_or_else(|| {
                SqlError::new(SqlState::INVALID_CATALOG_NAME, format!("database \"{name}\" does not exist"))
            })?
        }
        named => match cast::read(named.as_str().unwrap_or(""), base.into(), call.ctx)? {
            Value::Oid(oid) => oid,
            _ => return Ok(Value::Null),
        },
    };
    let role =
        if args.len() == 3 { args.first().map(|role| role_number(role, call)).transpose()? } else { None };
    let what = what.to_ascii_lowercase();
    for name in what.split(',') {
        let name = name.trim().trim_end_matches(" with grant option").trim_end();
        let known: &[&str] = match kind {
            ObjectKind::Schema => &["create", "usage"],
            ObjectKind::Function => &["execute"],
            ObjectKind::Type => &["usage"],
            ObjectKind::Database => &["create", "connect", "temporary", "temp"],
            _ if call.function.name == "has_sequence_privilege" => &["usage", "select", "update"],
            _ if call.function.name == "has_any_column_privilege" => {
                &["select", "insert", "update", "references"]
            }
            ObjectKind::Relation => {
                &["select", "insert", "update", "delete", "truncate", "references", "trigger", "rule"]
            }
            _ => continue,
        };
        if !known.contains(&name) {
            return Err(SqlError::new(
                SqlState::INVALID_PARAMETER_VALUE,
                format!("unrecognized privilege type: \"{}\"", name),
            ));
        }
    }
    let catalog = call.ctx.catalog;
    let found = if call.function.name == "has_any_column_privilege" {
        catalog.has_column_privilege(role, oid, None, &what)
    } else {
        catalog.has_privilege(kind, role, oid, &what)
    };
    Ok(found.map_or(Value::Null, Value::Bool))
}

/// The number of a role that is given by number or by name; 0 for everybody.
fn role_number(role: &Value, call: &super::super::catalogue::Invocation<'_>) -> Result<u32, SqlError> {
    match role {
        Value::Oid(role) => Ok(*role),
        Value::Text(name) if &**name == "public" => Ok(0),
        named => {
            match call.ctx.catalog.object_by_name(ObjectKind::Role, None, named.as_str().unwrap_or("")) {
                Some(role) => Ok(role),
                None => {
                    let message = format!("role \"{}\" does not exist", named.as_str().unwrap_or(""));
                    Err(SqlError::new(SqlState::UNDEFINED_OBJECT, message))
                }
            }
        }
    }
}

/// `has_column_privilege([role,] table, column, privilege)`
fn column_privilege(args: &[Value], call: &super::super::catalogue::Invocation<'_>) -> super::Answer {
    let (role, table, column, list) = match args {
        [role, table, column, list] => (Some(role_number(role, call)?), table, column, list),
        [table, column, list] => (None, table, column, list),
        _ => return Err(super::mismatch()),
    };
    let relation = match table {
        Value::Oid(oid) => *oid,
        named => match cast::read(named.as_str().unwrap_or(""), BaseType::RegClass.into(), call.ctx)? {
            Value::Oid(oid) => oid,
            _ => return Ok(Value::Null),
        },
    };
    let list = list.as_str().unwrap_or("").to_ascii_lowercase();
    for name in list.split(',') {
        let name = name.trim().trim_end_matches(" with grant option").trim_end();
        if !["select", "insert", "update", "references"].contains(&name) {
            let message = format!("unrecognized privilege type: \"{name}\"");
            return Err(SqlError::new(SqlState::INVALID_PARAMETER_VALUE, message));
        }
    }
    let column = match column {
        Value::Int2(number) => call.ctx.catalog.column_name(relation, *number),
        named => named.as_str().map(str::to_owned),
    };
    let Some(column) = column else { return Ok(Value::Null) };
    let found = call.ctx.catalog.has_column_privilege(role, relation, Some(&column), &list);
    Ok(found.map_or(Value::Null, Value::Bool))
}

/// The built-in function of a number.
fn builtin(oid: u32) -> Option<&'static Function> {
    Catalogue::get().all_functions().find(|function| function.oid == oid)
}

/// Functions whose answer is the catalog's alone.
fn asks_catalog(name: &str) -> bool {
    name.starts_with("pg_get_")
        || matches!(
            name,
            "obj_description"
                | "pg_database_size"
                | "pg_tablespace_size"
                | "pg_tablespace_location"
                | "pg_relation_filenode"
                | "pg_postmaster_start_time"
                | "pg_conf_load_time"
                | "pg_blocking_pids"
                | "pg_cancel_backend"
                | "txid_current"
        )
}

/// Object ids from here on are those of what users made.
const FIRST_USER_OID: u32 = 16_384;

/// Bytes as `pg_size_pretty` writes them, read back.
fn size_bytes(written: &str) -> Result<i64, SqlError> {
    let bad = |detail: &str| {
        let error = SqlError::new(SqlState::INVALID_PARAMETER_VALUE, format!("invalid size: \"{written}\""));
        if detail.is_empty() { error } else { error.with_detail(detail) }
    };
    let rest = written.trim_start();
    let bytes = rest.as_bytes();
    let digits = |from: usize| {
        bytes.get(from..).unwrap_or_default().iter().take_while(|byte| byte.is_ascii_digit()).count()
    };
    let sign = usize::from(rest.starts_with(['-', '+']));
    let mut end = sign + digits(sign);
    let mut has_digits = end > sign;
    if bytes.get(end) == Some(&b'.') {
        let fraction = digits(end + 1);
        has_digits |= fraction > 0;
        end += 1 + fraction;
    }
    if !has_digits {
        return Err(bad(""));
    }
    if matches!(bytes.get(end), Some(b'e' | b'E')) {
        let signed = end + 1 + usize::from(matches!(bytes.get(end + 1), Some(b'-' | b'+')));
        if digits(signed) > 0 {
            end = signed + digits(signed);
        }
    }
    let (number, unit) = rest.split_at(end);
    let number: Numeric = number.parse()?;
    let unit = unit.trim();
    let shift = match unit.to_ascii_lowercase().as_str() {
        "" | "bytes" | "b" => 0,
        "kb" => 10,
        "mb" => 20,
        "gb" => 30,
        "tb" => 40,
        "pb" => 50,
        _ => {
            return Err(bad(&format!("Invalid size unit: \"{unit}\"."))
                .with_hint("Valid units are \"bytes\", \"kB\", \"MB\", \"GB\", \"TB\", and \"PB\"."));
        }
    };
    let bytes = number.mul(&Numeric::from(1i64 << shift)).round(0);
    bytes.to_i64().ok_or_else(|| SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, "bigint out of range"))
}

/// As [`size_pretty`], of a number with a fraction or beyond bigint.
fn numeric_size_pretty(bytes: &Numeric) -> Result<String, SqlError> {
    let limit = Numeric::from(10 * 1024i64);
    if bytes.abs() < limit {
        return Ok(format!("{bytes} bytes"));
    }
    let two = Numeric::from(2i64);
    let half = |n: &Numeric| -> Result<Numeric, SqlError> {
        // Half of it, rounded away from zero.
        let one = Numeric::from(if n.is_negative() { -1i64 } else { 1 });
        Ok(n.add(&one).div_trunc(&two)?)
    };
    let mut size = bytes.div_trunc(&Numeric::from(512i64))?;
    let last = Numeric::from(20 * 1024 - 1i64);
    for unit in ["kB", "MB", "GB", "TB"] {
        if size.abs() < last {
            return Ok(format!("{} {unit}", half(&size)?));
        }
        size = size.div_trunc(&Numeric::from(1024i64))?;
    }
    Ok(format!("{} PB", half(&size)?))
}

/// Bytes in the largest unit that leaves at least ten of it, rounded as PostgreSQL does.
fn size_pretty(bytes: i64) -> String {
    let mut size = i128::from(bytes);
    if size.abs() < 10 * 1024 {
        return format!("{size} bytes");
    }
    size >>= 9;
    for unit in ["kB", "MB", "GB", "TB"] {
        if size.abs() < 20 * 1024 - 1 {
            return format!("{} {unit}", (size + size.signum()) / 2);
        }
        size >>= 10;
    }
    format!("{} PB", (size + size.signum()) / 2)
}

/// What may be done with an object of a kind by whom if nothing was granted or revoked: `acldefault`.
fn acl_default(kind: &str, owner: &str) -> Result<Value, SqlError> {
    let (public, own) = match kind {
        "c" => ("", ""),
        "r" => ("", "arwdDxt"),
        "s" => ("", "rwU"),
        "d" => ("Tc", "CTc"),
        "f" => ("X", "X"),
        "l" | "T" => ("U", "U"),
        "L" => ("", "rw"),
        "n" => ("", "UC"),
        "p" => ("", "sA"),
        "t" => ("", "C"),
        "F" | "S" => ("", "U"),
        other => {
            let message = format!("unrecognized object type abbreviation: {other}");
            return Err(SqlError::new(SqlState::INTERNAL_ERROR, message));
        }
    };
    let mut items = Vec::new();
    if !public.is_empty() {
        items.push(Value::text(format!("={public}/{owner}")));
    }
    if !own.is_empty() {
        items.push(Value::text(format!("{owner}={own}/{owner}")));
    }
    Ok(Value::array(BaseType::AclItem, items))
}
