//! Templates: Handlebars, parsed by the `handlebars` crate and rendered here, on our own values, strictly and within
//! the same budget as expressions. Nothing is HTML-escaped, nothing is rendered twice.
//! Knows no file: a template is its text, and what it makes is text.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::context::Context;
use crate::expression::meter::Meter;
use crate::expression::{EvaluationError, EvaluationErrorKind, SyntaxError};
use crate::references::References;

mod digest;
mod helpers;
mod limits;
mod lower;
mod plain;
mod render;

/// Longest template, in bytes.
pub const MAX_SOURCE_BYTES: usize = 256 * 1024;

/// Most `{{` of one template: the parser counts lines anew for each.
pub const MAX_TAGS: usize = 2000;

/// Most text that one template makes, in bytes.
pub const MAX_OUTPUT_BYTES: usize = 16 * 1024 * 1024;

/// Steps of one rendering: the budget of an expression, and as much again for each 16 bytes of the longest output.
const STEPS: u64 = 2_000_000 + MAX_OUTPUT_BYTES as u64 / 16;

/// A parsed template. Parse once, render often.
#[derive(Debug)]
pub struct Template {
    body: Vec<render::Part>,
    references: References,
    /// Bytes of the last output would do; the source's length is near enough to reserve.
    length: usize,
}

impl Template {
    /// Parses Handlebars. Unknown helpers and unknown first names are errors here already; partials and decorators are
    /// refused.
    pub fn parse(source: &str) -> Result<Template, SyntaxError> {
        if let Some((body, references)) = plain::parse(source) {
            return Ok(Template { body, references, length: source.len() });
        }
        limits::check(source)?;
        let (body, references) = lower::parse(source)?;
        Ok(Template { body, references, length: source.len() })
    }

    /// What it reads.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// Its text. Errors name the line of the template; at most [`MAX_OUTPUT_BYTES`].
    pub fn render(&self, context: &Context) -> Result<String, EvaluationError> {
        let mut output = Output { text: String::with_capacity(self.length * 2), meter: Meter::of(STEPS) };
        render::render(&self.body, None, context, &mut output)?;
        Ok(output.text)
    }
}

/// The text so far, and the budget of all that makes it.
struct Output {
    text: String,
    meter: Meter,
}

impl Output {
    fn push(&mut self, text: &str) -> Result<(), EvaluationError> {
        self.meter.bytes(text.len())?;
        if self.text.len() + text.len() > MAX_OUTPUT_BYTES {
            let message = format!("the template makes more than {MAX_OUTPUT_BYTES} bytes");
            return Err(EvaluationError { message, kind: EvaluationErrorKind::TooCostly });
        }
        self.text.push_str(text);
        Ok(())
    }
}

/// Parsed templates by their text: many tasks with one body cost one parse.
#[derive(Debug, Default)]
pub struct TemplateCache {
    parsed: BTreeMap<String, Arc<Template>>,
}

impl TemplateCache {
    /// An empty cache. It forgets nothing: let it live as long as a segment.
    pub fn new() -> Self {
        Self::default()
    }

    /// The template with this text, parsed now if it was not before.
    pub fn get(&mut self, source: &str) -> Result<Arc<Template>, SyntaxError> {
        if let Some(template) = self.parsed.get(source) {
            return Ok(template.clone());
        }
        let template = Arc::new(Template::parse(source)?);
        self.parsed.insert(source.to_owned(), template.clone());
        Ok(template)
    }
}

#[cfg(test)]
mod tests;
