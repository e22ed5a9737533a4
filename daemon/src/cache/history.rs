//! The last changes, for everyone who follows: watches of objects, delivery. Bounded in number and bytes.

use std::collections::VecDeque;
use std::sync::Arc;

use lockstep_apis::commit::Revision;
use lockstep_apis::keys::{Attempt, AttemptKey, Key};
use lockstep_apis::v1alpha::Object;

/// Most batches that are kept, and most bytes of stored values in them.
const MAX_BATCHES: usize = 20_000;
const MAX_BYTES: usize = 64 * 1024 * 1024;

/// A place in the history, between two batches. Of this process only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Position(u64);

/// All changes of one revision; or what a repair found, at the revision of before.
#[derive(Debug)]
pub struct Batch {
    /// The place behind it.
    pub position: Position,
    /// The revision.
    pub revision: Revision,
    /// In the order of the commit.
    pub changes: Vec<Change>,
    bytes: usize,
}

/// One change, as those who follow need it.
#[derive(Clone, Debug)]
pub enum Change {
    /// An object was made, changed (both given) or deleted.
    Object {
        /// Its key.
        key: Key,
        /// As it was.
        before: Option<Arc<Object>>,
        /// As it is.
        after: Option<Arc<Object>>,
    },
    /// A record of an attempt was written.
    Attempt {
        /// Which record.
        kind: AttemptKey,
        /// Of which attempt.
        attempt: Attempt,
    },
    /// A Run's gate was written or deleted.
    Gate {
        /// Uid of the Run.
        run: String,
    },
    /// Events were stored.
    Events(Vec<Arc<Object>>),
    /// Something else: only that the key is no more matters, if it was deleted.
    Other {
        /// The key.
        key: Key,
        /// Whether it was deleted.
        deleted: bool,
    },
}

impl Change {
    /// The key, if it says that the key was deleted.
    pub(super) fn deleted(&self) -> Option<&Key> {
        match self {
            Change::Object { key, after: None, .. } | Change::Other { key, deleted: true } => Some(key),
            _ => None,
        }
    }
}

/// The changes that were asked for are no longer known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("changes from before revision {floor} are no longer known")]
pub struct Expired {
    /// From where on they are.
    pub floor: Revision,
}

/// The ring.
#[derive(Debug, Default)]
pub(super) struct History {
    batches: VecDeque<Arc<Batch>>,
    bytes: usize,
    /// Every change after this is known.
    floor: (Revision, Position),
    end: Position,
}

impl History {
    pub(super) fn starting_at(floor: Revision) -> Self {
        Self { floor: (floor, Position(0)), ..Self::default() }
    }

    pub(super) fn push(&mut self, revision: Revision, changes: Vec<Change>, bytes: usize) {
        self.end.0 += 1;
        self.bytes += bytes;
        self.batches.push_back(Arc::new(Batch { position: self.end, revision, changes, bytes }));
        while self.batches.len() > MAX_BATCHES || self.bytes > MAX_BYTES {
            let Some(oldest) = self.batches.pop_front() else { return };
            self.bytes -= oldest.bytes;
            self.floor = (oldest.revision, oldest.position);
        }
    }

    /// Where it ends now.
    pub(super) fn end(&self) -> Position {
        self.end
    }

    /// The place behind everything of a revision.
    pub(super) fn position(&self, revision: Revision) -> Result<Position, Expired> {
        if revision < self.floor.0 {
            return Err(Expired { floor: self.floor.0 });
        }
        let at = self.batches.partition_point(|batch| batch.revision <= revision);
        Ok(at.checked_sub(1).and_then(|last| self.batches.get(last)).map_or(self.floor.1, |batch| batch.position))
    }

    pub(super) fn since(&self, position: Position) -> Result<Vec<Arc<Batch>>, Expired> {
        if position < self.floor.1 {
            return Err(Expired { floor: self.floor.0 });
        }
        let at = self.batches.partition_point(|batch| batch.position <= position);
        Ok(self.batches.range(at..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn revisions(history: &History, since: Revision) -> Vec<Revision> {
        let position = history.position(since).unwrap();
        history.since(position).unwrap().iter().map(|batch| batch.revision).collect()
    }

    #[test]
    fn every_change_after_a_revision_comes_once_or_the_reader_is_told() {
        let mut history = History::starting_at(10);
        for revision in [11, 13, 20] {
            history.push(revision, Vec::new(), 1);
        }
        assert_eq!(revisions(&history, 10), [11, 13, 20]);
        assert_eq!(revisions(&history, 12), [13, 20]);
        assert_eq!(revisions(&history, 20), [0; 0]);
        assert_eq!(history.position(9), Err(Expired { floor: 10 }));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut history = History::starting_at(0);
        let first = history.end();
        for revision in 1..=5 {
            history.push(revision, Vec::new(), MAX_BYTES / 2);
        }
        assert_eq!(history.position(2), Err(Expired { floor: 3 }));
        assert!(history.since(first).is_err());
        assert_eq!(revisions(&history, 3), [4, 5]);
    }

    #[test]
    fn a_repair_at_an_old_revision_reaches_who_has_read_that_far() {
        let mut history = History::starting_at(0);
        history.push(1, Vec::new(), 1);
        let read = history.end();
        history.push(1, Vec::new(), 1);
        assert_eq!(history.since(read).unwrap().len(), 1);
    }
}
