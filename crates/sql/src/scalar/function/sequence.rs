//! `nextval` and its kin.

use std::sync::Arc;

use rustydb_types::datatype::BaseType;
use rustydb_types::value::Value;

use super::super::catalogue::{FunctionFn, Invocation};
use super::super::context::ObjectKind;
use super::{Answer, int};
use crate::catalog::SequenceDescriptor;
use crate::error::{SqlError, SqlState};
use crate::exec::sequence::{Position, Sequences};

pub(super) fn find(name: &str, args: &[BaseType]) -> Option<FunctionFn> {
    Some(match name {
        "nextval" => |a, call| {
            let sequence = allowed(sequence(a, call)?, "usage,update", call)?;
            let (sequences, txn) = store(call)?;
            let value =
                sequences.next(&sequence, txn, call.ctx.session.random(), call.ctx.session.clock())?;
            call.ctx.session.note_sequence(sequence.oid.get(), value, true);
            Ok(Value::Int8(value))
        },
        "currval" => |a, call| {
            let sequence = allowed(sequence(a, call)?, "usage,select", call)?;
            match call.ctx.session.sequence_value(sequence.oid.get()) {
                Some(value) => Ok(Value::Int8(value)),
                None => Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    format!("currval of sequence \"{}\" is not yet defined in this session", sequence.name),
                )),
            }
        },
        "lastval" => |_, call| {
            let session = call.ctx.session;
            let last = session.last_sequence().and_then(|oid| call.ctx.catalog.sequence(oid));
            let last = last.map(|last| allowed(last, "usage,select", call)).transpose()?;
            match last.and_then(|last| session.sequence_value(last.oid.get())) {
                Some(value) => Ok(Value::Int8(value)),
                None => Err(SqlError::new(
                    SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE,
                    "lastval is not yet defined in this session",
                )),
            }
        },
        "setval" if args.len() == 2 => |a, call| set(a, call, true),
        "setval" => |a, call| set(a, call, a.get(2).and_then(Value::as_bool).unwrap_or(true)),
        "pg_sequence_last_value" => |a, call| {
            let sequence = sequence(a, call)?;
            let (sequences, txn) = store(call)?;
            let position = sequences.position(&sequence, txn)?;
            Ok(if position.is_called { Value::Int8(position.last) } else { Value::Null })
        },
        "rustydb_sequence_position" => |a, call| {
            let (sequences, txn) = store(call)?;
            Ok(Value::Int8(sequences.position(&*sequence(a, call)?, txn)?.last))
        },
        "rustydb_sequence_is_called" => |a, call| {
            let (sequences, txn) = store(call)?;
            Ok(Value::Bool(sequences.position(&*sequence(a, call)?, txn)?.is_called))
        },
        "pg_get_serial_sequence" => |a, call| {
            let name = call.ctx.catalog.serial_sequence(super::text(a, 0)?, super::text(a, 1)?)?;
            Ok(name.map_or(Value::Null, Value::text))
        },
        _ => return None,
    })
}

/// The sequence that the first argument names.
fn sequence(args: &[Value], call: &Invocation<'_>) -> Result<Arc<SequenceDescriptor>, SqlError> {
    let Some(Value::Oid(oid)) = args.first() else { return Err(super::mismatch()) };
    if let Some(found) = call.ctx.catalog.sequence(*oid) {
        return Ok(found);
    }
    Err(match call.ctx.catalog.object_name(ObjectKind::Relation, *oid) {
        Some(other) => {
            let message = format!("\"{}\" is not a sequence", other.name);
            SqlError::new(SqlState::WRONG_OBJECT_TYPE, message)
        }
        None => {
            let message = format!("could not open relation with OID {oid}");
            SqlError::new(SqlState::INTERNAL_ERROR, message)
        }
    })
}

/// A sequence, if the current role has one of these privileges on it. Those of identity columns are moved on by whoever
/// may write to the table.
fn allowed(
    sequence: Arc<SequenceDescriptor>,
    list: &str,
    call: &Invocation<'_>,
) -> Result<Arc<SequenceDescriptor>, SqlError> {
    let is_identity = sequence.owned_by.is_some_and(|owner| owner.is_identity);
    let oid = sequence.oid.get();
    if is_identity || call.ctx.catalog.has_privilege(ObjectKind::Relation, None, oid, list) == Some(true) {
        return Ok(sequence);
    }
    Err(crate::bind::privilege::denied("sequence", &sequence.name))
}

fn store<'a>(call: &Invocation<'a>) -> Result<(&'a Sequences, &'a rustydb_txn::Transaction), SqlError> {
    match (call.ctx.sequences, call.ctx.txn) {
        (Some(sequences), Some(txn)) => Ok((sequences, txn)),
        _ => Err(SqlError::not_supported(format!("function {} cannot be used here", call.function.name))),
    }
}

fn set(args: &[Value], call: &Invocation<'_>, is_called: bool) -> Answer {
    let sequence = allowed(sequence(args, call)?, "update", call)?;
    let (sequences, txn) = store(call)?;
    let last = int(args, 1)?;
    if !(sequence.min..=sequence.max).contains(&last) {
        let message = format!(
            "setval: value {last} is out of bounds for sequence \"{}\" ({}..{})",
            sequence.name, sequence.min, sequence.max
        );
        return Err(SqlError::new(SqlState::NUMERIC_VALUE_OUT_OF_RANGE, message));
    }
    sequences.set(&sequence, Position { last, is_called }, txn, call.ctx.session.random())?;
    if is_called {
        call.ctx.session.note_sequence(sequence.oid.get(), last, false);
    }
    Ok(Value::Int8(last))
}
