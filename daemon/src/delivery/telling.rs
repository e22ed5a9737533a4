//! Events that nodes tell of themselves: one batch of a node at a time, and not too many in a second.

use std::time::Duration;

use lockstep_apis::keys::Attempt;
use lockstep_apis::v1alpha::{AttemptRef, EventsAnswer, NodeEvent, server_message};
use tokio::time::{Instant, sleep_until};

use super::Delivery;
use super::session::Session;
use crate::events::{self, About, Speaker};

/// Between two batches of a node: it can store 200 Events a second, and no more.
const PACE: Duration = Duration::from_millis(500);

impl Delivery {
    /// Stores a batch and says up to where. Without an answer the node sends it again.
    pub(super) async fn keep_events(&self, session: &Session, events: Vec<NodeEvent>) {
        let mut last = session.telling.lock().await;
        if let Some(last) = *last {
            sleep_until(last + PACE).await;
        }
        self.learn_of(session, &events).await;
        let config = self.parts.cache.read().config();
        let speaker = Speaker { uid: &session.node, name: &session.name };
        let claimed = |attempt: &AttemptRef| self.claimed_by(session, attempt);
        match events::store_of_node(&*self.parts.store, &config, speaker, events, claimed).await {
            Ok(number) => session.send(server_message::Message::Events(EventsAnswer { number })),
            Err(problem) => tracing::debug!(node = session.name, %problem, "a node's events were not stored"),
        }
        *last = Some(Instant::now());
    }

    /// The cache may not have seen yet what they are about.
    async fn learn_of(&self, session: &Session, events: &[NodeEvent]) {
        let mut attempts = events.iter().filter_map(|event| event.attempt.as_ref());
        if attempts.any(|attempt| self.claimed_by(session, attempt).is_none())
            && let Err(problem) = self.parts.cache.catch_up(&*self.parts.store).await
        {
            tracing::debug!(node = session.name, %problem, "a node's events are judged by what is known");
        }
    }

    /// The Run of an attempt, if the node has claimed it.
    fn claimed_by(&self, session: &Session, attempt: &AttemptRef) -> Option<About> {
        let attempt = Attempt::from(attempt);
        let cache = self.parts.cache.read();
        let run = cache.world().run(&attempt.run)?;
        cache.world().attempt(&attempt).filter(|state| state.claim.is_some() && attempt.node == session.node)?;
        let snapshot = &run.plan()?.snapshot;
        Some(About { namespace: snapshot.namespace.clone(), run: snapshot.run_name.clone() })
    }
}
