//! What a leader and its servers know of the store: a fold over entries, in any order, with the indices that decisions
//! need. Knows records; decides nothing.
//!
//! Feed every change with [`World::put`] and [`World::delete`] and say with [`World::advance`] up to which revision it is
//! complete. What a watch repeats changes nothing, for older revisions of a record are ignored.

mod plan;
mod run_state;
mod track;

use std::collections::{BTreeMap, BTreeSet};

use lockstep_apis::{
    commit::{Entry, Revision},
    keys::{self, Attempt, Key, Parsed},
    v1alpha::{ConcurrencyRecord, Leader, Lock, Session, StickyPick},
};
use prost::Message;
use thiserror::Error;

use crate::compile::reboots;

pub use plan::{Plan, segments_of};
pub(crate) use run_state::chunk_value;
pub use run_state::{RunState, Stop};
pub(crate) use track::early_verdict;
pub use track::{AttemptState, Ending, MAX_ATTEMPTS, NodeEnd, Stage, Stored, Track};

/// A stored record that does not decode. The world is unchanged; the record is as if it were not there.
#[derive(Debug, Error)]
#[error("the record `{key}` in the store does not decode; was it written by a newer version?")]
pub struct CorruptRecord {
    /// Where.
    pub key: Key,
    /// What prost says.
    pub source: prost::DecodeError,
}

/// A fold over the store.
#[derive(Clone, Debug, Default)]
pub struct World {
    revision: Revision,
    leader: Option<(Leader, Revision)>,
    runs: BTreeMap<String, RunState>,
    /// Key of a Run's object to its uid.
    by_key: BTreeMap<Key, String>,
    sessions: BTreeMap<String, Stored<Session>>,
    /// Who has concurrency keys, or waits for them.
    concurrency: BTreeMap<Key, Stored<ConcurrencyRecord>>,
    /// What admins hold, and what is poisoned.
    locks: BTreeMap<Key, Stored<Lock>>,
    /// By namespace and name.
    picks: BTreeMap<(String, String), Stored<StickyPick>>,
    /// Runs that a step must look at: those with a cursor, and those that wait for admission.
    live: BTreeSet<String>,
    /// By node: attempts that it may have, or may take.
    outstanding: BTreeMap<String, BTreeSet<Attempt>>,
}

impl World {
    /// An empty world.
    pub fn new() -> Self {
        Self::default()
    }

    /// Says that every change up to this revision was put in.
    pub fn advance(&mut self, revision: Revision) {
        self.revision = self.revision.max(revision);
    }

    /// Up to which revision it is complete.
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Who leads, with the create revision of the key: the Term's.
    pub fn leader(&self) -> Option<&(Leader, Revision)> {
        self.leader.as_ref()
    }

    /// A Run by its uid.
    pub fn run(&self, uid: &str) -> Option<&RunState> {
        self.runs.get(uid)
    }

    /// A Run by its namespace and name.
    pub fn run_named(&self, namespace: &str, name: &str) -> Option<&RunState> {
        self.runs.get(self.by_key.get(&keys::object("runs", namespace, name))?)
    }

    /// All Runs.
    pub fn runs(&self) -> impl Iterator<Item = &RunState> {
        self.runs.values()
    }

    /// Runs that have a cursor or wait for admission, in order of uid.
    pub fn live(&self) -> impl Iterator<Item = &RunState> {
        self.live.iter().filter_map(|uid| self.runs.get(uid))
    }

    /// Whether a server holds a stream of the node.
    pub fn session(&self, node: &str) -> Option<&Session> {
        self.sessions.get(node).map(|session| &session.value)
    }

    /// What a sticky pick chose.
    pub fn pick(&self, namespace: &str, name: &str) -> Option<&Stored<StickyPick>> {
        self.picks.get(&(namespace.to_owned(), name.to_owned()))
    }

    /// The sticky picks of a namespace: uids of nodes by name.
    pub fn picks(&self, namespace: &str) -> BTreeMap<String, Vec<String>> {
        let own = self.picks.iter().filter(|((of, _), _)| of == namespace);
        own.map(|((_, name), pick)| (name.clone(), pick.value.nodes.clone())).collect()
    }

    /// The session's record of a node, with its mod revision.
    pub fn stored_session(&self, node: &str) -> Option<&Stored<Session>> {
        self.sessions.get(node)
    }

    /// Attempts that the node may still work on though it was given up: no heartbeat keeps them alive.
    pub fn fenced(&self, node: &str) -> impl Iterator<Item = &Attempt> {
        self.outstanding_of(node).filter(|(_, state, _)| state.is_fenced()).map(|(.., attempt)| attempt)
    }

    /// Nodes with a session.
    pub fn sessions(&self) -> impl Iterator<Item = (&str, &Session)> {
        self.sessions.iter().map(|(node, session)| (node.as_str(), &session.value))
    }

    /// The Runs that have a concurrency key or wait for it, in order of creation; perhaps some that are through.
    pub fn concurrency(&self, key: &Key) -> Option<&Stored<ConcurrencyRecord>> {
        self.concurrency.get(key)
    }

    /// A lock that somebody holds or waits for, or that is poisoned.
    pub fn lock(&self, namespace: &str, name: &str) -> Option<&Stored<Lock>> {
        self.locks.get(&keys::object("locks", namespace, name))
    }

    /// All locks, by the keys of their objects.
    pub(crate) fn locks(&self) -> &BTreeMap<Key, Stored<Lock>> {
        &self.locks
    }

    /// All concurrency keys that Runs have.
    pub(crate) fn concurrency_keys(&self) -> impl Iterator<Item = (&Key, &Stored<ConcurrencyRecord>)> {
        self.concurrency.iter()
    }

    /// Attempts that a node may claim now: assigned, not claimed, gate open.
    pub fn offers(&self, node: &str) -> impl Iterator<Item = &Attempt> {
        self.outstanding_of(node)
            .filter(|(run, state, _)| run.gate_is_open() && state.claim.is_none() && state.verdict.is_none())
            .map(|(.., attempt)| attempt)
    }

    /// Attempts that a node should stop, with the grace in milliseconds: claimed, not reported, and the Run is cancelled
    /// or timed out, or the place was given up.
    pub fn cancels(&self, node: &str) -> impl Iterator<Item = (&Attempt, u64)> {
        self.outstanding_of(node)
            .filter(|(run, state, _)| state.claim.is_some() && (run.is_cancelled() || state.verdict.is_some()))
            .map(|(run, _, attempt)| (attempt, run.plan().map_or(0, |plan| plan.snapshot.grace_ms)))
    }

    /// Attempts that the node claimed and has not reported.
    pub fn claimed(&self, node: &str) -> impl Iterator<Item = &Attempt> {
        self.outstanding_of(node).filter(|(_, state, _)| state.claim.is_some()).map(|(.., attempt)| attempt)
    }

    /// Attempts that are assigned to the node, and have not ended.
    pub fn held(&self, node: &str) -> impl Iterator<Item = &Attempt> {
        self.outstanding_of(node).map(|(.., attempt)| attempt)
    }

    /// For how long the node may be away because a task that it has claimed reboots it; 0: none does.
    pub fn reboot_ms(&self, node: &str) -> u64 {
        let claimed = self.outstanding_of(node).filter(|(_, state, _)| state.claim.is_some());
        let tasks = claimed.filter_map(|(run, _, attempt)| {
            let plan = run.plan().filter(|plan| !plan.snapshot.check)?;
            plan.segment(attempt.segment)?.tasks.iter().find(|task| reboots(&task.action))
        });
        tasks.map(|task| task.timeout_ms).max().unwrap_or(0)
    }

    /// What is known of an attempt.
    pub fn attempt(&self, attempt: &Attempt) -> Option<&AttemptState> {
        self.runs.get(&attempt.run)?.attempt(attempt)
    }

    fn outstanding_of(&self, node: &str) -> impl Iterator<Item = (&RunState, &AttemptState, &Attempt)> {
        self.outstanding.get(node).into_iter().flatten().filter_map(|attempt| {
            let run = self.runs.get(&attempt.run)?;
            Some((run, run.attempt(attempt)?, attempt))
        })
    }

    /// Takes in an entry. Keys that no decision needs are ignored, as are older revisions of what is there.
    pub fn put(&mut self, entry: &Entry) -> Result<(), CorruptRecord> {
        let corrupt = |source| CorruptRecord { key: entry.key.clone(), source };
        let Some(parsed) = keys::parse(&entry.key) else { return Ok(()) };
        match parsed {
            Parsed::Leader => {
                let leader = Leader::decode(entry.value.as_slice()).map_err(corrupt)?;
                if self.leader.as_ref().is_none_or(|(_, created)| *created <= entry.create_revision) {
                    self.leader = Some((leader, entry.create_revision));
                }
            }
            Parsed::Session { node } => {
                let value = Session::decode(entry.value.as_slice()).map_err(corrupt)?;
                if self.sessions.get(&node).is_none_or(|known| known.revision <= entry.mod_revision) {
                    self.sessions.insert(node, Stored { value, revision: entry.mod_revision });
                }
            }
            Parsed::Pick { namespace, name } => {
                let value = StickyPick::decode(entry.value.as_slice()).map_err(corrupt)?;
                let key = (namespace, name);
                if self.picks.get(&key).is_none_or(|known| known.revision <= entry.mod_revision) {
                    self.picks.insert(key, Stored { value, revision: entry.mod_revision });
                }
            }
            Parsed::Object { kind, .. } if kind == "runs" => self.put_run(entry).map_err(corrupt)?,
            Parsed::Object { kind, .. } if kind == "locks" => {
                let value = Lock::decode(entry.value.as_slice()).map_err(corrupt)?;
                if self.locks.get(&entry.key).is_none_or(|known| known.revision <= entry.mod_revision) {
                    self.locks.insert(entry.key.clone(), Stored { value, revision: entry.mod_revision });
                }
            }
            Parsed::Snapshot { run, hash } => {
                self.run_mut(&run).put_chunk(&hash, &entry.value).map_err(corrupt)?;
                self.reindex(&run);
            }
            Parsed::Gate { run } => self.run_mut(&run).put_gate(entry).map_err(corrupt)?,
            Parsed::Cursor { run } => {
                self.run_mut(&run).put_cursor(entry).map_err(corrupt)?;
                self.reindex(&run);
            }
            Parsed::Concurrency { .. } => {
                let value = ConcurrencyRecord::decode(entry.value.as_slice()).map_err(corrupt)?;
                if self.concurrency.get(&entry.key).is_none_or(|known| known.revision <= entry.mod_revision) {
                    self.concurrency.insert(entry.key.clone(), Stored { value, revision: entry.mod_revision });
                }
            }
            Parsed::Attempt { kind, attempt } => {
                self.run_mut(&attempt.run).put_attempt(kind, &attempt, entry).map_err(corrupt)?;
                self.index_attempt(&attempt);
            }
            _ => {}
        }
        Ok(())
    }

    /// Takes a deleted key out.
    pub fn delete(&mut self, key: &Key) {
        let Some(parsed) = keys::parse(key) else { return };
        match parsed {
            Parsed::Leader => self.leader = None,
            Parsed::Session { node } => {
                self.sessions.remove(&node);
            }
            Parsed::Pick { namespace, name } => drop(self.picks.remove(&(namespace, name))),
            Parsed::Object { kind, .. } if kind == "runs" => {
                let Some(uid) = self.by_key.remove(key) else { return };
                self.change(&uid, |run| run.object = None);
            }
            Parsed::Object { kind, .. } if kind == "locks" => drop(self.locks.remove(key)),
            Parsed::Snapshot { run, hash } => self.change(&run, |state| state.delete_chunk(&hash)),
            Parsed::Gate { run } => self.change(&run, |state| state.gate = None),
            Parsed::Cursor { run } => self.change(&run, |state| state.cursor = None),
            Parsed::Concurrency { .. } => drop(self.concurrency.remove(key)),
            Parsed::Attempt { kind, attempt } => {
                self.change(&attempt.run, |run| run.delete_attempt(kind, &attempt));
                self.index_attempt(&attempt);
            }
            _ => {}
        }
    }

    /// The highest admission number and the highest ticket in any cursor.
    pub(crate) fn highest(&self) -> (u64, u64) {
        self.live()
            .filter_map(RunState::cursor)
            .fold((0, 0), |(admission, ticket), cursor| (admission.max(cursor.admission), ticket.max(cursor.ticket)))
    }

    fn put_run(&mut self, entry: &Entry) -> Result<(), prost::DecodeError> {
        let run = lockstep_apis::v1alpha::Run::decode(entry.value.as_slice())?;
        let uid = run.metadata.as_ref().map(|metadata| metadata.uuid.clone()).unwrap_or_default();
        // A name that was deleted and made again is another Run.
        if let Some(before) = self.by_key.insert(entry.key.clone(), uid.clone())
            && before != uid
        {
            self.change(&before, |run| run.object = None);
        }
        self.run_mut(&uid).put_object(run, entry.mod_revision);
        self.mark_live(&uid);
        Ok(())
    }

    fn run_mut(&mut self, uid: &str) -> &mut RunState {
        if !self.runs.contains_key(uid) {
            self.runs.insert(uid.to_owned(), RunState::new(uid));
        }
        self.runs.get_mut(uid).expect("invariant: inserted above")
    }

    fn change(&mut self, uid: &str, change: impl FnOnce(&mut RunState)) {
        let Some(run) = self.runs.get_mut(uid) else { return };
        change(run);
        if run.is_gone() {
            self.runs.remove(uid);
        }
        self.mark_live(uid);
    }

    fn mark_live(&mut self, uid: &str) {
        match self.runs.get(uid).is_some_and(RunState::is_live) {
            true => drop(self.live.insert(uid.to_owned())),
            false => drop(self.live.remove(uid)),
        }
    }

    /// After a change to what a Run is: its attempts may be known only now.
    fn reindex(&mut self, uid: &str) {
        self.mark_live(uid);
        for attempt in self.runs.get_mut(uid).map(RunState::take_revealed).unwrap_or_default() {
            self.index_attempt(&attempt);
        }
    }

    fn index_attempt(&mut self, attempt: &Attempt) {
        let outstanding = self.attempt(attempt).is_some_and(AttemptState::outstanding);
        match self.outstanding.get_mut(&attempt.node) {
            Some(of_node) if outstanding => drop(of_node.insert(attempt.clone())),
            Some(of_node) => {
                of_node.remove(attempt);
                if of_node.is_empty() {
                    self.outstanding.remove(&attempt.node);
                }
            }
            None if outstanding => {
                self.outstanding.insert(attempt.node.clone(), BTreeSet::from([attempt.clone()]));
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests;
