//! What admins do with locks, each as one commit on the lock's object. Knows locks; a Run's grant compares the same
//! object, so that what an admin has committed no later grant overlooks.

use lockstep_apis::{
    commit::{Commit, Compare},
    keys, timestamp,
    v1alpha::{Lock, LockHold, LockMode, LockStatus, LockUse, Metadata},
};
use prost::Message;

use super::Refusal;
use crate::world::{Stored, World};

/// Whether two may not hold one lock at once.
pub(crate) fn excludes(one: LockMode, other: LockMode) -> bool {
    one != LockMode::Read || other != LockMode::Read
}

/// Who holds it and why, for whom it keeps waiting.
pub(crate) fn held_by(name: &str, hold: &LockHold) -> String {
    let until = hold.until.as_ref().map(|until| format!(" until {}", timestamp::format(until))).unwrap_or_default();
    format!("{} holds the lock {name}{until}: {}", hold.owner, hold.reason)
}

/// Holds a lock for an admin; in place of what the same owner held. `new` is its metadata if it must be made. Runs that
/// hold it already go on: read the world at the commit's revision, no later one begins.
pub fn acquire_lock(world: &World, new: Metadata, hold: LockHold) -> Result<Commit, Refusal> {
    let (namespace, name) = (new.namespace.clone(), new.name.clone());
    let mut lock = world
        .lock(&namespace, &name)
        .map_or_else(|| Lock { metadata: Some(new), status: None }, |stored| stored.value.clone());
    let status = lock.status.get_or_insert_default();
    status.holds.retain(|other| other.owner_uid != hold.owner_uid);
    if let Some(other) = status.holds.iter().find(|other| excludes(other.mode(), hold.mode())) {
        return Err(Refusal::LockHeld(held_by(&name, other)));
    }
    status.holds.push(hold);
    Ok(written(world.lock(&namespace, &name), &namespace, &name, lock))
}

/// Lets go of what the owner holds, by uid or by name.
pub fn release_lock(world: &World, namespace: &str, name: &str, owner: &str) -> Result<Commit, Refusal> {
    let stored = world.lock(namespace, name).ok_or_else(|| Refusal::LockNotHeld(owner.to_owned()))?;
    let mut lock = stored.value.clone();
    let status = lock.status.get_or_insert_default();
    let before = status.holds.len();
    status.holds.retain(|hold| hold.owner_uid != owner && hold.owner != owner);
    if status.holds.len() == before {
        return Err(Refusal::LockNotHeld(owner.to_owned()));
    }
    Ok(written(Some(stored), namespace, name, lock))
}

/// Takes the poison away.
pub fn clear_lock(world: &World, namespace: &str, name: &str) -> Result<Commit, Refusal> {
    let stored = world.lock(namespace, name).ok_or(Refusal::NotPoisoned)?;
    let mut lock = stored.value.clone();
    lock.status.get_or_insert_default().poison.take().ok_or(Refusal::NotPoisoned)?;
    Ok(written(Some(stored), namespace, name, lock))
}

/// The Runs that hold a lock, by the world itself.
pub fn lock_holders(world: &World, namespace: &str, name: &str) -> Vec<LockUse> {
    let granted = world.live().filter(|run| run.cursor().is_some_and(|cursor| cursor.granted));
    let snapshots = granted.filter_map(|run| run.plan()).map(|plan| &plan.snapshot);
    let there = snapshots.filter(|snapshot| snapshot.namespace == namespace);
    let holders = there.flat_map(|snapshot| {
        let own = snapshot.locks.iter().filter(|lock| lock.name == name);
        own.map(|lock| LockUse { run: snapshot.run_name.clone(), mode: lock.mode_or_default().into() })
    });
    holders.collect()
}

/// The lock's object as it is to be, guarded by what it was; gone if nothing is left of it.
pub(crate) fn written(stored: Option<&Stored<Lock>>, namespace: &str, name: &str, lock: Lock) -> Commit {
    let key = keys::object("locks", namespace, name);
    let commit = Commit::new().when(match stored {
        Some(stored) => Compare::ModRevision(key.clone(), stored.revision),
        None => Compare::Absent(key.clone()),
    });
    match lock.status == Some(LockStatus::default()) {
        true => commit.delete(key),
        false => commit.put(key, lock.encode_to_vec()),
    }
}

#[cfg(test)]
mod tests;
