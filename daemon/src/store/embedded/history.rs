//! What watchers of the embedded store read: the changes of the last revisions, in memory. Knows no file.

use std::collections::VecDeque;
use std::sync::Arc;

use lockstep_apis::commit::Revision;

use crate::store::Change;

/// All changes of one revision.
pub(super) type Changes = Arc<[Change]>;

/// The changes of the last revisions, without a gap.
pub(super) struct History {
    /// Oldest revision that a watch may begin at.
    floor: Revision,
    /// Revision of the newest change, or of the empty store.
    newest: Revision,
    revisions: VecDeque<Changes>,
    bytes: usize,
}

impl History {
    /// `changes`: oldest first, up to `newest`, each revision with at least one.
    pub(super) fn new(compacted: Revision, newest: Revision, changes: Vec<Change>) -> Self {
        let mut history = Self { floor: compacted, newest, revisions: VecDeque::new(), bytes: 0 };
        let mut revision: Vec<Change> = Vec::new();
        for change in changes {
            if revision.last().is_some_and(|last| last.revision() != change.revision()) {
                history.push(std::mem::take(&mut revision));
            }
            revision.push(change);
        }
        if !revision.is_empty() {
            history.push(revision);
        }
        history.newest = newest;
        history
    }

    fn push(&mut self, changes: Vec<Change>) {
        self.bytes += bytes(&changes);
        self.revisions.push_back(changes.into());
    }

    /// Adds the next revision.
    pub(super) fn append(&mut self, changes: Vec<Change>) {
        self.newest += 1;
        self.push(changes);
    }

    /// Forgets what is before `revision`.
    pub(super) fn compact(&mut self, revision: Revision) {
        self.floor = self.floor.max(revision);
        while self.first() < self.floor {
            let Some(changes) = self.revisions.pop_front() else { break };
            self.bytes -= bytes(&changes);
        }
    }

    /// The revision to compact to so that at most `most` bytes remain; the newest revision always does.
    pub(super) fn excess(&self, most: usize) -> Option<Revision> {
        if self.bytes <= most {
            return None;
        }
        let (mut left, mut revision) = (self.bytes, self.first());
        // A quarter more, so that not every commit compacts.
        while left > most / 4 * 3 && revision < self.newest {
            left -= bytes(&self.revisions[(revision - self.first()) as usize]);
            revision += 1;
        }
        Some(revision)
    }

    /// At most `most` revisions from `from` on. Error: the oldest revision that there is.
    pub(super) fn read(&self, from: Revision, most: usize) -> Result<Vec<Changes>, Revision> {
        if from < self.floor {
            return Err(self.floor);
        }
        let skip = usize::try_from(from.saturating_sub(self.first())).unwrap_or(usize::MAX);
        Ok(self.revisions.iter().skip(skip).take(most).cloned().collect())
    }

    fn first(&self) -> Revision {
        self.newest + 1 - self.revisions.len() as Revision
    }
}

fn bytes(changes: &[Change]) -> usize {
    /// Of a change without its text: two revisions, and the allocations' own.
    const OVERHEAD: usize = 96;
    let one = |change: &Change| match change {
        Change::Put(entry) => OVERHEAD + entry.key.as_bytes().len() + entry.value.len(),
        Change::Delete(key, _) => OVERHEAD + key.as_bytes().len(),
    };
    changes.iter().map(one).sum()
}
