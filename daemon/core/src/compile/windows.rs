//! The windows of a rollout group: how many nodes at once, in which order, and how many may fail.

use lockstep_apis::v1alpha::{
    CountOrPercent, Group, OnFailure, RunOptions, Serialize, Window, count_or_percent::Value,
};

use super::Rejection;

/// A group for these nodes, without segments yet. Without `serialize` all of them are one window.
pub(super) fn group(serialize: Option<&Serialize>, options: &RunOptions, nodes: &[u32]) -> Result<Group, Rejection> {
    let of_options = match options.on_failure() {
        OnFailure::Unspecified => OnFailure::StopNow,
        given => given,
    };
    let Some(serialize) = serialize else {
        let all = Window { nodes: nodes.to_vec(), size: nodes.len() as u32 };
        return Ok(Group { windows: vec![all], on_failure: of_options.into(), ..Group::default() });
    };
    let on_failure = match serialize.on_failure() {
        OnFailure::Unspecified => of_options,
        given => given,
    };
    let max_failures = serialize.max_failures.as_ref().map_or(0, |limit| number(limit, nodes.len()));
    if max_failures as usize > nodes.len() {
        let message = format!(
            "`maxFailures: {max_failures}` is more than the group's {} nodes: give fewer, or a percentage",
            nodes.len()
        );
        return Err(Rejection::new("MaxFailures", message));
    }
    Ok(Group {
        windows: windows(&serialize.count, nodes),
        max_failures,
        on_failure: on_failure.into(),
        serialized: true,
        ..Group::default()
    })
}

/// A check waits for nobody: all nodes are one window, without a gate, and no failure of one stops the others.
pub(super) fn open_for_check(group: &mut Group) {
    let nodes: Vec<u32> = group.windows.iter().flat_map(|window| window.nodes.iter().copied()).collect();
    *group = Group {
        windows: vec![Window { size: nodes.len() as u32, nodes }],
        first_segment: group.first_segment,
        segment_count: group.segment_count,
        max_failures: u32::MAX,
        on_failure: OnFailure::FinishWindow.into(),
        ..Group::default()
    };
}

fn windows(counts: &[CountOrPercent], nodes: &[u32]) -> Vec<Window> {
    let mut windows = Vec::new();
    let mut rest = nodes;
    while !rest.is_empty() {
        // The last count is repeated.
        let count = counts.get(windows.len()).or(counts.last());
        let size = count.map_or(1, |count| number(count, nodes.len())).max(1);
        let (window, more) = rest.split_at(rest.len().min(size as usize));
        windows.push(Window { nodes: window.to_vec(), size });
        rest = more;
    }
    windows
}

/// A percentage is of the group's nodes, rounded down.
fn number(given: &CountOrPercent, nodes: usize) -> u32 {
    match given.value {
        Some(Value::Count(count)) => count,
        Some(Value::Percent(percent)) => (nodes as u64 * u64::from(percent) / 100) as u32,
        None => 0,
    }
}
