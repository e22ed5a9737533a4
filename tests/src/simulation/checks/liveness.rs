//! When nothing breaks any more: every Run ends, every node has a named end, and what nobody holds is let go.

use lockstep_apis::v1alpha::{OnUnreachable, VerdictType};

use super::{Checker, facts::Facts};
use crate::simulation::server::UNREACHABLE_MS;

/// In which a server hears that a node is silent, and somebody leads.
const SLACK_MS: u64 = 10_000;

pub(super) fn check(facts: &mut Facts<'_>) {
    let now = facts.cluster.now_ms;
    for run in 0..facts.runs.len() {
        let of = &facts.runs[run];
        let mut objections: Vec<String> = Vec::new();
        if of.ended.is_none() && !facts.cluster.is_refused(run) {
            objections.push(format!("run {run} did not end: cursor {:?}, gate {:?}", of.cursor, of.gate));
        }
        let status = of.object.as_ref().and_then(|object| object.status.clone()).unwrap_or_default();
        if of.ended.is_some() && status.cursor.is_some() {
            let nodes = status.nodes.unwrap_or_default();
            let named = nodes.ok
                + nodes.changed
                + nodes.failed
                + nodes.skipped
                + nodes.unreachable
                + nodes.lost
                + nodes.cancelled
                + nodes.interrupted;
            if named != nodes.total || nodes.total as usize != facts.book(run).snapshot.nodes.len() {
                objections.push(format!("run {run} ended, and not every node has a named end: {nodes:?}"));
            }
        }
        let held: Vec<_> = of.places().map(|(key, life)| (*key, life.doer)).collect();
        // Only a node that is away for good holds its place, and only if nothing fences it.
        let is_fenced = facts.book(run).snapshot.fence_ms > 0;
        let odd = held.iter().filter(|(_, doer)| is_fenced || !facts.cluster.machines[*doer].gone);
        objections.extend(odd.map(|(key, _)| format!("run {run}: {key:?} holds its place")));
        objections.extend(waited_for(facts, run));
        if of.ended.is_some() && held.is_empty() && of.cursor.is_some() && !status.held_nodes.is_empty() {
            objections.push(format!("run {run} says that it holds {:?}", status.held_nodes));
        }
        for message in objections {
            facts.object(Checker::Liveness, now, message);
        }
    }
}

/// Nodes that were away for good, had begun nothing, and were waited for until the Run was stopped, though it does not
/// say `onUnreachable: Wait`.
fn waited_for(facts: &Facts<'_>, run: usize) -> Vec<String> {
    let (of, cluster) = (&facts.runs[run], facts.cluster);
    if facts.book(run).snapshot.on_unreachable() == OnUnreachable::Wait {
        return Vec::new();
    }
    let begun = |node: usize| of.lives.iter().any(|((_, of, _), life)| *of == node && life.claimed.is_some());
    let waited = of.lives.iter().filter(|((_, node, _), life)| {
        let (Some((assigned, _)), Some((until, VerdictType::Withdrawn))) = (&life.assigned, life.verdict) else {
            return false;
        };
        let from = (*assigned).max(cluster.healed_ms);
        cluster.machines[life.doer].gone && !begun(*node) && until > from + UNREACHABLE_MS + SLACK_MS
    });
    waited.map(|(key, _)| format!("run {run}: {key:?} was waited for, and its node never came")).collect()
}
