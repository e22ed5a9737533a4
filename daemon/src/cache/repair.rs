//! What a watch lost: the store is listed now and then and compared with the cache. Old etcd has lost events (and a
//! list has not); each difference is corrected and counted.

use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

use lockstep_apis::commit::{Entry, Revision};
use lockstep_apis::keys::{self, Key};
use tokio::time::Instant;

use super::{Cache, PAGE, state::is_cached};
use crate::store::{self, Range, Store, StoreError};

/// Between two comparisons; longer if one takes more than a twentieth of that.
const EVERY: Duration = Duration::from_secs(60);

impl Cache {
    /// Compares for ever. Errors of the store are for the next time.
    pub async fn repair(&self, store: &dyn Store) {
        let mut pause = EVERY;
        loop {
            tokio::time::sleep(pause).await;
            let began = Instant::now();
            match self.repair_once(store).await {
                Ok(0) => {}
                Ok(found) => tracing::warn!(found, "the watch of the store had lost changes; they are repaired"),
                Err(problem) => tracing::debug!(%problem, "the cache was not compared with the store"),
            }
            pause = EVERY.max(began.elapsed() * 20);
        }
    }

    /// Compares once; returns how many keys were wrong.
    pub(super) async fn repair_once(&self, store: &dyn Store) -> Result<usize, StoreError> {
        let at = self.catch_up(store).await?;
        let (mut after, mut found) = (None, 0);
        loop {
            let page =
                store.list(&keys::everything(), Range { after: after.clone(), limit: PAGE, at: Some(at) }).await?;
            let last = page.entries.last().map(|entry| entry.key.clone());
            let until = if page.more { last.as_ref() } else { None };
            found += self.compare(page.entries, after.as_ref(), until, at);
            if !page.more {
                return Ok(found);
            }
            after = last;
        }
    }

    /// Corrects the keys behind `after` up to `until` from what the store had at a revision.
    fn compare(&self, listed: Vec<Entry>, after: Option<&Key>, until: Option<&Key>, at: Revision) -> usize {
        let in_range = |key: &Key| after.is_none_or(|after| key > after) && until.is_none_or(|until| key <= until);
        let mut state = self.write();
        // What was deleted after that revision is rightly missing. If that is not known any more: another time.
        let Ok(since) = state.history.position(at).and_then(|position| state.history.since(position)) else { return 0 };
        let deleted: BTreeSet<&Key> = since.iter().flat_map(|b| &b.changes).filter_map(|c| c.deleted()).collect();
        let there: BTreeSet<&Key> = listed.iter().map(|entry| &entry.key).collect();
        let first = after.cloned().unwrap_or_else(keys::everything);
        let gone: Vec<Key> = state
            .keys
            .range(first..)
            .take_while(|(key, _)| until.is_none_or(|until| *key <= until))
            .filter(|(key, revision)| in_range(key) && **revision <= at && !there.contains(key))
            .map(|(key, _)| key.clone())
            .collect();
        let wrong = |entry: &Entry| match state.keys.get(&entry.key) {
            Some(known) => *known < entry.mod_revision,
            None => is_cached(&entry.key) && !deleted.contains(&entry.key),
        };
        let put: Vec<bool> = listed.iter().map(wrong).collect();
        let put = listed.into_iter().zip(put).filter(|(_, wrong)| *wrong).map(|(entry, _)| store::Change::Put(entry));
        let revision = state.world.revision();
        let changes: Vec<store::Change> =
            gone.into_iter().map(|key| store::Change::Delete(key, revision)).chain(put).collect();
        let found = changes.len();
        if found > 0 {
            state.fold(revision, changes);
            drop(state);
            self.repairs.fetch_add(found as u64, Ordering::Relaxed);
            self.revision.send_replace(revision);
        }
        found
    }
}
