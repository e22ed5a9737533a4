//! Trees as text: YAML in block style that reads back as the same tree, and JSON.

use crate::tree::{Content, Node, Scalar, resolve};

/// Appends a document.
pub(super) fn yaml(node: &Node<'_>, out: &mut String) {
    match &node.content {
        Content::Map(entries) if !entries.is_empty() => block(node, 0, out),
        Content::List(items) if !items.is_empty() => block(node, 0, out),
        _ => {
            inline(node, 0, out);
            out.push('\n');
        }
    }
}

/// A list or map that is not empty, each line at `indent`; the cursor is at the start of a line.
fn block(node: &Node<'_>, indent: usize, out: &mut String) {
    pad(indent, out);
    block_here(node, indent, out);
}

/// The same, with the cursor where the first line's text begins.
fn block_here(node: &Node<'_>, indent: usize, out: &mut String) {
    match &node.content {
        Content::Map(entries) => {
            for (at, entry) in entries.iter().enumerate() {
                if at > 0 {
                    pad(indent, out);
                }
                scalar(&entry.key, out);
                out.push(':');
                if is_block(&entry.value) {
                    out.push('\n');
                    block(&entry.value, indent + 2, out);
                } else {
                    out.push(' ');
                    inline(&entry.value, indent, out);
                    out.push('\n');
                }
            }
        }
        Content::List(items) => {
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    pad(indent, out);
                }
                out.push_str("- ");
                if is_block(item) {
                    block_here(item, indent + 2, out);
                } else {
                    inline(item, indent, out);
                    out.push('\n');
                }
            }
        }
        Content::Plain(_) | Content::Text(_) => {}
    }
}

fn is_block(node: &Node<'_>) -> bool {
    match &node.content {
        Content::Map(entries) => !entries.is_empty(),
        Content::List(items) => !items.is_empty(),
        Content::Plain(_) | Content::Text(_) => false,
    }
}

/// A scalar or something empty. `indent` is of the line that it stands in.
fn inline(node: &Node<'_>, indent: usize, out: &mut String) {
    match &node.content {
        Content::Map(_) => out.push_str("{}"),
        Content::List(_) => out.push_str("[]"),
        Content::Plain(text) => out.push_str(text),
        Content::Text(text) if fits_literal(text) => literal(text, indent + 2, out),
        Content::Text(text) => scalar(text, out),
    }
}

fn pad(indent: usize, out: &mut String) {
    out.extend(std::iter::repeat_n(' ', indent));
}

/// Text of several lines that a literal block gives back unchanged: no character that needs an escape, no first line
/// whose own blanks would be taken for indentation.
fn fits_literal(text: &str) -> bool {
    text.trim_end_matches('\n').contains('\n')
        && !text.starts_with([' ', '\n', '\t'])
        && text.chars().all(|c| c == '\n' || c == '\t' || is_printable(c))
        // Blank lines of spaces at the end are easily lost.
        && !text.trim_end_matches('\n').ends_with([' ', '\t'])
}

fn literal(text: &str, indent: usize, out: &mut String) {
    let body = text.trim_end_matches('\n');
    let ends = text.len() - body.len();
    out.push_str(match ends {
        0 => "|-",
        1 => "|",
        _ => "|+",
    });
    for line in body.split('\n') {
        out.push('\n');
        if !line.is_empty() {
            pad(indent, out);
            out.push_str(line);
        }
    }
    // The last line end is the caller's.
    out.extend(std::iter::repeat_n('\n', ends.saturating_sub(1)));
}

/// One line: plain if every reader takes it for the same text, else in double quotes.
fn scalar(text: &str, out: &mut String) {
    if is_plain(text) {
        return out.push_str(text);
    }
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if is_printable(c) => out.push(c),
            c if u32::from(c) <= 0xffff => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push_str(&format!("\\U{:08x}", u32::from(c))),
        }
    }
    out.push('"');
}

/// No control, no line separator of YAML 1.1, nothing invisible that reorders text.
fn is_printable(c: char) -> bool {
    !c.is_control()
        && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
        && !('\u{200b}'..='\u{200f}').contains(&c)
        && !('\u{202a}'..='\u{202e}').contains(&c)
        && !('\u{2060}'..='\u{2069}').contains(&c)
}

fn is_plain(text: &str) -> bool {
    let first_ok = text.starts_with(|c: char| c.is_alphanumeric() || "/_.".contains(c));
    first_ok
        && text.chars().all(|c| is_printable(c) && !"{}[],".contains(c))
        && !text.contains(": ")
        && !text.contains(" #")
        && !text.ends_with([' ', ':'])
        && matches!(resolve(text), Scalar::Text(_))
        && !is_ambiguous(text)
}

/// Readers of YAML 1.1 take it for something else; and numbers with signs, colons or a percent look like no text.
fn is_ambiguous(text: &str) -> bool {
    const WORDS: [&str; 8] = ["y", "n", "yes", "no", "on", "off", "true", "false"];
    WORDS.iter().any(|word| word.eq_ignore_ascii_case(text))
        || text.bytes().all(|b| b.is_ascii_digit() || b"_:.+-%eExXoO".contains(&b))
        || text.starts_with("...")
        // A date.
        || (text.len() >= 8 && text.bytes().take(4).all(|b| b.is_ascii_digit()) && text.as_bytes()[4] == b'-')
}

/// JSON with escapes for what may stand in its strings but not in a file: C1 controls, and what reorders text.
pub(super) fn escape_unprintable(json: &str) -> String {
    let mut text = String::with_capacity(json.len());
    for c in json.chars() {
        match c == '\n' || is_printable(c) {
            true => text.push(c),
            false => text.push_str(&format!("\\u{:04x}", u32::from(c))),
        }
    }
    text
}

/// A tree as JSON.
pub(super) fn json(node: &Node<'_>) -> serde_json::Value {
    match &node.content {
        Content::Map(entries) => entries.iter().map(|e| (e.key.to_string(), json(&e.value))).collect(),
        Content::List(items) => items.iter().map(json).collect(),
        Content::Plain(_) | Content::Text(_) => match node.scalar() {
            Some(Scalar::Bool(boolean)) => boolean.into(),
            Some(Scalar::Integer(integer)) => integer.into(),
            Some(Scalar::Number(number)) => serde_json::Number::from_f64(number).into(),
            Some(Scalar::Text(text)) => text.into(),
            // Only `uint64` counters are that large.
            Some(Scalar::HugeInteger) => node.raw().and_then(|raw| raw.parse::<u64>().ok()).into(),
            Some(Scalar::Null) | None => serde_json::Value::Null,
        },
    }
}
