//! Judges of handlers: what really changed on each node, against which handlers really began after it.

use lockstep_apis::v1alpha::Outcome;

use super::{
    Checker,
    facts::{Facts, node_index, run_index},
};
use crate::simulation::{
    books::Handler,
    cluster::{Deed, Execution},
};

pub(super) fn check(facts: &mut Facts<'_>) {
    let cluster = facts.cluster;
    let mut objections = Vec::new();
    for run in 0..facts.runs.len() {
        for handler in &facts.book(run).handlers {
            for node in 0..cluster.machines.len() {
                let marks = |task: u32| {
                    let of = move |mark: &&Execution| {
                        mark.task == task
                            && run_index(&mark.attempt.run) == run
                            && node_index(&mark.attempt.for_node) == node
                    };
                    cluster.executions.iter().filter(of)
                };
                let notifying: Vec<&Execution> = handler.notified_by.iter().flat_map(|task| marks(*task)).collect();
                let began: Vec<u64> =
                    marks(handler.index).filter(|mark| mark.what == Deed::Start).map(|mark| mark.at_ms).collect();
                let owed = handler.owed_by.contains(&(node as u32));
                let cut = was_cut(facts, run, node, handler);
                let wrong = uncalled(&notifying, &began, owed || cut).or_else(|| {
                    let well = ended_well(facts, run, node, handler);
                    forgotten(&notifying, &began, owed).filter(|_| well)
                });
                objections.extend(wrong.map(|wrong| format!("run {run}, node {node}: {wrong}: {handler:?}")));
            }
        }
    }
    for message in objections {
        facts.object(Checker::Handlers, cluster.now_ms, message);
    }
}

/// It began, and nothing that notifies it had changed, was owed or cut.
fn uncalled(notifying: &[&Execution], began: &[u64], excused: bool) -> Option<String> {
    let first = *began.first()?;
    let changed = |mark: &&Execution| mark.at_ms <= first && mark.what == Deed::End(Outcome::Changed);
    (!excused && !notifying.iter().any(changed)).then(|| "a handler began that nothing called".to_owned())
}

/// Whether a task that notifies it was reported as cut: it may have changed something.
fn was_cut(facts: &Facts<'_>, run: usize, node: usize, handler: &Handler) -> bool {
    let lives = facts.runs[run].lives.range((handler.segment, node, 1)..=(handler.segment, node, u32::MAX));
    let reports = lives.filter_map(|(_, life)| life.report.as_ref()).flat_map(|(_, report)| &report.tasks);
    let mut cut = reports.filter(|task| task.outcome() == Outcome::Interrupted);
    cut.any(|task| handler.notified_by.contains(&task.task))
}

/// Something changed, and it did not begin after that.
fn forgotten(notifying: &[&Execution], began: &[u64], owed: bool) -> Option<String> {
    let changes = notifying.iter().filter(|mark| mark.what == Deed::End(Outcome::Changed)).map(|mark| mark.at_ms);
    let last = changes.max().or(owed.then_some(0))?;
    (!began.iter().any(|at_ms| *at_ms >= last)).then(|| "a handler was called and never began".to_owned())
}

/// Whether the node's last attempt of the segment went to its end, without a failure.
fn ended_well(facts: &Facts<'_>, run: usize, node: usize, handler: &Handler) -> bool {
    let (of, book) = (&facts.runs[run], facts.book(run));
    let mut lives = of.lives.range((handler.segment, node, 1)..=(handler.segment, node, u32::MAX));
    let reported = lives.next_back().is_some_and(|(_, life)| {
        let report = life.report.as_ref().filter(|(_, report)| !report.late && life.verdict.is_none());
        report.is_some_and(|(_, report)| {
            report.tasks.iter().all(|task| !matches!(task.outcome(), Outcome::Interrupted | Outcome::Cancelled))
        })
    });
    reported && of.ended.is_some() && of.stopped(book, handler.segment, node, u64::MAX).is_none()
}
