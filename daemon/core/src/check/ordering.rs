//! `require`, `requireIn` and what tasks read of each other: what a task waits for when the order of the list is not
//! the order of work.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{Ordering, Value, Violation};
use lockstep_apis::violation::of_field;

use super::tasks::{CheckedTask, id_of, sets_variables};
use crate::outline::{Leaf, Outline};
use crate::references::Root;

/// What each task waits for: positions, by position.
pub(crate) type Requires = Vec<BTreeSet<usize>>;

/// Who waits for whom by these tasks' words, with all that is wrong with them.
pub(super) fn check(
    outline: &Outline<'_>,
    tasks: &[CheckedTask<'_>],
    ids: &BTreeMap<String, usize>,
    ordering: Ordering,
    violations: &mut Vec<Violation>,
) -> Requires {
    let mut requires: Requires = vec![BTreeSet::new(); tasks.len()];
    let said = said(outline, violations);
    if ordering != Ordering::Free {
        for Said { first, then, field, called } in said.iter().filter(|said| said.first >= said.then) {
            let message = if first == then { "is this task itself".to_owned() } else { later(called) };
            violations.push(of_field("Require", field.clone(), message));
        }
        return requires;
    }
    for block in outline.blocks.iter().filter(|block| block.within.is_empty()) {
        let message = "is not there yet under `ordering: Free`: put its tasks into the list, or leave `ordering` out";
        let below = if block.task.include.is_some() { ".include" } else { ".block" };
        violations.push(of_field("NotYet", block.field(below), message));
    }
    let segments = segments(tasks, ids);
    for Said { first, then, field, called } in said {
        if segments[first] > segments[then] {
            let message =
                format!("`{called}` is behind a sync point, for which this task would wait: move one of them");
            violations.push(of_field("Require", field, message));
        } else {
            requires[then].insert(first);
        }
    }
    for index in outline.body.clone() {
        requires[index].extend(read(index, tasks, ids));
    }
    cycles(outline, &requires, violations);
    requires
}

/// One `require` or `requireIn`.
struct Said<'t> {
    first: usize,
    then: usize,
    field: String,
    called: &'t str,
}

fn later(called: &str) -> String {
    format!(
        "tasks are done as they are written, and `{called}` would have to be done later, or earlier: move one of them, or \
         say `runOptions.ordering: Free`"
    )
}

/// All that is said, without what names nothing.
fn said<'o>(outline: &'o Outline<'_>, violations: &mut Vec<Violation>) -> Vec<Said<'o>> {
    let mut all = Vec::new();
    for (index, leaf) in outline.tasks.iter().enumerate() {
        let words = [(".require", &leaf.written.require), (".requireIn", &leaf.written.require_in)];
        for (word, names) in words {
            for (at, called) in names.iter().enumerate() {
                let field = leaf.field(&format!("{word}[{at}]"));
                if leaf.handler {
                    let message = "handlers are done in the order in which they are written";
                    violations.push(of_field("NoMatch", field, message));
                    continue;
                }
                let Some(other) = find(outline, called) else {
                    violations.push(unknown(outline, called, field));
                    continue;
                };
                let (first, then) = if word == ".require" { (other, index) } else { (index, other) };
                all.push(Said { first, then, field, called });
            }
        }
    }
    for block in &outline.blocks {
        for (given, below) in
            [(!block.task.require.is_empty(), ".require"), (!block.task.require_in.is_empty(), ".requireIn")]
        {
            if given {
                let message = "of a block is not there yet: give it to the tasks in it";
                violations.push(of_field("NotYet", block.field(below), message));
            }
        }
    }
    all
}

/// The position of the task that is called so, by id or name.
fn find(outline: &Outline<'_>, called: &str) -> Option<usize> {
    let is = |leaf: &Leaf<'_>| id_of(&leaf.task) == called || leaf.task.name == called;
    outline.body.clone().find(|index| is(&outline.tasks[*index]))
}

fn unknown(outline: &Outline<'_>, called: &str, field: String) -> Violation {
    let ids: Vec<String> = outline.body.clone().map(|index| id_of(&outline.tasks[index].task)).collect();
    let names = outline.body.clone().map(|index| outline.tasks[index].task.name.as_str());
    let known = ids.iter().map(String::as_str).chain(names).filter(|name| !name.is_empty());
    let hint = match nearest(called, known) {
        Some(near) => format!("did you mean `{near}`?"),
        None => "give the task that is meant this `id`".to_owned(),
    };
    of_field("UnknownTask", field, format!("no task is called `{called}`: {hint}"))
}

/// In which segment of the book each task is, counted from the first.
fn segments(tasks: &[CheckedTask<'_>], ids: &BTreeMap<String, usize>) -> Vec<usize> {
    let (mut segment, mut first) = (0, 0);
    let mut segments = Vec::with_capacity(tasks.len());
    for (index, own) in tasks.iter().enumerate() {
        let is_apart = |own: &CheckedTask<'_>| {
            own.leaf.apart.is_some() || own.task.delegate_to.is_some() || own.leaf.written.serialize.is_some()
        };
        let reads = own.references.ids(Root::All).filter_map(|id| ids.get(id)).any(|read| *read >= first);
        let after = index > 0 && is_apart(&tasks[index - 1]);
        if index > 0 && (own.task.sync || is_apart(own) || after || reads) {
            (segment, first) = (segment + 1, index);
        }
        segments.push(segment);
    }
    segments
}

/// The tasks before one whose results or variables it reads.
fn read<'r>(
    index: usize,
    tasks: &'r [CheckedTask<'_>],
    ids: &'r BTreeMap<String, usize>,
) -> impl Iterator<Item = usize> + 'r {
    let references = &tasks[index].references;
    let results = [Root::Results, Root::Shared, Root::All].into_iter().flat_map(|root| references.ids(root));
    let results = results.filter_map(|id| ids.get(id).copied());
    let sets = (0..index).filter(move |earlier| sets_read(&tasks[*earlier], &tasks[index]));
    results.filter(move |earlier| *earlier < index).chain(sets)
}

/// Whether a task sets a variable that another one reads.
fn sets_read(setter: &CheckedTask<'_>, reader: &CheckedTask<'_>) -> bool {
    if !sets_variables(setter.task) {
        return false;
    }
    let values = setter.task.parameters.as_ref().and_then(|given| given.get("values")).and_then(Value::as_map);
    let read = reader.references.iter().filter(|reference| reference.root == Root::Vars);
    read.map(|reference| reference.path.first())
        .any(|name| name.is_none_or(|name| values.is_none_or(|values| values.contains_key(name))))
}

/// Each cycle once, with the tasks that it goes over.
fn cycles(outline: &Outline<'_>, requires: &Requires, violations: &mut Vec<Violation>) {
    let mut left: BTreeSet<usize> = outline.body.clone().collect();
    loop {
        // What waits for nothing that is left is in no cycle.
        let free: Vec<usize> = left.iter().copied().filter(|task| requires[*task].is_disjoint(&left)).collect();
        if !free.is_empty() {
            free.iter().for_each(|task| _ = left.remove(task));
            continue;
        }
        let Some(first) = left.first() else { return };
        let mut path = vec![*first];
        let chain = loop {
            let next = requires[path[path.len() - 1]].intersection(&left).next();
            let next = *next.expect("invariant: what is left waits for something that is left");
            if let Some(from) = path.iter().position(|task| *task == next) {
                break path.split_off(from);
            }
            path.push(next);
        };
        let name = |task: &usize| {
            let task = &outline.tasks[*task].task;
            if task.name.is_empty() { id_of(task) } else { task.name.clone() }
        };
        let names: Vec<String> = chain.iter().chain(chain.first()).map(|task| format!("`{}`", name(task))).collect();
        let message = format!("waits for itself: {}", names.join(" requires "));
        violations.push(of_field("Cycle", outline.tasks[chain[0]].field(""), message));
        chain.iter().for_each(|task| _ = left.remove(task));
    }
}
