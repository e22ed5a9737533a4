//! A retry: the old snapshot again, for the nodes that did not succeed. The book of today is not looked at.

use std::collections::BTreeMap;

use lockstep_apis::v1alpha::{Group, OnUnreachable, RunOptions, Segment, Snapshot};

use super::{Admission, AdmissionNode, Rejection, Retry, delegate, describe, early_end, targets};

pub(super) fn compile(admission: &Admission<'_>) -> Result<Snapshot, Rejection> {
    let retry = admission.retry.as_ref().expect("invariant: only called for a retry");
    let mut snapshot = retry.snapshot.clone();
    let places = keep_nodes(&mut snapshot, admission, retry);
    if places.is_empty() {
        let run = &retry.snapshot.run_name;
        let message = format!("every node of the Run `{run}` succeeded: there is nothing to retry");
        return Err(Rejection::new("NoTargets", message));
    }
    keep_work(&mut snapshot, &places);
    judge_delegates(&mut snapshot, admission)?;
    // Remembered by the Run that made them.
    snapshot.picks.clear();
    snapshot.shared.extend(retry.shared.clone());
    snapshot.all.extend(retry.all.clone());
    snapshot.sealed_shared.extend(retry.sealed_shared.clone());
    let (timeout_ms, grace_ms) = (snapshot.timeout_ms, snapshot.grace_ms);
    describe(&mut snapshot, admission, &RunOptions::default());
    (snapshot.timeout_ms, snapshot.grace_ms) = (timeout_ms, grace_ms);
    Ok(snapshot)
}

/// Leaves the nodes that did not succeed and still are. The answer: old index to new.
fn keep_nodes(snapshot: &mut Snapshot, admission: &Admission<'_>, retry: &Retry<'_>) -> BTreeMap<u32, u32> {
    let uid = |node: &AdmissionNode<'_>| node.node.metadata.as_ref().map(|own| own.uuid.clone()).unwrap_or_default();
    let now: BTreeMap<String, &AdmissionNode<'_>> = admission.nodes.iter().map(|node| (uid(node), node)).collect();
    let on_unreachable = OnUnreachable::try_from(snapshot.on_unreachable).unwrap_or_default();
    let (mut places, mut nodes) = (BTreeMap::new(), Vec::new());
    for (index, mut node) in std::mem::take(&mut snapshot.nodes).into_iter().enumerate() {
        let Some(present) = now.get(&node.uid).filter(|_| retry.nodes.contains(&node.uid)) else { continue };
        places.insert(index as u32, nodes.len() as u32);
        node.early = early_end(present, on_unreachable).into();
        node.owed = retry.owed.get(&node.uid).into_iter().flatten().copied().collect();
        // It may have another name by now; in order of name it stays where it was.
        node.name = targets::name(present).to_owned();
        nodes.push(node);
    }
    snapshot.nodes = nodes;
    for layer in &mut snapshot.layers {
        layer.nodes = layer.nodes.iter().filter_map(|node| places.get(node).copied()).collect();
    }
    places
}

/// Those who do work for others must be able to, now as then.
fn judge_delegates(snapshot: &mut Snapshot, admission: &Admission<'_>) -> Result<(), Rejection> {
    let on_unreachable = OnUnreachable::try_from(snapshot.on_unreachable).unwrap_or_default();
    for segment in &snapshot.segments {
        let task =
            segment.tasks.first().map_or("", |task| if task.name.is_empty() { &task.action } else { &task.name });
        for delegate in &segment.delegates {
            let Some(known) = snapshot.delegates.get_mut(*delegate as usize) else { continue };
            let is_it = |node: &&AdmissionNode<'_>| {
                node.node.metadata.as_ref().is_some_and(|metadata| metadata.uuid == known.uid)
            };
            let Some(present) = admission.nodes.iter().find(is_it) else {
                let message = format!("the task `{task}` is delegated to {}, which is gone", known.name);
                return Err(Rejection::new("UnknownNode", message));
            };
            delegate::usable(present, on_unreachable, task)?;
            known.name = targets::name(present).to_owned();
        }
    }
    Ok(())
}

/// Leaves the windows and segments in which one of the nodes is.
fn keep_work(snapshot: &mut Snapshot, places: &BTreeMap<u32, u32>) {
    let moved = |nodes: &[u32]| nodes.iter().filter_map(|node| places.get(node).copied()).collect::<Vec<u32>>();
    let (mut groups, mut segments): (Vec<Group>, Vec<Segment>) = (Vec::new(), Vec::new());
    for mut group in std::mem::take(&mut snapshot.groups) {
        group.windows.iter_mut().for_each(|window| window.nodes = moved(&window.nodes));
        group.windows.retain(|window| !window.nodes.is_empty());
        let range = group.first_segment as usize..(group.first_segment + group.segment_count) as usize;
        let first = segments.len() as u32;
        for segment in snapshot.segments.get(range).unwrap_or_default() {
            let nodes = moved(&segment.nodes);
            let beside = segment.nodes.iter().zip(&segment.delegates).filter(|(node, _)| places.contains_key(node));
            let delegates = beside.map(|(_, delegate)| *delegate).collect();
            if !group.windows.is_empty() && (segment.all_of_window || !nodes.is_empty()) {
                segments.push(Segment { nodes, delegates, ..segment.clone() });
            }
        }
        group.first_segment = first;
        group.segment_count = segments.len() as u32 - first;
        if group.segment_count > 0 {
            groups.push(group);
        }
    }
    snapshot.groups = groups;
    snapshot.segments = segments;
}
