//! What a leader does: asks the core what to do, does it, and asks again when something has changed. Knows how to
//! commit what was decided; decides nothing about Runs itself.
//!
//! # Guarantees (that the core's `step` asks for)
//! - A step sees what former leaders and this one have written: it waits until the cache has reached it. After a
//!   conflict it sees all that the store held then: what overtook it may be a copy of a decision of its own.
//! - A commit whose outcome is not known is sent again until it is, or the Term is over.

mod admission;
mod housekeeping;
mod liveness;

use std::sync::Arc;
use std::time::Duration;

use futures::stream::{self, StreamExt};
use lockstep_apis::commit::{Commit, Operation, Revision, Term};
use lockstep_apis::keys::{self, Parsed};
use lockstep_apis::v1alpha::{EventSeverity, Lock, LockStatus, Run, RunPhase};
use lockstep_core::fence::{Sight, UNREACHABLE_MS};
use lockstep_core::step::{Step, step};
use prost::Message;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::cache::Cache;
use crate::clock::{boot_ms, now_ms};
use crate::events::{self, Happening};
use crate::sealing::KeyRing;
use crate::store::{Store, StoreError};

pub use admission::{gather, unfinished};
pub use liveness::UpNodes;

/// Commits of one step that are in flight at once.
const IN_FLIGHT: usize = 8;

/// Before a commit whose outcome is not known is sent again.
const PAUSE: Duration = Duration::from_millis(200);

/// What a leader needs of the server.
pub struct Leader {
    /// Where decisions are written.
    pub store: Arc<dyn Store>,
    /// What they are made from.
    pub cache: Arc<Cache>,
    /// Opens and seals what a retried Run takes along.
    pub sealing: Arc<KeyRing>,
    /// `server/<uid>`, as events name it.
    pub source: String,
    /// Which nodes count as connected; kept by whoever leads.
    pub up: Arc<UpNodes>,
}

/// How a step went.
#[derive(Clone, Copy, Default)]
struct Outcome {
    /// The highest revision that it made.
    revision: Revision,
    /// Something was overtaken.
    conflicts: bool,
}

impl Outcome {
    fn and(self, other: Outcome) -> Outcome {
        Outcome { revision: self.revision.max(other.revision), conflicts: self.conflicts || other.conflicts }
    }
}

impl Leader {
    /// Leads whenever this server is told a Term, for ever.
    pub async fn lead(self: Arc<Self>, mut term: watch::Receiver<Option<Term>>) {
        loop {
            let Ok(current) = term.wait_for(Option::is_some).await.map(|term| *term) else { return };
            let Some(current) = current else { continue };
            self.up.begin();
            // Dropping the set ends what is under way: every write compares the Term.
            let mut duties = JoinSet::new();
            duties.spawn(self.clone().decide(current));
            duties.spawn(self.clone().watch_nodes(current));
            duties.spawn(self.clone().keep_house(current));
            if term.wait_for(|now| *now != Some(current)).await.is_err() {
                return;
            }
        }
    }

    /// Steps for ever: at once while there is something to do, else when something changed or is due.
    async fn decide(self: Arc<Self>, term: Term) {
        let mut changed = self.cache.revision();
        let mut sight = Sight::new(UNREACHABLE_MS);
        loop {
            changed.mark_unchanged();
            let (mut decided, fences) = {
                let cache = self.cache.read();
                let now_ms = now_ms();
                (step(cache.world(), term, now_ms), sight.look(cache.world(), term, boot_ms(), now_ms))
            };
            decided.commits.extend(fences.commits);
            let fence_at_ms = fences.wake_in_ms.map(|wait_ms| now_ms() + wait_ms);
            let wake_at_ms = decided.wake_at_ms.into_iter().chain(fence_at_ms).min();
            let idle = decided.commits.is_empty() && decided.admit.is_empty() && decided.status.is_empty();
            if idle {
                let due = wake_at_ms.map_or(u64::MAX, |at| at.saturating_sub(now_ms()).max(1));
                let _ = tokio::time::timeout(Duration::from_millis(due), changed.changed()).await;
                continue;
            }
            let outcome = self.carry_out(term, decided).await;
            self.cache.reached(outcome.revision).await;
            if outcome.conflicts {
                self.see_all().await;
            }
        }
    }

    /// Returns when the cache has all that the store holds now: on less, a ticket or a lock could be given twice.
    async fn see_all(&self) {
        while let Err(problem) = self.cache.catch_up(&*self.store).await {
            tracing::warn!(%problem, "the next decision waits for the store");
            tokio::time::sleep(PAUSE).await;
        }
    }

    async fn carry_out(&self, term: Term, decided: Step) -> Outcome {
        let commits = decided.commits.into_iter().chain(decided.status);
        let outcomes = stream::iter(commits.map(|commit| self.commit(self.with_events(commit))))
            .buffer_unordered(IN_FLIGHT)
            .fold(Outcome::default(), |all, one| async move { all.and(one) });
        let mut outcome = outcomes.await;
        for run in decided.admit {
            // Each sees the admission before it: their order is a number in the cursors.
            self.cache.reached(outcome.revision).await;
            outcome = outcome.and(self.admit(term, &run).await);
        }
        outcome
    }

    /// Commits until the outcome is certain.
    async fn commit(&self, commit: Commit) -> Outcome {
        loop {
            match self.store.commit(&commit).await {
                Ok(committed) => return Outcome { revision: committed.revision, conflicts: false },
                Err(StoreError::Conflict) => return Outcome { revision: 0, conflicts: true },
                Err(problem) if problem.is_transient() => {
                    tracing::warn!(%problem, "a decision waits for the store");
                    tokio::time::sleep(PAUSE).await;
                }
                Err(problem) => {
                    tracing::error!(%problem, "a decision was refused by the store");
                    tokio::time::sleep(PAUSE).await;
                    return Outcome { revision: 0, conflicts: true };
                }
            }
        }
    }

    /// Adds the event of a Run's start or end to the commit that decides it: both happen, or neither.
    fn with_events(&self, mut commit: Commit) -> Commit {
        let told: Vec<Operation> = {
            let cache = self.cache.read();
            let config = cache.config();
            let happenings = commit.operations.iter().filter_map(|operation| {
                let Operation::Put { key, value, .. } = operation else { return None };
                let Some(Parsed::Object { kind, namespace, name }) = keys::parse(key) else { return None };
                if kind == "locks" {
                    let before = cache.world().lock(&namespace, &name).and_then(|lock| lock.value.status.as_ref());
                    return lock_happening(before, &Lock::decode(value.as_slice()).ok()?);
                }
                let after = (kind == "runs").then(|| Run::decode(value.as_slice()).ok()).flatten()?;
                let uid = after.metadata.as_ref().map_or("", |metadata| &metadata.uuid);
                let stored = cache.world().run(uid);
                let before = stored.map_or(RunPhase::Pending, |run| run.stored_phase());
                let status = stored.and_then(|run| run.object()).and_then(|object| object.value.status.as_ref());
                run_happening(before, status.is_some_and(|status| status.started_at.is_some()), &after)
            });
            happenings
                .filter(|happening| events::is_kept(&config, happening.r#type))
                .map(|happening| happening.into_operation(&self.source, now_ms()))
                .collect()
        };
        commit.operations.extend(told);
        commit
    }
}

/// What a leader's write of a lock tells: a Run left it poisoned, or an admin's time has run out. `None`: nothing that is
/// an event.
fn lock_happening(before: Option<&LockStatus>, after: &Lock) -> Option<Happening> {
    let (metadata, status) = (after.metadata.as_ref()?, after.status.as_ref()?);
    let over = before.iter().flat_map(|before| &before.holds).find(|hold| !status.holds.contains(hold));
    let (r#type, severity, message) = match (&status.poison, over) {
        (Some(poison), _) if before.is_none_or(|before| before.poison.is_none()) => {
            let message = format!("run {} failed and left the lock {} poisoned", poison.run, metadata.name);
            ("lock/poisoned", EventSeverity::Warning, message)
        }
        (_, Some(hold)) => {
            let message = format!("the time ran out for which {} held the lock {}", hold.owner, metadata.name);
            ("lock/expired", EventSeverity::Info, message)
        }
        _ => return None,
    };
    Some(Happening {
        namespace: metadata.namespace.clone(),
        r#type,
        severity,
        regarding: format!("Lock/{}/{}", metadata.namespace, metadata.name),
        node: String::new(),
        message,
        data: None,
    })
}

/// What a change of a Run's status tells. `None`: nothing that is an event.
fn run_happening(before: RunPhase, was_started: bool, after: &Run) -> Option<Happening> {
    let (metadata, status) = (after.metadata.as_ref()?, after.status.as_ref()?);
    let is_end = |phase| matches!(phase, RunPhase::Succeeded | RunPhase::Failed | RunPhase::Cancelled);
    let (r#type, severity, word) = match status.phase() {
        phase if phase == before || is_end(before) => return None,
        RunPhase::Running if status.started_at.is_some() && !was_started => {
            ("run/started", EventSeverity::Info, "started")
        }
        RunPhase::Succeeded => ("run/finished", EventSeverity::Info, "succeeded"),
        RunPhase::Cancelled => ("run/finished", EventSeverity::Warning, "was cancelled"),
        RunPhase::Failed => ("run/finished", EventSeverity::Warning, "failed"),
        _ => return None,
    };
    let message = match status.message.as_str() {
        "" => format!("run {} {word}", metadata.name),
        message => format!("run {} {word}: {message}", metadata.name),
    };
    Some(Happening {
        namespace: metadata.namespace.clone(),
        r#type,
        severity,
        regarding: format!("Run/{}/{}", metadata.namespace, metadata.name),
        node: String::new(),
        message,
        data: None,
    })
}
