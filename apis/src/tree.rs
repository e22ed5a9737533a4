//! A text form as a tree with positions: what the YAML parser makes, what the walk reads, what the printer writes.
//! Knows YAML's scalars, not our messages.

use std::borrow::Cow;

use crate::v1alpha::{Value, value};

/// Where something is in its file: both from 1, columns in characters. 0: nowhere, it came as a typed message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct At {
    pub(crate) line: u32,
    pub(crate) column: u32,
}

#[derive(Clone, Debug)]
pub(crate) struct Node<'t> {
    pub(crate) at: At,
    pub(crate) content: Content<'t>,
}

#[derive(Clone, Debug)]
pub(crate) enum Content<'t> {
    /// Unquoted: what it is, its text says.
    Plain(Cow<'t, str>),
    /// Quoted, or a block: text in any case.
    Text(Cow<'t, str>),
    List(Vec<Node<'t>>),
    /// In the order written, no key twice.
    Map(Vec<Entry<'t>>),
}

#[derive(Clone, Debug)]
pub(crate) struct Entry<'t> {
    pub(crate) key: Cow<'t, str>,
    pub(crate) at: At,
    pub(crate) value: Node<'t>,
}

/// A scalar by YAML's core schema 1.2.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Scalar<'n> {
    Null,
    Bool(bool),
    Integer(i64),
    /// An integer that does not fit.
    HugeInteger,
    /// May be infinite or no number.
    Number(f64),
    Text(&'n str),
}

impl<'t> Node<'t> {
    pub(crate) fn text(text: impl Into<Cow<'t, str>>) -> Self {
        Self { at: At::default(), content: Content::Text(text.into()) }
    }

    pub(crate) fn plain(text: impl Into<Cow<'t, str>>) -> Self {
        Self { at: At::default(), content: Content::Plain(text.into()) }
    }

    pub(crate) fn list(items: Vec<Node<'t>>) -> Self {
        Self { at: At::default(), content: Content::List(items) }
    }

    pub(crate) fn map(entries: Vec<Entry<'t>>) -> Self {
        Self { at: At::default(), content: Content::Map(entries) }
    }

    /// The scalar's meaning. `None`: a list or a map.
    pub(crate) fn scalar(&self) -> Option<Scalar<'_>> {
        match &self.content {
            Content::Plain(text) => Some(resolve(text)),
            Content::Text(text) => Some(Scalar::Text(text)),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    /// The scalar's text as written (after escapes).
    pub(crate) fn raw(&self) -> Option<&str> {
        match &self.content {
            Content::Plain(text) | Content::Text(text) => Some(text),
            Content::List(_) | Content::Map(_) => None,
        }
    }

    pub(crate) fn entries(&self) -> Option<&[Entry<'t>]> {
        match &self.content {
            Content::Map(entries) => Some(entries),
            _ => None,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Node<'t>> {
        self.entries()?.iter().find(|entry| entry.key == key).map(|entry| &entry.value)
    }

    /// The word for what it is, in messages to users.
    pub(crate) fn type_word(&self) -> &'static str {
        match &self.content {
            Content::List(_) => "a list",
            Content::Map(_) => "a map",
            Content::Plain(text) => match resolve(text) {
                Scalar::Null => "null",
                Scalar::Bool(_) => "a boolean",
                Scalar::Integer(_) | Scalar::HugeInteger => "an integer",
                Scalar::Number(_) => "a number",
                Scalar::Text(_) => "text",
            },
            Content::Text(_) => "text",
        }
    }
}

impl<'t> Entry<'t> {
    pub(crate) fn new(key: impl Into<Cow<'t, str>>, value: Node<'t>) -> Self {
        Self { key: key.into(), at: At::default(), value }
    }
}

impl<'v> From<&'v Value> for Node<'v> {
    fn from(value: &'v Value) -> Node<'v> {
        match &value.kind {
            None | Some(value::Kind::Null(_)) => Node::plain("null"),
            Some(value::Kind::Boolean(boolean)) => Node::plain(if *boolean { "true" } else { "false" }),
            Some(value::Kind::Integer(integer)) => Node::plain(integer.to_string()),
            Some(value::Kind::Number(number)) => Node::plain(number_text(*number)),
            Some(value::Kind::Text(text)) => Node::text(text.as_str()),
            Some(value::Kind::List(list)) => Node::list(list.items.iter().map(Node::from).collect()),
            Some(value::Kind::Map(map)) => {
                Node::map(map.entries.iter().map(|(key, value)| Entry::new(key.as_str(), value.into())).collect())
            }
        }
    }
}

/// A number so that it reads back as the same number and not as an integer.
pub(crate) fn number_text(number: f64) -> String {
    match number {
        n if n.is_nan() => ".nan".into(),
        n if n == f64::INFINITY => ".inf".into(),
        n if n == f64::NEG_INFINITY => "-.inf".into(),
        n => format!("{n:?}"),
    }
}

/// YAML 1.2, 10.3.2.
pub(crate) fn resolve(text: &str) -> Scalar<'_> {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Scalar::Null,
        "true" | "True" | "TRUE" => return Scalar::Bool(true),
        "false" | "False" | "FALSE" => return Scalar::Bool(false),
        ".nan" | ".NaN" | ".NAN" => return Scalar::Number(f64::NAN),
        ".inf" | ".Inf" | ".INF" | "+.inf" | "+.Inf" | "+.INF" => return Scalar::Number(f64::INFINITY),
        "-.inf" | "-.Inf" | "-.INF" => return Scalar::Number(f64::NEG_INFINITY),
        _ => {}
    }
    let first = text.as_bytes()[0];
    if !(first.is_ascii_digit() || b"+-.".contains(&first)) {
        return Scalar::Text(text);
    }
    let based = [("0o", 8), ("0x", 16)].into_iter().find_map(|(prefix, base)| Some((text.strip_prefix(prefix)?, base)));
    if let Some((digits, base)) = based
        && !digits.is_empty()
        && digits.chars().all(|c| c.is_digit(base))
    {
        return i64::from_str_radix(digits, base).map_or(Scalar::HugeInteger, Scalar::Integer);
    }
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if !unsigned.is_empty() && unsigned.bytes().all(|b| b.is_ascii_digit()) {
        return text.parse().map_or(Scalar::HugeInteger, Scalar::Integer);
    }
    if is_number(unsigned) { text.parse().map_or(Scalar::Text(text), Scalar::Number) } else { Scalar::Text(text) }
}

/// `( \. [0-9]+ | [0-9]+ ( \. [0-9]* )? ) ( [eE] [-+]? [0-9]+ )?`
fn is_number(text: &str) -> bool {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    let mantissa_ok = match mantissa.split_once('.') {
        Some((whole, part)) => digits(whole) && digits(part) && !(whole.is_empty() && part.is_empty()),
        None => !mantissa.is_empty() && digits(mantissa),
    };
    let exponent_ok = exponent.is_none_or(|e| {
        let e = e.strip_prefix(['+', '-']).unwrap_or(e);
        !e.is_empty() && digits(e)
    });
    mantissa_ok && exponent_ok
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_follow_the_core_schema_and_not_yaml_1_1() {
        for text in ["no", "on", "yes", "1:30", "0b1", "1_000", "v1", "-", "+", ".", "1.2.3", "e3", "0o8", "0xg", "25%"]
        {
            assert_eq!(resolve(text), Scalar::Text(text));
        }
        assert_eq!(resolve("0644"), Scalar::Integer(644));
        assert_eq!(resolve("0o644"), Scalar::Integer(420));
        assert_eq!(resolve("0x1F"), Scalar::Integer(31));
        assert_eq!(resolve("-7"), Scalar::Integer(-7));
        assert_eq!(resolve("9223372036854775808"), Scalar::HugeInteger);
        assert_eq!(resolve("1e3"), Scalar::Number(1000.0));
        assert_eq!(resolve(".5"), Scalar::Number(0.5));
        assert_eq!(resolve("1e400"), Scalar::Number(f64::INFINITY));
        assert_eq!(resolve("~"), Scalar::Null);
    }
}
