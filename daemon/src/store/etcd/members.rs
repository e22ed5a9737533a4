//! The members of an etcd cluster: which one we talk to, for how long we wait, and what we ask again.
//!
//! The client library balances over all endpoints and goes on asking a dead one; so each member has a client of its
//! own here, and we stay with one until it fails us.

use std::future::Future;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use etcd_client::{Client, ConnectOptions};
use lockstep_apis::commit::LeaseId;
use tokio::time::{Instant, sleep, timeout};

use super::fault::Fault;
use crate::store::StoreError;

/// How long one member may take for a read. It waits for a leader meanwhile; another member may know one.
const READ_PATIENCE: Duration = Duration::from_secs(3);

/// How long one member may take for a commit: longer than etcd's own limit (7 s), so that its answer comes first.
const WRITE_PATIENCE: Duration = Duration::from_secs(10);

/// How long requests are repeated where that is safe: an election of etcd's and some.
pub(super) const DEADLINE: Duration = Duration::from_secs(15);

/// Between two attempts that failed at once.
pub(super) const PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Members {
    clients: Vec<Client>,
    current: AtomicUsize,
}

/// A member that was asked.
pub(super) struct Member {
    index: usize,
    pub(super) client: Client,
}

impl Members {
    /// Connects to nobody yet.
    pub(super) async fn new(endpoints: &[String], options: &ConnectOptions) -> Result<Self, etcd_client::Error> {
        let mut clients = Vec::new();
        for endpoint in endpoints {
            clients.push(Client::connect([endpoint], Some(options.clone())).await?);
        }
        // Servers spread over the members without knowing of each other.
        let first = std::hash::RandomState::new().hash_one(0) as usize % clients.len().max(1);
        Ok(Self { clients, current: AtomicUsize::new(first) })
    }

    /// The member that we are with.
    pub(super) fn current(&self) -> Member {
        let index = self.current.load(Ordering::Relaxed);
        Member { index, client: self.clients[index].clone() }
    }

    /// The member failed: go to the next one, unless another request already did.
    pub(super) fn leave(&self, member: &Member) {
        let next = (member.index + 1) % self.clients.len();
        let _ = self.current.compare_exchange(member.index, next, Ordering::Relaxed, Ordering::Relaxed);
    }

    /// Asks for what has no effect, or may be asked again: repeats it until it is answered.
    pub(super) async fn read<T, F>(
        &self,
        operation: &'static str,
        lease: Option<LeaseId>,
        call: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let fault = self.attempt(READ_PATIENCE, lease, |fault| !matches!(fault, Fault::Unknown(_)), call).await;
        fault.map_err(|fault| fault.of_read(operation))
    }

    /// Asks for what must not happen twice: repeats it only while it was certainly not sent.
    pub(super) async fn write<T, F>(
        &self,
        operation: &'static str,
        lease: Option<LeaseId>,
        call: impl Fn(Client) -> F,
    ) -> Result<T, StoreError>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let fault = self.attempt(WRITE_PATIENCE, lease, |_| true, call).await;
        fault.map_err(|fault| fault.of_write(operation))
    }

    /// `is_final`: of the faults that are not [`Fault::Unreached`], those that end the attempts.
    async fn attempt<T, F>(
        &self,
        patience: Duration,
        lease: Option<LeaseId>,
        is_final: impl Fn(&Fault) -> bool,
        call: impl Fn(Client) -> F,
    ) -> Result<T, Fault>
    where
        F: Future<Output = Result<T, etcd_client::Error>>,
    {
        let begun = Instant::now();
        loop {
            let member = self.current();
            let fault = match timeout(patience, call(member.client.clone())).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => Fault::of(&error, lease),
                Err(_) => Fault::Unknown(format!("no answer within {patience:?}")),
            };
            if let Fault::Unreached(_) | Fault::Unknown(_) = fault {
                self.leave(&member);
            }
            let again = matches!(fault, Fault::Unreached(_)) || !is_final(&fault);
            if !again || begun.elapsed() >= DEADLINE {
                return Err(fault);
            }
            sleep(PAUSE).await;
        }
    }
}
