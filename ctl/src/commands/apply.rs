//! `lockstep apply` and `lockstep delete`.

use super::get::{bare, kind_and_name, namespace_of};
use crate::{
    cli::{Delete, Files},
    context::Session,
    error::{Error, Result},
    manifests,
    render::path,
};
use lockstep_apis::v1alpha::{ApplyAction, ApplyRequest, ApplyResponse, DeleteRequest, Object, ObjectRef};

/// The objects of the files, checked as far as that can be done here.
pub(crate) fn read(files: &Files, namespace: &str) -> Result<Vec<Object>> {
    let objects = manifests::read(files, namespace)?;
    let violations = super::lint::all_violations(&objects);
    if !violations.is_empty() {
        return Err(Error::Invalid(violations));
    }
    Ok(objects)
}

pub(crate) async fn apply(session: &Session, objects: Vec<Object>, dry_run: bool) -> Result<()> {
    let answer = send(session, objects, dry_run).await?;
    let would = if dry_run { " (dry run)" } else { "" };
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

/// Applies, or says what applying would do. Violations name their object.
pub(crate) async fn send(session: &Session, objects: Vec<Object>, dry_run: bool) -> Result<ApplyResponse> {
    let names: Vec<String> = objects.iter().map(path).collect();
    let answer = session.objects().apply(ApplyRequest { objects, dry_run }).await;
    Ok(answer.map_err(|status| name_objects(status.into(), &names))?.into_inner())
}

pub(crate) async fn delete(session: &Session, delete: &Delete) -> Result<()> {
    let mut requests = Vec::new();
    if !delete.files.is_empty() {
        for object in manifests::read_paths(&delete.files, false, &session.namespace)? {
            let metadata = object.metadata();
            requests.push(request(object.kind_of().name, metadata.namespace.clone(), &metadata.name, ""));
        }
    } else {
        let (kind, first) = kind_and_name(delete.kind.as_deref().unwrap_or_default())?;
        let namespace = || namespace_of(session, kind.name);
        let names: Vec<&str> = first.into_iter().chain(delete.names.iter().map(|name| bare(kind, name))).collect();
        match &delete.selector {
            Some(selector) => requests.push(request(kind.name, namespace(), "", selector)),
            None if names.is_empty() => {
                return Err(Error::Usage(format!("delete which {}? Give names, or a selector with -l", kind.plural)));
            }
            None => requests.extend(names.iter().map(|name| request(kind.name, namespace(), name, ""))),
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

fn request(kind: &str, namespace: String, name: &str, selector: &str) -> DeleteRequest {
    DeleteRequest {
        r#ref: Some(ObjectRef { kind: kind.to_owned(), namespace, name: name.to_owned() }),
        selector: selector.to_owned(),
        ..DeleteRequest::default()
    }
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
