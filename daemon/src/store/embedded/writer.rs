//! The embedded store's one writer: a thread that takes what is queued, judges it in order in one transaction, syncs
//! once, publishes to watchers and only then answers. So the order of revisions is the order of commits, and N
//! callers at once cost one sync.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use lockstep_apis::commit::{Commit, LeaseId, Revision};
use redb::{Database, Durability};
use tokio::sync::{mpsc, oneshot, watch};

use super::history::History;
use super::leases::Leases;
use super::tables::FileError;
use super::writes::{Judged, Writing};
use crate::store::{Change, Lease, Refusal, StoreError};

/// Most requests of one transaction: the last of them waits for all, some 20 µs each.
const MAX_BATCH: usize = 256;

/// Most rows of old history that one transaction frees: a few milliseconds.
const MAX_TRIMMED_ROWS: usize = 2000;

/// What to do, and where to say how it ended.
pub(super) enum Request {
    Commit(Commit, Answer<Revision>),
    Grant(Duration, Answer<Lease>),
    Revoke(LeaseId, Answer<Revision>),
    Compact(Revision, Answer<Revision>),
    /// The lease's time may be over.
    Expire(LeaseId),
}

/// Where an answer goes. The asker may be gone.
pub(super) type Answer<T> = oneshot::Sender<Result<T, StoreError>>;

/// An answer that waits for the transaction to be durable.
enum Held {
    Revision(Answer<Revision>, Result<Revision, StoreError>),
    Lease(Answer<Lease>, Lease),
}

impl Held {
    fn send(self) {
        // An asker that is gone has no use for the answer.
        match self {
            Held::Revision(answer, result) => drop(answer.send(result)),
            Held::Lease(answer, lease) => drop(answer.send(Ok(lease))),
        }
    }

    fn fail(self, error: impl Fn(&'static str) -> StoreError) {
        match self {
            // A refusal stays one: it was judged by what was durable before, or by what now fails with it.
            Held::Revision(answer, _) => drop(answer.send(Err(error("commit")))),
            Held::Lease(answer, _) => drop(answer.send(Err(error("grant a lease")))),
        }
    }
}

pub(super) struct Writer {
    pub(super) file: Arc<Database>,
    pub(super) requests: mpsc::Receiver<Request>,
    pub(super) history: Arc<RwLock<History>>,
    pub(super) leases: Arc<Leases>,
    /// The newest revision that watchers can read.
    pub(super) published: watch::Sender<Revision>,
    pub(super) history_bytes: usize,
}

/// What a batch did, still to be published.
#[derive(Default)]
struct Batch {
    held: Vec<Held>,
    revisions: Vec<Vec<Change>>,
    granted: Vec<Lease>,
    revoked: Vec<LeaseId>,
    compacted: Revision,
    trim_more: bool,
}

impl Writer {
    /// Until nobody can ask any more, or the file fails.
    pub(super) fn run(mut self) {
        let mut trim_more = true;
        loop {
            // While there is history to free, do not wait for requests.
            let first = if trim_more { self.requests.try_recv().ok() } else { self.requests.blocking_recv() };
            if first.is_none() && (!trim_more || self.requests.is_closed()) {
                return;
            }
            let mut requests: Vec<_> = first.into_iter().collect();
            while requests.len() < MAX_BATCH {
                let Ok(request) = self.requests.try_recv() else { break };
                requests.push(request);
            }
            match self.write(requests) {
                Ok(more) => trim_more = more,
                Err(problem) => return self.refuse_all(&problem),
            }
        }
    }

    /// One transaction. Returns whether history is left to free. Error: the file is of no use any more.
    fn write(&mut self, requests: Vec<Request>) -> Result<bool, String> {
        let mut batch = Batch::default();
        if let Err(error) = self.transact(requests, &mut batch) {
            let problem = error.1.to_string();
            for held in batch.held {
                held.fail(|operation| match error.0 {
                    // The transaction was given up before its commit: nothing of it is in the file.
                    Stage::Judging => StoreError::refused(operation, Refusal::Damaged(problem.clone())),
                    Stage::Committing => StoreError::Indeterminate { operation, problem: problem.clone() },
                });
            }
            return Err(problem);
        }
        let trim_more = batch.trim_more;
        self.publish(batch);
        Ok(trim_more)
    }

    fn transact(&self, requests: Vec<Request>, batch: &mut Batch) -> Result<(), (Stage, FileError)> {
        let judging = |error| (Stage::Judging, error);
        let mut txn = self.file.begin_write().map_err(|error| judging(error.into()))?;
        txn.set_durability(Durability::Immediate).map_err(|error| judging(error.into()))?;
        {
            let mut writing = Writing::open(&txn).map_err(judging)?;
            let excess = self.history().excess(self.history_bytes);
            if let Some(revision) = excess {
                writing.compact(revision);
            }
            for request in requests {
                // Who is not judged gets no answer, which is Indeterminate: true, if more careful than need be.
                self.judge(request, &mut writing, batch).map_err(judging)?;
            }
            batch.trim_more = writing.trim(MAX_TRIMMED_ROWS).map_err(judging)?;
            batch.compacted = writing.compacted;
            writing.finish().map_err(judging)?;
        }
        txn.commit().map_err(|error| (Stage::Committing, error.into()))
    }

    /// Judges one request; its answer is held back.
    fn judge(&self, request: Request, writing: &mut Writing<'_>, batch: &mut Batch) -> Result<(), FileError> {
        let (judged, answer, operation) = match request {
            Request::Grant(ttl, answer) => {
                let id = writing.grant(u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX))?;
                batch.granted.push(Lease { id, ttl });
                batch.held.push(Held::Lease(answer, Lease { id, ttl }));
                return Ok(());
            }
            Request::Expire(lease) if !self.leases.end_if_due(lease) => return Ok(()),
            Request::Expire(lease) => (writing.revoke(lease)?, None, "expire a lease"),
            Request::Commit(commit, answer) => (writing.commit(&commit)?, Some(answer), "commit"),
            Request::Revoke(lease, answer) => {
                batch.revoked.push(lease);
                (writing.revoke(lease)?, Some(answer), "revoke a lease")
            }
            Request::Compact(revision, answer) => (writing.compact(revision), Some(answer), "compact"),
        };
        let result = match judged {
            Judged::Done(changes) => {
                batch.revisions.extend(Some(changes).filter(|changes| !changes.is_empty()));
                Ok(writing.revision)
            }
            Judged::Conflict => Err(StoreError::Conflict),
            Judged::Refused(refusal) => Err(StoreError::refused(operation, refusal)),
        };
        batch.held.extend(answer.map(|answer| Held::Revision(answer, result)));
        Ok(())
    }

    fn history(&self) -> std::sync::RwLockReadGuard<'_, History> {
        self.history.read().expect("nothing panics while it holds the history")
    }

    fn publish(&self, batch: Batch) {
        let made = batch.revisions.len() as Revision;
        {
            let mut history = self.history.write().expect("nothing panics while it holds the history");
            batch.revisions.into_iter().for_each(|changes| history.append(changes));
            history.compact(batch.compacted);
        }
        batch.granted.iter().for_each(|lease| self.leases.begin(lease.id, lease.ttl));
        batch.revoked.iter().for_each(|lease| self.leases.end(*lease));
        if made > 0 {
            self.published.send_modify(|revision| *revision += made);
        }
        batch.held.into_iter().for_each(Held::send);
    }

    /// After a failed sync nobody knows what is in the file: only opening it again tells.
    fn refuse_all(mut self, problem: &str) {
        tracing::error!(problem, "the embedded store's file failed; the daemon must be started again");
        while let Some(request) = self.requests.blocking_recv() {
            let refuse =
                |operation| StoreError::refused(operation, Refusal::Damaged(format!("{problem}; start it again")));
            match request {
                Request::Commit(_, answer) => drop(answer.send(Err(refuse("commit")))),
                Request::Revoke(_, answer) => drop(answer.send(Err(refuse("revoke a lease")))),
                Request::Compact(_, answer) => drop(answer.send(Err(refuse("compact")))),
                Request::Grant(_, answer) => drop(answer.send(Err(refuse("grant a lease")))),
                Request::Expire(_) => {}
            }
        }
    }
}

/// Where a transaction failed.
enum Stage {
    Judging,
    Committing,
}
