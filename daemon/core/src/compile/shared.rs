//! `shared` in a rollout group: a node cannot read what is made in a later window than its own.

use lockstep_apis::v1alpha::{Group, Segment, SnapshotNode};

use super::Rejection;

/// Refuses a group of these segments in which somebody would wait for a window that opens behind the own one.
pub(super) fn check(group: &Group, segments: &[Segment], nodes: &[SnapshotNode]) -> Result<(), Rejection> {
    let window_of = |node: &u32| group.windows.iter().position(|window| window.nodes.contains(node));
    for (at, reader) in segments.iter().enumerate() {
        for id in &reader.reads_shared {
            let makes = |segment: &&Segment| segment.tasks.iter().any(|task| task.shared && task.id == *id);
            // Who makes it is one node, or it is left out.
            let maker = segments[..at].iter().find(makes).and_then(|segment| segment.nodes.first());
            let Some((maker, made_in)) = maker.and_then(|maker| Some((maker, window_of(maker)?))) else { continue };
            let first = if reader.all_of_window { Some(0) } else { reader.nodes.iter().filter_map(window_of).min() };
            if first.is_some_and(|first| first < made_in) {
                let name = nodes.get(*maker as usize).map_or("", |node| node.name.as_str());
                let message = format!(
                    "`shared.{id}` is made by {name} in window {}, and nodes of earlier windows read it: make it before the \
                     rollout group, say `runOnce: true`, or let {name} go first with `orderBy`",
                    made_in + 1
                );
                return Err(Rejection::new("SharedTooLate", message));
            }
        }
    }
    Ok(())
}
