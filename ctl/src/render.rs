//! Objects to text. Pure: what is printed depends on the arguments alone, but for `progress`, which owns the terminal.

pub(crate) mod alike;
pub(crate) mod describe;
pub(crate) mod diff;
pub(crate) mod explain;
pub(crate) mod findings;
pub(crate) mod grid;
pub(crate) mod jsonpath;
pub(crate) mod locks;
pub(crate) mod names;
pub(crate) mod output;
pub(crate) mod plan;
pub(crate) mod progress;
pub(crate) mod reference;
pub(crate) mod rendered;
pub(crate) mod screen;
pub(crate) mod summary;
pub(crate) mod table;
pub(crate) mod variables;
pub(crate) mod why;

use lockstep_apis::v1alpha::{NodeCounts, Object, RunPhase};

/// `taskbook/web`, as every command prints objects.
pub(crate) fn path(object: &Object) -> String {
    format!("{}/{}", object.kind_of().name.to_lowercase(), object.metadata().name)
}

/// The phase as users read it.
pub(crate) fn phase_word(phase: RunPhase) -> &'static str {
    match phase {
        RunPhase::Unspecified | RunPhase::Pending => "Pending",
        RunPhase::AwaitingApproval => "AwaitingApproval",
        RunPhase::Waiting => "Waiting",
        RunPhase::Running => "Running",
        RunPhase::Paused => "Paused",
        RunPhase::Cancelling => "Cancelling",
        RunPhase::Succeeded => "Succeeded",
        RunPhase::Failed => "Failed",
        RunPhase::Cancelled => "Cancelled",
    }
}

/// `3 nodes: 1 working, 2 changed`: what is zero is left out.
pub(crate) fn counts(nodes: &NodeCounts) -> String {
    let parts: Vec<String> = [
        (nodes.waiting, "waiting"),
        (nodes.working, "working"),
        (nodes.ok, "ok"),
        (nodes.changed, "changed"),
        (nodes.failed, "failed"),
        (nodes.interrupted, "interrupted"),
        (nodes.skipped, "skipped"),
        (nodes.unreachable, "unreachable"),
        (nodes.lost, "lost"),
        (nodes.cancelled, "cancelled"),
    ]
    .iter()
    .filter(|(n, _)| *n > 0)
    .map(|(n, word)| format!("{n} {word}"))
    .collect();
    format!("{}: {}", plural(nodes.total, "node"), if parts.is_empty() { "none yet".into() } else { parts.join(", ") })
}

/// `1 node`, `2 nodes`.
pub(crate) fn plural(n: u32, word: &str) -> String {
    format!("{n} {word}{}", if n == 1 { "" } else { "s" })
}

/// Text of a node, fit for a terminal: no control characters, at most `max` characters.
pub(crate) fn safe(text: &str, max: usize) -> String {
    let mut out = String::new();
    for (n, c) in text.chars().enumerate() {
        if n == max {
            out.push('…');
            break;
        }
        if c.is_control() {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    out
}
