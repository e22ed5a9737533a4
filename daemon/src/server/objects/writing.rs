//! Create, Update and Apply: judged, guarded, and committed at once. Knows which objects must be there for others.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use futures::future::try_join_all;
use lockstep_apis::commit::{Commit, Compare, Entry, MAX_OPERATIONS, Revision};
use lockstep_apis::keys::{self, Key};
use lockstep_apis::kinds;
use lockstep_apis::v1alpha::{ApplyAction, ClusterVariables, Object, Variables, Violation, object::Kind as K};
use lockstep_apis::violation::{MAX_VIOLATIONS, of_field, shown};
use lockstep_core::included_books;

use super::intake::{self, Write};
use super::{ObjectsApi, decode};
use crate::clock::now_ms;
use crate::identity::PeerIdentity;
use crate::status::{Answer, Problem};
use crate::store::{MAX_COMMIT_BYTES, StoreError};

/// How often somebody else may be faster: with one concurrency key everybody but one is slower.
const ATTEMPTS: usize = 32;

/// How often, and after which pause, is looked whether a commit with an unknown end happened.
const LOOKS: usize = 10;
const PAUSE: Duration = Duration::from_millis(200);

/// What a writer means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// It must not be there.
    Create,
    /// It must be there, in the version that is named.
    Update,
    /// Either.
    Apply,
}

impl ObjectsApi {
    /// Writes all objects in one commit, or none. Answers with each as stored, and what was done.
    pub(super) async fn write(
        &self,
        objects: Vec<Object>,
        how: How,
        by: &PeerIdentity,
        dry_run: bool,
    ) -> Answer<Vec<(Object, ApplyAction)>> {
        judge(&objects, how)?;
        for _ in 0..ATTEMPTS {
            let mut writes = self.prepare(&objects, how, by).await?;
            self.refuse_ties(&writes).await?;
            self.judge_includes(&writes).await?;
            let entering = self.enter(&mut writes, by).await?;
            if dry_run || writes.iter().all(|write| write.action == ApplyAction::Unchanged) {
                return Ok(writes.into_iter().map(|write| (write.object, write.action)).collect());
            }
            let commit = self.commit_of(&writes, entering).await?;
            let revision = match self.store.commit(&commit).await {
                Ok(committed) => committed.revision,
                Err(StoreError::Conflict) => continue,
                Err(problem @ StoreError::Indeterminate { .. }) => self.settle(&writes, problem).await?,
                Err(problem) => return Err(problem.into()),
            };
            return Ok(writes.into_iter().map(|write| stored_at(write, revision)).collect());
        }
        Err(Problem::Conflict("others kept changing the same objects; nothing was written: try again".into()))
    }

    async fn prepare(&self, objects: &[Object], how: How, by: &PeerIdentity) -> Answer<Vec<Write>> {
        let keys: Vec<Key> = objects.iter().map(Object::key).collect();
        let stored = try_join_all(keys.iter().map(|key| self.store.get(key))).await?;
        let now_ms = now_ms();
        let mut writes = Vec::with_capacity(objects.len());
        let mut violations = Vec::new();
        for (index, (object, found)) in objects.iter().zip(&stored).enumerate() {
            match intake::write(object.clone(), found.entry.as_ref(), how, by, now_ms) {
                Ok(write) => writes.push(write),
                Err(Problem::Violations(found)) => violations.extend(numbered(found, index)),
                Err(problem) => return Err(problem),
            }
        }
        if violations.is_empty() { Ok(writes) } else { Err(Problem::Violations(violations)) }
    }

    /// The writes, and that what they rely on is there.
    async fn commit_of(&self, writes: &[Write], entering: Commit) -> Answer<Commit> {
        let made: BTreeSet<Key> = writes.iter().map(|write| write.object.key()).collect();
        let mut guards = BTreeMap::new();
        for (index, write) in writes.iter().enumerate() {
            let new = write.action == ApplyAction::Created;
            for needed in needs(&write.object, new).into_iter().filter(|needed| !made.contains(&needed.key)) {
                if !guards.contains_key(&needed.key) {
                    let entry = self.store.get(&needed.key).await?.entry;
                    if entry.is_none() {
                        // For the nearest name; an old cache only has a worse one.
                        let _ = self.cache.catch_up(&*self.store).await;
                    }
                    guards.insert(needed.key.clone(), self.guard(&needed, entry.as_ref(), index)?);
                }
            }
        }
        let mut commit = entering;
        commit.compares.extend(guards.into_values());
        let mut bytes = 0;
        for write in writes {
            commit = commit.when(write.guard.clone());
            if write.action != ApplyAction::Unchanged {
                let (key, value) = (write.object.key(), write.object.to_stored());
                bytes += key.as_bytes().len() + value.len();
                commit = commit.put(key, value);
            }
        }
        fits(&commit, bytes)?;
        Ok(commit)
    }

    fn guard(&self, needed: &Needed, entry: Option<&Entry>, index: usize) -> Answer<Compare> {
        let Some(entry) = entry else { return Err(needed.missing(index, self)) };
        match decode(entry)?.kind {
            // Closing a namespace writes it: what was open then is not any more.
            Some(K::Namespace(namespace)) if !intake::is_open(&namespace) => {
                Err(Problem::Precondition(format!("the namespace {} is being deleted", shown(&needed.name))))
            }
            Some(K::Namespace(_)) => Ok(Compare::ModRevision(needed.key.clone(), entry.mod_revision)),
            _ => Ok(Compare::Present(needed.key.clone())),
        }
    }

    /// Finds out whether a commit happened whose answer was lost. Errors: it cannot be told.
    async fn settle(&self, writes: &[Write], problem: StoreError) -> Answer<Revision> {
        let Some(write) = writes.iter().find(|write| write.action != ApplyAction::Unchanged) else {
            return Err(problem.into());
        };
        let (key, value) = (write.object.key(), write.object.to_stored());
        for _ in 0..LOOKS {
            // An error is the same silence that we ask about.
            if let Ok(found) = self.store.get(&key).await
                && let Some(entry) = found.entry
                && entry.value == value
            {
                return Ok(entry.mod_revision);
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(problem.into())
    }
}

fn stored_at(write: Write, revision: Revision) -> (Object, ApplyAction) {
    let mut object = write.object;
    if write.action != ApplyAction::Unchanged {
        object.metadata_mut().resource_version = revision.to_string();
    }
    (object, write.action)
}

/// Refuses what is wrong in itself, all at once.
fn judge(objects: &[Object], how: How) -> Answer<()> {
    if objects.len() > MAX_OPERATIONS {
        return Err(Problem::Invalid(format!(
            "{} objects in one request; {MAX_OPERATIONS} is the most that can be written all or none: send them in parts",
            objects.len()
        )));
    }
    let mut violations = Vec::new();
    let mut keys = BTreeSet::new();
    for (index, object) in objects.iter().enumerate() {
        violations.extend(numbered(intake::violations(object, how), index));
        if object.is_some() && !keys.insert(object.key()) {
            let message = format!("{} is in the request twice: leave one away", object.reference());
            violations.extend(numbered(vec![of_field("Duplicate", "metadata.name", message)], index));
        }
    }
    violations.truncate(MAX_VIOLATIONS);
    if violations.is_empty() { Ok(()) } else { Err(Problem::Violations(violations)) }
}

pub(super) fn numbered(violations: Vec<Violation>, index: usize) -> impl Iterator<Item = Violation> {
    let object = u32::try_from(index).unwrap_or(u32::MAX);
    violations.into_iter().map(move |violation| Violation { object, ..violation })
}

fn fits(commit: &Commit, bytes: usize) -> Answer<()> {
    let count = commit.operations.len().max(commit.compares.len());
    if count > MAX_OPERATIONS {
        return Err(Problem::Invalid(format!(
            "the request needs {count} conditions; the store takes {MAX_OPERATIONS} at once: send the objects in parts"
        )));
    }
    if bytes > MAX_COMMIT_BYTES {
        return Err(Problem::Exhausted(format!(
            "the objects have {bytes} bytes; the store takes {MAX_COMMIT_BYTES} at once: send them in parts"
        )));
    }
    Ok(())
}

/// Another object that must be there.
struct Needed {
    key: Key,
    field: &'static str,
    kind: &'static str,
    name: String,
    namespace: String,
}

/// What an object needs: its namespace, a new Run its book, variables the groups that they are for.
fn needs(object: &Object, new: bool) -> Vec<Needed> {
    let namespace = object.metadata().namespace.clone();
    let mut needed = Vec::new();
    if object.kind_of().namespaced {
        let key = keys::object("namespaces", "", &namespace);
        let field = "metadata.namespace";
        needed.push(Needed { key, field, kind: "Namespace", name: namespace.clone(), namespace: String::new() });
    }
    if let Some(K::Run(run)) = &object.kind
        && new
    {
        let books = run.spec.iter().flat_map(|spec| &spec.task_books);
        needed.extend(books.map(|book| Needed {
            key: keys::object("taskbooks", &namespace, book),
            field: "spec.taskBooks",
            kind: "TaskBook",
            name: book.clone(),
            namespace: namespace.clone(),
        }));
    }
    let tasks = match &object.kind {
        Some(K::TaskBook(book)) => book.spec.as_ref().map(|book| book.tasks.as_slice()),
        Some(K::Run(run)) if new => run.spec.as_ref().map(|run| run.tasks.as_slice()),
        _ => None,
    };
    needed.extend(included_books(tasks.unwrap_or_default()).into_iter().map(|book| Needed {
        key: keys::object("taskbooks", &namespace, &book),
        field: "spec.tasks",
        kind: "TaskBook",
        name: book,
        namespace: namespace.clone(),
    }));
    let (Some(K::Variables(Variables { spec, .. })) | Some(K::ClusterVariables(ClusterVariables { spec, .. }))) =
        &object.kind
    else {
        return needed;
    };
    let targets = spec.iter().filter_map(|spec| spec.targets.as_ref());
    let groups = targets.flat_map(|targets| {
        let excluded = targets.exclude.iter().flat_map(|exclude| &exclude.node_groups);
        targets
            .node_groups
            .iter()
            .map(|group| ("spec.targets.nodeGroups", group))
            .chain(excluded.map(|group| ("spec.targets.exclude.nodeGroups", group)))
    });
    needed.extend(groups.map(|(field, group)| Needed {
        key: keys::object("nodegroups", "", group),
        field,
        kind: "NodeGroup",
        name: group.clone(),
        namespace: String::new(),
    }));
    needed
}

impl Needed {
    fn missing(&self, index: usize, api: &ObjectsApi) -> Problem {
        let place = match self.namespace.as_str() {
            "" => String::new(),
            namespace => format!(" in the namespace `{namespace}`"),
        };
        let plural = kinds::named(self.kind).map_or("", |kind| kind.plural);
        let prefix = match self.namespace.as_str() {
            "" => keys::object_prefix(plural, None),
            namespace => keys::object_prefix(plural, Some(namespace)),
        };
        let state = api.cache.read();
        let names: Vec<&str> = state.objects(&prefix).map(|(_, object)| object.metadata().name.as_str()).collect();
        let near = lockstep_apis::nearest::nearest(&self.name, names);
        let hint = near.map(|near| format!("; did you mean `{near}`?")).unwrap_or_else(|| "; apply it first".into());
        let message = format!("there is no {} {}{place}{hint}", self.kind, shown(&self.name));
        let violation = of_field("NotFoundReference", self.field, message);
        Problem::Missing(numbered(vec![violation], index).collect())
    }
}
