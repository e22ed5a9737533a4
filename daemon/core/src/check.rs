//! What can be known to be wrong with a book or a Run without a cluster, beyond its text form: languages, ids,
//! references, inputs, targets. Finds everything at once; knows no node and no store.

use std::collections::BTreeSet;

use lockstep_apis::v1alpha::{LockRequest, Run, RunOptions, Serialize, Targets, TaskBook, VariablesSpec, Violation};
use lockstep_apis::violation::of_field;

use crate::concurrency;
use crate::expression::{Expression, Text};
use crate::outline::{Library, Outline};
use crate::parameters::BookTexts;
use crate::references::{References, Root};

mod blocks;
pub(crate) mod gate;
pub(crate) mod handlers;
pub(crate) mod include;
pub mod inputs;
mod loops;
pub(crate) mod ordering;
pub(crate) mod tasks;

pub(crate) use loops::LOOP_LIMIT;
pub use tasks::default_id;

/// All that is wrong with a book. Fields are paths such as `spec.tasks[2].when`.
///
/// Of books that it includes nothing is known.
pub fn book(book: &TaskBook) -> Vec<Violation> {
    book_among(book, &Library::default())
}

/// [`book`] for one that includes others.
pub fn book_among(book: &TaskBook, library: &Library<'_>) -> Vec<Violation> {
    book_parsed(book, library, &BookTexts::of_book(book, library))
}

/// [`book_among`] for one whose texts are parsed already.
pub fn book_parsed(book: &TaskBook, library: &Library<'_>, texts: &BookTexts) -> Vec<Violation> {
    let Some(spec) = &book.spec else {
        return vec![of_field("Required", "spec", "is missing: write `spec` with `tasks`")];
    };
    let mut violations = inputs::declarations(&spec.inputs);
    if let Some(given) = &spec.targets {
        targets(given, "spec.targets", &mut violations);
    }
    locks(&spec.locks, &mut violations);
    options(spec.run_options.as_ref(), &mut violations);
    let declared: BTreeSet<&str> = spec.inputs.keys().map(String::as_str).collect();
    if let Some(own) = &spec.concurrency {
        concurrency::check(own, &declared, &mut violations);
    }
    let options = spec.run_options.clone().unwrap_or_default();
    violations.extend(tasks::check(&Outline::of_book(book, library), texts, &options, &declared).violations);
    violations
}

/// All that is wrong with a Run, as far as it does not depend on its book.
pub fn run(run: &Run) -> Vec<Violation> {
    let Some(spec) = &run.spec else {
        return vec![of_field("Required", "spec", "is missing: write `spec` with `taskBooks` or `tasks`")];
    };
    let mut violations = Vec::new();
    match &spec.targets {
        Some(given) => targets(given, "spec.targets", &mut violations),
        None if !spec.tasks.is_empty() => violations.push(no_targets("spec.targets")),
        None => {}
    }
    options(spec.run_options.as_ref(), &mut violations);
    if !spec.tasks.is_empty() {
        let options = spec.run_options.clone().unwrap_or_default();
        let outline = Outline::of(&spec.tasks, &[], "", &Library::default());
        let texts = BookTexts::of_outline(&outline);
        violations.extend(tasks::check(&outline, &texts, &options, &BTreeSet::new()).violations);
        if let Some(name) = spec.inputs.keys().next() {
            let message = "only a book declares inputs: use `set` for the variables of a Run with tasks of its own";
            violations.push(of_field("UnknownInput", format!("spec.inputs.{name}"), message));
        }
    }
    violations
}

/// All that is wrong with variables beyond their text form.
pub fn variables(spec: Option<&VariablesSpec>) -> Vec<Violation> {
    let mut violations = Vec::new();
    if let Some(given) = spec.and_then(|spec| spec.targets.as_ref()) {
        targets(given, "spec.targets", &mut violations);
    }
    violations
}

pub(crate) fn no_targets(field: &str) -> Violation {
    of_field(
        "NoTargets",
        field,
        "selects nothing: name `nodes`, `nodeGroups`, a `selector` or `where`, or say `all: true`",
    )
}

/// Whether targets would mean every node without saying so. The text form is refused for that before it gets here.
pub(crate) fn is_unsaid_all(given: &Targets) -> bool {
    let named = !given.nodes.is_empty() || !given.node_groups.is_empty();
    !named && given.selector.is_empty() && given.r#where.is_empty() && !given.all
}

/// What is wrong with targets beyond their text form: `where` that reads more than `node` and `facts`.
pub(crate) fn targets(given: &Targets, field: &str, violations: &mut Vec<Violation>) {
    if !given.r#where.is_empty() {
        only(&given.r#where, &format!("{field}.where"), violations);
    }
    let Some(pick) = &given.pick else { return };
    if given.limit == 0 {
        let message = "chooses so many as `limit` says: give it, too";
        violations.push(of_field("Required", format!("{field}.limit"), message));
    }
    if !pick.order_by.is_empty() {
        only(&pick.order_by, &format!("{field}.pick.orderBy"), violations);
    }
    if pick.on_missing != 0 && pick.sticky.is_empty() {
        let message = "says what becomes of a choice that is remembered: give `sticky`, too, or leave it out";
        violations.push(of_field("Required", format!("{field}.pick.sticky"), message));
    }
}

fn options(given: Option<&RunOptions>, violations: &mut Vec<Violation>) {
    if let Some(serialize) = given.and_then(|options| options.serialize.as_ref()) {
        rollout(serialize, "spec.runOptions.serialize", violations);
    }
}

/// What is wrong with a rollout group beyond its text form.
pub(crate) fn rollout(given: &Serialize, field: &str, violations: &mut Vec<Violation>) {
    if !given.order_by.is_empty() {
        only(&given.order_by, &format!("{field}.orderBy"), violations);
    }
}

/// Parses an expression over `node` and `facts` alone.
fn only(source: &str, field: &str, violations: &mut Vec<Violation>) {
    match Expression::parse(source) {
        Err(error) => violations.push(of_field("Expression", field, error.to_string())),
        Ok(expression) => unless_other(expression.references(), field, violations),
    }
}

/// Parses the expressions inside a text, over `node` and `facts` alone.
pub(crate) fn only_in_text(source: &str, field: &str, violations: &mut Vec<Violation>) {
    match Text::parse(source) {
        Err(error) => violations.push(of_field("Expression", field, error.to_string())),
        Ok(text) => unless_other(text.references(), field, violations),
    }
}

fn unless_other(references: &References, field: &str, violations: &mut Vec<Violation>) {
    if let Some(other) = references.iter().find(|r| !matches!(r.root, Root::Node | Root::Facts)) {
        let message =
            format!("reads `{other}`: only `node` and `facts` are known where nodes are chosen and put in order");
        violations.push(of_field("Reference", field, message));
    }
}

fn locks(locks: &[LockRequest], violations: &mut Vec<Violation>) {
    let mut names = BTreeSet::new();
    for (index, lock) in locks.iter().enumerate() {
        if !names.insert(&lock.name) {
            let message = format!("asks for the lock `{}` a second time: leave one away", lock.name);
            violations.push(of_field("Duplicate", format!("spec.locks[{index}].name"), message));
        }
    }
}

#[cfg(test)]
mod tests;
