//! Expressions: CEL, parsed by the `cel` crate and evaluated here, on our own values and within a budget.
//! Knows no clock, no randomness and nothing of the machine: an expression is a function of its [`Context`].
//!
//! The crate's own interpreter bounds neither time nor memory, so only its parser is used; see
//! `docs/decisions/0003-cel.md`.

use std::fmt;

use lockstep_apis::v1alpha::{Value, value::Kind};
use thiserror::Error;

use crate::context::Context;
use crate::references::References;

pub(crate) mod evaluate;
mod functions;
mod interpolate;
mod lower;
pub(crate) mod meter;
pub(crate) mod operators;

pub(crate) use functions::{compiled_pattern, join_texts};
pub use interpolate::{Interpolated, Text, interpolate};

use evaluate::Node;
use meter::Meter;

/// Longest source of one expression, in bytes.
pub const MAX_SOURCE_BYTES: usize = 64 * 1024;

/// Most operators, dots and brackets of one expression. The parser's work and the depth of its tree are bounded by it.
pub const MAX_OPERATORS: usize = 1000;

/// Deepest nesting of one expression, so that no stack overflows: a long `a + b + c …` nests as deep as it has terms.
pub const MAX_DEPTH: usize = 128;

/// A parsed expression. Parse once, evaluate often; evaluation allocates only for what it makes.
#[derive(Debug)]
pub struct Expression {
    source: String,
    node: Node,
    references: References,
}

/// Why a text is no expression or template, and where in it. Lines and columns count from 1.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct SyntaxError {
    /// What is wrong, and what to do.
    pub message: String,
    /// Line within the text.
    pub line: u32,
    /// Column within the line.
    pub column: u32,
}

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}, column {}: {}", self.line, self.column, self.message)
    }
}

/// Why an evaluation or a rendering has no value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{message}")]
pub struct EvaluationError {
    /// What is wrong, naming what was not there and the nearest that is.
    pub message: String,
    /// What sort of failure it is.
    pub kind: EvaluationErrorKind,
}

/// The sorts of [`EvaluationError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EvaluationErrorKind {
    /// A name, type or value does not fit.
    Wrong,
    /// It depends on a task that did not run, in a check: neither true nor false.
    Unknown,
    /// The budget of time and memory is spent.
    TooCostly,
}

impl EvaluationError {
    pub(crate) fn wrong(message: impl Into<String>) -> Self {
        Self { message: message.into(), kind: EvaluationErrorKind::Wrong }
    }

    /// Whether it depends on a task that did not run, in a check.
    pub fn is_unknown(&self) -> bool {
        self.kind == EvaluationErrorKind::Unknown
    }

    /// The same, with where it happened put in front.
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.message = format!("{place}: {}", self.message);
        self
    }
}

impl Expression {
    /// Parses CEL. Unknown functions and unknown first names are errors here already.
    pub fn parse(source: &str) -> Result<Expression, SyntaxError> {
        let parsed = lower::parse(source)?;
        Ok(Expression { source: source.to_owned(), node: parsed.0, references: parsed.1 })
    }

    /// The text it was parsed from.
    pub fn source(&self) -> &str {
        &self.source
    }

    /// What it reads.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Its value. Pure; bounded by a budget of one million steps, where 16 copied bytes are a step.
    pub fn evaluate(&self, context: &Context) -> Result<Value, EvaluationError> {
        self.evaluate_within(context, &mut Meter::new())
    }

    pub(crate) fn evaluate_within(&self, context: &Context, meter: &mut Meter) -> Result<Value, EvaluationError> {
        let value = evaluate::evaluate(&self.node, None, context, meter)?;
        evaluate::own(value, meter)
    }

    /// Its value, which must be a boolean.
    pub fn evaluate_bool(&self, context: &Context) -> Result<bool, EvaluationError> {
        let mut meter = Meter::new();
        let value = evaluate::evaluate(&self.node, None, context, &mut meter)?;
        self.as_bool(&value)
    }

    /// A value of it as a truth.
    pub(crate) fn as_bool(&self, value: &Value) -> Result<bool, EvaluationError> {
        match value.kind {
            Some(Kind::Boolean(truth)) => Ok(truth),
            _ => Err(EvaluationError::wrong(format!(
                "`{}` must be true or false, and is {}",
                self.source,
                operators::described(value)
            ))),
        }
    }
}

#[cfg(test)]
mod tests;
