//! How one node of a Run stands, and what its tasks said.

use lockstep_apis::v1alpha::{Failure, Outcome, RunNode, RunTask, TaskReport};

use crate::world::{NodeEnd, Plan, RunState, Stage, early_verdict};

/// How a node of a Run stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeState {
    /// It has something to do and no assignment.
    Waiting,
    /// It was assigned and has not claimed.
    Assigned,
    /// It claimed and has not reported.
    Working,
    /// Nothing follows.
    Ended(NodeEnd),
}

impl NodeState {
    /// The word in `RunNode.state`.
    pub fn word(self) -> &'static str {
        match self {
            NodeState::Waiting => "Waiting",
            NodeState::Assigned => "Assigned",
            NodeState::Working => "Working",
            NodeState::Ended(end) => end.word(),
        }
    }
}

/// How a node stands; with `ended`, how it ends when the Run ends now.
pub fn node_state(run: &RunState, plan: &Plan, node: u32, ended: bool) -> NodeState {
    if let Some(stop) = run.stop(node) {
        return NodeState::Ended(stop.end);
    }
    let mut changed = false;
    let mut takes_part = false;
    for segment in (0..plan.snapshot.segments.len() as u32).filter(|&segment| run.does(plan, segment, node)) {
        takes_part = true;
        match run.stage(segment, node) {
            Stage::Ended(end) => changed |= end == NodeEnd::Changed,
            Stage::Assigned => return NodeState::Assigned,
            Stage::Claimed => return NodeState::Working,
            Stage::Rerun if ended => return NodeState::Ended(NodeEnd::Interrupted),
            Stage::Unassigned if ended => return NodeState::Ended(not_reached(plan, node)),
            Stage::Rerun | Stage::Unassigned => return NodeState::Waiting,
        }
    }
    NodeState::Ended(match (takes_part, changed) {
        (false, _) => NodeEnd::Skipped,
        (true, true) => NodeEnd::Changed,
        (true, false) => NodeEnd::Ok,
    })
}

fn not_reached(plan: &Plan, node: u32) -> NodeEnd {
    use lockstep_apis::v1alpha::VerdictType;
    let early = plan.snapshot.nodes.get(node as usize).and_then(|node| early_verdict(node.early()));
    match early {
        Some((VerdictType::Unreachable, _)) => NodeEnd::Unreachable,
        Some(_) => NodeEnd::Skipped,
        None => NodeEnd::Cancelled,
    }
}

/// Every node of a Run, in order of name. Empty before admission.
pub fn node_states(run: &RunState) -> Vec<RunNode> {
    let Some(plan) = run.plan() else { return Vec::new() };
    let nodes = plan.snapshot.nodes.iter().enumerate();
    nodes
        .map(|(at, node)| {
            let at = at as u32;
            let state = node_state(run, plan, at, run.has_ended());
            RunNode {
                name: node.name.clone(),
                uid: node.uid.clone(),
                state: state.word().to_owned(),
                message: message(run, plan, at, state),
                tasks: tasks(run, plan, at),
                held: run.places().iter().any(|(segment, of, _)| plan.doer_uid(*segment, *of) == node.uid),
                owed_handlers: match state {
                    NodeState::Ended(_) => super::owed::owed_names(run, plan, at),
                    _ => Vec::new(),
                },
            }
        })
        .collect()
}

/// A failed node, with the task at which it failed if it was one.
pub(super) fn failure(run: &RunState, plan: &Plan, node: u32, end: NodeEnd) -> Failure {
    let task = failed_task(run, plan, node).map(|(name, _)| name).unwrap_or_default();
    Failure { node: plan.name(node).to_owned(), task, message: message(run, plan, node, NodeState::Ended(end)) }
}

fn message(run: &RunState, plan: &Plan, node: u32, state: NodeState) -> String {
    let NodeState::Ended(_) = state else { return String::new() };
    if let Some((_, report)) = failed_task(run, plan, node) {
        return report.message.clone();
    }
    let last = run.stop(node).and_then(|stop| run.track(stop.segment, node)?.last());
    let verdict = last.and_then(|attempt| Some(attempt.verdict.as_ref()?.value.message.clone()));
    let error = || last.and_then(|attempt| Some(attempt.counted_report()?.error.clone()));
    match (verdict.or_else(error), state) {
        (Some(message), _) => message,
        (None, NodeState::Ended(NodeEnd::Cancelled)) => "the run was stopped before the node was through".to_owned(),
        (None, NodeState::Ended(NodeEnd::Skipped)) => "no task is for this node".to_owned(),
        (None, _) => String::new(),
    }
}

/// The name and report of the task that stopped the node.
fn failed_task<'w>(run: &'w RunState, plan: &Plan, node: u32) -> Option<(String, &'w TaskReport)> {
    let stop = run.stop(node)?;
    let report = run.track(stop.segment, node)?.last()?.counted_report()?;
    let stopped = |task: &&TaskReport| {
        let ends =
            matches!(task.outcome(), Outcome::Failed | Outcome::Interrupted | Outcome::Cancelled | Outcome::Lost);
        ends && !task.ignored
    };
    // What failed before it was rescued, or was followed by what is always done.
    let task = report.tasks.iter().rfind(stopped)?;
    let compiled = plan.segment(stop.segment)?.tasks.iter().find(|compiled| compiled.index == task.task);
    Some((compiled.map(|compiled| compiled.name.clone()).unwrap_or_default(), task))
}

fn tasks(run: &RunState, plan: &Plan, node: u32) -> Vec<RunTask> {
    let mut tasks = Vec::new();
    for (at, segment) in plan.snapshot.segments.iter().enumerate() {
        let Some(track) = run.track(at as u32, node) else { continue };
        for attempt in &track.attempts {
            let reports = attempt.report.as_ref().map_or(&[][..], |report| &report.value.tasks);
            tasks.extend(reports.iter().map(|report| {
                let task = segment.tasks.iter().find(|task| task.index == report.task);
                RunTask {
                    id: task.map(|task| task.id.clone()).unwrap_or_default(),
                    name: task.map(|task| task.name.clone()).unwrap_or_default(),
                    report: Some(report.clone()),
                    segment: at as u32,
                    attempt: attempt.number,
                    delegate: plan.delegate(at as u32, node).map(|by| by.name.clone()).unwrap_or_default(),
                }
            }));
        }
    }
    tasks
}
