//! What a Run has come to: each node's state, counts, and the status that readers see. Derived from the world alone;
//! decides nothing.

mod nodes;
pub(crate) mod owed;

use std::sync::Arc;

use lockstep_apis::{
    commit::{Commit, Compare},
    keys::{self, Key},
    timestamp,
    v1alpha::{Cursor, Failure, GateReasonType, NodeCounts, Run, RunCursor, RunPhase, RunStatus, Waiting},
};
use prost::Message;

use crate::protocol;
use crate::world::{Plan, RunState, Stored};

pub use nodes::{NodeState, node_state, node_states};
pub use owed::owed;

/// Most failures and waiting reasons of a status.
const MAX_LISTED: usize = 20;

/// What an ended Run means to who waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// It has not ended.
    Going,
    /// Every node ended well.
    Succeeded,
    /// What was worked on ended well, and some nodes were skipped because they were cordoned or down.
    SucceededWithoutSome,
    /// It failed, was rejected or timed out.
    Failed,
    /// It was cancelled.
    Cancelled,
}

/// Reads a status.
pub fn meaning(status: &RunStatus) -> Meaning {
    match status.phase() {
        RunPhase::Succeeded if status.reason == NODES_SKIPPED => Meaning::SucceededWithoutSome,
        RunPhase::Succeeded => Meaning::Succeeded,
        RunPhase::Failed => Meaning::Failed,
        RunPhase::Cancelled => Meaning::Cancelled,
        _ => Meaning::Going,
    }
}

const NODES_SKIPPED: &str = "NodesSkipped";

/// The status of a Run now; with `ended`, the one it ends with. `waiting` is what the step says that it waits for.
///
/// Keeps `startedAt`, `bookGeneration` and conditions of the stored status.
pub fn status(run: &RunState, waiting: &[Waiting], now_ms: u64, ended: bool) -> RunStatus {
    let stored = run.object().and_then(|object| object.value.status.clone()).unwrap_or_default();
    let now = Some(timestamp::from_ms(now_ms));
    let counted = run.plan().map(|plan| count(run, plan, ended)).unwrap_or_default();
    let (phase, (reason, message)) = match ended {
        // An end never changes, whatever an admin who was late wrote to the gate.
        true if run.has_ended() => (stored.phase(), (stored.reason, stored.message)),
        true => {
            let phase = final_phase(run, &counted.nodes);
            (phase, explain(run, phase, &counted.nodes, waiting))
        }
        false => {
            let phase = phase(run, waiting);
            (phase, explain(run, phase, &counted.nodes, waiting))
        }
    };
    RunStatus {
        phase: phase.into(),
        reason,
        message,
        started_at: stored.started_at.or(now.filter(|_| phase == RunPhase::Running)),
        finished_at: stored.finished_at.or(now.filter(|_| ended)),
        cursor: run.plan().zip(run.cursor()).map(|(plan, cursor)| place(plan, cursor)).or(stored.cursor),
        nodes: Some(counted.nodes),
        tasks: Some(*run.task_counts()),
        waiting_for: if ended { Vec::new() } else { waiting.iter().take(MAX_LISTED).cloned().collect() },
        failures: counted.failures,
        book_generation: run.plan().map_or(stored.book_generation, |plan| plan.snapshot.book_generation),
        held_nodes: if ended { held_nodes(run) } else { Vec::new() },
        observed_at: now,
        conditions: stored.conditions,
        approval: stored.approval,
    }
}

/// The phase of a Run that has not ended; cheap.
pub fn phase(run: &RunState, waiting: &[Waiting]) -> RunPhase {
    let Some(cursor) = run.cursor() else { return RunPhase::Pending };
    let opened = cursor.granted && cursor.ticket != 0;
    let queues = run.open().is_empty() && waiting.iter().any(|waiting| waiting.reason == "NodeBusy");
    if run.is_cancelled() {
        RunPhase::Cancelling
    } else if run.gate_has(GateReasonType::AwaitingApproval) && !run.is_closed() {
        RunPhase::AwaitingApproval
    } else if run.is_paused() {
        RunPhase::Paused
    } else if !opened || queues {
        RunPhase::Waiting
    } else {
        RunPhase::Running
    }
}

/// Names of nodes that hold a place.
pub fn held_nodes(run: &RunState) -> Vec<String> {
    let Some(plan) = run.plan() else { return Vec::new() };
    let mut names: Vec<String> =
        run.places().iter().map(|(segment, node, _)| plan.doer_name(*segment, *node).to_owned()).collect();
    names.sort();
    names.dedup();
    names
}

/// The key of a Run's object.
pub(crate) fn object_key(run: &Run) -> Key {
    let metadata = run.metadata.clone().unwrap_or_default();
    keys::object("runs", &metadata.namespace, &metadata.name)
}

/// Adds the write of a status to a commit, guarded by the object as it was seen.
pub(crate) fn write_status(commit: Commit, object: &Stored<Arc<Run>>, status: RunStatus) -> Commit {
    let key = object_key(&object.value);
    let run = Run { status: Some(status), ..object.value.as_ref().clone() };
    commit.when(Compare::ModRevision(key.clone(), object.revision)).put(key, run.encode_to_vec())
}

#[derive(Default)]
struct Counted {
    nodes: NodeCounts,
    failures: Vec<Failure>,
}

fn count(run: &RunState, plan: &Plan, ended: bool) -> Counted {
    use NodeState as S;
    let mut counted = Counted::default();
    let nodes = &mut counted.nodes;
    nodes.total = plan.snapshot.nodes.len() as u32;
    for node in 0..nodes.total {
        let state = node_state(run, plan, node, ended);
        let slot = match state {
            S::Waiting => &mut nodes.waiting,
            S::Assigned | S::Working => &mut nodes.working,
            S::Ended(end) => slot(nodes, end),
        };
        *slot += 1;
        if let S::Ended(end) = state
            && end.fails()
            && counted.failures.len() < MAX_LISTED
        {
            counted.failures.push(nodes::failure(run, plan, node, end));
        }
    }
    counted
}

fn slot(nodes: &mut NodeCounts, end: crate::world::NodeEnd) -> &mut u32 {
    use crate::world::NodeEnd as E;
    match end {
        E::Ok => &mut nodes.ok,
        E::Changed => &mut nodes.changed,
        E::Failed => &mut nodes.failed,
        E::Skipped => &mut nodes.skipped,
        E::Unreachable => &mut nodes.unreachable,
        E::Lost => &mut nodes.lost,
        E::Cancelled => &mut nodes.cancelled,
        E::Interrupted => &mut nodes.interrupted,
    }
}

/// Why the Run fails if it ends now. `None`: it does not.
pub(crate) fn failure(run: &RunState) -> Option<String> {
    let plan = run.plan()?;
    let counted = count(run, plan, true);
    let fails = final_phase(run, &counted.nodes) == RunPhase::Failed;
    fails.then(|| explain(run, RunPhase::Failed, &counted.nodes, &[]).1)
}

fn final_phase(run: &RunState, nodes: &NodeCounts) -> RunPhase {
    let all_well = nodes.ok + nodes.changed + nodes.skipped == nodes.total;
    if run.gate_has(GateReasonType::Cancelled) {
        RunPhase::Cancelled
    } else if run.is_closed() || !all_well {
        RunPhase::Failed
    } else {
        RunPhase::Succeeded
    }
}

/// One word and one sentence.
fn explain(run: &RunState, phase: RunPhase, nodes: &NodeCounts, waiting: &[Waiting]) -> (String, String) {
    let reasons = run.gate().map_or(&[][..], |gate| &gate.value.reasons);
    let gate = |kind: GateReasonType| reasons.iter().find(|reason| reason.r#type() == kind);
    let failed = nodes.failed + nodes.unreachable + nodes.lost + nodes.interrupted;
    let (reason, message) = if let Some(cancelled) = gate(GateReasonType::Cancelled) {
        let message = match cancelled.message.as_str() {
            "" | protocol::CANCELLED => format!("cancelled by {}", cancelled.by),
            replaced => replaced.to_owned(),
        };
        ("Cancelled", message)
    } else if let Some(timed_out) = gate(GateReasonType::TimedOut) {
        ("TimedOut", timed_out.message.clone())
    } else if let Some(stopped) = gate(GateReasonType::Failed) {
        ("FailureLimit", stopped.message.clone())
    } else if let Some(awaited) = gate(GateReasonType::AwaitingApproval).filter(|_| phase == RunPhase::AwaitingApproval)
    {
        ("AwaitingApproval", awaited.message.clone())
    } else if let Some(paused) = gate(GateReasonType::Paused).filter(|_| phase == RunPhase::Paused) {
        ("Paused", format!("paused by {}", paused.by))
    } else if phase == RunPhase::Failed {
        ("NodesFailed", format!("{failed} of {} nodes failed", nodes.total))
    } else if phase == RunPhase::Succeeded && nodes.skipped > 0 {
        (NODES_SKIPPED, format!("{} of {} nodes were skipped", nodes.skipped, nodes.total))
    } else if let Some(first) = waiting.first().filter(|_| phase == RunPhase::Waiting) {
        (first.reason.as_str(), first.message.clone())
    } else {
        ("", String::new())
    };
    (reason.to_owned(), message)
}

fn place(plan: &Plan, cursor: &Cursor) -> RunCursor {
    let group = plan.group(cursor.group);
    let open = u32::from(cursor.ticket != 0);
    RunCursor {
        group: (cursor.group + 1) * open,
        groups: plan.snapshot.groups.len() as u32,
        window: (cursor.window + 1) * open,
        windows: group.map_or(0, |group| group.windows.len() as u32),
        segment: (cursor.segment + 1) * open,
        segments: group.map_or(0, |group| group.segment_count),
    }
}
