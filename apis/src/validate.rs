//! Validation of typed objects: the same walk as a manifest's, so that a server trusts no client.

use crate::{
    manifest, object,
    v1alpha::{Object, Violation, object::Kind},
    violation::{Violations, of_field},
};

/// Everything that is wrong with an object that a user sends and that needs no cluster to know.
///
/// As in manifests, fields of the system are refused unless `metadata.resourceVersion` says that the object was read
/// before; the server then drops them with [`Object::keep_system_fields`]. A namespaced object must name its namespace.
pub fn object(object: &Object) -> Vec<Violation> {
    if !object.is_some() {
        return vec![of_field("NoMatch", "", "the request holds no object")];
    }
    let mut violations = Violations::new("");
    header(object, &mut violations.list);
    let bytes = object::encode_inner(object.inner());
    let _ = manifest::encode(&manifest::tree(object, &bytes), None, &mut violations);
    if object.kind_of().namespaced && object.metadata().namespace.is_empty() {
        violations.list.push(of_field("Required", "metadata.namespace", "`namespace` must be given"));
    }
    violations.list
}

/// A typed object may leave out version and kind, but not say another.
fn header(object: &Object, violations: &mut Vec<Violation>) {
    let (metadata, kind) = (object.metadata(), object.kind_of());
    if !metadata.kind.is_empty() && metadata.kind != kind.name {
        let message = format!("the object is a {}; write that or leave the field out", kind.name);
        violations.push(of_field("NoMatch", "metadata.kind", message));
    }
    let versions = ["", object::API_VERSION, object::API_VERSION_TOP_LEVEL];
    if !versions.contains(&metadata.api_version.as_str()) {
        violations.push(of_field("NoMatch", "metadata.apiVersion", "no such API version; there is `v1alpha`"));
    }
}

/// What an update changes that never changes: identity, and the spec of Runs and Events.
pub fn update(old: &Object, new: &Object) -> Vec<Violation> {
    let mut violations = Vec::new();
    let mut refuse = |field: &str, message: &str| violations.push(of_field("Immutable", field, message));
    let (before, after) = (old.metadata(), new.metadata());
    if old.kind_of() != new.kind_of() {
        refuse("metadata.kind", "an object's kind never changes");
    }
    if before.name != after.name {
        refuse("metadata.name", "an object's name never changes; make a new one");
    }
    if before.namespace != after.namespace {
        refuse("metadata.namespace", "an object's namespace never changes; make a new one");
    }
    if !after.uuid.is_empty() && after.uuid != before.uuid {
        refuse("metadata.uuid", "the object was deleted and made again since it was read; read it again");
    }
    let frozen = matches!(old.kind, Some(Kind::Run(_) | Kind::Event(_)));
    if frozen && old.spec_differs(new) {
        refuse("spec", "it never changes once it is made; make a new one");
    }
    violations
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1alpha::{Metadata, Run, RunSpec, Task, TaskBook, TaskBookSpec, Value};

    fn metadata() -> Option<Metadata> {
        Some(Metadata { name: "web".into(), namespace: "shop".into(), ..Metadata::default() })
    }

    fn book(task: Task) -> Object {
        TaskBook { metadata: metadata(), spec: Some(TaskBookSpec { tasks: vec![task], ..Default::default() }) }.into()
    }

    fn reasons(violations: &[Violation]) -> Vec<&str> {
        violations.iter().map(|violation| violation.reason.as_str()).collect()
    }

    #[test]
    fn a_typed_object_is_judged_as_its_manifest_would_be() {
        let parameters = |json: serde_json::Value| Some(Value::from(json));
        let good = Task {
            action: "command.run".into(),
            parameters: parameters(serde_json::json!({"argv": ["id"]})),
            ..Default::default()
        };
        assert_eq!(object(&book(good.clone())), []);
        let bad = Task { parameters: parameters(serde_json::json!({"argvv": ["id"]})), loop_limit: 3, ..good };
        let violations = object(&book(bad));
        assert_eq!(reasons(&violations), ["UnknownField", "OneOf", "NoMatch"]);
        assert_eq!(violations[0].field, "spec.tasks[0].command.run.argvv");
        assert_eq!(reasons(&object(&Object::default())), ["NoMatch"]);
    }

    #[test]
    fn system_fields_of_users_are_refused_unless_the_object_was_read_before() {
        let mut run: Object = Run {
            metadata: metadata(),
            spec: Some(RunSpec { task_books: vec!["web".into()], retry_of: "old".into(), ..Default::default() }),
            ..Default::default()
        }
        .into();
        assert_eq!(reasons(&object(&run)), ["Immutable"]);
        run.metadata_mut().resource_version = "7".into();
        assert_eq!(object(&run), []);
    }

    #[test]
    fn the_spec_of_a_run_never_changes() {
        let run = |priority| -> Object {
            Run { metadata: metadata(), spec: Some(RunSpec { priority, ..Default::default() }), ..Default::default() }
                .into()
        };
        assert_eq!(update(&run(1), &run(1)), []);
        assert_eq!(reasons(&update(&run(1), &run(2))), ["Immutable"]);
    }
}
