//! When the embedded store's leases end. In memory: the file knows that they exist and how long they live, and a
//! restart gives each its whole time again, so that no holder loses a lease because the store was away.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard};
use std::time::Duration;

use lockstep_apis::commit::LeaseId;
use tokio::sync::Notify;
use tokio::time::Instant;

struct Deadline {
    ttl: Duration,
    at: Instant,
}

/// The deadlines of all leases.
#[derive(Default)]
pub(super) struct Leases {
    deadlines: Mutex<HashMap<LeaseId, Deadline>>,
    granted: Notify,
}

impl Leases {
    fn lock(&self) -> MutexGuard<'_, HashMap<LeaseId, Deadline>> {
        self.deadlines.lock().expect("nothing panics while it holds the deadlines")
    }

    /// Begins a lease's life.
    pub(super) fn begin(&self, lease: LeaseId, ttl: Duration) {
        self.lock().insert(lease, Deadline { ttl, at: Instant::now() + ttl });
        self.granted.notify_one();
    }

    /// Gives a lease its whole time again. `None`: it is over.
    pub(super) fn renew(&self, lease: LeaseId) -> Option<Instant> {
        let mut deadlines = self.lock();
        let deadline = deadlines.get_mut(&lease)?;
        deadline.at = Instant::now() + deadline.ttl;
        Some(deadline.at)
    }

    /// Ends a lease: no renewal succeeds any more.
    pub(super) fn end(&self, lease: LeaseId) {
        self.lock().remove(&lease);
    }

    /// Ends the lease if its time is over. A renewal that came first wins.
    pub(super) fn end_if_due(&self, lease: LeaseId) -> bool {
        let mut deadlines = self.lock();
        let due = deadlines.get(&lease).is_some_and(|deadline| deadline.at <= Instant::now());
        if due {
            deadlines.remove(&lease);
        }
        due
    }

    /// Waits until at least one lease is due; returns all that are.
    pub(super) async fn due(&self) -> Vec<LeaseId> {
        loop {
            let (due, next) = {
                let (deadlines, now) = (self.lock(), Instant::now());
                let due: Vec<_> = deadlines.iter().filter(|(_, d)| d.at <= now).map(|(lease, _)| *lease).collect();
                (due, deadlines.values().map(|deadline| deadline.at).min())
            };
            if !due.is_empty() {
                return due;
            }
            let next_due = async {
                match next {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = next_due => {}
                () = self.granted.notified() => {}
            }
        }
    }
}
