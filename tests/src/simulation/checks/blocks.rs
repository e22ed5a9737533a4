//! Judges of blocks: what really began on each node, against what the books' blocks promise.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::Outcome;

use super::{
    Checker,
    facts::{Facts, node_index, run_index},
};
use crate::simulation::{books::Guard, cluster::Deed};

/// What one node did of a Run's tasks.
#[derive(Default)]
struct Done {
    /// By task: (segment, attempt) in which it began, with the true time.
    began: BTreeMap<u32, BTreeMap<(u32, u32), u64>>,
    /// Tasks that ended as failed, with the true time of the first.
    failed: BTreeMap<u32, u64>,
}

pub(super) fn check(facts: &mut Facts<'_>) {
    let mut done: BTreeMap<(usize, usize), Done> = BTreeMap::new();
    let cluster = facts.cluster;
    for mark in &cluster.executions {
        let of = done.entry((run_index(&mark.attempt.run), node_index(&mark.attempt.node))).or_default();
        match mark.what {
            Deed::Start => {
                let place = (mark.attempt.segment, mark.attempt.attempt);
                of.began.entry(mark.task).or_default().insert(place, mark.at_ms);
            }
            Deed::End(Outcome::Failed) => _ = of.failed.entry(mark.task).or_insert(mark.at_ms),
            Deed::End(_) | Deed::Killed => {}
        }
    }
    let mut objections: Vec<String> = Vec::new();
    for ((run, node), of) in &done {
        for guard in &facts.book(*run).guards {
            let mut wrong = order(guard, of);
            if ended_by_itself(facts, *run, *node, guard) {
                wrong.extend(always(guard, of));
            }
            objections.extend(wrong.into_iter().map(|wrong| format!("run {run}, node {node}: {wrong}: {guard:?}")));
        }
    }
    for message in objections {
        facts.object(Checker::Blocks, cluster.now_ms, message);
    }
}

/// Who rescues has failed, and who rescues or is at the end does nothing more of the body.
fn order(guard: &Guard, done: &Done) -> Vec<String> {
    let mut wrong = Vec::new();
    let began = |tasks: &[u32]| -> BTreeMap<(u32, u32), u64> {
        tasks.iter().filter_map(|task| done.began.get(task)).flatten().map(|(place, at)| (*place, *at)).collect()
    };
    for (place, at) in began(&guard.rescue) {
        if !guard.body.iter().any(|task| done.failed.get(task).is_some_and(|failed| *failed <= at)) {
            wrong.push(format!("rescued at {place:?} before anything failed"));
        }
    }
    let follows = began(&[guard.rescue.clone(), guard.always.clone()].concat());
    for (place, at) in began(&guard.body) {
        let later = follows.iter().find(|((segment, attempt), before)| {
            *segment < place.0 || ((*segment, *attempt) == place && **before < at)
        });
        if let Some((earlier, _)) = later {
            wrong.push(format!("began the body again at {place:?} after what follows it at {earlier:?}"));
        }
    }
    for task in guard.rescue.iter().chain(&guard.always) {
        let segments: BTreeSet<u32> =
            done.began.get(task).into_iter().flatten().map(|((segment, _), _)| *segment).collect();
        if segments.len() > 1 {
            wrong.push(format!("task {task} was done in the segments {segments:?}"));
        }
    }
    wrong
}

/// Whether a Run went to its end, and nothing cut this node or gave it up in the block.
fn ended_by_itself(facts: &Facts<'_>, run: usize, node: usize, guard: &Guard) -> bool {
    let of = &facts.runs[run];
    let open = of.gate.as_ref().is_some_and(|gate| gate.reasons.is_empty());
    let mut lives = (guard.first..=guard.last).filter_map(|segment| {
        let mut lives = of.lives.range((segment, node, 0)..=(segment, node, u32::MAX));
        lives.next_back().map(|(_, life)| life)
    });
    let whole = lives.all(|life| {
        let report = life.report.as_ref().filter(|_| life.verdict.is_none());
        report.is_some_and(|(_, report)| {
            !report.tasks.iter().any(|task| matches!(task.outcome(), Outcome::Interrupted | Outcome::Cancelled))
        })
    });
    of.ended.is_some() && open && whole
}

/// Who began the body did what is always done, as far as that went well.
fn always(guard: &Guard, done: &Done) -> Option<String> {
    if !guard.body.iter().any(|task| done.began.contains_key(task)) {
        return None;
    }
    let missing = guard.always.iter().find(|task| !done.began.contains_key(task))?;
    let failed = guard.always.iter().take_while(|task| *task != missing).any(|task| done.failed.contains_key(task));
    // A node that was cut off ten times is given up.
    (!failed).then(|| format!("task {missing}, which is always done, was not"))
}
