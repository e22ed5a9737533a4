//! The templates that most books have: text, and names in braces. They are read here in one pass, some hundred times
//! faster than by the Handlebars grammar; everything else is left to it, errors included.
//! Knows only what means the same in any place: no block, helper, comment, `~`, escape, bracket or `this`.

use std::sync::Arc;

use super::render::{Operand, Part};
use super::{MAX_SOURCE_BYTES, MAX_TAGS};
use crate::references::{Reference, References, Root};

/// The template, if it is a plain one.
pub(super) fn parse(source: &str) -> Option<(Vec<Part>, References)> {
    if source.len() > MAX_SOURCE_BYTES {
        return None;
    }
    let tags: Vec<usize> =
        std::iter::successors(next_tag(source, 0), |at| next_tag(source, at + 2)).take(MAX_TAGS + 1).collect();
    if tags.len() > MAX_TAGS {
        return None;
    }
    // Hundreds of templates are kept at once: what they take is exactly what they need.
    let (mut parts, mut references) = (Vec::with_capacity(2 * tags.len() + 1), References::default());
    let mut known: Vec<(&str, Arc<Reference>)> = Vec::with_capacity(tags.len());
    let (mut line, mut from) = (1, 0);
    for at in tags {
        // A backslash in front of braces takes their meaning away.
        if source[from..at].ends_with('\\') {
            return None;
        }
        push_text(&mut parts, &source[from..at]);
        line += lines(&source[from..at]);
        // No name has a brace, so that the next tag is behind this one's end.
        let rest = &source[at + 2..];
        let inside = &rest[..rest.find(['{', '}'])?];
        if !rest[inside.len()..].starts_with("}}") {
            return None;
        }
        let reference = match known.iter().find(|(text, _)| *text == inside) {
            Some((_, reference)) => Arc::clone(reference),
            None => {
                let reference = Arc::new(names(inside)?);
                references.add_shared(Arc::clone(&reference));
                known.push((inside, Arc::clone(&reference)));
                reference
            }
        };
        parts.push(Part::Value { value: Operand::Name(reference), line });
        line += lines(inside);
        from = at + inside.len() + 4;
    }
    push_text(&mut parts, &source[from..]);
    Some((parts, references))
}

/// Where the next `{{` is, from there on.
fn next_tag(source: &str, from: usize) -> Option<usize> {
    let mut from = from;
    loop {
        let at = from + source[from..].find('{')?;
        if source[at + 1..].starts_with('{') {
            return Some(at);
        }
        from = at + 1;
    }
}

fn lines(text: &str) -> u32 {
    text.bytes().map(|byte| u32::from(byte == b'\n')).sum()
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
}

/// `vars.port`: a first name that everybody knows, and the names after it.
fn names(inside: &str) -> Option<Reference> {
    let written = inside.trim_matches([' ', '\t', '\r', '\n']);
    let mut names = written.split('.');
    let root = Root::find(names.next()?)?;
    let mut path = Vec::with_capacity(names.clone().count());
    for name in names {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !is_plain || name.is_empty() || name == "this" {
            return None;
        }
        path.push(name.to_owned());
    }
    Some(Reference { root, path, open: false })
}
