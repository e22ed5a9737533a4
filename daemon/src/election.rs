//! Who leads: the key `leader` under the server's lease. Knows the Term; not what a leader does with it.
//!
//! # Guarantees
//! - A Term that is told was won by a commit of this process. That it still holds is never certain: every write of a
//!   leader compares it.

use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::commit::{Commit, Compare, LeaseId, Term};
use lockstep_apis::keys;
use lockstep_apis::v1alpha::Leader;
use prost::Message;
use tokio::sync::watch;

use crate::cache::Cache;
use crate::presence::LeaseWatch;
use crate::store::{Store, StoreError};

/// Between attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(250);

/// A candidate.
pub struct Election {
    /// Where the key is.
    pub store: Arc<dyn Store>,
    /// Sees who leads.
    pub cache: Arc<Cache>,
    /// Who we are, as the key's value says it.
    pub leader: Leader,
    /// Of the store; the Term's first part.
    pub incarnation: u64,
    /// The lease that the key is put under.
    pub lease: LeaseWatch,
}

impl Election {
    /// Stands for ever; tells the Term while this server leads.
    pub async fn stand(mut self, term: watch::Sender<Option<Term>>) {
        self.clear_own_past().await;
        loop {
            let Some(lease) = self.some_lease().await else { return };
            match self.win(lease).await {
                Ok(Some(won)) => {
                    tracing::info!(revision = won.revision, "this server leads");
                    term.send_replace(Some(won));
                    self.hold(won, lease).await;
                    term.send_replace(None);
                    tracing::info!(revision = won.revision, "this server no longer leads");
                }
                Ok(None) => {}
                Err(problem) => {
                    tracing::warn!(%problem, "standing for leader failed; trying again");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    /// A key that names us and that this process did not write is of a process that is gone: its lease need not lapse.
    async fn clear_own_past(&self) {
        let Ok(found) = self.store.get(&keys::leader()).await else { return };
        let Some(entry) = found.entry.filter(|entry| entry.value == self.leader.encode_to_vec()) else { return };
        let commit =
            Commit::new().when(Compare::CreateRevision(entry.key.clone(), entry.create_revision)).delete(entry.key);
        if let Err(problem) = self.store.commit(&commit).await {
            tracing::info!(%problem, "the leadership of before lapses by itself");
        }
    }

    async fn some_lease(&mut self) -> Option<LeaseId> {
        *self.lease.wait_for(Option::is_some).await.ok()?
    }

    /// Waits until nobody leads and tries to. `None`: somebody was faster, or the lease went.
    async fn win(&mut self, lease: LeaseId) -> Result<Option<Term>, StoreError> {
        let cache = self.cache.clone();
        let mut changes = cache.revision();
        let vacant = changes.wait_for(|_| cache.read().world().leader().is_none());
        let lost = self.lease.wait_for(|held| *held != Some(lease));
        tokio::select! {
            _ = vacant => {}
            _ = lost => return Ok(None),
        }
        let value = self.leader.encode_to_vec();
        let key = keys::leader();
        let commit = Commit::new().when(Compare::Absent(key.clone())).put_leased(key.clone(), value.clone(), lease);
        let revision = match self.store.commit(&commit).await {
            Ok(committed) => committed.revision,
            Err(StoreError::Conflict) => {
                self.cache.catch_up(&*self.store).await?;
                return Ok(None);
            }
            // It may be there. Only this process writes our name while it runs.
            Err(StoreError::Indeterminate { .. }) => {
                let found = self.store.get(&key).await?;
                match found.entry.filter(|entry| entry.value == value) {
                    Some(entry) => entry.create_revision,
                    None => return Ok(None),
                }
            }
            Err(problem) => return Err(problem),
        };
        self.cache.reached(revision).await;
        Ok(Some(Term { incarnation: self.incarnation, revision }))
    }

    /// Returns when the lease or the key is no longer ours.
    async fn hold(&mut self, term: Term, lease: LeaseId) {
        let cache = self.cache.clone();
        let mut changes = cache.revision();
        let ours = || cache.read().world().leader().is_some_and(|(_, created)| *created == term.revision);
        tokio::select! {
            _ = changes.wait_for(|_| !ours()) => {}
            _ = self.lease.wait_for(|held| *held != Some(lease)) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{Embedded, EmbeddedSettings};

    struct Candidate {
        lease: watch::Sender<Option<LeaseId>>,
        term: watch::Receiver<Option<Term>>,
        standing: tokio::task::JoinHandle<()>,
    }

    async fn candidate(store: &Arc<dyn Store>, cache: &Arc<Cache>, name: &str) -> Candidate {
        let granted = store.grant(Duration::from_secs(60)).await.unwrap();
        let (lease, watching) = watch::channel(Some(granted.id));
        let (term, told) = watch::channel(None);
        let election = Election {
            store: store.clone(),
            cache: cache.clone(),
            leader: Leader { server_uid: name.into(), server_name: name.into() },
            incarnation: 1,
            lease: watching,
        };
        Candidate { lease, term: told, standing: tokio::spawn(election.stand(term)) }
    }

    #[tokio::test]
    async fn one_leads_and_the_next_when_its_lease_is_revoked() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings::new(folder.path().join("s.redb"));
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&settings).await.unwrap());
        let cache = Cache::load(&*store).await.unwrap();
        let following = tokio::spawn({
            let (cache, store) = (cache.clone(), store.clone());
            async move { cache.follow(&*store).await }
        });
        let mut a = candidate(&store, &cache, "a").await;
        let first = a.term.wait_for(Option::is_some).await.unwrap().unwrap();
        let mut b = candidate(&store, &cache, "b").await;
        assert!(b.term.borrow().is_none());
        store.revoke(a.lease.borrow().unwrap()).await.unwrap();
        a.lease.send_replace(None);
        a.term.wait_for(Option::is_none).await.unwrap();
        let second = b.term.wait_for(Option::is_some).await.unwrap().unwrap();
        assert!(second > first);
        // What the first one still wants to write does not happen.
        let late = Commit::new().when(first.compare()).put(keys::gate("r"), Vec::new());
        assert!(matches!(store.commit(&late).await, Err(StoreError::Conflict)));
        for task in [a.standing, b.standing, following] {
            task.abort();
        }
    }
}
