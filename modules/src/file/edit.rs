//! What the actions share that edit a file which is there already: `file.content`, `file.line`, `file.block`,
//! `file.replaced`. They keep its mode and owner.

use std::fmt::Debug;

use regex::bytes::{Regex, RegexBuilder};

use super::invalid;
use super::lines::Lines;
use super::state::{FileState, Text};
use super::validate::Validation;
use crate::action::Done;
use crate::module::Refusal;
use crate::parameters::Parameters;

/// Longest file that is edited, in bytes: it is held in memory, old and new.
pub(crate) const EDITED_BYTES: u64 = 16 << 20;

/// Makes the wanted content from the one that is there.
pub(crate) trait Edit: Debug {
    /// The new content; equal to `old` if nothing is to be done. Doing it again to what it made changes nothing.
    ///
    /// # Errors
    /// `old` is nothing to work on.
    fn edit(&self, path: &str, old: &[u8]) -> Result<Vec<u8>, Refusal>;

    /// What it means that the file is not there.
    fn without_file(&self) -> Nothing {
        Nothing::Missing
    }
}

/// What it means to an edit that its file is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nothing {
    /// It cannot be done.
    Missing,
    /// It is as wanted.
    Done,
    /// The same as an empty one; the file is made.
    Empty,
}

/// The options that all of them have.
#[derive(Debug)]
pub(crate) struct Options {
    path: String,
    follow: bool,
    backup: bool,
    validation: Option<Validation>,
}

impl Options {
    pub(crate) fn read(from: &mut Parameters<'_>) -> Options {
        Options {
            path: from.required("path"),
            follow: from.flag("follow"),
            backup: from.flag("backup"),
            validation: from.value("validate").map(|value| Validation::read(value, from)),
        }
    }

    /// The state, once all parameters are read.
    pub(crate) fn state(self, from: Parameters<'_>, edit: impl Edit + 'static) -> Result<FileState, Done> {
        from.finish().map_err(invalid)?;
        let Options { path, follow, backup, validation } = self;
        let text = Text::Edited(Box::new(edit));
        Ok(FileState { path, text, attributes: Default::default(), parents: false, follow, backup, validation })
    }
}

/// Where a line or block goes that is not there yet.
#[derive(Debug, Default)]
pub(crate) struct Position {
    before: Option<Regex>,
    after: Option<Regex>,
}

impl Position {
    pub(crate) fn read(from: &mut Parameters<'_>) -> Position {
        let position = Position { before: pattern(from, "insertBefore"), after: pattern(from, "insertAfter") };
        if position.before.is_some() && position.after.is_some() {
            from.fault("insertBefore and insertAfter exclude each other");
        }
        position
    }

    /// The number of the line before which it goes: before the first match, after the last one, or at the end.
    pub(crate) fn find(&self, path: &str, lines: &Lines<'_>) -> Result<usize, Refusal> {
        let (name, regex) = match (&self.before, &self.after) {
            (Some(regex), _) => ("insertBefore", regex),
            (None, Some(regex)) => ("insertAfter", regex),
            (None, None) => return Ok(lines.len()),
        };
        let found = lines.positions(|line| regex.is_match(line));
        let at = if self.before.is_some() { found.first().copied() } else { found.last().map(|at| at + 1) };
        at.ok_or_else(|| Refusal::Module {
            reason: "NoMatch",
            message: format!("{name} {:?} matches no line of {path}; the file is as it was", regex.as_str()),
        })
    }
}

/// A regular expression, if it is given.
pub(crate) fn pattern(from: &mut Parameters<'_>, name: &str) -> Option<Regex> {
    let text = from.text(name).filter(|text| !text.is_empty())?;
    match RegexBuilder::new(&text).multi_line(true).crlf(true).build() {
        Ok(regex) => Some(regex),
        Err(error) => {
            // The first lines draw the pattern; the last one says what is wrong.
            let error = error.to_string();
            let why = error.lines().last().unwrap_or_default().trim_start_matches("error: ");
            from.fault(format!("{name} {text:?} is no regular expression: {why}"));
            None
        }
    }
}
