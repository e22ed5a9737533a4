//! The store: what a backend promises, and what its errors mean. Knows keys, commits and revisions; never what the
//! values say. Only the modules below know etcd or redb.
//!
//! # Guarantees
//! - Reads are linearizable: they see every commit that was acknowledged before they began.
//! - A commit happens whole or not at all, is durable when acknowledged, and has a revision of its own.
//! - A watch gives every change of its prefix from its first revision on, once, in order, a revision at a time; or it
//!   ends with [`StoreError::Compacted`].
//! - A lease's keys go in one revision, not before its time to live has passed without a renewal.
//!
//! # Caveats
//! - Leases may live longer than their time to live. They are not locks: compare revisions.
//! - A commit whose future is dropped may still happen, as if it had ended in [`StoreError::Indeterminate`].

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use lockstep_apis::commit::{Commit, Entry, LeaseId, Revision};
use lockstep_apis::keys::Key;
use lockstep_core::fence;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::clock::boot_ms;

pub mod embedded;
mod error;
pub mod etcd;
mod limits;

pub use error::{Refusal, StoreError};
pub use limits::{MAX_COMMIT_BYTES, MAX_KEY_BYTES, MAX_PAGE_ENTRIES};
pub(crate) use limits::{check, check_key, check_range, check_ttl, check_watch, compared};

/// An answer of the store that is still to come.
pub type Pending<'a, T> = Pin<Box<dyn Future<Output = Result<T, StoreError>> + Send + 'a>>;

/// A key-value store with revisions, transactions, watches and leases. See the module for what it promises.
pub trait Store: Send + Sync + 'static {
    /// Reads one key, and says at which revision of the store it did.
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Found>;

    /// Reads a page of the keys with `prefix` (all keys if it is empty), in byte order.
    fn list<'a>(&'a self, prefix: &'a Key, range: Range) -> Pending<'a, Page>;

    /// Carries out a commit. [`StoreError::Conflict`]: a compare did not hold and nothing happened.
    /// A commit that changes nothing returns the store's current revision.
    fn commit<'a>(&'a self, commit: &'a Commit) -> Pending<'a, Committed>;

    /// Watches the keys with `prefix`, from the changes of revision `from` (at least 1) on: after a list at revision R
    /// that is R + 1. A `from` in the future is waited for. Returns when the watch stands; that its history is gone
    /// is the stream's first answer.
    fn watch<'a>(&'a self, prefix: &'a Key, from: Revision) -> Pending<'a, WatchStream>;

    /// Makes a lease that lives at least `ttl` (1 s or more; etcd may give more) from its last renewal on.
    fn grant(&self, ttl: Duration) -> Pending<'_, Lease>;

    /// Renews a lease until the answer is dropped, and tells when the lease is lost. Does not revoke it at the end.
    /// Call within a tokio runtime.
    fn keep_alive(&self, lease: Lease) -> KeptLease;

    /// Ends a lease and deletes its keys. A lease that is gone is no error.
    fn revoke(&self, lease: LeaseId) -> Pending<'_, ()>;

    /// Forgets what keys held before `revision`, which must not be in the future: reads and watches from before it
    /// end in [`StoreError::Compacted`] from now on. Compacting again to the same or an older one is no error.
    fn compact(&self, revision: Revision) -> Pending<'_, ()>;

    /// Reads all keys with `prefix` as they were at one revision, the current one. In memory: meant for parts of the
    /// store that fit there, and for backups.
    fn snapshot<'a>(&'a self, prefix: &'a Key) -> Pending<'a, Page> {
        Box::pin(snapshot(self, prefix))
    }
}

async fn snapshot<S: Store + ?Sized>(store: &S, prefix: &Key) -> Result<Page, StoreError> {
    const PAGE: usize = 500;
    let mut whole = store.list(prefix, Range::first(PAGE)).await?;
    while whole.more {
        let after = whole.entries.last().map(|entry| entry.key.clone());
        match store.list(prefix, Range { after, limit: PAGE, at: Some(whole.revision) }).await {
            Ok(page) => {
                whole.entries.extend(page.entries);
                whole.more = page.more;
            }
            // Took longer than history is kept: only a fresh start is one revision again.
            Err(StoreError::Compacted { .. }) => whole = store.list(prefix, Range::first(PAGE)).await?,
            Err(error) => return Err(error),
        }
    }
    Ok(whole)
}

/// What a get found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// The key's entry, if there is one.
    pub entry: Option<Entry>,
    /// Revision of the store that the answer holds for.
    pub revision: Revision,
}

/// Which part of a prefix a list reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// Begins behind this key; the last one of the page before.
    pub after: Option<Key>,
    /// Most entries; at least 1, and no more than [`MAX_PAGE_ENTRIES`] are given. A page may hold fewer although
    /// there are more, if they are large.
    pub limit: usize,
    /// Reads the keys as they were at this revision; `None`: as they are.
    pub at: Option<Revision>,
}

impl Range {
    /// The first page, as things are.
    pub fn first(limit: usize) -> Self {
        Self { after: None, limit, at: None }
    }
}

/// A part of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The entries, in byte order of their keys.
    pub entries: Vec<Entry>,
    /// The revision that they were read at: give it as [`Range::at`] for the next page.
    pub revision: Revision,
    /// Whether there are keys behind the last one.
    pub more: bool,
}

/// A commit that happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Committed {
    /// The revision it made, or the current one if it changed nothing.
    pub revision: Revision,
}

/// A lease as granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Its name in commits.
    pub id: LeaseId,
    /// How long it lives from its last renewal on, at least.
    pub ttl: Duration,
}

/// One thing that a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum WatchEvent {
    /// All changes of one revision below the prefix, in the order of the commit's operations.
    Changes {
        /// The revision.
        revision: Revision,
        /// At least one.
        changes: Vec<Change>,
    },
    /// A sign of life, every few seconds in which nothing changed: the store was at this revision.
    /// A hint only: etcd before 3.4.25 can send it ahead of changes. Never resume a watch from it.
    Progress {
        /// The store's revision.
        revision: Revision,
    },
}

/// One change of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Written.
    Put(Entry),
    /// Deleted, at the revision.
    Delete(Key, Revision),
}

impl Change {
    /// The key that changed.
    pub fn key(&self) -> &Key {
        match self {
            Change::Put(entry) => &entry.key,
            Change::Delete(key, _) => key,
        }
    }

    /// The revision that changed it.
    pub fn revision(&self) -> Revision {
        match self {
            Change::Put(entry) => entry.mod_revision,
            Change::Delete(_, revision) => *revision,
        }
    }
}

/// The changes of a prefix. Survives what the backend survives; ends after its first error. Dropping it ends the watch.
pub struct WatchStream {
    events: mpsc::Receiver<Result<WatchEvent, StoreError>>,
    task: AbortHandle,
}

impl WatchStream {
    pub(crate) fn new(events: mpsc::Receiver<Result<WatchEvent, StoreError>>, task: AbortHandle) -> Self {
        Self { events, task }
    }

    /// The next event. `None` only after an error was given, or when the store was closed.
    /// Safe to drop half-way: no event is lost.
    pub async fn next(&mut self) -> Option<Result<WatchEvent, StoreError>> {
        self.events.recv().await
    }
}

impl Stream for WatchStream {
    type Item = Result<WatchEvent, StoreError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.events.poll_recv(context)
    }
}

impl Drop for WatchStream {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Whether a lease is held, and until when that is certain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Held {
    /// At least until then: the last acknowledged renewal was *sent* one time to live before.
    Until(Until),
    Lost,
}

/// The end of a lease by two clocks of this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Until {
    /// By the one that stands still while the machine sleeps.
    pub(crate) at: Instant,
    /// By the one that goes on, less how far it may be off.
    boot_ms: u64,
}

impl Until {
    /// For a renewal that is sent now.
    pub(crate) fn of(lease: &Lease) -> Self {
        let ttl_ms = u64::try_from(lease.ttl.as_millis()).unwrap_or(u64::MAX);
        let sure_ms = ttl_ms - ttl_ms * fence::DRIFT_PER_MILLE / 1000;
        Self { at: Instant::now() + lease.ttl, boot_ms: boot_ms() + sure_ms }
    }

    /// For a lease that was granted a moment ago, who knows when: nothing is certain before it is renewed.
    pub(crate) fn unsure(lease: &Lease) -> Self {
        Self { at: Instant::now() + lease.ttl, boot_ms: 0 }
    }
}

/// Whether a lease certainly is in the store, for who acts on that without writing. Cheap to clone.
#[derive(Clone)]
pub struct Sure {
    lease: LeaseId,
    held: watch::Receiver<Held>,
}

impl Sure {
    /// Whether this lease is in the store now, by a clock that goes on while the machine sleeps.
    pub fn holds(&self, lease: LeaseId) -> bool {
        self.lease == lease && matches!(*self.held.borrow(), Held::Until(until) if boot_ms() < until.boot_ms)
    }
}

/// A lease that a task renews. Dropping it ends the renewals, not the lease.
pub struct KeptLease {
    lease: Lease,
    held: watch::Receiver<Held>,
    task: AbortHandle,
}

impl KeptLease {
    pub(crate) fn new(lease: Lease, held: watch::Receiver<Held>, task: AbortHandle) -> Self {
        Self { lease, held, task }
    }

    /// The lease.
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// For who must know whether it is held.
    pub fn sure(&self) -> Sure {
        Sure { lease: self.lease.id, held: self.held.clone() }
    }

    /// Its name in commits.
    pub fn id(&self) -> LeaseId {
        self.lease.id
    }

    /// Whether the lease is certainly still held. Only a reason to stop early, never a proof for a write: fence that.
    pub fn is_held(&self) -> bool {
        matches!(*self.held.borrow(), Held::Until(until) if Instant::now() < until.at)
    }

    /// Returns when the lease is gone, or when no renewal was acknowledged for its time to live so that it may be.
    /// What was true for holding it is over then: get another lease.
    pub async fn lost(&self) {
        let mut held = self.held.clone();
        // An error is the task's end, which without renewals is the lease's.
        let _ = held.wait_for(|held| *held == Held::Lost).await;
    }
}

impl Drop for KeptLease {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Where a store is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreSettings {
    /// In a file of this machine, for clusters with one server.
    Embedded(embedded::EmbeddedSettings),
    /// In etcd.
    Etcd(etcd::EtcdSettings),
}

/// Opens a store. etcd need not be reachable yet: requests say whether it is.
/// Errors: settings that cannot work, files that cannot be read, an embedded store that is open elsewhere or damaged.
pub async fn open(settings: &StoreSettings) -> Result<Arc<dyn Store>, StoreError> {
    Ok(match settings {
        StoreSettings::Embedded(settings) => Arc::new(embedded::Embedded::open(settings).await?),
        StoreSettings::Etcd(settings) => Arc::new(etcd::Etcd::open(settings).await?),
    })
}
