//! How a Run ended, in a few lines: nodes that ended alike are said once.

use super::{counts, names::compact, phase_word, safe};
use lockstep_apis::v1alpha::{Outcome, Run, RunNode, RunPhase, RunTask, TaskReport};
use std::{collections::BTreeMap, fmt::Write};

/// The last words of `run --wait`.
pub(crate) fn run(run: &Run, nodes: &[RunNode]) -> String {
    let mut out = String::new();
    let mut alike: BTreeMap<(String, String), Vec<&str>> = BTreeMap::new();
    for node in nodes {
        let why = match node.state.as_str() {
            "Ok" | "Changed" => ignored(node),
            _ => why(node),
        };
        alike.entry((node.state.clone(), why)).or_default().push(&node.name);
    }
    for ((state, why), names) in &alike {
        let why = if why.is_empty() { String::new() } else { format!("  {why}") };
        let _ = writeln!(out, "  {state:<11} {}{why}", compact(names));
    }
    out.push_str(&end(run, nodes));
    out
}

/// The Run's own lines: how it ended, and what can be done about it.
pub(crate) fn end(run: &Run, nodes: &[RunNode]) -> String {
    let mut out = String::new();
    let status = run.status.clone().unwrap_or_default();
    let name = run.metadata.as_ref().map_or("", |m| m.name.as_str());
    let is_check = run.spec.as_ref().is_some_and(|spec| spec.check);
    let took = match (&status.started_at, &status.finished_at) {
        (Some(from), Some(to)) => {
            let ms = (to.seconds - from.seconds) * 1000 + i64::from(to.nanos - from.nanos) / 1_000_000;
            format!(" in {}", seconds(ms))
        }
        _ => String::new(),
    };
    let phase = status.phase();
    let reason = match phase {
        RunPhase::Succeeded => String::new(),
        _ if status.message.is_empty() => String::new(),
        _ => format!(": {}", safe(&status.message, 512)),
    };
    let _ = writeln!(
        out,
        "run/{name} {}{took}{reason}; {}{}",
        phase_word(phase),
        if is_check { "a check, nothing was changed; " } else { "" },
        status.nodes.as_ref().map(counts).unwrap_or_else(|| "no nodes".into())
    );
    if !status.held_nodes.is_empty() {
        let _ = writeln!(
            out,
            "places still held: {}; they are free when the node reports, or with `lockstep release {name} NODE`",
            status.held_nodes.join(" ")
        );
    }
    if matches!(phase, RunPhase::Failed) && !is_check && nodes.iter().any(|n| !n.tasks.is_empty()) {
        let _ = writeln!(out, "`lockstep logs {name}` shows what tasks printed, `lockstep retry {name}` does the rest");
    }
    out
}

/// Failures that did not stop the node.
fn ignored(node: &RunNode) -> String {
    let reports = node.tasks.iter().filter_map(|task| Some((task, task.report.as_ref()?)));
    let ignored = reports.filter(|(_, report)| report.ignored);
    let told: Vec<String> = ignored
        .map(|(task, report)| format!("ignored {}: {}", safe(&task.name, 60), safe(&report.message, 256)))
        .collect();
    told.join("; ")
}

fn why(node: &RunNode) -> String {
    match failed(node) {
        Some((task, report)) => format!("{}: {}", safe(&task.name, 60), safe(&report.message, 256)),
        None => safe(&node.message, 256),
    }
}

/// Why a node of a Run with one task did not end well.
pub(crate) fn message(node: &RunNode) -> String {
    safe(failed(node).map_or(&node.message, |(_, report)| &report.message), 256)
}

/// The last one: what failed before it was rescued.
fn failed(node: &RunNode) -> Option<(&RunTask, &TaskReport)> {
    node.tasks.iter().filter_map(|task| task.report.as_ref().map(|report| (task, report))).rfind(|(_, report)| {
        matches!(report.outcome(), Outcome::Failed | Outcome::Interrupted | Outcome::Cancelled) && !report.ignored
    })
}

fn seconds(ms: i64) -> String {
    match ms.max(0) {
        ms @ 0..10_000 => format!("{}.{:02} s", ms / 1000, ms % 1000 / 10),
        ms @ 10_000..120_000 => format!("{} s", ms / 1000),
        ms => format!("{} min {} s", ms / 60_000, ms % 60_000 / 1000),
    }
}
