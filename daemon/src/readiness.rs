//! Whether requests should be sent to this server: its store is heard, and takes writes. Knows nothing of gRPC's
//! health service, which is told of it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_apis::commit::{Commit, LeaseId, Revision};
use lockstep_apis::keys::Key;

use crate::cache::Cache;
use crate::store::{Committed, Found, KeptLease, Lease, Page, Pending, Range, Refusal, Store, StoreError, WatchStream};

/// A watch that was silent for longer than this is no longer trusted.
const SILENCE: Duration = Duration::from_secs(15);

/// The store, noting whether it has room. etcd that is out of space says that it is healthy; only writes tell.
pub struct Noting {
    store: Arc<dyn Store>,
    full: AtomicBool,
}

impl Noting {
    /// Notes what a store answers.
    pub fn new(store: Arc<dyn Store>) -> Arc<Self> {
        Arc::new(Self { store, full: AtomicBool::new(false) })
    }

    /// Whether the last write was refused for lack of space.
    pub fn is_full(&self) -> bool {
        self.full.load(Ordering::Relaxed)
    }

    fn note<T>(&self, answer: Result<T, StoreError>) -> Result<T, StoreError> {
        let full = matches!(&answer, Err(StoreError::Definite { refusal: Refusal::NoSpace(_), .. }));
        // A conflict was judged without writing: it says nothing about room.
        if full || answer.is_ok() {
            let before = self.full.swap(full, Ordering::Relaxed);
            match (before, full) {
                (false, true) => tracing::error!("the store is out of space: nothing new starts until there is room"),
                (true, false) => tracing::info!("the store has room again"),
                _ => {}
            }
        }
        answer
    }
}

impl Store for Noting {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Found> {
        self.store.get(key)
    }

    fn list<'a>(&'a self, prefix: &'a Key, range: Range) -> Pending<'a, Page> {
        self.store.list(prefix, range)
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> Pending<'a, Committed> {
        Box::pin(async move {
            let answer = self.store.commit(commit).await;
            // Deletes work in a full store.
            match commit.operations.iter().any(|o| matches!(o, lockstep_apis::commit::Operation::Put { .. })) {
                true => self.note(answer),
                false => answer,
            }
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Key, from: Revision) -> Pending<'a, WatchStream> {
        self.store.watch(prefix, from)
    }

    fn grant(&self, ttl: Duration) -> Pending<'_, Lease> {
        self.store.grant(ttl)
    }

    fn keep_alive(&self, lease: Lease) -> KeptLease {
        self.store.keep_alive(lease)
    }

    fn revoke(&self, lease: LeaseId) -> Pending<'_, ()> {
        self.store.revoke(lease)
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        self.store.compact(revision)
    }

    fn snapshot<'a>(&'a self, prefix: &'a Key) -> Pending<'a, Page> {
        self.store.snapshot(prefix)
    }
}

/// Whether this server should be asked.
pub fn is_ready(cache: &Cache, store: &Noting) -> bool {
    cache.silence() < SILENCE && !store.is_full()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{Embedded, EmbeddedSettings};

    #[tokio::test]
    async fn a_full_store_is_noted_until_a_write_succeeds() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings::new(folder.path().join("s"));
        let store = Noting::new(Arc::new(Embedded::open(&settings).await.unwrap()));
        let refused = StoreError::Definite { operation: "commit", refusal: Refusal::NoSpace("alarm".into()) };
        assert!(store.note::<()>(Err(refused)).is_err());
        assert!(store.is_full());
        assert!(store.note::<()>(Err(StoreError::Conflict)).is_err());
        let gate = lockstep_apis::keys::gate("r");
        store.commit(&Commit::new().delete(gate.clone())).await.unwrap();
        assert!(store.is_full(), "a delete and a conflict say nothing about room");
        store.commit(&Commit::new().put(gate, Vec::new())).await.unwrap();
        assert!(!store.is_full());
    }
}
