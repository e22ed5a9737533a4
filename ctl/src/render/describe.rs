//! One object with everything that is known of it.

use super::safe;
use lockstep_apis::{
    manifest,
    v1alpha::{Object, Outcome, RunNode, TaskReport},
};
use std::fmt::Write;

/// The object, whole: YAML is the form that people know, and it reads back.
pub(crate) fn object(object: &Object) -> String {
    manifest::print_yaml(std::slice::from_ref(object))
}

/// Every node of a Run with its tasks.
pub(crate) fn run_nodes(nodes: &[RunNode]) -> String {
    let mut out = String::from("nodes:\n");
    for node in nodes {
        let held = if node.held { ", its place is held" } else { "" };
        let message = if node.message.is_empty() { String::new() } else { format!(": {}", safe(&node.message, 256)) };
        let _ = writeln!(out, "  {} {}{held}{message}", node.name, node.state);
        if !node.owed_handlers.is_empty() {
            let names: Vec<String> = node.owed_handlers.iter().map(|name| safe(name, 60).to_string()).collect();
            let _ = writeln!(out, "    owes the handlers {}; `lockstep retry` does them", names.join(", "));
        }
        for task in &node.tasks {
            let report = task.report.clone().unwrap_or_default();
            let by = if task.delegate.is_empty() { String::new() } else { format!(" on {}", task.delegate) };
            // A health gate has a name only.
            let id = if task.id.is_empty() { &task.name } else { &task.id };
            let _ = writeln!(out, "    {:<11} {:>9}  {id}{by}{}", outcome(&report), took(&report), tail(&report));
        }
    }
    out
}

/// The outcome's word; a failure that was ignored has its own.
pub(crate) fn outcome(report: &TaskReport) -> &'static str {
    match report.outcome() {
        _ if report.ignored => "Ignored",
        Outcome::Ok => "Ok",
        Outcome::Changed => "Changed",
        Outcome::Failed => "Failed",
        Outcome::Skipped => "Skipped",
        Outcome::Cancelled => "Cancelled",
        Outcome::Interrupted => "Interrupted",
        Outcome::Lost => "Lost",
        Outcome::Unpredicted => "Unpredicted",
        Outcome::Unspecified => "?",
    }
}

/// `12 ms`, `3.4 s`.
pub(crate) fn took(report: &TaskReport) -> String {
    match report.duration_us {
        us @ 0..1000 => format!("{us} µs"),
        us @ 1000..10_000 => format!("{:.1} ms", us as f64 / 1e3),
        us @ 10_000..1_000_000 => format!("{} ms", us / 1000),
        us => format!("{:.1} s", us as f64 / 1e6),
    }
}

fn tail(report: &TaskReport) -> String {
    let tries = if report.attempts > 1 { format!(" ({} tries)", report.attempts) } else { String::new() };
    let message = if report.message.is_empty() { String::new() } else { format!(": {}", safe(&report.message, 256)) };
    format!("{tries}{message}")
}
