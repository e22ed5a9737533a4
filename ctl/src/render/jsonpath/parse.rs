//! Text to a template.

use super::{Part, Step};
use serde_json::Value as Json;

/// Ranges in ranges; more are a mistake.
const MAX_DEPTH: usize = 8;

/// A range that is open: where it goes, and the parts before it.
type Open = (Vec<Step>, Vec<Part>);

pub(super) fn template(text: &str) -> Result<Vec<Part>, String> {
    if text.trim().is_empty() {
        return Err("the template is empty: write a path as in `{.metadata.name}`".into());
    }
    if !text.contains('{') {
        return Ok(vec![Part::Path(path(text.trim())?)]);
    }
    let (mut parts, mut open): (Vec<Part>, Vec<Open>) = (Vec::new(), Vec::new());
    let mut rest = text;
    while let Some(start) = rest.find('{') {
        if start > 0 {
            parts.push(Part::Text(rest[..start].to_owned()));
        }
        let end =
            closing(&rest[start..]).ok_or_else(|| format!("the brace of {} is not closed", near(&rest[start..])))?;
        let inner = rest[start + 1..start + end].trim();
        rest = &rest[start + end + 1..];
        if let Some(over) = inner.strip_prefix("range").filter(|over| over.starts_with([' ', '.', '['])) {
            if open.len() >= MAX_DEPTH {
                return Err(format!("more than {MAX_DEPTH} ranges in one another"));
            }
            open.push((path(over.trim())?, std::mem::take(&mut parts)));
        } else if inner == "end" {
            let (over, before) = open.pop().ok_or("an `{end}` without a `{range …}`")?;
            let body = std::mem::replace(&mut parts, before);
            parts.push(Part::Range(over, body));
        } else if inner.starts_with(['"', '\'']) {
            parts.push(Part::Text(literal(inner)?));
        } else {
            parts.push(Part::Path(path(inner)?));
        }
    }
    if !rest.is_empty() {
        parts.push(Part::Text(rest.to_owned()));
    }
    if open.is_empty() { Ok(parts) } else { Err("a `{range …}` without its `{end}`".into()) }
}

/// Where the brace that the text begins with is closed, not counting braces in quotes.
fn closing(text: &str) -> Option<usize> {
    let mut quote = None;
    for (at, c) in text.char_indices() {
        match quote {
            Some(open) if c == open => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None if c == '}' => return Some(at),
            None => {}
        }
    }
    None
}

/// `"\n"`: text in quotes, with the usual escapes.
fn literal(text: &str) -> Result<String, String> {
    let mut chars = text.chars();
    let quote = chars.next();
    let mut out = String::new();
    while let Some(c) = chars.next() {
        match c {
            '\\' => out.push(match chars.next() {
                Some('n') => '\n',
                Some('t') => '\t',
                Some(other) => other,
                None => break,
            }),
            c if Some(c) == quote => {
                return if chars.as_str().is_empty() { Ok(out) } else { Err(format!("text after {}", near(text))) };
            }
            c => out.push(c),
        }
    }
    Err(format!("the quote of {} is not closed", near(text)))
}

fn path(text: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut rest = text.strip_prefix(['$', '@']).unwrap_or(text);
    while !rest.is_empty() {
        if let Some(tail) = rest.strip_prefix("..") {
            let (name, after) = word(tail)?;
            steps.push(Step::Below(name.to_owned()));
            rest = after;
        } else if let Some(tail) = rest.strip_prefix(".*") {
            steps.push(Step::All);
            rest = tail;
        } else if rest.starts_with('[') || rest.starts_with(".[") {
            let tail = rest.trim_start_matches('.');
            let end = bracket(tail).ok_or_else(|| format!("the bracket of {} is not closed", near(tail)))?;
            steps.push(bracketed(tail[1..end].trim())?);
            rest = &tail[end + 1..];
        } else if let Some(tail) = rest.strip_prefix('.') {
            // `{.}` is the value itself.
            if tail.is_empty() && steps.is_empty() {
                return Ok(steps);
            }
            let (name, after) = word(tail)?;
            steps.push(Step::Field(name.to_owned()));
            rest = after;
        } else if steps.is_empty() {
            let (name, after) = word(rest)?;
            steps.push(Step::Field(name.to_owned()));
            rest = after;
        } else {
            return Err(format!("a path goes on with `.` or `[`, not with {}", near(rest)));
        }
    }
    Ok(steps)
}

fn word(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(['.', '[', ' ', '=', '!', ')', '(', ']']).unwrap_or(text.len());
    if end == 0 { Err(format!("a name is missing before {}", near(text))) } else { Ok(text.split_at(end)) }
}

fn bracket(text: &str) -> Option<usize> {
    let (mut depth, mut quote) = (0, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), c) if c == open => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, '[') => depth += 1,
            (None, ']') if depth == 1 => return Some(at),
            (None, ']') => depth -= 1,
            _ => {}
        }
    }
    None
}

fn bracketed(inner: &str) -> Result<Step, String> {
    if inner == "*" {
        return Ok(Step::All);
    }
    if inner.starts_with(['"', '\'']) {
        return Ok(Step::Field(literal(inner)?));
    }
    if let Some(test) = inner.strip_prefix("?(").and_then(|test| test.strip_suffix(')')) {
        return condition(test);
    }
    let number = |text: &str| text.trim().parse::<i64>().map_err(|_| format!("{} is no index", near(text)));
    match inner.split_once(':') {
        Some((from, to)) => {
            let bound = |text: &str| if text.trim().is_empty() { Ok(None) } else { number(text).map(Some) };
            Ok(Step::Slice(bound(from)?, bound(to)?))
        }
        None => Ok(Step::Index(number(inner)?)),
    }
}

fn condition(test: &str) -> Result<Step, String> {
    for (sign, equal) in [("==", true), ("!=", false)] {
        if let Some((left, right)) = test.split_once(sign) {
            let right = right.trim();
            let value = match right.starts_with(['"', '\'']) {
                true => Json::from(literal(right)?),
                false => serde_json::from_str(right).map_err(|_| format!("{} is no value", near(right)))?,
            };
            return Ok(Step::Where(operand(left)?, Some((equal, value))));
        }
    }
    Ok(Step::Where(operand(test)?, None))
}

/// A condition's own path: conditions inside of it are no use, and would be recursion.
fn operand(text: &str) -> Result<Vec<Step>, String> {
    let text = text.trim();
    if text.contains("?(") { Err("a condition inside of a condition".into()) } else { path(text) }
}

fn near(text: &str) -> String {
    lockstep_apis::violation::shown(text)
}
