//! Whether nodes are heard: `status.liveness`, for people, events and admission. The label never decides whether a
//! window may go on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_apis::commit::{Commit, Compare, Term};
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::{EventSeverity, Node, Object};

use super::Leader;
use crate::cache::State;
use crate::clock::now_ms;
use crate::events::{self, Happening, SYSTEM};

/// How often it is looked.
const EVERY: Duration = Duration::from_secs(1);

/// A node whose server is there and says nothing of it has gone by itself: it may be its daemon's restart.
const GRACE_MS: u64 = 3_000;

/// A node whose server is gone has this long to find another one.
const ORPHAN_GRACE_MS: u64 = 30_000;

/// Most nodes of one commit, each with an event.
const MAX_NODES: usize = 40;

/// Nodes without a session, since when, and how long that may be.
#[derive(Default)]
pub struct UpNodes {
    away: Mutex<HashMap<String, (u64, u64)>>,
}

impl UpNodes {
    /// A Term begins: what was seen in an earlier one is old.
    pub(super) fn begin(&self) {
        self.away.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether a node counts as connected: it is, or it was a moment ago.
    pub fn is_up(&self, cache: &State, node: &Node) -> bool {
        let Some(metadata) = &node.metadata else { return false };
        if cache.world().session(&metadata.uuid).is_some() {
            return true;
        }
        let ready = node.status.as_ref().is_some_and(|status| status.liveness == "Ready");
        let away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        ready && away.get(&metadata.uuid).is_none_or(|(since, grace)| now_ms() < since + grace)
    }

    /// Notes who is there; returns the nodes that have been away for too long.
    fn look(&self, cache: &State, now_ms: u64) -> Vec<Node> {
        let mut away = self.away.lock().unwrap_or_else(PoisonError::into_inner);
        let mut lost = Vec::new();
        for node in cache.nodes() {
            let uid = node.metadata.as_ref().map_or("", |metadata| &metadata.uuid);
            let ready = node.status.as_ref().is_some_and(|status| status.liveness == "Ready");
            if !ready || cache.world().session(uid).is_some() {
                away.remove(uid);
                continue;
            }
            // A server that was started lately does not know where a node was: it may have been where another died.
            let there = cache.last_server(uid).is_some_and(|server| cache.servers().contains_key(server));
            let grace = if there { GRACE_MS } else { ORPHAN_GRACE_MS };
            // It reboots, as a Run wants it.
            let grace = grace.max(cache.world().reboot_ms(uid));
            let (began, grace) = *away.entry(uid.to_owned()).or_insert((now_ms, grace));
            if now_ms >= began + grace {
                lost.push(node.clone());
            }
        }
        lost
    }
}

impl Leader {
    /// Labels nodes that are no longer heard, for ever.
    pub(super) async fn watch_nodes(self: Arc<Self>, term: Term) {
        loop {
            let lost = {
                let cache = self.cache.read();
                self.up.look(&cache, now_ms())
            };
            for nodes in lost.chunks(MAX_NODES) {
                let outcome = self.commit(self.unreachable(term, nodes)).await;
                self.cache.reached(outcome.revision).await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    fn unreachable(&self, term: Term, nodes: &[Node]) -> Commit {
        let config = self.cache.read().config();
        let mut commit = Commit::new().when(term.compare());
        for node in nodes {
            let mut node = node.clone();
            let status = node.status.get_or_insert_default();
            status.liveness = "Unreachable".into();
            status.liveness_since = Some(timestamp::from_ms(now_ms()));
            let object = Object::from(node);
            let name = object.metadata().name.clone();
            let Ok(revision) = object.metadata().resource_version.parse() else { continue };
            commit = commit.when(Compare::ModRevision(object.key(), revision)).put(object.key(), object.to_stored());
            let happening = Happening {
                namespace: SYSTEM.into(),
                r#type: "node/unreachable",
                severity: EventSeverity::Warning,
                regarding: format!("Node/{name}"),
                message: format!("no server hears node {name}"),
                node: name,
                data: None,
            };
            if events::is_kept(&config, happening.r#type) {
                commit.operations.push(happening.into_operation(&self.source, now_ms()));
            }
        }
        commit
    }
}
