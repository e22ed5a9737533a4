//! The functions of the expression language. All pure, all paid for before they work.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use lockstep_apis::v1alpha::{Value, value::Kind};
use regex::{Regex, RegexBuilder};

use super::EvaluationError;
use super::meter::Meter;
use super::operators::{described, scalar};

/// Most memory of a compiled pattern, in bytes: bounds what one searched byte can cost.
const PATTERN_BYTES: usize = 64 * 1024;

/// Steps for each searched byte. Matching is linear in the text, with the pattern's size as its factor.
const STEPS_PER_SEARCHED_BYTE: u64 = 4;

/// Steps for a pattern that is only known at evaluation.
const STEPS_PER_PATTERN: u64 = 20_000;

/// A function. What stands before the dot is its first argument: `size(x)` and `x.size()` are one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Function {
    Size,
    Text,
    Integer,
    Number,
    Boolean,
    Type,
    Contains,
    StartsWith,
    EndsWith,
    Matches,
    Lower,
    Upper,
    Trim,
    Replace,
    Split,
    Join,
}

impl Function {
    const ALL: [(&'static str, Function, RangeInclusive<usize>); 16] = [
        ("size", Function::Size, 1..=1),
        ("string", Function::Text, 1..=1),
        ("int", Function::Integer, 1..=1),
        ("double", Function::Number, 1..=1),
        ("bool", Function::Boolean, 1..=1),
        ("type", Function::Type, 1..=1),
        ("contains", Function::Contains, 2..=2),
        ("startsWith", Function::StartsWith, 2..=2),
        ("endsWith", Function::EndsWith, 2..=2),
        ("matches", Function::Matches, 2..=2),
        ("lowerAscii", Function::Lower, 1..=1),
        ("upperAscii", Function::Upper, 1..=1),
        ("trim", Function::Trim, 1..=1),
        ("replace", Function::Replace, 3..=3),
        ("split", Function::Split, 2..=2),
        ("join", Function::Join, 1..=2),
    ];

    pub(super) fn find(name: &str) -> Option<Function> {
        Self::ALL.into_iter().find(|(theirs, ..)| *theirs == name).map(|(_, function, _)| function)
    }

    /// What the language calls them, and its macros.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(|(name, ..)| name).chain(["has", "all", "exists", "exists_one", "map", "filter"])
    }

    fn name(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, function, _)| *function == self).map_or("", |(name, ..)| name)
    }

    pub(super) fn takes(self) -> RangeInclusive<usize> {
        Self::ALL.into_iter().find(|(_, function, _)| *function == self).map_or(0..=0, |(.., takes)| takes)
    }
}

/// Compiles a pattern; the error is a sentence.
pub(crate) fn pattern(text: &str) -> Result<Regex, String> {
    compiled_pattern(text, PATTERN_BYTES)
}

/// Compiles a pattern within a bound; the error is a sentence.
pub(crate) fn compiled_pattern(text: &str, bytes: usize) -> Result<Regex, String> {
    RegexBuilder::new(text).size_limit(bytes).dfa_size_limit(1 << 20).nest_limit(50).build().map_err(
        |error| match error {
            regex::Error::CompiledTooBig(_) => {
                format!("the pattern `{text}` is too big once its repetitions are written out")
            }
            error => {
                let reason = error.to_string();
                let reason = reason.lines().last().unwrap_or_default().trim_start_matches("error: ");
                format!("`{text}` is no regular expression: {reason}")
            }
        },
    )
}

/// Calls a function with as many arguments as it takes.
pub(super) fn call(
    function: Function,
    arguments: &[Cow<'_, Value>],
    known: Option<&Regex>,
    meter: &mut Meter,
) -> Result<Value, EvaluationError> {
    let subject = arguments.first().expect("invariant: every function takes an argument").as_ref();
    match function {
        Function::Size => size(subject),
        Function::Text => text_of(subject, meter),
        Function::Integer => integer_of(subject),
        Function::Number => number_of(subject),
        Function::Boolean => boolean_of(subject),
        Function::Type => Ok(Value::text(subject.type_word())),
        Function::Join => join(subject, arguments.get(1).map(Cow::as_ref), meter),
        Function::Matches => {
            let (text, pattern_text) = (text(function, subject)?, text(function, &arguments[1])?);
            meter.steps(1 + text.len() as u64 * STEPS_PER_SEARCHED_BYTE)?;
            if let Some(known) = known {
                return Ok(known.is_match(text).into());
            }
            meter.steps(STEPS_PER_PATTERN)?;
            let pattern = pattern(pattern_text).map_err(EvaluationError::wrong)?;
            Ok(pattern.is_match(text).into())
        }
        _ => on_text(function, arguments, meter),
    }
}

fn on_text(function: Function, arguments: &[Cow<'_, Value>], meter: &mut Meter) -> Result<Value, EvaluationError> {
    let subject = text(function, &arguments[0])?;
    // Searching and copying; a search also walks what it looks for.
    meter.bytes(subject.len())?;
    let argument = |index: usize| text(function, &arguments[index]);
    Ok(match function {
        Function::Contains => subject.contains(argument(1)?).into(),
        Function::StartsWith => subject.starts_with(argument(1)?).into(),
        Function::EndsWith => subject.ends_with(argument(1)?).into(),
        Function::Lower => subject.to_ascii_lowercase().into(),
        Function::Upper => subject.to_ascii_uppercase().into(),
        Function::Trim => subject.trim().into(),
        Function::Split => {
            let parts: Vec<&str> = subject.split(argument(1)?).collect();
            meter.steps(parts.len() as u64)?;
            Value::list(parts.into_iter().map(Value::from))
        }
        _ => {
            let (from, to) = (argument(1)?, argument(2)?);
            // The growth is known before it happens.
            let found = subject.matches(from).count();
            meter.bytes(found.saturating_mul(to.len()))?;
            subject.replace(from, to).into()
        }
    })
}

fn text(function: Function, value: &Value) -> Result<&str, EvaluationError> {
    value.as_text().ok_or_else(|| {
        EvaluationError::wrong(format!("`{}` works on texts, not on {}", function.name(), described(value)))
    })
}

fn size(value: &Value) -> Result<Value, EvaluationError> {
    let count = match &value.kind {
        Some(Kind::Text(text)) => text.chars().count(),
        Some(Kind::List(list)) => list.items.len(),
        Some(Kind::Map(map)) => map.entries.len(),
        _ => return Err(EvaluationError::wrong(format!("`size` needs a text, list or map, not {}", described(value)))),
    };
    Ok((count as i64).into())
}

fn text_of(value: &Value, meter: &mut Meter) -> Result<Value, EvaluationError> {
    meter.value(value)?;
    match scalar(value) {
        Some(text) => Ok(text.into_owned().into()),
        None => Err(EvaluationError::wrong(format!("`string` does not work on {}: use `join`", described(value)))),
    }
}

fn integer_of(value: &Value) -> Result<Value, EvaluationError> {
    let integer = match &value.kind {
        Some(Kind::Integer(integer)) => Some(*integer),
        // Cut towards zero, as CEL does; both bounds are exact as numbers.
        Some(Kind::Number(number)) => (number.abs() < 9_223_372_036_854_775_808.0).then_some(*number as i64),
        Some(Kind::Text(text)) => text.trim().parse().ok(),
        _ => None,
    };
    integer
        .map(Value::from)
        .ok_or_else(|| EvaluationError::wrong(format!("{} is no integer of 64 bits", described(value))))
}

fn number_of(value: &Value) -> Result<Value, EvaluationError> {
    let number = match &value.kind {
        Some(Kind::Integer(integer)) => Some(*integer as f64),
        Some(Kind::Number(number)) => Some(*number),
        Some(Kind::Text(text)) => text.trim().parse().ok(),
        _ => None,
    };
    number.map(Value::from).ok_or_else(|| EvaluationError::wrong(format!("{} is no number", described(value))))
}

fn boolean_of(value: &Value) -> Result<Value, EvaluationError> {
    let truth = match (&value.kind, value.as_text()) {
        (Some(Kind::Boolean(truth)), _) => Some(*truth),
        (_, Some("true")) => Some(true),
        (_, Some("false")) => Some(false),
        _ => None,
    };
    truth.map(Value::from).ok_or_else(|| EvaluationError::wrong(format!("{} is not true or false", described(value))))
}

fn join(list: &Value, separator: Option<&Value>, meter: &mut Meter) -> Result<Value, EvaluationError> {
    let separator = separator.map_or(Ok(""), |separator| text(Function::Join, separator))?;
    let joined = join_texts(list, separator, meter)?;
    Ok(joined.into())
}

/// The texts of a list's items, with a separator between them.
pub(crate) fn join_texts(list: &Value, separator: &str, meter: &mut Meter) -> Result<String, EvaluationError> {
    let Some(items) = list.as_list() else {
        return Err(EvaluationError::wrong(format!("`join` needs a list, not {}", described(list))));
    };
    let mut joined = String::new();
    for (index, item) in items.iter().enumerate() {
        let Some(text) = scalar(item) else {
            let (index, what) = (index + 1, described(item));
            return Err(EvaluationError::wrong(format!("`join` joins texts and numbers; item {index} is {what}")));
        };
        meter.bytes(text.len() + separator.len())?;
        if index > 0 {
            joined.push_str(separator);
        }
        joined.push_str(&text);
    }
    Ok(joined)
}
