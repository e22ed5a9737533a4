//! The compiler: a Run, its book and the cluster's nodes in, one snapshot of all that the Run will ever use out.
//! Pure: the same admission gives the same snapshot. Knows no store, no session beyond `up`, no other Run.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::v1alpha::{
    Approval, Config, EarlyEnd, Group, Input, LockRequest, Node, NodeGroup, OnNodeLost, OnUnreachable, Run, RunOptions,
    RunSpec, Sealed, Segment, Snapshot, SnapshotNode, Targets, Task, TaskBook, Value, Violation,
};
use lockstep_apis::violation::of_field;
use lockstep_apis::{duration, params};
use thiserror::Error;

use crate::check;
use crate::check::gate::CheckedGate;
use crate::check::tasks::{Checked, CheckedTask};
use crate::outline::{self, Library, Outline};
use crate::parameters::BookTexts;
use crate::references::{References, Root};
use crate::variables::{self, VariableSources, merged};

mod delegate;
mod facts;
mod gate;
mod order;
mod pick;
mod retry;
mod segments;
mod shared;
mod tags;
pub(crate) mod targets;
mod windows;

/// The action whose result is the node's variables.
pub const VARIABLE_SET: &str = "variable.set";

/// Whether an action reboots the machine: it is a segment of its own, and the node goes on after its next boot.
pub fn reboots(action: &str) -> bool {
    matches!(action, "reboot.now" | "reboot.ifRequired")
}

/// Default of a Run's `timeout`, in milliseconds: a day.
pub const RUN_TIMEOUT_MS: u64 = 24 * 3600 * 1000;

/// Default of `grace`, in milliseconds.
pub const GRACE_MS: u64 = 10_000;

/// Default of `runDefaults.fence`, in milliseconds.
pub const FENCE_MS: u64 = 60_000;

/// All that an admission depends on.
#[derive(Clone, Debug)]
pub struct Admission<'a> {
    /// The Run. Its uid names the snapshot.
    pub run: &'a Run,
    /// The book that it names; `None` if it has tasks of its own, or if the book is not there.
    pub book: Option<&'a TaskBook>,
    /// Books that it includes.
    pub library: &'a Library<'a>,
    /// Every node of the cluster, in any order.
    pub nodes: &'a [AdmissionNode<'a>],
    /// Every NodeGroup.
    pub groups: &'a [&'a NodeGroup],
    /// What sticky picks of the Run's namespace chose: uids of nodes, by name.
    pub picks: &'a BTreeMap<String, Vec<String>>,
    /// The Config named `cluster`.
    pub config: Option<&'a Config>,
    /// The objects that hold variables.
    pub variables: VariableSources<'a>,
    /// Now, in milliseconds since the epoch: when the Run was created, if it does not say so itself.
    pub now_ms: u64,
    /// What a retry takes on. The book is not looked at then.
    pub retry: Option<Retry<'a>>,
}

/// A node, and whether it has a session.
#[derive(Clone, Copy, Debug)]
pub struct AdmissionNode<'a> {
    /// The object.
    pub node: &'a Node,
    /// A server holds its stream.
    pub up: bool,
}

/// The Run that is retried.
#[derive(Clone, Debug)]
pub struct Retry<'a> {
    /// Its snapshot.
    pub snapshot: &'a Snapshot,
    /// The uids of its nodes that did not succeed.
    pub nodes: &'a BTreeSet<String>,
    /// The shared results that its tasks made, by id.
    pub shared: &'a BTreeMap<String, Value>,
    /// The results that are read over all nodes: by task id, then by node name.
    pub all: &'a BTreeMap<String, Value>,
    /// Those that are secret, as they are sealed.
    pub sealed_shared: &'a BTreeMap<String, Sealed>,
    /// By uid of its nodes: indices of the handlers that they owe.
    pub owed: &'a BTreeMap<String, BTreeSet<u32>>,
}

/// Why a Run is not admitted. It ends as Failed and never starts.
#[derive(Clone, Debug, PartialEq, Error)]
#[error("{message}")]
pub struct Rejection {
    /// One CamelCase word for programs: `NoTargets`, `InvalidInputs`, `InvalidBook`, `BookNotFound`, …
    pub reason: &'static str,
    /// A sentence for people.
    pub message: String,
    /// All that is wrong, if it is the user's to correct.
    pub violations: Vec<Violation>,
}

impl Rejection {
    pub(crate) fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), violations: Vec::new() }
    }

    pub(crate) fn of(reason: &'static str, violations: Vec<Violation>) -> Self {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        let more = violations.len().saturating_sub(1);
        let message = if more == 0 { first } else { format!("{first} (and {more} more)") };
        Self { reason, message, violations }
    }
}

/// Book and Run as one: what the Run says wins.
struct Sources<'a> {
    /// Of the book; "" without one.
    name: &'a str,
    run: &'a RunSpec,
    tasks: &'a [Task],
    handlers: &'a [Task],
    inputs: &'a BTreeMap<String, Input>,
    targets: Option<&'a Targets>,
    options: RunOptions,
    locks: &'a [LockRequest],
    approval: Option<Approval>,
    variables: BTreeMap<String, Value>,
}

impl<'a> Sources<'a> {
    fn outline(&self, library: &Library<'a>) -> Outline<'a> {
        Outline::of(self.tasks, self.handlers, self.name, library)
    }
}

/// Compiles a Run. Every rejection is final: the same admission is refused again.
pub fn compile(admission: &Admission<'_>) -> Result<Snapshot, Rejection> {
    if admission.retry.is_some() {
        return retry::compile(admission);
    }
    let sources = sources(admission)?;
    let texts = BookTexts::of_outline(&sources.outline(admission.library));
    of_sources(admission, sources, &texts)
}

/// [`compile`] for a Run whose tasks are those with these texts, parsed already. Not for retries.
pub fn compile_parsed(admission: &Admission<'_>, texts: &BookTexts) -> Result<Snapshot, Rejection> {
    of_sources(admission, sources(admission)?, texts)
}

fn of_sources<'a>(admission: &Admission<'a>, sources: Sources<'a>, texts: &BookTexts) -> Result<Snapshot, Rejection> {
    let declared = sources.inputs.keys().map(String::as_str).collect();
    let outline = sources.outline(admission.library);
    let checked = check::tasks::check(&outline, texts, &sources.options, &declared);
    let mut violations = checked.violations.clone();
    violations.extend(forbidden(&checked.tasks, admission.config));
    if !violations.is_empty() {
        return Err(Rejection::of("InvalidBook", violations));
    }
    let left_out = tags::left_out(&outline, &sources.run.tags, &sources.run.skip_tags)?;
    let inputs = check::inputs::resolve(sources.inputs, &sources.run.inputs)
        .map_err(|violations| Rejection::of("InvalidInputs", violations))?;
    let scopes = check::include::scopes(&outline, &inputs).map_err(|violations| {
        let violations = violations.into_iter().map(outline::of_book).collect();
        Rejection::of("InvalidInputs", violations)
    })?;
    let inventory = targets::Inventory::new(admission.nodes, admission.groups, admission.picks);
    let chosen = choose(&sources, &inventory)?;
    let by_task = checked.tasks.iter().any(|own| own.task.serialize.is_some());
    // A check has no windows.
    let serialized = (sources.options.serialize.is_some() || by_task) && !sources.run.check;
    let on_unreachable = match sources.options.on_unreachable() {
        OnUnreachable::Unspecified if serialized => OnUnreachable::Fail,
        OnUnreachable::Unspecified => OnUnreachable::Skip,
        given => given,
    };
    let labels = labels_read(&checked);
    let addresses = checked.tasks.iter().any(reads_addresses_elsewhere);
    let mut nodes: Vec<SnapshotNode> =
        chosen.iter().map(|node| snapshot_node(node, on_unreachable, labels.as_ref())).collect();
    let layers = variables::layers(&admission.variables, admission.config, &inventory, &chosen)?;
    if let Some(tie) = variables::ties(&layers, &chosen).first() {
        return Err(Rejection::new("VariableTie", tie.to_string()));
    }
    let cluster = segments::Nodes { inventory: &inventory, chosen: &chosen, on_unreachable };
    let segments::Cut { mut groups, segments, delegates } = segments::cut(
        &segments::Tasks { outline: &outline, checked: &checked, left_out },
        &sources.options,
        &cluster,
        &nodes,
    )?;
    if sources.run.check {
        groups.iter_mut().for_each(windows::open_for_check);
    }
    let gates: Vec<References> = checked.gates.iter().map(CheckedGate::references).collect();
    facts::add(&mut nodes, &chosen, checked.tasks.iter().map(|own| &own.references).chain(&gates))?;
    if addresses {
        nodes.iter_mut().zip(&chosen).for_each(|(node, of)| node.addresses = of.addresses());
    }
    let mut snapshot = Snapshot {
        book_name: admission.book.map(|book| name_of(book.metadata.as_ref())).unwrap_or_default(),
        book_generation: admission.book.and_then(|book| book.metadata.as_ref()).map_or(0, |own| own.generation),
        nodes,
        groups,
        segments,
        delegates,
        // What a check chose is not remembered.
        picks: if sources.run.check { Vec::new() } else { inventory.picks() },
        locks: if sources.run.check { Vec::new() } else { sources.locks.to_vec() },
        approval: if sources.run.check { None } else { sources.approval },
        inputs,
        scopes,
        variables: with_included(&outline, sources.variables),
        on_unreachable: on_unreachable.into(),
        concurrent: sources.run.check
            || sources.options.concurrent
            || sources.run.concurrent
            || only_reads(&checked.tasks),
        layers,
        check: sources.run.check,
        diff: sources.run.diff,
        ..Snapshot::default()
    };
    describe(&mut snapshot, admission, &sources.options);
    Ok(snapshot)
}

/// Variables of included books, in order, and over them those of the book and the Run.
fn with_included(outline: &Outline<'_>, own: BTreeMap<String, Value>) -> BTreeMap<String, Value> {
    let books = outline.included.iter().map(|included| &included.book.variables);
    merged(books.fold(BTreeMap::new(), merged), &own)
}

/// What says whose snapshot it is and how long it may take.
fn describe(snapshot: &mut Snapshot, admission: &Admission<'_>, options: &RunOptions) {
    let metadata = admission.run.metadata.clone().unwrap_or_default();
    let defaults = admission.config.and_then(|config| config.spec.as_ref()?.run_defaults.as_ref());
    let first = |given: Option<&prost_types::Duration>, default: Option<&prost_types::Duration>, last: u64| {
        given.or(default).map_or(last, duration::from_proto)
    };
    let (timeout, grace) = (options.timeout.as_ref(), options.grace.as_ref());
    snapshot.timeout_ms = first(timeout, defaults.and_then(|own| own.timeout.as_ref()), RUN_TIMEOUT_MS);
    snapshot.grace_ms = first(grace, defaults.and_then(|own| own.grace.as_ref()), GRACE_MS);
    if options.on_node_lost() == OnNodeLost::AfterFence {
        snapshot.fence_ms = first(None, defaults.and_then(|own| own.fence.as_ref()), FENCE_MS);
    }
    let created = metadata.created_at.as_ref();
    let created = created.map(|at| u64::try_from(at.seconds).unwrap_or(0) * 1000 + at.nanos as u64 / 1_000_000);
    snapshot.created_ms = created.unwrap_or(admission.now_ms);
    let spec = admission.run.spec.as_ref();
    snapshot.priority = spec.map_or(0, |spec| spec.priority);
    let concurrency = spec.and_then(|spec| spec.concurrency.as_ref());
    snapshot.concurrency_key = concurrency.map(|own| own.key.clone()).unwrap_or_default();
    snapshot.run_uid = metadata.uuid;
    snapshot.run_name = metadata.name;
    snapshot.namespace = metadata.namespace;
}

fn sources<'a>(admission: &Admission<'a>) -> Result<Sources<'a>, Rejection> {
    static NO_INPUTS: BTreeMap<String, Input> = BTreeMap::new();
    let run = admission.run.spec.as_ref().ok_or_else(|| Rejection::new("InvalidRun", "the Run has no spec"))?;
    let book = match (run.task_books.first(), admission.book) {
        (Some(_), Some(book)) => Some(book.spec.as_ref().ok_or_else(|| empty_book(book))?),
        (Some(name), None) => {
            let namespace = name_of_namespace(admission.run);
            let message = format!("there is no TaskBook `{name}` in the namespace `{namespace}`: apply it first");
            return Err(Rejection::new("BookNotFound", message));
        }
        (None, _) => None,
    };
    let tasks = book.map_or(run.tasks.as_slice(), |book| book.tasks.as_slice());
    if tasks.is_empty() {
        return Err(Rejection::new("InvalidBook", "there are no tasks to do"));
    }
    let own = book.and_then(|book| book.run_options.clone()).unwrap_or_default();
    let metadata = admission.book.and_then(|book| book.metadata.as_ref());
    Ok(Sources {
        name: metadata.map_or("", |metadata| metadata.name.as_str()),
        run,
        tasks,
        handlers: book.map_or(&[], |book| book.handlers.as_slice()),
        inputs: book.map_or(&NO_INPUTS, |book| &book.inputs),
        targets: run.targets.as_ref().or_else(|| book.and_then(|book| book.targets.as_ref())),
        options: merged_options(own, run.run_options.as_ref()),
        locks: book.map_or(&[], |book| book.locks.as_slice()),
        approval: book.and_then(|book| book.approval).filter(|own| own.required || own.two_persons),
        variables: merged(book.map(|book| book.variables.clone()).unwrap_or_default(), &run.set),
    })
}

fn empty_book(book: &TaskBook) -> Rejection {
    Rejection::new("InvalidBook", format!("the TaskBook `{}` has no spec", name_of(book.metadata.as_ref())))
}

fn name_of(metadata: Option<&lockstep_apis::v1alpha::Metadata>) -> String {
    metadata.map(|own| own.name.clone()).unwrap_or_default()
}

fn name_of_namespace(run: &Run) -> String {
    run.metadata.as_ref().map(|own| own.namespace.clone()).unwrap_or_default()
}

/// What the Run gives wins over what the book says, field by field.
fn merged_options(book: RunOptions, run: Option<&RunOptions>) -> RunOptions {
    let Some(run) = run else { return book };
    let given = |run: i32, book: i32| if run == 0 { book } else { run };
    RunOptions {
        timeout: run.timeout.or(book.timeout),
        serialize: run.serialize.clone().or(book.serialize),
        grace: run.grace.or(book.grace),
        on_unreachable: given(run.on_unreachable, book.on_unreachable),
        on_node_lost: given(run.on_node_lost, book.on_node_lost),
        on_failure: given(run.on_failure, book.on_failure),
        concurrent: run.concurrent || book.concurrent,
        ordering: given(run.ordering, book.ordering),
    }
}

/// Actions that the cluster's Config does not allow.
fn forbidden(tasks: &[CheckedTask<'_>], config: Option<&Config>) -> Vec<Violation> {
    let allowed = config.and_then(|config| config.spec.as_ref()).map_or(&[][..], |spec| &spec.action_allow_list);
    if allowed.is_empty() {
        return Vec::new();
    }
    let is_allowed = |action: &str| {
        allowed.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(family) => action.starts_with(family),
            None => pattern == action,
        })
    };
    let tasks = tasks.iter().filter(|own| !is_allowed(&own.task.action));
    tasks
        .map(|own| {
            let action = &own.task.action;
            let message = format!("`{action}` is not in `actionAllowList` of the Config `cluster`");
            of_field("ActionNotAllowed", own.leaf.field(&format!(".{action}")), message)
        })
        .collect()
}

fn only_reads(tasks: &[CheckedTask<'_>]) -> bool {
    tasks.iter().all(|own| {
        params::action(&own.task.action).is_some_and(|action| action.only_reads(own.task.parameters.as_ref()))
    })
}

/// The Run's nodes, in order of name.
fn choose<'a>(sources: &Sources<'_>, inventory: &targets::Inventory<'a>) -> Result<Vec<AdmissionNode<'a>>, Rejection> {
    let Some(given) = sources.targets else {
        let message = "neither the book nor the Run says which nodes: give `targets`, or `all: true` for every node";
        return Err(Rejection::new("NoTargets", message));
    };
    if check::is_unsaid_all(given) {
        return Err(Rejection::of("NoTargets", vec![check::no_targets("spec.targets")]));
    }
    let chosen = inventory.choose(given, &inventory.all())?;
    if chosen.is_empty() {
        return Err(Rejection::new("NoTargets", inventory.nothing_matched(given)));
    }
    Ok(chosen)
}

/// The labels that the tasks read; `None`: all of them may be read.
fn labels_read(checked: &Checked<'_>) -> Option<BTreeSet<String>> {
    let mut labels = BTreeSet::new();
    let gates: Vec<References> = checked.gates.iter().map(CheckedGate::references).collect();
    let tasks = checked.tasks.iter().map(|task| &task.references);
    for reference in tasks.chain(&gates).flat_map(References::iter) {
        match (reference.root, reference.path.first().map(String::as_str), reference.path.get(1)) {
            (Root::Nodes, ..) => return None,
            (Root::Node, Some("labels"), Some(label)) => {
                labels.insert(label.clone());
            }
            (Root::Node, None | Some("labels"), _) => return None,

            _ => {}
        }
    }
    Some(labels)
}

/// Whether a task that another node does reads addresses of the one that it is done for.
fn reads_addresses_elsewhere(task: &CheckedTask<'_>) -> bool {
    let mut references = task.references.iter().filter(|reference| reference.root == Root::Node);
    task.task.delegate_to.is_some()
        && references.any(|reference| reference.path.first().is_none_or(|field| field == "addresses"))
}

fn snapshot_node(
    node: &AdmissionNode<'_>,
    on_unreachable: OnUnreachable,
    labels: Option<&BTreeSet<String>>,
) -> SnapshotNode {
    let metadata = node.node.metadata.clone().unwrap_or_default();
    let mut kept = metadata.labels;
    if let Some(labels) = labels {
        kept.retain(|label, _| labels.contains(label));
    }
    let early = early_end(node, on_unreachable);
    let (uid, name) = (metadata.uuid, metadata.name);
    SnapshotNode { uid, name, labels: kept, early: early.into(), ..SnapshotNode::default() }
}

fn early_end(node: &AdmissionNode<'_>, on_unreachable: OnUnreachable) -> EarlyEnd {
    let cordoned = node.node.spec.as_ref().is_some_and(|spec| spec.unschedulable);
    match on_unreachable {
        _ if cordoned => EarlyEnd::Cordoned,
        _ if node.up => EarlyEnd::Unspecified,
        OnUnreachable::Wait => EarlyEnd::Unspecified,
        OnUnreachable::Fail => EarlyEnd::UnreachableFailed,
        OnUnreachable::Skip | OnUnreachable::Unspecified => EarlyEnd::UnreachableSkipped,
    }
}

#[cfg(test)]
mod tests;
