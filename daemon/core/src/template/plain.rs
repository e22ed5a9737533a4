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
    let (mut rest, mut line) = (source, 1);
    while let Some(start) = find(rest, b'{') {
        let (text, tag) = rest.split_at(start);
        // A backslash in front of braces takes their meaning away.
        if text.ends_with('\\') {
            return None;
        }
        push_text(&mut parts, text);
        line += newlines(text);
        let length = find(tag, b'}')?;
        let inside = &tag[2..length];
        let (root, path) = names(inside)?;
        let known = references.shared_ones().find(|known| known.root == root && known.path == path).cloned();
        let reference = known.unwrap_or_else(|| {
            let reference = Arc::new(Reference { root, path, open: false });
            references.add_shared(Arc::clone(&reference));
            reference
        });
        parts.push(Part::Value { value: Operand::Name(reference), line });
        line += newlines(inside);
        rest = &tag[length + 2..];
    }
    push_text(&mut parts, rest);
    Some((parts, references))
}

/// Where the byte is twice in a row.
fn find(text: &str, byte: u8) -> Option<usize> {
    text.as_bytes().windows(2).position(|pair| pair == [byte; 2])
}

fn push_text(parts: &mut Vec<Part>, text: &str) {
    if !text.is_empty() {
        parts.push(Part::Text(text.into()));
    }
}

fn newlines(text: &str) -> u32 {
    text.bytes().filter(|byte| *byte == b'\n').count() as u32
}

/// `vars.port`: a first name that everybody knows, and the names after it.
fn names(inside: &str) -> Option<(Root, Vec<String>)> {
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
    Some((root, path))
}
