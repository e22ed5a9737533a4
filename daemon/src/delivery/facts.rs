//! Facts that changed while their node is attached: the last that came is written, if it is news.

use std::sync::Mutex;
use std::time::Duration;

use lockstep_apis::commit::Commit;
use lockstep_apis::v1alpha::Value;
use tokio::time::{Instant, sleep, sleep_until};

use super::Delivery;
use super::greeting::{ATTEMPTS, PAUSE, with_status};
use super::session::{Session, locked};
use crate::clock::now_ms;
use crate::store::StoreError;

/// Most bytes that are kept of one node.
const MAX_BYTES: usize = 256 * 1024;

/// Between two writes of one node's facts.
const PACE: Duration = Duration::from_secs(1);

/// What is to be written.
#[derive(Default)]
pub(super) struct News {
    latest: Mutex<Option<Value>>,
    /// When the last were written; held while others are.
    writing: tokio::sync::Mutex<Option<Instant>>,
}

impl News {
    /// These take the place of what waits.
    pub(super) fn put(&self, facts: Option<Value>) {
        if facts.is_some() {
            *locked(&self.latest) = facts;
        }
    }
}

/// Whether what a node says of itself is within its limit.
pub(super) fn are_kept(node: &str, facts: &Value) -> bool {
    let size = facts.size();
    if size > MAX_BYTES {
        tracing::warn!(node, size, "a node's facts are too long; the former ones stay");
    }
    size <= MAX_BYTES
}

impl Delivery {
    /// Writes the facts that wait. Goes on until they are written, or the session is over: the agent does not ask.
    pub(super) async fn write_facts(&self, session: &Session) {
        let mut last = session.facts.writing.lock().await;
        if let Some(last) = *last {
            sleep_until(last + PACE).await;
        }
        let Some(facts) = locked(&session.facts.latest).take() else { return };
        if !are_kept(&session.name, &facts) {
            return;
        }
        while !self.are_written(session, &facts).await {
            sleep(PAUSE).await;
            if !self.is_current(session) {
                return;
            }
        }
        *last = Some(Instant::now());
    }

    async fn are_written(&self, session: &Session, facts: &Value) -> bool {
        for _ in 0..ATTEMPTS {
            let Some((mut node, revision)) = self.node(&session.node) else { return true };
            let status = node.status.get_or_insert_default();
            if status.facts.as_ref() == Some(facts) {
                return true;
            }
            status.facts = Some(facts.clone());
            let commit = with_status(Commit::new(), node, revision, now_ms());
            match self.parts.committer.commit(commit).await {
                Ok(_) => return true,
                Err(StoreError::Conflict) => {
                    if self.parts.cache.catch_up(&*self.parts.store).await.is_err() {
                        return false;
                    }
                }
                Err(problem) => {
                    tracing::debug!(node = session.name, %problem, "facts were not written");
                    return false;
                }
            }
        }
        false
    }
}
