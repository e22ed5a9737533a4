//! Handlers that were notified on a node and have not run: what a failure, a cancel or a crash left to do.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::{Outcome, Segment, TaskReport};

use crate::world::{Plan, RunState};

/// Handlers, by index, that a node owes when all that it reported is known. What was cut may have changed something.
pub fn owed(run: &RunState, plan: &Plan, node: u32) -> BTreeSet<u32> {
    let of = plan.snapshot.nodes.get(node as usize);
    let mut owed: BTreeSet<u32> = of.into_iter().flat_map(|of| of.owed.iter().copied()).collect();
    for (at, segment) in plan.snapshot.segments.iter().enumerate() {
        // A later attempt finds Ok what an earlier one had changed when it was cut: any of them notifies.
        owed.extend(notified(run, segment, at as u32, node, &[Outcome::Changed, Outcome::Interrupted]));
        let last = last_reports(run, at as u32, node);
        let done =
            segment.tasks.iter().filter(|task| task.handler && last.get(&task.index).is_some_and(|r| is_done(r)));
        done.for_each(|task| _ = owed.remove(&task.index));
    }
    owed
}

/// Handlers that are notified by tasks of a segment which ended so in any attempt.
fn notified(run: &RunState, segment: &Segment, at: u32, node: u32, by: &[Outcome]) -> BTreeSet<u32> {
    let of = |index: u32| segment.tasks.iter().find(|task| task.index == index);
    let ended = reports(run, at, node).filter(|report| by.contains(&report.outcome()));
    ended.filter_map(|report| of(report.task)).flat_map(|task| task.notify.iter().copied()).collect()
}

/// Names of the handlers that a node owes, in the order in which they are written.
pub(crate) fn owed_names(run: &RunState, plan: &Plan, node: u32) -> Vec<String> {
    let owed = owed(run, plan, node);
    let tasks = || plan.snapshot.segments.iter().flat_map(|segment| &segment.tasks);
    let name = |index: &u32| tasks().find(|task| task.index == *index).map(|task| task.name.clone());
    owed.iter().filter_map(name).collect()
}

/// What a node owes before the next attempt of a segment: what is left of what it owed when the Run began, and what tasks
/// notify that were cut in earlier attempts, whose effect nobody knows.
pub(crate) fn before(run: &RunState, plan: &Plan, node: u32, segment: u32) -> Vec<u32> {
    let (Some(node_of), Some(of)) = (plan.snapshot.nodes.get(node as usize), plan.segment(segment)) else {
        return Vec::new();
    };
    let was_done = |handler: &u32| {
        (0..segment).any(|earlier| last_reports(run, earlier, node).get(handler).is_some_and(|report| is_done(report)))
    };
    let mut owed: BTreeSet<u32> = node_of.owed.iter().filter(|handler| !was_done(handler)).copied().collect();
    owed.extend(notified(run, of, segment, node, &[Outcome::Interrupted]));
    owed.into_iter().collect()
}

fn is_done(report: &TaskReport) -> bool {
    matches!(report.outcome(), Outcome::Ok | Outcome::Changed | Outcome::Skipped) || report.ignored
}

/// Of each task the last report.
fn last_reports(run: &RunState, segment: u32, node: u32) -> BTreeMap<u32, &TaskReport> {
    reports(run, segment, node).map(|task| (task.task, task)).collect()
}

/// All reports of tasks, whoever counts them: what was done was done.
fn reports(run: &RunState, segment: u32, node: u32) -> impl Iterator<Item = &TaskReport> {
    let attempts = run.track(segment, node).map_or(&[][..], |track| &track.attempts);
    attempts.iter().filter_map(|attempt| attempt.report.as_ref()).flat_map(|report| &report.value.tasks)
}

#[cfg(test)]
mod tests;
