//! Many small commits of many agents as few large ones: what comes while commits are in flight shares the next.
//! Knows compares and operations; not what they are about.
//!
//! # Guarantees
//! - A commit that is handed in happens whole or not at all, and its answer is of the class that the store gave; a
//!   conflict of one never reaches another: those that shared are then committed alone.

use std::collections::HashSet;
use std::sync::Arc;

use lockstep_apis::commit::{Commit, Compare, MAX_OPERATIONS, Operation, Revision};
use lockstep_apis::keys::Key;
use tokio::sync::{Semaphore, mpsc, oneshot};

use crate::store::{MAX_COMMIT_BYTES, Refusal, Store, StoreError};

/// Most commits that share one.
const MAX_SHARED: usize = 50;

/// Commits in flight: enough to keep an etcd busy, few enough to let others gather.
const IN_FLIGHT: usize = 8;

/// Commits that wait; more make their makers wait.
const QUEUE: usize = 1024;

/// Half of what a commit may have: a report has 256 KiB at most.
const SHARED_BYTES: usize = MAX_COMMIT_BYTES / 2;

/// Takes commits. Cheap to clone.
#[derive(Clone)]
pub struct Committer {
    queue: mpsc::Sender<Request>,
}

struct Request {
    commit: Commit,
    answer: oneshot::Sender<Result<Revision, StoreError>>,
}

impl Committer {
    /// A committer and its task, which ends when the last clone is dropped.
    pub fn new(store: Arc<dyn Store>) -> (Self, impl Future<Output = ()>) {
        let (queue, requests) = mpsc::channel(QUEUE);
        (Self { queue }, serve(store, requests))
    }

    /// Commits, maybe together with others. Returns the revision.
    pub async fn commit(&self, commit: Commit) -> Result<Revision, StoreError> {
        let closed = || StoreError::Definite { operation: "commit", refusal: Refusal::Closed };
        let (answer, answered) = oneshot::channel();
        self.queue.send(Request { commit, answer }).await.map_err(|_| closed())?;
        // The task went in the middle of it.
        let lost = |_| StoreError::Indeterminate { operation: "commit", problem: "the server is ending".into() };
        answered.await.map_err(lost)?
    }
}

async fn serve(store: Arc<dyn Store>, mut requests: mpsc::Receiver<Request>) {
    let flights = Arc::new(Semaphore::new(IN_FLIGHT));
    let mut waiting = None;
    loop {
        let Ok(flight) = flights.clone().acquire_owned().await else { return };
        let first = match waiting.take() {
            Some(request) => request,
            None => match requests.recv().await {
                Some(request) => request,
                None => return,
            },
        };
        let mut shared = Shared::of(first);
        while shared.requests.len() < MAX_SHARED
            && let Ok(next) = requests.try_recv()
        {
            if let Err(apart) = shared.add(next) {
                waiting = Some(apart);
                break;
            }
        }
        let store = store.clone();
        tokio::spawn(async move {
            shared.carry_out(&*store).await;
            drop(flight);
        });
    }
}

/// Requests that go as one commit.
struct Shared {
    requests: Vec<Request>,
    compares: HashSet<Compare>,
    keys: HashSet<Key>,
    bytes: usize,
}

impl Shared {
    fn of(first: Request) -> Self {
        let mut shared = Self { requests: Vec::new(), compares: HashSet::new(), keys: HashSet::new(), bytes: 0 };
        shared.take(first);
        shared
    }

    /// Adds a request, or gives it back: it does not fit, or touches what another one does.
    fn add(&mut self, request: Request) -> Result<(), Request> {
        let operations = &request.commit.operations;
        let fits = self.keys.len() + operations.len() <= MAX_OPERATIONS
            && self.compares.len() + request.commit.compares.len() <= MAX_OPERATIONS
            && self.bytes + size(operations) <= SHARED_BYTES;
        // A prefix may cover keys that are not named.
        let touches = operations.iter().any(|operation| match operation {
            Operation::Put { key, .. } | Operation::Delete(key) => self.keys.contains(key),
            Operation::DeletePrefix(_) => true,
        });
        if !fits || touches || self.relies_on(&request) {
            return Err(request);
        }
        self.take(request);
        Ok(())
    }

    /// Whether one of the requests compares what the other writes.
    fn relies_on(&self, request: &Request) -> bool {
        let written = |compare: &Compare, keys: &HashSet<Key>| keys.contains(crate::store::compared(compare));
        let own: HashSet<Key> = keys(&request.commit.operations).cloned().collect();
        request.commit.compares.iter().any(|compare| written(compare, &self.keys))
            || self.compares.iter().any(|compare| written(compare, &own))
    }

    fn take(&mut self, request: Request) {
        self.bytes += size(&request.commit.operations);
        self.keys.extend(keys(&request.commit.operations).cloned());
        self.compares.extend(request.commit.compares.iter().cloned());
        self.requests.push(request);
    }

    async fn carry_out(mut self, store: &dyn Store) {
        if self.requests.len() > 1 {
            let together = Commit {
                compares: self.compares.drain().collect(),
                operations: self.requests.iter().flat_map(|r| r.commit.operations.iter().cloned()).collect(),
            };
            match store.commit(&together).await {
                Ok(committed) => return self.answer(|| Ok(committed.revision)),
                // Nothing happened; whose fault it is shows when each goes alone.
                Err(StoreError::Conflict) => {}
                Err(StoreError::Definite { refusal: Refusal::Invalid(_) | Refusal::TooLarge(_), .. }) => {}
                Err(problem) => return self.answer(|| Err(again(&problem))),
            }
        }
        let alone = self.requests.into_iter().map(|request| async move {
            let answer = store.commit(&request.commit).await.map(|committed| committed.revision);
            // Who asked may have gone.
            let _ = request.answer.send(answer);
        });
        futures::future::join_all(alone).await;
    }

    fn answer(self, answer: impl Fn() -> Result<Revision, StoreError>) {
        for request in self.requests {
            let _ = request.answer.send(answer());
        }
    }
}

fn keys(operations: &[Operation]) -> impl Iterator<Item = &Key> {
    operations.iter().map(|operation| match operation {
        Operation::Put { key, .. } | Operation::Delete(key) | Operation::DeletePrefix(key) => key,
    })
}

fn size(operations: &[Operation]) -> usize {
    operations
        .iter()
        .map(|operation| match operation {
            Operation::Put { key, value, .. } => key.as_bytes().len() + value.len(),
            Operation::Delete(key) | Operation::DeletePrefix(key) => key.as_bytes().len(),
        })
        .sum()
}

/// The same error for another one who shared the commit.
fn again(problem: &StoreError) -> StoreError {
    match problem {
        StoreError::Definite { operation, refusal } => StoreError::Definite { operation, refusal: refusal.clone() },
        StoreError::Conflict => StoreError::Conflict,
        StoreError::Indeterminate { operation, problem } => {
            StoreError::Indeterminate { operation, problem: problem.clone() }
        }
        StoreError::Compacted { revision } => StoreError::Compacted { revision: *revision },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::embedded::{Embedded, EmbeddedSettings};
    use lockstep_apis::keys;

    #[tokio::test]
    async fn a_conflict_of_one_does_not_reach_those_that_shared() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap());
        let (committer, task) = Committer::new(store.clone());
        let task = tokio::spawn(task);
        let all = (0..200).map(|n: u32| {
            let (committer, run) = (committer.clone(), n.to_string());
            async move {
                let commit = Commit::new().create(keys::gate(&run), vec![1]);
                // Every tenth relies on what is not there.
                let commit =
                    if n.is_multiple_of(10) { commit.when(Compare::Present(keys::cursor(&run))) } else { commit };
                (n, committer.commit(commit).await)
            }
        });
        for (n, answer) in futures::future::join_all(all).await {
            match n % 10 {
                0 => assert!(matches!(answer, Err(StoreError::Conflict)), "{n}: {answer:?}"),
                _ => assert!(answer.is_ok(), "{n}: {answer:?}"),
            }
        }
        assert_eq!(store.snapshot(&keys::everything()).await.unwrap().entries.len(), 180);
        drop(committer);
        task.await.unwrap();
    }

    #[tokio::test]
    async fn two_for_one_key_are_not_one_commit() {
        let folder = tempfile::tempdir().unwrap();
        let store: Arc<dyn Store> =
            Arc::new(Embedded::open(&EmbeddedSettings::new(folder.path().join("s"))).await.unwrap());
        let (committer, task) = Committer::new(store.clone());
        tokio::spawn(task);
        let both = (0..2).map(|n| committer.commit(Commit::new().create(keys::gate("r"), vec![n])));
        let answers = futures::future::join_all(both).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1, "{answers:?}");
    }
}
