//! What a server knows of the store: everything but events, tokens and marks, in memory, followed by one watch.
//! Knows keys and revisions; decides nothing and writes nothing.
//!
//! # Guarantees
//! - What is read under one guard is the store at one revision, as far as the watch has brought it.
//! - [`Cache::since`] gives every change after a place once, in order, or says that it no longer can.
//! - A change that the watch lost is found by listing and repaired within some minutes, and counted.

mod history;
mod repair;
mod state;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};
use std::time::Duration;

use lockstep_apis::commit::{Entry, Revision};
use lockstep_apis::keys;
use tokio::sync::watch;
use tokio::time::Instant;

use crate::store::{Range, Store, StoreError, WatchEvent};

pub use history::{Batch, Change, Expired, Position};
pub use state::State;

/// Entries of a page while listing.
const PAGE: usize = 1000;

/// Pauses after errors of the store: first and longest.
const PAUSE: Duration = Duration::from_millis(100);
const MAX_PAUSE: Duration = Duration::from_secs(2);

/// How long a request waits for the cache to be as new as the store.
const CATCH_UP: Duration = Duration::from_secs(5);

/// The cache.
pub struct Cache {
    state: RwLock<State>,
    revision: watch::Sender<Revision>,
    began: Instant,
    /// Milliseconds from `began` to the watch's last sign of life.
    heard_ms: AtomicU64,
    repairs: AtomicU64,
}

impl Cache {
    /// Reads the store once. Errors are the store's; nothing is followed yet.
    pub async fn load(store: &dyn Store) -> Result<Arc<Self>, StoreError> {
        let (entries, revision) = list_all(store).await?;
        let mut state = State::default();
        state.replace(entries, revision);
        let (revision, _) = watch::channel(revision);
        let cache =
            Self { state: RwLock::new(state), revision, began: Instant::now(), heard_ms: 0.into(), repairs: 0.into() };
        Ok(Arc::new(cache))
    }

    /// What is known now. Hold it shortly: changes wait for it.
    pub fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Up to which revision it is complete; changes wake the receiver.
    pub fn revision(&self) -> watch::Receiver<Revision> {
        self.revision.subscribe()
    }

    /// Returns when it is complete up to this revision.
    pub async fn reached(&self, revision: Revision) {
        // An error would mean that the cache is gone, and we hold it.
        let _ = self.revision.subscribe().wait_for(|known| *known >= revision).await;
    }

    /// Returns when it is as new as the store was at the call, so that what this caller was told before is in it.
    /// Errors: the store's, and [`StoreError::Indeterminate`] if the watch does not follow.
    pub async fn catch_up(&self, store: &dyn Store) -> Result<Revision, StoreError> {
        let revision = store.get(&keys::leader()).await?.revision;
        match tokio::time::timeout(CATCH_UP, self.reached(revision)).await {
            Ok(()) => Ok(revision),
            Err(_) => Err(StoreError::Indeterminate {
                operation: "answer",
                problem: format!("this server's watch is behind revision {revision}; ask again, or another server"),
            }),
        }
    }

    /// Where the history ends now.
    pub fn end(&self) -> Position {
        self.read().history.end()
    }

    /// The place in the history behind a revision that is reached. Errors: it is no longer known.
    pub fn position(&self, revision: Revision) -> Result<Position, Expired> {
        self.read().history.position(revision)
    }

    /// The changes after a place, in order. Errors: they are no longer known; list again.
    pub fn since(&self, position: Position) -> Result<Vec<Arc<Batch>>, Expired> {
        self.read().history.since(position)
    }

    /// How long ago the watch last gave a sign of life.
    pub fn silence(&self) -> Duration {
        self.began.elapsed().saturating_sub(Duration::from_millis(self.heard_ms.load(Ordering::Relaxed)))
    }

    /// How many keys a repair has had to correct. Anything but 0 is a watch that lost changes.
    pub fn repairs(&self) -> u64 {
        self.repairs.load(Ordering::Relaxed)
    }

    fn heard(&self) {
        let ms = u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.heard_ms.store(ms, Ordering::Relaxed);
    }

    /// Follows the store for ever; errors are waited out.
    pub async fn follow(&self, store: &dyn Store) {
        let mut pause = PAUSE;
        loop {
            let problem = match self.follow_once(store, &mut pause).await {
                StoreError::Compacted { .. } => match self.list_again(store).await {
                    Ok(()) => continue,
                    Err(problem) => problem,
                },
                problem => problem,
            };
            tracing::warn!(%problem, "the watch of the store ended; opening it again");
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(MAX_PAUSE);
        }
    }

    async fn follow_once(&self, store: &dyn Store, pause: &mut Duration) -> StoreError {
        let from = *self.revision.borrow() + 1;
        let mut watch = match store.watch(&keys::everything(), from).await {
            Ok(watch) => watch,
            Err(problem) => return problem,
        };
        loop {
            match watch.next().await {
                Some(Ok(WatchEvent::Changes { revision, changes })) => {
                    self.write().fold(revision, changes);
                    self.revision.send_replace(revision);
                }
                Some(Ok(WatchEvent::Progress { .. })) => {}
                Some(Err(problem)) => return problem,
                None => {
                    return StoreError::Definite { operation: "watch", refusal: crate::store::Refusal::Closed };
                }
            }
            *pause = PAUSE;
            self.heard();
        }
    }

    /// The history that the watch needs is gone: what is different now is one change.
    async fn list_again(&self, store: &dyn Store) -> Result<(), StoreError> {
        let (entries, revision) = list_all(store).await?;
        self.write().replace(entries, revision);
        self.revision.send_replace(revision);
        self.heard();
        Ok(())
    }
}

/// Everything that is cached, at one revision.
async fn list_all(store: &dyn Store) -> Result<(Vec<Entry>, Revision), StoreError> {
    'again: loop {
        let mut entries = Vec::new();
        let (mut after, mut at) = (None, None);
        loop {
            let page = match store.list(&keys::everything(), Range { after, limit: PAGE, at }).await {
                // Took longer than history is kept.
                Err(StoreError::Compacted { .. }) => continue 'again,
                other => other?,
            };
            after = page.entries.last().map(|entry| entry.key.clone());
            at = Some(page.revision);
            entries.extend(page.entries.into_iter().filter(|entry| state::is_cached(&entry.key)));
            if !page.more {
                return Ok((entries, page.revision));
            }
        }
    }
}

#[cfg(test)]
mod tests;
