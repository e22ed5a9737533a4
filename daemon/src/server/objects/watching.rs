//! Watch: what is there, then every change, from the cache's history; a bookmark when nothing changes. Knows what of a
//! batch a watcher asked for.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::Stream;
use lockstep_apis::commit::Revision;
use lockstep_apis::keys::Key;
use lockstep_apis::kinds::Kind;
use lockstep_apis::name;
use lockstep_apis::selector::Selector;
use lockstep_apis::v1alpha::{Object, WatchEvent, WatchEventType, WatchRequest};
use tokio::time::Instant;
use tonic::Status;

use super::{kind_of, listing, prefix_of, selector_of};
use crate::cache::{Batch, Cache, Change, Position};
use crate::status::{Answer, Problem};
use crate::store::Store;

/// After how long without anything to tell a bookmark is sent.
const BOOKMARK: Duration = Duration::from_secs(10);

/// A watch of the store that is silent for so long has lost it: the watcher must know.
const SILENCE: Duration = Duration::from_secs(60);

/// What is watched.
struct Scope {
    kind: &'static Kind,
    prefix: Key,
    namespace: String,
    name: String,
    selector: Selector,
}

/// One watcher.
pub(super) struct Watching {
    cache: Arc<Cache>,
    scope: Scope,
    position: Position,
    ready: VecDeque<WatchEvent>,
    bookmark_at: Instant,
}

impl Watching {
    /// Begins a watch. Errors: a request that is wrong; a version that is too old, or not this store's.
    pub(super) async fn open(store: Arc<dyn Store>, cache: Arc<Cache>, request: &WatchRequest) -> Answer<Self> {
        let scope = Scope::of(request)?;
        let current = cache.catch_up(&*store).await?;
        let (from, ready) = match request.resource_version.as_str() {
            "" => scope.present(&*store, &cache).await?,
            given => (version(given, current)?, VecDeque::new()),
        };
        let position = cache.position(from)?;
        Ok(Self { cache, scope, position, ready, bookmark_at: Instant::now() + BOOKMARK })
    }

    /// The events, until an error.
    pub(super) fn into_stream(self) -> impl Stream<Item = Result<WatchEvent, Status>> + Send {
        futures::stream::unfold(Some(self), |watching| async {
            let mut watching = watching?;
            match watching.next().await {
                Ok(event) => Some((Ok(event), Some(watching))),
                Err(problem) => Some((Err(problem.into()), None)),
            }
        })
    }

    async fn next(&mut self) -> Answer<WatchEvent> {
        loop {
            if let Some(event) = self.ready.pop_front() {
                self.bookmark_at = Instant::now() + BOOKMARK;
                return Ok(event);
            }
            let mut revision = self.cache.revision();
            // Before the changes are read: whatever this revision made is among them.
            let known = *revision.borrow_and_update();
            let batches = self.cache.since(self.position)?;
            if let Some(last) = batches.last() {
                self.position = last.position;
                self.ready.extend(batches.iter().flat_map(|batch| self.scope.events(batch)));
                continue;
            }
            if self.cache.silence() > SILENCE {
                return Err(Problem::Unavailable("this server has lost the store; watch through another one".into()));
            }
            match tokio::time::timeout_at(self.bookmark_at, revision.changed()).await {
                Ok(Ok(())) => {}
                Ok(Err(_)) => {
                    return Err(Problem::Unavailable("this server is stopping; watch through another one".into()));
                }
                Err(_) => self.ready.push_back(event(WatchEventType::Bookmark, None, known)),
            }
        }
    }
}

/// The version that a watcher has seen.
fn version(given: &str, current: Revision) -> Answer<Revision> {
    let version: Revision = given
        .parse()
        .map_err(|_| Problem::Invalid("`resourceVersion` is not one that a list or watch gave; leave it out".into()))?;
    match version > current {
        true => Err(Problem::Expired(
            "Expired: the version is newer than this store, so it is of another one; list again, and watch from there"
                .into(),
        )),
        false => Ok(version),
    }
}

fn event(r#type: WatchEventType, object: Option<Object>, revision: Revision) -> WatchEvent {
    WatchEvent { r#type: r#type.into(), object, resource_version: revision.to_string() }
}

impl Scope {
    fn of(request: &WatchRequest) -> Answer<Self> {
        let kind = kind_of(&request.kind)?;
        if !request.name.is_empty()
            && let Err(rule) = name::check(&request.name)
        {
            return Err(Problem::Invalid(format!("`name` is no name: {rule}")));
        }
        Ok(Self {
            kind,
            prefix: prefix_of(kind, &request.namespace)?,
            namespace: if kind.namespaced { request.namespace.clone() } else { String::new() },
            name: request.name.clone(),
            selector: selector_of(&request.selector)?,
        })
    }

    fn wants(&self, object: &Object) -> bool {
        let metadata = object.metadata();
        (self.name.is_empty() || metadata.name == self.name) && self.selector.matches(&metadata.labels)
    }

    /// What is there, as Added, and the revision that it is of.
    async fn present(&self, store: &dyn Store, cache: &Cache) -> Answer<(Revision, VecDeque<WatchEvent>)> {
        let added = |object: &Object, revision: Revision| event(WatchEventType::Added, Some(object.clone()), revision);
        if self.kind.name == "Event" {
            let page = store.snapshot(&self.prefix).await?;
            let mut events = VecDeque::new();
            for entry in &page.entries {
                let objects = listing::objects_in(self.kind, entry)?;
                events.extend(objects.iter().filter(|object| self.wants(object)).map(|o| added(o, page.revision)));
            }
            cache.reached(page.revision).await;
            return Ok((page.revision, events));
        }
        let state = cache.read();
        let revision = state.world().revision();
        let objects = state.objects(&self.prefix).filter(|(_, object)| self.wants(object));
        Ok((revision, objects.map(|(_, object)| added(object, revision)).collect()))
    }

    fn events(&self, batch: &Batch) -> Vec<WatchEvent> {
        batch.changes.iter().flat_map(|change| self.event(change, batch.revision)).collect()
    }

    fn event(&self, change: &Change, revision: Revision) -> Vec<WatchEvent> {
        match change {
            Change::Object { key, before, after } if key.as_str().starts_with(self.prefix.as_str()) => {
                let wanted = |object: &Option<Arc<Object>>| object.as_ref().is_some_and(|object| self.wants(object));
                let (r#type, object) = match (wanted(before), wanted(after)) {
                    (false, false) => return Vec::new(),
                    (false, true) => (WatchEventType::Added, after),
                    (true, true) => (WatchEventType::Modified, after),
                    // It may still be there, and be no longer what was asked for.
                    (true, false) => (WatchEventType::Deleted, if after.is_some() { after } else { before }),
                };
                vec![event(r#type, object.as_deref().cloned(), revision)]
            }
            Change::Events(events) if self.kind.name == "Event" => {
                let ours = |object: &&Arc<Object>| {
                    (self.namespace.is_empty() || object.metadata().namespace == self.namespace) && self.wants(object)
                };
                let events = events.iter().filter(ours);
                events.map(|object| event(WatchEventType::Added, Some(object.as_ref().clone()), revision)).collect()
            }
            _ => Vec::new(),
        }
    }
}
