//! Nodes by what their tasks did, or in a check would do: those to which the same happened are said once.

use super::{describe, names::compact, plural, safe};
use lockstep_apis::v1alpha::{Outcome, RunNode, RunTask};
use std::{collections::BTreeMap, fmt::Write};

/// Diffs by node and task id.
pub(crate) type Diffs = BTreeMap<(String, String), String>;

/// Each group of nodes, the largest first, with its tasks that did not end as they began.
pub(crate) fn nodes(nodes: &[RunNode], diffs: &Diffs, is_check: bool) -> String {
    let mut alike: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for node in nodes {
        alike.entry(body(node, diffs, is_check)).or_default().push(&node.name);
    }
    let mut groups: Vec<(String, Vec<&str>)> = alike.into_iter().collect();
    groups.sort_by(|(_, a), (_, b)| b.len().cmp(&a.len()).then(a.cmp(b)));
    let mut out = String::new();
    for (body, names) in groups {
        let count = plural(u32::try_from(names.len()).unwrap_or(u32::MAX), "node");
        let _ = writeln!(out, "{count}: {}", compact(&names));
        out.push_str(&body);
    }
    out
}

/// What happened on a node, without its name.
fn body(node: &RunNode, diffs: &Diffs, is_check: bool) -> String {
    let mut out = String::new();
    let mut quiet = 0u32;
    for task in last_reports(node) {
        let report = task.report.clone().unwrap_or_default();
        if matches!(report.outcome(), Outcome::Ok | Outcome::Skipped) {
            quiet += 1;
            continue;
        }
        let word = match report.outcome() {
            Outcome::Changed if is_check => "would change",
            Outcome::Failed if is_check && !report.ignored => "would fail",
            Outcome::Unpredicted => "unpredicted",
            _ => describe::outcome(&report),
        };
        let message =
            if report.message.is_empty() { String::new() } else { format!(": {}", safe(&report.message, 256)) };
        let _ = writeln!(out, "  {word:<12}  {}{message}", safe(&task.name, 120));
        let diff = diffs.get(&(node.name.clone(), task.id.clone()));
        for line in diff.into_iter().flat_map(|diff| diff.lines()) {
            let _ = writeln!(out, "      {}", safe(line, 2000));
        }
    }
    if quiet > 0 {
        let _ = writeln!(out, "  {:<12}  {}", "as it is", plural(quiet, "task"));
    }
    if node.tasks.is_empty() || matches!(node.state.as_str(), "Skipped" | "Unreachable" | "Lost" | "Cancelled") {
        let message = if node.message.is_empty() { String::new() } else { format!(": {}", safe(&node.message, 256)) };
        let _ = writeln!(out, "  {}{message}", node.state);
    }
    out
}

/// Of each task the report of its last attempt.
fn last_reports(node: &RunNode) -> Vec<&RunTask> {
    let mut last: Vec<&RunTask> = Vec::new();
    for task in &node.tasks {
        let index = |task: &RunTask| task.report.as_ref().map(|report| report.task);
        match last.iter_mut().find(|known| known.segment == task.segment && index(known) == index(task)) {
            Some(known) => *known = task,
            None => last.push(task),
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_apis::v1alpha::TaskReport;

    fn node(name: &str, outcomes: &[Outcome]) -> RunNode {
        let task = |(at, outcome): (usize, &Outcome)| RunTask {
            id: format!("t{at}"),
            name: format!("task {at}"),
            report: Some(TaskReport { task: at as u32, outcome: (*outcome).into(), ..Default::default() }),
            ..Default::default()
        };
        let tasks = outcomes.iter().enumerate().map(task).collect();
        RunNode { name: name.into(), state: "Changed".into(), tasks, ..Default::default() }
    }

    #[test]
    fn nodes_to_which_the_same_would_happen_are_said_once() {
        use Outcome::{Changed, Ok, Unpredicted};
        let all = [node("a", &[Ok, Ok]), node("b", &[Changed, Unpredicted]), node("c", &[Changed, Unpredicted])];
        let diff = |name: &str| ((name.to_owned(), "t0".to_owned()), "-old\n+new\n".to_owned());
        let diffs: Diffs = [diff("b"), diff("c")].into();
        let expected = "\
2 nodes: b c
  would change  task 0
      -old
      +new
  unpredicted   task 1
1 node: a
  as it is      2 tasks
";
        assert_eq!(nodes(&all, &diffs, true), expected);
        let other: Diffs = [diff("b")].into();
        assert_eq!(nodes(&all, &other, true).matches("node: ").count(), 3, "another diff is another group");
    }
}
