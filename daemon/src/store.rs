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

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use lockstep_apis::commit::{Commit, Entry, LeaseId, MAX_OPERATIONS, MAX_VALUE_BYTES, Operation, Revision};
use lockstep_apis::keys::Key;
use tokio::sync::{mpsc, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

pub mod embedded;
pub mod etcd;

/// Most entries of one page; what asks for more gets this many and `more`.
pub const MAX_PAGE_ENTRIES: usize = 10_000;

/// Most bytes of a key, the etcd root not counted: uids, names and kinds are short, and a key must fit a page.
pub const MAX_KEY_BYTES: usize = 2048;

/// Most bytes of one commit's keys and values together: etcd refuses requests over 1.5 MiB.
pub const MAX_COMMIT_BYTES: usize = 1_400_000;

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
    /// At least until the instant: the last acknowledged renewal was *sent* one time to live before.
    Until(Instant),
    Lost,
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

    /// Its name in commits.
    pub fn id(&self) -> LeaseId {
        self.lease.id
    }

    /// Whether the lease is certainly still held. Only a reason to stop early, never a proof for a write: fence that.
    pub fn is_held(&self) -> bool {
        matches!(*self.held.borrow(), Held::Until(until) if Instant::now() < until)
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

/// What every backend refuses before it looks at its data, so that both refuse the same.
pub(crate) fn check(commit: &Commit) -> Result<(), StoreError> {
    let invalid = |problem: String| Err(StoreError::refused("commit", Refusal::Invalid(problem)));
    let large = |problem: String| Err(StoreError::refused("commit", Refusal::TooLarge(problem)));
    for count in [commit.operations.len(), commit.compares.len()] {
        if count > MAX_OPERATIONS {
            return large(format!("{count} operations or compares in one commit; {MAX_OPERATIONS} is the most"));
        }
    }
    let mut bytes = 0;
    let mut keys = BTreeSet::new();
    let mut prefixes = Vec::new();
    for operation in &commit.operations {
        let (key, value) = match operation {
            Operation::Put { key, value, .. } => (key, value.len()),
            Operation::Delete(key) | Operation::DeletePrefix(key) => (key, 0),
        };
        check_key("commit", key)?;
        if value > MAX_VALUE_BYTES {
            return large(format!("{value} bytes in {key}; {MAX_VALUE_BYTES} is the most"));
        }
        bytes += key.as_bytes().len() + value;
        if let Operation::DeletePrefix(prefix) = operation {
            prefixes.push(prefix);
        }
        if !keys.insert(key) {
            return invalid(format!("{key} twice in one commit"));
        }
    }
    if bytes > MAX_COMMIT_BYTES {
        return large(format!("{bytes} bytes in one commit; {MAX_COMMIT_BYTES} is the most"));
    }
    for prefix in prefixes {
        // The first key that is not below the prefix ends the range; the prefix itself is its first.
        let below = keys.range::<&Key, _>(prefix..).take_while(|key| key.as_str().starts_with(prefix.as_str()));
        if below.count() > 1 {
            return invalid(format!("a key below {prefix} in one commit with its prefix"));
        }
    }
    commit.compares.iter().try_for_each(|compare| check_key("commit", compared(compare)))
}

/// The key that a compare is about.
pub(crate) fn compared(compare: &lockstep_apis::commit::Compare) -> &Key {
    use lockstep_apis::commit::Compare;
    match compare {
        Compare::Absent(key)
        | Compare::Present(key)
        | Compare::ModRevision(key, _)
        | Compare::CreateRevision(key, _)
        | Compare::Value(key, _) => key,
    }
}

pub(crate) fn check_key(operation: &'static str, key: &Key) -> Result<(), StoreError> {
    match key.as_bytes().len() {
        0 => Err(StoreError::refused(operation, Refusal::Invalid("an empty key".into()))),
        1..=MAX_KEY_BYTES => Ok(()),
        n => Err(StoreError::refused(operation, Refusal::TooLarge(format!("a key of {n} bytes")))),
    }
}

pub(crate) fn check_range(range: &Range) -> Result<usize, StoreError> {
    match range.limit {
        0 => Err(StoreError::refused("list", Refusal::Invalid("a page of no entries".into()))),
        limit => Ok(limit.min(MAX_PAGE_ENTRIES)),
    }
}

pub(crate) fn check_watch(from: Revision) -> Result<(), StoreError> {
    match from {
        0 => {
            Err(StoreError::refused("watch", Refusal::Invalid("a watch from revision 0; revisions begin at 1".into())))
        }
        _ => Ok(()),
    }
}

pub(crate) fn check_ttl(ttl: Duration) -> Result<(), StoreError> {
    /// etcd's own limit is higher; nothing of ours is meant to outlive its holder by a day.
    const MOST: Duration = Duration::from_secs(24 * 60 * 60);
    if (Duration::from_secs(1)..=MOST).contains(&ttl) {
        return Ok(());
    }
    let problem = format!("a lease of {ttl:?}; it lives from 1 s to a day");
    Err(StoreError::refused("grant a lease", Refusal::Invalid(problem)))
}
