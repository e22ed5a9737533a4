//! Health gates: checks that only read, each with an id, and a condition over them.

use std::collections::BTreeSet;

use lockstep_apis::nearest::nearest;
use lockstep_apis::params;
use lockstep_apis::v1alpha::{HealthGate, Task, Violation};
use lockstep_apis::violation::of_field;

use super::tasks::default_id;
use crate::expression::Expression;
use crate::parameters::TaskTexts;
use crate::references::{Reference, References, Root};
use crate::template::TemplateCache;

/// A gate with what was found out about it.
pub(crate) struct CheckedGate {
    /// The path of its field.
    pub(crate) field: String,
    /// It stands behind the task before this one.
    pub(crate) end: usize,
    /// By check: what it reads.
    pub(crate) checks: Vec<(Task, TaskTexts)>,
    /// What the condition reads.
    pub(crate) condition: References,
}

impl CheckedGate {
    /// All that it reads.
    pub(crate) fn references(&self) -> References {
        let mut references = self.condition.clone();
        self.checks.iter().for_each(|(_, texts)| references.extend(&texts.references()));
        references
    }
}

/// The id of a check; "" if it has neither id nor name.
pub(crate) fn id(check: &Task) -> String {
    if check.id.is_empty() { default_id(&check.name) } else { check.id.clone() }
}

/// Checks a gate's texts, ids and options. What it reads of tasks and inputs the caller knows.
pub(crate) fn check(gate: &HealthGate, field: String, end: usize, violations: &mut Vec<Violation>) -> CheckedGate {
    let mut cache = TemplateCache::new();
    let mut checked = CheckedGate { field, end, checks: Vec::new(), condition: References::default() };
    let mut ids: Vec<String> = Vec::new();
    for (index, check) in gate.check.iter().enumerate() {
        let field = format!("{}.check[{index}]", checked.field);
        options(check, &field, violations);
        match TaskTexts::of_task(check, &mut cache) {
            Ok(texts) => {
                known_checks(&texts.references(), &ids, &field, violations);
                checked.checks.push((check.clone(), texts));
            }
            Err(wrong) => super::tasks::wrong_texts(check, &field, &wrong, violations),
        }
        let id = id(check);
        if id.is_empty() {
            let message = "is read by its `id` and named by it: give it one";
            violations.push(of_field("Required", format!("{field}.id"), message));
        } else if ids.contains(&id) {
            let message = format!("has the id `{id}` of another check of this gate: give one of them another `id`");
            violations.push(of_field("DuplicateId", format!("{field}.id"), message));
        }
        ids.push(id);
    }
    if !gate.condition.is_empty() {
        let field = format!("{}.condition", checked.field);
        match Expression::parse(&gate.condition) {
            Err(error) => violations.push(of_field("Expression", field, error.to_string())),
            Ok(condition) => {
                known_checks(condition.references(), &ids, &field, violations);
                checked.condition = condition.references().clone();
            }
        }
    }
    checked
}

/// A check has an action that only reads, and few options.
fn options(check: &Task, field: &str, violations: &mut Vec<Violation>) {
    let action = params::action(&check.action);
    let reads_only = action.is_none_or(|action| action.only_reads(check.parameters.as_ref()));
    if !reads_only {
        let action = &check.action;
        let message = format!("`{action}` may change the node, and a gate only looks: use `command.query`");
        violations.push(of_field("NotReadOnly", format!("{field}.{action}"), message));
    }
    let permitted = Task {
        name: check.name.clone(),
        id: check.id.clone(),
        action: check.action.clone(),
        parameters: check.parameters.clone(),
        success: check.success.clone(),
        timeout: check.timeout,
        environment: check.environment.clone(),
        user: check.user.clone(),
        working_directory: check.working_directory.clone(),
        ..Task::default()
    };
    if permitted != *check {
        let message = "is a check of a gate: it has `id`, `name`, one action, `success`, `timeout`, `environment`, \
                       `user` and `workingDirectory`, and no other option";
        violations.push(of_field("NotInGate", field, message));
    }
}

/// `checks.x` names a check that is done before it is read.
fn known_checks(references: &References, ids: &[String], field: &str, violations: &mut Vec<Violation>) {
    let read: BTreeSet<Option<&str>> = references
        .iter()
        .filter(|reference| reference.root == Root::Checks)
        .map(|reference: &Reference| reference.path.first().map(String::as_str))
        .collect();
    for id in read {
        let message = match id {
            None => "reads `checks` as a whole: name the check, as in `checks.ID`".to_owned(),
            Some(id) if ids.iter().any(|own| own == id) => continue,
            Some(id) => {
                let hint = match nearest(id, ids.iter().map(String::as_str)) {
                    Some(near) => format!("did you mean `checks.{near}`?"),
                    None if ids.is_empty() => "no check is before it".to_owned(),
                    None => format!("there are {}", ids.join(", ")),
                };
                format!("reads `checks.{id}`, and no check before it has the id `{id}`: {hint}")
            }
        };
        violations.push(of_field("Reference", field, message));
    }
}
