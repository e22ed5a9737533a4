//! What a cluster would drown in: ended Runs, old events, expired tokens, old revisions.
//! Each write compares the Term.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::commit::{Commit, Operation, Revision, Term};
use lockstep_apis::keys;
use lockstep_apis::timestamp;
use lockstep_apis::v1alpha::JoinToken;
use lockstep_core::protocol;
use lockstep_core::world::World;
use prost::Message;

use super::Leader;
use crate::clock::now_ms;
use crate::events;
use crate::store::{Range, StoreError};

/// How often it is done.
const EVERY: Duration = Duration::from_secs(5);

/// Of them so many between two compactions: five minutes.
const ROUNDS_PER_COMPACTION: usize = 60;

/// History is kept for an hour,
const KEPT_MS: u64 = 60 * 60 * 1000;

/// and no more than this many revisions.
const KEPT_REVISIONS: u64 = 10_000;

/// Keys of a page, and of a commit beside the Term.
const PAGE: usize = 1000;
const DELETES: usize = 90;

impl Leader {
    /// Keeps house for ever.
    pub(super) async fn keep_house(self: Arc<Self>, term: Term) {
        let mut revisions: VecDeque<(u64, Revision)> = VecDeque::new();
        for round in 0_usize.. {
            let now_and_then = round % ROUNDS_PER_COMPACTION == 0;
            for (what, done) in [
                ("runs", self.prune_runs(term).await),
                ("events", if now_and_then { self.prune_events(term).await } else { Ok(()) }),
                ("tokens", if now_and_then { self.prune_tokens(term).await } else { Ok(()) }),
            ] {
                if let Err(problem) = done {
                    tracing::debug!(%problem, what, "could not be tidied; later");
                }
            }
            revisions.push_back((now_ms(), *self.cache.revision().borrow()));
            if round % ROUNDS_PER_COMPACTION == ROUNDS_PER_COMPACTION - 1 {
                self.compact(&mut revisions).await;
            }
            tokio::time::sleep(EVERY).await;
        }
    }

    async fn compact(&self, revisions: &mut VecDeque<(u64, Revision)>) {
        let Some((now_ms, newest)) = revisions.back().copied() else { return };
        let mut oldest = newest.saturating_sub(KEPT_REVISIONS);
        while let Some((at, revision)) = revisions.front().copied().filter(|(at, _)| at + KEPT_MS < now_ms) {
            revisions.pop_front();
            tracing::trace!(at, revision, "history older than an hour");
            oldest = oldest.max(revision);
        }
        if oldest == 0 {
            return;
        }
        match self.store.compact(oldest).await {
            Ok(()) => tracing::debug!(revision = oldest, "compacted"),
            Err(problem) => tracing::warn!(%problem, "the store's history was not compacted"),
        }
    }

    /// Ended Runs beyond what the Config keeps.
    async fn prune_runs(&self, term: Term) -> Result<(), StoreError> {
        let commits = {
            let cache = self.cache.read();
            let config = cache.config();
            let oldest_ms = now_ms().saturating_sub(config.retained_run_age_ms());
            superfluous(cache.world(), config.retained_runs(), oldest_ms)
        };
        for commit in commits {
            self.tidy(commit.when(term.compare())).await?;
        }
        Ok(())
    }

    /// Events that are older than the Config keeps, and the oldest of too many.
    async fn prune_events(&self, term: Term) -> Result<(), StoreError> {
        let config = self.cache.read().config();
        let (oldest_ms, most) = (now_ms().saturating_sub(config.retained_events_ms()), config.retained_event_count());
        let namespaces: Vec<String> = {
            let cache = self.cache.read();
            cache.objects(&keys::object_prefix("namespaces", None)).map(|(_, o)| o.metadata().name.clone()).collect()
        };
        for namespace in namespaces {
            let prefix = keys::events_prefix(Some(&namespace));
            let mut batches = Vec::new();
            let mut after = None;
            loop {
                let page = self.store.list(&prefix, Range { after, limit: PAGE, at: None }).await?;
                after = page.entries.last().map(|entry| entry.key.clone());
                batches.extend(page.entries.iter().map(|entry| (entry.key.clone(), events::objects_of(entry).len())));
                if !page.more {
                    break;
                }
            }
            let mut count: usize = batches.iter().map(|(_, count)| count).sum();
            let gone = batches.into_iter().take_while(|(key, of_batch)| {
                let old = events::batch_time_ms(key).is_none_or(|at| at < oldest_ms) || count > most;
                count -= if old { *of_batch } else { 0 };
                old
            });
            let gone: Vec<_> = gone.map(|(key, _)| Operation::Delete(key)).collect();
            self.delete(term, gone).await?;
        }
        Ok(())
    }

    async fn prune_tokens(&self, term: Term) -> Result<(), StoreError> {
        let page = self.store.list(&keys::tokens(), Range::first(PAGE)).await?;
        let expired = page
            .entries
            .into_iter()
            .filter(|entry| JoinToken::decode(entry.value.as_slice()).is_ok_and(|token| token.expires_ms < now_ms()));
        self.delete(term, expired.map(|entry| Operation::Delete(entry.key)).collect()).await
    }

    async fn delete(&self, term: Term, operations: Vec<Operation>) -> Result<(), StoreError> {
        for some in operations.chunks(DELETES) {
            let mut commit = Commit::new().when(term.compare());
            commit.operations.extend_from_slice(some);
            self.tidy(commit).await?;
        }
        Ok(())
    }

    /// Commits once: what is overtaken is for the next round.
    async fn tidy(&self, commit: Commit) -> Result<(), StoreError> {
        match self.store.commit(&commit).await {
            Ok(_) | Err(StoreError::Conflict) => Ok(()),
            Err(problem) => Err(problem),
        }
    }
}

/// What deletes ended Runs that are older, or beyond so many in their namespace. Not those that hold places or locks,
/// nor those that a Run which waits for admission retries: it takes their snapshots on.
fn superfluous(world: &World, kept: usize, oldest_ms: u64) -> Vec<Commit> {
    let mut ended: BTreeMap<&str, Vec<(u64, &str)>> = BTreeMap::new();
    let mut retried: BTreeSet<(&str, &str)> = BTreeSet::new();
    for run in world.runs() {
        let Some(object) = run.object() else { continue };
        let namespace = object.value.metadata.as_ref().map_or("", |metadata| &metadata.namespace);
        if run.is_pending() {
            retried.insert((namespace, object.value.spec.as_ref().map_or("", |spec| &spec.retry_of)));
        }
        if run.has_ended() && run.cursor().is_none() {
            let finished = object.value.status.as_ref().and_then(|status| status.finished_at.as_ref());
            ended.entry(namespace).or_default().push((finished.map_or(0, timestamp::to_ms), run.uid()));
        }
    }
    let mut commits = Vec::new();
    for (namespace, mut runs) in ended {
        runs.sort_unstable();
        let beyond = runs.len().saturating_sub(kept);
        let gone = runs.iter().enumerate().filter(|(at, (finished_ms, _))| *at < beyond || *finished_ms < oldest_ms);
        let needed = |uid: &str| world.run(uid).is_some_and(|run| retried.contains(&(namespace, run.name())));
        let gone = gone.filter(|(_, (_, uid))| !needed(uid));
        commits.extend(gone.filter_map(|(_, (_, uid))| protocol::remove(world, uid).ok()));
    }
    commits
}

#[cfg(test)]
mod tests;
