//! Choosing among overloads: PostgreSQL's `func_select_candidate`, and what to say when it fails.

use rustydb_types::datatype::{BaseType, Category, DataType};

use super::super::cast::{self, CastContext};
use super::super::catalogue::{Function, Operator};
use super::polymorphic::polymorphic_consistent;
use crate::error::{SqlError, SqlState};

/// The parameter types of a call with `count` arguments; `None` when that many do not fit.
pub(super) fn spread(function: &Function, count: usize) -> Option<Vec<BaseType>> {
    if let Some(element) = function.variadic {
        let fixed = function.args.len() - 1;
        if count < fixed + 1 {
            return None;
        }
        let mut params = function.args.get(..fixed)?.to_vec();
        params.resize(count, element);
        return Some(params);
    }
    let most = function.args.len();
    let fewest = most - function.defaults;
    (fewest..=most).contains(&count).then(|| function.args.get(..count).map(<[_]>::to_vec))?
}

/// Why no candidate was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    None,
    Ambiguous,
}

pub(super) fn exact_operator(
    candidates: &[&'static Operator],
    inputs: [BaseType; 2],
) -> Option<&'static Operator> {
    let [mut left, mut right] = inputs;
    if left == BaseType::Unknown && right == BaseType::Unknown {
        return None;
    }
    if left == BaseType::Unknown {
        left = right;
    } else if right == BaseType::Unknown {
        right = left;
    }
    let exact = candidates.iter().copied().find(|op| op.left == Some(left) && op.right == right);
    let is_array = left == right && left.category() == Category::Array;
    // An untyped literal beside an array is an array of the same type, which only the polymorphic row takes.
    exact.or_else(|| {
        let any = BaseType::AnyArray;
        candidates.iter().copied().find(|op| is_array && op.left == Some(any) && op.right == any)
    })
}

/// PostgreSQL's `func_select_candidate` over candidates that can take the inputs at all.
pub(super) fn choose<T: Clone>(
    candidates: &[T],
    params: impl Fn(&T) -> Vec<BaseType>,
    inputs: &[BaseType],
) -> Result<Option<T>, Failure> {
    let mut left: Vec<(T, Vec<BaseType>)> = candidates
        .iter()
        .map(|candidate| (candidate.clone(), params(candidate)))
        .filter(|(_, declared)| {
            declared.len() == inputs.len()
                && declared.iter().zip(inputs).all(|(to, from)| can_coerce(*from, *to))
                && polymorphic_consistent(declared, inputs)
        })
        .collect();
    if left.len() <= 1 {
        return Ok(left.pop().map(|(candidate, _)| candidate));
    }
    let keep_best = |left: Vec<(T, Vec<BaseType>)>, score: &dyn Fn(&[BaseType]) -> usize| {
        let best = left.iter().map(|(_, declared)| score(declared)).max().unwrap_or(0);
        left.into_iter().filter(|(_, declared)| score(declared) == best).collect::<Vec<_>>()
    };
    left = keep_best(left, &|declared| {
        declared.iter().zip(inputs).filter(|(to, from)| **from != BaseType::Unknown && to == from).count()
    });
    if left.len() == 1 {
        return Ok(left.pop().map(|(candidate, _)| candidate));
    }
    left = keep_best(left, &|declared| {
        declared
            .iter()
            .zip(inputs)
            .filter(|(to, from)| {
                **from != BaseType::Unknown
                    && (to == from || (to.category() == from.category() && to.is_preferred()))
            })
            .count()
    });
    if left.len() == 1 || !inputs.contains(&BaseType::Unknown) {
        return one_or_ambiguous(left);
    }
    let mut by_category = left.clone();
    let mut resolved = true;
    let mut wanted: Vec<Option<(Category, bool)>> = vec![None; inputs.len()];
    for (position, input) in inputs.iter().enumerate() {
        if *input != BaseType::Unknown {
            continue;
        }
        let at = |declared: &[BaseType]| declared.get(position).copied();
        let categories: Vec<Category> =
            left.iter().filter_map(|(_, d)| at(d)).map(BaseType::category).collect();
        let category = if categories.contains(&Category::String) {
            Category::String
        } else if categories.windows(2).all(|pair| pair[0] == pair[1]) {
            match categories.first() {
                Some(category) => *category,
                None => return Ok(None),
            }
        } else {
            resolved = false;
            break;
        };
        let preferred =
            left.iter().filter_map(|(_, d)| at(d)).any(|to| to.category() == category && to.is_preferred());
        if let Some(slot) = wanted.get_mut(position) {
            *slot = Some((category, preferred));
        }
    }
    if resolved {
        by_category.retain(|(_, declared)| {
            declared.iter().zip(&wanted).all(|(to, wanted)| match wanted {
                Some((category, preferred)) => {
                    to.category() == *category && (!preferred || to.is_preferred())
                }
                None => true,
            })
        });
        if by_category.len() == 1 {
            return Ok(by_category.pop().map(|(candidate, _)| candidate));
        }
        if !by_category.is_empty() {
            left = by_category;
        }
    }
    // The unknown inputs are taken to be of the type of the known ones, if those agree.
    let mut known = inputs.iter().copied().filter(|input| *input != BaseType::Unknown);
    if let Some(first) = known.next()
        && known.all(|other| other == first)
    {
        let fitting: Vec<_> = left
            .iter()
            .filter(|(_, declared)| {
                let all_known = vec![first; declared.len()];
                declared.iter().all(|to| can_coerce(first, *to))
                    && polymorphic_consistent(declared, &all_known)
            })
            .cloned()
            .collect();
        if fitting.len() == 1 {
            return one_or_ambiguous(fitting);
        }
    }
    Err(Failure::Ambiguous)
}

pub(super) fn one_or_ambiguous<T>(mut left: Vec<(T, Vec<BaseType>)>) -> Result<Option<T>, Failure> {
    if left.len() > 1 {
        return Err(Failure::Ambiguous);
    }
    Ok(left.pop().map(|(candidate, _)| candidate))
}

/// Whether an implicit conversion exists; polymorphic targets take what they must.
pub(super) fn can_coerce(from: BaseType, to: BaseType) -> bool {
    let is_array = from.category() == Category::Array;
    from == to
        || match to {
            BaseType::Any | BaseType::AnyElement | BaseType::AnyCompatible => true,
            BaseType::AnyNonArray => !is_array,
            BaseType::AnyEnum => matches!(from, BaseType::Unknown | BaseType::Enum(_)),
            BaseType::AnyArray | BaseType::AnyCompatibleArray => is_array || from == BaseType::Unknown,
            _ => from == BaseType::Unknown || cast::context(from, to) == Some(CastContext::Implicit),
        }
}

pub(super) fn operator_error(
    failure: Failure,
    name: &str,
    left: Option<DataType>,
    right: DataType,
) -> SqlError {
    let signature = match left {
        Some(left) => format!("{} {name} {}", left.base, right.base),
        None => format!("{name} {}", right.base),
    };
    match failure {
        Failure::None => SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("operator does not exist: {signature}"),
        )
        .with_hint("No operator matches the given name and argument types. You might need to add explicit type casts."),
        Failure::Ambiguous => SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("operator is not unique: {signature}"),
        )
        .with_hint("Could not choose a best candidate operator. You might need to add explicit type casts."),
    }
}

pub(super) fn function_error(failure: Failure, name: &str, types: &[DataType]) -> SqlError {
    let list = types.iter().map(|ty| ty.base.to_string()).collect::<Vec<_>>().join(", ");
    match failure {
        Failure::None => SqlError::new(
            SqlState::UNDEFINED_FUNCTION,
            format!("function {name}({list}) does not exist"),
        )
        .with_hint("No function matches the given name and argument types. You might need to add explicit type casts."),
        Failure::Ambiguous => SqlError::new(
            SqlState::AMBIGUOUS_FUNCTION,
            format!("function {name}({list}) is not unique"),
        )
        .with_hint("Could not choose a best candidate function. You might need to add explicit type casts."),
    }
}
