//! Work to agents and reports from them: one stream per agent for its life. Knows which nodes this server holds, and
//! the rules of claims by the core; decides nothing about Runs.
//!
//! # Guarantees
//! - A node is spoken to and believed only about what has its uid, which is its certificate's.
//! - An agent that does not read what it is sent is disconnected; it costs a bounded queue.
//! - What the store's answer leaves open is found out before the agent is answered.

mod claims;
mod facts;
mod greeting;
mod renewing;
mod reports;
mod session;
mod telling;
mod upkeep;

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use lockstep_apis::duration;
use lockstep_apis::keys::AttemptKey;
use lockstep_apis::v1alpha::{CancelRequest, Cluster, Offer, ServerMessage, Settings, server_message};

use crate::cache::{Cache, Change, Position};
use crate::committer::Committer;
use crate::events::Outbox;
use crate::identity::Role;
use crate::identity::listener::Connections;
use crate::logs::LogStore;
use crate::presence::{LeaseWatch, SureLease};
use crate::sealing::KeyRing;
use crate::store::Store;

pub(crate) use claims::{open_result, shared_place};
use session::Session;
pub use session::{Stream, attach};

/// What delivery needs of the server.
pub struct Parts {
    /// The store.
    pub store: Arc<dyn Store>,
    /// What is known of it.
    pub cache: Arc<Cache>,
    /// For claims, reports and sessions.
    pub committer: Committer,
    /// Seals and opens secret results.
    pub sealing: Arc<KeyRing>,
    /// For what happens to nodes.
    pub outbox: Outbox,
    /// For output.
    pub logs: LogStore,
    /// Of this server: sessions are put under it.
    pub lease: LeaseWatch,
    /// Whether that lease certainly is in the store.
    pub sure: SureLease,
    /// To cut those of deleted nodes.
    pub connections: Connections,
    /// This server's uid.
    pub server_uid: String,
    /// What the store is.
    pub cluster: Cluster,
}

/// The agents of this server.
pub struct Delivery {
    parts: Parts,
    sessions: Mutex<HashMap<String, Arc<Session>>>,
}

impl Delivery {
    /// Delivery without agents yet.
    pub fn new(parts: Parts) -> Arc<Self> {
        Arc::new(Self { parts, sessions: Mutex::default() })
    }

    /// How many agents are attached.
    pub fn count(&self) -> usize {
        self.sessions().len()
    }

    /// Where servers can be reached, for agents.
    pub fn addresses(&self) -> Vec<String> {
        self.parts.cache.read().server_addresses().collect()
    }

    /// Passes on what changes for attached nodes, for ever.
    pub async fn dispatch(self: Arc<Self>) {
        let mut changed = self.parts.cache.revision();
        let mut read = self.parts.cache.end();
        loop {
            match self.dispatch_since(read) {
                Some(end) => read = end,
                None => {
                    // Too far behind to know what changed: look at everyone.
                    read = self.parts.cache.end();
                    self.push_all();
                }
            }
            if changed.changed().await.is_err() {
                return;
            }
        }
    }

    fn dispatch_since(&self, read: Position) -> Option<Position> {
        let batches = self.parts.cache.since(read).ok()?;
        let (mut nodes, mut everyone) = (BTreeSet::new(), false);
        for change in batches.iter().flat_map(|batch| &batch.changes) {
            match change {
                Change::Attempt { kind: AttemptKey::Assignment | AttemptKey::Verdict, attempt } => {
                    nodes.insert(attempt.node.as_str());
                }
                Change::Gate { .. } => everyone = true,
                Change::Object { after: Some(after), .. } if after.kind_of().name == "Config" => self.tell_settings(),
                Change::Object { before: Some(before), after: None, .. } if before.kind_of().name == "Node" => {
                    self.dismiss(&before.metadata().uuid);
                }
                _ => {}
            }
        }
        if everyone {
            self.push_all();
        } else {
            for node in nodes {
                let session = self.sessions().get(node).cloned();
                if let Some(session) = session {
                    self.push(&session);
                }
            }
        }
        Some(batches.last().map_or(read, |last| last.position))
    }

    /// Says to everyone what the Config says now.
    fn tell_settings(&self) {
        let config = self.parts.cache.read().config();
        let settings = Settings {
            heartbeat: Some(duration::to_proto(config.heartbeat_ms())),
            servers: self.addresses(),
            facts_interval: Some(duration::to_proto(config.facts_interval_ms())),
        };
        for session in self.sessions().values() {
            session.send(server_message::Message::Settings(settings.clone()));
        }
    }

    fn push_all(&self) {
        let sessions: Vec<Arc<Session>> = self.sessions().values().cloned().collect();
        sessions.iter().for_each(|session| self.push(session));
    }

    /// Sends a node what it has not been sent of what it may take, and what it is to stop.
    fn push(&self, session: &Session) {
        let (offers, cancels) = {
            let cache = self.parts.cache.read();
            let world = cache.world();
            let offers: Vec<_> = world.offers(&session.node).cloned().collect();
            let cancels: Vec<_> =
                world.cancels(&session.node).map(|(attempt, grace)| (attempt.clone(), grace)).collect();
            (offers, cancels)
        };
        for attempt in session.news(&offers, &cancels) {
            let message = match cancels.iter().find(|(cancelled, _)| *cancelled == attempt) {
                Some((_, grace_ms)) => server_message::Message::Cancel(CancelRequest {
                    attempt: Some((&attempt).into()),
                    grace_ms: *grace_ms,
                }),
                None => server_message::Message::Offer(Offer { attempt: Some((&attempt).into()) }),
            };
            session.send(message);
        }
    }

    /// A node was deleted: nothing of it is served any more.
    fn dismiss(&self, uid: &str) {
        let gone = self.sessions().remove(uid);
        if let Some(session) = gone {
            session.close("this node was deleted");
        }
        self.parts.connections.cut(|identity| identity.role == Role::Node && identity.uid == uid);
    }

    /// Ends all sessions: the server goes, its agents go to another.
    pub fn close_all(&self) {
        self.sessions().drain().for_each(|(_, session)| session.close("the server is ending"));
    }

    fn sessions(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Session>>> {
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn envelope(message: server_message::Message) -> ServerMessage {
    ServerMessage { message: Some(message) }
}
