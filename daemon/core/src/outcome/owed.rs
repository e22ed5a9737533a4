//! Handlers that were notified on a node and have not run: what a failure, a cancel or a crash left to do.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::{Outcome, TaskReport};

use crate::world::{Plan, RunState};

/// Handlers, by index, that a node owes when all that it reported is known. What was cut may have changed something.
pub fn owed(run: &RunState, plan: &Plan, node: u32) -> BTreeSet<u32> {
    let of = plan.snapshot.nodes.get(node as usize);
    let mut owed: BTreeSet<u32> = of.into_iter().flat_map(|of| of.owed.iter().copied()).collect();
    for (at, segment) in plan.snapshot.segments.iter().enumerate() {
        let last = last_reports(run, at as u32, node);
        for task in &segment.tasks {
            let Some(report) = last.get(&task.index) else { continue };
            if matches!(report.outcome(), Outcome::Changed | Outcome::Interrupted) {
                owed.extend(&task.notify);
            }
        }
        let done =
            segment.tasks.iter().filter(|task| task.handler && last.get(&task.index).is_some_and(|r| is_done(r)));
        done.for_each(|task| _ = owed.remove(&task.index));
    }
    owed
}

/// Names of the handlers that a node owes, in the order in which they are written.
pub(crate) fn owed_names(run: &RunState, plan: &Plan, node: u32) -> Vec<String> {
    let owed = owed(run, plan, node);
    let tasks = || plan.snapshot.segments.iter().flat_map(|segment| &segment.tasks);
    let name = |index: &u32| tasks().find(|task| task.index == *index).map(|task| task.name.clone());
    owed.iter().filter_map(name).collect()
}

/// What is left, before a segment, of the handlers that the node owed when the Run began.
pub(crate) fn before(run: &RunState, plan: &Plan, node: u32, segment: u32) -> Vec<u32> {
    let Some(of) = plan.snapshot.nodes.get(node as usize) else { return Vec::new() };
    let was_done = |handler: &u32| {
        (0..segment).any(|earlier| last_reports(run, earlier, node).get(handler).is_some_and(|report| is_done(report)))
    };
    of.owed.iter().filter(|handler| !was_done(handler)).copied().collect()
}

fn is_done(report: &TaskReport) -> bool {
    matches!(report.outcome(), Outcome::Ok | Outcome::Changed | Outcome::Skipped) || report.ignored
}

/// Of each task the last report, whoever counts it: what was done was done.
fn last_reports(run: &RunState, segment: u32, node: u32) -> BTreeMap<u32, &TaskReport> {
    let attempts = run.track(segment, node).map_or(&[][..], |track| &track.attempts);
    let reports = attempts.iter().filter_map(|attempt| attempt.report.as_ref());
    reports.flat_map(|report| &report.value.tasks).map(|task| (task.task, task)).collect()
}

#[cfg(test)]
mod tests;
