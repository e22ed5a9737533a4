//! The cache's content at one revision: the core's world, all objects decoded, and which keys there are.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use lockstep_apis::commit::{Entry, Revision};
use lockstep_apis::keys::{self, Key, Parsed};
use lockstep_apis::v1alpha::{Cluster, ConfigSpec, Node, Object, ServerRecord, Session, object};
use lockstep_core::world::World;
use prost::Message;

use super::history::{Change, History};
use crate::events;
use crate::store;

/// What is known of the store.
#[derive(Default)]
pub struct State {
    pub(super) world: World,
    pub(super) history: History,
    /// Every cached key, with the revision that last wrote it.
    pub(super) keys: BTreeMap<Key, Revision>,
    objects: BTreeMap<Key, Arc<Object>>,
    /// Nodes' keys by their uids.
    nodes: HashMap<String, Key>,
    servers: BTreeMap<String, ServerRecord>,
    /// By node: the server that it was attached to last.
    last_servers: HashMap<String, String>,
    cluster: Option<Cluster>,
}

/// Whether a key is kept in memory. Events are too many, and nothing is decided by them; marks and tokens are read
/// where they count.
pub(super) fn is_cached(key: &Key) -> bool {
    !["events/", "eventmarks/", "tokens/"].iter().any(|prefix| key.as_str().starts_with(prefix))
}

impl State {
    /// Runs and what is known of them, sessions, the leader.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// An object by its key.
    pub fn object(&self, key: &Key) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// The objects below a prefix, in order.
    pub fn objects<'a>(&'a self, prefix: &'a Key) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
        let range = (Bound::Included(prefix), Bound::Unbounded);
        self.objects.range::<Key, _>(range).take_while(move |(key, _)| key.as_str().starts_with(prefix.as_str()))
    }

    /// All nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values().filter_map(|key| as_node(self.objects.get(key)?))
    }

    /// A node by its uid: the only name that a certificate proves.
    pub fn node(&self, uid: &str) -> Option<&Node> {
        as_node(self.objects.get(self.nodes.get(uid)?)?)
    }

    /// How many nodes there are.
    pub fn node_count(&self) -> usize {
        self.nodes.len()
    }

    /// The servers that are up, by uid.
    pub fn servers(&self) -> &BTreeMap<String, ServerRecord> {
        &self.servers
    }

    /// Where the servers that are up can be reached, host:port.
    pub fn server_addresses(&self) -> impl Iterator<Item = String> {
        self.servers.values().flat_map(|server| server.addresses.iter().cloned())
    }

    /// The server that a node is or was attached to, as far as this cache has seen it.
    pub fn last_server(&self, node: &str) -> Option<&str> {
        self.last_servers.get(node).map(String::as_str)
    }

    /// What this store is.
    pub fn cluster(&self) -> Option<&Cluster> {
        self.cluster.as_ref()
    }

    /// The settings for all; the defaults if nobody has written any.
    pub fn config(&self) -> ConfigSpec {
        let key = keys::object("configs", "", "cluster");
        match self.objects.get(&key).and_then(|object| object.kind.as_ref()) {
            Some(object::Kind::Config(config)) => config.spec.clone().unwrap_or_default(),
            _ => ConfigSpec::default(),
        }
    }

    /// Takes in all changes of one revision.
    pub(super) fn fold(&mut self, revision: Revision, changes: Vec<store::Change>) {
        let mut bytes = 0;
        let mut seen = Vec::with_capacity(changes.len());
        for change in changes {
            bytes += change.key().as_bytes().len() + 64;
            seen.push(match change {
                store::Change::Put(entry) => {
                    bytes += entry.value.len();
                    self.put(&entry)
                }
                store::Change::Delete(key, _) => self.delete(key),
            });
        }
        self.world.advance(revision);
        self.history.push(revision, seen, bytes);
    }

    /// Becomes what was listed; the difference is one batch.
    pub(super) fn replace(&mut self, entries: Vec<Entry>, revision: Revision) {
        if self.keys.is_empty() {
            // Nobody has followed yet: there is no history to tell.
            entries.iter().for_each(|entry| drop(self.put(entry)));
            self.world.advance(revision);
            self.history = History::starting_at(revision);
            return;
        }
        let mut gone = self.keys.clone();
        let mut changes = Vec::new();
        for entry in entries {
            if gone.remove(&entry.key) != Some(entry.mod_revision) {
                changes.push(store::Change::Put(entry));
            }
        }
        let gone = gone.into_keys().map(|key| store::Change::Delete(key, revision));
        self.fold(revision, gone.chain(changes).collect());
    }

    fn put(&mut self, entry: &Entry) -> Change {
        let parsed = keys::parse(&entry.key);
        if let Some(Parsed::Events { .. }) = parsed {
            return Change::Events(events::objects_of(entry));
        }
        if is_cached(&entry.key) {
            self.keys.insert(entry.key.clone(), entry.mod_revision);
        }
        if let Err(problem) = self.world.put(entry) {
            tracing::error!(%problem, "ignored");
        }
        match parsed {
            Some(Parsed::Object { .. }) => self.put_object(entry),
            Some(Parsed::Attempt { kind, attempt }) => Change::Attempt { kind, attempt },
            Some(Parsed::Gate { run }) => Change::Gate { run },
            Some(Parsed::Server { uid }) => {
                if let Ok(record) = ServerRecord::decode(entry.value.as_slice()) {
                    self.servers.insert(uid, record);
                }
                Change::Other { key: entry.key.clone(), deleted: false }
            }
            Some(Parsed::Session { node }) => {
                if let Ok(session) = Session::decode(entry.value.as_slice()) {
                    self.last_servers.insert(node, session.server_uid);
                }
                Change::Other { key: entry.key.clone(), deleted: false }
            }
            Some(Parsed::Cluster) => {
                self.cluster = Cluster::decode(entry.value.as_slice()).ok().or(self.cluster.take());
                Change::Other { key: entry.key.clone(), deleted: false }
            }
            _ => Change::Other { key: entry.key.clone(), deleted: false },
        }
    }

    fn put_object(&mut self, entry: &Entry) -> Change {
        let key = entry.key.clone();
        match Object::from_entry(entry) {
            Some(Ok(object)) => {
                let after = Arc::new(object);
                let before = self.objects.insert(key.clone(), after.clone());
                if let Some(node) = before.as_ref().and_then(|before| as_node(before)) {
                    self.nodes.remove(uid_of(node));
                }
                if let Some(node) = as_node(&after) {
                    self.nodes.insert(uid_of(node).to_owned(), key.clone());
                }
                Change::Object { key, before, after: Some(after) }
            }
            Some(Err(problem)) => {
                tracing::error!(%problem, %key, "ignored");
                Change::Other { key, deleted: false }
            }
            None => Change::Other { key, deleted: false },
        }
    }

    fn delete(&mut self, key: Key) -> Change {
        self.keys.remove(&key);
        self.world.delete(&key);
        match keys::parse(&key) {
            Some(Parsed::Object { .. }) => {
                let before = self.objects.remove(&key);
                if let Some(node) = before.as_ref().and_then(|before| as_node(before)) {
                    self.nodes.remove(uid_of(node));
                    self.last_servers.remove(uid_of(node));
                }
                Change::Object { key, before, after: None }
            }
            Some(Parsed::Server { uid }) => {
                self.servers.remove(&uid);
                Change::Other { key, deleted: true }
            }
            // A store without its cluster record is not an empty cluster: keep what we know.
            _ => Change::Other { key, deleted: true },
        }
    }
}

fn as_node(object: &Object) -> Option<&Node> {
    match &object.kind {
        Some(object::Kind::Node(node)) => Some(node),
        _ => None,
    }
}

fn uid_of(node: &Node) -> &str {
    node.metadata.as_ref().map_or("", |metadata| &metadata.uuid)
}
