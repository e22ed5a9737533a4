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
    let tags = source.as_bytes().windows(2).filter(|pair| pair == b"{{").count();
    if tags > MAX_TAGS {
        return None;
    }
    // Hundreds of templates are kept at once: what they take is exactly what they need.
    let (mut parts, mut references) = (Vec::with_capacity(2 * tags + 1), References::default());
    let mut known: Vec<(&str, Arc<Reference>)> = Vec::with_capacity(tags);
    let (bytes, mut line, mut from, mut at) = (source.as_bytes(), 1, 0, 0);
    while at < bytes.len() {
        match bytes[at] {
            b'\n' => line += 1,
            // A backslash in front of braces takes their meaning away.
            b'\\' if bytes[at + 1..].starts_with(b"{{") => return None,
            b'{' if bytes.get(at + 1) == Some(&b'{') => {
                push_text(&mut parts, &source[from..at]);
                let inside = &source[at + 2..];
                let inside = &inside[..inside.as_bytes().windows(2).position(|pair| pair == b"}}")?];
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
                line += inside.bytes().filter(|byte| *byte == b'\n').count() as u32;
                at += inside.len() + 4;
                from = at;
                continue;
            }
            _ => {}
        }
        at += 1;
    }
    push_text(&mut parts, &source[from..]);
    Some((parts, references))
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
