//! A Run's snapshot with the indices that `step` asks for again and again. Knows nothing of what happened since.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use lockstep_apis::{
    params,
    v1alpha::{Group, Segment, Snapshot, SnapshotNode, Window},
};

/// A snapshot that is complete, and looked through once.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The hash in its chunks' keys.
    pub hash: String,
    /// The snapshot itself.
    pub snapshot: Arc<Snapshot>,
    /// Node uid to index.
    index: BTreeMap<String, u32>,
    /// Of each segment: which nodes do it; `None` is every node of the Run.
    members: Vec<Option<Vec<bool>>>,
    /// Of each segment: the group it is of.
    group_of: Vec<u32>,
    /// Of each node: the first segment it takes part in.
    first_segment: Vec<Option<u32>>,
    /// Of each segment that is delegated: by node, who does it.
    delegates: Vec<Option<Vec<Option<u32>>>>,
    queues: bool,
}

impl Plan {
    pub(super) fn new(hash: String, snapshot: Snapshot) -> Plan {
        let nodes = snapshot.nodes.len();
        let index = snapshot.nodes.iter().enumerate().map(|(at, node)| (node.uid.clone(), at as u32)).collect();
        let mut members: Vec<_> = snapshot.segments.iter().map(|segment| members(segment, nodes)).collect();
        let mut group_of = vec![0; snapshot.segments.len()];
        for (at, group) in snapshot.groups.iter().enumerate() {
            let own = (segments_of(group).start as usize).min(members.len());
            let end = (segments_of(group).end as usize).clamp(own, members.len());
            let for_some = some_of(group.windows.iter().flat_map(|window| &window.nodes), nodes);
            for (group_of, members) in group_of[own..end].iter_mut().zip(&mut members[own..end]) {
                *group_of = at as u32;
                *members = members.take().or_else(|| for_some.clone());
            }
        }
        let queues = !snapshot.concurrent && !reads_only(&snapshot);
        let first_segment = vec![None; nodes];
        let delegates = snapshot.segments.iter().map(|segment| delegates(segment, nodes)).collect();
        let snapshot = Arc::new(snapshot);
        let mut plan = Plan { hash, snapshot, index, members, group_of, first_segment, delegates, queues };
        plan.first_segment = plan.find_first_segments();
        plan
    }

    fn find_first_segments(&self) -> Vec<Option<u32>> {
        let mut first = vec![None; self.snapshot.nodes.len()];
        for group in &self.snapshot.groups {
            for &node in group.windows.iter().flat_map(|window| &window.nodes) {
                let Some(slot @ None) = first.get_mut(node as usize) else { continue };
                *slot = segments_of(group).find(|segment| self.does(*segment, node));
            }
        }
        first
    }

    /// The index of a node.
    pub fn node(&self, uid: &str) -> Option<u32> {
        self.index.get(uid).copied()
    }

    /// The uid of a node.
    pub fn uid(&self, node: u32) -> &str {
        self.snapshot.nodes.get(node as usize).map_or("", |node| &node.uid)
    }

    /// The name of a node.
    pub fn name(&self, node: u32) -> &str {
        self.snapshot.nodes.get(node as usize).map_or("", |node| &node.name)
    }

    /// A segment by its index in the snapshot.
    pub fn segment(&self, segment: u32) -> Option<&Segment> {
        self.snapshot.segments.get(segment as usize)
    }

    /// A group by its index.
    pub fn group(&self, group: u32) -> Option<&Group> {
        self.snapshot.groups.get(group as usize)
    }

    /// A window by its group and index.
    pub fn window(&self, group: u32, window: u32) -> Option<&Window> {
        self.group(group)?.windows.get(window as usize)
    }

    /// The group of a segment.
    pub fn group_of(&self, segment: u32) -> u32 {
        self.group_of.get(segment as usize).copied().unwrap_or_default()
    }

    /// Whether a node takes part in the segment: it is in a window of its group, and the segment is for it.
    pub fn does(&self, segment: u32, node: u32) -> bool {
        match self.members.get(segment as usize) {
            Some(Some(members)) => members.get(node as usize).copied().unwrap_or_default(),
            Some(None) => true,
            None => false,
        }
    }

    /// Who does the segment for this node, if it does not do it itself.
    pub fn delegate(&self, segment: u32, node: u32) -> Option<&SnapshotNode> {
        let index = *self.delegates.get(segment as usize)?.as_ref()?.get(node as usize)?;
        self.snapshot.delegates.get(index? as usize)
    }

    /// The uid of the node that does the segment for this node: its own unless it is delegated.
    pub fn doer_uid(&self, segment: u32, node: u32) -> &str {
        self.delegate(segment, node).map_or_else(|| self.uid(node), |delegate| &delegate.uid)
    }

    /// The name of the node that does the segment for this node.
    pub fn doer_name(&self, segment: u32, node: u32) -> &str {
        self.delegate(segment, node).map_or_else(|| self.name(node), |delegate| &delegate.name)
    }

    /// Whether every task of a segment, handlers aside, is in one of these blocks.
    pub fn is_within(&self, segment: u32, blocks: &BTreeSet<u32>) -> bool {
        self.segment(segment).is_some_and(|segment| {
            let mut own = segment.tasks.iter().filter(|task| !task.handler);
            own.all(|task| task.within.iter().any(|place| blocks.contains(&place.block)))
        })
    }

    /// The first segment that a node takes part in. `None`: in none.
    pub fn first_segment(&self, node: u32) -> Option<u32> {
        self.first_segment.get(node as usize).copied().flatten()
    }

    /// Whether the Run waits for its nodes' turns.
    pub fn queues(&self) -> bool {
        self.queues
    }
}

fn reads_only(snapshot: &Snapshot) -> bool {
    let mut tasks = snapshot.segments.iter().flat_map(|segment| &segment.tasks);
    tasks.all(|task| params::action(&task.action).is_some_and(|action| action.only_reads(task.parameters.as_ref())))
}

/// The indices of a group's segments.
pub fn segments_of(group: &Group) -> std::ops::Range<u32> {
    group.first_segment..group.first_segment.saturating_add(group.segment_count)
}

fn delegates(segment: &Segment, nodes: usize) -> Option<Vec<Option<u32>>> {
    if segment.delegates.is_empty() {
        return None;
    }
    let mut by_node = vec![None; nodes];
    for (node, delegate) in segment.nodes.iter().zip(&segment.delegates) {
        if let Some(slot) = by_node.get_mut(*node as usize) {
            *slot = Some(*delegate);
        }
    }
    Some(by_node)
}

fn members(segment: &Segment, nodes: usize) -> Option<Vec<bool>> {
    if segment.all_of_window {
        return None;
    }
    let mut members = vec![false; nodes];
    mark(&mut members, &segment.nodes);
    Some(members)
}

/// Which nodes these are; `None` if they are all.
fn some_of<'n>(these: impl IntoIterator<Item = &'n u32>, nodes: usize) -> Option<Vec<bool>> {
    let mut some = vec![false; nodes];
    mark(&mut some, these);
    some.contains(&false).then_some(some)
}

fn mark<'n>(members: &mut [bool], nodes: impl IntoIterator<Item = &'n u32>) {
    for &node in nodes {
        if let Some(slot) = members.get_mut(node as usize) {
            *slot = true;
        }
    }
}
