//! Loops: what can be known of their items before they are evaluated, and who may read them.

use lockstep_apis::v1alpha::{Violation, value::Kind};
use lockstep_apis::violation::of_field;

use crate::outline::Leaf;
use crate::parameters::TaskTexts;
use crate::references::Root;

/// Default of `loopLimit`.
pub(crate) const LOOP_LIMIT: u32 = 1000;

/// What is wrong with a task's `loop`, and with what it reads of items.
pub(super) fn check(leaf: &Leaf<'_>, texts: &TaskTexts, violations: &mut Vec<Violation>) {
    let mut object = |reason, below, message: String| violations.push(of_field(reason, leaf.field(below), message));
    let reads = |references: &crate::references::References| {
        [Root::Item, Root::Index].into_iter().find(|root| references.uses(*root))
    };
    let Some(looped) = &leaf.task.r#loop else {
        if let Some(root) = reads(&texts.own_references()) {
            let message = format!("reads `{}`, and only a task with `loop` has items", root.name());
            object("Reference", "", message);
        }
        return;
    };
    if let Some(root) = reads(&texts.loop_references()) {
        object("Reference", ".loop", format!("reads `{}`, which is there for each item only", root.name()));
    }
    let count = match &looped.kind {
        Some(Kind::List(list)) => list.items.len(),
        Some(Kind::Map(map)) => map.entries.len(),
        Some(Kind::Text(text)) if text.trim_start().starts_with("${{") => return,
        _ => {
            let message = "must be a list, a map, or one `${{ }}` that gives one of them".to_owned();
            return object("TypeMismatch", ".loop", message);
        }
    };
    let limit = if leaf.task.loop_limit == 0 { LOOP_LIMIT } else { leaf.task.loop_limit };
    if count > limit as usize {
        object("LoopLimit", ".loop", format!("{count} items, and at most {limit} are allowed: raise `loopLimit`"));
    }
}
