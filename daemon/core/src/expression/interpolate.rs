//! `${{ … }}` inside texts and trees of values. What an expression gives is data: it is never read as an expression.
//! Knows nothing of which fields are interpolated; see `parameters`.

use std::borrow::Cow;

use lockstep_apis::v1alpha::{Value, ValueMap, value::Kind};

use super::meter::Meter;
use super::{EvaluationError, Expression, SyntaxError, operators};
use crate::context::Context;
use crate::references::References;

/// What begins an expression inside a text. `$${{` stands for these three characters themselves.
pub(crate) const OPEN: &str = "${{";

/// A text with expressions inside.
#[derive(Debug)]
pub struct Text {
    pieces: Vec<Piece>,
    references: References,
}

#[derive(Debug)]
enum Piece {
    Literal(String),
    Expression(Expression),
}

impl Text {
    /// Parses a text. Positions in errors count within it.
    pub fn parse(source: &str) -> Result<Text, SyntaxError> {
        let mut text = Text { pieces: Vec::new(), references: References::default() };
        let mut literal = String::new();
        let mut rest = source;
        while let Some(start) = rest.find(OPEN) {
            if let Some(before) = rest[..start].strip_suffix('$') {
                literal.push_str(before);
                literal.push_str(OPEN);
                rest = &rest[start + OPEN.len()..];
                continue;
            }
            literal.push_str(&rest[..start]);
            let inside = &rest[start + OPEN.len()..];
            let offset = source.len() - inside.len();
            let length = end_of_expression(inside).ok_or_else(|| SyntaxError {
                message: "`${{` has no `}}` that closes it; write `$${{` for the characters themselves".to_owned(),
                ..at(source, offset - OPEN.len())
            })?;
            let expression = parse_inside(source, offset, &inside[..length])?;
            if !literal.is_empty() {
                text.pieces.push(Piece::Literal(std::mem::take(&mut literal)));
            }
            text.references.extend(expression.references());
            text.pieces.push(Piece::Expression(expression));
            rest = &inside[length + 2..];
        }
        literal.push_str(rest);
        if !literal.is_empty() {
            text.pieces.push(Piece::Literal(literal));
        }
        Ok(text)
    }

    /// What its expressions read.
    pub fn references(&self) -> &References {
        &self.references
    }

    /// The value: of the expression's own type if the text is one expression and nothing else, else text.
    pub fn render(&self, context: &Context) -> Result<Value, EvaluationError> {
        self.render_within(context, &mut Meter::new())
    }

    fn render_within(&self, context: &Context, meter: &mut Meter) -> Result<Value, EvaluationError> {
        if let [Piece::Expression(expression)] = self.pieces.as_slice() {
            return expression.evaluate_within(context, meter).map_err(|error| error.within(&named(expression)));
        }
        let mut rendered = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Literal(literal) => {
                    meter.bytes(literal.len())?;
                    rendered.push_str(literal);
                }
                Piece::Expression(expression) => {
                    let piece =
                        text_of(expression, context, meter).map_err(|error| error.within(&named(expression)))?;
                    meter.bytes(piece.len())?;
                    rendered.push_str(&piece);
                }
            }
        }
        Ok(rendered.into())
    }
}

fn text_of(expression: &Expression, context: &Context, meter: &mut Meter) -> Result<String, EvaluationError> {
    let value = expression.evaluate_within(context, meter)?;
    if value.is_null() {
        return Err(EvaluationError::wrong("is null, which has no place inside a text"));
    }
    match value.kind {
        Some(Kind::Text(text)) => Ok(text),
        _ => operators::scalar(&value).map(Cow::into_owned).ok_or_else(|| {
            let what = operators::described(&value);
            EvaluationError::wrong(format!("is {what}, which has no place inside a text: use `join`"))
        }),
    }
}

fn named(expression: &Expression) -> String {
    format!("`{}`", expression.source())
}

/// How long the expression is, up to the `}}` that closes it: not one in a string, nor the end of a map.
fn end_of_expression(inside: &str) -> Option<usize> {
    let bytes = inside.as_bytes();
    let (mut index, mut depth, mut quote) = (0, 0_usize, None);
    while let Some(&byte) = bytes.get(index) {
        match (quote, byte) {
            (Some(_), b'\\') => index += 1,
            (Some(open), _) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(byte),
            (None, b'{') => depth += 1,
            (None, b'}') if depth > 0 => depth -= 1,
            (None, b'}') if bytes.get(index + 1) == Some(&b'}') => return Some(index),
            _ => {}
        }
        index += 1;
    }
    None
}

fn parse_inside(source: &str, offset: usize, inside: &str) -> Result<Expression, SyntaxError> {
    let trimmed = inside.trim();
    let offset = offset + (inside.len() - inside.trim_start().len());
    Expression::parse(trimmed).map_err(|error| {
        let start = at(source, offset);
        let column = if error.line == 1 { start.column + error.column - 1 } else { error.column };
        SyntaxError { message: error.message, line: start.line + error.line - 1, column }
    })
}

fn at(source: &str, offset: usize) -> SyntaxError {
    let before = &source[..offset];
    let line = before.matches('\n').count() as u32 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u32 + 1;
    SyntaxError { message: String::new(), line, column }
}

/// A tree of values with expressions inside, parsed once.
#[derive(Debug)]
pub enum Interpolated {
    /// Nothing to do: the value as it is.
    Plain(Value),
    /// A text with expressions.
    Text(Text),
    /// A list, of which some items hold expressions.
    List(Vec<Interpolated>),
    /// A map, of which some values hold expressions.
    Map(Vec<(String, Interpolated)>),
}

impl Interpolated {
    /// Parses every text in the tree. Each error comes with the path of its text: `.argv[2]`.
    pub fn parse(value: &Value) -> Result<Interpolated, Vec<(String, SyntaxError)>> {
        let mut errors = Vec::new();
        let parsed = parse_tree(value, String::new(), &mut errors);
        if errors.is_empty() { Ok(parsed) } else { Err(errors) }
    }

    /// The tree with every expression replaced by its value.
    pub fn render(&self, context: &Context) -> Result<Value, EvaluationError> {
        self.render_within(context, &mut Meter::new())
    }

    fn render_within(&self, context: &Context, meter: &mut Meter) -> Result<Value, EvaluationError> {
        match self {
            Interpolated::Plain(value) => Ok(value.clone()),
            Interpolated::Text(text) => text.render_within(context, meter),
            Interpolated::List(items) => {
                let items = items.iter().map(|item| item.render_within(context, meter));
                Ok(items.collect::<Result<Vec<_>, _>>()?.into())
            }
            Interpolated::Map(entries) => {
                let entries = entries.iter().map(|(key, item)| Ok((key.clone(), item.render_within(context, meter)?)));
                Ok(Kind::Map(ValueMap { entries: entries.collect::<Result<_, EvaluationError>>()? }).into())
            }
        }
    }

    /// Adds what its expressions read.
    pub fn collect(&self, references: &mut References) {
        match self {
            Interpolated::Plain(_) => {}
            Interpolated::Text(text) => references.extend(text.references()),
            Interpolated::List(items) => items.iter().for_each(|item| item.collect(references)),
            Interpolated::Map(entries) => entries.iter().for_each(|(_, item)| item.collect(references)),
        }
    }
}

fn parse_tree(value: &Value, path: String, errors: &mut Vec<(String, SyntaxError)>) -> Interpolated {
    match &value.kind {
        Some(Kind::Text(text)) if text.contains(OPEN) => match Text::parse(text) {
            Ok(text) => Interpolated::Text(text),
            Err(error) => {
                errors.push((path, error));
                Interpolated::Plain(Value::null())
            }
        },
        Some(Kind::List(list)) if holds_expressions(value) => {
            let items = list.items.iter().enumerate();
            Interpolated::List(items.map(|(i, item)| parse_tree(item, format!("{path}[{i}]"), errors)).collect())
        }
        Some(Kind::Map(map)) if holds_expressions(value) => {
            let entries = map.entries.iter();
            let entries = entries.map(|(key, item)| (key.clone(), parse_tree(item, format!("{path}.{key}"), errors)));
            Interpolated::Map(entries.collect())
        }
        _ => Interpolated::Plain(value.clone()),
    }
}

/// Whether anything in the tree is to be rendered.
pub(crate) fn holds_expressions(value: &Value) -> bool {
    match &value.kind {
        Some(Kind::Text(text)) => text.contains(OPEN),
        Some(Kind::List(list)) => list.items.iter().any(holds_expressions),
        Some(Kind::Map(map)) => map.entries.values().any(holds_expressions),
        _ => false,
    }
}

/// Renders every `${{ }}` in a tree, parsing it first. Parse once with [`Interpolated`] where it is done often.
pub fn interpolate(value: &Value, context: &Context) -> Result<Value, EvaluationError> {
    let parsed = Interpolated::parse(value).map_err(|errors| {
        let texts: Vec<String> = errors.iter().map(|(path, error)| format!("{path}: {error}")).collect();
        EvaluationError::wrong(texts.join("; "))
    })?;
    parsed.render(context)
}
