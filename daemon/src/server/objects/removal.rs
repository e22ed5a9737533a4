//! Delete: of one object, or of what a selector names. Knows what stands in the way of a delete; a namespace is only
//! closed here, and emptied by the leader.

use lockstep_apis::commit::{Commit, Compare, Entry};
use lockstep_apis::keys;
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{DeleteRequest, DeleteResponse, NamespaceStatus, Object, ObjectRef, object::Kind as K};
use lockstep_apis::violation::{of_field, shown};
use lockstep_core::{outcome, protocol};

use super::intake::TERMINATING;
use super::{ObjectsApi, decode, given, key_of, kind_of, not_found, prefix_of, reference_of, selector_of};
use crate::clock::now_ms;
use crate::events::Happening;
use crate::status::{Answer, Problem};
use crate::store::StoreError;

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
            match self.carry_out(&object, &removal).await {
                Ok(()) => return Ok(object),
                Err(Problem::Store(StoreError::Conflict)) => continue,
                Err(problem) => return Err(problem),
            }
        }
        Err(Problem::Conflict("others kept changing the object; it was not deleted: try again".into()))
    }

    /// What deletes the object, unless something stands in the way.
    async fn removal(&self, object: &Object, entry: &Entry) -> Answer<Commit> {
        let alone = || {
            let unchanged = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
            Commit::new().when(unchanged).delete(entry.key.clone())
        };
        match &object.kind {
            Some(K::Run(_)) => {
                self.cache.catch_up(&*self.store).await?;
                self.run_removal(object)
            }
            Some(K::Node(_)) => {
                self.cache.catch_up(&*self.store).await?;
                self.node_is_free(object)?;
                Ok(alone().delete(keys::session(&object.metadata().uuid)))
            }
            Some(K::Namespace(_)) => closing(object, entry),
            _ => Ok(alone()),
        }
    }

    async fn carry_out(&self, object: &Object, removal: &Commit) -> Answer<()> {
        let revision = self.store.commit(removal).await?.revision;
        // Whoever asks this server next must not meet what is gone: a node's connection, a Run's world.
        self.cache.reached(revision).await;
        if matches!(object.kind, Some(K::Node(_))) {
            let name = &object.metadata().name;
            let message = format!("{name} was deleted");
            self.outbox.tell(Happening::of_cluster("node/deleted", object.reference(), message));
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
}

/// Lets nothing more into a namespace: the leader then ends its Runs, empties it, and deletes it.
fn closing(object: &Object, entry: &Entry) -> Answer<Commit> {
    let name = object.metadata().name.as_str();
    if PERMANENT.contains(&name) {
        return Err(Problem::Precondition(format!("the namespace `{name}` is always there")));
    }
    let mut closed = object.clone();
    if let Some(K::Namespace(namespace)) = &mut closed.kind {
        namespace.status = Some(NamespaceStatus { phase: TERMINATING.into() });
    }
    closed.metadata_mut().deleted_at.get_or_insert(timestamp::from_ms(now_ms()));
    let unchanged = Compare::ModRevision(entry.key.clone(), entry.mod_revision);
    Ok(Commit::new().when(unchanged).put(entry.key.clone(), closed.to_stored()))
}

fn first<'n>(names: impl IntoIterator<Item = &'n str>) -> String {
    let mut names: Vec<&str> = names.into_iter().collect();
    names.dedup();
    let more = names.len().saturating_sub(MAX_NAMED);
    names.truncate(MAX_NAMED);
    let listed = names.join(", ");
    if more == 0 { listed } else { format!("{listed} and {more} more") }
}
