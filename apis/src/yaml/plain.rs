//! The YAML that most manifests are written in, read in one pass several times faster than by the library: block maps
//! and lists, plain and quoted scalars of one line, literal blocks, flow collections of one line, comments of their own
//! line. Whatever else there is, mistakes included, is left to the library. Knows no violation: it gives up instead.

use std::borrow::Cow;

use super::are_unique;
use crate::tree::{At, Content, Entry, Node};

/// Deepest nesting that is read here.
const MAX_DEPTH: usize = 24;

/// Longest key that is read here, in bytes.
const MAX_KEY: usize = 128;

/// The one document of a text, if it is written so.
pub(super) fn parse(text: &str) -> Option<Node<'_>> {
    let has_others = text.bytes().fold(false, |found, byte| found | matches!(byte, b'\t' | b'\r'));
    if has_others || text.contains('\u{feff}') || !text.ends_with('\n') {
        return None;
    }
    let mut reader = Reader { text, at: 0, line_start: 0, line: 1, depth: 0 };
    reader.skip_blank_lines();
    let document = reader.block()?;
    (reader.at == text.len()).then_some(document)
}

/// Stands at the first character of a line, after its indentation; or at the text's end.
struct Reader<'t> {
    text: &'t str,
    at: usize,
    line_start: usize,
    line: u32,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn rest(&self) -> &'t [u8] {
        &self.text.as_bytes()[self.at..]
    }

    /// Of the next character; lines are ASCII up to it.
    fn column(&self) -> usize {
        self.at - self.line_start
    }

    fn here(&self) -> At {
        At { line: self.line, column: self.column() as u32 + 1 }
    }

    /// From the start of a line to the first one that is neither empty nor a comment.
    fn skip_blank_lines(&mut self) {
        while self.line_start < self.text.len() {
            let bytes = &self.text.as_bytes()[self.line_start..];
            let indent = indentation(bytes);
            self.at = self.line_start + indent;
            match bytes.get(indent) {
                Some(b'\n') => self.next_line(),
                Some(b'#') => self.next_line(),
                _ => return,
            }
        }
        self.at = self.text.len();
    }

    fn next_line(&mut self) {
        let rest = self.rest();
        self.line_start = self.at + rest.iter().position(|byte| *byte == b'\n').map_or(rest.len(), |end| end + 1);
        self.at = self.line_start;
        self.line += 1;
    }

    /// The end of what the line holds, which must be here.
    fn end_line(&mut self) -> Option<()> {
        if self.rest().first() != Some(&b'\n') {
            return None;
        }
        self.next_line();
        self.skip_blank_lines();
        Some(())
    }

    fn deeper<T>(&mut self, read: impl FnOnce(&mut Self) -> Option<T>) -> Option<T> {
        self.depth += 1;
        let read = if self.depth > MAX_DEPTH { None } else { read(self) };
        self.depth -= 1;
        read
    }

    /// A list or a map that begins here.
    fn block(&mut self) -> Option<Node<'t>> {
        self.deeper(|own| if own.rest().starts_with(b"- ") { own.list() } else { own.map() })
    }

    fn map(&mut self) -> Option<Node<'t>> {
        let (at, indent) = (self.here(), self.column());
        let mut entries: Vec<Entry<'t>> = Vec::new();
        while self.at < self.text.len() && self.column() >= indent {
            if self.column() > indent {
                return None;
            }
            let at = self.here();
            let key = key(self.rest()).filter(|key| matches!(self.rest().get(key + 1), Some(b' ' | b'\n')))?;
            let key = &self.text[self.at..self.at + key];
            self.at += key.len() + 1;
            let value = match self.rest().first() {
                Some(b' ') => {
                    self.at += indentation(self.rest());
                    self.value(indent)?
                }
                _ => self.nested(indent)?,
            };
            entries.push(Entry { key: Cow::Borrowed(key), at, value });
        }
        (!entries.is_empty() && are_unique(&entries)).then_some(Node { at, content: Content::Map(entries) })
    }

    /// What stands below a key: deeper, or a list at the key's own indentation.
    fn nested(&mut self, indent: usize) -> Option<Node<'t>> {
        self.end_line()?;
        let column = self.column();
        if self.at == self.text.len() || column < indent {
            return None;
        }
        if column > indent {
            return self.block();
        }
        if !self.rest().starts_with(b"- ") {
            return None;
        }
        // As the library has it: such a list is where its first item is.
        let at = At { column: (column + 1 + indentation(&self.rest()[1..])) as u32 + 1, ..self.here() };
        Some(Node { at, ..self.block()? })
    }

    fn list(&mut self) -> Option<Node<'t>> {
        let (at, indent) = (self.here(), self.column());
        let mut items = Vec::new();
        while self.at < self.text.len() && self.column() >= indent {
            if self.column() > indent {
                return None;
            }
            if !self.rest().starts_with(b"- ") {
                // The next key of the map that this list belongs to; any other map cannot go on here.
                break;
            }
            self.at += 1;
            self.at += indentation(self.rest());
            let is_map = key(self.rest()).is_some_and(|key| matches!(self.rest().get(key + 1), Some(b' ' | b'\n')));
            items.push(if is_map { self.deeper(Self::map)? } else { self.value(indent)? });
        }
        Some(Node { at, content: Content::List(items) })
    }

    /// A value that begins on the line of its key or dash, up to the next line; `indent` is of the list or map.
    fn value(&mut self, indent: usize) -> Option<Node<'t>> {
        let at = self.here();
        let content = match self.rest().first()? {
            b'|' => return self.literal(indent),
            b'"' | b'\'' => self.quoted()?,
            b'{' | b'[' => self.flow()?.content,
            _ => {
                let length = self.rest().iter().position(|byte| *byte == b'\n')?;
                let text = plain(&self.text[self.at..self.at + length])?;
                self.at += length;
                Content::Plain(Cow::Borrowed(text))
            }
        };
        self.end_line()?;
        // A deeper line would go on with a plain scalar.
        (self.at == self.text.len() || self.column() <= indent).then_some(Node { at, content })
    }

    /// `|` or `|-`, and the lines below it, where its place is.
    fn literal(&mut self, parent: usize) -> Option<Node<'t>> {
        self.at += 1;
        let strip = self.rest().first() == Some(&b'-');
        self.at += usize::from(strip);
        if self.rest().first() != Some(&b'\n') {
            return None;
        }
        self.next_line();
        let indent = indentation(self.rest());
        let at = At { line: self.line, column: indent as u32 + 1 };
        if indent <= parent || matches!(self.rest().get(indent), None | Some(b'\n')) {
            return None;
        }
        let mut literal = String::new();
        while !self.rest().is_empty() {
            let own = indentation(self.rest());
            let is_blank = self.rest().get(own) == Some(&b'\n');
            if own < indent && !is_blank {
                // A comment that is indented may be one, or a mistake.
                if own > parent {
                    return None;
                }
                break;
            }
            if is_blank && own > indent {
                return None;
            }
            let start = self.line_start + own.min(indent);
            self.next_line();
            literal.push_str(&self.text[start..self.line_start]);
        }
        literal.truncate(literal.trim_end_matches('\n').len());
        if !strip {
            literal.push('\n');
        }
        self.skip_blank_lines();
        Some(Node { at, content: Content::Text(literal.into()) })
    }

    /// Text in quotes on one line, without escapes.
    fn quoted(&mut self) -> Option<Content<'t>> {
        let quote = self.rest()[0];
        let inside = &self.rest()[1..];
        let length = inside.iter().position(|byte| *byte == quote || !byte.is_ascii_graphic() && *byte != b' ')?;
        let is_whole = inside[length] == quote && inside.get(length + 1) != Some(&quote);
        if !is_whole || inside[..length].contains(&b'\\') {
            return None;
        }
        let text = &self.text[self.at + 1..self.at + 1 + length];
        self.at += length + 2;
        Some(Content::Text(Cow::Borrowed(text)))
    }

    /// A value inside brackets or braces, or one of these.
    fn flow(&mut self) -> Option<Node<'t>> {
        let at = self.here();
        let content = match self.rest().first()? {
            b'{' => Content::Map(self.deeper(Self::flow_map)?),
            b'[' => Content::List(self.deeper(Self::flow_list)?),
            b'"' | b'\'' => self.quoted()?,
            _ => {
                let length = self.rest().iter().position(|byte| matches!(byte, b',' | b'}' | b']' | b'\n'))?;
                let text = plain(self.text[self.at..self.at + length].trim_end_matches(' '))?;
                if text.contains(['{', '[', '"', '\'']) {
                    return None;
                }
                self.at += text.len();
                Content::Plain(Cow::Borrowed(text))
            }
        };
        Some(Node { at, content })
    }

    fn flow_map(&mut self) -> Option<Vec<Entry<'t>>> {
        let mut entries = Vec::new();
        while self.more(entries.is_empty(), b'}')? {
            let at = self.here();
            let key = key(self.rest()).filter(|key| self.rest().get(key + 1) == Some(&b' '))?;
            let key = &self.text[self.at..self.at + key];
            self.at += key.len() + 1;
            self.at += indentation(self.rest());
            let value = self.flow()?;
            entries.push(Entry { key: Cow::Borrowed(key), at, value });
        }
        are_unique(&entries).then_some(entries)
    }

    fn flow_list(&mut self) -> Option<Vec<Node<'t>>> {
        let mut items = Vec::new();
        while self.more(items.is_empty(), b']')? {
            items.push(self.flow()?);
        }
        Some(items)
    }

    /// Steps over the opening bracket or a comma to the next item; false over the closing one.
    fn more(&mut self, first: bool, close: u8) -> Option<bool> {
        if first {
            self.at += 1;
        }
        self.at += indentation(self.rest());
        match self.rest().first()? {
            byte if *byte == close => {
                self.at += 1;
                Some(false)
            }
            b',' if !first => {
                self.at += 1;
                self.at += indentation(self.rest());
                (self.rest().first() != Some(&close)).then_some(true)
            }
            _ if first => Some(true),
            _ => None,
        }
    }
}

fn indentation(bytes: &[u8]) -> usize {
    bytes.iter().position(|byte| *byte != b' ').unwrap_or(bytes.len())
}

/// The length of a key at the start, if a colon follows it.
fn key(bytes: &[u8]) -> Option<usize> {
    let length = bytes
        .iter()
        .position(|byte| !(byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-' | b'/')))
        .filter(|length| bytes[*length] == b':' && (1..=MAX_KEY).contains(length))?;
    (bytes[0].is_ascii_alphanumeric() || bytes[0] == b'_').then_some(length)
}

/// A scalar without quotes that means itself wherever it stands.
fn plain(text: &str) -> Option<&str> {
    let bytes = text.as_bytes();
    let first = *bytes.first()?;
    let starts = first.is_ascii_alphanumeric()
        || matches!(first, b'/' | b'.' | b'_' | b'$' | b'(' | b'+' | b'=' | b'~')
        || (first == b'-' && bytes.get(1).is_some_and(u8::is_ascii_alphanumeric));
    let is_clean = bytes.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let ends = !matches!(bytes.last(), Some(b' ' | b':'));
    let means_more = bytes.windows(2).any(|pair| matches!(pair, b": " | b" #"));
    (starts && is_clean && ends && !means_more).then_some(text)
}

#[cfg(test)]
mod tests;
