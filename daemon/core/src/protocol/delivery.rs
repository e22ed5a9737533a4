//! What a node is handed with a granted claim: its tasks, and of all values only those it may read. Knows the snapshot
//! and the reports; opens no secret.

use std::collections::BTreeMap;

use lockstep_apis::{
    keys::Attempt,
    v1alpha::{CompiledTask, Outcome, Sealed, Segment, TaskReport, Value, Work},
};
use prost::Message;

use crate::compile::VARIABLE_SET;
use crate::context::unknown_variable;
use crate::variables::{self, variables_of};
use crate::world::{Plan, RunState, World};

/// Most bytes of results over all nodes in one `Work`: a message has 4 MiB, and every node is given them.
const MAX_ALL_BYTES: usize = 1024 * 1024;

/// A segment's work, and the secret values that must be opened and put into it before it goes to the node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Delivery {
    /// All but the secrets, `output_limit_bytes`.
    pub work: Work,
    /// Open each with what it is bound to, and [`SealedValue::place`] it.
    pub sealed: Vec<SealedValue>,
}

/// A secret value that the work needs.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedValue {
    /// Where it goes.
    pub place: Place,
    /// The id of the task that made it.
    pub id: String,
    /// The value.
    pub sealed: Sealed,
    /// The attempt and the task's index in whose report it is stored. `None`: it is in the snapshot.
    pub bound_to: Option<(Attempt, u32)>,
}

/// Where a secret value goes in a `Work`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// `results`, and its id to `secret_results`.
    Results,
    /// `shared`, and its id to `secret_shared`.
    Shared,
    /// The `result` of `known`'s entry for this task index, and its id to `secret_results`.
    Known(u32),
}

/// What the holder of an attempt's claim is to do. `None`: the Run, the assignment or the node is not known here.
pub fn work(world: &World, attempt: &Attempt) -> Option<Delivery> {
    let run = world.run(&attempt.run)?;
    let plan = run.plan()?;
    let node = plan.node(&attempt.for_node)?;
    let segment = plan.segment(attempt.segment)?;
    let stored = run.attempt(attempt)?.assignment.as_ref()?;
    let (assignment, fence_token) = (stored.value.clone(), stored.revision);
    let snapshot = &plan.snapshot;
    let mut delivery = Delivery {
        work: Work {
            run_uid: attempt.run.clone(),
            run_name: snapshot.run_name.clone(),
            namespace: snapshot.namespace.clone(),
            segment: attempt.segment,
            for_uid: attempt.for_node.clone(),
            node_uid: attempt.node.clone(),
            node_name: plan.name(node).to_owned(),
            attempt: attempt.attempt,
            node_labels: snapshot.nodes.get(node as usize)?.labels.clone(),
            node_addresses: snapshot.nodes.get(node as usize)?.addresses.clone(),
            delegate: plan.delegate(attempt.segment, node).cloned(),
            tasks: segment.tasks.clone(),
            inputs: snapshot.inputs.clone(),
            scopes: snapshot.scopes.clone(),
            variables: variables::of_snapshot(snapshot, node),
            known: assignment.known.clone(),
            blocks: segment.blocks.clone(),
            left_blocks: assignment.left_blocks.clone(),
            owed: assignment.owed.clone(),
            grace_ms: snapshot.grace_ms,
            fence_ms: snapshot.fence_ms,
            fence_token,
            check: snapshot.check,
            diff: snapshot.diff,
            nodes: if segment.reads_nodes { snapshot.nodes.clone() } else { Vec::new() },
            ..Default::default()
        },
        sealed: Vec::new(),
    };
    delivery.add_known(run, plan, attempt, node);
    delivery.add_results(run, plan, attempt.segment, node);
    delivery.add_set(run, plan, attempt.segment, node);
    delivery.add_shared(run, plan, segment);
    delivery.add_all(run, plan, segment);
    if snapshot.check {
        delivery.add_unknown(run, plan, attempt.segment, node);
    }
    Some(delivery)
}

impl Delivery {
    /// Secrets among what earlier attempts of this segment left.
    fn add_known(&mut self, run: &RunState, plan: &Plan, attempt: &Attempt, node: u32) {
        for (number, report) in reports(run, attempt.segment, node) {
            let (Some(sealed), Some(id)) = (&report.sealed, task_id(plan, attempt.segment, report.task)) else {
                continue;
            };
            if number < attempt.attempt && self.work.known.iter().any(|known| known.task == report.task) {
                self.sealed.push(SealedValue {
                    place: Place::Known(report.task),
                    id,
                    sealed: sealed.clone(),
                    bound_to: Some((Attempt { attempt: number, ..attempt.clone() }, report.task)),
                });
            }
        }
    }

    /// What this node's earlier segments left.
    fn add_results(&mut self, run: &RunState, plan: &Plan, before: u32, node: u32) {
        // A delegate sees of another node's results what its tasks read.
        let limited = self.work.delegate.is_some();
        let read = plan.segment(before).map_or(&[][..], |segment| &segment.reads_results);
        for segment in 0..before {
            for (number, report) in reports(run, segment, node) {
                let id = task_id(plan, segment, report.task);
                if limited && id.is_none_or(|id| !read.contains(&id)) {
                    continue;
                }
                self.add(run, plan, Place::Results, segment, node, number, report);
            }
        }
    }

    /// Variables that this node's earlier segments set.
    fn add_set(&mut self, run: &RunState, plan: &Plan, before: u32, node: u32) {
        for segment in 0..before {
            for (_, report) in reports(run, segment, node) {
                if task(plan, segment, report.task).is_none_or(|task| task.action != VARIABLE_SET) {
                    continue;
                }
                let values = report.result.as_ref().and_then(|result| result.get("values")).and_then(Value::as_map);
                if let Some(values) = values {
                    self.work.variables = variables::merged(std::mem::take(&mut self.work.variables), values);
                }
            }
        }
    }

    /// What other nodes left for all, and what a retried Run left.
    fn add_shared(&mut self, run: &RunState, plan: &Plan, segment: &Segment) {
        for id in &segment.reads_shared {
            if let Some(value) = plan.snapshot.shared.get(id) {
                self.work.shared.insert(id.clone(), value.clone());
            } else if let Some(sealed) = plan.snapshot.sealed_shared.get(id) {
                let sealed = sealed.clone();
                self.sealed.push(SealedValue { place: Place::Shared, id: id.clone(), sealed, bound_to: None });
            } else if let Some((producer, task)) = producer(plan, id) {
                for node in 0..plan.snapshot.nodes.len() as u32 {
                    for (number, report) in reports(run, producer, node).filter(|(_, report)| report.task == task) {
                        self.add(run, plan, Place::Shared, producer, node, number, report);
                    }
                }
            }
        }
    }

    /// What every node left, as far as it is not too long.
    fn add_all(&mut self, run: &RunState, plan: &Plan, segment: &Segment) {
        let mut left = MAX_ALL_BYTES;
        for id in &segment.reads_all {
            let values = Value::map(results_of_all(run, plan, id));
            match left.checked_sub(values.encoded_len()) {
                Some(rest) => {
                    left = rest;
                    self.work.all.insert(id.clone(), values);
                }
                None => self.work.all_withheld.push(id.clone()),
            }
        }
    }

    /// What did not run in this check, and whether it would have changed the node.
    fn add_unknown(&mut self, run: &RunState, plan: &Plan, before: u32, node: u32) {
        for segment in 0..before {
            let attempts = run.track(segment, node).map_or(&[][..], |track| &track.attempts);
            let reports = attempts.iter().filter_map(|attempt| attempt.counted_report());
            for report in reports.flat_map(|report| &report.tasks) {
                self.work.unsettled |= matches!(report.outcome(), Outcome::Changed | Outcome::Unpredicted);
                if let Some(task) = task(plan, segment, report.task).filter(|_| report.unknown) {
                    self.work.unknown.push(task.id.clone());
                    self.work.unknown.extend(variables_of(task).map(unknown_variable));
                }
            }
        }
        // Its producer did not run, or was stopped by what would fail there.
        let sealed = |id: &String| self.sealed.iter().any(|value| value.place == Place::Shared && value.id == *id);
        let segment = plan.segment(before).into_iter().flat_map(|segment| &segment.reads_shared);
        let missing: Vec<String> =
            segment.filter(|id| !self.work.shared.contains_key(*id) && !sealed(id)).cloned().collect();
        self.work.unknown.extend(missing);
        let all = plan.segment(before).into_iter().flat_map(|segment| &segment.reads_all);
        let unknown: Vec<String> = all.filter(|id| is_unknown_somewhere(run, plan, id)).cloned().collect();
        self.work.unknown.extend(unknown);
    }

    #[allow(clippy::too_many_arguments, reason = "one value and where it comes from")]
    fn add(
        &mut self,
        run: &RunState,
        plan: &Plan,
        place: Place,
        segment: u32,
        node: u32,
        number: u32,
        report: &TaskReport,
    ) {
        let Some(id) = task_id(plan, segment, report.task) else { return };
        if let Some(sealed) = &report.sealed {
            let bound_to = Some((run.attempt_of(plan, segment, node, number), report.task));
            self.sealed.push(SealedValue { place, id, sealed: sealed.clone(), bound_to });
        } else if let Some(value) = &report.result {
            let values = if place == Place::Shared { &mut self.work.shared } else { &mut self.work.results };
            values.insert(id, value.clone());
        }
    }
}

/// The results of a task over all nodes, by node name: of those that this Run took on, and of the Run that it retries.
pub fn results_of_all(run: &RunState, plan: &Plan, id: &str) -> BTreeMap<String, Value> {
    let mut results = plan.snapshot.all.get(id).and_then(Value::as_map).cloned().unwrap_or_default();
    let segments = plan.snapshot.segments.iter().enumerate();
    let mut tasks = segments.flat_map(|(at, segment)| segment.tasks.iter().map(move |task| (at as u32, task)));
    let Some((segment, task)) = tasks.find(|(_, task)| task.id == id) else { return results };
    for node in 0..plan.snapshot.nodes.len() as u32 {
        for (_, report) in reports(run, segment, node).filter(|(_, report)| report.task == task.index) {
            results.extend(report.result.clone().map(|result| (plan.name(node).to_owned(), result)));
        }
    }
    results
}

/// Reports of tasks of a node in a segment, with the attempt's number; of a task that was reported twice, the last.
fn reports(run: &RunState, segment: u32, node: u32) -> impl Iterator<Item = (u32, &TaskReport)> {
    let attempts = run.track(segment, node).map_or(&[][..], |track| &track.attempts);
    let all = attempts.iter().filter_map(|attempt| Some((attempt.number, attempt.counted_report()?)));
    let all = all.flat_map(|(number, report)| report.tasks.iter().map(move |task| (number, task)));
    let mut last = BTreeMap::new();
    for (number, task) in all.filter(|(_, task)| task.result.is_some() || task.sealed.is_some()) {
        last.insert(task.task, (number, task));
    }
    last.into_values()
}

/// In a check: whether what a task came to is not known on some node.
fn is_unknown_somewhere(run: &RunState, plan: &Plan, id: &str) -> bool {
    (0u32..).zip(&plan.snapshot.segments).any(|(at, segment)| {
        let indices: Vec<u32> = segment.tasks.iter().filter(|task| task.id == *id).map(|task| task.index).collect();
        let nodes = 0..plan.snapshot.nodes.len() as u32;
        let tracks = nodes.filter(|_| !indices.is_empty()).filter_map(|node| run.track(at, node));
        let reports = tracks.flat_map(|track| &track.attempts).filter_map(|attempt| attempt.counted_report());
        reports.flat_map(|report| &report.tasks).any(|report| report.unknown && indices.contains(&report.task))
    })
}

/// The segment and the task index that make a shared value.
fn producer(plan: &Plan, id: &str) -> Option<(u32, u32)> {
    let segments = plan.snapshot.segments.iter().enumerate();
    let mut tasks = segments.flat_map(|(at, segment)| segment.tasks.iter().map(move |task| (at as u32, task)));
    tasks.find(|(_, task)| task.shared && task.id == id).map(|(segment, task)| (segment, task.index))
}

fn task(plan: &Plan, segment: u32, index: u32) -> Option<&CompiledTask> {
    plan.segment(segment)?.tasks.iter().find(|task| task.index == index)
}

fn task_id(plan: &Plan, segment: u32, index: u32) -> Option<String> {
    task(plan, segment, index).map(|task| task.id.clone())
}
