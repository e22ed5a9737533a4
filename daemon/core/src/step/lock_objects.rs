//! The locks' objects: what admins hold runs out, failed Runs leave poison, and who holds and waits is copied for
//! readers.

use std::collections::BTreeMap;

use lockstep_apis::{
    commit::Commit,
    keys::{self, Key},
    object, timestamp,
    v1alpha::{Lock, LockHold, LockPoison, LockStatus, LockUse, Metadata},
};

use super::{Deciding, locks::Thing};
use crate::{outcome, protocol};

/// Namespace and name of a lock; who holds it, and who waits.
type Used = (String, String, (Vec<LockUse>, Vec<LockUse>));

impl Deciding<'_> {
    /// Lets go of what admins hold no longer.
    pub(super) fn let_go_of_holds(&mut self) {
        for (key, stored) in self.world.locks() {
            let (mut lock, status) = (stored.value.clone(), stored.value.status.clone().unwrap_or_default());
            let until_ms = |hold: &LockHold| hold.until.as_ref().map_or(0, timestamp::to_ms);
            let (held, over): (Vec<_>, Vec<_>) =
                status.holds.iter().cloned().partition(|hold| until_ms(hold) > self.now_ms);
            for hold in &held {
                self.wake_at(until_ms(hold));
            }
            if over.is_empty() {
                continue;
            }
            lock.status = Some(LockStatus { holds: held, ..status });
            let metadata = lock.metadata.clone().unwrap_or_default();
            let written = protocol::written(Some(stored), &metadata.namespace, &metadata.name, lock);
            self.push_lock_write(key, written, true);
        }
    }

    /// What the Run's end does to its locks. `None`: one of them is being written otherwise.
    pub(super) fn poisoned_by(&mut self, at: usize) -> Option<Commit> {
        let active = &self.active[at];
        let snapshot = &active.plan.snapshot;
        let poisoning = snapshot.locks.iter().filter(|lock| lock.poison && active.holds_locks());
        let poisoning: Vec<&str> = poisoning.map(|lock| lock.name.as_str()).collect();
        let mut commit = Commit::new();
        let Some(why) = outcome::failure(active.run).filter(|_| !poisoning.is_empty()) else { return Some(commit) };
        let keys: Vec<Key> = poisoning.iter().map(|name| keys::object("locks", &snapshot.namespace, name)).collect();
        if keys.iter().any(|key| self.touched.contains(key)) {
            return None;
        }
        for name in poisoning {
            let stored = self.world.lock(&snapshot.namespace, name);
            let mut lock =
                stored.map_or_else(|| self.new_lock(&snapshot.namespace, name), |stored| stored.value.clone());
            let status = lock.status.get_or_insert_default();
            // The first one is where mending begins.
            status.poison.get_or_insert_with(|| LockPoison {
                run: snapshot.run_name.clone(),
                at: Some(timestamp::from_ms(self.now_ms)),
                message: why.clone(),
            });
            let written = protocol::written(stored, &snapshot.namespace, name, lock);
            commit.compares.extend(written.compares);
            commit.operations.extend(written.operations);
        }
        self.touched.extend(keys);
        Some(commit)
    }

    /// Copies who holds and waits into the locks' objects; makes those that are in use, and deletes those that are not.
    pub(super) fn write_locks(&mut self) {
        let mut used: BTreeMap<Key, Used> = BTreeMap::new();
        for stored in self.world.locks().values() {
            let metadata = stored.value.metadata.clone().unwrap_or_default();
            let key = keys::object("locks", &metadata.namespace, &metadata.name);
            used.insert(key, (metadata.namespace, metadata.name, Default::default()));
        }
        for ((namespace, thing), queue) in &self.standing {
            if let Thing::Lock(name) = thing {
                let key = keys::object("locks", namespace, name);
                used.insert(key, ((*namespace).to_owned(), (*name).to_owned(), queue.uses()));
            }
        }
        for (key, (namespace, name, uses)) in used {
            self.write_lock(&key, &namespace, &name, uses);
        }
    }

    fn write_lock(&mut self, key: &Key, namespace: &str, name: &str, (holders, waiters): (Vec<LockUse>, Vec<LockUse>)) {
        let stored = self.world.lock(namespace, name);
        let before = stored.and_then(|stored| stored.value.status.clone()).unwrap_or_default();
        let after = LockStatus { holders, waiters, ..before.clone() };
        let idle = stored.is_none() && after == LockStatus::default();
        if self.touched.contains(key) || idle || (after == before && after != LockStatus::default()) {
            return;
        }
        let lock = stored.map_or_else(|| self.new_lock(namespace, name), |stored| stored.value.clone());
        let written = protocol::written(stored, namespace, name, Lock { status: Some(after), ..lock });
        self.push_lock_write(key, written, false);
    }

    fn push_lock_write(&mut self, key: &Key, mut written: Commit, decides: bool) {
        written.compares.insert(0, self.term.compare());
        self.touched.insert(key.clone());
        if decides { self.step.commits.push(written) } else { self.step.status.push(written) }
    }

    /// A lock that comes into being. Its uuid is a version 7 like all others, but nobody is random here: it follows from
    /// name, Term and time.
    fn new_lock(&self, namespace: &str, name: &str) -> Lock {
        let seed = format!("{namespace}/{name}/{}/{}", self.term.revision, self.now_ms);
        let hash = super::admission::content_hash(seed.as_bytes());
        let time = format!("{:012x}", self.now_ms & 0xffff_ffff_ffff);
        let uuid = format!("{}-{}-7{}-8{}-{}", &time[..8], &time[8..], &hash[..3], &hash[3..6], &hash[6..18]);
        let metadata = Metadata {
            api_version: object::API_VERSION.into(),
            kind: "Lock".into(),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            uuid,
            generation: 1,
            created_at: Some(timestamp::from_ms(self.now_ms)),
            ..Metadata::default()
        };
        Lock { metadata: Some(metadata), status: Some(LockStatus::default()) }
    }
}
