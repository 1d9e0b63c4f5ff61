//! `anyelement`, `anyarray`, `anycompatible`: whether arguments agree, and what they become.

use rustydb_types::datatype::{BaseType, DataType};

use super::coercion::common_base;
use crate::error::{SqlError, SqlState};

/// Whether the polymorphic parameters can agree on one type.
pub(super) fn polymorphic_consistent(declared: &[BaseType], inputs: &[BaseType]) -> bool {
    let mut strict: Option<BaseType> = None;
    let mut compatible: Vec<BaseType> = Vec::new();
    for (to, from) in declared.iter().zip(inputs) {
        if *from == BaseType::Unknown {
            continue;
        }
        let element = match to {
            BaseType::AnyCompatible => {
                compatible.push(*from);
                continue;
            }
            BaseType::AnyCompatibleArray => {
                compatible.extend(from.element());
                continue;
            }
            BaseType::AnyElement | BaseType::AnyNonArray | BaseType::AnyEnum => Some(*from),
            BaseType::AnyArray => from.element(),
            _ => continue,
        };
        match (strict, element) {
            (_, None) => return false,
            (None, Some(_)) => strict = element,
            (Some(known), Some(found)) if known != found => return false,
            _ => {}
        }
    }
    compatible.is_empty() || common_base(&compatible).is_some()
}

/// Replaces polymorphic parameter types by actual ones and answers the result's type.
pub(super) fn settle_polymorphic(
    declared: &mut [BaseType],
    inputs: &[DataType],
    result: BaseType,
) -> Result<DataType, SqlError> {
    let mut element: Option<BaseType> = None;
    let mut compatible: Vec<BaseType> = Vec::new();
    for (to, from) in declared.iter().zip(inputs) {
        if from.is_unknown() {
            continue;
        }
        match to {
            BaseType::AnyElement | BaseType::AnyNonArray | BaseType::AnyEnum => element = Some(from.base),
            BaseType::AnyArray => element = element.or(from.base.element()),
            BaseType::AnyCompatible => compatible.push(from.base),
            BaseType::AnyCompatibleArray => compatible.extend(from.base.element()),
            _ => {}
        }
    }
    let has = |wanted: &[BaseType]| declared.iter().any(|to| wanted.contains(to));
    if element.is_none()
        && has(&[BaseType::AnyElement, BaseType::AnyArray, BaseType::AnyNonArray, BaseType::AnyEnum])
    {
        if has(&[BaseType::AnyArray, BaseType::AnyEnum]) {
            return Err(SqlError::new(
                SqlState::INDETERMINATE_DATATYPE,
                "could not determine polymorphic type because input has type unknown",
            ));
        }
        element = Some(BaseType::Text);
    }
    let common = if has(&[BaseType::AnyCompatible, BaseType::AnyCompatibleArray]) {
        Some(common_base(&compatible).unwrap_or(BaseType::Text))
    } else {
        None
    };
    let replace = |base: BaseType| match base {
        BaseType::AnyElement | BaseType::AnyNonArray | BaseType::AnyEnum => element,
        BaseType::AnyArray => element.and_then(BaseType::array),
        BaseType::AnyCompatible => common,
        BaseType::AnyCompatibleArray => common.and_then(BaseType::array),
        other => Some(other),
    };
    let unsettled = || {
        SqlError::new(
            SqlState::INDETERMINATE_DATATYPE,
            "could not determine polymorphic type because input has type unknown",
        )
    };
    for (to, from) in declared.iter_mut().zip(inputs) {
        // Vectors stay what they are: functions over any array take them directly.
        *to = match *to {
            BaseType::AnyArray if !from.is_unknown() => from.base,
            other => replace(other).ok_or_else(unsettled)?,
        };
    }
    Ok(DataType::plain(replace(result).ok_or_else(unsettled)?))
}
