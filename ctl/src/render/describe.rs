//! One object with everything that is known of it.

use super::{names::compact, safe};
use lockstep_apis::{
    manifest,
    v1alpha::{Object, Outcome, RunNode, TaskReport},
};
use std::fmt::Write;

/// The object, whole: YAML is the form that people know, and it reads back.
pub(crate) fn object(object: &Object) -> String {
    manifest::print_yaml(std::slice::from_ref(object))
}

/// Every node of a Run with its tasks; those to which the same happened together, with the longest times.
pub(crate) fn run_nodes(nodes: &[RunNode]) -> String {
    let mut groups: Vec<(String, Vec<&RunNode>)> = Vec::new();
    for node in nodes {
        let what = same(node);
        match groups.iter_mut().find(|(known, _)| *known == what) {
            Some((_, alike)) => alike.push(node),
            None => groups.push((what, vec![node])),
        }
    }
    let mut out = String::from("nodes:\n");
    for (_, alike) in groups {
        group(&mut out, &alike);
    }
    out
}

/// All that is told of a node but its name and its times.
fn same(node: &RunNode) -> String {
    let mut node = node.clone();
    node.name.clear();
    node.uid.clear();
    for report in node.tasks.iter_mut().filter_map(|task| task.report.as_mut()) {
        *report = TaskReport {
            outcome: report.outcome,
            ignored: report.ignored,
            attempts: report.attempts,
            message: std::mem::take(&mut report.message),
            ..TaskReport::default()
        };
    }
    format!("{node:?}")
}

fn group(out: &mut String, alike: &[&RunNode]) {
    let Some(node) = alike.first() else { return };
    let names: Vec<&str> = alike.iter().map(|node| node.name.as_str()).collect();
    let count = if names.len() > 3 { format!(" ({} nodes)", names.len()) } else { String::new() };
    let held = if node.held { ", its place is held" } else { "" };
    let message = if node.message.is_empty() { String::new() } else { format!(": {}", safe(&node.message, 256)) };
    let _ = writeln!(out, "  {}{count} {}{held}{message}", compact(&names), node.state);
    if !node.owed_handlers.is_empty() {
        let names: Vec<String> = node.owed_handlers.iter().map(|name| safe(name, 60).to_string()).collect();
        let _ = writeln!(out, "    owes the handlers {}; `lockstep retry` does them", names.join(", "));
    }
    for (at, task) in node.tasks.iter().enumerate() {
        let reports = alike.iter().filter_map(|node| node.tasks.get(at)?.report.as_ref());
        let longest = reports.max_by_key(|report| report.duration_us).cloned().unwrap_or_default();
        let most = if alike.len() > 1 { "≤ " } else { "" };
        let took = format!("{most}{}", took(&longest));
        let by = if task.delegate.is_empty() { String::new() } else { format!(" on {}", task.delegate) };
        let name = if task.id.is_empty() { &task.name } else { &task.id };
        let _ = writeln!(out, "    {:<11} {took:>9}  {name}{by}{}", outcome(&longest), tail(&longest));
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::RunTask;

    #[test]
    fn nodes_to_which_the_same_happened_are_told_once_with_the_longest_time() {
        let node = |name: &str, outcome: Outcome, duration_us| {
            let report = TaskReport { outcome: outcome.into(), duration_us, attempts: 1, ..TaskReport::default() };
            let task = RunTask { id: "install".into(), report: Some(report), ..RunTask::default() };
            let state = if outcome == Outcome::Failed { "Failed" } else { "Changed" };
            RunNode { name: name.into(), state: state.into(), tasks: vec![task], ..RunNode::default() }
        };
        let mut nodes: Vec<RunNode> = (1..=4).map(|n| node(&format!("w{n}"), Outcome::Changed, n * 20_000)).collect();
        nodes.insert(1, node("db", Outcome::Failed, 5));
        let expected = "\
nodes:
  w[1-4] (4 nodes) Changed
    Changed       ≤ 80 ms  install
  db Failed
    Failed           5 µs  install
";
        assert_eq!(run_nodes(&nodes), expected);
    }
}
