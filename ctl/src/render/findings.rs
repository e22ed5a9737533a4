//! What `lockstep doctor` found: line by line, and what to do about it. Pure.

use super::screen::{Colour, Screen, wrap};
use std::fmt::Write;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Weight {
    /// As it should be.
    Good,
    /// Nothing is broken, and somebody should know.
    Note,
    /// Something does not work, or will not for long.
    Problem,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) weight: Weight,
    /// `context`, `server`, `nodes`, …
    pub(crate) about: &'static str,
    pub(crate) text: String,
    /// What to do; empty if nothing is to be done.
    pub(crate) advice: String,
}

impl Finding {
    pub(crate) fn good(about: &'static str, text: impl Into<String>) -> Finding {
        Finding { weight: Weight::Good, about, text: text.into(), advice: String::new() }
    }

    pub(crate) fn note(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { weight: Weight::Note, about, text: text.into(), advice: advice.into() }
    }

    pub(crate) fn problem(about: &'static str, text: impl Into<String>, advice: impl Into<String>) -> Finding {
        Finding { weight: Weight::Problem, about, text: text.into(), advice: advice.into() }
    }
}

/// Columns before the text.
const INDENT: usize = 22;

/// All of them, in the order in which they were looked at.
pub(crate) fn all(findings: &[Finding], screen: Screen) -> String {
    let mut out = String::new();
    for finding in findings {
        let (word, colour) = match finding.weight {
            Weight::Good => ("ok", Colour::Green),
            Weight::Note => ("note", Colour::Yellow),
            Weight::Problem => ("PROBLEM", Colour::Red),
        };
        let padding = " ".repeat(10_usize.saturating_sub(word.len()));
        let text = wrap(&finding.text, INDENT, screen.width);
        let _ = write!(out, "{}{padding}{:<12}{}", screen.paint(word, Some(colour)), finding.about, text.trim_start());
        out.push_str(&wrap(&finding.advice, INDENT, screen.width));
    }
    let count = |weight| findings.iter().filter(|finding| finding.weight == weight).count();
    let _ = match (count(Weight::Problem), count(Weight::Note)) {
        (0, 0) => writeln!(out, "all is well"),
        (0, notes) => writeln!(out, "no problem; notes: {notes}"),
        (problems, notes) => writeln!(out, "problems: {problems}; notes: {notes}"),
    };
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_finding_says_what_to_do_in_lines_that_fit() {
        let findings = [
            Finding::good("context", "/root/.config/lockstep/contexts/lockstep.yaml"),
            Finding::problem(
                "server",
                "10.0.0.2:7400 does not answer",
                "start it with `systemctl start lockstepd` on that machine, and look into its journal if that does not help",
            ),
        ];
        let told = all(&findings, Screen::plain());
        assert!(told.starts_with("ok        context     /root/.config"), "{told}");
        assert!(
            told.contains("\nPROBLEM   server      10.0.0.2:7400 does not answer\n                      start it"),
            "{told}"
        );
        assert!(told.ends_with("\nproblems: 1; notes: 0\n"), "{told}");
        assert!(told.lines().all(|line| line.chars().count() <= 100), "{told}");
    }
}
