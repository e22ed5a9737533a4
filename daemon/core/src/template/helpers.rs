//! The helpers of templates. All pure, all paid for.

use std::borrow::Cow;
use std::ops::RangeInclusive;

use lockstep_apis::v1alpha::Value;

use super::digest;
use super::render::{step, taken, truthy};
use crate::expression::EvaluationError;
use crate::expression::evaluate::Operator;
use crate::expression::meter::Meter;
use crate::expression::operators::{self, described, scalar};

/// A helper.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Helper {
    Default,
    Join,
    Json,
    Yaml,
    Base64,
    Sha256,
    Indent,
    Quote,
    Expression,
    Lookup,
    Length,
    Not,
    And,
    Or,
    Compare(Operator),
}

impl Helper {
    const ALL: [(&'static str, Helper, RangeInclusive<usize>, &'static str); 20] = [
        ("default", Helper::Default, 2..=8, "`{{default NAME \"value\"}}`"),
        ("join", Helper::Join, 1..=2, "`{{join LIST \", \"}}`"),
        ("json", Helper::Json, 1..=1, "`{{json VALUE}}`"),
        ("yaml", Helper::Yaml, 1..=1, "`{{yaml VALUE}}`"),
        ("b64", Helper::Base64, 1..=1, "`{{b64 TEXT}}`"),
        ("sha256", Helper::Sha256, 1..=1, "`{{sha256 TEXT}}`"),
        ("indent", Helper::Indent, 2..=2, "`{{indent TEXT 4}}`"),
        ("quote", Helper::Quote, 1..=1, "`{{quote TEXT}}`"),
        ("expr", Helper::Expression, 1..=1, "`{{expr \"CEL\"}}`"),
        ("lookup", Helper::Lookup, 2..=2, "`{{lookup VALUE NAME}}`"),
        ("len", Helper::Length, 1..=1, "`{{len VALUE}}`"),
        ("not", Helper::Not, 1..=1, "`{{#if (not VALUE)}}`"),
        ("and", Helper::And, 2..=8, "`{{#if (and A B)}}`"),
        ("or", Helper::Or, 2..=8, "`{{#if (or A B)}}`"),
        ("eq", Helper::Compare(Operator::Equal), 2..=2, "`{{#if (eq A B)}}`"),
        ("ne", Helper::Compare(Operator::Differs), 2..=2, "`{{#if (ne A B)}}`"),
        ("lt", Helper::Compare(Operator::Less), 2..=2, "`{{#if (lt A B)}}`"),
        ("lte", Helper::Compare(Operator::LessOrEqual), 2..=2, "`{{#if (lte A B)}}`"),
        ("gt", Helper::Compare(Operator::Greater), 2..=2, "`{{#if (gt A B)}}`"),
        ("gte", Helper::Compare(Operator::GreaterOrEqual), 2..=2, "`{{#if (gte A B)}}`"),
    ];

    pub(super) fn find(name: &str) -> Option<Helper> {
        Self::ALL.into_iter().find(|(theirs, ..)| *theirs == name).map(|(_, helper, ..)| helper)
    }

    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        Self::ALL.into_iter().map(|(name, ..)| name)
    }

    pub(super) fn takes(self) -> RangeInclusive<usize> {
        Self::ALL.into_iter().find(|(_, helper, ..)| *helper == self).map_or(0..=0, |(_, _, takes, _)| takes)
    }

    pub(super) fn usage(self) -> &'static str {
        Self::ALL.into_iter().find(|(_, helper, ..)| *helper == self).map_or("", |(.., usage)| usage)
    }
}

/// Calls a helper with as many arguments as it takes.
pub(super) fn call(helper: Helper, arguments: &[Cow<'_, Value>], meter: &mut Meter) -> Result<Value, EvaluationError> {
    let first = arguments.first().expect("invariant: every helper takes an argument").as_ref();
    match helper {
        Helper::Join => {
            let separator = arguments.get(1).map_or(Ok(Cow::Borrowed("")), |separator| text(helper, separator))?;
            Ok(crate::expression::join_texts(first, &separator, meter)?.into())
        }
        Helper::Json => {
            meter.value(first)?;
            Ok(serde_json::Value::from(first).to_string().into())
        }
        Helper::Yaml => {
            meter.value(first)?;
            let text = lockstep_apis::manifest::print_value_yaml(first);
            meter.bytes(text.len())?;
            Ok(text.trim_end().into())
        }
        Helper::Base64 | Helper::Sha256 | Helper::Quote => {
            let text = text(helper, first)?;
            // Hashing is some times dearer than copying.
            meter.bytes(text.len() * 4)?;
            Ok(match helper {
                Helper::Base64 => digest::base64(text.as_bytes()),
                Helper::Sha256 => digest::sha256_hex(text.as_bytes()),
                _ => serde_json::Value::from(text.into_owned()).to_string(),
            }
            .into())
        }
        Helper::Indent => indent(&text(helper, first)?, &arguments[1], meter).map(Value::from),
        Helper::Lookup => {
            let name = text(helper, &arguments[1])?;
            match step(first, &name) {
                Some(value) => taken(value, meter),
                None => Err(EvaluationError::wrong(format!("`lookup`: {} has no `{name}`", described(first)))),
            }
        }
        Helper::Length => {
            let length = match (first.as_list(), first.as_map(), first.as_text()) {
                (Some(items), ..) => items.len(),
                (_, Some(entries), _) => entries.len(),
                (.., Some(text)) => text.chars().count(),
                _ => return Err(EvaluationError::wrong(format!("`len` of {}: it has none", described(first)))),
            };
            Ok((length as i64).into())
        }
        Helper::Not => Ok((!truthy(first)).into()),
        Helper::And => Ok(arguments.iter().all(|argument| truthy(argument)).into()),
        Helper::Or => Ok(arguments.iter().any(|argument| truthy(argument)).into()),
        Helper::Compare(operator) => operators::binary(operator, Cow::Borrowed(first), &arguments[1], meter),
        // Both are done before their arguments are evaluated.
        Helper::Default | Helper::Expression => taken(first, meter),
    }
}

fn text(helper: Helper, value: &Value) -> Result<Cow<'_, str>, EvaluationError> {
    let usage = helper.usage();
    scalar(value).ok_or_else(|| EvaluationError::wrong(format!("{} is no text: {usage}", described(value))))
}

/// Puts spaces before every line that is not empty.
fn indent(text: &str, width: &Value, meter: &mut Meter) -> Result<String, EvaluationError> {
    let width = width.as_integer().and_then(|width| usize::try_from(width).ok()).filter(|width| *width <= 256);
    let Some(width) = width else {
        return Err(EvaluationError::wrong("`indent` takes a number of spaces from 0 to 256".to_owned()));
    };
    let lines = text.split_inclusive('\n').count();
    meter.bytes(text.len() + lines * width)?;
    let mut indented = String::with_capacity(text.len() + lines * width);
    for line in text.split_inclusive('\n') {
        if line != "\n" && line != "\r\n" {
            indented.extend(std::iter::repeat_n(' ', width));
        }
        indented.push_str(line);
    }
    Ok(indented)
}
