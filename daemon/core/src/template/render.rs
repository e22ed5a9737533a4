//! The renderer: our tree and a context in, text out. Borrows what is there and owns only what it makes.

use std::borrow::Cow;
use std::sync::Arc;

use lockstep_apis::v1alpha::{Value, value::Kind};

use super::Output;
use super::helpers::{self, Helper};
use crate::context::Context;
use crate::expression::evaluate::{missing, own};
use crate::expression::meter::Meter;
use crate::expression::operators::{described, scalar};
use crate::expression::{EvaluationError, Expression};
use crate::references::{Reference, Root};

/// One piece of a template.
#[derive(Debug)]
pub(super) enum Part {
    Text(Box<str>),
    Value { value: Operand, line: u32 },
    If { subject: Box<Operand>, negate: bool, then: Box<[Part]>, otherwise: Box<[Part]>, line: u32 },
    Each { subject: Box<Operand>, then: Box<[Part]>, otherwise: Box<[Part]>, line: u32 },
    With { subject: Box<Operand>, then: Box<[Part]>, otherwise: Box<[Part]>, line: u32 },
}

/// What has a value. Small: templates hold hundreds.
#[derive(Debug)]
pub(super) enum Operand {
    Literal(Box<Value>),
    /// A first name and what follows it, outside of all blocks.
    Name(Arc<Reference>),
    /// `written` is for errors.
    Path {
        base: Base,
        path: Box<[String]>,
        written: Box<str>,
    },
    Call {
        helper: Helper,
        arguments: Vec<Operand>,
    },
    Expression(Box<Expression>),
}

/// Where a path starts. Levels count blocks from the innermost.
#[derive(Clone, Copy, Debug)]
pub(super) enum Base {
    Root(Root),
    Item(usize),
    /// The second name of `as |value second|`: the index or the key.
    Second(usize),
    Index(usize),
    Key(usize),
    First(usize),
    Last(usize),
}

/// What the blocks around go through.
#[derive(Clone, Copy)]
pub(super) struct Frame<'f> {
    value: &'f Value,
    index: usize,
    key: Option<&'f str>,
    last: bool,
    outer: Option<&'f Frame<'f>>,
}

pub(super) fn render(
    parts: &[Part],
    frame: Option<&Frame<'_>>,
    context: &Context,
    output: &mut Output,
) -> Result<(), EvaluationError> {
    for part in parts {
        let at = |line: &u32| {
            let line = *line;
            move |error: EvaluationError| error.within(&format!("template line {line}"))
        };
        match part {
            Part::Text(text) => output.push(text)?,
            Part::Value { value, line } => {
                let value = evaluate(value, frame, context, &mut output.meter).map_err(at(line))?;
                match scalar(&value) {
                    Some(text) => output.push(&text)?,
                    None => {
                        let what = described(&value);
                        let hint = "use `json`, `yaml` or `join`";
                        return Err(at(line)(EvaluationError::wrong(format!("{what} is no text: {hint}"))));
                    }
                }
            }
            Part::If { subject, negate, then, otherwise, line } => {
                let subject = evaluate(subject, frame, context, &mut output.meter).map_err(at(line))?;
                let body = if truthy(&subject) != *negate { then } else { otherwise };
                render(body, frame, context, output)?;
            }
            Part::Each { subject, then, otherwise, line } => {
                let subject = evaluate(subject, frame, context, &mut output.meter).map_err(at(line))?;
                if !each(&subject, then, frame, context, output).map_err(|error| outermost(error, at(line)))? {
                    render(otherwise, frame, context, output)?;
                }
            }
            Part::With { subject, then, otherwise, line } => {
                let subject = evaluate(subject, frame, context, &mut output.meter).map_err(at(line))?;
                if truthy(&subject) {
                    let inner = Frame { value: &subject, index: 0, key: None, last: true, outer: frame };
                    render(then, Some(&inner), context, output)?;
                } else {
                    render(otherwise, frame, context, output)?;
                }
            }
        }
    }
    Ok(())
}

/// Puts the line in front of an error that has none yet.
fn outermost(error: EvaluationError, at: impl FnOnce(EvaluationError) -> EvaluationError) -> EvaluationError {
    if error.message.starts_with("template line ") { error } else { at(error) }
}

/// Renders a body for each item. False: there was none.
fn each(
    subject: &Value,
    body: &[Part],
    outer: Option<&Frame<'_>>,
    context: &Context,
    output: &mut Output,
) -> Result<bool, EvaluationError> {
    match &subject.kind {
        Some(Kind::List(list)) => {
            let count = list.items.len();
            for (index, value) in list.items.iter().enumerate() {
                output.meter.steps(1)?;
                let frame = Frame { value, index, key: None, last: index + 1 == count, outer };
                render(body, Some(&frame), context, output)?;
            }
            Ok(count > 0)
        }
        Some(Kind::Map(map)) => {
            let count = map.entries.len();
            for (index, (key, value)) in map.entries.iter().enumerate() {
                output.meter.steps(1)?;
                let frame = Frame { value, index, key: Some(key), last: index + 1 == count, outer };
                render(body, Some(&frame), context, output)?;
            }
            Ok(count > 0)
        }
        _ if subject.is_null() => Ok(false),
        _ => Err(EvaluationError::wrong(format!("`each` goes through lists and maps, not {}", described(subject)))),
    }
}

/// Handlebars' rule: null, false, 0, "" and what is empty are false.
pub(super) fn truthy(value: &Value) -> bool {
    match &value.kind {
        None | Some(Kind::Null(_)) => false,
        Some(Kind::Boolean(truth)) => *truth,
        Some(Kind::Integer(integer)) => *integer != 0,
        Some(Kind::Number(number)) => *number != 0.0 && !number.is_nan(),
        Some(Kind::Text(text)) => !text.is_empty(),
        Some(Kind::List(list)) => !list.items.is_empty(),
        Some(Kind::Map(map)) => !map.entries.is_empty(),
    }
}

/// The value of an operand. Borrowed where it was there already.
pub(super) fn evaluate<'f>(
    operand: &'f Operand,
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    meter.steps(1)?;
    match operand {
        Operand::Literal(value) => Ok(Cow::Borrowed(value)),
        Operand::Expression(expression) => {
            expression.evaluate_within(context, meter).map(Cow::Owned).map_err(|error| error.within("`expr`"))
        }
        Operand::Name(name) => follow(Base::Root(name.root), &name.path, "", frame, context),
        Operand::Path { base, path, written } => follow(*base, path, written, frame, context),
        Operand::Call { helper, arguments } => call(*helper, arguments, frame, context, meter),
    }
}

/// The value at the end of a path.
fn follow<'f>(
    base: Base,
    path: &'f [String],
    written: &str,
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let start = start(base, path, frame, context)?;
    let Cow::Borrowed(mut value) = start else { return Ok(start) };
    for (index, name) in path.iter().enumerate() {
        let Some(next) = step(value, name) else {
            if is_labels(base, &path[..index]) && value.as_map().is_some() {
                return Ok(Cow::Owned(Value::text("")));
            }
            return Err(not_there(&walked(base, &path[..index]), value, name, frame.is_some(), written));
        };
        value = next;
    }
    Ok(Cow::Borrowed(value))
}

fn call<'f>(
    helper: Helper,
    operands: &'f [Operand],
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    if helper == Helper::Default {
        for operand in operands {
            match evaluate(operand, frame, context, meter) {
                Ok(value) if !value.is_null() && value.as_text() != Some("") => return Ok(value),
                // What is not there is what a default is for; the rest of what can be wrong stays wrong.
                Err(error) if error.is_unknown() || !matches!(operand, Operand::Path { .. } | Operand::Name(_)) => {
                    return Err(error);
                }
                _ => {}
            }
        }
        return Ok(Cow::Owned(Value::text("")));
    }
    let arguments = operands.iter().map(|operand| evaluate(operand, frame, context, meter));
    let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
    helpers::call(helper, &arguments, meter).map(Cow::Owned)
}

fn start<'f>(
    base: Base,
    path: &[String],
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let at = |level: usize| {
        let mut found = frame;
        for _ in 0..level {
            found = found.and_then(|frame| frame.outer);
        }
        found.expect("invariant: names were resolved when the template was parsed")
    };
    Ok(match base {
        Base::Root(root) => {
            if let (Root::Results | Root::Shared | Root::All, Some(id)) = (root, path.first()) {
                context.known(root, id)?;
            }
            if let (Root::Vars, Some(name)) = (root, path.first()) {
                context.known_variable(name)?;
            }
            Cow::Borrowed(context.root(root)?)
        }
        Base::Item(level) => Cow::Borrowed(at(level).value),
        Base::Second(level) | Base::Key(level) if at(level).key.is_some() => {
            Cow::Owned(Value::text(at(level).key.unwrap_or_default()))
        }
        Base::Second(level) | Base::Index(level) | Base::Key(level) => Cow::Owned((at(level).index as i64).into()),
        Base::First(level) => Cow::Owned((at(level).index == 0).into()),
        Base::Last(level) => Cow::Owned(at(level).last.into()),
    })
}

/// A path as far as it could be followed, for errors.
fn walked(base: Base, names: &[String]) -> String {
    let root = match base {
        Base::Root(root) => Some(root.name()),
        _ => None,
    };
    root.into_iter().chain(names.iter().map(String::as_str)).collect::<Vec<_>>().join(".")
}

/// A field of a map, or an item of a list by its number.
pub(super) fn step<'v>(value: &'v Value, name: &str) -> Option<&'v Value> {
    match &value.kind {
        Some(Kind::Map(map)) => map.entries.get(name),
        Some(Kind::List(list)) => list.items.get(name.parse::<usize>().ok()?),
        _ => None,
    }
}

/// Whether what comes next is a label: what is missing there is "".
fn is_labels(base: Base, walked: &[String]) -> bool {
    let of_node = match base {
        Base::Root(Root::Node | Root::Delegate) => walked.len() == 1,
        Base::Root(Root::Nodes) => walked.len() == 2,
        Base::Item(_) => !walked.is_empty(),
        _ => false,
    };
    of_node && walked.last().is_some_and(|name| name == "labels")
}

fn not_there(walked: &str, value: &Value, name: &str, in_block: bool, written: &str) -> EvaluationError {
    if walked.is_empty() && in_block {
        let mut error = missing("this", value, name);
        if Root::find(name).is_some() {
            error.message = format!("`{written}` is not there: inside `each` and `with` write `@root.{written}`");
        }
        return error;
    }
    missing(walked, value, name)
}

/// Copies an argument for a helper that keeps it.
pub(super) fn taken(value: &Value, meter: &mut Meter) -> Result<Value, EvaluationError> {
    own(Cow::Borrowed(value), meter)
}
