//! A list of tasks: ids, references from task to task, rollout groups, secrets. What the compiler builds on.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{RunOptions, Task, Value, Violation};
use lockstep_apis::violation::of_field;

use super::gate::{self, CheckedGate};
use super::ordering::{self, Requires};
use super::{blocks, handlers, include, loops};
use crate::compile::{VARIABLE_SET, reboots};
use crate::outline::{self, Leaf, Outline};
use crate::parameters::{BookTexts, TaskTexts, WrongText};
use crate::references::{Reference, References, Root};

/// Tasks with what was found out about them.
pub(crate) struct Checked<'t> {
    /// In the order of the book.
    pub(crate) tasks: Vec<CheckedTask<'t>>,
    /// The rollout groups' health gates.
    pub(crate) gates: Vec<CheckedGate>,
    /// What each waits for, if the order of the list is not the order of work.
    pub(crate) requires: Requires,
    /// All that is wrong.
    pub(crate) violations: Vec<Violation>,
}

/// One task with what was found out about it.
pub(crate) struct CheckedTask<'t> {
    /// With the options of its blocks.
    pub(crate) task: &'t Task,
    /// Where it is.
    pub(crate) leaf: &'t Leaf<'t>,
    /// "" for a task with neither id nor name.
    pub(crate) id: String,
    /// All that its texts and the conditions of its blocks read; nothing if one of them is wrong.
    pub(crate) references: References,
    /// One node does it, for all.
    pub(crate) single_producer: bool,
}

/// The id that a name gives: lower case, `_` for what is no letter or digit.
pub fn default_id(name: &str) -> String {
    let id: String =
        name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '_' }).collect();
    if id.starts_with(|c: char| c.is_ascii_digit()) { format!("_{id}") } else { id }
}

/// A task's id; "" if it has neither id nor name.
pub(crate) fn id_of(task: &Task) -> String {
    if task.id.is_empty() { default_id(&task.name) } else { task.id.clone() }
}

/// Checks a list of tasks, whose texts are these, as they are done with these options. `inputs`: the names that the book
/// declares.
pub(crate) fn check<'t>(
    outline: &'t Outline<'t>,
    texts: &BookTexts,
    options: &RunOptions,
    inputs: &BTreeSet<&str>,
) -> Checked<'t> {
    let serialize = options.serialize.as_ref();
    let mut violations = blocks::layout(outline);
    let mut checked = Vec::with_capacity(outline.tasks.len());
    let mut parsed_tasks = Vec::with_capacity(outline.tasks.len());
    for (index, leaf) in outline.tasks.iter().enumerate() {
        let parsed = texts.of(index).expect("invariant: the texts are those of these tasks");
        let task = &*leaf.task;
        let parsed = parsed.map_err(|wrong| wrong_texts(task, &leaf.field(""), wrong, &mut violations)).ok();
        let limited = task.targets.as_ref().is_some_and(|targets| targets.limit == 1);
        checked.push(CheckedTask {
            task,
            leaf,
            id: id_of(task),
            references: parsed.map(|texts| texts.references()).unwrap_or_default(),
            single_producer: task.run_once || limited,
        });
        parsed_tasks.push(parsed);
    }
    let keeps_secrets = outline.tasks.iter().any(|leaf| is_secret(leaf.written));
    let book = Book { ids: ids(&checked, &mut violations), tasks: &checked, outline, inputs };
    let mut gates: Vec<CheckedGate> = Vec::new();
    let all = outline.body.end;
    gates.extend(
        serialize
            .and_then(|serialize| serialize.gate.as_ref())
            .map(|gate| gate::check(gate, "spec.runOptions.serialize.gate".to_owned(), all, &mut violations)),
    );
    for (index, (own, texts)) in checked.iter().zip(parsed_tasks).enumerate() {
        rollout(own, serialize.is_some(), &mut violations);
        gates.extend(
            own.task
                .serialize
                .as_ref()
                .and_then(|serialize| serialize.gate.as_ref())
                .map(|gate| gate::check(gate, own.leaf.field(".serialize.gate"), index + 1, &mut violations)),
        );
        book.references(index, texts.map(|texts| &**texts), &mut violations);
        handlers::check(outline, own, &mut violations);
        texts.iter().for_each(|texts| loops::check(own.leaf, texts, &mut violations));
        if let Some(texts) = texts.filter(|_| keeps_secrets) {
            book.secrets(own.task, &own.leaf.field(""), texts, &mut violations);
        }
    }
    for block in &outline.blocks {
        let Some(given) = &block.task.serialize else { continue };
        blocks::group(block, given, serialize.is_some(), &mut violations);
        gates.extend(
            given
                .gate
                .as_ref()
                .map(|gate| gate::check(gate, block.field(".serialize.gate"), block.tasks.end, &mut violations)),
        );
    }
    gates.iter().for_each(|gate| book.gate(gate, &mut violations));
    book.conditions(texts, &mut violations);
    handlers::of_blocks(outline, &mut violations);
    handlers::elsewhere(outline, &mut violations);
    include::check(outline, &mut violations);
    let requires = ordering::check(outline, &checked, &book.ids, options.ordering(), &mut violations);
    let violations = violations.into_iter().map(outline::of_book).collect();
    Checked { tasks: checked, gates, requires, violations }
}

pub(super) fn wrong_texts(task: &Task, at: &str, wrong: &[WrongText], violations: &mut Vec<Violation>) {
    for WrongText { field, error } in wrong {
        // Parameters are written under the action's own key.
        let below = match field.strip_prefix("parameters") {
            Some(rest) => format!(".{}{rest}", task.action),
            None => format!(".{field}"),
        };
        violations.push(of_field("Expression", format!("{at}{below}"), error.to_string()));
    }
}

/// Where each id is. A second task with one id is a violation.
fn ids(tasks: &[CheckedTask<'_>], violations: &mut Vec<Violation>) -> BTreeMap<String, usize> {
    let mut ids: BTreeMap<String, usize> = BTreeMap::new();
    for (index, checked) in tasks.iter().enumerate().filter(|(_, checked)| !checked.id.is_empty()) {
        if let Some(first) = ids.get(&checked.id) {
            let (id, first) = (&checked.id, tasks[*first].leaf.field(""));
            let message = format!("has the id `{id}` of {first}: give one of them another `id`");
            let field = if checked.task.id.is_empty() { ".name" } else { ".id" };
            violations.push(of_field("DuplicateId", checked.leaf.field(field), message));
        } else {
            ids.insert(checked.id.clone(), index);
        }
    }
    ids
}

fn is_secret(task: &Task) -> bool {
    task.register.as_ref().is_some_and(|register| register.secret)
}

pub(super) fn sets_variables(task: &Task) -> bool {
    task.action == VARIABLE_SET
}

fn rollout(own: &CheckedTask<'_>, serialized: bool, violations: &mut Vec<Violation>) {
    let (leaf, task) = (own.leaf, own.leaf.written);
    if serialized && task.serialize.is_some() {
        let message = "is a rollout group within the book's own (`runOptions.serialize`): groups do not nest";
        violations.push(of_field("NestedGroup", leaf.field(".serialize"), message));
    }
    if let Some(serialize) = &task.serialize {
        super::rollout(serialize, &leaf.field(".serialize"), violations);
    }
    if task.retries.is_some() && task.action == "assert.that" {
        let message = "tries conditions again that nothing changes meanwhile: use `command.query` with `until`";
        violations.push(of_field("Retries", leaf.field(".retries"), message));
    }
    if let Some(targets) = &task.targets {
        super::targets(targets, &leaf.field(".targets"), violations);
    }
    delegation(leaf, violations);
    rebooting(leaf, violations);
    blocks::sync_points(leaf, violations);
    if is_secret(task) && sets_variables(task) {
        let message = "variables are not sealed: `register` a `command.query` and read its result where it is needed";
        violations.push(of_field("SecretExposed", leaf.field(".register"), message));
    }
    if is_secret(task) && task.id.is_empty() && task.name.is_empty() {
        let message = "keeps a secret that nothing can read: give the task an `id`";
        violations.push(of_field("Required", leaf.field(".id"), message));
    }
}

/// A task that reboots ends by the next boot alone: nobody is there who could judge it, repeat it, or go on in a loop.
fn rebooting(leaf: &Leaf<'_>, violations: &mut Vec<Violation>) {
    let task = leaf.written;
    if !reboots(&task.action) {
        return;
    }
    let given = [
        (task.r#loop.is_some(), ".loop"),
        (task.retries.is_some(), ".retries"),
        (!task.success.is_empty(), ".success"),
        (!task.changed.is_empty(), ".changed"),
        (!task.notify.is_empty(), ".notify"),
        (task.delegate_to.is_some(), ".delegateTo"),
    ];
    for (_, below) in given.into_iter().filter(|(given, _)| *given) {
        let message = "cannot be with a reboot, after which nothing of the task is left: leave it out; tasks that follow do \
                       what is to be done then";
        violations.push(of_field("Reboot", leaf.field(below), message));
    }
    if leaf.handler || blocks::follows(&leaf.within) {
        let message = "is a sync point, and handlers, `rescue` and `always` have none: reboot in a task of the book, or in \
                       a `block`";
        violations.push(of_field("SyncPoint", leaf.field(&format!(".{}", task.action)), message));
    }
}

fn delegation(leaf: &Leaf<'_>, violations: &mut Vec<Violation>) {
    let task = leaf.written;
    let Some(given) = &task.delegate_to else {
        if task.throttle > 0 {
            let message = "limits what is done at once on a delegate: give `delegateTo`, too, or leave it out";
            violations.push(of_field("Throttle", leaf.field(".throttle"), message));
        }
        return;
    };
    let field = leaf.field(".delegateTo");
    if !leaf.within.is_empty() {
        let message = "is not there yet in a block: put the task before the block, or after it";
        violations.push(of_field("NotYet", field.clone(), message));
    }
    super::targets(given, &field, violations);
    for (at, name) in given.nodes.iter().enumerate() {
        super::only_in_text(name, &format!("{field}.nodes[{at}]"), violations);
    }
}

struct Book<'c, 't> {
    tasks: &'c [CheckedTask<'t>],
    ids: BTreeMap<String, usize>,
    outline: &'c Outline<'c>,
    inputs: &'c BTreeSet<&'c str>,
}

impl Book<'_, '_> {
    fn references(&self, index: usize, texts: Option<&TaskTexts>, violations: &mut Vec<Violation>) {
        let Some(texts) = texts else { return };
        let (own, leaf) = (texts.own_references(), self.tasks[index].leaf);
        for reference in own.iter() {
            let wrong = self.wrong_reference(index, Some(index), leaf.scope, reference);
            let wrong = wrong.or_else(|| self.wrong_in_block(leaf, reference));
            if let Some(message) = wrong {
                violations.push(of_field("Reference", leaf.field(""), message));
            }
        }
        if own.uses(Root::Checks) {
            let message = format!("`checks` is not known here: {}", known_where(Root::Checks));
            violations.push(of_field("Reference", leaf.field(""), message));
        }
        if !(own.uses(Root::Result) || own.uses(Root::File)) {
            return;
        }
        // Names that only some fields know.
        if let Some(when) = &texts.when {
            for root in [Root::Result, Root::File].into_iter().filter(|root| when.references().uses(*root)) {
                let message = format!("`{}` is not known here: {}", root.name(), known_where(root));
                violations.push(of_field("Reference", leaf.field(".when"), message));
            }
        }
        let judging = [(&texts.success, ".success"), (&texts.changed, ".changed"), (&texts.until, ".retries.until")];
        for (expression, below) in judging {
            if expression.as_ref().is_some_and(|expression| expression.references().uses(Root::File)) {
                let message = format!("`file` is not known here: {}", known_where(Root::File));
                violations.push(of_field("Reference", leaf.field(below), message));
            }
        }
        let mut parameters = texts.parameters_references();
        parameters.extend(&texts.environment_references());
        if parameters.uses(Root::Result) {
            let message = format!("`result` is not known here: {}", known_where(Root::Result));
            let field = format!(".{}", self.tasks[index].task.action);
            violations.push(of_field("Reference", leaf.field(&field), message));
        }
        if texts.rendered_references().uses(Root::File) {
            let message = format!("`file` is not known here: {}", known_where(Root::File));
            let field = format!(".{}", self.tasks[index].task.action);
            violations.push(of_field("Reference", leaf.field(&field), message));
        }
    }

    /// What a health gate reads of the group's tasks and of the book.
    fn gate(&self, gate: &CheckedGate, violations: &mut Vec<Violation>) {
        for reference in gate.references().iter() {
            let message = match reference.root {
                Root::Result | Root::File => {
                    let used = gate.condition.uses(reference.root)
                        || gate.checks.iter().any(|(_, texts)| texts.rendered_references().uses(reference.root));
                    used.then(|| {
                        format!("`{}` is not known here: {}", reference.root.name(), known_where(reference.root))
                    })
                }
                Root::Failure => Some(format!("`failure` is not known here: {}", known_where(Root::Failure))),
                _ => self.wrong_reference(gate.end, None, 0, reference),
            };
            violations.extend(message.map(|message| of_field("Reference", gate.field.clone(), message)));
        }
        for (index, (check, texts)) in gate.checks.iter().enumerate() {
            self.secrets(check, &format!("{}.check[{index}]", gate.field), texts, violations);
        }
    }

    /// The inputs that are declared where something is written.
    fn declared(&self, scope: u32) -> BTreeSet<&str> {
        match scope.checked_sub(1).and_then(|scope| self.outline.included.get(scope as usize)) {
            Some(included) => included.book.inputs.keys().map(String::as_str).collect(),
            None => self.inputs.clone(),
        }
    }

    /// What is wrong with a reference to be read before the task `index`, by the task `own`, where `inputs` are of this
    /// scope.
    fn wrong_reference(&self, index: usize, own: Option<usize>, scope: u32, reference: &Reference) -> Option<String> {
        let first = reference.path.first().map(String::as_str);
        match reference.root {
            Root::All if own.is_none() => {
                Some("reads `all`: a gate looks at its own node, and `results` are there".to_owned())
            }
            Root::Results | Root::Shared | Root::All => self.wrong_task(index, own, reference),
            Root::Inputs => {
                let name = first?;
                let declared = self.declared(scope);
                if declared.contains(name) {
                    return None;
                }
                let hint = match nearest(name, declared.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it in `spec.inputs`".to_owned(),
                };
                Some(format!("reads `inputs.{name}`, which the book does not declare: {hint}"))
            }
            Root::Node => unknown_field(reference, first?, &["name", "labels", "addresses"]),
            Root::Nodes if reference.path == ["facts"] => {
                Some("reads all `facts` of `nodes`: name those that are needed, as in `n.facts.os.family`".to_owned())
            }
            Root::Delegate => self.wrong_delegate(own, reference),
            Root::Run => unknown_field(reference, first?, &["name", "namespace", "uid"]),
            Root::Failure => unknown_field(reference, first?, &["task", "name", "message"]),
            _ => None,
        }
    }

    fn wrong_delegate(&self, own: Option<usize>, reference: &Reference) -> Option<String> {
        if own.is_none_or(|own| self.tasks[own].task.delegate_to.is_none()) {
            let message = "`delegate` is not known here: only a task with `delegateTo` is done by another node";
            return Some(message.to_owned());
        }
        unknown_field(reference, reference.path.first()?, &["name", "labels", "addresses"])
    }

    /// What a task may read depends on the block that it is in.
    fn wrong_in_block(&self, leaf: &Leaf<'_>, reference: &Reference) -> Option<String> {
        match reference.root {
            Root::Failure if !blocks::follows(&leaf.within) => Some(format!(
                "reads `{reference}`, which is not known here: only `rescue` and `always` follow a failure"
            )),
            Root::All if blocks::follows(&leaf.within) => Some(format!(
                "reads `{reference}`, for which the nodes would wait, and nodes do not wait for each other in `rescue` and \
                 `always`: read it in the `block`"
            )),
            Root::Shared | Root::All => {
                let producer = *self.ids.get(reference.path.first()?)?;
                let block = blocks::barrier(self.outline, leaf, producer)?;
                Some(format!(
                    "reads `{reference}`, for which the nodes would wait within the `rescue` or `always` of {}: nodes \
                     wait only in the `block`; make it before the block",
                    block.field("")
                ))
            }
            _ => None,
        }
    }

    /// The conditions of blocks are read before anything in them is done.
    fn conditions(&self, texts: &BookTexts, violations: &mut Vec<Violation>) {
        for (index, block) in self.outline.blocks.iter().enumerate() {
            // Of an include whose book is not known there is nothing to do.
            let Some(first) = Some(block.tasks.start).filter(|_| !block.tasks.is_empty()) else { continue };
            let mut object = |reason, message: String| violations.push(of_field(reason, block.field(".when"), message));
            match texts.condition_of(index) {
                Some(Err(error)) => object("Expression", error.to_string()),
                Some(Ok(Some(when))) => {
                    for reference in when.references().iter() {
                        let unknown = match reference.root {
                            root @ (Root::Result | Root::File | Root::Checks) => {
                                Some(format!("`{}` is not known here: {}", root.name(), known_where(root)))
                            }
                            Root::Failure if !blocks::follows(&block.within) => {
                                Some(format!("`{reference}` is not known here: {}", known_where(Root::Failure)))
                            }
                            _ => None,
                        };
                        let wrong = unknown
                            .or_else(|| self.wrong_reference(block.tasks.start, Some(first), block.scope, reference));
                        wrong.into_iter().for_each(|message| object("Reference", message));
                    }
                }
                _ => {}
            }
        }
    }

    /// `results.x`, `shared.x` and `all.x` name an earlier task; `shared` one that a single node does.
    fn wrong_task(&self, index: usize, own: Option<usize>, reference: &Reference) -> Option<String> {
        let root = reference.root.name();
        let Some(id) = reference.path.first() else {
            return Some(format!("reads `{root}` as a whole: name the task, as in `{root}.ID`"));
        };
        let Some(&producer) = self.ids.get(id) else {
            if self.outline.is_partial {
                return None;
            }
            let earlier = self.tasks[..index].iter().map(|task| task.id.as_str()).filter(|id| !id.is_empty());
            let hint = match nearest(id, earlier) {
                Some(near) => format!("did you mean `{root}.{near}`?"),
                None => "give the task that makes it this `id`".to_owned(),
            };
            return Some(format!("reads `{root}.{id}`, and no task has the id `{id}`: {hint}"));
        };
        if producer >= index {
            let where_it_is = if Some(producer) == own { "this task itself" } else { "a later task" };
            return Some(format!("reads `{root}.{id}` of {where_it_is}: only results of earlier tasks are there"));
        }
        if reference.root == Root::All && is_secret(self.tasks[producer].task) {
            return Some(format!(
                "reads `all.{id}`, and the result of the task `{id}` is secret: the secrets of every node are handed to \
                 none; read this node's own `results.{id}`"
            ));
        }
        if reference.root == Root::Shared && !self.tasks[producer].single_producer {
            return Some(format!(
                "reads `shared.{id}`, and every node does the task `{id}`: give it `runOnce: true` or \
                 `targets` with `limit: 1`, or read this node's own `results.{id}`"
            ));
        }
        None
    }

    /// What other users of the machine can see holds no secret, unless the task says so.
    fn secrets(&self, task: &Task, at: &str, texts: &TaskTexts, violations: &mut Vec<Violation>) {
        let allowed = |name: &str| {
            let given = task.parameters.as_ref().and_then(|parameters| parameters.get(name));
            given.and_then(Value::as_bool).unwrap_or(false)
        };
        if let Some(secret) = self.secret_in(&texts.parameters.references_of("values")).filter(|_| sets_variables(task))
        {
            let message =
                format!("puts the secret `{secret}` into variables, which are not sealed: read it where it is");
            violations.push(of_field("SecretExposed", format!("{at}.{}.values", task.action), message));
        }
        for name in ["argv", "shell", "args", "interpreter", "unless", "onlyIf", "validate"] {
            if let Some(secret) = self.secret_in(&with_items(texts, texts.parameters.references_of(name)))
                && !allowed("secretArgv")
            {
                let message = format!(
                    "puts the secret `{secret}` where every user of the machine can read it: use `stdin` or a file of \
                     mode 0600, or say `secretArgv: true`"
                );
                let field = format!("{at}.{}.{name}", task.action);
                violations.push(of_field("SecretExposed", field, message));
            }
        }
        if let Some(secret) = self.secret_in(&with_items(texts, texts.environment_references()))
            && !allowed("secretEnvironment")
        {
            let message = format!(
                "puts the secret `{secret}` into the environment: use `stdin` or a file of mode 0600, or say \
                 `secretEnvironment: true`"
            );
            violations.push(of_field("SecretExposed", format!("{at}.environment"), message));
        }
    }

    fn secret_in(&self, references: &References) -> Option<String> {
        let mut secrets = references.iter().filter(|reference| {
            let id = matches!(reference.root, Root::Results | Root::Shared).then(|| reference.path.first()).flatten();
            let producer = id.and_then(|id| self.ids.get(id)).map(|index| self.tasks[*index].task);
            producer.is_some_and(is_secret)
        });
        secrets.next().map(ToString::to_string)
    }
}

/// What reads `item` reads all that the items are made of.
fn with_items(texts: &TaskTexts, mut references: References) -> References {
    if references.uses(Root::Item) {
        references.extend(&texts.loop_references());
    }
    references
}

fn known_where(root: Root) -> &'static str {
    match root {
        Root::Result => "only `success`, `changed` and `retries.until` judge a result",
        Root::Checks => "only a health gate (`serialize.gate`) has checks",
        Root::Failure => "only `rescue` and `always` follow a failure",
        _ => "only `validate` checks a file",
    }
}

fn unknown_field(reference: &Reference, name: &str, known: &[&'static str]) -> Option<String> {
    if known.contains(&name) {
        return None;
    }
    let hint = match nearest(name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("there are {}", known.join(", ")),
    };
    Some(format!("reads `{reference}`, which is not there: {hint}"))
}
