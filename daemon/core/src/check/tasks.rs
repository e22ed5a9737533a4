//! A list of tasks: ids, references from task to task, rollout groups, secrets. What the compiler builds on.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::nearest::nearest;
use lockstep_apis::v1alpha::{Serialize, Task, Value, Violation};
use lockstep_apis::violation::of_field;

use super::gate::{self, CheckedGate};
use crate::parameters::{BookTexts, TaskTexts, WrongText};
use crate::references::{Reference, References, Root};

/// Tasks with what was found out about them.
pub(crate) struct Checked<'t> {
    /// In the order of the book.
    pub(crate) tasks: Vec<CheckedTask<'t>>,
    /// The rollout groups' health gates.
    pub(crate) gates: Vec<CheckedGate>,
    /// All that is wrong.
    pub(crate) violations: Vec<Violation>,
}

/// One task with what was found out about it.
pub(crate) struct CheckedTask<'t> {
    pub(crate) task: &'t Task,
    /// "" for a task with neither id nor name.
    pub(crate) id: String,
    /// All that its texts read; nothing if one of them is wrong.
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

/// Checks a list of tasks, whose texts are these. `serialize`: the book is a rollout group. `inputs`: the names that it
/// declares.
pub(crate) fn check<'t>(
    tasks: &'t [Task],
    texts: &BookTexts,
    serialize: Option<&Serialize>,
    inputs: &BTreeSet<&str>,
) -> Checked<'t> {
    let mut violations = Vec::new();
    let mut checked = Vec::with_capacity(tasks.len());
    let mut parsed_tasks = Vec::with_capacity(tasks.len());
    for (index, task) in tasks.iter().enumerate() {
        let parsed = texts.of(index).expect("invariant: the texts are those of these tasks");
        let parsed = parsed.map_err(|wrong| wrong_texts(task, &field_of(index, ""), wrong, &mut violations)).ok();
        let limited = task.targets.as_ref().is_some_and(|targets| targets.limit == 1);
        checked.push(CheckedTask {
            task,
            id: if task.id.is_empty() { default_id(&task.name) } else { task.id.clone() },
            references: parsed.map(|texts| texts.references()).unwrap_or_default(),
            single_producer: task.run_once || limited,
        });
        parsed_tasks.push(parsed);
    }
    let keeps_secrets = tasks.iter().any(is_secret);
    let book = Book { ids: ids(&checked, &mut violations), tasks: &checked, inputs };
    let mut gates: Vec<CheckedGate> = Vec::new();
    gates.extend(
        serialize
            .and_then(|serialize| serialize.gate.as_ref())
            .map(|gate| gate::check(gate, "spec.runOptions.serialize.gate".to_owned(), tasks.len(), &mut violations)),
    );
    for (index, (own, texts)) in checked.iter().zip(parsed_tasks).enumerate() {
        rollout(own.task, index, serialize.is_some(), &mut violations);
        gates.extend(
            own.task
                .serialize
                .as_ref()
                .and_then(|serialize| serialize.gate.as_ref())
                .map(|gate| gate::check(gate, field_of(index, ".serialize.gate"), index + 1, &mut violations)),
        );
        book.references(index, texts.map(|texts| &**texts), &mut violations);
        if let Some(texts) = texts.filter(|_| keeps_secrets) {
            book.secrets(own.task, &field_of(index, ""), texts, &mut violations);
        }
    }
    gates.iter().for_each(|gate| book.gate(gate, &mut violations));
    Checked { tasks: checked, gates, violations }
}

fn field_of(index: usize, below: &str) -> String {
    format!("spec.tasks[{index}]{below}")
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
    let mut ids = BTreeMap::new();
    for (index, checked) in tasks.iter().enumerate().filter(|(_, checked)| !checked.id.is_empty()) {
        if let Some(first) = ids.get(&checked.id) {
            let id = &checked.id;
            let message = format!("has the id `{id}` of spec.tasks[{first}]: give one of them another `id`");
            let field = if checked.task.id.is_empty() { ".name" } else { ".id" };
            violations.push(of_field("DuplicateId", field_of(index, field), message));
        } else {
            ids.insert(checked.id.clone(), index);
        }
    }
    ids
}

fn is_secret(task: &Task) -> bool {
    task.register.as_ref().is_some_and(|register| register.secret)
}

fn rollout(task: &Task, index: usize, serialized: bool, violations: &mut Vec<Violation>) {
    if serialized && task.serialize.is_some() {
        let message = "is a rollout group within the book's own (`runOptions.serialize`): groups do not nest";
        violations.push(of_field("NestedGroup", field_of(index, ".serialize"), message));
    }
    if let Some(serialize) = &task.serialize {
        super::rollout(serialize, &field_of(index, ".serialize"), violations);
    }
    if task.retries.is_some() && task.action == "assert.that" {
        let message = "tries conditions again that nothing changes meanwhile: use `command.query` with `until`";
        violations.push(of_field("Retries", field_of(index, ".retries"), message));
    }
    if let Some(targets) = &task.targets {
        super::targets(targets, &field_of(index, ".targets"), violations);
    }
    delegation(task, index, violations);
    if is_secret(task) && task.id.is_empty() && task.name.is_empty() {
        let message = "keeps a secret that nothing can read: give the task an `id`";
        violations.push(of_field("Required", field_of(index, ".id"), message));
    }
}

fn delegation(task: &Task, index: usize, violations: &mut Vec<Violation>) {
    let Some(given) = &task.delegate_to else {
        if task.throttle > 0 {
            let message = "limits what is done at once on a delegate: give `delegateTo`, too, or leave it out";
            violations.push(of_field("Throttle", field_of(index, ".throttle"), message));
        }
        return;
    };
    let field = field_of(index, ".delegateTo");
    super::targets(given, &field, violations);
    for (at, name) in given.nodes.iter().enumerate() {
        super::only_in_text(name, &format!("{field}.nodes[{at}]"), violations);
    }
}

struct Book<'c, 't> {
    tasks: &'c [CheckedTask<'t>],
    ids: BTreeMap<String, usize>,
    inputs: &'c BTreeSet<&'c str>,
}

impl Book<'_, '_> {
    fn references(&self, index: usize, texts: Option<&TaskTexts>, violations: &mut Vec<Violation>) {
        for reference in self.tasks[index].references.iter() {
            if let Some(message) = self.wrong_reference(index, Some(index), reference) {
                violations.push(of_field("Reference", field_of(index, ""), message));
            }
        }
        let own = &self.tasks[index].references;
        if own.uses(Root::Checks) {
            let message = format!("`checks` is not known here: {}", known_where(Root::Checks));
            violations.push(of_field("Reference", field_of(index, ""), message));
        }
        let Some(texts) = texts.filter(|_| own.uses(Root::Result) || own.uses(Root::File)) else { return };
        // Names that only some fields know.
        if let Some(when) = &texts.when {
            for root in [Root::Result, Root::File].into_iter().filter(|root| when.references().uses(*root)) {
                let message = format!("`{}` is not known here: {}", root.name(), known_where(root));
                violations.push(of_field("Reference", field_of(index, ".when"), message));
            }
        }
        let judging = [(&texts.success, ".success"), (&texts.changed, ".changed"), (&texts.until, ".retries.until")];
        for (expression, below) in judging {
            if expression.as_ref().is_some_and(|expression| expression.references().uses(Root::File)) {
                let message = format!("`file` is not known here: {}", known_where(Root::File));
                violations.push(of_field("Reference", field_of(index, below), message));
            }
        }
        let mut parameters = texts.parameters_references();
        parameters.extend(&texts.environment_references());
        if parameters.uses(Root::Result) {
            let message = format!("`result` is not known here: {}", known_where(Root::Result));
            let field = format!(".{}", self.tasks[index].task.action);
            violations.push(of_field("Reference", field_of(index, &field), message));
        }
        if texts.rendered_references().uses(Root::File) {
            let message = format!("`file` is not known here: {}", known_where(Root::File));
            let field = format!(".{}", self.tasks[index].task.action);
            violations.push(of_field("Reference", field_of(index, &field), message));
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
                _ => self.wrong_reference(gate.end, None, reference),
            };
            violations.extend(message.map(|message| of_field("Reference", gate.field.clone(), message)));
        }
        for (index, (check, texts)) in gate.checks.iter().enumerate() {
            self.secrets(check, &format!("{}.check[{index}]", gate.field), texts, violations);
        }
    }

    /// What is wrong with a reference to be read before the task `index`, by the task `own`.
    fn wrong_reference(&self, index: usize, own: Option<usize>, reference: &Reference) -> Option<String> {
        let first = reference.path.first().map(String::as_str);
        match reference.root {
            Root::All if own.is_none() => {
                Some("reads `all`: a gate looks at its own node, and `results` are there".to_owned())
            }
            Root::Results | Root::Shared | Root::All => self.wrong_task(index, own, reference),
            Root::Inputs => {
                let name = first?;
                if self.inputs.contains(name) {
                    return None;
                }
                let hint = match nearest(name, self.inputs.iter().copied()) {
                    Some(near) => format!("did you mean `{near}`?"),
                    None => "declare it in `spec.inputs`".to_owned(),
                };
                Some(format!("reads `inputs.{name}`, which the book does not declare: {hint}"))
            }
            Root::Node => unknown_field(reference, first?, &["name", "labels", "addresses"]),
            Root::Delegate => self.wrong_delegate(own, reference),
            Root::Run => unknown_field(reference, first?, &["name", "namespace", "uid"]),
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

    /// `results.x`, `shared.x` and `all.x` name an earlier task; `shared` one that a single node does.
    fn wrong_task(&self, index: usize, own: Option<usize>, reference: &Reference) -> Option<String> {
        let root = reference.root.name();
        let Some(id) = reference.path.first() else {
            return Some(format!("reads `{root}` as a whole: name the task, as in `{root}.ID`"));
        };
        let Some(&producer) = self.ids.get(id) else {
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
        for name in ["argv", "shell", "args", "interpreter", "unless", "onlyIf", "validate"] {
            if let Some(secret) = self.secret_in(&texts.parameters.references_of(name))
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
        if let Some(secret) = self.secret_in(&texts.environment_references())
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

fn known_where(root: Root) -> &'static str {
    match root {
        Root::Result => "only `success`, `changed` and `retries.until` judge a result",
        Root::Checks => "only a health gate (`serialize.gate`) has checks",
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
