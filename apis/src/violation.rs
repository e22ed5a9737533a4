//! What is wrong with what a user gave: making violations, paths of fields, and how input is shown in messages.

use std::fmt;

use crate::{tree::At, v1alpha::Violation};

/// Most violations collected of one file: who has more has one mistake many times.
pub const MAX_VIOLATIONS: usize = 100;

/// Most characters of input that a message shows.
const MAX_SHOWN: usize = 64;

impl fmt::Display for Violation {
    /// `file:line:column: field: message`, as far as known.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.file.is_empty() {
            write!(f, "{}:", self.file)?;
        }
        if self.line > 0 {
            write!(f, "{}:{}:", self.line, self.column)?;
        }
        if !self.file.is_empty() || self.line > 0 {
            f.write_str(" ")?;
        }
        if !self.field.is_empty() {
            write!(f, "{}: ", self.field)?;
        }
        f.write_str(&self.message)
    }
}

/// A violation without position, of a field: for checks that know only the typed object.
pub fn of_field(reason: &str, field: impl Into<String>, message: impl Into<String>) -> Violation {
    Violation { reason: reason.into(), field: field.into(), message: message.into(), ..Violation::default() }
}

/// Input as messages show it: in back-quotes, control characters escaped, cut after 64 characters.
pub fn shown(text: &str) -> String {
    let cut: String = text.chars().take(MAX_SHOWN).collect();
    let dots = if cut.len() < text.len() { "…" } else { "" };
    let escaped: String = cut
        .chars()
        .map(|c| match c {
            // Invisible or order-changing characters must not reach a terminal.
            c if c.is_control()
                || ('\u{200b}'..='\u{200f}').contains(&c)
                || ('\u{202a}'..='\u{202e}').contains(&c)
                || ('\u{2060}'..='\u{2069}').contains(&c)
                || c == '\u{feff}' =>
            {
                c.escape_default().to_string()
            }
            c => c.to_string(),
        })
        .collect();
    format!("`{escaped}{dots}`")
}

/// The path of a field, built on the stack while walking; text only when something is wrong.
#[derive(Clone, Copy)]
pub(crate) enum Path<'p> {
    Root,
    Field(&'p Path<'p>, &'p str),
    Index(&'p Path<'p>, usize),
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Root => Ok(()),
            Path::Field(Path::Root, name) => f.write_str(&segment(name)),
            Path::Field(parent, name) => {
                let own = segment(name);
                let dot = if own.starts_with('[') { "" } else { "." };
                write!(f, "{parent}{dot}{own}")
            }
            Path::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// Keys of users' maps may hold anything.
fn segment(name: &str) -> String {
    match !name.is_empty() && name.len() <= MAX_SHOWN && name.chars().all(|c| c.is_alphanumeric() || "_-./".contains(c))
    {
        true => name.to_owned(),
        false => format!("[{}]", shown(name).replace('`', "\"")),
    }
}

/// Violations of one file, with the cap.
pub(crate) struct Violations<'f> {
    pub(crate) file: &'f str,
    pub(crate) object: u32,
    pub(crate) list: Vec<Violation>,
}

impl<'f> Violations<'f> {
    pub(crate) fn new(file: &'f str) -> Self {
        Self { file, object: 0, list: Vec::new() }
    }

    pub(crate) fn push(&mut self, at: At, path: &Path<'_>, reason: &str, message: impl Into<String>) {
        if self.list.len() < MAX_VIOLATIONS {
            self.list.push(Violation {
                reason: reason.into(),
                field: path.to_string(),
                message: message.into(),
                object: self.object,
                file: self.file.into(),
                line: at.line,
                column: at.column,
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_reads_as_a_line_that_editors_can_jump_to() {
        let mut all = Violations::new("web.yaml");
        let (spec, tasks) = (Path::Field(&Path::Root, "spec"), "tasks");
        let tasks = Path::Field(&spec, tasks);
        let task = Path::Index(&tasks, 2);
        all.push(At { line: 7, column: 3 }, &Path::Field(&task, "a b"), "UnknownField", "no such field");
        assert_eq!(all.list[0].to_string(), "web.yaml:7:3: spec.tasks[2][\"a b\"]: no such field");
    }

    #[test]
    fn input_is_shown_short_and_without_control_characters() {
        assert_eq!(shown("a\u{1b}[31m"), "`a\\u{1b}[31m`");
        assert_eq!(shown("x\u{202e}y"), "`x\\u{202e}y`");
        assert_eq!(shown(&"x".repeat(65)), format!("`{}…`", "x".repeat(64)));
    }
}
