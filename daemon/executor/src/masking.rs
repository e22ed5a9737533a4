//! Takes secret values out of everything that leaves a segment: output, messages, diffs, results.
//! Knows eight encodings of each value and looks across the borders of chunks. Values shorter than four bytes are not
//! masked: they would hide ordinary text and so betray themselves.

mod encodings;

use std::borrow::Cow;

use lockstep_apis::v1alpha::{Value, value::Kind};

/// What stands in place of a secret.
pub const MASK: &[u8] = b"***";

/// Shorter values cannot be masked safely.
pub const SHORTEST_SECRET: usize = 4;

/// Longest value that is looked for whole; of a longer one its lines and this much of its start.
const LONGEST_PATTERN: usize = 64 * 1024;

/// The secret values of one segment, in all their encodings.
#[derive(Clone, Default)]
pub struct Masker {
    /// By first byte: the patterns that begin with it, longest first.
    by_first: Vec<Vec<Box<[u8]>>>,
    count: usize,
}

impl std::fmt::Debug for Masker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Masker({} patterns)", self.count)
    }
}

impl Masker {
    /// A masker without secrets: everything passes.
    pub fn new() -> Self {
        Self::default()
    }

    /// Nothing is looked for.
    pub fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds every text and number in a value. Returns whether a text was too short to be masked.
    pub fn add_value(&mut self, value: &Value) -> bool {
        match &value.kind {
            Some(Kind::Text(text)) => self.add(text.as_bytes()),
            // A result has numbers that are no secret, such as an exit code: short ones are nothing to tell.
            Some(Kind::Integer(number)) => {
                self.add(number.to_string().as_bytes());
                false
            }
            Some(Kind::Number(number)) => {
                self.add(number.to_string().as_bytes());
                false
            }
            Some(Kind::List(list)) => list.items.iter().fold(false, |short, item| self.add_value(item) | short),
            Some(Kind::Map(map)) => map.entries.values().fold(false, |short, item| self.add_value(item) | short),
            Some(Kind::Boolean(_) | Kind::Null(_)) | None => false,
        }
    }

    /// Adds one secret: as it is, without surrounding white space, and each line of it. Returns whether it was too
    /// short to be masked.
    pub fn add(&mut self, secret: &[u8]) -> bool {
        let trimmed = secret.trim_ascii();
        if trimmed.len() < SHORTEST_SECRET {
            return !trimmed.is_empty();
        }
        self.add_encodings(trimmed);
        if trimmed.contains(&b'\n') {
            // Tools print long values line by line, indented or prefixed. Short lines are ordinary text.
            for line in trimmed.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii) {
                if line.len() >= 2 * SHORTEST_SECRET {
                    self.add_encodings(line);
                }
            }
        }
        false
    }

    fn add_encodings(&mut self, secret: &[u8]) {
        let secret = &secret[..secret.len().min(LONGEST_PATTERN)];
        self.by_first.resize_with(256, Vec::new);
        for pattern in encodings::all(secret) {
            let patterns = &mut self.by_first[usize::from(pattern[0])];
            if pattern.len() < SHORTEST_SECRET || patterns.iter().any(|known| **known == *pattern) {
                continue;
            }
            let at = patterns.partition_point(|known| known.len() >= pattern.len());
            patterns.insert(at, pattern.into_boxed_slice());
            self.count += 1;
        }
    }

    /// Length of the longest pattern at the start of `bytes`; 0 if none is there.
    fn matched(&self, bytes: &[u8]) -> usize {
        let patterns = &self.by_first[usize::from(bytes[0])];
        patterns.iter().find(|pattern| bytes.starts_with(pattern)).map_or(0, |pattern| pattern.len())
    }

    /// All of `bytes` is the beginning of a longer pattern.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let patterns = &self.by_first[usize::from(bytes[0])];
        patterns.iter().take_while(|pattern| pattern.len() > bytes.len()).any(|pattern| pattern.starts_with(bytes))
    }

    /// The text without secrets.
    pub fn mask_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.mask(text, false)
    }

    /// The text without secrets, where somebody may have cut it: what may be the beginning of one, at the end, is
    /// taken out too.
    pub fn mask_cut_text<'a>(&self, text: &'a str) -> Cow<'a, str> {
        self.mask(text, true)
    }

    fn mask<'a>(&self, text: &'a str, cut: bool) -> Cow<'a, str> {
        if self.is_empty() {
            return Cow::Borrowed(text);
        }
        let mut stream = Stream::default();
        let mut out = Vec::with_capacity(text.len());
        stream.push(self, text.as_bytes(), &mut out);
        if cut && stream.carry.len() - stream.covered >= SHORTEST_SECRET {
            out.extend_from_slice(MASK);
        } else {
            stream.finish(&mut out);
        }
        match String::from_utf8(out) {
            Ok(masked) => Cow::Owned(masked),
            // A pattern ends inside a character only where a secret is no text.
            Err(error) => Cow::Owned(String::from_utf8_lossy(error.as_bytes()).into_owned()),
        }
    }

    /// Masks every text in a value, keys of maps included.
    pub fn mask_value(&self, value: &mut Value) {
        if self.is_empty() {
            return;
        }
        match &mut value.kind {
            Some(Kind::Text(text)) => {
                if let Cow::Owned(masked) = self.mask_text(text) {
                    *text = masked;
                }
            }
            Some(Kind::List(list)) => list.items.iter_mut().for_each(|item| self.mask_value(item)),
            Some(Kind::Map(map)) => {
                for (key, mut item) in std::mem::take(&mut map.entries) {
                    self.mask_value(&mut item);
                    map.entries.insert(self.mask_text(&key).into_owned(), item);
                }
            }
            _ => {}
        }
    }
}

/// Masks one stream whose chunks may cut a secret anywhere.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Bytes not given on yet: they may be the beginning of a secret.
    carry: Vec<u8>,
    /// So many bytes at the start of `carry` are masked already: a mask for them was given on.
    covered: usize,
}

impl Stream {
    /// Appends to `out` what is certain after these bytes.
    pub fn push(&mut self, masker: &Masker, bytes: &[u8], out: &mut Vec<u8>) {
        if masker.is_empty() {
            // Bytes can be held only if a pattern was there; patterns are never taken away.
            out.extend_from_slice(bytes);
            return;
        }
        self.carry.extend_from_slice(bytes);
        let (held, covered) = scan(masker, &self.carry, self.covered, out);
        self.carry.drain(..held);
        self.covered = covered;
    }

    /// Appends what was held: the stream has ended.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.carry[self.covered..]);
        self.carry.clear();
        self.covered = 0;
    }
}

/// Appends the masked bytes up to the first place that may begin a secret that goes on; returns that place, and how
/// many bytes from there are covered by a mask already. Overlapping secrets are covered by one mask.
fn scan(masker: &Masker, bytes: &[u8], mut covered_to: usize, out: &mut Vec<u8>) -> (usize, usize) {
    let mut plain_from = covered_to;
    for at in 0..bytes.len() {
        if masker.by_first[usize::from(bytes[at])].is_empty() {
            continue;
        }
        let rest = &bytes[at..];
        if masker.is_beginning(rest) {
            if at > plain_from {
                out.extend_from_slice(&bytes[plain_from..at]);
            }
            // A shorter secret that is complete here is covered when more bytes come, or at the end by what follows.
            let matched = masker.matched(rest);
            if matched > 0 && at + matched > covered_to {
                if at >= covered_to {
                    out.extend_from_slice(MASK);
                }
                covered_to = at + matched;
            }
            return (at, covered_to.saturating_sub(at));
        }
        let matched = masker.matched(rest);
        if matched > 0 && at + matched > covered_to {
            if at >= covered_to {
                out.extend_from_slice(&bytes[plain_from..at]);
                out.extend_from_slice(MASK);
            }
            covered_to = at + matched;
            plain_from = covered_to;
        }
    }
    if plain_from < bytes.len() {
        out.extend_from_slice(&bytes[plain_from..]);
    }
    (bytes.len(), 0)
}

#[cfg(test)]
mod tests;
