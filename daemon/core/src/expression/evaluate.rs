//! The evaluator: our tree, a context and a budget in, a value out.
//! Borrows what is there and owns only what it makes; every step and every copied byte is paid for.

use std::borrow::Cow;

use lockstep_apis::v1alpha::Value;
use regex::Regex;

use super::functions::{self, Function};
use super::meter::Meter;
use super::operators;
use super::{EvaluationError, EvaluationErrorKind};
use crate::context::Context;
use crate::references::Root;

/// One node of a resolved expression.
#[derive(Debug)]
pub(crate) enum Node {
    Literal(Value),
    Root(Root),
    /// A loop's variable, counted from the innermost loop.
    Variable(usize),
    /// `labels`: of a node's labels, where what is missing is "".
    Select {
        operand: Box<Node>,
        field: String,
        labels: bool,
    },
    Has {
        operand: Box<Node>,
        field: String,
    },
    Index {
        pair: Box<[Node; 2]>,
        labels: bool,
    },
    List(Vec<Node>),
    Map(Vec<(Node, Node)>),
    Not(Box<Node>),
    Negate(Box<Node>),
    Logic {
        and: bool,
        pair: Box<[Node; 2]>,
    },
    If(Box<[Node; 3]>),
    Binary {
        operator: Operator,
        pair: Box<[Node; 2]>,
    },
    Call {
        function: Function,
        arguments: Vec<Node>,
        pattern: Option<Regex>,
    },
    Loop {
        kind: Loop,
        range: Box<Node>,
        condition: Option<Box<Node>>,
        body: Option<Box<Node>>,
    },
}

/// Which macro a loop was. `filter` is a map whose body is its variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loop {
    All,
    Exists,
    ExistsOne,
    Map,
}

/// An operator that needs both its operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Operator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Modulo,
    Equal,
    Differs,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
    In,
}

impl Operator {
    const ALL: [(&'static str, &'static str, Operator); 12] = [
        ("_+_", "+", Operator::Add),
        ("_-_", "-", Operator::Subtract),
        ("_*_", "*", Operator::Multiply),
        ("_/_", "/", Operator::Divide),
        ("_%_", "%", Operator::Modulo),
        ("_==_", "==", Operator::Equal),
        ("_!=_", "!=", Operator::Differs),
        ("_<_", "<", Operator::Less),
        ("_<=_", "<=", Operator::LessOrEqual),
        ("_>_", ">", Operator::Greater),
        ("_>=_", ">=", Operator::GreaterOrEqual),
        ("@in", "in", Operator::In),
    ];

    /// By the parser's name for it.
    pub(crate) fn find(name: &str) -> Option<Operator> {
        Self::ALL.into_iter().find(|(theirs, ..)| *theirs == name).map(|(.., operator)| operator)
    }

    /// As it is written.
    pub(crate) fn sign(self) -> &'static str {
        Self::ALL.into_iter().find(|(.., operator)| *operator == self).map_or("", |(_, sign, _)| sign)
    }
}

impl Node {
    pub(super) fn literal_text(&self) -> Option<&str> {
        match self {
            Node::Literal(value) => value.as_text(),
            _ => None,
        }
    }

    pub(super) fn children(&self) -> Vec<&Node> {
        match self {
            Node::Literal(_) | Node::Root(_) | Node::Variable(_) => Vec::new(),
            Node::Select { operand, .. } | Node::Has { operand, .. } => vec![operand],
            Node::Not(operand) | Node::Negate(operand) => vec![operand],
            Node::Index { pair, .. } | Node::Logic { pair, .. } | Node::Binary { pair, .. } => pair.iter().collect(),
            Node::If(three) => three.iter().collect(),
            Node::List(items) => items.iter().collect(),
            Node::Call { arguments, .. } => arguments.iter().collect(),
            Node::Map(entries) => entries.iter().flat_map(|(key, value)| [key, value]).collect(),
            Node::Loop { range, condition, body, .. } => {
                [Some(range), condition.as_ref(), body.as_ref()].into_iter().flatten().map(Box::as_ref).collect()
            }
        }
    }

    /// How a user would write the start of it, for messages: `vars.port`.
    fn written(&self) -> String {
        match self {
            Node::Root(root) => root.name().to_owned(),
            Node::Select { operand, field, .. } | Node::Has { operand, field } => {
                format!("{}.{field}", operand.written())
            }
            Node::Index { pair, .. } => match &pair[1] {
                Node::Literal(value) => format!("{}[{}]", pair[0].written(), operators::quoted(value)),
                _ => format!("{}[…]", pair[0].written()),
            },
            _ => "it".to_owned(),
        }
    }
}

/// The variables of the loops around.
#[derive(Clone, Copy)]
pub(crate) struct Frame<'f> {
    value: &'f Value,
    outer: Option<&'f Frame<'f>>,
}

/// The value of a node. Borrowed where it was there already.
pub(crate) fn evaluate<'f>(
    node: &'f Node,
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    meter.steps(1)?;
    match node {
        Node::Literal(value) => Ok(Cow::Borrowed(value)),
        Node::Root(root) => context.root(*root).map(Cow::Borrowed),
        Node::Variable(above) => {
            let mut found = frame;
            for _ in 0..*above {
                found = found.and_then(|frame| frame.outer);
            }
            let frame = found.expect("invariant: names were resolved when the expression was parsed");
            Ok(Cow::Borrowed(frame.value))
        }
        Node::Select { operand, field, labels } => {
            known(operand, field, context)?;
            let from = evaluate(operand, frame, context, meter)?;
            field_of(from, field, *labels, operand)
        }
        Node::Has { operand, field } => {
            known(operand, field, context)?;
            let from = evaluate(operand, frame, context, meter)?;
            match from.as_map() {
                Some(entries) => Ok(Cow::Owned(entries.contains_key(field).into())),
                None => Err(no_fields(operand, &from, field)),
            }
        }
        Node::Index { pair, labels } => index(pair, *labels, frame, context, meter),
        Node::List(items) => {
            let items = items.iter().map(|item| own(evaluate(item, frame, context, meter)?, meter));
            Ok(Cow::Owned(Value::list(items.collect::<Result<Vec<_>, _>>()?)))
        }
        Node::Map(entries) => map(entries, frame, context, meter),
        Node::Not(operand) => {
            let truth = truth(&*evaluate(operand, frame, context, meter)?, "!")?;
            Ok(Cow::Owned((!truth).into()))
        }
        Node::Negate(operand) => operators::negate(&*evaluate(operand, frame, context, meter)?).map(Cow::Owned),
        Node::Logic { and, pair } => logic(*and, pair, frame, context, meter),
        Node::If(three) => {
            let condition = truth(&*evaluate(&three[0], frame, context, meter)?, "?")?;
            evaluate(if condition { &three[1] } else { &three[2] }, frame, context, meter)
        }
        Node::Binary { operator, pair } => {
            let left = evaluate(&pair[0], frame, context, meter)?;
            let right = evaluate(&pair[1], frame, context, meter)?;
            operators::binary(*operator, left, &right, meter).map(Cow::Owned)
        }
        Node::Call { function, arguments, pattern } => {
            let arguments = arguments.iter().map(|argument| evaluate(argument, frame, context, meter));
            let arguments = arguments.collect::<Result<Vec<_>, _>>()?;
            functions::call(*function, &arguments, pattern.as_ref(), meter).map(Cow::Owned)
        }
        Node::Loop { kind, range, condition, body } => {
            let range = evaluate(range, frame, context, meter)?;
            let round = Round { condition: condition.as_deref(), body: body.as_deref(), frame, context };
            run_loop(*kind, &range, &round, meter).map(Cow::Owned)
        }
    }
}

/// Makes a value one's own; copying is paid for.
pub(crate) fn own(value: Cow<'_, Value>, meter: &mut Meter) -> Result<Value, EvaluationError> {
    if let Cow::Borrowed(value) = value {
        meter.value(value)?;
    }
    Ok(value.into_owned())
}

/// Refuses what a task gives that did not run, in a check.
fn known(operand: &Node, field: &str, context: &Context) -> Result<(), EvaluationError> {
    match operand {
        Node::Root(root @ (Root::Results | Root::Shared | Root::All)) => context.known(*root, field),
        Node::Root(Root::Vars) => context.known_variable(field),
        _ => Ok(()),
    }
}

fn field_of<'f>(
    from: Cow<'f, Value>,
    field: &str,
    labels: bool,
    operand: &Node,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let found = match from {
        Cow::Borrowed(value) => value.get(field).map(Cow::Borrowed),
        Cow::Owned(ref value) => value.get(field).cloned().map(Cow::Owned),
    };
    match found {
        Some(value) => Ok(value),
        None if labels && from.as_map().is_some() => Ok(Cow::Owned(Value::text(""))),
        None => Err(no_fields(operand, &from, field)),
    }
}

fn no_fields(operand: &Node, from: &Value, field: &str) -> EvaluationError {
    missing(&operand.written(), from, field)
}

/// The error for a name that is not in a value: names it, and the nearest that is.
pub(crate) fn missing(written: &str, from: &Value, field: &str) -> EvaluationError {
    let Some(entries) = from.as_map() else {
        return EvaluationError::wrong(format!(
            "`{written}` is {} and has no field `{field}`",
            operators::described(from)
        ));
    };
    let hint = match lockstep_apis::nearest::nearest(field, entries.keys().map(String::as_str)) {
        Some(near) => format!("did you mean `{near}`?"),
        None if entries.is_empty() => format!("`{written}` is empty"),
        None => {
            let mut names: Vec<&str> = entries.keys().take(8).map(String::as_str).collect();
            if entries.len() > names.len() {
                names.push("…");
            }
            format!("there are {}", names.join(", "))
        }
    };
    EvaluationError::wrong(format!("`{written}.{field}` is not there: {hint}"))
}

fn index<'f>(
    pair: &'f [Node; 2],
    labels: bool,
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let [operand, at] = pair;
    let at = evaluate(at, frame, context, meter)?;
    if let Some(field) = at.as_text() {
        known(operand, field, context)?;
        let from = evaluate(operand, frame, context, meter)?;
        return field_of(from, field, labels, operand);
    }
    let from = evaluate(operand, frame, context, meter)?;
    let (Some(items), Some(position)) = (from.as_list(), at.as_integer()) else {
        return Err(EvaluationError::wrong(format!(
            "`{}` is {} and cannot be indexed with {}",
            operand.written(),
            operators::described(&from),
            operators::described(&at)
        )));
    };
    let count = items.len();
    let outside = || {
        EvaluationError::wrong(format!("`{}` has {count} items, counted from 0: no [{position}]", operand.written()))
    };
    let position = usize::try_from(position).map_err(|_| outside())?;
    match from {
        Cow::Borrowed(value) => {
            value.as_list().and_then(|items| items.get(position)).map(Cow::Borrowed).ok_or_else(outside)
        }
        Cow::Owned(ref value) => {
            let item = value.as_list().and_then(|items| items.get(position)).ok_or_else(outside)?;
            own(Cow::Borrowed(item), meter).map(Cow::Owned)
        }
    }
}

fn map<'f>(
    entries: &'f [(Node, Node)],
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let mut made = std::collections::BTreeMap::new();
    for (key, value) in entries {
        let key = evaluate(key, frame, context, meter)?;
        let Some(key) = key.as_text() else {
            return Err(EvaluationError::wrong(format!("a map's keys are texts, not {}", operators::described(&key))));
        };
        meter.bytes(key.len())?;
        let value = own(evaluate(value, frame, context, meter)?, meter)?;
        if made.insert(key.to_owned(), value).is_some() {
            return Err(EvaluationError::wrong(format!("the key `{key}` is in the map twice")));
        }
    }
    Ok(Cow::Owned(made.into()))
}

fn truth(value: &Value, sign: &str) -> Result<bool, EvaluationError> {
    value.as_bool().ok_or_else(|| {
        EvaluationError::wrong(format!("`{sign}` needs true or false, not {}", operators::described(value)))
    })
}

/// `&&` and `||`: either side may decide, even if the other has no value; CEL's rule.
fn logic<'f>(
    and: bool,
    pair: &'f [Node; 2],
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
    meter: &mut Meter,
) -> Result<Cow<'f, Value>, EvaluationError> {
    let sign = if and { "&&" } else { "||" };
    let left = evaluate(&pair[0], frame, context, meter).and_then(|value| truth(&value, sign));
    match left {
        Ok(truth) if truth != and => return Ok(Cow::Owned(truth.into())),
        Err(error) if error.kind == EvaluationErrorKind::TooCostly => return Err(error),
        _ => {}
    }
    let right = evaluate(&pair[1], frame, context, meter).and_then(|value| truth(&value, sign));
    match (left, right) {
        (_, Err(error)) if error.kind == EvaluationErrorKind::TooCostly => Err(error),
        (_, Ok(truth)) if truth != and => Ok(Cow::Owned(truth.into())),
        (Err(error), _) | (_, Err(error)) => Err(error),
        (Ok(_), Ok(truth)) => Ok(Cow::Owned(truth.into())),
    }
}

/// What each round of a loop evaluates, and in what.
struct Round<'f> {
    condition: Option<&'f Node>,
    body: Option<&'f Node>,
    frame: Option<&'f Frame<'f>>,
    context: &'f Context,
}

impl Round<'_> {
    fn condition(&self, item: &Value, meter: &mut Meter) -> Result<bool, EvaluationError> {
        let Some(condition) = self.condition else { return Ok(true) };
        let frame = Frame { value: item, outer: self.frame };
        truth(&*evaluate(condition, Some(&frame), self.context, meter)?, "the condition of a loop")
    }

    fn body(&self, item: &Value, meter: &mut Meter) -> Result<Value, EvaluationError> {
        let frame = Frame { value: item, outer: self.frame };
        let body = self.body.expect("invariant: a loop that makes a list has a body");
        own(evaluate(body, Some(&frame), self.context, meter)?, meter)
    }
}

fn run_loop(kind: Loop, range: &Value, round: &Round<'_>, meter: &mut Meter) -> Result<Value, EvaluationError> {
    let keys: Vec<Value>;
    let items = match (range.as_list(), range.as_map()) {
        (Some(items), _) => items,
        (_, Some(entries)) => {
            entries.keys().try_for_each(|key| meter.bytes(key.len()))?;
            keys = entries.keys().map(|key| Value::text(key.as_str())).collect();
            &keys
        }
        _ => {
            let what = operators::described(range);
            return Err(EvaluationError::wrong(format!("only lists and maps can be gone through, not {what}")));
        }
    };
    match kind {
        Loop::Map => {
            let mut made = Vec::new();
            for item in items {
                if round.condition(item, meter)? {
                    made.push(round.body(item, meter)?);
                }
            }
            Ok(made.into())
        }
        Loop::ExistsOne => {
            let mut count = 0;
            for item in items {
                count += u32::from(round.condition(item, meter)?);
            }
            Ok((count == 1).into())
        }
        Loop::All | Loop::Exists => any_or_all(kind == Loop::All, items, round, meter),
    }
}

/// An item that decides wins over one that has no value, as with `&&` and `||`.
fn any_or_all(all: bool, items: &[Value], round: &Round<'_>, meter: &mut Meter) -> Result<Value, EvaluationError> {
    let mut failed = None;
    for item in items {
        match round.condition(item, meter) {
            Ok(truth) if truth != all => return Ok(truth.into()),
            Ok(_) => {}
            Err(error) if error.kind == EvaluationErrorKind::TooCostly => return Err(error),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    failed.map_or(Ok(all.into()), Err)
}
