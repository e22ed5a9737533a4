//! Handlers: who notifies which, and what a handler cannot be.

use std::collections::BTreeMap;

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::Violation;
use lockstep_apis::violation::of_field;

use super::tasks::CheckedTask;
use crate::outline::{Leaf, Outline};
use crate::references::Root;

/// The position of the handler that is called so, by name or id.
pub(crate) fn find(outline: &Outline<'_>, called: &str) -> Option<usize> {
    let is = |leaf: &Leaf<'_>| leaf.task.name == called || super::tasks::id_of(&leaf.task) == called;
    outline.handlers().find(|(_, leaf)| is(leaf)).map(|(index, _)| index)
}

/// What a task notifies, and if it is a handler, what it cannot be.
pub(super) fn check(outline: &Outline<'_>, own: &CheckedTask<'_>, violations: &mut Vec<Violation>) {
    let leaf = own.leaf;
    for (at, called) in leaf.written.notify.iter().enumerate() {
        unknown(outline, called, leaf.field(&format!(".notify[{at}]")), violations);
    }
    if !leaf.handler {
        return;
    }
    let task = leaf.written;
    let mut object = |reason, below, message: &str| violations.push(of_field(reason, leaf.field(below), message));
    if own.id.is_empty() {
        object("Required", ".name", "is notified by its `name`: give it one");
    }
    for (given, below) in [
        (task.sync, ".sync"),
        (task.run_once, ".runOnce"),
        (task.targets.is_some(), ".targets"),
        (task.serialize.is_some(), ".serialize"),
        (task.delegate_to.is_some(), ".delegateTo"),
    ] {
        if given {
            object("SyncPoint", below, "is a sync point, and a handler is done by each node where it was notified");
        }
    }
    if own.references.uses(Root::Shared) || own.references.uses(Root::All) {
        object("SyncPoint", "", "reads `shared` or `all`, for which nodes would wait: a handler reads `results`");
    }
    if !task.block.is_empty() {
        object("NoMatch", ".block", "is a block, and a handler is one task");
    }
    if task.include.is_some() {
        object(
            "NoMatch",
            ".include",
            "places many tasks, and a handler is one: the handlers of an included book are there",
        );
    }
    if !task.tags.is_empty() {
        object(
            "NoMatch",
            ".tags",
            "of a handler choose nothing, as it is done when it is notified: tag what notifies it",
        );
    }
    if !task.notify.is_empty() {
        object("NoMatch", ".notify", "handlers notify no handlers: let the task notify both");
    }
}

/// A handler is done on the machine that was changed: all that notify it must be done on the same.
pub(super) fn elsewhere(outline: &Outline<'_>, violations: &mut Vec<Violation>) {
    let mut first: BTreeMap<usize, &Leaf<'_>> = BTreeMap::new();
    for leaf in &outline.tasks[outline.body.clone()] {
        for called in &leaf.task.notify {
            let Some(handler) = find(outline, called) else { continue };
            let first = *first.entry(handler).or_insert(leaf);
            if first.task.delegate_to != leaf.task.delegate_to {
                let message = format!(
                    "notifies `{called}`, as {} does, and they are done by different nodes: a handler is done where it was \
                     notified, so make one for each",
                    first.field("")
                );
                violations.push(of_field("NoMatch", leaf.field(".notify"), message));
            }
        }
    }
}

/// What blocks notify for their tasks.
pub(super) fn of_blocks(outline: &Outline<'_>, violations: &mut Vec<Violation>) {
    for block in &outline.blocks {
        for (at, called) in block.task.notify.iter().enumerate() {
            unknown(outline, called, block.field(&format!(".notify[{at}]")), violations);
        }
    }
}

fn unknown(outline: &Outline<'_>, called: &str, field: String, violations: &mut Vec<Violation>) {
    if outline.is_partial || find(outline, called).is_some() {
        return;
    }
    let names: Vec<&str> = outline.handlers().map(|(_, leaf)| leaf.task.name.as_str()).collect();
    let hint = match nearest(called, names.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if names.is_empty() => "the book has no `handlers`".to_owned(),
        None => format!("there are {}", names.join(", ")),
    };
    violations.push(of_field("UnknownHandler", field, format!("no handler is called `{called}`: {hint}")));
}
