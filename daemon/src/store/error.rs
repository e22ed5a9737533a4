//! How a store says no: classes by what is known of the effect. The texts are for the daemon's log and its callers.

use lockstep_apis::commit::{LeaseId, Revision};

/// Why the store did not do what it was asked. The variants are the classes that a caller must tell apart.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Nothing happened. [`Refusal::is_transient`] says whether the same again may help.
    #[error("the store did not {operation}: {refusal}")]
    Definite {
        /// What was tried: `commit`, `list` …
        operation: &'static str,
        /// Why not.
        refusal: Refusal,
    },
    /// A compare did not hold; nothing happened. Read again and decide again.
    #[error("the store changed meanwhile: a condition of the commit did not hold")]
    Conflict,
    /// It may have happened, or may happen yet. Read back by key; never just repeat it.
    #[error("the store may or may not {operation}: {problem}")]
    Indeterminate {
        /// What was tried.
        operation: &'static str,
        /// What went wrong.
        problem: String,
    },
    /// The history that was asked for is no longer there; nothing happened. List, and watch from there.
    #[error("the store no longer has the history before revision {revision}")]
    Compacted {
        /// The oldest revision that can still be read; 0 if the store did not say.
        revision: Revision,
    },
}

/// Why the store refused, definitely.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The request breaks a rule of the store: a fault of ours.
    #[error("{0}")]
    Invalid(String),
    /// The lease is gone, or never was.
    #[error("lease {:x} does not exist", .0.0)]
    LeaseNotFound(LeaseId),
    /// The revision is not there yet.
    #[error("revision {0} is in the future")]
    FutureRevision(Revision),
    /// A commit's or a value's size.
    #[error("{0}")]
    TooLarge(String),
    /// No room: free some, then clear the alarm. Deletes still work.
    #[error("the store is out of space; compact and defragment it, then disarm its alarm ({0})")]
    NoSpace(String),
    /// The store does not accept our identity.
    #[error("the store denied access: {0}")]
    Denied(String),
    /// No server of the store could be reached or answered in time.
    #[error("the store is not reachable: {0}")]
    Unavailable(String),
    /// The store holds what we did not write, or its file failed.
    #[error("the store is damaged: {0}")]
    Damaged(String),
    /// The store was closed.
    #[error("the store was closed")]
    Closed,
}

impl Refusal {
    /// Whether the same request may succeed later without anybody changing it.
    pub fn is_transient(&self) -> bool {
        matches!(self, Refusal::Unavailable(_) | Refusal::NoSpace(_))
    }
}

impl StoreError {
    pub(crate) fn refused(operation: &'static str, refusal: Refusal) -> Self {
        StoreError::Definite { operation, refusal }
    }

    /// Whether the store could not be reached or asked, so that the same *read* may succeed later.
    pub fn is_transient(&self) -> bool {
        match self {
            StoreError::Definite { refusal, .. } => refusal.is_transient(),
            StoreError::Indeterminate { .. } => true,
            StoreError::Conflict | StoreError::Compacted { .. } => false,
        }
    }
}
