//! What is looked at again and again, because nobody tells of it: agents that have fallen silent, records that are under
//! a lease of before, records whose stream is over. Knows sessions and their records; nothing of what they are used for.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use lockstep_core::protocol;

use super::Delivery;
use super::session::{Session, locked};
use crate::store::StoreError;

/// Between looks.
const LOOK: Duration = Duration::from_secs(5);

/// An agent is gone when it has missed this many heartbeats,
const MISSED_HEARTBEATS: u64 = 3;

/// but not before this.
const LEAST_SILENCE_MS: u64 = 30_000;

impl Delivery {
    /// Ends silent sessions and sees to it that the records in the store are those of the others, until the server's
    /// lease is kept no more.
    pub async fn look_after_sessions(self: Arc<Self>) {
        let mut lease = self.parts.lease.clone();
        loop {
            match tokio::time::timeout(LOOK, lease.changed()).await {
                // At once: without a record a node counts as away.
                Ok(Ok(())) => self.record_again().await,
                Ok(Err(_)) => return,
                Err(_) => {
                    self.end_silent();
                    self.record_again().await;
                    self.clear_up().await;
                }
            }
        }
    }

    fn end_silent(&self) {
        let heartbeat_ms = self.parts.cache.read().config().heartbeat_ms();
        let most = (heartbeat_ms * MISSED_HEARTBEATS).max(LEAST_SILENCE_MS);
        for session in self.sessions().values().filter(|session| session.silence_ms() > most) {
            tracing::info!(node = session.name, "an agent has fallen silent; its session ends");
            session.close("no heartbeat");
        }
    }

    /// Writes the sessions again whose records are under another lease than the one of now.
    async fn record_again(&self) {
        let Some(now) = *self.parts.lease.borrow() else { return };
        // One that has no record yet is being greeted, which does not end without one.
        let is_under_another =
            |session: &Arc<Session>| locked(&session.recorded).is_some_and(|(lease, _)| lease != now);
        let sessions: Vec<_> = self.sessions().values().filter(|session| is_under_another(session)).cloned().collect();
        futures::future::join_all(sessions.iter().map(|session| self.record(session))).await;
    }

    /// Takes away what earlier streams left.
    pub(super) async fn clear_up(&self) {
        let served: BTreeSet<String> = self.sessions().keys().cloned().collect();
        let left =
            protocol::left_over(self.parts.cache.read().world(), &self.parts.server_uid, |node| served.contains(node));
        for commit in left {
            match self.parts.committer.commit(commit).await {
                Ok(_) | Err(StoreError::Conflict) => {}
                Err(problem) => return tracing::debug!(%problem, "records of former sessions stay for now"),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_apis::commit::Commit;
    use lockstep_apis::keys;
    use lockstep_apis::v1alpha::{Cluster, Session as Record};
    use prost::Message;
    use tokio::sync::watch;

    use super::*;
    use crate::cache::Cache;
    use crate::committer::Committer;
    use crate::delivery::Parts;
    use crate::events::Outbox;
    use crate::identity::listener::Connections;
    use crate::logs::LogStore;
    use crate::presence::SureLease;
    use crate::sealing::KeyRing;
    use crate::store::Store;
    use crate::store::embedded::{Embedded, EmbeddedSettings};

    #[tokio::test]
    async fn a_record_whose_stream_is_over_goes_though_the_lease_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let settings = EmbeddedSettings::new(folder.path().join("store"));
        let store: Arc<dyn Store> = Arc::new(Embedded::open(&settings).await.unwrap());
        let lease = store.grant(Duration::from_secs(60)).await.unwrap().id;
        let record = |server: &str| Record { server_uid: server.into(), ..Record::default() }.encode_to_vec();
        let commit = Commit::new().put_leased(keys::session("gone"), record("ours"), lease).put_leased(
            keys::session("elsewhere"),
            record("theirs"),
            lease,
        );
        store.commit(&commit).await.unwrap();
        let cache = Cache::load(&*store).await.unwrap();
        let (committer, committing) = Committer::new(store.clone());
        tokio::spawn(committing);
        let (outbox, _telling) = Outbox::new(store.clone(), cache.clone(), "server/ours".into());
        let keys = folder.path().join("keys");
        KeyRing::add_key(&keys, 1).unwrap();
        let (_lease, watched) = watch::channel(Some(lease));
        let delivery = Delivery::new(Parts {
            store: store.clone(),
            cache,
            committer,
            sealing: Arc::new(KeyRing::load(&keys).unwrap()),
            outbox,
            logs: LogStore::new(folder.path().join("logs")),
            lease: watched,
            sure: SureLease::default(),
            connections: Connections::default(),
            server_uid: "ours".into(),
            cluster: Cluster::default(),
        });
        delivery.clear_up().await;
        assert!(store.get(&keys::session("gone")).await.unwrap().entry.is_none());
        assert!(store.get(&keys::session("elsewhere")).await.unwrap().entry.is_some());
    }
}
