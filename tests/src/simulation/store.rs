//! A linearizable store in memory with its whole history, as the contract of `lockstep_apis::commit` says. When a lease
//! ends is the cluster's to say; the leader's key is under one of its own.

use std::collections::BTreeMap;

use lockstep_apis::{
    commit::{Commit, Compare, Entry, LeaseId, Operation, Revision},
    keys::{self, Key},
};

/// One commit that happened.
#[derive(Clone, Debug)]
pub(crate) struct Committed {
    pub(crate) revision: Revision,
    pub(crate) at_ms: u64,
    /// The Term its author believed to have, if it acted as leader.
    pub(crate) term: Option<Revision>,
    pub(crate) changes: Vec<Change>,
}

/// One key's change.
#[derive(Clone, Debug)]
pub(crate) enum Change {
    Put(Entry),
    Delete(Key),
}

#[derive(Default)]
pub(crate) struct Store {
    entries: BTreeMap<Key, Entry>,
    /// Keys that go with a lease.
    leased: BTreeMap<Key, LeaseId>,
    pub(crate) revision: Revision,
    pub(crate) history: Vec<Committed>,
}

impl Store {
    pub(crate) fn get(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key)
    }

    /// Whether no Run is kept for anything; with a node away for good, whether nothing happens any more.
    pub(crate) fn is_quiet_or_done(&self, away: bool, now_ms: u64) -> bool {
        /// Longer than anything is late by.
        const QUIET_MS: u64 = 8000;
        let cursors = keys::cursors();
        let kept =
            self.entries.range(&cursors..).next().is_some_and(|(key, _)| key.as_str().starts_with(cursors.as_str()));
        !kept || (away && self.history.last().is_none_or(|last| last.at_ms + QUIET_MS < now_ms))
    }

    /// Every entry, as a list at the present revision gives them.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    /// Carries it out, or does nothing and says so.
    pub(crate) fn commit(&mut self, commit: &Commit, term: Option<Revision>, at_ms: u64) -> Option<Revision> {
        assert!(commit.operations.len() <= 100 && commit.compares.len() <= 128, "too large a commit: {commit:?}");
        if !commit.compares.iter().all(|compare| self.holds(compare)) {
            return None;
        }
        self.revision += 1;
        let mut changes = Vec::new();
        for operation in &commit.operations {
            match operation {
                Operation::Put { key, value, lease } => {
                    changes.push(self.put(key, value));
                    match lease {
                        Some(lease) => drop(self.leased.insert(key.clone(), *lease)),
                        None => drop(self.leased.remove(key)),
                    }
                }
                Operation::Delete(key) => changes.extend(self.delete(key)),
                Operation::DeletePrefix(prefix) => {
                    let under = |key: &&Key| key.as_str().starts_with(prefix.as_str());
                    let keys: Vec<Key> = self.entries.keys().filter(under).cloned().collect();
                    changes.extend(keys.iter().filter_map(|key| self.delete(key)));
                }
            }
        }
        self.history.push(Committed { revision: self.revision, at_ms, term, changes });
        Some(self.revision)
    }

    /// The leader's lease ran out.
    pub(crate) fn expire_leader(&mut self, at_ms: u64) {
        self.commit(&Commit::new().delete(keys::leader()), None, at_ms);
    }

    /// A lease ran out. Whether anything was under it.
    pub(crate) fn expire(&mut self, lease: LeaseId, at_ms: u64) -> bool {
        let keys: Vec<Key> =
            self.leased.iter().filter(|(_, under)| **under == lease).map(|(key, _)| key.clone()).collect();
        let commit = keys.iter().fold(Commit::new(), |commit, key| commit.delete(key.clone()));
        !keys.is_empty() && self.commit(&commit, None, at_ms).is_some()
    }

    fn put(&mut self, key: &Key, value: &[u8]) -> Change {
        let create_revision = self.entries.get(key).map_or(self.revision, |entry| entry.create_revision);
        let entry = Entry { key: key.clone(), value: value.to_vec(), create_revision, mod_revision: self.revision };
        self.entries.insert(key.clone(), entry.clone());
        Change::Put(entry)
    }

    fn delete(&mut self, key: &Key) -> Option<Change> {
        self.leased.remove(key);
        self.entries.remove(key).map(|_| Change::Delete(key.clone()))
    }

    fn holds(&self, compare: &Compare) -> bool {
        match compare {
            Compare::Absent(key) => !self.entries.contains_key(key),
            Compare::Present(key) => self.entries.contains_key(key),
            Compare::ModRevision(key, at) => self.entries.get(key).is_some_and(|entry| entry.mod_revision == *at),
            Compare::CreateRevision(key, at) => self.entries.get(key).is_some_and(|entry| entry.create_revision == *at),
            Compare::Value(key, value) => self.entries.get(key).is_some_and(|entry| entry.value == *value),
        }
    }
}
