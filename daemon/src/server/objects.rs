//! The verbs that every kind has: Get, List, Create, Update, Delete, Watch, Apply. Knows objects and the store; nothing
//! of what controllers do with them, and no gRPC code.
//!
//! # Guarantees
//! - What is read is no older than the call.
//! - What is written was valid by the server's own judgement, whatever the client checked; all of one request, or none.
//! - A list's pages are one revision; a watch that begins at its version misses nothing and repeats nothing.

use std::pin::Pin;
use std::sync::Arc;

use futures::Stream;
use lockstep_apis::commit::Entry;
use lockstep_apis::keys::{self, Key};
use lockstep_apis::kinds::{self, Kind};
use lockstep_apis::name;
use lockstep_apis::selector::Selector;
use lockstep_apis::v1alpha::{
    ApplyRequest, ApplyResponse, ApplyResult, CreateRequest, DeleteRequest, DeleteResponse, GetRequest, ListRequest,
    ListResponse, Object, ObjectRef, UpdateRequest, WatchEvent, WatchRequest,
};
use lockstep_apis::violation::{of_field, shown};
use lockstep_grpc::objects_server;
use tonic::{Request, Response, Status};

use crate::cache::Cache;
use crate::events::{self, Outbox};
use crate::status::{self, Answer, Problem};
use crate::store::Store;

mod entering;
mod includes;
mod intake;
mod listing;
mod removal;
mod standing;
mod ties;
mod watching;
mod writing;

pub(crate) use removal::finish_deletions;
use writing::How;

/// The service.
#[derive(Clone)]
pub struct ObjectsApi {
    store: Arc<dyn Store>,
    cache: Arc<Cache>,
    outbox: Outbox,
}

impl ObjectsApi {
    /// Over a store, the cache that follows it, and where events are told.
    pub fn new(store: Arc<dyn Store>, cache: Arc<Cache>, outbox: Outbox) -> Self {
        Self { store, cache, outbox }
    }

    async fn read(&self, reference: &ObjectRef) -> Answer<Object> {
        let key = key_of(reference)?;
        let missing = || not_found(reference);
        if reference.kind == "Event" {
            let batch = events::batch_of(&reference.namespace, &reference.name).ok_or_else(missing)?;
            let entry = self.store.get(&batch).await?.entry.ok_or_else(missing)?;
            let found = events::objects_of(&entry).into_iter().find(|event| event.metadata().name == reference.name);
            return found.map(Arc::unwrap_or_clone).ok_or_else(missing);
        }
        let entry = self.store.get(&key).await?.entry.ok_or_else(missing)?;
        decode(&entry)
    }
}

/// The kind of a request, by any of its words.
fn kind_of(word: &str) -> Answer<&'static Kind> {
    kinds::find(word).ok_or_else(|| {
        let near = kinds::nearest(word).map(|near| format!("; did you mean `{near}`?")).unwrap_or_default();
        Problem::Violations(vec![of_field("NoMatch", "kind", format!("there is no kind {}{near}", shown(word)))])
    })
}

/// The key that a reference names. Names are checked before they become part of a key.
fn key_of(reference: &ObjectRef) -> Answer<Key> {
    let kind = kind_of(&reference.kind)?;
    let mut violations = Vec::new();
    if let Err(rule) = name::check(&reference.name) {
        violations.push(of_field("Format", "ref.name", format!("{} is no name: {rule}", shown(&reference.name))));
    }
    violations.extend(namespace_violation(kind, &reference.namespace, true, "ref.namespace"));
    match violations.is_empty() {
        true => Ok(keys::object(kind.plural, namespace_in_key(kind, &reference.namespace), &reference.name)),
        false => Err(Problem::Violations(violations)),
    }
}

fn namespace_in_key<'n>(kind: &Kind, namespace: &'n str) -> &'n str {
    if kind.namespaced { namespace } else { "" }
}

fn namespace_violation(
    kind: &Kind,
    namespace: &str,
    needed: bool,
    field: &str,
) -> Option<lockstep_apis::v1alpha::Violation> {
    if !kind.namespaced {
        return None;
    }
    if namespace.is_empty() {
        return needed.then(|| of_field("Required", field, format!("a {} lives in a namespace: name it", kind.name)));
    }
    let rule = name::check(namespace).err()?;
    Some(of_field("Format", field, format!("{} is no namespace: {rule}", shown(namespace))))
}

/// The prefix of a kind's keys, in one namespace if it is given.
fn prefix_of(kind: &Kind, namespace: &str) -> Answer<Key> {
    if let Some(violation) = namespace_violation(kind, namespace, false, "namespace") {
        return Err(Problem::Violations(vec![violation]));
    }
    let namespace = Some(namespace).filter(|own| kind.namespaced && !own.is_empty());
    Ok(match kind.name {
        "Event" => keys::events_prefix(namespace),
        _ => keys::object_prefix(kind.plural, namespace),
    })
}

fn selector_of(text: &str) -> Answer<Selector> {
    Selector::parse(text).map_err(|error| Problem::Violations(vec![of_field("Format", "selector", error.to_string())]))
}

fn decode(entry: &Entry) -> Answer<Object> {
    match Object::from_entry(entry) {
        Some(Ok(object)) => Ok(object),
        Some(Err(problem)) => Err(Problem::Internal(problem.to_string())),
        None => Err(Problem::Internal(format!("the key `{}` holds no object", entry.key))),
    }
}

fn reference_of(object: &Object) -> ObjectRef {
    let metadata = object.metadata();
    ObjectRef {
        kind: object.kind_of().name.to_owned(),
        namespace: metadata.namespace.clone(),
        name: metadata.name.clone(),
    }
}

fn not_found(reference: &ObjectRef) -> Problem {
    let kind = kinds::find(&reference.kind).map_or(reference.kind.as_str(), |kind| kind.name);
    let place = match kinds::find(&reference.kind) {
        Some(kind) if kind.namespaced => format!(" in the namespace `{}`", reference.namespace),
        _ => String::new(),
    };
    Problem::NotFound(format!("there is no {kind} {}{place}", shown(&reference.name)))
}

/// A field of a request that must be there.
fn given<T>(field: Option<T>, name: &str) -> Answer<T> {
    field.ok_or_else(|| Problem::Violations(vec![of_field("Required", name, format!("the request has no `{name}`"))]))
}

#[tonic::async_trait]
impl objects_server::Objects for ObjectsApi {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Object>, Status> {
        let reference = given(request.into_inner().r#ref, "ref")?;
        let mut object = self.read(&reference).await?;
        standing::fill(&self.cache, std::slice::from_mut(&mut object));
        Ok(Response::new(object))
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let mut listed = listing::list(&*self.store, request.get_ref()).await?;
        standing::fill(&self.cache, &mut listed.items);
        Ok(Response::new(listed))
    }

    async fn create(&self, request: Request<CreateRequest>) -> Result<Response<Object>, Status> {
        let caller = status::caller(&request)?;
        let request = request.into_inner();
        let object = given(request.object, "object")?;
        let written = self.write(vec![object], How::Create, &caller, request.dry_run).await?;
        Ok(Response::new(only(written)?.0))
    }

    async fn update(&self, request: Request<UpdateRequest>) -> Result<Response<Object>, Status> {
        let caller = status::caller(&request)?;
        let request = request.into_inner();
        let object = given(request.object, "object")?;
        let written = self.write(vec![object], How::Update, &caller, request.dry_run).await?;
        Ok(Response::new(only(written)?.0))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        Ok(Response::new(self.remove(request.into_inner()).await?))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchEvent, Status>> + Send>>;

    async fn watch(&self, request: Request<WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let watching = watching::Watching::open(self.store.clone(), self.cache.clone(), request.get_ref()).await?;
        Ok(Response::new(Box::pin(watching.into_stream())))
    }

    async fn apply(&self, request: Request<ApplyRequest>) -> Result<Response<ApplyResponse>, Status> {
        let caller = status::caller(&request)?;
        let request = request.into_inner();
        let written = self.write(request.objects, How::Apply, &caller, request.dry_run).await?;
        let results = written.into_iter();
        let results = results.map(|(object, action)| ApplyResult { object: Some(object), action: action.into() });
        Ok(Response::new(ApplyResponse { results: results.collect() }))
    }
}

fn only<T>(written: Vec<T>) -> Answer<T> {
    written.into_iter().next().ok_or_else(|| Problem::Internal("one object went in and none came out".into()))
}

#[cfg(test)]
mod tests;
