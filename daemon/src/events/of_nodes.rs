//! Events that nodes tell of themselves: numbered at their source, stored once each, however often they are sent. Knows
//! what a node may say; not how it keeps what it says.
//!
//! # Guarantees
//! - A node speaks of itself, and of Runs of which it has claimed work; what it says about who it is, is not looked at.
//! - What was dropped on the node, or is refused here, is counted in an Event of its own: `node/events-dropped`.

use std::collections::BTreeMap;

use lockstep_apis::commit::{Commit, Compare};
use lockstep_apis::keys;
use lockstep_apis::selector::{label_key, label_value};
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{
    AttemptRef, ConfigSpec, Event, EventBatch, EventMark, EventSeverity, EventSpec, Metadata, NodeEvent, Value,
};
use prost::Message;

use super::{SYSTEM, batch_id, cut, is_kept, mark_of, number_of};
use crate::clock::now_ms;
use crate::store::{Store, StoreError};

/// Most Events of a node that one commit stores; the rest is sent again.
const MAX_BATCH: usize = 100;

/// Longest data of one, and most labels: with its message and type it stays below 8 KiB, a batch below 1 MiB.
const MAX_DATA_BYTES: usize = 4096;
const MAX_LABELS: usize = 16;

/// Longest type, as it is stored.
const MAX_TYPE: usize = 128;

/// Where Events of tasks are in the tree of types: none of them passes for one of the system's.
const RAISED: &str = "raised/";

/// What a node tells of itself without a task.
const OWN: [&str; 2] = ["node/", "beacon/"];

/// The node that speaks, by its certificate.
#[derive(Clone, Copy)]
pub struct Speaker<'a> {
    /// Its uid.
    pub uid: &'a str,
    /// Its name.
    pub name: &'a str,
}

/// A Run that an Event is about.
pub struct About {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub run: String,
}

/// Stores what a node sent, in the order of its numbers. `claimed` says what Run an attempt is of, if the speaker has
/// claimed it. Returns the highest number that is stored; the node may forget up to there.
pub async fn store_of_node(
    store: &dyn Store,
    config: &ConfigSpec,
    speaker: Speaker<'_>,
    events: Vec<NodeEvent>,
    claimed: impl Fn(&AttemptRef) -> Option<About>,
) -> Result<u64, StoreError> {
    let source = format!("node/{}", speaker.uid);
    let mark = keys::event_mark(&mark_of(&source));
    let found = store.get(&mark).await?.entry;
    let stored = found.as_ref().map_or(0, number_of);
    let sent = new_ones(events, stored);
    let Some(last) = sent.last().map(|(number, _)| *number) else { return Ok(stored) };
    // Numbers are consecutive where nothing was lost.
    let mut dropped = (last - stored).saturating_sub(sent.len() as u64);
    let mut batches: BTreeMap<String, Vec<Event>> = BTreeMap::new();
    for (number, event) in sent {
        match shaped(event, speaker, &source, number, &claimed) {
            Ok((namespace, event)) => batches.entry(namespace).or_default().push(event),
            Err(why) => {
                tracing::warn!(node = speaker.name, number, why, "a node's event is refused");
                dropped += 1;
            }
        }
    }
    if dropped > 0 {
        batches.entry(SYSTEM.into()).or_default().push(drop_of(dropped, speaker, &source));
    }
    let guard = match &found {
        Some(entry) => Compare::ModRevision(mark.clone(), entry.mod_revision),
        None => Compare::Absent(mark.clone()),
    };
    let mut commit = Commit::new().when(guard).put(mark, EventMark { number: last }.encode_to_vec());
    for (namespace, mut events) in batches {
        events.retain(|event| event.spec.as_ref().is_some_and(|spec| is_kept(config, &spec.r#type)));
        if !events.is_empty() {
            let batch = EventBatch { events }.encode_to_vec();
            commit = commit.put(keys::events(&namespace, now_ms(), &batch_id()), batch);
        }
    }
    store.commit(&commit).await?;
    Ok(last)
}

/// Those that are not stored yet, by their numbers, within the limit.
fn new_ones(events: Vec<NodeEvent>, stored: u64) -> Vec<(u64, NodeEvent)> {
    let number = |event: &NodeEvent| event.spec.as_ref().map_or(0, |spec| spec.number);
    let mut sent: BTreeMap<u64, NodeEvent> = BTreeMap::new();
    for event in events {
        sent.entry(number(&event)).or_insert(event);
    }
    sent.into_iter().filter(|(number, _)| *number > stored).take(MAX_BATCH).collect()
}

/// The Event as it is stored, and where. The error says why it is not.
fn shaped(
    event: NodeEvent,
    speaker: Speaker<'_>,
    source: &str,
    number: u64,
    claimed: impl Fn(&AttemptRef) -> Option<About>,
) -> Result<(String, Event), &'static str> {
    let NodeEvent { spec, labels, attempt } = event;
    let spec = spec.ok_or("it says nothing")?;
    if spec.data.as_ref().is_some_and(|data| data.size() > MAX_DATA_BYTES) || labels.len() > MAX_LABELS {
        return Err("it is too large");
    }
    if labels.iter().any(|(key, value)| label_key(key).is_err() || label_value(value).is_err()) {
        return Err("its labels are none");
    }
    let (namespace, regarding, r#type) = match &attempt {
        None if OWN.iter().any(|own| spec.r#type.starts_with(own)) => {
            (SYSTEM.to_owned(), format!("Node/{}", speaker.name), spec.r#type)
        }
        None => return Err("its type is not a node's own"),
        Some(attempt) => {
            let About { namespace, run } = claimed(attempt).ok_or("its Run is gone, or not this node's")?;
            let regarding = format!("Run/{namespace}/{run}");
            (namespace, regarding, format!("{RAISED}{}", spec.r#type))
        }
    };
    if !is_type(&r#type) {
        return Err("its type is none");
    }
    let spec = EventSpec {
        r#type,
        regarding,
        node: speaker.name.to_owned(),
        message: cut(spec.message),
        at: spec.at.or_else(|| Some(timestamp::from_ms(now_ms()))),
        source: source.to_owned(),
        number,
        ..spec
    };
    let metadata = (!labels.is_empty()).then(|| Metadata { labels, ..Metadata::default() });
    Ok((namespace, Event { metadata, spec: Some(spec) }))
}

/// Words of small letters, digits and `-`, with `/` between them.
fn is_type(text: &str) -> bool {
    let letter = |byte: &u8| byte.is_ascii_lowercase();
    let word = |word: &str| {
        word.as_bytes().first().is_some_and(letter)
            && word.bytes().all(|byte| letter(&byte) || byte.is_ascii_digit() || byte == b'-')
    };
    text.len() <= MAX_TYPE && text.split('/').all(word)
}

fn drop_of(count: u64, speaker: Speaker<'_>, source: &str) -> Event {
    let spec = EventSpec {
        r#type: "node/events-dropped".into(),
        severity: EventSeverity::Warning.into(),
        regarding: format!("Node/{}", speaker.name),
        node: speaker.name.to_owned(),
        message: format!("{count} Events of node {} are lost: its outbox was full, or they were refused", speaker.name),
        data: Some(Value::map([("count", Value::from(i64::try_from(count).unwrap_or(i64::MAX)))])),
        at: Some(timestamp::from_ms(now_ms())),
        source: source.to_owned(),
        number: 0,
    };
    Event { metadata: None, spec: Some(spec) }
}

#[cfg(test)]
mod tests;
