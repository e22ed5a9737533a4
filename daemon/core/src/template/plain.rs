//! The templates that most books have: text, and names in braces. They are read here in one pass, some hundred times
//! faster than by the Handlebars grammar; everything else is left to it, errors included.
//! Knows only what means the same in any place: no block, helper, comment, `~`, escape, bracket or `this`.

use super::render::{Base, Operand, Part};
use super::{MAX_SOURCE_BYTES, MAX_TAGS};
use crate::references::{Reference, References, Root};

/// The template, if it is a plain one.
pub(super) fn parse(source: &str) -> Option<(Vec<Part>, References)> {
    if source.len() > MAX_SOURCE_BYTES {
        return None;
    }
    let (mut parts, mut references) = (Vec::with_capacity(9), References::default());
    let (mut rest, mut line, mut tags) = (source, 1, 0);
    while let Some(start) = rest.find("{{") {
        let (text, tag) = rest.split_at(start);
        tags += 1;
        // A backslash in front of braces takes their meaning away.
        if tags > MAX_TAGS || text.ends_with('\\') {
            return None;
        }
        push_text(&mut parts, text);
        line += newlines(text);
        let length = tag.find("}}")?;
        let inside = &tag[2..length];
        let (root, path, written) = names(inside)?;
        references.add(Reference { root, path: path.clone(), open: false });
        let value = Operand::Path { base: Base::Root(root), path, written: written.to_owned() };
        parts.push(Part::Value { value, line });
        line += newlines(inside);
        rest = &tag[length + 2..];
    }
    push_text(&mut parts, rest);
    Some((parts, references))
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.to_owned()));
    }
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u32
}

/// `vars.port`: a first name that everybody knows, and the names after it.
fn names(inside: &str) -> Option<(Root, Vec<String>, &str)> {
    let written = inside.trim_matches([' ', '\t', '\r', '\n']);
    let mut names = written.split('.');
    let root = Root::find(names.next()?)?;
    let mut path = Vec::with_capacity(3);
    for name in names {
        let is_plain = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-');
        if !is_plain || name.is_empty() || name == "this" {
            return None;
        }
        path.push(name.to_owned());
    }
    Some((root, path, written))
}
