//! A Run's snapshot with the indices that `step` asks for again and again. Knows nothing of what happened since.

use std::{collections::BTreeMap, sync::Arc};

use lockstep_apis::{
    params,
    v1alpha::{Group, Segment, Snapshot, Window},
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
    /// Of each segment: which nodes do it; `None` is every node of the window.
    members: Vec<Option<Vec<bool>>>,
    /// Of each segment: the group it is of.
    group_of: Vec<u32>,
    /// Of each node: the first segment it takes part in.
    first_segment: Vec<Option<u32>>,
    queues: bool,
}

impl Plan {
    pub(super) fn new(hash: String, snapshot: Snapshot) -> Plan {
        let nodes = snapshot.nodes.len();
        let index = snapshot.nodes.iter().enumerate().map(|(at, node)| (node.uid.clone(), at as u32)).collect();
        let members = snapshot.segments.iter().map(|segment| members(segment, nodes)).collect();
        let mut group_of = vec![0; snapshot.segments.len()];
        for (at, group) in snapshot.groups.iter().enumerate() {
            for segment in segments_of(group) {
                if let Some(slot) = group_of.get_mut(segment as usize) {
                    *slot = at as u32;
                }
            }
        }
        let queues = !snapshot.concurrent && !reads_only(&snapshot);
        let first_segment = vec![None; nodes];
        let mut plan = Plan { hash, snapshot: Arc::new(snapshot), index, members, group_of, first_segment, queues };
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

    /// Whether a node of the window takes part in the segment.
    pub fn does(&self, segment: u32, node: u32) -> bool {
        match self.members.get(segment as usize) {
            Some(Some(members)) => members.get(node as usize).copied().unwrap_or_default(),
            Some(None) => true,
            None => false,
        }
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

fn members(segment: &Segment, nodes: usize) -> Option<Vec<bool>> {
    if segment.all_of_window {
        return None;
    }
    let mut members = vec![false; nodes];
    for &node in &segment.nodes {
        if let Some(slot) = members.get_mut(node as usize) {
            *slot = true;
        }
    }
    Some(members)
}
