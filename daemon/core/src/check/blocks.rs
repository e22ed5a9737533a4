//! Blocks: how deep they go, where in them nodes may wait, and who follows a failure.

use lockstep_apis::v1alpha::{BlockPart, Serialize, Task, Violation, Within};
use lockstep_apis::violation::of_field;

use crate::outline::{Block, Leaf, MAX_DEPTH, Outline};

/// Most tasks of a book, with those in blocks.
const MAX_TASKS: usize = 10_000;

/// What is wrong with the layout as a whole.
pub(super) fn layout(outline: &Outline<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if outline.tasks.len().max(outline.blocks.len()) > MAX_TASKS {
        let message = format!(
            "{} tasks, with those in blocks and includes; at most {MAX_TASKS} are allowed",
            outline.tasks.len()
        );
        violations.push(of_field("TooLarge", "spec.tasks", message));
    }
    for leaf in outline.tasks.iter().filter(|leaf| !leaf.written.block.is_empty()) {
        let message = format!("blocks go {MAX_DEPTH} deep at most: take this one out of those around it");
        violations.push(of_field("TooDeep", leaf.field(".block"), message));
    }
    for block in &outline.blocks {
        if let Some(targets) = &block.task.targets {
            super::targets(targets, &block.field(".targets"), &mut violations);
        }
        if follows(&block.within) {
            waits(block.task, |below| block.field(below), &mut violations);
        }
    }
    violations
}

/// What is wrong with a block that is a rollout group.
pub(super) fn group(block: &Block<'_>, given: &Serialize, serialized: bool, violations: &mut Vec<Violation>) {
    let field = block.field(".serialize");
    if serialized {
        let message = "is a rollout group within the book's own (`runOptions.serialize`): groups do not nest";
        violations.push(of_field("NestedGroup", field.clone(), message));
    } else if !block.within.is_empty() {
        let message = "is a rollout group, which cannot begin within a block: give `serialize` to the outermost one";
        violations.push(of_field("NestedGroup", field.clone(), message));
    }
    super::rollout(given, &field, violations);
}

/// Nodes wait for each other only in the body of a block; and groups begin outside.
pub(super) fn sync_points(leaf: &Leaf<'_>, violations: &mut Vec<Violation>) {
    if !leaf.within.is_empty() && leaf.written.serialize.is_some() {
        let message = "is a rollout group, which cannot begin within a block: take the task out of it";
        violations.push(of_field("NestedGroup", leaf.field(".serialize"), message));
    }
    if follows(&leaf.within) {
        waits(leaf.written, |below| leaf.field(below), violations);
    }
}

fn waits(task: &Task, field: impl Fn(&str) -> String, violations: &mut Vec<Violation>) {
    let points = [(task.sync, ".sync"), (task.run_once, ".runOnce"), (task.targets.is_some(), ".targets")];
    for (_, below) in points.into_iter().filter(|(given, _)| *given) {
        let message = "is a sync point, and nodes do not wait for each other in `rescue` and `always`, which not all of \
                       them do: put it into the `block`, or after it";
        violations.push(of_field("SyncPoint", field(below), message));
    }
}

/// Whether something at this place follows a failure: it is in a `rescue` or `always`.
pub(super) fn follows(within: &[Within]) -> bool {
    within.iter().any(|place| matches!(place.part(), BlockPart::Rescue | BlockPart::Always))
}

/// The block in whose `rescue` or `always` this task is while another one, which all must wait for, is in its body.
pub(super) fn barrier<'o>(outline: &'o Outline<'o>, leaf: &Leaf<'_>, other: usize) -> Option<&'o Block<'o>> {
    let mut after = leaf.within.iter().filter(|place| place.part() != BlockPart::Body);
    after.find_map(|place| {
        let block = outline.blocks.get(place.block as usize)?;
        block.tasks.contains(&other).then_some(block)
    })
}
