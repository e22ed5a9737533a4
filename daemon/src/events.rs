//! Events: told from anywhere in the server, stored in batches; one commit is in flight, and what is told meanwhile
//! goes into the next. Knows how events are kept; not why they are told.
//!
//! # Guarantees
//! - Telling never waits. What does not fit is dropped, counted, and said in the log.

mod of_nodes;

use std::collections::BTreeMap;
use std::sync::Arc;

use lockstep_apis::commit::{Commit, Entry, Operation};
use lockstep_apis::keys::{self, Key};
use lockstep_apis::v1alpha::{
    ConfigSpec, Event, EventBatch, EventMark, EventSeverity, EventSpec, Metadata, Object, Value,
};
use lockstep_apis::{object, timestamp};
use prost::Message;
use tokio::sync::mpsc;
use uuid::Uuid;

use crate::cache::Cache;
use crate::clock::now_ms;
use crate::store::Store;

pub use of_nodes::{About, Speaker, store_of_node};

/// Where cluster-wide events live.
pub const SYSTEM: &str = "system";

/// Events that wait for the commit in flight.
const QUEUE: usize = 4096;

/// Most events of one batch: a few hundred bytes each stay far below the size of a value.
const MAX_BATCH: usize = 500;

/// Longest message of an event.
const MAX_MESSAGE: usize = 1024;

/// Between attempts while the store does not answer.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);

/// Something that happened, before it has a name and a number.
#[derive(Clone, Debug)]
pub struct Happening {
    /// The namespace of what it is about; [`SYSTEM`] for global kinds.
    pub namespace: String,
    /// `run/started`, …
    pub r#type: &'static str,
    /// How bad it is.
    pub severity: EventSeverity,
    /// `Kind/namespace/name` or `Kind/name`.
    pub regarding: String,
    /// The node's name, if it happened on one.
    pub node: String,
    /// A sentence.
    pub message: String,
    /// For programs.
    pub data: Option<Value>,
}

impl Happening {
    /// Something of the cluster's own.
    pub fn of_cluster(r#type: &'static str, regarding: String, message: String) -> Self {
        Self {
            namespace: SYSTEM.into(),
            r#type,
            severity: EventSeverity::Info,
            regarding,
            node: String::new(),
            message,
            data: None,
        }
    }

    fn spec(self, source: &str, number: u64, now_ms: u64) -> EventSpec {
        EventSpec {
            r#type: self.r#type.to_owned(),
            severity: self.severity.into(),
            regarding: self.regarding,
            node: self.node,
            message: cut(self.message),
            data: self.data,
            at: Some(timestamp::from_ms(now_ms)),
            source: source.to_owned(),
            number,
        }
    }

    /// The write that stores it alone, for a commit of whatever it tells about: both happen, or neither.
    pub fn into_operation(self, source: &str, now_ms: u64) -> Operation {
        let key = keys::events(&self.namespace, now_ms, &batch_id());
        let event = Event { metadata: None, spec: Some(self.spec(source, 0, now_ms)) };
        let value = EventBatch { events: vec![event] }.encode_to_vec();
        Operation::Put { key, value, lease: None }
    }
}

fn cut(mut message: String) -> String {
    message.truncate(message.floor_char_boundary(MAX_MESSAGE));
    message
}

fn batch_id() -> String {
    Uuid::new_v4().simple().to_string()
}

/// Whether the cluster's Config keeps events of a type.
pub fn is_kept(config: &ConfigSpec, r#type: &str) -> bool {
    let named = |patterns: &[String]| {
        patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(prefix) => r#type.starts_with(prefix),
            None => pattern == r#type,
        })
    };
    (config.event_allow_list.is_empty() || named(&config.event_allow_list)) && !named(&config.event_deny_list)
}

/// Takes events from everywhere in the server.
#[derive(Clone)]
pub struct Outbox {
    sender: mpsc::Sender<(Happening, u64)>,
}

/// The other end of an [`Outbox`].
pub struct Telling {
    /// Where events are kept.
    pub store: Arc<dyn Store>,
    /// Has the Config that says which are.
    pub cache: Arc<Cache>,
    /// `server/<uid>`.
    pub source: String,
    told: mpsc::Receiver<(Happening, u64)>,
}

impl Outbox {
    /// An outbox and who empties it.
    pub fn new(store: Arc<dyn Store>, cache: Arc<Cache>, source: String) -> (Self, Telling) {
        let (sender, told) = mpsc::channel(QUEUE);
        (Self { sender }, Telling { store, cache, source, told })
    }

    /// Tells of something. Never waits.
    pub fn tell(&self, happening: Happening) {
        match self.sender.try_send((happening, now_ms())) {
            // Closed: the server is ending.
            Ok(()) | Err(mpsc::error::TrySendError::Closed(_)) => {}
            Err(mpsc::error::TrySendError::Full((happening, _))) => {
                tracing::warn!(r#type = happening.r#type, regarding = happening.regarding, "an event was dropped");
            }
        }
    }
}

impl Telling {
    /// Stores what is told until nobody can tell any more.
    pub async fn store_all(mut self) {
        let mark = keys::event_mark(&mark_of(&self.source));
        let mut number = self.stored_number(&mark).await;
        let mut told = Vec::with_capacity(16);
        while self.told.recv_many(&mut told, MAX_BATCH).await > 0 {
            let config = self.cache.read().config();
            told.retain(|(happening, _)| is_kept(&config, happening.r#type));
            let mut batches: BTreeMap<String, Vec<Event>> = BTreeMap::new();
            let first_at = told.first().map_or(0, |(_, at)| *at);
            for (happening, at_ms) in told.drain(..) {
                number += 1;
                let namespace = happening.namespace.clone();
                let event = Event { metadata: None, spec: Some(happening.spec(&self.source, number, at_ms)) };
                batches.entry(namespace).or_default().push(event);
            }
            if batches.is_empty() {
                continue;
            }
            let commit = batches.into_iter().fold(Commit::new(), |commit, (namespace, events)| {
                commit.put(keys::events(&namespace, first_at, &batch_id()), EventBatch { events }.encode_to_vec())
            });
            let commit = commit.put(mark.clone(), EventMark { number }.encode_to_vec());
            self.commit(&commit).await;
        }
    }

    /// Keys and values are the same each time, so what may have happened may happen again.
    async fn commit(&self, commit: &Commit) {
        while let Err(problem) = self.store.commit(commit).await {
            if !problem.is_transient() {
                return tracing::error!(%problem, "events were not stored");
            }
            tracing::debug!(%problem, "events wait for the store");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn stored_number(&self, mark: &Key) -> u64 {
        loop {
            match self.store.get(mark).await {
                Ok(found) => return found.entry.map_or(0, |entry| number_of(&entry)),
                Err(problem) => {
                    tracing::debug!(%problem, "events wait for the store");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }
}

/// A source as part of a key.
fn mark_of(source: &str) -> String {
    source.replace('/', "-")
}

fn number_of(entry: &Entry) -> u64 {
    EventMark::decode(entry.value.as_slice()).map_or(0, |mark| mark.number)
}

/// The events of a stored batch as objects. Their names say where they are: see [`batch_of`].
pub fn objects_of(entry: &Entry) -> Vec<Arc<Object>> {
    let Some(keys::Parsed::Events { namespace, batch }) = keys::parse(&entry.key) else { return Vec::new() };
    let Ok(stored) = EventBatch::decode(entry.value.as_slice()) else {
        tracing::error!(key = %entry.key, "a batch of events does not decode; ignored");
        return Vec::new();
    };
    let named = |(index, event): (usize, Event)| {
        let at = event.spec.as_ref().and_then(|spec| spec.at);
        let metadata = Metadata {
            api_version: object::API_VERSION.into(),
            kind: "Event".into(),
            name: format!("{batch}-{index}"),
            namespace: namespace.clone(),
            uuid: uid_in_batch(&batch, index),
            resource_version: entry.mod_revision.to_string(),
            generation: 1,
            created_at: at,
            ..event.metadata.clone().unwrap_or_default()
        };
        Arc::new(Object::from(Event { metadata: Some(metadata), ..event }))
    };
    stored.events.into_iter().enumerate().map(named).collect()
}

/// The batch's own random id, counted on.
fn uid_in_batch(batch: &str, index: usize) -> String {
    let id = batch.rsplit('-').next().and_then(|id| Uuid::parse_str(id).ok()).unwrap_or_default();
    Uuid::from_u128(id.as_u128().wrapping_add(index as u128)).to_string()
}

/// The key of the batch in which an event of this name is.
pub fn batch_of(namespace: &str, name: &str) -> Option<Key> {
    let (batch, index) = name.rsplit_once('-')?;
    let (at, id) = batch.split_once('-')?;
    index.parse::<usize>().ok()?;
    Some(keys::events(namespace, at.parse().ok()?, id))
}

/// When the first event of a batch was told, from its key.
pub fn batch_time_ms(key: &Key) -> Option<u64> {
    match keys::parse(key)? {
        keys::Parsed::Events { batch, .. } => batch.split_once('-')?.0.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{Embedded, EmbeddedSettings};

    async fn stored(store: &dyn Store) -> Vec<Arc<Object>> {
        let page = store.snapshot(&keys::events_prefix(None)).await.unwrap();
        page.entries.iter().flat_map(objects_of).collect()
    }

    #[tokio::test]
    async fn what_is_told_is_stored_in_batches_and_numbers_go_on() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap());
        for round in 1..=2_u64 {
            let cache = Cache::load(&*store).await.unwrap();
            let (outbox, telling) = Outbox::new(store.clone(), cache, "server/s".into());
            for _ in 0..10 {
                outbox.tell(Happening::of_cluster("test/told", "Node/x".into(), "told".into()));
            }
            drop(outbox);
            telling.store_all().await;
            assert_eq!(stored(&*store).await.len() as u64, 10 * round);
            let mark = store.get(&keys::event_mark("server-s")).await.unwrap().entry.unwrap();
            assert_eq!(number_of(&mark), 10 * round);
        }
        let batches = store.snapshot(&keys::events_prefix(Some(SYSTEM))).await.unwrap().entries.len();
        assert_eq!(batches, 2);
    }

    #[test]
    fn what_is_kept_is_the_configs_choice() {
        let config = |allow: &[&str], deny: &[&str]| ConfigSpec {
            event_allow_list: allow.iter().map(|s| (*s).to_owned()).collect(),
            event_deny_list: deny.iter().map(|s| (*s).to_owned()).collect(),
            ..ConfigSpec::default()
        };
        assert!(is_kept(&config(&[], &[]), "run/started"));
        assert!(!is_kept(&config(&["node/*"], &[]), "run/started"));
        assert!(!is_kept(&config(&["run/*"], &["run/started"]), "run/started"));
        assert!(is_kept(&config(&["run/*"], &["run/started"]), "run/finished"));
    }
}
