//! That this server is up: one lease of the store, with `servers/<uid>` under it. All else that goes with the server
//! (leadership, sessions) is put under the same lease. Knows nothing of what that is.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use lockstep_apis::commit::{Commit, LeaseId};
use lockstep_apis::keys;
use lockstep_apis::v1alpha::ServerRecord;
use prost::Message;
use tokio::sync::watch;

use crate::store::{Store, StoreError, Sure};

/// How long a server that is gone is taken to be there. Short, so that another one leads soon; long against pauses of
/// a busy machine.
const TTL: Duration = Duration::from_secs(5);

/// Between attempts while the store does not answer.
const PAUSE: Duration = Duration::from_millis(250);

/// The lease as others see it: `None` while there is none.
pub type LeaseWatch = watch::Receiver<Option<LeaseId>>;

/// The last lease, for who must know whether it still is in the store.
#[derive(Clone, Default)]
pub struct SureLease(Arc<Mutex<Option<Sure>>>);

impl SureLease {
    /// Whether this lease certainly is in the store now.
    pub fn holds(&self, lease: LeaseId) -> bool {
        let sure = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sure.as_ref().is_some_and(|sure| sure.holds(lease))
    }
}

/// Keeps a lease and the record under it until dropped; tells which lease it is.
pub async fn keep(store: Arc<dyn Store>, record: ServerRecord, lease: watch::Sender<Option<LeaseId>>, sure: SureLease) {
    loop {
        match begin(&*store, &record).await {
            Ok(granted) => {
                let kept = store.keep_alive(granted);
                *sure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(kept.sure());
                lease.send_replace(Some(kept.id()));
                kept.lost().await;
                tracing::warn!("the server's lease is lost; getting another");
                lease.send_replace(None);
            }
            Err(problem) => {
                tracing::warn!(%problem, "no lease of the store; trying again");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Gives the lease back at once, so that others need not wait for it to lapse.
pub async fn end(store: &dyn Store, lease: &LeaseWatch) {
    let lease = *lease.borrow();
    if let Some(lease) = lease
        && let Err(problem) = store.revoke(lease).await
    {
        tracing::info!(%problem, "the lease was not given back; it lapses by itself");
    }
}

async fn begin(store: &dyn Store, record: &ServerRecord) -> Result<crate::store::Lease, StoreError> {
    let lease = store.grant(TTL).await?;
    // Ours alone and always the same: repeating it is harmless.
    let commit = Commit::new().put_leased(keys::server(&record.uid), record.encode_to_vec(), lease.id);
    store.commit(&commit).await?;
    Ok(lease)
}
