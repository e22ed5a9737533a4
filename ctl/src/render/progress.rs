//! A Run while it goes: one line that is painted over on a terminal, a line for each change elsewhere.

use super::{counts, phase_word, safe};
use lockstep_apis::v1alpha::{Run, RunPhase, RunStatus};
use std::io::{self, IsTerminal, Write};

/// Most nodes that are named as waited for.
const WAITING: usize = 3;

/// Follows one Run.
pub(crate) struct Progress {
    name: String,
    terminal: bool,
    last: String,
    told: usize,
    open: bool,
}

impl Progress {
    /// For the Run of this name.
    pub(crate) fn new(name: &str) -> Progress {
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Progress { name: name.to_owned(), terminal, last: String::new(), told: 0, open: false }
    }

    /// Shows where the Run is now, if that is news.
    pub(crate) fn show(&mut self, run: &Run) {
        let status = run.status.clone().unwrap_or_default();
        for failure in status.failures.iter().skip(self.told) {
            self.line(&format!("{} failed: {}: {}", failure.node, failure.task, safe(&failure.message, 256)));
        }
        self.told = self.told.max(status.failures.len());
        let line = format!("run/{} {}", self.name, describe(&status));
        if line == self.last || matches!(status.phase(), RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) {
            return;
        }
        self.last.clone_from(&line);
        if self.terminal {
            // Back to the line's start, and clear what a longer line left.
            let _ = write!(io::stderr(), "\r{}\x1b[K", safe(&line, width().saturating_sub(1)));
            self.open = true;
        } else {
            let _ = writeln!(io::stderr(), "{line}");
        }
    }

    /// Takes the painted line away: what follows is the summary.
    pub(crate) fn close(&mut self) {
        if self.open {
            let _ = write!(io::stderr(), "\r\x1b[K");
            self.open = false;
        }
    }

    fn line(&mut self, text: &str) {
        self.close();
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// `Running window 2 of 3, segment 1 of 2; 3 nodes: 1 working, 2 changed`.
pub(crate) fn describe(status: &RunStatus) -> String {
    let mut out = phase_word(status.phase()).to_owned();
    if let Some(cursor) = &status.cursor
        && cursor.window > 0
    {
        let mut parts = Vec::new();
        for (at, of, word) in [
            (cursor.group, cursor.groups, "group"),
            (cursor.window, cursor.windows, "window"),
            (cursor.segment, cursor.segments, "segment"),
        ] {
            if of > 1 {
                parts.push(format!("{word} {at} of {of}"));
            }
        }
        if !parts.is_empty() {
            out.push(' ');
            out.push_str(&parts.join(", "));
        }
    }
    if let Some(nodes) = &status.nodes {
        out.push_str("; ");
        out.push_str(&counts(nodes));
    }
    if !status.waiting_for.is_empty() {
        let waits: Vec<String> =
            status.waiting_for.iter().take(WAITING).map(|w| format!("{} ({})", w.on, safe(&w.message, 100))).collect();
        out.push_str("; waits for ");
        out.push_str(&waits.join(", "));
    }
    out
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    // A terminal that does not know its width says 0.
    if columns == 0 { 80 } else { columns.max(20) }
}
