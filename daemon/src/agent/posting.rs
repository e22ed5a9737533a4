//! When what waits in the outbox is sent: one batch at a time, again if it is not answered. Lives as long as a session.

use std::sync::Arc;
use std::time::Duration;

use lockstep_apis::v1alpha::NodeEvent;
use tokio::time::{Instant, sleep_until};

use super::outbox::Outbox;

/// Between two batches.
const PACE: Duration = Duration::from_millis(500);

/// After a batch that was not answered: the server could not store it, or waits for its store.
const RESEND: Duration = Duration::from_secs(10);

/// The sending side of the outbox.
pub(super) struct Posting {
    outbox: Arc<Outbox>,
    /// No batch before this.
    not_before: Instant,
}

impl Posting {
    pub(super) fn new(outbox: Arc<Outbox>) -> Self {
        Self { outbox, not_before: Instant::now() }
    }

    /// The next batch, when it is time; never, while nothing waits. May be dropped at any point.
    pub(super) async fn next(&mut self) -> Vec<NodeEvent> {
        loop {
            while self.outbox.is_empty() {
                self.outbox.filled.notified().await;
            }
            sleep_until(self.not_before).await;
            let outbox = self.outbox.clone();
            let batch = tokio::task::spawn_blocking(move || outbox.batch()).await.unwrap_or_default();
            if !batch.is_empty() {
                self.not_before = Instant::now() + RESEND;
                return batch;
            }
        }
    }

    /// Everything up to this number is stored.
    pub(super) async fn answered(&mut self, number: u64) {
        let outbox = self.outbox.clone();
        if tokio::task::spawn_blocking(move || outbox.acknowledged(number)).await.is_err() {
            tracing::error!("what was acknowledged of this node's events was not noted");
        }
        self.not_before = Instant::now() + PACE;
    }
}
