//! Session and catalog information.

use rustydb_types::datatype::{BaseType, DataType};
use rustydb_types::value::Value;

use super::super::cast;
use super::super::catalogue::FunctionFn;
use super::super::context::{ObjectKind, SizeOf};
use super::{int, text};
use crate::error::{SqlError, SqlState};

/// What `version()` answers; clients parse the beginning.
const VERSION: &str = "PostgreSQL 15.0 (RustyDB)";

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
        // There are no advisory locks, so none is left afterwards.
        "pg_advisory_unlock_all" => |_, _| Ok(Value::text("")),
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
                None => call
                    .ctx
                    .catalog
                    .object_name(ObjectKind::Type, oid as u32)
                    .map_or_else(|| "???".to_owned(), |found| found.name),
            };
            Ok(Value::text(text))
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
        "pg_type_is_visible"
        | "pg_function_is_visible"
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
        "to_regclass" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegClass, call.ctx).map_or(Value::Null, Value::Oid))
        }
        "to_regtype" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegType, call.ctx).map_or(Value::Null, Value::Oid))
        }
        "to_regnamespace" => |a, call| {
            Ok(cast::find_object(text(a, 0)?, T::RegNamespace, call.ctx).map_or(Value::Null, Value::Oid))
        },
        "to_regrole" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegRole, call.ctx).map_or(Value::Null, Value::Oid))
        }
        "pg_is_in_recovery" | "pg_is_other_temp_schema" => |_, _| Ok(Value::Bool(false)),
        "pg_relation_is_publishable" => |_, _| Ok(Value::Bool(true)),
        "to_regproc" => {
            |a, call| Ok(cast::find_object(text(a, 0)?, T::RegProc, call.ctx).map_or(Value::Null, Value::Oid))
        }
        "pg_char_to_encoding" => |a, _| {
            let name = text(a, 0)?.to_ascii_lowercase();
            Ok(Value::Int4(if matches!(name.as_str(), "utf8" | "utf-8" | "unicode") { 6 } else { -1 }))
        },
        "getdatabaseencoding" => |_, _| Ok(Value::text("UTF8")),
        "pg_jit_available" | "row_security_active" => |_, _| Ok(Value::Bool(false)),
        "pg_my_temp_schema" => |_, _| Ok(Value::Oid(0)),
        "pg_size_pretty" if args == [T::Int8] => |a, _| Ok(Value::text(size_pretty(int(a, 0)?))),
        "has_table_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_sequence_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_any_column_privilege" => |a, call| privilege(a, call, ObjectKind::Relation, T::RegClass),
        "has_schema_privilege" => |a, call| privilege(a, call, ObjectKind::Schema, T::RegNamespace),
        "has_function_privilege" => |a, call| privilege(a, call, ObjectKind::Function, T::RegProcedure),
        "has_database_privilege" | "has_tablespace_privilege" | "pg_has_role" => |_, _| Ok(Value::Bool(true)),
        _ if name.ends_with("_is_visible") => |_, _| Ok(Value::Bool(true)),
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
        named => match cast::read(named.as_str().unwrap_or(""), base.into(), call.ctx)? {
            Value::Oid(oid) => oid,
            _ => return Ok(Value::Null),
        },
    };
    let role = match args {
        [Value::Oid(role), _, _] => Some(*role),
        [Value::Text(role), _, _] => match cast::read(role, BaseType::RegRole.into(), call.ctx)? {
            Value::Oid(role) => Some(role),
            _ => None,
        },
        _ => None,
    };
    let what = what.to_ascii_lowercase();
    Ok(call.ctx.catalog.has_privilege(kind, role, oid, &what).map_or(Value::Null, Value::Bool))
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
