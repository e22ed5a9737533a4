//! Delete: of one object, of what a selector names, and of a namespace with all that is in it. Knows what stands in the
//! way of a delete.

use lockstep_apis::commit::{Commit, Compare, Entry, Operation};
use lockstep_apis::keys::{self, Key};
use lockstep_apis::kinds;
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{DeleteRequest, DeleteResponse, NamespaceStatus, Object, ObjectRef, object::Kind as K};
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::{outcome, protocol};

use super::intake::TERMINATING;
use super::{ObjectsApi, decode, given, key_of, kind_of, not_found, prefix_of, reference_of, selector_of};
use crate::clock::now_ms;
use crate::events::Happening;
use crate::status::{Answer, Problem};
use crate::store::{Range, StoreError};

/// How often somebody else may be faster.
const ATTEMPTS: usize = 5;

/// Namespaces that are always there.
const PERMANENT: [&str; 2] = ["default", "system"];

/// Most names in a message.
const MAX_NAMED: usize = 5;

impl ObjectsApi {
    /// Deletes what the request names, one after another; what was deleted before an error stays so.
    pub(super) async fn remove(&self, request: DeleteRequest) -> Answer<DeleteResponse> {
        let reference = given(request.r#ref.clone(), "ref")?;
        if kind_of(&reference.kind)?.name == "Event" {
            return Err(Problem::Precondition("events are never deleted by hand; retention does it".into()));
        }
        let named = match (reference.name.is_empty(), request.selector.is_empty()) {
            (false, true) => vec![reference],
            (true, false) => self.matching(&reference, &request.selector).await?,
            _ => {
                let message = "give either `ref.name` or `selector`";
                return Err(Problem::Violations(vec![of_field("OneOf", "ref.name", message)]));
            }
        };
        let mut deleted = Vec::with_capacity(named.len());
        for reference in named {
            match self.remove_one(&reference, &request).await {
                Ok(object) => deleted.push(reference_of(&object)),
                // Somebody else deleted what the selector had named.
                Err(Problem::NotFound(_)) if !request.selector.is_empty() => {}
                Err(problem) => return Err(problem),
            }
        }
        Ok(DeleteResponse { deleted })
    }

    async fn matching(&self, reference: &ObjectRef, selector: &str) -> Answer<Vec<ObjectRef>> {
        let kind = kind_of(&reference.kind)?;
        if kind.namespaced && reference.namespace.is_empty() {
            let message = format!("a {} lives in a namespace: name it", kind.name);
            return Err(Problem::Violations(vec![of_field("Required", "ref.namespace", message)]));
        }
        let (prefix, selector) = (prefix_of(kind, &reference.namespace)?, selector_of(selector)?);
        self.cache.catch_up(&*self.store).await?;
        let state = self.cache.read();
        let matching = state.objects(&prefix).filter(|(_, object)| selector.matches(&object.metadata().labels));
        Ok(matching.map(|(_, object)| reference_of(object)).collect())
    }

    async fn remove_one(&self, reference: &ObjectRef, request: &DeleteRequest) -> Answer<Object> {
        let key = key_of(reference)?;
        for _ in 0..ATTEMPTS {
            let entry = self.store.get(&key).await?.entry.ok_or_else(|| not_found(reference))?;
            let object = decode(&entry)?;
            let version = &object.metadata().resource_version;
            if !request.resource_version.is_empty() && request.resource_version != *version {
                let reference = object.reference();
                return Err(Problem::Conflict(format!("{reference} was changed since it was read; read it again")));
            }
            let removal = self.removal(&object, &entry).await?;
            if request.dry_run {
                return Ok(object);
            }
            match self.carry_out(&object, removal).await {
                Ok(()) => return Ok(object),
                Err(Problem::Store(StoreError::Conflict)) => continue,
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::Conflict("others kept changing the object; it was not deleted: try again".into()))
    }

    /// What deletes the object, unless something stands in the way.
    async fn removal(&self, object: &Object, entry: &Entry) -> Answer<Removal> {
        let alone = || {
            let unchanged = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
            Commit::new().when(unchanged).delete(entry.key.clone())
        };
        Ok(match &object.kind {
            Some(K::Run(_)) => {
                self.cache.catch_up(&*self.store).await?;
                Removal::Once(self.run_removal(object)?)
            }
            Some(K::Node(_)) => {
                self.cache.catch_up(&*self.store).await?;
                self.node_is_free(object)?;
                Removal::Once(alone().delete(keys::session(&object.metadata().uuid)))
            }
            Some(K::Lock(_)) => {
                let name = &object.metadata().name;
                return Err(Problem::Precondition(format!(
                    "a lock goes when nobody uses it: `lockstep locks release {name}`, or `lockstep locks clear {name}` if it is poisoned"
                )));
            }
            Some(K::Namespace(_)) => {
                self.cache.catch_up(&*self.store).await?;
                self.namespace_is_free(object)?;
                Removal::Namespace(entry.clone())
            }
            _ => Removal::Once(alone()),
        })
    }

    async fn carry_out(&self, object: &Object, removal: Removal) -> Answer<()> {
        match removal {
            Removal::Once(commit) => {
                let revision = self.store.commit(&commit).await?.revision;
                // Whoever asks this server next must not meet what is gone: a node's connection, a Run's world.
                self.cache.reached(revision).await;
            }
            Removal::Namespace(entry) => {
                let closed = self.close(object, &entry).await?;
                self.empty(&object.metadata().name, &closed).await?;
            }
        }
        if matches!(object.kind, Some(K::Node(_))) {
            let name = object.metadata().name.clone();
            self.outbox.tell(Happening::of_cluster("node/deleted", object.reference(), format!("{name} was deleted")));
        }
        Ok(())
    }

    fn run_removal(&self, object: &Object) -> Answer<Commit> {
        let (uid, name) = (&object.metadata().uuid, &object.metadata().name);
        let state = self.cache.read();
        let run = state.world().run(uid).ok_or(StoreError::Conflict)?;
        if !run.has_ended() {
            return Err(Problem::Precondition(format!(
                "the run {} has not ended; `lockstep cancel {name}` first",
                shown(name)
            )));
        }
        if run.cursor().is_some() {
            let held = outcome::held_nodes(run);
            let held = if held.is_empty() { "some nodes".to_owned() } else { first(held.iter().map(String::as_str)) };
            return Err(Problem::Precondition(format!(
                "places of the run {} are still held by {held}; wait for them, or give them free with `lockstep release`",
                shown(name)
            )));
        }
        protocol::remove(state.world(), uid).map_err(|_| StoreError::Conflict.into())
    }

    fn node_is_free(&self, object: &Object) -> Answer<()> {
        let state = self.cache.read();
        let attempts = state.world().claimed(&object.metadata().uuid);
        let names = attempts.filter_map(|attempt| state.world().run(&attempt.run)?.plan());
        let names: Vec<&str> = names.map(|plan| plan.snapshot.run_name.as_str()).collect();
        match names.is_empty() {
            true => Ok(()),
            false => Err(Problem::Precondition(format!(
                "the node {} works for the run {}; cancel that, or give its place free with `lockstep release`",
                shown(&object.metadata().name),
                first(names)
            ))),
        }
    }

    fn namespace_is_free(&self, object: &Object) -> Answer<()> {
        let name = object.metadata().name.as_str();
        if PERMANENT.contains(&name) {
            return Err(Problem::Precondition(format!("the namespace `{name}` is always there")));
        }
        let state = self.cache.read();
        let prefix = keys::object_prefix("runs", Some(name));
        let busy = state.objects(&prefix).filter(|(_, object)| {
            let run = state.world().run(&object.metadata().uuid);
            run.is_none_or(|run| !run.has_ended() || run.cursor().is_some())
        });
        let busy: Vec<&str> = busy.map(|(_, object)| object.metadata().name.as_str()).collect();
        match busy.is_empty() {
            true => Ok(()),
            false => Err(Problem::Precondition(format!(
                "runs of the namespace `{name}` have not ended or hold places: {}; cancel or release them first",
                first(busy)
            ))),
        }
    }

    /// Lets nothing more into a namespace. The answer: what it then is.
    pub(super) async fn close(&self, object: &Object, entry: &Entry) -> Answer<Entry> {
        let mut closed = object.clone();
        if let Some(K::Namespace(namespace)) = &mut closed.kind
            && namespace.status.as_ref().is_none_or(|status| status.phase != TERMINATING)
        {
            namespace.status = Some(NamespaceStatus { phase: TERMINATING.into() });
            closed.metadata_mut().deleted_at = Some(timestamp::from_ms(now_ms()));
            let unchanged = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
            let value = closed.to_stored();
            let commit = Commit::new().when(unchanged).put(entry.key.clone(), value.clone());
            let mod_revision = self.store.commit(&commit).await?.revision;
            return Ok(Entry { value, mod_revision, ..entry.clone() });
        }
        Ok(entry.clone())
    }

    /// Deletes all that is in a closed namespace, then itself. May be cut off anywhere, and begun again.
    async fn empty(&self, name: &str, closed: &Entry) -> Answer<()> {
        for kind in kinds::all().iter().filter(|kind| kind.namespaced && kind.name != "Event") {
            let prefix = keys::object_prefix(kind.plural, Some(name));
            loop {
                let page = self.store.list(&prefix, Range::first(50)).await?;
                if page.entries.is_empty() {
                    break;
                }
                self.cache.reached(page.revision).await;
                for entry in &page.entries {
                    self.remove_inside(entry).await?;
                }
            }
        }
        let mut commit = Commit::new()
            .when(Compare::ModRevision(closed.key.clone(), closed.mod_revision))
            .delete(closed.key.clone());
        commit.operations.push(Operation::DeletePrefix(keys::events_prefix(Some(name))));
        commit.operations.push(Operation::DeletePrefix(keys::concurrency_prefix(name)));
        self.store.commit(&commit).await?;
        Ok(())
    }

    async fn remove_inside(&self, entry: &Entry) -> Answer<()> {
        let object = decode(entry)?;
        let commit = match &object.kind {
            Some(K::Run(_)) => self.run_removal(&object)?,
            _ => Commit::new().delete(entry.key.clone()),
        };
        match self.store.commit(&commit).await {
            // The next page shows what is left.
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(problem) => Err(problem.into()),
        }
    }
}

/// What deletes an object.
enum Removal {
    Once(Commit),
    /// To be closed, emptied and deleted.
    Namespace(Entry),
}

fn first<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.dedup();
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let listed = names.join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}

/// Goes on with namespaces whose delete was cut off: for the leader, now and then.
pub(crate) async fn finish_deletions(api: &ObjectsApi) {
    let closed: Vec<Key> = {
        let state = api.cache.read();
        let prefix = keys::object_prefix("namespaces", None);
        let closed = state.objects(&prefix).filter(|(_, object)| object.metadata().deleted_at.is_some());
        closed.map(|(key, _)| key.clone()).collect()
    };
    for key in closed {
        let Ok(found) = api.store.get(&key).await else { return };
        let Some(entry) = found.entry else { continue };
        let Ok(object) = decode(&entry) else { continue };
        if object.metadata().deleted_at.is_none() {
            continue;
        }
        if let Err(problem) = api.empty(&object.metadata().name, &entry).await {
            tracing::info!(%problem, namespace = object.metadata().name, "a namespace is not empty yet");
        }
    }
}
