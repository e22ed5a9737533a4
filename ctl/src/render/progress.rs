//! A Run while it goes: one line that is painted over on a terminal, a line for each change elsewhere.

use super::{counts, phase_word, safe};
use lockstep_apis::v1alpha::{Run, RunPhase, RunStatus};
use std::{
    collections::BTreeMap,
    io::{self, IsTerminal, Write},
};

/// Most nodes that are named as waited for.
const WAITING: usize = 3;

/// Most gates that are told of.
const GATES: usize = 2;

/// Follows one Run.
pub(crate) struct Progress {
    name: String,
    terminal: bool,
    /// Where the Run is; and how its nodes are, with what it waits for.
    state: (String, String),
    /// Of nodes that wait at a health gate, what their last look told.
    gates: BTreeMap<String, String>,
    last: String,
    told: usize,
    /// Failures are told as they come.
    failures: bool,
    open: bool,
}

impl Progress {
    /// For the Run of this name; with or without a line for each failure.
    pub(crate) fn new(name: &str, failures: bool) -> Progress {
        let terminal = io::stderr().is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Progress {
            name: name.to_owned(),
            terminal,
            state: Default::default(),
            gates: BTreeMap::new(),
            last: String::new(),
            told: 0,
            failures,
            open: false,
        }
    }

    /// Whether somebody looks on to whom each look of a gate is news.
    pub(crate) fn is_live(&self) -> bool {
        self.terminal
    }

    /// A node looked at its health gate; told in the gate's own words: `gate: 3 of 20: web is false`.
    pub(crate) fn looked(&mut self, node: &str, told: &str) {
        match told.strip_prefix("gate: ") {
            Some("open") => self.gates.remove(node),
            Some(told) => self.gates.insert(node.to_owned(), told.to_owned()),
            None => return,
        };
        self.paint();
    }

    /// Shows where the Run is now, if that is news.
    pub(crate) fn show(&mut self, run: &Run) {
        let status = run.status.clone().unwrap_or_default();
        let told = if self.failures { self.told } else { status.failures.len() };
        for failure in status.failures.iter().skip(told) {
            self.line(&format!("{} failed: {}: {}", failure.node, failure.task, safe(&failure.message, 256)));
        }
        self.told = self.told.max(status.failures.len());
        if matches!(status.phase(), RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled) {
            return;
        }
        self.state = (place(&status), nodes(&status));
        self.paint();
    }

    fn paint(&mut self) {
        // A narrow terminal cuts the end: what moves is in front.
        let (place, nodes) = &self.state;
        let line = format!("run/{} {place}{}{nodes}", self.name, gates(&self.gates));
        if line == self.last {
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

/// `Running window 2 of 3, segment 1 of 2`.
fn place(status: &RunStatus) -> String {
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
    out
}

/// `; 3 nodes: 1 working, 2 changed; waits for node/web1 (web1 has not taken its work yet)`.
fn nodes(status: &RunStatus) -> String {
    let counts = status.nodes.as_ref().map(|nodes| format!("; {}", counts(nodes))).unwrap_or_default();
    let waits: Vec<String> =
        status.waiting_for.iter().take(WAITING).map(|w| format!("{} ({})", w.on, safe(&w.message, 100))).collect();
    if waits.is_empty() { counts } else { format!("{counts}; waits for {}", waits.join(", ")) }
}

/// `; gate on web1: 3 of 20: /health is false`.
fn gates(looks: &BTreeMap<String, String>) -> String {
    let mut out = String::new();
    for (node, told) in looks.iter().take(GATES) {
        out.push_str(&format!("; gate on {node}: {}", safe(told, 100)));
    }
    if looks.len() > GATES {
        out.push_str(&format!("; {} more at the gate", looks.len() - GATES));
    }
    out
}

fn width() -> usize {
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    // A terminal that does not know its width says 0.
    if columns == 0 { 80 } else { columns.max(20) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gate_is_told_until_it_is_open() {
        let mut progress = Progress::new("web", true);
        progress.looked("web1", "gate: 3 of 20: health is false");
        assert_eq!(gates(&progress.gates), "; gate on web1: 3 of 20: health is false");
        progress.looked("web2", "gate: 1 of 20: health is false");
        progress.looked("web1", "gate: open");
        progress.looked("web1", "something that a check printed");
        assert_eq!(gates(&progress.gates), "; gate on web2: 1 of 20: health is false");
    }
}
