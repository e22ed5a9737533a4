//! The embedded store: one redb file, for clusters with one server. Knows nothing of etcd, and does as etcd does
//! wherever the store's contract can tell.
//!
//! # Durability
//! Every transaction is synced (`Durability::Immediate`) before it is acknowledged or seen by watchers. Commits that
//! arrive while a sync runs share the next one. A crash loses nothing that was acknowledged; what was not may be there
//! whole, or not at all.
//!
//! # History
//! What lists at a revision and watches need is kept, in the file and (for watches) in memory, until
//! [`Store::compact`], or until it is larger than [`EmbeddedSettings::history_bytes`].

use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use lockstep_apis::commit::{Commit, LeaseId, Revision};
use lockstep_apis::keys::Key;
use redb::{Database, ReadableDatabase};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use self::history::History;
use self::leases::Leases;
use self::reads::ReadError;
use self::tables::FileError;
use self::writer::{Answer, Request, Writer};
use super::{
    Committed, Found, Held, KeptLease, Lease, Page, Pending, Range, Refusal, Store, StoreError, Until, WatchEvent,
    WatchStream,
};

mod history;
mod leases;
mod reads;
mod tables;
mod writer;
mod writes;

/// Bytes of redb's own cache; the kernel caches the file as well.
const CACHE_BYTES: usize = 32 * 1024 * 1024;

/// Requests that may wait for the writer before callers do.
const QUEUED_REQUESTS: usize = 1024;

/// Revisions that a watch takes from history at a time.
const WATCH_STRIDE: usize = 256;

/// Events that wait for a slow watcher; the rest waits in history.
const QUEUED_EVENTS: usize = 64;

/// After this long without changes a watch says that it lives.
const PROGRESS: Duration = Duration::from_secs(5);

/// How an embedded store is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EmbeddedSettings {
    /// The file. It and its folder are made if they are not there, for the owner alone.
    pub path: PathBuf,
    /// Most bytes of history in memory; more is compacted, the oldest first.
    pub history_bytes: usize,
}

impl EmbeddedSettings {
    /// Memory for some minutes of a busy cluster's history.
    pub const HISTORY_BYTES: usize = 64 * 1024 * 1024;

    /// A store in the file, with all else as usual.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), history_bytes: Self::HISTORY_BYTES }
    }
}

/// A store in a file of this machine. Dropping it waits for the writer to end; requests still queued are done first.
pub struct Embedded {
    file: Arc<Database>,
    /// `None` only while it is dropped.
    requests: Option<mpsc::Sender<Request>>,
    history: Arc<RwLock<History>>,
    leases: Arc<Leases>,
    published: watch::Receiver<Revision>,
    writer: Option<std::thread::JoinHandle<()>>,
    expiry: AbortHandle,
}

impl Embedded {
    /// Opens the file, or makes it. Call within a tokio runtime.
    /// Errors: it cannot be made or read, it is open already, it is damaged, or of another version.
    pub async fn open(settings: &EmbeddedSettings) -> Result<Self, StoreError> {
        let path = settings.path.clone();
        let opened = tokio::task::spawn_blocking(move || {
            let file = open_file(&path).map_err(|problem| format!("{}: {problem}", path.display()))?;
            let opened = prepare(&file).map_err(|problem| format!("{}: {problem}", path.display()))?;
            Ok::<_, String>((file, opened))
        });
        let (file, opened) = opened
            .await
            .map_err(|error| refused("open", error))?
            .map_err(|problem| StoreError::refused("open", Refusal::Damaged(problem)))?;
        let leases = Arc::new(Leases::default());
        for (lease, ttl_ms) in opened.leases {
            leases.begin(lease, Duration::from_millis(ttl_ms));
        }
        let (requests, receiver) = mpsc::channel(QUEUED_REQUESTS);
        let (publisher, published) = watch::channel(opened.revision);
        let file = Arc::new(file);
        let history = Arc::new(RwLock::new(History::new(opened.compacted, opened.revision, opened.changes)));
        let writer = Writer {
            file: file.clone(),
            requests: receiver,
            history: history.clone(),
            leases: leases.clone(),
            published: publisher,
            history_bytes: settings.history_bytes,
        };
        let writer = std::thread::Builder::new()
            .name("store-writer".into())
            .spawn(move || writer.run())
            .map_err(|error| refused("open", error))?;
        let expiry = tokio::spawn(expire(leases.clone(), requests.downgrade())).abort_handle();
        Ok(Self { file, requests: Some(requests), history, leases, published, writer: Some(writer), expiry })
    }

    async fn ask<T>(
        &self,
        operation: &'static str,
        request: impl FnOnce(Answer<T>) -> Request,
    ) -> Result<T, StoreError> {
        let (answer, answered) = oneshot::channel();
        let requests = self.requests.as_ref().expect("only a dropped store has no writer");
        let closed = |_| StoreError::refused(operation, Refusal::Closed);
        requests.send(request(answer)).await.map_err(closed)?;
        // The writer answers all that it took, unless it died.
        let problem = "the store's writer ended without an answer".to_owned();
        answered.await.unwrap_or(Err(StoreError::Indeterminate { operation, problem }))
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.expiry.abort();
        self.requests = None;
        if let Some(writer) = self.writer.take() {
            // A panic of the writer was told by the panic itself.
            let _ = writer.join();
        }
    }
}

impl Store for Embedded {
    fn get<'a>(&'a self, key: &'a Key) -> Pending<'a, Found> {
        Box::pin(async move {
            super::check_key("get", key)?;
            let read = || {
                let txn = self.file.begin_read()?;
                reads::get(&txn, key)
            };
            // Not handed to another thread: a handful of pages, nearly always in memory.
            let (entry, revision) = read().map_err(|error| refused("get", error))?;
            Ok(Found { entry, revision })
        })
    }

    fn list<'a>(&'a self, prefix: &'a Key, range: Range) -> Pending<'a, Page> {
        Box::pin(async move {
            let limit = super::check_range(&range)?;
            let (file, prefix) = (self.file.clone(), prefix.clone());
            let read = move || {
                let txn = file.begin_read()?;
                reads::list(&txn, &prefix, &range, limit)
            };
            let page = tokio::task::spawn_blocking(read).await.map_err(|error| refused("list", error))?;
            page.map_err(|error| match error {
                ReadError::File(error) => refused("list", error),
                ReadError::Compacted(revision) => StoreError::Compacted { revision },
                ReadError::Future(revision) => StoreError::refused("list", Refusal::FutureRevision(revision)),
            })
        })
    }

    fn commit<'a>(&'a self, commit: &'a Commit) -> Pending<'a, Committed> {
        Box::pin(async move {
            super::check(commit)?;
            let revision = self.ask("commit", |answer| Request::Commit(commit.clone(), answer)).await?;
            Ok(Committed { revision })
        })
    }

    fn watch<'a>(&'a self, prefix: &'a Key, from: Revision) -> Pending<'a, WatchStream> {
        Box::pin(async move {
            super::check_watch(from)?;
            let (sender, events) = mpsc::channel(QUEUED_EVENTS);
            let watcher = Watcher {
                prefix: prefix.clone(),
                next: from,
                history: self.history.clone(),
                published: self.published.clone(),
                events: sender,
            };
            Ok(WatchStream::new(events, tokio::spawn(watcher.run()).abort_handle()))
        })
    }

    fn grant(&self, ttl: Duration) -> Pending<'_, Lease> {
        Box::pin(async move {
            super::check_ttl(ttl)?;
            self.ask("grant a lease", |answer| Request::Grant(ttl, answer)).await
        })
    }

    fn keep_alive(&self, lease: Lease) -> KeptLease {
        let leases = self.leases.clone();
        // Ours and the store's clock are one; asked first, it says no more than the store will.
        let renew = move || {
            let until = Until::of(&lease);
            leases.renew(lease.id).map_or(Held::Lost, |_| Held::Until(until))
        };
        let first = renew();
        let (teller, held) = watch::channel(first);
        let task = tokio::spawn(async move {
            let mut state = first;
            while state != Held::Lost {
                tokio::time::sleep(lease.ttl / 3).await;
                state = renew();
                teller.send_replace(state);
            }
        });
        KeptLease::new(lease, held, task.abort_handle())
    }

    fn revoke(&self, lease: LeaseId) -> Pending<'_, ()> {
        Box::pin(async move { self.ask("revoke a lease", |answer| Request::Revoke(lease, answer)).await.map(drop) })
    }

    fn compact(&self, revision: Revision) -> Pending<'_, ()> {
        Box::pin(async move { self.ask("compact", |answer| Request::Compact(revision, answer)).await.map(drop) })
    }
}

fn refused(operation: &'static str, error: impl std::fmt::Display) -> StoreError {
    StoreError::refused(operation, Refusal::Damaged(error.to_string()))
}

fn open_file(path: &Path) -> Result<Database, FileError> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let io = |error| FileError::Redb(redb::Error::Io(error));
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let mut options = std::fs::OpenOptions::new();
    let file = options.read(true).write(true).create(true).truncate(false).mode(0o600).open(path).map_err(io)?;
    // The file's name must be as durable as what is written to it.
    std::fs::File::open(folder).and_then(|folder| folder.sync_all()).map_err(io)?;
    Ok(Database::builder().set_cache_size(CACHE_BYTES).create_file(file)?)
}

fn prepare(file: &Database) -> Result<reads::Opened, FileError> {
    let txn = file.begin_write()?;
    tables::prepare(&txn)?;
    txn.commit()?;
    reads::load(&file.begin_read()?)
}

/// Tells the writer which leases may be over, until the store is closed.
async fn expire(leases: Arc<Leases>, requests: mpsc::WeakSender<Request>) {
    loop {
        for lease in leases.due().await {
            let Some(requests) = requests.upgrade() else { return };
            if requests.send(Request::Expire(lease)).await.is_err() {
                return;
            }
        }
        // A lease stays due until the writer has seen the request; what it does takes about this long.
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Brings the changes of a prefix from history to one watcher, at the watcher's pace.
struct Watcher {
    prefix: Key,
    next: Revision,
    history: Arc<RwLock<History>>,
    published: watch::Receiver<Revision>,
    events: mpsc::Sender<Result<WatchEvent, StoreError>>,
}

impl Watcher {
    async fn run(mut self) {
        let mut said = Instant::now();
        loop {
            let newest = *self.published.borrow_and_update();
            match self.take() {
                Err(revision) => {
                    // The watcher may be gone; so is this task then.
                    let _ = self.events.send(Err(StoreError::Compacted { revision })).await;
                    return;
                }
                Ok(events) => {
                    for event in events {
                        said = Instant::now();
                        if self.events.send(Ok(event)).await.is_err() {
                            return;
                        }
                    }
                }
            }
            if said.elapsed() >= PROGRESS {
                said = Instant::now();
                let revision = newest.min(self.next.saturating_sub(1)).max(1);
                if self.events.send(Ok(WatchEvent::Progress { revision })).await.is_err() {
                    return;
                }
            }
            if self.next > newest {
                tokio::select! {
                    changed = self.published.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep_until(said + PROGRESS) => {}
                }
            }
        }
    }

    /// The next revisions' changes below the prefix. Error: they are compacted.
    fn take(&mut self) -> Result<Vec<WatchEvent>, Revision> {
        let history = self.history.read().expect("nothing panics while it holds the history");
        let revisions = history.read(self.next, WATCH_STRIDE)?;
        drop(history);
        let mut events = Vec::new();
        for all in revisions {
            let Some(revision) = all.first().map(|change| change.revision()) else { continue };
            let below = |change: &&super::Change| change.key().as_str().starts_with(self.prefix.as_str());
            let changes: Vec<_> = all.iter().filter(below).cloned().collect();
            if !changes.is_empty() {
                events.push(WatchEvent::Changes { revision, changes });
            }
            self.next = revision + 1;
        }
        Ok(events)
    }
}
