//! `lockstep apply` and `lockstep delete`.

use super::get::kind;
use crate::{
    cli::{Apply, Delete},
    context::Session,
    error::{Error, Result},
    manifests,
};
use lockstep_apis::v1alpha::{ApplyAction, ApplyRequest, DeleteRequest, Object, ObjectRef};

pub(crate) async fn apply(session: &Session, apply: &Apply) -> Result<()> {
    let objects = manifests::read(&apply.files, &session.namespace)?;
    let violations: Vec<_> = objects
        .iter()
        .flat_map(|object| manifests::located(object, super::lint::violations(object)))
        .collect();
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    let names: Vec<String> = objects.iter().map(path).collect();
    let answer = session.objects().apply(ApplyRequest { objects, dry_run: apply.dry_run }).await;
    let answer = answer.map_err(|status| name_objects(status.into(), &names))?.into_inner();
    let would = if apply.dry_run { " (dry run)" } else { "" };
    for result in &answer.results {
        let done = match result.action() {
            ApplyAction::Created => "created",
            ApplyAction::Configured => "configured",
            _ => "unchanged",
        };
        println!("{} {done}{would}", result.object.as_ref().map(path).unwrap_or_default());
    }
    Ok(())
}

pub(crate) async fn delete(session: &Session, delete: &Delete) -> Result<()> {
    let mut requests = Vec::new();
    if !delete.files.is_empty() {
        for object in manifests::read_paths(&delete.files, false, &session.namespace)? {
            requests.push(request(session, &object.kind_of().name, &object.metadata().name, ""));
        }
    } else {
        let kind = kind(delete.kind.as_deref().unwrap_or_default())?;
        match &delete.selector {
            Some(selector) => requests.push(request(session, kind.name, "", selector)),
            None if delete.names.is_empty() => {
                return Err(Error::Usage(format!(
                    "delete which {}? Give names, or a selector with -l",
                    kind.plural
                )));
            }
            None => requests.extend(delete.names.iter().map(|name| request(session, kind.name, name, ""))),
        }
    }
    for mut request in requests {
        request.dry_run = delete.dry_run;
        let answer = session.objects().delete(request).await?.into_inner();
        let would = if delete.dry_run { " (dry run)" } else { "" };
        for deleted in answer.deleted {
            println!("{}/{} deleted{would}", deleted.kind.to_lowercase(), deleted.name);
        }
    }
    Ok(())
}

fn request(session: &Session, kind: &str, name: &str, selector: &str) -> DeleteRequest {
    DeleteRequest {
        r#ref: Some(ObjectRef {
            kind: kind.to_owned(),
            namespace: super::get::namespace_of(session, kind),
            name: name.to_owned(),
        }),
        selector: selector.to_owned(),
        ..DeleteRequest::default()
    }
}

/// `taskbook/web`, as every command prints objects.
pub(crate) fn path(object: &Object) -> String {
    format!("{}/{}", object.kind_of().name.to_lowercase(), object.metadata().name)
}

/// Says which object of the request a server's violation is about.
fn name_objects(error: Error, names: &[String]) -> Error {
    match error {
        Error::Invalid(mut found) => {
            for violation in &mut found {
                if violation.file.is_empty()
                    && let Some(name) = names.get(violation.object as usize)
                {
                    violation.file.clone_from(name);
                }
            }
            Error::Invalid(found)
        }
        other => other,
    }
}
