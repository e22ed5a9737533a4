//! What the operators mean on values: arithmetic is checked, integers and numbers compare exactly, nothing converts
//! silently.

use std::borrow::Cow;
use std::cmp::Ordering;

use lockstep_apis::v1alpha::{Value, value::Kind};

use super::EvaluationError;
use super::evaluate::{Operator, own};
use super::meter::Meter;

/// `the text "x"`, `the list`: what a message calls a value. Never the whole of a long one.
pub(crate) fn described(value: &Value) -> String {
    match &value.kind {
        Some(Kind::List(list)) => format!("a list of {}", list.items.len()),
        Some(Kind::Map(_)) => "a map".to_owned(),
        None | Some(Kind::Null(_)) => "null".to_owned(),
        Some(Kind::Text(_)) => format!("the text {}", quoted(value)),
        Some(_) => format!("the {} {}", value.type_word(), quoted(value)),
    }
}

/// A scalar as it would be written, cut after 40 characters.
pub(crate) fn quoted(value: &Value) -> String {
    match &value.kind {
        Some(Kind::Text(text)) if text.chars().count() > 40 => {
            format!("\"{}…\"", text.chars().take(40).collect::<String>().escape_debug())
        }
        Some(Kind::Text(text)) => format!("\"{}\"", text.escape_debug()),
        _ => scalar(value).unwrap_or_else(|| "…".into()).into_owned(),
    }
}

/// The text of a scalar; `None` for lists and maps. Null is "".
pub(crate) fn scalar(value: &Value) -> Option<Cow<'_, str>> {
    match &value.kind {
        None | Some(Kind::Null(_)) => Some("".into()),
        Some(Kind::Boolean(truth)) => Some(if *truth { "true" } else { "false" }.into()),
        Some(Kind::Integer(integer)) => Some(integer.to_string().into()),
        Some(Kind::Number(number)) => Some(number_text(*number).into()),
        Some(Kind::Text(text)) => Some(text.as_str().into()),
        Some(Kind::List(_) | Kind::Map(_)) => None,
    }
}

/// Shortest text that reads back as the same number; an exponent only where the digits would be endless.
fn number_text(number: f64) -> String {
    let size = number.abs();
    if size != 0.0 && !(1e-7..1e17).contains(&size) { format!("{number:e}") } else { number.to_string() }
}

pub(super) fn negate(value: &Value) -> Result<Value, EvaluationError> {
    match &value.kind {
        Some(Kind::Integer(integer)) => {
            integer.checked_neg().map(Value::from).ok_or_else(|| EvaluationError::wrong("an integer overflowed at `-`"))
        }
        Some(Kind::Number(number)) => Ok((-number).into()),
        _ => Err(EvaluationError::wrong(format!("`-` needs a number, not {}", described(value)))),
    }
}

pub(crate) fn binary(
    operator: Operator,
    left: Cow<'_, Value>,
    right: &Value,
    meter: &mut Meter,
) -> Result<Value, EvaluationError> {
    match operator {
        Operator::Add => add(left, right, meter),
        Operator::Subtract | Operator::Multiply | Operator::Divide | Operator::Modulo => {
            arithmetic(operator, &left, right)
        }
        Operator::Equal => equal(&left, right, meter).map(Value::from),
        Operator::Differs => equal(&left, right, meter).map(|equal| (!equal).into()),
        Operator::In => contained(&left, right, meter).map(Value::from),
        Operator::Less | Operator::LessOrEqual | Operator::Greater | Operator::GreaterOrEqual => {
            let order = order(operator, &left, right, meter)?;
            Ok(order.is_some_and(|order| holds(operator, order)).into())
        }
    }
}

fn mismatch(operator: Operator, left: &Value, right: &Value) -> EvaluationError {
    let (left, right) = (described(left), described(right));
    EvaluationError::wrong(format!("`{}` does not go with {left} and {right}", operator.sign()))
}

fn add(left: Cow<'_, Value>, right: &Value, meter: &mut Meter) -> Result<Value, EvaluationError> {
    match (&left.kind, &right.kind) {
        (Some(Kind::Text(_)), Some(Kind::Text(more))) => {
            meter.bytes(more.len())?;
            let Some(Kind::Text(mut text)) = own(left, meter)?.kind else { return Ok(Value::null()) };
            text.push_str(more);
            Ok(text.into())
        }
        (Some(Kind::List(_)), Some(Kind::List(more))) => {
            meter.value(right)?;
            let Some(Kind::List(mut list)) = own(left, meter)?.kind else { return Ok(Value::null()) };
            list.items.extend(more.items.iter().cloned());
            Ok(Kind::List(list).into())
        }
        _ => arithmetic(Operator::Add, &left, right),
    }
}

fn arithmetic(operator: Operator, left: &Value, right: &Value) -> Result<Value, EvaluationError> {
    match (&left.kind, &right.kind) {
        (Some(Kind::Integer(a)), Some(Kind::Integer(b))) => {
            let (a, b) = (*a, *b);
            if b == 0 && matches!(operator, Operator::Divide | Operator::Modulo) {
                return Err(EvaluationError::wrong(format!("{a} {} 0: nothing divides by zero", operator.sign())));
            }
            let result = match operator {
                Operator::Add => a.checked_add(b),
                Operator::Subtract => a.checked_sub(b),
                Operator::Multiply => a.checked_mul(b),
                Operator::Divide => a.checked_div(b),
                _ => a.checked_rem(b),
            };
            result.map(Value::from).ok_or_else(|| {
                EvaluationError::wrong(format!("{a} {} {b} overflows an integer of 64 bits", operator.sign()))
            })
        }
        (Some(Kind::Number(a)), Some(Kind::Number(b))) => match operator {
            Operator::Add => Ok((a + b).into()),
            Operator::Subtract => Ok((a - b).into()),
            Operator::Multiply => Ok((a * b).into()),
            Operator::Divide => Ok((a / b).into()),
            _ => Err(mismatch(operator, left, right)),
        },
        _ => Err(mismatch(operator, left, right)),
    }
}

/// Deep equality; values of different types differ, but an integer equals the number that it is.
pub(crate) fn equal(left: &Value, right: &Value, meter: &mut Meter) -> Result<bool, EvaluationError> {
    meter.steps(1)?;
    Ok(match (&left.kind, &right.kind) {
        (Some(Kind::Integer(a)), Some(Kind::Number(b))) => compare_mixed(*a, *b) == Some(Ordering::Equal),
        (Some(Kind::Number(a)), Some(Kind::Integer(b))) => compare_mixed(*b, *a) == Some(Ordering::Equal),
        (Some(Kind::Text(a)), Some(Kind::Text(b))) => {
            meter.bytes(a.len().min(b.len()))?;
            a == b
        }
        (Some(Kind::List(a)), Some(Kind::List(b))) => {
            a.items.len() == b.items.len() && {
                for (a, b) in a.items.iter().zip(&b.items) {
                    if !equal(a, b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
        }
        (Some(Kind::Map(a)), Some(Kind::Map(b))) => {
            a.entries.len() == b.entries.len() && {
                for ((key, a), (other, b)) in a.entries.iter().zip(&b.entries) {
                    meter.bytes(key.len())?;
                    if key != other || !equal(a, b, meter)? {
                        return Ok(false);
                    }
                }
                true
            }
        }
        _ if left.is_null() && right.is_null() => true,
        (a, b) => a == b,
    })
}

fn contained(item: &Value, within: &Value, meter: &mut Meter) -> Result<bool, EvaluationError> {
    if let Some(items) = within.as_list() {
        for candidate in items {
            if equal(item, candidate, meter)? {
                return Ok(true);
            }
        }
        return Ok(false);
    }
    match (within.as_map(), item.as_text()) {
        (Some(entries), Some(key)) => Ok(entries.contains_key(key)),
        (Some(_), None) => Ok(false),
        _ => Err(mismatch(Operator::In, item, within)),
    }
}

/// `None`: not a number is neither less nor greater.
fn order(
    operator: Operator,
    left: &Value,
    right: &Value,
    meter: &mut Meter,
) -> Result<Option<Ordering>, EvaluationError> {
    Ok(match (&left.kind, &right.kind) {
        (Some(Kind::Integer(a)), Some(Kind::Integer(b))) => Some(a.cmp(b)),
        (Some(Kind::Number(a)), Some(Kind::Number(b))) => a.partial_cmp(b),
        (Some(Kind::Integer(a)), Some(Kind::Number(b))) => compare_mixed(*a, *b),
        (Some(Kind::Number(a)), Some(Kind::Integer(b))) => compare_mixed(*b, *a).map(Ordering::reverse),
        (Some(Kind::Boolean(a)), Some(Kind::Boolean(b))) => Some(a.cmp(b)),
        (Some(Kind::Text(a)), Some(Kind::Text(b))) => {
            meter.bytes(a.len().min(b.len()))?;
            Some(a.cmp(b))
        }
        _ => return Err(mismatch(operator, left, right)),
    })
}

fn holds(operator: Operator, order: Ordering) -> bool {
    match operator {
        Operator::Less => order.is_lt(),
        Operator::LessOrEqual => order.is_le(),
        Operator::Greater => order.is_gt(),
        _ => order.is_ge(),
    }
}

/// Exactly: an integer is never rounded to a number first.
fn compare_mixed(integer: i64, number: f64) -> Option<Ordering> {
    // Both bounds are powers of two, so they are exact as numbers.
    if number.is_nan() {
        None
    } else if number >= 9_223_372_036_854_775_808.0 {
        Some(Ordering::Less)
    } else if number < -9_223_372_036_854_775_808.0 {
        Some(Ordering::Greater)
    } else {
        let whole = number.trunc();
        let order = integer.cmp(&(whole as i64));
        Some(order.then_with(|| 0.0_f64.partial_cmp(&(number - whole)).unwrap_or(Ordering::Equal)))
    }
}
