//! `tags`: which of a book's tasks a Run does. What it leaves out keeps its place and ends as Skipped, so that a task's
//! position means the same in every Run of the book.

use std::collections::BTreeSet;

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{BlockPart, Violation};
use lockstep_apis::violation::of_field;

use super::Rejection;
use crate::outline::{Leaf, Outline};

/// The tag of what is done whatever `tags` asks for.
const ALWAYS: &str = "always";

/// Why each task is left out, by position; "" if it is not.
///
/// `rescue` and `always` go with the block: they are done if something in its body is. Handlers are never left out: what
/// notifies them is.
pub(super) fn left_out(
    outline: &Outline<'_>,
    wanted: &[String],
    unwanted: &[String],
) -> Result<Vec<String>, Rejection> {
    let mut left_out = vec![String::new(); outline.tasks.len()];
    if wanted.is_empty() && unwanted.is_empty() {
        return Ok(left_out);
    }
    let violations = unknown(outline, wanted, unwanted);
    if !violations.is_empty() {
        return Err(Rejection::of("UnknownTag", violations));
    }
    for index in outline.body.clone() {
        let leaf = &outline.tasks[index];
        let tags = &leaf.task.tags;
        let is_asked_for = wanted.is_empty() || tags.iter().any(|tag| tag == ALWAYS || wanted.contains(tag));
        left_out[index] = match tags.iter().find(|tag| unwanted.contains(tag)) {
            Some(tag) => format!("left out by `skipTags: {tag}`"),
            None if is_asked_for || follows(outline, leaf, &left_out) => continue,
            None => format!("left out by `tags: {}`", wanted.join(", ")),
        };
    }
    if outline.body.clone().all(|index| !left_out[index].is_empty()) {
        return Err(Rejection::new("NothingToDo", "the tags leave out every task of the book"));
    }
    Ok(left_out)
}

/// Whether a task is in the `rescue` or `always` of a block of whose body something is done. Its body is before it.
fn follows(outline: &Outline<'_>, leaf: &Leaf<'_>, left_out: &[String]) -> bool {
    let after = |place: &&lockstep_apis::v1alpha::Within| place.part() != BlockPart::Body;
    let Some(place) = leaf.within.iter().rev().find(after) else { return false };
    let block = &outline.blocks[place.block as usize];
    let mut tasks = block.tasks.clone();
    tasks.any(|index| {
        let part = outline.tasks[index].within.get(block.within.len()).map(|place| place.part());
        part == Some(BlockPart::Body) && left_out[index].is_empty()
    })
}

/// Tags that no task has.
fn unknown(outline: &Outline<'_>, wanted: &[String], unwanted: &[String]) -> Vec<Violation> {
    let known: BTreeSet<&str> = outline.tasks.iter().flat_map(|leaf| &leaf.task.tags).map(String::as_str).collect();
    let mut violations = Vec::new();
    for (field, tags) in [("tags", wanted), ("skipTags", unwanted)] {
        for (at, tag) in tags.iter().enumerate().filter(|(_, tag)| !known.contains(tag.as_str())) {
            let hint = match nearest(tag, known.iter().copied()) {
                Some(near) => format!("did you mean `{near}`?"),
                None if known.is_empty() => "the book has no tags".to_owned(),
                None => format!("there are {}", known.iter().copied().collect::<Vec<_>>().join(", ")),
            };
            let message = format!("no task has the tag `{tag}`: {hint}");
            violations.push(of_field("UnknownTag", format!("spec.{field}[{at}]"), message));
        }
    }
    violations
}
